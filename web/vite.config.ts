import { copyFileSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import tailwind from '@tailwindcss/vite';
import { defineConfig, type Plugin } from 'vite';

/** Compresses once at the build, not with every request. */
function brotli(): Plugin {
  return {
    name: 'brotli',
    apply: 'build',
    closeBundle() {
      const folder = join(import.meta.dirname, 'dist');
      // Its licence goes where it goes.
      copyFileSync(join(import.meta.dirname, 'node_modules/@novnc/novnc/LICENSE.txt'), join(folder, 'novnc-licence.txt'));
      for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
        if (!/\.(js|css|html|svg)$/.test(name)) continue;
        const raw = readFileSync(join(folder, name));
        const packed = brotliCompressSync(raw, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
        if (packed.length < raw.length) writeFileSync(join(folder, `${name}.br`), packed);
      }
    },
  };
}

export default defineConfig({
  plugins: [tailwind(), svelte(), brotli()],
  build: { target: 'es2022', modulePreload: { polyfill: false }, assetsInlineLimit: 0, chunkSizeWarningLimit: 600 },
  // `npm run dev`: the interface with hot reload before a running server.
  server: { proxy: { '/api': { target: process.env.LIFEBOAT_URL ?? 'https://127.0.0.1:8443', secure: false } } },
});
