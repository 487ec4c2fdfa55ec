/** What needs a person now, from what the server says; the gravest first. Pure. */
import { count, words } from './format';
import type { Item, Job, Machine, Server } from './words';

export interface Need {
  key: string;
  tone: 'crit' | 'warn' | 'info';
  title: string;
  text: string;
  action: string;
  address: string;
}

const DAY = 86_400_000;

export function needs(items: Item[], machines: Machine[], jobs: Job[], servers: Server[], now: number): Need[] {
  const found: Need[] = [];
  for (const server of servers) {
    for (const alarm of server.alarms) {
      found.push({
        key: `alarm-${server.name}-${alarm.code}`, tone: alarm.severity === 'Critical' ? 'crit' : 'warn', title: `${server.name}: ${alarm.message}`,
        text: alarm.recommendedAction, action: 'See the server', address: '/servers',
      });
    }
  }
  for (const item of items) {
    const page = `/items/${item.name}`;
    for (const error of item.healthErrors) {
      found.push({
        key: `health-${item.id}-${error.code}`, tone: error.severity === 'Critical' || item.replicationHealth === 'Critical' ? 'crit' : 'warn',
        title: `${item.name}: ${error.summary}`, text: error.recommendedAction || error.message, action: 'See the machine', address: `${page}?tab=health`,
      });
    }
    if (['UnplannedFailoverCompleted', 'PlannedFailoverCompleted', 'ChangeRecoveryPointCompleted'].includes(item.protectionState)) {
      found.push({
        key: `commit-${item.id}`, tone: 'warn', title: `${item.name} runs at the ${item.activeLocation === 'Recovery' ? 'target' : 'source again'}, not committed`,
        text: 'Check that it is as it should be, then commit.', action: 'Check and commit', address: `${page}?tab=target`,
      });
    }
    if (item.protectionState === 'CommitFailoverCompleted' && item.activeLocation === 'Recovery') {
      found.push({
        key: `reprotect-${item.id}`, tone: 'info', title: `${item.name} runs at the target without a way home`,
        text: 'Its recovery points at the target go on. Reprotect adds the way home.', action: 'Reprotect', address: `${page}?do=ReverseReplicate`,
      });
    }
    if (item.testFailoverState === 'TestFailoverCompleted' || item.testFailoverState === 'TestFailoverFailed') {
      found.push({
        key: `cleanup-${item.id}`, tone: 'warn', title: `${item.name}: a test failover waits for its cleanup`,
        text: 'It counts as performed only after the cleanup.', action: 'Look and clean up', address: `${page}?tab=target`,
      });
    }
  }
  for (const job of jobs) {
    if (job.state === 'Suspended') {
      found.push({ key: job.id, tone: 'warn', title: `${job.scenario} of ${job.machine.name} waits for input`, text: 'A step is yours.', action: 'Open the job', address: `/jobs/${job.id}` });
    } else if (job.state === 'Failed' && now - Date.parse(job.createdAt) < DAY) {
      // A later job of the same kind that succeeded settles it.
      const settled = jobs.some((other) => other.kind === job.kind && other.machine.id === job.machine.id && other.state === 'Succeeded' && other.createdAt > job.createdAt);
      if (!settled) {
        found.push({ key: job.id, tone: 'warn', title: `${job.scenario} of ${job.machine.name} failed`, text: job.error?.recommendedAction ?? job.error?.message ?? '', action: 'Open the job', address: `/jobs/${job.id}` });
      }
    }
  }
  for (const machine of machines) {
    if (machine.replicated || machine.revoked) continue;
    found.push({
      key: `enable-${machine.id}`, tone: machine.prerequisites === 'error' ? 'warn' : 'info', title: `${machine.name} is not protected`,
      text: machine.prerequisites === 'error' ? 'A prerequisite is not met.' : 'It has joined; nothing of it is copied yet.', action: 'Enable replication', address: `/enable?machine=${machine.name}`,
    });
  }
  const untested = items.filter((item) => item.failoverHealth === 'Warning' && item.testFailoverState === 'None' && item.activeLocation === 'Primary');
  if (untested.length) {
    const never = untested.filter((item) => !item.lastSuccessfulTestFailoverAt).length;
    found.push({
      key: 'untested', tone: 'info',
      title: never ? `${count(never, 'machine')} never tested` : `${count(untested.length, 'machine')} due for a test failover`,
      text: untested.slice(0, 5).map((item) => item.name).join(', ') + (untested.length > 5 ? ' and more' : ''),
      action: 'Test failover', address: untested.length === 1 ? `/items/${untested[0]?.name}?do=TestFailover` : '/items?ready=Warning',
    });
  }
  const rank = { crit: 0, warn: 1, info: 2 };
  return found.sort((a, b) => rank[a.tone] - rank[b.tone]);
}

/** The state of an item that is shown in lists, in the server's words. */
export function stateLine(item: Item): string {
  const test = item.testFailoverState === 'None' ? '' : `; ${words(item.testFailoverState).toLowerCase()}`;
  return item.status + test;
}
