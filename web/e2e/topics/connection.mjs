// The way to the server is cut, by the network and by the server's end, and comes back.
import assert from 'node:assert/strict';
import { createServer, connect } from 'node:net';
import { ADMIN, BASE, axe, expect, origins, reads, shot, step, tab, until, visit } from '../lib.mjs';

/** Passes a port on to the server; can be cut, as a network is: what is open ends, nothing new is let in. */
function link() {
  const port = Number(new URL(BASE).port);
  const open = new Set();
  let cut = false;
  const server = createServer((peer) => {
    if (cut) return peer.destroy();
    const far = connect(port, '127.0.0.1');
    for (const [one, other] of [[peer, far], [far, peer]]) {
      open.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => { open.delete(one); other.destroy(); });
      one.pipe(other);
    }
  });
  return {
    listen: () => new Promise((done) => server.listen(0, '127.0.0.1', () => done(server.address().port))),
    cut: () => { cut = true; for (const socket of open) socket.destroy(); },
    mend: () => { cut = false; },
    end: () => { for (const socket of open) socket.destroy(); server.close(); },
  };
}

export async function connection({ page, context }) {
  await step('the browser goes offline: shown, and mended', async () => {
    await visit(page, '/items');
    await page.locator('[data-live=Live]').waitFor();
    expect(/ERR_INTERNET_DISCONNECTED|Failed to load/);
    await context.setOffline(true);
    await reads(page.getByRole('alert'), /No answer from the server.*as of/);
    await page.locator('[data-live=Stale]').waitFor();
    await shot(page, 'stale');
    await axe(page, 'stale');
    await context.setOffline(false);
    await page.locator('[data-live=Live]').waitFor();
    assert.equal(await page.getByRole('alert').count(), 0);
    expect(null);
  });
  await step('a part of the page that is not to be had any more says so', async () => {
    expect(/ERR_FAILED|Failed to (load|fetch)/);
    await page.route(/assets\/Charts-.*\.js/, (route) => route.abort());
    await visit(page, '/items/lab1?tab=charts');
    await reads(page.locator('main'), /The charts cannot be loaded[\s\S]*What to do: Load the page anew/);
    await page.unroute(/assets\/Charts-.*\.js/);
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByText('Churn').first().waitFor();
    await page.locator('.uplot').first().waitFor();
    expect(null);
  });
  await step('the connection is cut in the middle: the page stays, and catches up by itself', async () => {
    const way = link();
    const port = await way.listen();
    const own = await tab();
    try {
      const base = `https://127.0.0.1:${port}`;
      origins.add(base);
      await own.page.goto(`${base}/`);
      await own.page.getByLabel('User').fill('admin');
      await own.page.getByLabel('Password').fill(ADMIN);
      await own.page.getByRole('button', { name: 'Log in' }).click();
      await own.page.locator('[data-live=Live]').waitFor();
      await own.page.goto(`${base}/policies`);
      await own.page.locator('[data-live=Live]').waitFor();
      expect(/ERR_|Failed to load/);
      way.cut();
      await own.page.locator('[data-live=Reconnecting]').waitFor();
      // What changes meanwhile is not known here, and is there after the mending.
      const name = `made-meanwhile-${Date.now() % 100_000}`;
      await visit(page, '/policies');
      await page.getByRole('button', { name: 'New policy' }).click();
      await page.getByRole('dialog').getByLabel('Name').fill(name);
      await page.getByRole('dialog').getByRole('button', { name: 'Create policy' }).click();
      await page.getByRole('cell', { name, exact: true }).waitFor();
      await own.page.locator('[data-live=Stale]').waitFor();
      assert.equal(await own.page.getByRole('cell', { name, exact: true }).count(), 0);
      way.mend();
      await own.page.locator('[data-live=Live]').waitFor();
      await own.page.getByRole('cell', { name, exact: true }).waitFor();
      expect(null);
      await page.getByRole('button', { name: `Delete ${name}`, exact: true }).click();
      await page.getByRole('dialog').getByRole('button', { name: 'Delete policy' }).click();
      // The other page hears of it by itself.
      await until('the other page lets go of it', async () => (await own.page.getByRole('cell', { name, exact: true }).count()) === 0);
    } finally {
      expect(/ERR_|Failed to load/);
      await own.context.close();
      way.end();
      expect(null);
    }
  });
}
