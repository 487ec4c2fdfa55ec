// A machine leaves its site and comes home, in the browser: failover by the keyboard alone, another point, cancel; planned failover,
// reprotect, failback, protected again; another one stays at the target, on disks of its own. An operator does it, the last part a
// contributor; a reader sees each step and may do none of them.
// Runs before a fresh lab of one machine: `e2e/run.sh lifecycle`.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ADMIN, LIFEBOAT, ONE_TIME, WORK, axe, browser, call, dialog, expect, firstPassword, isOff, login, looks, newcomer, reads, shot, step, tab, text, until, verdict, visit, wayIn } from './lib.mjs';

const STORE = join(WORK, 'lab', 'data', 'store');
const AGENT = ['--state-dir', join(WORK, 'agent-web1')];
const ITEM = '/api/v1/vaults/default/replicated-items';
const children = [];
let device = null;

function start(...words) {
  const child = spawn(LIFEBOAT, ['agent', ...words, ...AGENT], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, LIFEBOAT_MACHINE_KEY: 'e2e-web1' } });
  child.said = '';
  for (const pipe of [child.stdout, child.stderr]) pipe.on('data', (chunk) => { child.said += chunk; });
  child.ended = new Promise((done) => { child.on('exit', (code, signal) => done(code ?? signal)); });
  children.push(child);
  return child;
}
async function end(child) {
  child.kill('SIGTERM');
  return child.ended;
}
const item = async (page, name) => (await call(page, 'GET', `${ITEM}/${name}`)).data;
const state = (page, name, wanted) => until(`${name} is ${wanted}`, async () => (await item(page, name)).protectionState === wanted, 120);
/** Entries that the machine at the target found in its ledger when it started last. */
async function entries(page, name) {
  const log = await text(page, `${ITEM}/${name}/target-machine/serial-log?test=false`);
  return Number([...log.matchAll(/LEDGER OK last=(\d+)/g)].at(-1)?.[1] ?? 0);
}
async function through(page) {
  await reads(dialog(page), /Succeeded\s+Open the job/, 180);
}
async function close(page) {
  await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
  await dialog(page).waitFor({ state: 'detached' });
}
/** The dialog of an operation, read, typed for, and carried out. */
async function order(page, name, operation, verb, words) {
  await visit(page, `/items/${name}?do=${operation}`);
  const go = dialog(page).getByRole('button', { name: verb, exact: true });
  await reads(dialog(page), words);
  assert.ok(await isOff(go), `${operation}: nothing was typed yet`);
  await looks(page, `lifecycle-${operation}`);
  await axe(page, `dialog of ${operation}`);
  await dialog(page).getByLabel(/to confirm/).fill(name);
  await go.click();
  await through(page);
}
/** What a reader sees of an operation that is possible now: disabled, with the reason; and the API refuses it. */
async function refused(page, name, operations) {
  await visit(page, `/items/${name}`);
  const list = page.getByRole('region', { name: 'What can be done' });
  for (const [button, path, body] of operations) {
    const found = list.getByRole('button', { name: button, exact: true });
    await found.waitFor();
    assert.ok(await isOff(found), `a reader is offered: ${button}`);
    assert.match((await found.getAttribute('title')) ?? '', /needs the role Operator\. You are Reader/);
    expect(/403/);
    const answer = await call(page, 'POST', `${ITEM}/${name}/${path}`, body);
    assert.equal(answer.status, 403, `${path}: ${JSON.stringify(answer.data)}`);
    expect(null);
  }
}
/** Tab until something has the focus. */
async function tabTo(page, what, wanted) {
  const at = () => page.evaluate(() => {
    const now = document.activeElement;
    return now?.getAttribute('aria-label') ?? (now instanceof HTMLInputElement ? `${now.type} ${now.value}` : (now?.textContent?.trim() ?? ''));
  });
  for (let presses = 0; presses < 80; presses += 1) {
    if (wanted.test(await at())) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not lead to ${what}; it is at: ${await at()}`);
}

try {
  const { page: admin } = await tab({ colorScheme: 'light' });
  await login(admin, 'admin', ONE_TIME);
  await firstPassword(admin, ONE_TIME, ADMIN);
  await admin.getByRole('heading', { name: 'Overview' }).waitFor();
  const { page } = await newcomer(admin, 'olaf', 'Operator', 'another-long-password', { colorScheme: 'light' });
  const { page: reader } = await newcomer(admin, 'rita', 'Reader', 'a-third-long-password');
  let agent;

  await step('a machine of its own: the disk of lab1, from its newest point', async () => {
    const image = join(WORK, 'web1.img');
    execFileSync(LIFEBOAT, ['store', 'export', '--dir', STORE, '--output', image, 'lab1'], { stdio: 'ignore' });
    device = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim();
    const way = await wayIn(admin);
    execFileSync(LIFEBOAT, ['agent', 'join', ...AGENT, '--server', way.server, '--fingerprint', way.fingerprint, '--name', 'web1', '--disk', device, '--machine-key', 'e2e-web1'], {
      env: { ...process.env, LIFEBOAT_PASSPHRASE: way.passphrase }, stdio: 'ignore',
    });
    agent = start('run');
    await until('the inventory of web1', async () => (await call(admin, 'GET', '/api/v1/vaults/default/machines/web1')).data.disks?.length);
    const nic = { network: { kind: 'user', forwards: [] } };
    const asked = await call(admin, 'POST', ITEM, {
      machine: 'web1', policy: 'lab', acceptCriticalServer: true,
      target: { name: 'web1-asr', cpus: 1, memoryBytes: 256 << 20, firmware: 'bios', diskBus: 'virtioBlk', nics: [nic], testNics: [nic] },
    });
    assert.equal(asked.status, 202, JSON.stringify(asked.data));
  });

  await step('a reader sees the failovers and may not', () => refused(reader, 'lab1', [
    ['Fail over…', 'unplanned-failover', {}], ['Fail over without loss…', 'planned-failover', {}],
  ]));
  await step('failover by the keyboard alone', async () => {
    await visit(page, '/items');
    await tabTo(page, 'the machine', /^lab1$/);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'lab1' }).waitFor();
    await tabTo(page, 'the failover', /^Fail over…$/);
    await page.keyboard.press('Enter');
    await dialog(page).waitFor();
    // The focus is on the choice of the point.
    await tabTo(page, 'the choice', /^radio Latest$/);
    await page.keyboard.press('ArrowUp');
    await reads(dialog(page), /Expected loss: \d+ s/);
    await reads(dialog(page), /Starts at the target\s+lab1-asr, 1 processor, 256 MiB[\s\S]*any→80[\s\S]*Address: /);
    await looks(page, 'lifecycle-failover');
    await axe(page, 'dialog of the failover');
    await tabTo(page, 'the name', /^text $/);
    await page.keyboard.type('lab1');
    await page.keyboard.press('Enter');
    await through(page);
    await tabTo(page, 'the way on', /^Look at the machine$/);
    await page.keyboard.press('Enter');
    await dialog(page).waitFor({ state: 'detached' });
    await reads(page.getByRole('log'), /LEDGER OK last=\d+/, 180);
    await axe(page, 'failed over');
  });
  await step('a reader sees what can follow and may not', () => refused(reader, 'lab1', [
    ['Change the point…', 'change-recovery-point', { recoveryPoint: 'LatestProcessed' }], ['Commit…', 'commit'], ['Cancel the failover…', 'cancel-failover'],
  ]));
  await step('another point, before the commit: the machine is as it was then', async () => {
    const newest = await entries(page, 'lab1');
    await page.getByRole('button', { name: 'Change the recovery point…' }).click();
    await dialog(page).getByRole('radio', { name: /A point of your choice/ }).check();
    const go = dialog(page).getByRole('button', { name: 'Change the point', exact: true });
    await dialog(page).getByLabel(/to confirm/).fill('lab1');
    assert.ok(await isOff(go), 'no point is chosen yet');
    const line = dialog(page).getByRole('slider', { name: /Recovery points/ });
    await line.focus();
    await page.keyboard.press('Home');
    await page.keyboard.press('Enter');
    await reads(dialog(page), /Chosen: /);
    await looks(page, 'lifecycle-point');
    await axe(page, 'dialog of the change of the point');
    await go.click();
    await through(page);
    await dialog(page).getByRole('link', { name: 'Look at the machine' }).click();
    await until('the machine starts from the older point', async () => { const now = await entries(page, 'lab1'); return now > 0 && now < newest; }, 180);
    const oldest = await entries(page, 'lab1');
    console.log(`    entries: ${newest}, and ${oldest} at the older point`);
  });
  await step('cancel: it goes on at the source', async () => {
    await order(page, 'lab1', 'CancelFailover', 'Cancel the failover', /There is no undo/);
    await close(page);
    await state(page, 'lab1', 'Protected');
    await reads(page.locator('main'), /Protected[\s\S]*active at the source/);
    await until('the source ships again', async () => (await item(page, 'lab1')).connected);
  });

  await step('planned failover: nothing is lost', async () => {
    await state(page, 'web1', 'Protected');
    await order(page, 'web1', 'PlannedFailover', 'Fail over without loss', /Expected loss: none/);
    await reads(dialog(page), /The source stayed at rest until it was fenced: nothing is lost/);
    await shot(page, 'dialog-lifecycle-planned-steps');
    await dialog(page).getByRole('link', { name: 'Look at the machine' }).click();
    await reads(page.getByRole('log'), /LEDGER OK last=\d+/, 180);
  });
  await step('commit', async () => {
    await order(page, 'web1', 'Commit', 'Commit', /There is no undo/);
    await close(page);
    await reads(page.locator('main'), /active at the target/);
    await refused(reader, 'web1', [['Reprotect', 'reprotect', {}]]);
  });
  await step('reprotect: taken back while nobody receives, and asked for again', async () => {
    await end(agent);
    await visit(page, '/items/web1?do=ReverseReplicate');
    await reads(dialog(page), /lifeboat agent receive --machine web1/);
    await looks(page, 'lifecycle-reprotect');
    await axe(page, 'dialog of the reprotect');
    await dialog(page).getByRole('button', { name: 'Reprotect', exact: true }).click();
    await dialog(page).getByRole('link', { name: 'Open the job' }).click();
    await page.getByRole('heading', { name: /Reprotect of/ }).waitFor();
    await shot(page, 'lifecycle-job-waits');
    await page.getByRole('button', { name: 'Cancel the job' }).click();
    await page.getByRole('button', { name: 'Try again' }).waitFor();
    await reads(page.locator('main'), /Cancelled/);
    await axe(page, 'a cancelled job');
    await visit(reader, new URL(page.url()).pathname);
    const again = reader.getByRole('button', { name: 'Try again' });
    await again.waitFor();
    assert.match((await again.getAttribute('title')) ?? '', /needs the role Operator/);
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByRole('link', { name: 'an earlier job' }).waitFor();
  });
  let receiver;
  await step('the receiver at home takes what differs', async () => {
    receiver = start('receive', '--json', '--yes', '--machine', 'web1', '--disk', device);
    await reads(page.locator('main'), /Ended(?!\s*not yet)[\s\S]*Took/, 180).catch((error) => assert.fail(`${error.message}; the receiver: ${receiver.said.slice(-800)}`));
    await state(page, 'web1', 'Protected');
    await refused(reader, 'web1', [['Fail back…', 'failback']]);
  });
  let written = 0;
  await step('failback: home, compared as a whole', async () => {
    await order(page, 'web1', 'Failback', 'Fail back', /Expected loss: none/);
    await shot(page, 'dialog-lifecycle-failback-steps');
    await close(page);
    assert.equal(await receiver.ended, 0, receiver.said.slice(-800));
    const log = await text(page, `${ITEM}/web1/target-machine/serial-log?test=false`);
    written = Number([...log.matchAll(/ENDED entries=(\d+)/g)].at(-1)?.[1] ?? 0);
    assert.ok(written > 0, 'the machine said how many entries it wrote');
  });
  await step('commit, reprotect, protected as before', async () => {
    await order(page, 'web1', 'Commit', 'Commit', /There is no undo/);
    await close(page);
    agent = start('run');
    await visit(page, '/items/web1?do=ReverseReplicate');
    await reads(dialog(page), /is replicated to the target again/);
    await looks(page, 'lifecycle-reprotect-home');
    await dialog(page).getByRole('button', { name: 'Reprotect', exact: true }).click();
    await through(page);
    await close(page);
    await reads(page.locator('main'), /Protected[\s\S]*active at the source/);
    await visit(page, '/items/web1?tab=history');
    await shot(page, 'lifecycle-history');
    await axe(page, 'the history of the way home');
  });
  await step('what it wrote at the target is at home: a test failover says so', async () => {
    const point = await until('a recovery point of home', async () => {
      const points = (await call(page, 'GET', `${ITEM}/web1/recovery-points?limit=1`)).data.items;
      return points[0]?.note !== 'made at the target' && points[0];
    }, 120);
    assert.ok(point);
    await visit(page, '/items/web1?do=TestFailover');
    await dialog(page).getByRole('button', { name: 'Start test failover' }).click();
    await through(page);
    await dialog(page).getByRole('link', { name: 'Look at the machine' }).click();
    const log = await reads(page.getByRole('log'), /LEDGER OK last=\d+/, 180);
    const held = Number(/LEDGER OK last=(\d+)/.exec(log)[1]);
    console.log(`    written at the target: ${written}, held at home: ${held}`);
    assert.ok(held >= written, `${held} of ${written} entries came home`);
    await visit(page, '/items/web1?do=TestFailoverCleanup');
    await looks(page, 'lifecycle-cleanup');
    await dialog(page).getByLabel('Notes').fill('home, and whole');
    await dialog(page).getByRole('button', { name: 'Clean up', exact: true }).click();
    await through(page);
    await close(page);
  });
  const { page: contributor } = await newcomer(admin, 'connie', 'Contributor', 'a-fourth-long-password', { colorScheme: 'light' });
  const own = join(WORK, 'machines');
  await step('another one fails over, to stay', async () => {
    await visit(page, '/items/lab1?do=UnplannedFailover');
    await reads(dialog(page), /Expected loss: /);
    await dialog(page).getByLabel(/to confirm/).fill('lab1');
    await dialog(page).getByRole('button', { name: 'Fail over', exact: true }).click();
    await through(page);
    await order(page, 'lab1', 'Commit', 'Commit', /There is no undo/);
    await close(page);
    const button = page.getByRole('region', { name: 'What can be done' }).getByRole('button', { name: 'Hydrate', exact: true });
    await button.waitFor();
    assert.match((await button.getAttribute('title')) ?? '', /needs the role Contributor\. You are Operator/);
    expect(/403/);
    assert.equal((await call(page, 'POST', `${ITEM}/lab1/hydrate`, { folder: own, format: 'qcow2' })).status, 403);
    expect(null);
  });
  await step('hydrate: its disks become files, while it runs on', async () => {
    mkdirSync(own);
    await visit(contributor, '/items/lab1?do=Hydrate');
    const go = dialog(contributor).getByRole('button', { name: 'Hydrate', exact: true });
    await dialog(contributor).getByLabel('Folder on the server').fill(own);
    await dialog(contributor).getByLabel('Format of the files').selectOption('qcow2');
    await looks(contributor, 'lifecycle-hydrate');
    await axe(contributor, 'dialog of hydrate');
    await go.click();
    await through(contributor);
    await shot(contributor, 'dialog-lifecycle-hydrate-steps');
    await close(contributor);
    assert.ok(existsSync(join(own, 'lab1-asr', 'disk0.qcow2')), `${readdirSync(own)}`);
    assert.equal((await item(contributor, 'lab1')).rpoSeconds ?? null, null, 'no points are made of it');
  });
  await step('it is started again from its files', async () => {
    const before = await entries(contributor, 'lab1');
    const vms = join(WORK, 'lab', 'data', 'vms');
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      let folder = '';
      try { folder = readlinkSync(`/proc/${pid}/cwd`); } catch { /* it has ended */ }
      if (folder.startsWith(vms)) process.kill(Number(pid), 'SIGKILL');
    }
    await visit(contributor, '/items/lab1?tab=target');
    await contributor.getByRole('button', { name: 'Start the machine' }).click();
    await until('its ledger is whole', async () => (await entries(contributor, 'lab1')) > before, 180);
    await shot(contributor, 'lifecycle-hydrated');
  });
  await step('complete migration: it stays, its points are kept', async () => {
    await visit(contributor, '/items/lab1?do=CompleteMigration');
    await reads(dialog(contributor), /There is no undo/);
    await dialog(contributor).getByLabel(/Keep the recovery points/).check();
    await reads(dialog(contributor), /recovery points? stay/);
    await looks(contributor, 'lifecycle-migration');
    await axe(contributor, 'dialog of complete migration');
    await dialog(contributor).getByLabel(/to confirm/).fill('lab1');
    await dialog(contributor).getByRole('button', { name: 'Complete migration', exact: true }).click();
    await through(contributor);
    await close(contributor);
    await visit(contributor, '/items');
    await shot(contributor, 'lifecycle-migrated');
    await reads(contributor.locator('main'), /lab1[\s\S]*recovery points? kept/);
  });
  await step('the jobs as a file', async () => {
    await visit(page, '/jobs?state=Succeeded');
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'CSV', exact: true }).click()]);
    const rows = readFileSync(await file.path(), 'utf8');
    assert.equal(file.suggestedFilename(), 'jobs.csv');
    assert.match(rows, /Failback.*web1|web1.*Failback/);
    assert.doesNotMatch(rows, /Cancelled/);
    const [other] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'JSON', exact: true }).click()]);
    assert.ok(JSON.parse(readFileSync(await other.path(), 'utf8')).some((job) => job.machine.name === 'web1'));
  });
  verdict();
} finally {
  for (const child of children) child.kill('SIGTERM');
  await Promise.all(children.map((child) => child.ended));
  if (device) execFileSync('losetup', ['--detach', device]);
  await browser.close();
}
