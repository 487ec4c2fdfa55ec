// What every topic of the story uses. Every wait is for a state, with a deadline.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

export const { WORK, LAB_LOG, LIFEBOAT, CHROMIUM, SHOTS } = process.env;
/** Seconds for what comes at once on an idle host: a busy one may take its time. What never comes is told all the same. */
export const LIMIT = 60;
const log = readFileSync(LAB_LOG, 'utf8');
export const BASE = /https:\/\/127\.0\.0\.1:\d+/.exec(log)[0];
export const ONE_TIME = /one-time password (\S+)/.exec(log)[1];
export const ADMIN = 'a-long-enough-password';

export const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--js-flags=--expose-gc', '--enable-precise-memory-info'] });
const complaints = [];
export const findings = [];
const foreign = new Set();
/** The server's, and another way to it that a topic opened. */
export const origins = new Set([BASE]);
/** What Chromium says when anybody on this host makes or removes a network: requests under way are broken off. */
const FOREIGN = /ERR_NETWORK_CHANGED/;
/** Set where a refusal of the server is part of the story. */
let expected = null;
export function expect(pattern) {
  expected = pattern;
}

export async function tab(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT * 1000);
  page.on('console', (message) => {
    if (message.type() === 'error' && !expected?.test(message.text()) && !FOREIGN.test(message.text())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error.stack)));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (!origins.has(url.origin) && !['blob:', 'data:'].includes(url.protocol)) foreign.add(request.url());
  });
  return { context, page };
}
export async function step(name, action) {
  const begin = Date.now();
  await action();
  console.log(`  ${name}: ${((Date.now() - begin) / 1000).toFixed(1)} s`);
}
export async function shot(page, name) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: !name.includes('dialog') });
}
/** A dialog as people meet it: light, dark, and on a phone. */
export async function looks(page, name) {
  if (!SHOTS) return;
  await shot(page, `dialog-${name}`);
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.waitForFunction(() => document.documentElement.dataset.theme === 'dark');
  await shot(page, `dialog-${name}-dark`);
  await page.emulateMedia({ colorScheme: 'light' });
  await page.waitForFunction(() => document.documentElement.dataset.theme === 'light');
  await page.setViewportSize({ width: 390, height: 844 });
  await shot(page, `dialog-${name}-phone`);
  await page.setViewportSize({ width: 1280, height: 900 });
}
async function open(page, address) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await page.goto(address);
      return;
    } catch (error) {
      // Broken off twice in a row, the page of the error comes in between.
      if (attempt === 5 || !(FOREIGN.test(String(error)) || /chrome-error:/.test(String(error)))) throw error;
    }
  }
}
export async function login(page, user, password) {
  await open(page, `${BASE}/`);
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
}
export async function firstPassword(page, one, fresh) {
  await page.getByRole('heading', { name: 'Choose your password' }).waitFor();
  await page.getByLabel('One-time password').fill(one);
  await page.getByLabel('New password', { exact: true }).fill(fresh);
  await page.getByLabel('New password once more').fill(fresh);
  await page.getByRole('button', { name: 'Change the password' }).click();
}
/** Waits until something is so. */
export async function until(what, test, seconds = LIMIT) {
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    const found = await test();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail(`waited ${seconds} s for: ${what}`);
}
/** Waits until a locator's text fits. */
export async function reads(locator, pattern, seconds = LIMIT) {
  let text = '';
  const fits = async () => {
    text = await locator.innerText({ timeout: 1000 }).catch(() => '');
    return pattern.test(text) && text;
  };
  return until(`text ${pattern}`, fits, seconds).catch((error) => assert.fail(`${error.message}; it reads: ${text.slice(-600)}`));
}
export async function axe(page, where, rules = null) {
  // One page, no frames: no second page is needed to put results together.
  const builder = new AxeBuilder({ page }).setLegacyMode(true);
  const { violations } = await (rules ? builder.withRules(rules) : builder).analyze();
  if (violations.length) findings.push(`${where}: ${JSON.stringify(violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} | ${node.failureSummary}`) })), null, 1)}`);
}
/** The page is there and its data has come. */
export async function visit(page, path) {
  await open(page, BASE + path);
  await page.locator('h1').first().waitFor();
  await page.waitForFunction(() => !document.querySelector('[aria-busy=true]'));
}
export const dialog = (page) => page.getByRole('dialog');
export const isOff = async (locator) => (await locator.getAttribute('aria-disabled')) === 'true';
/** Answers of the API to this page's session. */
export const call = (page, method, path, body) => again(() => ask(page, method, path, body), method === 'GET');
/** The text of an address. */
export const text = (page, path) => again(() => page.evaluate((path) => fetch(path).then((answer) => answer.text()), path), true);
/** A request that a change of the host's networks broke off is sent again; not what changes something. */
async function again(send, harmless) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await send();
    } catch (error) {
      if (attempt === 5 || !harmless || !/Failed to fetch/.test(String(error))) throw error;
    }
  }
}
const ask = (page, method, path, body) => page.evaluate(
  async ([method, path, body]) => {
    const answer = await fetch(path, { method, headers: { 'content-type': 'application/json', 'x-lifeboat-request': '1' }, ...(body ? { body: JSON.stringify(body) } : {}) });
    return { status: answer.status, data: await answer.json().catch(() => null) };
  },
  [method, path, body],
);
/** What a machine needs to join, as the page that adds machines says it. */
export async function wayIn(page) {
  if (!page.url().endsWith('/add-machine')) await visit(page, '/add-machine');
  await page.getByText('Step by step instead').click();
  const command = await page.locator('pre', { hasText: 'agent join' }).innerText();
  const argument = (name) => new RegExp(`--${name} (\\S+)`).exec(command)[1];
  return { passphrase: /LIFEBOAT_PASSPHRASE='([^']+)'/.exec(command)[1], server: argument('server'), fingerprint: argument('fingerprint') };
}
/** Makes a user and logs in as them; their page. */
export async function newcomer(page, name, role, password, options = {}) {
  const made = await call(page, 'POST', '/api/v1/vaults/default/users', { name, role });
  assert.equal(made.status, 201);
  const own = await tab(options);
  await login(own.page, name, made.data.oneTimePassword);
  await firstPassword(own.page, made.data.oneTimePassword, password);
  await own.page.getByRole('heading', { name: 'Overview' }).waitFor();
  return own;
}
export function verdict() {
  assert.equal(findings.length, 0, `found:\n${findings.join('\n')}`);
  assert.deepEqual([...foreign], [], 'requests outside the own origin');
  assert.deepEqual(complaints, [], 'errors in the console');
  console.log('  no request outside the own origin, no error in the console');
}
