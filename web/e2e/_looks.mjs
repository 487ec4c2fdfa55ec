import { ADMIN, ONE_TIME, axe, browser, dialog, firstPassword, login, looks, reads, shot, tab, verdict, visit } from './lib.mjs';
const { page } = await tab({ colorScheme: 'light' });
await login(page, 'admin', ONE_TIME); await firstPassword(page, ONE_TIME, ADMIN);
await page.getByRole('heading', { name: 'Overview' }).waitFor();
const all = [
  ['/items/lab1', 'Change', 'policy-of'], ['/items/lab1?tab=disks', 'Include or leave out disks', 'disks'], ['/policies', 'New policy', 'policy'], ['/policies', 'Change default', 'policy-change'],
  ['/servers', 'Rename lab1', 'rename'], ['/servers', 'Update the agent of lab1', 'agent'], ['/servers', 'Remove lab1', 'remove'], ['/networks', 'New network', 'network'], ['/settings', 'New registration key', 'key'], ['/settings', 'Replace the passphrase', 'passphrase'],
  ['/settings', 'New vault', 'vault'], ['/users', 'New user', 'user'], ['/users', 'Reset password of admin', 'reset'], ['/tokens', 'New token', 'token'], ['/plans', 'New plan', 'plan'],
];
for (const [path, button, name] of all) {
  try {
    await visit(page, path);
    await page.getByRole('button', { name: button, exact: true }).first().click({ timeout: 4000 });
    await dialog(page).waitFor({ timeout: 4000 });
    await looks(page, name);
    await axe(page, `dialog ${name}`);
  } catch (error) { console.log(path, button, String(error).slice(0, 200)); }
}
for (const operation of ['RepairReplication', 'DisableProtection', 'TestFailover', 'UnplannedFailover']) {
  await visit(page, `/items/lab1?do=${operation}`); await dialog(page).waitFor(); await page.waitForFunction(() => !document.querySelector('[aria-busy=true]')); await looks(page, operation);
}
// A source that does not answer.
await page.keyboard.press('Escape');
await browser.close();
verdict();
