/** The server's words, and the tone in which each is shown. Pure. */
import type { components } from './schema';
import { words } from './format';

type Schemas = components['schemas'];
export type Item = Schemas['ReplicatedItem'];
export type Job = Schemas['Job'];
export type Event = Schemas['Event'];
export type Machine = Schemas['Machine'];
export type Server = Schemas['ServerFacts'];
export type Policy = Schemas['Policy'];
export type Group = Schemas['ReplicationGroup'];
export type Window = Schemas['MaintenanceWindow'];
export type Plan = Schemas['RecoveryPlan'];
export type PlanRun = Schemas['PlanRun'];
export type PlanStep = Schemas['PlanRunStep'];
export type PlanGroup = Schemas['PlanGroup'];
export type PlanAction = Schemas['PlanAction'];
export type Point = Schemas['RecoveryPoint'];
export type Target = Schemas['TargetView'];
export type Nic = Schemas['NicView'];
export type Problem = Schemas['Problem'];
export type Reason = Schemas['Reason'];
export type Tone = 'ok' | 'warn' | 'crit' | 'info' | 'none';

export const ROLES = ['Reader', 'Operator', 'Contributor', 'Owner'] as const;

/** Health as the server computed it. */
export function health(value: string): { tone: Tone; text: string } {
  switch (value) {
    case 'Normal': return { tone: 'ok', text: 'Healthy' };
    case 'Warning': return { tone: 'warn', text: 'Warning' };
    case 'Critical': return { tone: 'crit', text: 'Critical' };
    case 'None': return { tone: 'none', text: 'Not applicable' };
    default: return { tone: 'none', text: value };
  }
}

/** Readiness for a failover: proven by a test that was cleaned up. */
export function readiness(item: Pick<Item, 'failoverHealth' | 'lastSuccessfulTestFailoverAt'>): { tone: Tone; text: string } {
  switch (item.failoverHealth) {
    case 'Normal': return { tone: 'ok', text: 'Proven' };
    case 'Warning':
      return { tone: 'warn', text: item.lastSuccessfulTestFailoverAt ? 'Test again' : 'Test recommended' };
    case 'Critical': return { tone: 'crit', text: 'Not ready' };
    default: return { tone: 'none', text: 'No point yet' };
  }
}

/** Amber, not red: a job that failed has lost no data. */
export function jobTone(state: string): Tone {
  switch (state) {
    case 'Succeeded': return 'ok';
    case 'Failed': return 'warn';
    case 'InProgress': return 'info';
    case 'Suspended': return 'warn';
    default: return 'none';
  }
}

export function severityTone(severity: string): Tone {
  return severity === 'Critical' ? 'crit' : severity === 'Warning' ? 'warn' : 'info';
}

export function checkTone(result: string | null | undefined): Tone {
  return result === 'pass' ? 'ok' : result === 'warning' ? 'warn' : result === 'error' ? 'crit' : 'none';
}

export function consistency(value: string): string {
  return value === 'Fuzzy' ? 'Fuzzy' : words(value).replace(' consistent', '-consistent');
}

export function network(nic: Nic): string {
  const where = nic.network;
  const forwards = 'forwards' in where && where.forwards?.length
    ? `; host ports to guest ${where.forwards.map((forward) => `${forward.hostPort || 'any'}→${forward.guestPort}`).join(', ')}`
    : '';
  switch (where.kind) {
    case 'user': return `Private, outgoing through the host${forwards}`;
    case 'isolatedUser': return `Isolated, nothing leads out${forwards}`;
    case 'isolated': return `Isolated bridge ${where.name}`;
    case 'bridge': return `Bridge ${where.name} of the host`;
    case 'named': return `Network ${where.name}`;
  }
}

/** Why `role` may not call what needs `needed`; null: it may. */
export function roleRefusal(role: string | null, needed: string | undefined): string | null {
  const rank = (name: string) => ROLES.indexOf(name as (typeof ROLES)[number]);
  if (!needed || (role && rank(role) >= rank(needed))) return null;
  return `This needs the role ${needed}. You are ${role ?? 'without a role'}; an Owner can change that.`;
}
