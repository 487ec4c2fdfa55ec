// First login, a machine that joins, its replication.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ADMIN, LIFEBOAT, ONE_TIME, WORK, axe, dialog, expect, firstPassword, isOff, login, looks, reads, shot, step, visit, wayIn } from '../lib.mjs';

/** An agent of the story's own, with a disk of 32 MiB. */
export function joinMachine(name, { server, fingerprint, passphrase }) {
  const image = join(WORK, `${name}.img`);
  writeFileSync(image, Buffer.alloc(4 << 20, name));
  truncateSync(image, 32 << 20);
  const own = ['--state-dir', join(WORK, `agent-${name}`)];
  execFileSync(LIFEBOAT, ['agent', 'join', ...own, '--server', server, '--fingerprint', fingerprint, '--name', name, '--disk', image, '--machine-key', `e2e-${name}`], {
    env: { ...process.env, LIFEBOAT_PASSPHRASE: passphrase }, stdio: ['ignore', 'ignore', 'ignore'],
  });
  return spawn(LIFEBOAT, ['agent', 'run', ...own], { stdio: 'ignore', env: { ...process.env, LIFEBOAT_MACHINE_KEY: `e2e-${name}` } });
}

/** A busy host is a critical server, which takes a further machine only where a person wants it all the same. */
async function takeAnyway(where) {
  const accept = where.getByRole('checkbox', { name: /although the server is in a critical state/ });
  if (await accept.count()) await accept.check();
}

export async function begin({ page, agents }) {
  await step('a wrong password is refused with a remedy', async () => {
    expect(/401/);
    await login(page, 'admin', 'wrong');
    await reads(page.getByRole('alert'), /What to do:/);
    expect(null);
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
    const way = await wayIn(page);
    agents.push(joinMachine('newcomer', way));
    await page.getByText('Just joined').waitFor();
    await page.getByText(/Ready to be protected|Ready, with warnings|A prerequisite is not met/).first().waitFor();
    await shot(page, 'add-machine');
    await axe(page, 'add a machine');
    agents.push(joinMachine('second', way));
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
    assert.ok(await isOff(next), 'no disk: no way on');
    await disk.check();
    await next.click();
    await page.getByRole('radio', { name: /^default/ }).check();
    await next.click();
    await page.getByText('As the machine is').waitFor();
    await next.click();
    await reads(page.locator('main'), /The agent reads 32 MiB once/);
    await axe(page, 'review');
    await takeAnyway(page);
    await page.getByRole('button', { name: 'Enable replication' }).click();
    await page.getByRole('heading', { name: 'newcomer' }).waitFor();
    await reads(page.locator('main'), /Healthy\s+Protected/);
  });
  await step('several machines at once: enabled in one review, each with its own result', async () => {
    await visit(page, '/servers');
    await page.getByRole('checkbox', { name: 'Choose second' }).check();
    await page.getByRole('checkbox', { name: 'Choose newcomer' }).check();
    await page.getByRole('button', { name: 'Enable replication of 2 machines' }).click();
    await reads(dialog(page), /1 machine takes part[\s\S]*1 machine left out[\s\S]*newcomer: It is replicated already/);
    await axe(page, 'enabling several');
    await takeAnyway(dialog(page));
    await dialog(page).getByRole('button', { name: 'Enable replication' }).click();
    await reads(dialog(page), /1 of 1 machine is through/);
    await looks(page, 'enable-several');
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
  });
}
