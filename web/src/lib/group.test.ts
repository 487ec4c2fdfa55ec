import { expect, test } from 'vitest';
import { candidates, freezeWindow, groupState } from './group';
import type { Group, Item } from './words';

const member = (name: string, trouble = '') => ({ id: name, name, takesPart: trouble === '', trouble });
const group = (changes: Partial<Group>): Group => ({
  name: 'shop', revision: 1, shareSeconds: 30, appConsistentSeconds: 0, members: [member('web1'), member('db1')], health: 'Normal', rounds: 4, sharedPoints: 4, ...changes,
});

test('the health of a group, and why', () => {
  expect(groupState(group({}))).toEqual({ tone: 'ok', text: 'Healthy', why: '' });
  expect(groupState(group({ members: [member('web1')] })).text).toBe('Too few machines');
  const without = groupState(group({ members: [member('web1'), member('db1', 'its agent is silent')], health: 'Warning' }));
  expect(without.tone).toBe('warn');
  expect(without.why).toBe('db1: its agent is silent');
  // The round before went well; a machine has left since.
  expect(groupState(group({ members: [member('web1'), member('db1', 'it was failed over')] })).text).toBe('Without 1 machine');
  expect(groupState(group({ health: 'None' })).tone).toBe('none');
});

test('a machine is in one group at most', () => {
  const items = [{ name: 'web1' }, { name: 'app1' }] as Item[];
  expect(candidates(items, [group({})])).toEqual([{ name: 'app1', refusal: null }, { name: 'web1', refusal: 'It is in the group shop.' }]);
});

test('a freeze window that is not known is no zero', () => {
  expect(freezeWindow(group({}))).toBe('not known yet');
  expect(freezeWindow(group({ freezeWindowMsP50: 40.4, freezeWindowMsP99: 92.6 }))).toBe('40 ms, 99 % within 93 ms');
});
