// What each role sees: what it may not do is there, disabled, with the reason; the server refuses as well.
import assert from 'node:assert/strict';
import { axe, call, dialog, expect, isOff, newcomer, reads, shot, step, visit } from '../lib.mjs';

const PASSWORD = 'another-long-password';
const NAMES = { Reader: 'rita', Operator: 'olaf', Contributor: 'carla', Owner: 'oda' };
/** The least role of what a page offers: (page, button, role). */
const OFFERS = [
  ['/items/lab1', 'Test failover', 'Operator'], ['/items/lab1', 'Fail over…', 'Operator'], ['/items/lab1', 'Resynchronize', 'Operator'], ['/items/lab1', 'Disable replication…', 'Contributor'], ['/items/lab1', 'Change', 'Contributor'],
  ['/items/lab1?tab=disks', 'Include or leave out disks', 'Contributor'], ['/items/lab1?tab=target', 'Change', 'Contributor'], ['/items', 'Enable replication', 'Contributor'],
  ['/items/lab1?tab=points', 'Make a point now', 'Operator'], ['/groups', 'New group', 'Contributor'], ['/maintenance', 'Plan a window', 'Contributor'],
  ['/policies', 'New policy', 'Contributor'], ['/alerts', 'Change', 'Contributor'], ['/servers', 'Add a machine', 'Contributor'], ['/servers', 'Rename lab1', 'Contributor'],
  ['/networks', 'New network', 'Contributor'], ['/settings', 'New registration key', 'Contributor'], ['/settings', 'Replace the passphrase', 'Contributor'], ['/settings', 'Back up now', 'Contributor'], ['/settings', 'New vault', 'Owner'],
  ['/users', 'New user', 'Owner'], ['/users', 'Reset password of admin', 'Owner'], ['/tokens', 'New token', 'Reader'],
];
const RANK = ['Reader', 'Operator', 'Contributor', 'Owner'];

export async function roles({ page }) {
  for (const role of RANK) {
    await step(`the view of a ${role}`, async () => {
      const { context, page: other } = await newcomer(page, NAMES[role], role, PASSWORD);
      let at = '';
      for (const [path, button, least] of OFFERS) {
        if (path !== at) {
          await visit(other, path);
          at = path;
          if (role === 'Reader' || role === 'Operator') await axe(other, `a ${role} at ${path}`);
        }
        const found = other.getByRole('button', { name: button, exact: true }).first();
        await found.waitFor();
        const reason = await found.getAttribute('title');
        if (RANK.indexOf(role) >= RANK.indexOf(least)) assert.ok(!/needs the role/.test(reason ?? ''), `${role}: ${button} at ${path} is refused: ${reason}`);
        else {
          assert.ok(await isOff(found), `${role}: ${button} at ${path} is offered`);
          assert.match(reason ?? '', new RegExp(`needs the role ${least}\\. You are ${role}`));
        }
      }
      await shot(other, `role-${role}`);
      if (role === 'Reader') {
        await visit(other, '/items/lab1');
        const test = other.getByRole('button', { name: 'Test failover', exact: true });
        // It can be reached and pressed; it says why and does nothing.
        await test.click({ force: true });
        assert.equal(await dialog(other).count(), 0, 'no dialog opens');
        await reads(other.getByRole('status').filter({ hasText: 'needs the role' }), /needs the role Operator\. You are Reader/);
        await shot(other, 'reader');
        // The page is not the guard: the server refuses as well.
        expect(/403/);
        assert.equal((await call(other, 'POST', '/api/v1/vaults/default/replicated-items/lab1/test-failover', {})).status, 403);
        expect(null);
        for (const path of ['/add-machine', '/tokens']) { await visit(other, path); await axe(other, `a Reader at ${path}`); }
      }
      if (role === 'Operator') {
        await visit(other, '/jobs');
        await reads(other.locator('main'), /Enable replication/);
      }
      await context.close();
    });
  }
}
