/** The verbs of the lifecycle: their words, what they ask for, what they will do. One entry each; the server says which are
 * allowed now and why others are not. Pure. */
import { age, count, local } from './format';
import { expectedLoss, lossSeconds, type Choice } from './points';
import type { Item, Point } from './words';

/** What a person has chosen in the dialog. */
export interface Order { choice: Choice; custom: string | null; lastSync: boolean; notes: string; receiver: string; folder?: string; format?: 'raw' | 'qcow2'; keep?: boolean; keepDays?: number | null }

/** For the sentences that say what will happen. */
export interface Outlook { item: Item; order: Order; point: Point | null; points: number; now: number }

/** A sentence; `bad`: what is lost or cannot be undone, `strong`: what must not be overlooked. */
export interface Line { text: string; strong?: boolean; bad?: boolean }

/** What the server can say before what would start: it knows these. */
export type Previewed = 'TestFailover' | 'PlannedFailover' | 'UnplannedFailover' | 'Failback';

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
  /** Another machine may take the disks home. */
  receiver?: true;
  /** Files are made on the server's host. */
  destination?: true;
  /** The recovery points may stay. */
  keeps?: true;
  /** What goes with the path. */
  query?: (order: Order) => object;
  /** It cannot be undone: the machine's name is typed. */
  typed?: true;
  /** What stays in sight beside the button. */
  headline?: (outlook: Outlook) => Line;
  /** What it would start is shown before. */
  preview?: Previewed;
  /** On the button that leaves all as it is; default: Cancel. */
  leave?: string;
  /** Afterwards there is a machine to look at. */
  look?: true;
  /** Offered for several items at once. */
  bulk?: true;
}

const point = (order: Order) => (order.choice === 'Custom' ? order.custom : order.choice);

export const OPERATIONS: Record<string, Operation> = {
  TestFailover: {
    label: 'Test failover', verb: 'Start test failover', route: 'POST /replicated-items/{item}/test-failover', points: true, look: true, bulk: true, preview: 'TestFailover',
    what: 'Starts a copy at the target. The protected machine is not touched.',
    title: (name) => `Test failover of ${name}`,
    body: (order) => ({ recoveryPoint: point(order) }),
    lines: ({ item, point, now }) => [
      { text: `A copy named ${item.name}-test starts at the target${point ? `, as ${item.name} was at ${local(point.instant, now)}, ${age(lossSeconds(point, item.computedAt))} ago` : ''}.` },
      { text: `${item.name} and its replication go on untouched. Nothing is lost.` },
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
  PlannedFailover: {
    label: 'Planned failover', verb: 'Fail over without loss', route: 'POST /replicated-items/{item}/planned-failover', typed: true, look: true, bulk: true, preview: 'PlannedFailover',
    what: 'Brings the machine to rest, takes what it wrote last, starts it at the target. Nothing is lost, or it does not happen.',
    title: (name) => `Fail over ${name} to the target without loss?`,
    lines: ({ item }) => [
      { text: 'Expected loss: none. What was written last is shipped before the machine starts at the target; where that fails, all stays as it was.', strong: true },
      { text: `${item.name} is brought to rest: its file systems no longer take writes. Its services are down until ${item.target.name} has started.` },
      { text: `${item.target.name} starts at the target.` },
      { text: `${item.name} is shut out from then on. Until the commit the failover can be cancelled.` },
    ],
  },
  UnplannedFailover: {
    label: 'Unplanned failover', verb: 'Fail over', route: 'POST /replicated-items/{item}/unplanned-failover', points: true, sync: true, typed: true, look: true, bulk: true, preview: 'UnplannedFailover',
    what: 'Starts the machine at the target for real and shuts the source out.',
    title: (name) => `Fail over ${name} to the target?`,
    body: (order) => ({ recoveryPoint: point(order), lastSync: order.lastSync }),
    headline: ({ item, order, point }) => {
      const { seconds } = expectedLoss(item, order.choice, order.lastSync, point);
      return seconds === null ? { text: point ? 'Expected loss: close to none.' : 'There is no such recovery point.' } : { text: `Expected loss: ${age(seconds)}.`, bad: true };
    },
    lines: ({ item, order, point }) => {
      const loss = expectedLoss(item, order.choice, order.lastSync, point);
      return [
        { text: loss.text, strong: true, bad: loss.seconds !== null },
        { text: `${item.target.name} starts at the target.` },
        { text: `${item.name} is shut out: what it sends from then on is refused. ${item.connected ? 'It still answers now. Lifeboat does not switch it off: shut it down yourself, or two of it run.' : 'It does not answer now. If it comes back, do not let it serve again.'}`, strong: item.connected },
        { text: 'What is lost stays lost. Until the commit the point can be changed, and the failover cancelled.' },
      ];
    },
  },
  ChangeRecoveryPoint: {
    label: 'Change the recovery point', verb: 'Change the point', route: 'POST /replicated-items/{item}/change-recovery-point', points: true, typed: true, look: true, preview: 'UnplannedFailover',
    what: 'Starts the failed-over machine from another point, before the commit.',
    title: (name) => `Start ${name} from another point?`,
    body: (order) => ({ recoveryPoint: point(order) }),
    lines: ({ item, point, now }) => [
      { text: `${item.target.name} is stopped and started again${point ? `, as ${item.name} was at ${local(point.instant, now)}` : ''}.` },
      { text: `All that it wrote at the target since the failover${item.failover ? ` (the point of ${local(item.failover.recoveryPointInstant, now)})` : ''} is discarded with its disks.`, strong: true, bad: true },
      { text: 'The points stay until the commit, so it can be changed again.' },
    ],
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
  CancelFailover: {
    label: 'Cancel the failover', verb: 'Cancel the failover', leave: 'Keep the failover', route: 'POST /replicated-items/{item}/cancel-failover', typed: true,
    what: 'The machine goes on where it was before. What was written since is discarded.',
    title: (name) => `Cancel the failover of ${name}?`,
    lines: ({ item, now }) => [
      { text: `${item.name} goes on where it was before the failover; replication begins again from there.` },
      { text: `All that was written since${item.failover ? ` the point of ${local(item.failover.recoveryPointInstant, now)}` : ''} is discarded. There is no undo.`, strong: true, bad: true },
    ],
  },
  ReverseReplicate: {
    label: 'Reprotect', verb: 'Reprotect', route: 'POST /replicated-items/{item}/reprotect', receiver: true, bulk: true,
    what: 'Replicates in the other direction from now on: the way home, or to the target again.',
    title: (name) => `Reprotect ${name}?`,
    body: (order) => (order.receiver ? { receiver: order.receiver } : {}),
    lines: ({ item, order }) => (item.activeLocation === 'Recovery'
      ? [
        { text: `${item.target.name} goes on working at the target. Its disks are copied home and kept up to date there.` },
        { text: `${order.receiver || item.name} takes them, by the command below. The disks it is given are overwritten.`, strong: true },
        { text: 'When it follows, a failback takes the machine home without loss.' },
      ]
      : [
        { text: `${item.name} is replicated to the target again. It begins with a comparison; only what differs is shipped.` },
        { text: 'The machine goes on working.' },
      ]),
  },
  Failback: {
    label: 'Failback', verb: 'Fail back', route: 'POST /replicated-items/{item}/failback', typed: true, preview: 'Failback',
    what: 'Takes a reprotected machine home: stopped at the target, what it wrote last is taken, the disks are compared as a whole.',
    title: (name) => `Take ${name} home?`,
    lines: ({ item }) => [
      { text: `${item.target.name} is stopped at the target. Its services are down until the machine has started at home.`, strong: true },
      { text: 'Expected loss: none. The receiver takes what was written last and compares its disks as a whole; only then is the machine home.' },
      { text: 'Where that fails, it goes on at the target.' },
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
  Hydrate: {
    label: 'Hydrate', verb: 'Hydrate', route: 'POST /replicated-items/{item}/hydrate', destination: true,
    what: 'Makes the disks of a machine that stays at the target files of the target, while it runs on.',
    title: (name) => `Hydrate ${name}?`,
    body: (order) => ({ folder: order.folder, format: order.format }),
    lines: ({ item }) => [
      { text: `The disks of ${item.target.name} are copied to files; it runs on, and is held for a moment when they take the place of its disks.` },
      { text: 'From then on it needs neither its replica nor this server.' },
      { text: 'No recovery points are made of it any more, and it can no longer be taken home.', strong: true },
      { text: 'Cancelled or failed, it runs on as before.' },
    ],
  },
  CompleteMigration: {
    label: 'Complete migration', verb: 'Complete migration', route: 'POST /replicated-items/{item}/complete-migration', typed: true, keeps: true,
    what: 'Ends the replication of a hydrated machine: it stays at the target.',
    title: (name) => `Complete the migration of ${name}?`,
    body: (order) => ({ keepPoints: order.keep ?? false, keepDays: order.keepDays ?? null }),
    lines: ({ item, order, points }) => [
      { text: `${item.target.name} stays at the target and runs on.` },
      { text: `Its source is fenced for good and must not be used as ${item.name} again.`, strong: true },
      order.keep ? { text: `${count(points, 'recovery point')} stay.` }
        : { text: `Its replica is removed, with ${points ? count(points, 'recovery point') : 'all its recovery points'}. There is no undo.`, strong: true, bad: true },
    ],
  },
  DisableProtection: {
    label: 'Disable replication', verb: 'Disable replication', route: 'DELETE /replicated-items/{item}', typed: true, bulk: true, keeps: true,
    what: 'Ends the protection and removes the replica, or keeps its recovery points.',
    title: (name) => `Disable replication of ${name}?`,
    query: (order) => (order.keep ? { keepPoints: true, ...(order.keepDays ? { keepDays: order.keepDays } : {}) } : {}),
    lines: ({ item, order, points }) => order.keep ? [
      { text: `${item.name} is no longer protected. The machine itself is not touched.` },
      { text: `${count(points, 'recovery point')} stay. Enabled again, replication goes on from them.` },
    ] : [
      { text: item.keptPoints ? `${item.name} is not protected already.` : `${item.name} is no longer protected. The machine itself is not touched.` },
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
  return ['TestFailoverCleanup', 'Commit', 'Failback', 'ReverseReplicate', 'TestFailover'].find((name) => allowed.has(name)) ?? null;
}
