import { expect, test } from 'vitest';
import { fieldTime, freshWindow, windowOf, windowRequest, windowTrouble } from './maintenance';
import type { Window } from './words';

const NOW = Date.parse('2026-03-01T20:00:00Z');
const window = (id: number, state: string, endsAt: string, machine: string | null = null): Window => ({
  id, state, machine: machine ? { id: machine, name: machine } : null, beginsAt: '2026-03-01T19:00:00Z', endsAt, note: '', madeBy: 'admin',
});

test('a fresh one can be planned as it is', () => {
  const form = freshWindow(NOW);
  expect(windowTrouble(form, NOW)).toBeNull();
  const request = windowRequest(form);
  expect(request.beginsAt).toBeNull();
  expect(request.machine).toBeNull();
  expect(Date.parse(request.endsAt) - NOW).toBe(2 * 3_600_000);
});

test('what cannot be planned, and why', () => {
  const form = freshWindow(NOW);
  expect(windowTrouble({ ...form, ends: '' }, NOW)).toContain('times');
  expect(windowTrouble({ ...form, ends: fieldTime(NOW - 60_000) }, NOW)).toContain('over');
  expect(windowTrouble({ ...form, now: false, begins: fieldTime(NOW + 3 * 3_600_000) }, NOW)).toContain('before it begins');
  expect(windowTrouble({ ...form, ends: fieldTime(NOW + 32 * 86_400_000) }, NOW)).toContain('31 days');
});

test('times go out in UTC, whatever the zone of the viewer', () => {
  const begins = fieldTime(NOW + 3_600_000);
  expect(windowRequest({ ...freshWindow(NOW), now: false, begins }).beginsAt).toBe('2026-03-01T21:00:00.000Z');
});

test('the window of a machine: its own or that of the vault, the longest that is on', () => {
  const all = [window(1, 'On', '2026-03-01T21:00:00Z'), window(2, 'On', '2026-03-01T23:00:00Z', 'db1'), window(3, 'Planned', '2026-03-02T23:00:00Z')];
  expect(windowOf(all, 'db1')?.id).toBe(2);
  expect(windowOf(all, 'web1')?.id).toBe(1);
  expect(windowOf([all[2] as Window], 'web1')).toBeNull();
});
