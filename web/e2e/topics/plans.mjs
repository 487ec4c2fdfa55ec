// A recovery plan: made, tested with a step for a person, cleaned up.
import { axe, dialog, reads, shot, step, visit } from '../lib.mjs';

export async function plans({ page }) {
  await step('a recovery plan is made, waits for a person, and is proven', async () => {
    await visit(page, '/plans');
    await page.getByRole('button', { name: 'New plan' }).click();
    await dialog(page).getByLabel('Name').fill('shop');
    await dialog(page).getByRole('checkbox', { name: 'newcomer' }).check();
    await dialog(page).getByRole('button', { name: 'Add a group' }).click();
    const second = dialog(page).getByRole('group', { name: 'Group 2' });
    await second.getByRole('checkbox', { name: 'second' }).check();
    await second.getByLabel('By hand before it').fill('see that the first answers');
    await axe(page, 'a new plan');
    await shot(page, 'dialog-plan');
    await dialog(page).getByRole('button', { name: 'Create plan' }).click();
    await page.getByRole('heading', { name: 'shop' }).waitFor();
    await page.getByRole('button', { name: 'Test failover', exact: true }).click();
    await dialog(page).getByRole('button', { name: 'Start test failover' }).click();
    await reads(page.locator('main'), /see that the first answers[\s\S]*What was done or seen/, 60);
    await axe(page, 'a plan that waits');
    await shot(page, 'plan-waits');
    await page.getByLabel('What was done or seen').fill('it answers');
    await page.getByRole('button', { name: 'Done, go on' }).click();
    const before = page.getByRole('region', { name: 'Runs before' });
    await reads(before, /Succeeded/, 60);
    await page.getByRole('button', { name: 'Clean up test failover' }).click();
    await dialog(page).getByLabel('Notes').fill('both came up');
    await dialog(page).getByRole('button', { name: 'Clean up', exact: true }).click();
    await reads(before, /Succeeded[\s\S]*Succeeded/, 60);
    await shot(page, 'plan');
    await axe(page, 'a plan');
    await visit(page, '/plans');
    await axe(page, 'plans');
  });
}
