// A recovery plan in the browser: made, filled by drag and drop and by keyboard, tested with a manual step, cleaned up; and what
// a reader may not. Runs before a fresh lab of two machines: `e2e/run.sh plans`.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const { WORK, LAB_LOG, CHROMIUM, SHOTS } = process.env;
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
/** Answers of the API to this page's session. */
const call = (page, method, path, body) => page.evaluate(
  async ([method, path, body]) => {
    const answer = await fetch(path, { method, headers: { 'content-type': 'application/json', 'x-lifeboat-request': '1' }, ...(body ? { body: JSON.stringify(body) } : {}) });
    return { status: answer.status, data: await answer.json().catch(() => null) };
  },
  [method, path, body],
);
const dialog = (page) => page.getByRole('dialog');
const machines = (page, group) => page.locator(`[data-group="${group}"] ul[aria-label^="Machines"]`);
const state = (page, wanted) => page.locator(`[data-run-state="${wanted}"]`).waitFor({ timeout: 240_000 });

// As the administrator of the server puts it there.
writeFileSync(join(WORK, 'lab/data/plan-scripts/tell'), '#!/bin/sh\ncat >/dev/null\necho told "$@"\n', { mode: 0o755 });

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
  await step('every kind of action with every field, by keyboard; saved, read again, unchanged', async () => {
    const press = async (locator, key = 'Enter') => { await locator.focus(); await page.keyboard.press(key); };
    const button = (name, where = page) => where.getByRole('button', { name, exact: true });
    const add = async (place, name, kind, fields) => {
      await press(button(`Add an action ${place}`));
      const box = dialog(page);
      assert.equal(await page.evaluate(() => document.activeElement?.id), 'action-name', 'the focus is where one types');
      await page.keyboard.type(name);
      await box.getByLabel('What it does').selectOption(kind);
      await fields(box);
      await press(button('Keep action', box));
      await box.waitFor({ state: 'detached' });
      await page.getByRole('button', { name: `Change the action ${name}` }).waitFor();
    };
    const tick = (box, label) => box.getByLabel(label, { exact: true }).focus().then(() => page.keyboard.press('Space'));
    await press(button('Edit'));
    await button('Save plan').waitFor();
    await add('when a failover has failed', 'tell them', 'script', async (box) => {
      await box.getByLabel('Script', { exact: true }).selectOption('tell');
      for (const argument of ['--to', 'all of us', '']) {
        await press(button('Add an argument', box));
        await page.keyboard.type(argument);
      }
      await box.getByLabel('No longer than (s)').fill('77');
      await tick(box, 'on the way home (failback)');
    });
    await add('when a failover has failed', 'ring the bell', 'manual', (box) => box.getByLabel('Instructions').fill('Loudly.'));
    await press(button('Move the action ring the bell up'));
    await add('after the cleanup of a test', 'rest', 'delay', (box) => box.getByLabel('Seconds').fill('1'));
    await add('before group 1', 'look inside', 'command', async (box) => {
      await box.getByLabel('Machine').selectOption('lab1');
      await box.getByLabel('Script', { exact: true }).selectOption('tell');
      await press(button('Add an argument', box));
      await page.keyboard.type('two');
      await page.keyboard.press('Enter');
      await page.keyboard.type('lines');
      await tick(box, 'unplanned failover');
    });
    await add('before group 2', 'lab2 answers', 'probe', async (box) => {
      await box.getByLabel('Machine').selectOption('lab2');
      await box.getByLabel('By', { exact: true }).selectOption('http');
      await box.getByLabel('Port').fill('80');
      await box.getByLabel('Path').fill('/health');
      await box.getByLabel('Status').fill('204');
      await tick(box, 'planned failover');
      await tick(box, 'on the way to the target');
      await axe(page, 'an action with limits');
      await shot(page, 'plan-action-limits');
    });
    await page.getByLabel('When a machine or an action fails').selectOption('ask');
    await axe(page, 'the editor with actions of the whole plan');
    await shot(page, 'plan-editor-whole');
    await press(button('Save plan'));
    await page.getByText('Never run').waitFor();
    await page.getByText('runs the script tell --to "all of us" ""; only on the way home').waitFor();
    const wanted = {
      onFailure: [
        { name: 'ring the bell', kind: 'manual', instructions: 'Loudly.' },
        { name: 'tell them', kind: 'script', script: 'tell', arguments: ['--to', 'all of us', ''], timeoutSeconds: 77, directions: ['recoveryToPrimary'] },
      ],
      afterCleanup: [{ name: 'rest', kind: 'delay', seconds: 1 }],
      groups: [
        { name: 'Group 1', machines: ['lab1'], before: [{ name: 'look inside', kind: 'command', machine: 'lab1', script: 'tell', arguments: ['two\nlines'], timeoutSeconds: 300, failoverTypes: ['unplanned'] }],
          after: [{ name: 'look at lab1', kind: 'manual', instructions: 'Does its ledger answer?' }] },
        { name: 'Group 2', machines: ['lab2'], before: [{ name: 'lab2 answers', kind: 'probe', machine: 'lab2', protocol: 'http', port: 80, path: '/health', status: 204, timeoutSeconds: 300, failoverTypes: ['planned'], directions: ['primaryToRecovery'] }], after: [] },
      ],
      onMachineFailure: 'ask',
    };
    const read = async () => {
      const { data } = await call(page, 'GET', '/api/v1/vaults/default/recovery-plans/site');
      return [data.revision, { onFailure: data.onFailure, afterCleanup: data.afterCleanup, groups: data.groups, onMachineFailure: data.onMachineFailure }];
    };
    const [revision, saved] = await read();
    assert.deepEqual(saved, wanted);
    // Every action opened and kept as it is; then the whole saved once more.
    await page.reload();
    await press(button('Edit'));
    const change = page.getByRole('button', { name: /^Change the action/ });
    await change.first().waitFor();
    for (let at = 0; at < await change.count(); at += 1) {
      await press(change.nth(at));
      await press(button('Keep action', dialog(page)));
      await dialog(page).waitFor({ state: 'detached' });
    }
    await press(button('Save plan'));
    await page.getByText('Never run').waitFor();
    const [later, again] = await read();
    assert.deepEqual([later, again], [revision + 1, wanted]);
  });
  await step('what a newer server knows of a plan is not lost by an edit', async () => {
    let sent = null;
    const newer = (plan) => {
      plan.pace = 'slow';
      plan.groups[0].colour = 'red';
      plan.groups[0].after[0].colour = 'blue';
      plan.onFailure.push({ name: 'dance', kind: 'dance', steps: ['left'], seconds: 3 });
      return plan;
    };
    await page.route(/\/recovery-plans(\/site)?(\?.*)?$/, async (route) => {
      if (route.request().method() === 'PUT') {
        sent = route.request().postDataJSON();
        return route.fulfill({ json: (await call(page, 'GET', '/api/v1/vaults/default/recovery-plans/site?plain')).data });
      }
      if (route.request().url().endsWith('?plain')) return route.continue();
      const response = await route.fetch();
      const json = await response.json();
      (json.items ?? [json]).forEach(newer);
      return route.fulfill({ response, json });
    });
    await page.goto(`${BASE}/plans/site?edit=1`);
    await page.getByRole('button', { name: 'Change the action dance' }).click();
    await dialog(page).getByText('The server is newer than this page').waitFor();
    await dialog(page).getByLabel('Name').fill('dance well');
    await dialog(page).getByRole('button', { name: 'Keep action' }).click();
    await page.getByRole('button', { name: 'Change the action look at lab1' }).click();
    await dialog(page).getByRole('button', { name: 'Keep action' }).click();
    await page.getByRole('button', { name: 'Save plan' }).click();
    await page.getByRole('button', { name: 'Edit', exact: true }).waitFor();
    await page.waitForFunction(() => !location.search.includes('edit'));
    assert.deepEqual(sent.onFailure.at(-1), { name: 'dance well', kind: 'dance', steps: ['left'], seconds: 3 });
    assert.deepEqual([sent.pace, sent.groups[0].colour, sent.groups[0].after[0].colour], ['slow', 'red', 'blue']);
    for (const told of ['id', 'revision', 'lastRun', 'machineCount']) assert.ok(!(told in sent), told);
    await page.unrouteAll({ behavior: 'wait' });
    await page.goto(`${BASE}/plans/site`);
    await page.getByRole('button', { name: 'Test failover', exact: true }).waitFor();
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
  const as = async (name, role, viewport) => {
    const { data } = await call(page, 'POST', '/api/v1/vaults/default/users', { name, role });
    const own = await tab(viewport);
    await login(own, data.oneTimePassword, READER, name);
    return own;
  };
  const off = async (locator, why) => {
    assert.equal(await locator.getAttribute('aria-disabled'), 'true');
    assert.match(await locator.getAttribute('title'), why);
  };
  await step('a contributor edits it', async () => {
    const carla = await as('carla', 'Contributor');
    await carla.goto(`${BASE}/plans/site`);
    await carla.getByRole('button', { name: 'Edit', exact: true }).click();
    await carla.getByRole('button', { name: 'Change the action rest' }).click();
    await dialog(carla).getByLabel('Seconds').fill('2');
    await dialog(carla).getByRole('button', { name: 'Keep action' }).click();
    await carla.getByRole('button', { name: 'Save plan' }).click();
    await carla.getByText('waits 2 s').waitFor();
  });
  await step('an operator runs it and may not edit it', async () => {
    const olga = await as('olga', 'Operator');
    await olga.goto(`${BASE}/plans/site`);
    const test = olga.getByRole('button', { name: 'Test failover', exact: true });
    await test.waitFor();
    assert.equal(await test.getAttribute('aria-disabled'), null);
    await off(olga.getByRole('button', { name: 'Edit', exact: true }), /Contributor/);
    // Also who comes by the address.
    await olga.goto(`${BASE}/plans/site?edit=1`);
    await olga.getByRole('button', { name: 'Change the action rest' }).waitFor();
    for (const name of ['Save plan', 'Add a group', 'Change the action rest', 'Add an action after the cleanup of a test', 'Move the action tell them up']) {
      await off(olga.getByRole('button', { name, exact: true }), /Contributor/);
    }
    assert.ok(await olga.getByLabel('Network of a test').isDisabled());
    await axe(olga, 'the editor of who may not');
    await shot(olga, 'plan-editor-operator');
  });
  await step('a reader sees it and may nothing', async () => {
    const reader = await as('rita', 'Reader', { width: 390, height: 844 });
    await reader.goto(`${BASE}/plans/site`);
    const test = reader.getByRole('button', { name: 'Test failover', exact: true });
    await test.waitFor();
    await off(test, /Operator/);
    await axe(reader, 'a plan on a phone');
    await shot(reader, 'plan-phone');
  });
  assert.deepEqual(complaints, []);
  assert.deepEqual(findings, []);
  console.log('no complaint of the browser, no finding of axe');
} finally {
  await browser.close();
}
