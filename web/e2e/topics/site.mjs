// Settings, capacity, vaults, columns: what is set once and kept.
import assert from 'node:assert/strict';
import { axe, dialog, reads, shot, step, visit } from '../lib.mjs';

export async function site({ page }) {
  await step('join tokens and registration keys: made, listed, taken back', async () => {
    await visit(page, '/settings');
    const tokens = page.getByRole('region', { name: 'Join tokens' });
    await reads(tokens, /Valid/);
    await tokens.getByRole('button', { name: /Take join token \d+ back/ }).first().click();
    await dialog(page).getByRole('button', { name: 'Take back' }).click();
    await reads(tokens, /Revoked/);
    await page.getByRole('button', { name: 'New registration key' }).click();
    await reads(dialog(page).locator('pre'), /"key": "\S+"/);
    await axe(page, 'a new registration key');
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
    await reads(page.getByRole('region', { name: 'Registration keys' }), /Valid/);
    await axe(page, 'settings');
  });
  await step('the configuration is backed up', async () => {
    const section = page.getByRole('region', { name: 'Backups of the configuration' });
    const many = async () => Number(/(\d+) backup/.exec(await reads(section, /\d+ backup|No backup yet/))?.[1] ?? 0);
    const before = await many();
    await section.getByRole('button', { name: 'Back up now' }).click();
    await reads(section, new RegExp(`${before + 1} backup`));
    await section.getByText('All backups').click();
    await reads(section, /by hand/);
    await shot(page, 'settings-backups');
  });
  await step('a second vault: its own machines, its own address; then deleted', async () => {
    await page.getByRole('button', { name: 'New vault' }).click();
    await dialog(page).getByLabel('Name').fill('training');
    await dialog(page).getByRole('button', { name: 'Create vault' }).click();
    await page.getByRole('cell', { name: /training \(shown now\)/ }).waitFor();
    await visit(page, '/items');
    await reads(page.locator('main'), /No machine is protected yet/);
    await shot(page, 'second-vault');
    await page.getByRole('combobox', { name: 'Vault' }).selectOption('default');
    await page.getByRole('link', { name: 'lab1' }).waitFor();
    await visit(page, '/settings');
    await page.getByRole('button', { name: 'Delete the vault training' }).click();
    await dialog(page).getByLabel(/to confirm/).fill('training');
    await dialog(page).getByRole('button', { name: 'Delete vault' }).click();
    await page.getByRole('combobox', { name: 'Vault' }).waitFor({ state: 'detached' });
  });
  await step('what if: the question stands in the address', async () => {
    await visit(page, '/capacity');
    await page.getByLabel('Link (Mbit/s)').fill('100');
    await page.getByLabel('More change (%)').fill('50');
    await page.getByRole('button', { name: 'Work it out' }).click();
    await page.waitForURL(/link=100/);
    assert.match(page.url(), /growth=50/);
    await reads(page.locator('main'), /The figures on this page are those of your question/);
    await page.getByRole('button', { name: 'As things are' }).click();
    await page.waitForURL(/capacity$/);
  });
  await step('columns are kept in the browser, the filter in the address', async () => {
    await visit(page, '/items');
    await page.getByRole('button', { name: 'Columns' }).click();
    await page.getByRole('checkbox', { name: 'Policy' }).check();
    await page.getByRole('checkbox', { name: 'Last test' }).uncheck();
    await page.keyboard.press('Escape');
    await page.getByRole('searchbox').fill('lab1');
    await visit(page, '/items?q=lab1');
    await page.getByRole('button', { name: 'Policy', exact: true }).waitFor();
    assert.equal(await page.getByRole('button', { name: 'Last test' }).count(), 0);
    assert.equal(await page.getByRole('row').count(), 2);
    await page.evaluate(() => localStorage.removeItem('lifeboat-columns'));
  });
  await step('the agent of a machine and the version that the server brings', async () => {
    await visit(page, '/servers');
    await page.getByRole('button', { name: 'Update the agent of lab1' }).click();
    await reads(dialog(page), /The server brings\s+\d+\.\d+/);
    await axe(page, 'agent update');
    await dialog(page).getByRole('button', { name: 'Close', exact: true }).last().click();
  });
  await step('a network is made, mapped, and let go of', async () => {
    await visit(page, '/networks');
    await page.getByRole('button', { name: 'New network' }).click();
    await dialog(page).getByLabel('Name').fill('drill');
    await dialog(page).getByLabel('Range').fill('10.99.0.0/24');
    await dialog(page).getByRole('button', { name: 'Create network' }).click();
    await page.getByRole('cell', { name: 'drill', exact: true }).waitFor();
    const mapped = async (target) => {
      await page.getByRole('button', { name: 'Map *' }).click();
      await dialog(page).getByLabel('In a test failover').selectOption(target);
      await dialog(page).getByRole('button', { name: 'Map', exact: true }).click();
      await dialog(page).waitFor({ state: 'detached' });
    };
    await mapped('drill');
    await reads(page.getByRole('row', { name: /All others/ }), /drill/);
    await axe(page, 'networks');
    await shot(page, 'networks');
    await mapped('');
    await page.getByRole('button', { name: 'Delete drill' }).click();
    await dialog(page).getByRole('button', { name: 'Delete network' }).click();
    await page.getByRole('cell', { name: 'drill', exact: true }).waitFor({ state: 'detached' });
  });
  await step('the policy of an item', async () => {
    await visit(page, '/items/newcomer');
    await page.getByRole('button', { name: 'Change', exact: true }).click();
    await dialog(page).getByRole('radio', { name: /^lab/ }).check();
    await axe(page, 'policy of an item');
    await dialog(page).getByRole('button', { name: 'Change the policy' }).click();
    await page.getByRole('link', { name: 'lab', exact: true }).waitFor();
  });
}
