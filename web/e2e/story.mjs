// What people do with the web interface, in a real browser before a real site. Every wait is for a state, with a deadline.
import assert from 'node:assert/strict';
import { spawn, execFileSync } from 'node:child_process';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const { WORK, LAB_LOG, LIFEBOAT, CHROMIUM, SHOTS } = process.env;
const log = readFileSync(LAB_LOG, 'utf8');
const BASE = /https:\/\/127\.0\.0\.1:\d+/.exec(log)[0];
const ONE_TIME = /one-time password (\S+)/.exec(log)[1];
const ADMIN = 'a-long-enough-password';
const READER = 'another-long-password';

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
const complaints = [];
const findings = [];
const foreign = new Set();
/** Set where a refusal of the server is part of the story. */
let expected = null;
let agent = null;

async function tab(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on('console', (message) => {
    if (message.type() === 'error' && !expected?.test(message.text())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error.stack)));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.origin !== BASE && !['blob:', 'data:'].includes(url.protocol)) foreign.add(request.url());
  });
  return { context, page };
}
async function step(name, action) {
  const begin = Date.now();
  await action();
  console.log(`  ${name}: ${((Date.now() - begin) / 1000).toFixed(1)} s`);
}
async function shot(page, name) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: !name.includes('dialog') });
}
async function login(page, user, password) {
  await page.goto(`${BASE}/`);
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
}
async function firstPassword(page, one, fresh) {
  await page.getByRole('heading', { name: 'Choose your password' }).waitFor();
  await page.getByLabel('One-time password').fill(one);
  await page.getByLabel('New password', { exact: true }).fill(fresh);
  await page.getByLabel('New password once more').fill(fresh);
  await page.getByRole('button', { name: 'Change the password' }).click();
}
/** Waits until a locator's text fits. */
async function reads(locator, pattern, seconds = 30) {
  const end = Date.now() + seconds * 1000;
  let text = '';
  while (Date.now() < end) {
    text = await locator.innerText().catch(() => '');
    if (pattern.test(text)) return text;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail(`waited for ${pattern}, it reads: ${text.slice(-600)}`);
}
async function axe(page, where, rules = null) {
  // One page, no frames: no second page is needed to put results together.
  const builder = new AxeBuilder({ page }).setLegacyMode(true);
  const { violations } = await (rules ? builder.withRules(rules) : builder).analyze();
  if (violations.length) findings.push(`${where}: ${JSON.stringify(violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} | ${node.failureSummary}`) })), null, 1)}`);
}
/** The page is there and its data has come. */
async function visit(page, path) {
  await page.goto(BASE + path);
  await page.locator('h1').first().waitFor();
  await page.waitForFunction(() => !document.querySelector('[aria-busy=true]'));
}
const dialog = (page) => page.getByRole('dialog');

try {
  const { context, page } = await tab({ colorScheme: 'light' });

  await step('a wrong password is refused with a remedy', async () => {
    expected = /401/;
    await login(page, 'admin', 'wrong');
    await reads(page.getByRole('alert'), /What to do:/);
    expected = null;
  });
  await step('first login: the one-time password is changed', async () => {
    await login(page, 'admin', ONE_TIME);
    await firstPassword(page, ONE_TIME, ADMIN);
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    await page.locator('[data-live=Live]').waitFor();
    await shot(page, 'overview-light');
  });

  await step('a machine joins by the commands of the page and appears by itself', async () => {
    await visit(page, '/add-machine');
    await page.getByRole('button', { name: 'Make the command' }).click();
    await reads(page.locator('pre').first(), /curl[\s\S]*install\.sh[\s\S]*--token \S+/);
    await reads(page.locator('main'), /Good for another \d+ min/);
    await page.getByText('Step by step instead').click();
    const command = await page.locator('pre', { hasText: 'agent join' }).innerText();
    const passphrase = /LIFEBOAT_PASSPHRASE='([^']+)'/.exec(command)[1];
    const argument = (name) => new RegExp(`--${name} (\\S+)`).exec(command)[1];
    const image = join(WORK, 'disk.img');
    writeFileSync(image, Buffer.alloc(4 << 20, 'lifeboat'));
    truncateSync(image, 32 << 20);
    const own = ['--state-dir', join(WORK, 'agent')];
    execFileSync(LIFEBOAT, ['agent', 'join', ...own, '--server', argument('server'), '--fingerprint', argument('fingerprint'), '--name', 'newcomer', '--disk', image, '--machine-key', 'e2e-newcomer'], {
      env: { ...process.env, LIFEBOAT_PASSPHRASE: passphrase }, stdio: ['ignore', 'ignore', 'inherit'],
    });
    agent = spawn(LIFEBOAT, ['agent', 'run', ...own], { stdio: 'ignore', env: { ...process.env, LIFEBOAT_MACHINE_KEY: 'e2e-newcomer' } });
    await page.getByText('Just joined').waitFor();
    await page.getByText(/Ready to be protected|Ready, with warnings|A prerequisite is not met/).first().waitFor();
    await shot(page, 'add-machine');
    await axe(page, 'add a machine');
  });

  await step('replication is enabled in the wizard; the state changes live', async () => {
    await page.getByRole('link', { name: 'Enable replication of newcomer' }).click();
    const next = page.getByRole('button', { name: 'Next' });
    await page.getByRole('heading', { name: 'Prerequisites of newcomer' }).waitFor();
    await shot(page, 'enable-prerequisites');
    await axe(page, 'prerequisites');
    await next.click();
    const disk = page.getByRole('checkbox').first();
    await disk.uncheck();
    assert.equal(await next.getAttribute('aria-disabled'), 'true', 'no disk: no way on');
    await disk.check();
    await next.click();
    await page.getByRole('radio', { name: /^default/ }).check();
    await next.click();
    await page.getByText('As the machine is').waitFor();
    await next.click();
    await reads(page.locator('main'), /The agent reads 32 MiB once/);
    await axe(page, 'review');
    await page.getByRole('button', { name: 'Enable replication' }).click();
    await page.getByRole('heading', { name: 'newcomer' }).waitFor();
    await reads(page.locator('main'), /Healthy\s+Protected/, 60);
  });

  await step('test failover: one click and a point, to the booted console', async () => {
    await visit(page, '/items/lab1');
    await page.getByRole('button', { name: 'Test failover', exact: true }).click();
    await dialog(page).waitFor();
    await reads(dialog(page), /A copy named lab1-test starts at the target, as lab1 was at/);
    await shot(page, 'dialog-test-failover');
    await axe(page, 'dialog of the test failover');
    await dialog(page).getByRole('button', { name: 'Start test failover' }).click();
    await reads(dialog(page), /Succeeded\s+Open the job/, 60);
    await shot(page, 'dialog-test-steps');
    await dialog(page).getByRole('link', { name: 'Look at the machine' }).click();
    const first = await reads(page.getByRole('log'), /LEDGER OK last=\d+/, 90);
    await page.locator('[data-console=on] canvas').waitFor();
    // Something is on the screen: letters on black.
    await page.waitForFunction(() => {
      const canvas = document.querySelector('[data-console=on] canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const lit = data.reduce((sum, value, at) => sum + (at % 4 === 0 && value > 100 ? 1 : 0), 0);
      return canvas.width >= 320 && lit > 500;
    });
    // Keys reach the machine: it restarts, and judges its data once more.
    await page.getByRole('button', { name: 'Ctrl+Alt+Del' }).click();
    const before = /LEDGER OK last=\d+/.exec(first)[0];
    await reads(page.getByRole('log'), new RegExp(`LEDGER OK last=(?!${before.split('=')[1]}\\b)\\d+`), 60);
    await page.keyboard.press('Shift+Escape');
    await page.locator('[data-leave]:focus').waitFor();
    await shot(page, 'console');
    await axe(page, 'console');
  });
  await step('cleanup with notes; the machine is proven', async () => {
    await page.getByRole('button', { name: 'Clean up test failover' }).first().click();
    await dialog(page).getByLabel('Notes').fill('booted, ledger is whole');
    await dialog(page).getByRole('button', { name: 'Clean up', exact: true }).click();
    await reads(dialog(page), /Succeeded\s+Open the job/, 60);
    await dialog(page).getByRole('link', { name: 'Open the job' }).click();
    await reads(page.locator('main'), /booted, ledger is whole/);
    await axe(page, 'job');
    await visit(page, '/items');
    await reads(page.getByRole('row', { name: /lab1/ }), /Proven/);
  });

  await step('unplanned failover: only after the name is typed; then commit', async () => {
    await visit(page, '/items/lab2?do=UnplannedFailover');
    const go = dialog(page).getByRole('button', { name: 'Fail over' });
    await reads(dialog(page), /Expected loss/);
    assert.equal(await go.getAttribute('aria-disabled'), 'true');
    await dialog(page).getByRole('radio', { name: /Latest processed/ }).check();
    await reads(dialog(page), /Expected loss: \d+ s/);
    await shot(page, 'dialog-failover');
    await axe(page, 'dialog of the failover');
    await dialog(page).getByLabel(/to confirm/).fill('lab1');
    assert.equal(await go.getAttribute('aria-disabled'), 'true', 'the name of another machine');
    await dialog(page).getByLabel(/to confirm/).fill('lab2');
    await go.click();
    await reads(dialog(page), /Succeeded\s+Open the job/, 60);
    await dialog(page).getByRole('link', { name: 'Look at the machine' }).click();
    await page.getByRole('button', { name: 'Commit', exact: true }).first().click();
    await dialog(page).getByLabel(/to confirm/).fill('lab2');
    await dialog(page).getByRole('button', { name: 'Commit', exact: true }).click();
    await reads(dialog(page), /Succeeded\s+Open the job/, 60);
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
    await shot(page, 'failed-over');
  });

  await step('a Reader sees what is not theirs, disabled, with the reason', async () => {
    await visit(page, '/users');
    await page.getByRole('button', { name: 'New user' }).click();
    await dialog(page).getByLabel('Name').fill('rita');
    await dialog(page).getByRole('button', { name: 'Create user' }).click();
    const one = (await dialog(page).locator('pre').innerText()).trim();
    const { context: other, page: reader } = await tab();
    await login(reader, 'rita', one);
    await firstPassword(reader, one, READER);
    await reader.getByRole('heading', { name: 'Overview' }).waitFor();
    await visit(reader, '/items/lab1');
    const test = reader.getByRole('button', { name: 'Test failover', exact: true });
    assert.equal(await test.getAttribute('aria-disabled'), 'true');
    // It can be reached and pressed; it says why and does nothing.
    await test.click({ force: true });
    assert.equal(await reader.getByRole('dialog').count(), 0, 'no dialog opens');
    await reads(reader.getByRole('status').filter({ hasText: 'needs the role' }), /needs the role Operator\. You are Reader/);
    await shot(reader, 'reader');
    await axe(reader, 'a Reader');
    // The page is not the guard: the server refuses as well.
    const status = await reader.evaluate(() => fetch('/api/v1/vaults/default/replicated-items/lab1/test-failover', { method: 'POST', headers: { 'content-type': 'application/json', 'x-lifeboat-request': '1' }, body: '{}' }).then((answer) => answer.status), (expected = /403/));
    assert.equal(status, 403);
    for (const path of ['/add-machine', '/tokens', '/policies', '/servers']) { await visit(reader, path); await axe(reader, `a Reader at ${path}`); }
    expected = null;
    await other.close();
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
  });

  await step('a cut connection is shown and mended', async () => {
    await visit(page, '/items');
    await page.locator('[data-live=Live]').waitFor();
    expected = /ERR_INTERNET_DISCONNECTED|Failed to load/;
    await context.setOffline(true);
    await reads(page.getByRole('alert'), /No answer from the server.*as of/, 30);
    await page.locator('[data-live=Stale]').waitFor();
    await shot(page, 'stale');
    await axe(page, 'stale');
    await context.setOffline(false);
    await page.locator('[data-live=Live]').waitFor();
    assert.equal(await page.getByRole('alert').count(), 0);
    expected = null;
  });

  const PAGES = ['/', '/items', '/items/lab1', '/items/lab1?tab=points', '/items/lab1?tab=disks', '/items/lab2?tab=target', '/items/lab1?tab=health', '/items/lab1?tab=history', '/enable', '/jobs', '/events', '/policies', '/servers', '/alerts', '/users', '/tokens', '/audit', '/account', '/nowhere'];
  await step('every page, light and dark: no finding of axe', async () => {
    for (const path of PAGES) {
      await visit(page, path);
      for (const scheme of ['light', 'dark']) {
        // The theme follows the system while the page is open.
        await page.emulateMedia({ colorScheme: scheme });
        await page.waitForFunction((wanted) => document.documentElement.dataset.theme === wanted, scheme);
        await shot(page, `${scheme}${path.replace(/[^a-z0-9]+/gi, '-')}`);
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
      await shot(page, `phone${path.replace(/[^a-z0-9]+/gi, '-')}${path.includes('do=') ? 'dialog' : ''}`);
    }
    await visit(page, '/');
    await page.getByRole('button', { name: 'Pages' }).click();
    await page.getByRole('link', { name: 'Jobs' }).first().click();
    await page.getByRole('heading', { name: 'Jobs' }).waitFor();
    await page.setViewportSize({ width: 1280, height: 900 });
  });
  await step('keyboard, back button, log out', async () => {
    await page.keyboard.press('Control+k');
    await page.getByRole('combobox', { name: 'Machine or page' }).fill('lab1');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'lab1' }).waitFor();
    await page.goBack();
    await page.getByRole('heading', { name: 'Jobs' }).waitFor();
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    await axe(page, 'login');
    assert.equal(await page.evaluate(() => fetch('/api/v1/whoami').then((answer) => answer.status), (expected = /401/)), 401);
    expected = null;
  });

  assert.equal(findings.length, 0, `found:\n${findings.join('\n')}`);
  assert.deepEqual([...foreign], [], 'requests outside the own origin');
  assert.deepEqual(complaints, [], 'errors in the console');
  console.log('  no request outside the own origin, no error in the console');
} finally {
  agent?.kill('SIGTERM');
  await browser.close();
}
