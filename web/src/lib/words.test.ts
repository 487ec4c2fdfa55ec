import { expect, test } from 'vitest';
import { needs } from './attention';
import roles from './roles.json';
import { formOf, parseForwards, targetOf } from './target';
import { OPERATIONS, operation, primaryOperation } from './operations';
import { jobTone, roleRefusal, type Item, type Job, type Machine, type Target } from './words';

const item = (changes: Partial<Item>) => ({
  id: 'i', name: 'web1', healthErrors: [], protectionState: 'Protected', testFailoverState: 'None', failoverHealth: 'Normal', replicationHealth: 'Normal',
  activeLocation: 'Primary', allowedOperations: [], lastSuccessfulTestFailoverAt: null, ...changes,
}) as unknown as Item;

test('every operation on offer has a route whose role is known', () => {
  for (const { route } of Object.values(OPERATIONS)) expect(roles).toHaveProperty([route]);
});

test('what is lost stands beside the button, and what cannot be undone is not left by a word like it', () => {
  const point = { id: 'p', consistency: 'CrashConsistent', instant: '2026-03-01T20:00:00Z', note: '', freezeMs: 0, storedBytes: 0, disks: [] };
  const lost = item({ connected: false, computedAt: '2026-03-01T20:01:05Z' });
  const order = { choice: 'LatestProcessed', custom: null, lastSync: false, notes: '', receiver: '' } as const;
  expect(operation('UnplannedFailover')?.headline?.({ item: lost, order, point, points: 1, now: 0 })).toEqual({ text: 'Expected loss: 1 min 5 s.', bad: true });
  expect(operation('UnplannedFailover')?.headline?.({ item: { ...lost, connected: true }, order: { ...order, lastSync: true }, point, points: 1, now: 0 }).bad).toBeUndefined();
  expect(operation('CancelFailover')?.leave).toBe('Keep the failover');
});

test('a role refuses what needs more', () => {
  expect(roleRefusal('Reader', 'Operator')).toContain('needs the role Operator');
  expect(roleRefusal(null, 'Reader')).toContain('without a role');
  expect(roleRefusal('Owner', 'Operator')).toBeNull();
  expect(roleRefusal('Operator', 'Operator')).toBeNull();
});

test('a failed job is amber, never green or red', () => expect(jobTone('Failed')).toBe('warn'));

test('the likeliest action', () => {
  const of = (...names: string[]) => primaryOperation(item({ allowedOperations: names.map((operation) => ({ operation, allowed: true })) }));
  expect(of('TestFailover', 'UnplannedFailover')).toBe('TestFailover');
  expect(of('TestFailoverCleanup', 'UnplannedFailover')).toBe('TestFailoverCleanup');
  expect(of('UnplannedFailover')).toBeNull();
});

test('what needs a person: the gravest first, settled failures not at all', () => {
  const error = { code: 'NoPoint', category: 'Replication', severity: 'Critical', summary: 'no point for an hour', message: '', possibleCauses: '', recommendedAction: 'start the agent' };
  const job = (state: string, at: number) => ({ id: `${state}${at}`, kind: 'TestFailover', scenario: 'Test failover', machine: { id: 'i', name: 'web1' }, state, createdAt: new Date(at).toISOString() }) as unknown as Job;
  const machine = { id: 'm', name: 'new1', replicated: false, revoked: false, prerequisites: 'pass' } as Machine;
  const found = needs([item({ failoverHealth: 'Warning' }), item({ id: 'j', name: 'db1', healthErrors: [error], replicationHealth: 'Critical' })], [machine], [job('Failed', 1000)], [], 2000);
  expect(found.map((need) => need.tone)).toEqual(['crit', 'warn', 'info', 'info']);
  expect(found[0]?.title).toContain('db1');
  expect(found.at(-1)?.title).toBe('1 machine never tested');
  expect(needs([], [], [job('Succeeded', 1500), job('Failed', 1000)], [], 2000)).toEqual([]);
});

test('target settings survive the form', () => {
  const target: Target = {
    name: 'web1-asr', cpus: 2, memoryBytes: 512 * 1024 * 1024, firmware: 'uefi', diskBus: 'ahci',
    nics: [{ mac: null, network: { kind: 'user', forwards: [{ hostPort: 2222, guestPort: 22 }] } }, { mac: '02:00:00:00:00:01', network: { kind: 'bridge', name: 'br0' } }],
    testNics: [{ mac: null, network: { kind: 'isolatedUser', forwards: [] } }],
  };
  expect(targetOf(formOf(target))).toEqual(target);
  expect(() => parseForwards('22')).toThrow('HOST-PORT:GUEST-PORT');
  expect(() => parseForwards('99999:22')).toThrow();
  expect(parseForwards(' 0:80, 2222:22 ')).toEqual([{ hostPort: 0, guestPort: 80 }, { hostPort: 2222, guestPort: 22 }]);
});
