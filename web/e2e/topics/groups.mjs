// Replication groups, maintenance windows, a point by hand, and the way to the API's documentation.
import assert from 'node:assert/strict';
import { axe, call, dialog, isOff, looks, reads, shot, step, until, visit } from '../lib.mjs';

const ITEMS = '/api/v1/vaults/default/replicated-items';

export async function groups({ page, context }) {
  await step('a replication group is made; its machines share points', async () => {
    await visit(page, '/groups');
    await page.getByText('No replication group yet').waitFor();
    await axe(page, 'no group');
    await page.getByRole('button', { name: 'Make the first group' }).click();
    await dialog(page).getByLabel('Name').fill('pair');
    await dialog(page).getByRole('checkbox', { name: 'lab1' }).check();
    await dialog(page).getByLabel('A shared point every (s)').fill('5');
    await axe(page, 'a new group');
    await looks(page, 'group');
    await dialog(page).getByRole('button', { name: 'Create group' }).click();
    await page.getByRole('heading', { name: 'pair' }).waitFor();
    await reads(page.locator('main'), /Too few machines/);
    await page.getByLabel('One more machine').selectOption('lab2');
    await page.getByRole('button', { name: 'Take in' }).click();
    await page.getByRole('link', { name: 'lab2' }).waitFor();
    await page.getByRole('button', { name: 'Change', exact: true }).click();
    await dialog(page).getByLabel('App-consistent').selectOption({ label: 'Never' });
    await looks(page, 'group-times');
    await axe(page, 'the times of a group');
    await dialog(page).getByRole('button', { name: 'Save' }).click();
    const points = page.getByRole('region', { name: 'Shared points' });
    await reads(points, /One every\s+5 s\s+App-consistent\s+never/);
    await reads(points, /The newest that all hold\s+\d\d:\d\d:\d\d\s+Crash-consistent/, 120);
    await reads(page.locator('main'), /Healthy/);
    await axe(page, 'a group');
    await shot(page, 'group');
    await visit(page, '/groups');
    await reads(page.getByRole('row', { name: /pair/ }), /lab1, lab2[\s\S]*Healthy[\s\S]*ago/);
    await shot(page, 'groups');
    await axe(page, 'groups');
  });
  await step('machines of a group are tested from an instant that all of them hold', async () => {
    await visit(page, '/items/lab1?do=TestFailover');
    await dialog(page).getByRole('radio', { name: /^Latest shared by its group(?!,)/ }).check();
    assert.ok(await dialog(page).getByRole('radio', { name: /^Latest shared by its group, app/ }).isDisabled(), 'no app-consistent one is shared');
    await looks(page, 'failover-shared');
    await axe(page, 'a failover from a shared point');
    await page.keyboard.press('Escape');
    await visit(page, '/items');
    for (const name of ['lab1', 'lab2']) await page.getByRole('checkbox', { name: `Choose ${name}` }).check();
    const region = page.getByRole('region', { name: 'Chosen items' });
    await region.getByRole('button', { name: 'Test failover', exact: true }).click();
    await dialog(page).getByLabel('Recovery point of each').selectOption({ label: 'Latest that their replication group shares' });
    await dialog(page).getByRole('button', { name: 'Start test failover' }).click();
    await reads(dialog(page), /2 of 2 machines are through\./);
    await page.keyboard.press('Escape');
    for (const name of ['lab1', 'lab2']) {
      const { data } = await call(page, 'GET', `${ITEMS}/${name}`);
      const all = (await call(page, 'GET', `${ITEMS}/${name}/recovery-points?limit=1000`)).data.items;
      const taken = all.find((point) => point.id === data.testFailover.recoveryPoint);
      assert.ok(taken?.groupPoint, `${name} started from ${JSON.stringify(taken)}`);
    }
    await region.getByRole('button', { name: 'Clean up test failover' }).click();
    await dialog(page).getByRole('button', { name: 'Clean up', exact: true }).click();
    await reads(dialog(page), /2 of 2 machines are through\./);
    await page.keyboard.press('Escape');
    await visit(page, '/items/lab1?tab=points');
    await reads(page.locator('main'), /shared by its group/);
  });
  await step('a machine is taken out of it, and it is deleted', async () => {
    await visit(page, '/groups/pair');
    await page.getByRole('button', { name: 'Take lab2 out' }).click();
    await looks(page, 'group-out');
    await dialog(page).getByRole('button', { name: 'Take out' }).click();
    await reads(page.locator('main'), /Too few machines/);
    await page.getByRole('button', { name: 'Delete', exact: true }).click();
    await axe(page, 'a group is deleted');
    await dialog(page).getByRole('button', { name: 'Delete group' }).click();
    await page.getByText('No replication group yet').waitFor();
  });
  await step('a maintenance window: planned, on, ended', async () => {
    await visit(page, '/maintenance');
    await page.getByText('No maintenance is planned').waitFor();
    await page.getByRole('button', { name: 'Plan a window' }).first().click();
    const go = dialog(page).getByRole('button', { name: 'Plan the window' });
    await dialog(page).getByLabel('Of').selectOption('lab2');
    await dialog(page).getByLabel('To', { exact: true }).fill('2020-01-01T00:00');
    assert.ok(await isOff(go), 'its end is over');
    const soon = new Date(Date.now() + 3 * 3_600_000);
    const two = (value) => String(value).padStart(2, '0');
    await dialog(page).getByLabel('To', { exact: true }).fill(`${soon.getFullYear()}-${two(soon.getMonth() + 1)}-${two(soon.getDate())}T${two(soon.getHours())}:${two(soon.getMinutes())}`);
    await dialog(page).getByLabel('Note').fill('a new disk');
    await axe(page, 'a new window');
    await looks(page, 'maintenance');
    await go.click();
    await reads(page.getByRole('row', { name: /lab2/ }), /On[\s\S]*a new disk[\s\S]*admin/);
    await axe(page, 'maintenance');
    await shot(page, 'maintenance');
    await visit(page, '/items/lab2');
    await reads(page.locator('main'), /Maintenance until [\s\S]*Nobody is told of what is wrong here/);
    await axe(page, 'a machine under maintenance');
    await visit(page, '/items/lab1');
    assert.equal(await page.getByText(/Maintenance until/).count(), 0, 'it is not that of another machine');
    await visit(page, '/maintenance');
    await page.getByRole('button', { name: 'End the window of lab2' }).click();
    await looks(page, 'maintenance-end');
    await dialog(page).getByRole('button', { name: 'End now' }).click();
    await page.getByText('No maintenance is planned').waitFor();
    await page.getByRole('checkbox', { name: 'Show those that are over' }).check();
    await reads(page.getByRole('row', { name: /lab2/ }), /Over/);
  });
  await step('a recovery point by hand', async () => {
    await visit(page, '/items/lab1?tab=points');
    await page.getByRole('button', { name: 'Make a point now' }).click();
    await axe(page, 'a point by hand');
    await looks(page, 'point-now');
    await dialog(page).getByRole('button', { name: 'Make the point' }).click();
    await page.getByRole('heading', { name: /of lab1/ }).waitFor();
    await reads(page.locator('main'), /Succeeded/);
  });
  await step('the documentation of the API is one click away', async () => {
    const [docs] = await Promise.all([context.waitForEvent('page'), page.getByRole('link', { name: /API documentation/ }).first().click()]);
    await docs.waitForLoadState();
    await until('the documented calls', async () => /replicated-items/.test(await docs.locator('body').innerText()));
    await axe(docs, 'documentation of the API');
    await shot(docs, 'docs');
    await docs.close();
  });
}
