// Test failover to the console and its cleanup, alone and for several; unplanned failover and commit; resynchronization.
import assert from 'node:assert/strict';
import { axe, dialog, isOff, looks, reads, shot, step, text, until, visit } from '../lib.mjs';

export async function failover({ page }) {
  await step('test failover: one click and a point, to the booted console', async () => {
    await visit(page, '/items/lab1');
    await page.getByRole('button', { name: 'Test failover', exact: true }).click();
    await dialog(page).waitFor();
    await reads(dialog(page), /A copy named lab1-test starts at the target, as lab1 was at/);
    await looks(page, 'test-failover');
    await axe(page, 'dialog of the test failover');
    await dialog(page).getByRole('button', { name: 'Start test failover' }).click();
    await reads(dialog(page), /Succeeded\s+Open the job/);
    await shot(page, 'dialog-test-steps');
    await dialog(page).getByRole('link', { name: 'Look at the machine' }).click();
    await reads(page.getByRole('log'), /LEDGER OK last=\d+/, 180);
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
    const verdicts = async () => (await text(page, '/api/v1/vaults/default/replicated-items/lab1/target-machine/serial-log?test=true')).split('LEDGER OK').length - 1;
    await until('the machine judges its data once more', async () => (await verdicts()) > 1, 180);
    await page.keyboard.press('Shift+Escape');
    await page.locator('[data-leave]:focus').waitFor();
    await page.getByRole('button', { name: 'Full screen' }).click();
    await page.getByRole('button', { name: 'Leave full screen' }).click();
    await shot(page, 'console');
    await axe(page, 'console');
  });
  await step('without the live console a picture stands in', async () => {
    await page.routeWebSocket(/target-machine\/console/, (socket) => socket.close());
    await visit(page, '/items/lab1?tab=target');
    const size = await page.getByRole('img', { name: 'Screen of lab1-test' }).evaluate((image) => image.decode().then(() => image.naturalWidth));
    assert.ok(size >= 320, `the screen is ${size} wide`);
    await reads(page.locator('main'), /The live console cannot be reached/);
  });
  await step('cleanup with notes; the machine is proven', async () => {
    await page.getByRole('button', { name: 'Clean up test failover' }).first().click();
    await dialog(page).getByLabel('Notes').fill('booted, ledger is whole');
    await dialog(page).getByRole('button', { name: 'Clean up', exact: true }).click();
    await reads(dialog(page), /Succeeded\s+Open the job/);
    await dialog(page).getByRole('link', { name: 'Open the job' }).click();
    await reads(page.locator('main'), /booted, ledger is whole/);
    await axe(page, 'job');
    await visit(page, '/items');
    await reads(page.getByRole('row', { name: /lab1/ }), /Proven/);
  });
  await step('several at once: test failovers, then their cleanups; who cannot is left out with the reason', async () => {
    for (const name of ['newcomer', 'second']) await page.getByRole('checkbox', { name: `Choose ${name}` }).check();
    const region = page.getByRole('region', { name: 'Chosen items' });
    await region.getByRole('button', { name: 'Test failover', exact: true }).click();
    await reads(dialog(page), /2 machines take part/);
    await looks(page, 'several');
    await axe(page, 'several at once');
    await dialog(page).getByRole('button', { name: 'Start test failover' }).click();
    await reads(dialog(page), /2 of 2 machines are through\./);
    await shot(page, 'dialog-several-results');
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
    await page.getByRole('checkbox', { name: 'Choose lab1' }).check();
    await region.getByRole('button', { name: 'Clean up test failover' }).click();
    await reads(dialog(page), /2 machines take part[\s\S]*1 machine left out[\s\S]*lab1: No test failover of lab1/);
    await dialog(page).getByRole('button', { name: 'Clean up', exact: true }).click();
    await reads(dialog(page), /2 of 2 machines are through\./);
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
    // What cannot be undone wants its number typed.
    await region.getByRole('button', { name: 'Disable replication' }).click();
    const go = dialog(page).getByRole('button', { name: 'Disable replication' });
    assert.ok(await isOff(go));
    await dialog(page).getByLabel(/to confirm/).fill('disable replication 2');
    assert.ok(await isOff(go), 'it is another number');
    await page.keyboard.press('Escape');
    await region.getByRole('button', { name: 'Choose none' }).click();
  });
  await step('resynchronize: its live steps', async () => {
    await visit(page, '/items/lab1?do=RepairReplication');
    await dialog(page).getByRole('button', { name: 'Resynchronize' }).click();
    await reads(dialog(page), /Succeeded\s+Open the job/);
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
  });
  await step('unplanned failover: only after the name is typed; then commit', async () => {
    await visit(page, '/items/lab2?do=UnplannedFailover');
    const go = dialog(page).getByRole('button', { name: 'Fail over' });
    await reads(dialog(page), /Expected loss/);
    assert.ok(await isOff(go));
    await dialog(page).getByRole('radio', { name: /Latest processed/ }).check();
    await reads(dialog(page), /Expected loss: \d+ s/);
    await looks(page, 'failover');
    await axe(page, 'dialog of the failover');
    await dialog(page).getByLabel(/to confirm/).fill('lab1');
    assert.ok(await isOff(go), 'the name of another machine');
    await dialog(page).getByLabel(/to confirm/).fill('lab2');
    await go.click();
    await reads(dialog(page), /Succeeded\s+Open the job/);
    await dialog(page).getByRole('link', { name: 'Look at the machine' }).click();
    await page.getByRole('button', { name: 'Commit', exact: true }).first().click();
    await dialog(page).getByLabel(/to confirm/).fill('lab2');
    await dialog(page).getByRole('button', { name: 'Commit', exact: true }).click();
    await reads(dialog(page), /Succeeded\s+Open the job/);
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
    await shot(page, 'failed-over');
  });
}
