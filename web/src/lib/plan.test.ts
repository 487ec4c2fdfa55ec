import { describe, expect, it } from 'vitest';
import { actionWords, groupOf, place, swap, takeOut } from './plan';

const groups = [{ name: 'a', machines: ['db'] }, { name: 'b', machines: ['web', 'app'] }];

describe('groups of a plan', () => {
  it('hold a machine once, wherever it comes from', () => {
    expect(place(groups, 'web', 0)).toEqual([{ name: 'a', machines: ['db', 'web'] }, { name: 'b', machines: ['app'] }]);
    expect(place(groups, 'app', 1, 0)[1]?.machines).toEqual(['app', 'web']);
    expect(place(groups, 'new', 1)[1]?.machines).toEqual(['web', 'app', 'new']);
    expect(groupOf(groups, 'app')).toBe(1);
    expect(groupOf(takeOut(groups, 'app'), 'app')).toBe(-1);
  });
  it('change places with their neighbours only', () => {
    expect(swap(groups, 0, 1).map((group) => group.name)).toEqual(['b', 'a']);
    expect(swap(groups, 0, -1)).toBe(groups);
    expect(swap(groups, 1, 1)).toBe(groups);
  });
});

describe('actions', () => {
  it('say what they do', () => {
    expect(actionWords({ name: 'x', kind: 'probe', machine: 'db', protocol: 'tcp', port: 5432 })).toBe('asks db by tcp on port 5432, up to 300 s');
    expect(actionWords({ name: 'x', kind: 'delay', seconds: 5 })).toBe('waits 5 s');
  });
});
