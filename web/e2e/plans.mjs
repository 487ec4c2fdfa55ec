// A recovery plan in the browser: made, filled by drag and drop and by keyboard, tested with a manual step, cleaned up; and what
// a reader may not. Runs before a fresh lab of two machines: `e2e/run.sh plans`.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const { LAB_LOG, CHROMIUM, SHOTS } = process.env;
const log = readFileSync(LAB_LOG, 'utf8');
const BASE = /https:\/\/127\.0\.0\.1:\d+/.exec(log)[0];
const ONE_TIME = /one-time password (\S+)/.exec(log)[1];
const [ADMIN, READER] = ['a-long-enough-password', 'another-long-password'];

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
const complaints = [];
const findings = [];

async function tab(viewport = { width: 1280, height: 900 }) {
  const page = await (await browser.newContext({ ignoreHTTPSErrors: true, viewport })).newPage();
  page.setDefaultTimeout(30_000);
  page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
  page.on('pageerror', (error) => complaints.push(String(error.stack)));
  return page;
}
async function step(name, action) {
  const begin = Date.now();
  await action();
  console.log(`  ${name}: ${((Date.now() - begin) / 1000).toFixed(1)} s`);
}
async function shot(page, name) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
}
async function axe(page, where) {
  const { violations } = await new AxeBuilder({ page }).setLegacyMode(true).analyze();
  for (const { id, help, nodes } of violations) findings.push(`${where}: ${id}: ${help}: ${nodes.slice(0, 2).map((node) => node.html.slice(0, 200)).join(' | ')}`);
}
async function login(page, one, fresh, user) {
  await page.goto(`${BASE}/`);
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(one);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Choose your password' }).waitFor();
  await page.getByLabel('One-time password').fill(one);
  await page.getByLabel('New password', { exact: true }).fill(fresh);
  await page.getByLabel('New password once more').fill(fresh);
  await page.getByRole('button', { name: 'Change the password' }).click();
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
}
const dialog = (page) => page.getByRole('dialog');
const machines = (page, group) => page.locator(`[data-group="${group}"] ul[aria-label^="Machines"]`);
const state = (page, wanted) => page.locator(`[data-run-state="${wanted}"]`).waitFor({ timeout: 240_000 });

try {
  const page = await tab();
  await step('the first login', () => login(page, ONE_TIME, ADMIN, 'admin'));
  await step('a plan is made', async () => {
    await page.getByRole('link', { name: 'Recovery plans' }).click();
    await page.getByText('No recovery plan yet').waitFor();
    await axe(page, 'no plan');
    await shot(page, 'plans-empty');
    await page.getByRole('button', { name: 'Make the first plan' }).click();
    await dialog(page).getByLabel('Name').fill('site');
    await dialog(page).getByRole('button', { name: 'Create plan' }).click();
    await page.getByRole('button', { name: 'Save plan' }).waitFor();
  });
  await step('machines by mouse, by list and by keyboard; an action', async () => {
    await page.getByRole('button', { name: 'Add a group' }).click();
    const rest = page.getByRole('region', { name: 'Machines that are not in the plan' });
    await rest.locator('li', { hasText: 'lab1' }).dragTo(page.locator('[data-group="1"]'), { sourcePosition: { x: 14, y: 14 } });
    await machines(page, 1).getByRole('button', { name: 'lab1' }).waitFor();
    await page.getByLabel('Put lab2 into').selectOption({ label: 'group 1' });
    const lab2 = page.locator('#plan-machine-lab2');
    await lab2.focus();
    await page.keyboard.press('Alt+ArrowDown');
    await machines(page, 2).getByRole('button', { name: 'lab2' }).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'plan-machine-lab2', 'the focus stays with what was moved');
    await page.getByRole('button', { name: 'Add an action after group 1' }).click();
    await dialog(page).getByLabel('Name').fill('look at lab1');
    await dialog(page).getByLabel('Instructions').fill('Does its ledger answer?');
    await axe(page, 'an action');
    await shot(page, 'plan-action');
    await dialog(page).getByRole('button', { name: 'Keep action' }).click();
    await axe(page, 'the editor');
    await shot(page, 'plan-editor');
    await page.getByRole('button', { name: 'Save plan' }).click();
    await page.getByText('Never run').waitFor();
    await page.getByText('look at lab1').waitFor();
  });
  await step('a test runs, waits for a person, and goes on', async () => {
    await page.getByRole('button', { name: 'Test failover', exact: true }).click();
    await dialog(page).getByRole('button', { name: 'Test failover' }).click();
    await state(page, 'Suspended');
    await page.getByText('Waits for a person.').waitFor();
    await axe(page, 'a run that waits');
    await shot(page, 'plan-run-waits');
    await page.getByRole('button', { name: 'Done: look at lab1' }).click();
    await dialog(page).getByLabel('Comment').fill('it does');
    await dialog(page).getByRole('button', { name: 'Done', exact: true }).click();
    await state(page, 'Succeeded');
    await page.getByText('it does').waitFor();
    await page.getByText('RTO, the whole plan').waitFor();
    await axe(page, 'a run that succeeded');
    await shot(page, 'plan-run-succeeded');
  });
  await step('it is cleaned up, and counts', async () => {
    await page.getByRole('button', { name: 'Clean up test' }).click();
    await dialog(page).getByLabel('Notes').fill('all well');
    await dialog(page).getByRole('button', { name: 'Clean up test' }).click();
    await page.getByRole('heading', { name: 'Cleanup of the test failover' }).waitFor();
    await state(page, 'Succeeded');
    await page.getByText('all well').waitFor();
    await page.goto(`${BASE}/plans`);
    await page.getByRole('row', { name: /site.*ago/ }).waitFor();
    await shot(page, 'plans');
    await axe(page, 'the plans');
  });
  await step('a reader sees it and may nothing', async () => {
    await page.goto(`${BASE}/users`);
    await page.getByRole('button', { name: 'New user' }).click();
    await dialog(page).getByLabel('Name').fill('rita');
    await dialog(page).getByRole('button', { name: 'Create user' }).click();
    const once = (await dialog(page).locator('pre, code').first().innerText()).trim();
    const reader = await tab({ width: 390, height: 844 });
    await login(reader, once, READER, 'rita');
    await reader.goto(`${BASE}/plans/site`);
    const test = reader.getByRole('button', { name: 'Test failover', exact: true });
    assert.equal(await test.getAttribute('aria-disabled'), 'true');
    assert.match(await test.getAttribute('title'), /Operator/);
    await axe(reader, 'a plan on a phone');
    await shot(reader, 'plan-phone');
  });
  assert.deepEqual(complaints, []);
  assert.deepEqual(findings, []);
  console.log('no complaint of the browser, no finding of axe');
} finally {
  await browser.close();
}
