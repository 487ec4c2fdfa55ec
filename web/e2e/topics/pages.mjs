// Every page: light and dark, wide and narrow, by axe; the keyboard.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { axe, call, expect, findings, shot, step, until, visit } from '../lib.mjs';

export const PAGES = [
  '/', '/items', '/items/lab1', '/items/lab1?tab=points', '/items/lab1?tab=charts', '/items/lab1?tab=disks', '/items/lab2?tab=target', '/items/lab1?tab=health', '/items/lab1?tab=history',
  '/enable', '/add-machine', '/plans', '/groups', '/maintenance', '/jobs', '/events', '/policies', '/servers', '/networks', '/capacity', '/alerts', '/users', '/tokens', '/audit', '/settings', '/account', '/nowhere',
];
const named = (path) => path.replace(/[^a-z0-9]+/gi, '-');

export async function pages({ page }) {
  await step('first load: below 150 KiB, compressed as it is sent', async () => {
    const dist = new URL('../../dist/', import.meta.url);
    const html = readFileSync(new URL('index.html', dist), 'utf8');
    const first = ['index.html', ...[...html.matchAll(/(?:src|href)="\/([^"]+)"/g)].map((found) => found[1])];
    const all = readdirSync(dist, { recursive: true });
    const bytes = first.reduce((sum, name) => sum + readFileSync(new URL(all.includes(`${name}.br`) ? `${name}.br` : name, dist)).length, 0);
    console.log(`    ${(bytes / 1024).toFixed(0)} KiB in ${first.length} files`);
    assert.ok(bytes < 150 * 1024, `${bytes} bytes`);
    assert.ok(!first.some((name) => name.includes('rfb')), 'the console is loaded when it is opened');
  });
  await step('every page, light and dark: no finding of axe', async () => {
    for (const path of PAGES) {
      await visit(page, path);
      for (const scheme of ['light', 'dark']) {
        // The theme follows the system while the page is open.
        await page.emulateMedia({ colorScheme: scheme });
        await page.waitForFunction((wanted) => document.documentElement.dataset.theme === wanted, scheme);
        await shot(page, `${scheme}${named(path)}`);
        await axe(page, `${scheme} ${path}`, scheme === 'dark' ? ['color-contrast'] : null);
      }
      await page.emulateMedia({ colorScheme: 'light' });
    }
  });
  await step('phone width: no page is wider than the screen', async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    for (const path of [...PAGES, '/items/lab1?do=TestFailover']) {
      await visit(page, path);
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      if (width > 390) findings.push(`${path} is ${width} wide on a phone`);
      await shot(page, `phone${named(path)}${path.includes('do=') ? 'dialog' : ''}`);
    }
    await visit(page, '/');
    await page.getByRole('button', { name: 'Pages' }).click();
    await page.getByRole('link', { name: 'Jobs' }).first().click();
    await page.getByRole('heading', { name: 'Jobs' }).waitFor();
    await page.setViewportSize({ width: 1280, height: 900 });
  });
  await step('keyboard: palette, filter, table, dialog and back; times with UTC', async () => {
    const focused = () => page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.textContent?.trim() ?? '');
    await page.keyboard.press('Control+k');
    await page.getByRole('combobox', { name: 'Machine or page' }).fill('lab1');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'lab1' }).waitFor();
    await page.goBack();
    await page.getByRole('heading', { name: 'Jobs' }).waitFor();
    await visit(page, '/items');
    await page.keyboard.press('/');
    assert.equal(await focused(), 'Filter by name or policy');
    // By Tab alone to the first machine, and in; the focus can be seen all the way.
    for (let at = 0; at < 40 && (await focused()) !== 'lab1'; at += 1) {
      await page.keyboard.press('Tab');
      const outline = await page.evaluate(() => { const style = getComputedStyle(document.activeElement); return `${style.outlineStyle} ${style.outlineWidth}`; });
      assert.ok(!/^none|0px/.test(outline), `no outline at ${await focused()}: ${outline}`);
    }
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'lab1' }).waitFor();
    const opener = page.getByRole('button', { name: 'Test failover', exact: true });
    await opener.focus();
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    for (let at = 0; at < 25; at += 1) {
      await page.keyboard.press('Tab');
      assert.ok(await page.evaluate(() => document.activeElement?.closest('[role=dialog]') !== null), 'the focus left the dialog');
    }
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await until('the focus is back where it was', async () => (await focused()) === 'Test failover', 5);
    assert.match(await page.locator('time').first().getAttribute('title'), /local, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/);
    const line = page.getByRole('slider', { name: /Recovery points/ });
    await line.focus();
    await page.keyboard.press('End');
    assert.match(await line.getAttribute('aria-valuetext'), /ago/);
  });
  await step('log out', async () => {
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    await axe(page, 'login');
    expect(/401/);
    assert.equal((await call(page, 'GET', '/api/v1/whoami')).status, 401);
    expect(null);
  });
}
