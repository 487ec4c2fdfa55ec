import { describe, expect, it } from 'vitest';
import { actionLimits, actionWords, groupOf, keptAction, moved, place, planBody, swap, takeOut } from './plan';
import type { Plan, PlanAction } from './words';

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
  it('say what a script is given, and when they are left out', () => {
    expect(actionWords({ name: 'x', kind: 'script', script: 'a.sh', arguments: ['one', 'two words', ''] })).toBe('runs the script a.sh one "two words" ""');
    expect(actionLimits({ name: 'x', kind: 'manual', failoverTypes: ['test', 'planned'], directions: ['recoveryToPrimary'] })).toBe('only at test or planned failover, only on the way home');
    expect(actionLimits({ name: 'x', kind: 'manual' })).toBe('');
    expect(actionWords({ name: 'x', kind: 'dance' } as unknown as PlanAction)).toContain('dance');
  });
});

describe('an edit loses nothing', () => {
  const all: PlanAction[] = [
    { name: 'a', kind: 'script', script: 's', arguments: ['x', '', 'a\nb'], timeoutSeconds: 9, failoverTypes: ['test'], directions: ['primaryToRecovery'] },
    { name: 'b', kind: 'command', machine: 'db', script: 's', arguments: ['--x'], timeoutSeconds: 9, directions: ['recoveryToPrimary'] },
    { name: 'c', kind: 'manual', instructions: 'do' },
    { name: 'd', kind: 'probe', machine: 'db', protocol: 'http', port: 80, path: '/x', status: 204, timeoutSeconds: 9 },
    { name: 'e', kind: 'delay', seconds: 5 },
  ];
  it('of an action of any kind, also with the form\'s other fields filled', () => {
    for (const action of all) {
      expect(keptAction({ ...action }, action)).toEqual(action);
      expect(keptAction({ protocol: 'tcp', seconds: 30, timeoutSeconds: 300, failoverTypes: [], directions: [], arguments: [], instructions: '', ...action }, action)).toEqual(action);
    }
  });
  it('of a field or a kind that this page does not know', () => {
    const newer = { ...all[2], colour: 'red' } as unknown as PlanAction;
    expect(keptAction({ ...newer, name: 'z' }, newer)).toEqual({ ...newer, name: 'z' });
    expect(keptAction({ ...newer, kind: 'delay', seconds: 3 }, newer)).toEqual({ name: 'c', kind: 'delay', seconds: 3 });
    const dance = { name: 'f', kind: 'dance', seconds: 7, steps: ['left'] } as unknown as PlanAction;
    expect(keptAction({ protocol: 'tcp', timeoutSeconds: 300, ...dance }, dance)).toEqual(dance);
  });
  it('of a plan', () => {
    const plan = { id: '1', name: 'site', revision: 3, machineCount: 0, lastRun: null, groups: [{ name: 'a', colour: 'red' }], onMachineFailure: 'ask', onFailure: [all[0]], afterCleanup: [all[4]], testNetwork: 'n', newer: 1 } as unknown as Plan;
    expect(planBody(plan, { onMachineFailure: 'stop' })).toEqual({ name: 'site', groups: [{ name: 'a', colour: 'red' }], onMachineFailure: 'stop', onFailure: [all[0]], afterCleanup: [all[4]], testNetwork: 'n', newer: 1 });
  });
  it('of the order of a list', () => {
    expect(moved(['a', 'b', 'c'], 0, 1)).toEqual(['b', 'a', 'c']);
    expect(moved(['a', 'b'], 0, -1)).toEqual(['a', 'b']);
  });
});
