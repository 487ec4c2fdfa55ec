/** The verbs of the lifecycle: their words, what they ask for, what they will do. One entry each; the server says which are
 * allowed now and why others are not. Pure. */
import { age, bytes, count, local } from './format';
import { expectedLoss, lossSeconds, type Choice } from './points';
import { leadsOut, network, type Item, type Point } from './words';

/** What a person has chosen in the dialog. */
export interface Order { choice: Choice; custom: string | null; lastSync: boolean; notes: string }

/** For the sentences that say what will happen. */
export interface Outlook { item: Item; order: Order; point: Point | null; points: number; now: number }

/** A sentence; `bad`: what is lost or cannot be undone, `strong`: what must not be overlooked. */
export interface Line { text: string; strong?: boolean; bad?: boolean }

export interface Operation {
  label: string;
  /** On the button. */
  verb: string;
  /** As `roles.json` and the document name it. */
  route: string;
  /** In one sentence, for lists. */
  what: string;
  title: (name: string) => string;
  lines: (outlook: Outlook) => Line[];
  body?: (order: Order) => object;
  /** A recovery point is chosen. */
  points?: true;
  /** It may ship what is pending first. */
  sync?: true;
  notes?: { label: string; hint: string };
  /** It cannot be undone: the machine's name is typed. */
  typed?: true;
  /** Afterwards there is a machine to look at. */
  look?: true;
  /** Offered for several items at once. */
  bulk?: true;
}

const point = (order: Order) => (order.choice === 'Custom' ? order.custom : order.choice);
const nics = (list: Item['target']['nics']) => (list.length ? list.map(network).join('; ') : 'no network');

export const OPERATIONS: Record<string, Operation> = {
  TestFailover: {
    label: 'Test failover', verb: 'Start test failover', route: 'POST /replicated-items/{item}/test-failover', points: true, look: true, bulk: true,
    what: 'Starts a copy at the target. The protected machine is not touched.',
    title: (name) => `Test failover of ${name}`,
    body: (order) => ({ recoveryPoint: point(order) }),
    lines: ({ item, point, now }) => [
      { text: `A copy named ${item.name}-test starts at the target${point ? `, as ${item.name} was at ${local(point.instant, now)}, ${age(lossSeconds(point, item.computedAt))} ago` : ''}.` },
      { text: `${item.name} and its replication go on untouched. Nothing is lost.` },
      { text: item.target.testNics.length ? `Network: ${nics(item.target.testNics)}.` : 'The copy has no network.' },
      ...(item.target.testNics.some(leadsOut) ? [{ text: 'The copy can reach other systems from there: it may send mail or write to shared services.', strong: true }] : []),
      { text: 'It runs until you clean up; then it and all it wrote are removed, and the test counts.' },
    ],
  },
  TestFailoverCleanup: {
    label: 'Clean up test failover', verb: 'Clean up', route: 'POST /replicated-items/{item}/test-failover-cleanup', bulk: true,
    what: 'Removes the copy and what it wrote, and records the test.',
    title: (name) => `Clean up the test failover of ${name}?`,
    notes: { label: 'Notes: what was seen', hint: 'Booted, the application answered, data was current' },
    body: (order) => ({ notes: order.notes }),
    lines: ({ item }) => [
      { text: `${item.testFailover?.machineName ?? `${item.name}-test`} is stopped and removed with all that it wrote.` },
      { text: `${item.name} and its recovery points are not touched.` },
      { text: 'The test counts as performed, with your notes.' },
    ],
  },
  UnplannedFailover: {
    label: 'Unplanned failover', verb: 'Fail over', route: 'POST /replicated-items/{item}/unplanned-failover', points: true, sync: true, typed: true, look: true, bulk: true,
    what: 'Starts the machine at the target for real and shuts the source out.',
    title: (name) => `Fail over ${name} to the target?`,
    body: (order) => ({ recoveryPoint: point(order), lastSync: order.lastSync }),
    lines: ({ item, order, point }) => {
      const loss = expectedLoss(item, order.choice, order.lastSync, point);
      return [
        { text: `${loss.seconds === null ? 'Expected loss: close to none.' : `Expected loss: ${age(loss.seconds)}.`} ${loss.text}`, strong: true, bad: loss.seconds !== null },
        { text: `${item.target.name} starts at the target with ${count(item.target.cpus, 'processor')} and ${bytes(item.target.memoryBytes)}; ${nics(item.target.nics)}.` },
        { text: `${item.name} is shut out: what it sends from then on is refused. ${item.connected ? 'It still answers now. Lifeboat does not switch it off: shut it down yourself, or two of it run.' : 'It does not answer now. If it comes back, do not let it serve again.'}`, strong: item.connected },
        { text: 'There is no undo. Until the commit the other recovery points are kept.' },
      ];
    },
  },
  Commit: {
    label: 'Commit', verb: 'Commit', route: 'POST /replicated-items/{item}/commit', typed: true,
    what: 'Ends the failover. The other recovery points of it are removed.',
    title: (name) => `Commit the failover of ${name}?`,
    lines: ({ item, points, now }) => [
      { text: `${item.target.name} goes on running at the target from ${item.failover ? `the point of ${local(item.failover.recoveryPointInstant, now)}` : 'its point'}.` },
      { text: `The other recovery points of this failover are removed (${points} are there now). There is no undo.`, strong: true },
    ],
  },
  RepairReplication: {
    label: 'Resynchronize', verb: 'Resynchronize', route: 'POST /replicated-items/{item}/resynchronize', bulk: true,
    what: 'Compares every disk with its replica and ships what differs.',
    title: (name) => `Resynchronize ${name}?`,
    lines: ({ item }) => [
      { text: `Every disk of ${item.name} is read and compared with its replica; what differs is shipped.` },
      { text: 'This loads the disks of the machine for a while. Recovery points stay usable.' },
    ],
  },
  DisableProtection: {
    label: 'Disable replication', verb: 'Disable replication', route: 'DELETE /replicated-items/{item}', typed: true, bulk: true,
    what: 'Ends the protection and removes the replica.',
    title: (name) => `Disable replication of ${name}?`,
    lines: ({ item, points }) => [
      { text: `${item.name} is no longer protected. The machine itself is not touched.` },
      { text: `Its replica at the target is removed, with ${points ? count(points, 'recovery point') : 'all its recovery points'}. There is no undo.`, strong: true, bad: true },
    ],
  },
};

/** What this interface offers of an operation; null: it has no words for it yet. */
export function operation(name: string): Operation | null {
  return OPERATIONS[name] ?? null;
}

/** The one action that a person most likely wants now. */
export function primaryOperation(item: Item): string | null {
  const allowed = new Set(item.allowedOperations.filter((entry) => entry.allowed).map((entry) => entry.operation));
  return ['TestFailoverCleanup', 'Commit', 'TestFailover'].find((name) => allowed.has(name)) ?? null;
}
