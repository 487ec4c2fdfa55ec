/** Recovery plans as they are edited. Pure: every change gives new groups. */
import { age } from './format';
import type { Plan, PlanAction, PlanGroup } from './words';

export const GROUPS_MAX = 7;

/** A machine into a group, before its place or at the end; out of wherever it was. */
export function place(groups: PlanGroup[], machine: string, group: number, at?: number): PlanGroup[] {
  return groups.map((entry, index) => {
    const machines = (entry.machines ?? []).filter((name) => name !== machine);
    if (index !== group) return { ...entry, machines };
    const spot = at ?? machines.length;
    return { ...entry, machines: [...machines.slice(0, spot), machine, ...machines.slice(spot)] };
  });
}

export function takeOut(groups: PlanGroup[], machine: string): PlanGroup[] {
  return groups.map((entry) => ({ ...entry, machines: (entry.machines ?? []).filter((name) => name !== machine) }));
}

export function groupOf(groups: PlanGroup[], machine: string): number {
  return groups.findIndex((entry) => entry.machines?.includes(machine));
}

/** A group to the place of its neighbour. */
export function swap(groups: PlanGroup[], group: number, by: 1 | -1): PlanGroup[] {
  const other = group + by;
  if (other < 0 || other >= groups.length) return groups;
  const moved = [...groups];
  [moved[group], moved[other]] = [moved[other] as PlanGroup, moved[group] as PlanGroup];
  return moved;
}

/** `Group 2: front`; a name that says no more than the number is left out. */
export function groupTitle(number: number, name: string | null | undefined): string {
  const plain = `Group ${number + 1}`;
  return name && name !== plain ? `${plain}: ${name}` : plain;
}

/** Seconds to a tenth: a machine that is up in half a second has not taken none. */
export function figure(seconds: number): string {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : age(seconds);
}

/** Fields of an action that belong to one kind or another; what is named nowhere here is common, or newer than this page. */
const FIELDS: Record<string, (keyof PlanAction)[]> = {
  script: ['script', 'arguments', 'timeoutSeconds'],
  command: ['machine', 'script', 'arguments', 'timeoutSeconds'],
  manual: ['instructions'],
  probe: ['machine', 'protocol', 'port', 'path', 'status', 'timeoutSeconds'],
  delay: ['seconds'],
};
const OF_A_KIND = new Set<string>(Object.values(FIELDS).flat());
const COMMON = new Set(['name', 'kind', 'failoverTypes', 'directions']);
export const KINDS = Object.keys(FIELDS);

const isEmpty = (value: unknown) => value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0);

/**
 * An action as it goes to the server: of the fields that the form holds, those of its kind. What this page does not know stays
 * as it was, so that nothing is lost by an edit; with another kind it would mean nothing.
 */
export function keptAction(value: PlanAction, before: PlanAction | null): PlanAction {
  const fields: string[] | null = FIELDS[value.kind] ?? null;
  const kept: PlanAction = { name: value.name, kind: value.kind };
  for (const [field, entry] of Object.entries(value)) {
    const wanted = OF_A_KIND.has(field) ? (fields?.includes(field) ?? (before !== null && field in before)) : COMMON.has(field) || before?.kind === value.kind;
    if (wanted && !isEmpty(entry)) Object.assign(kept, { [field]: entry });
  }
  if (kept.kind === 'probe' && kept.protocol !== 'http') { delete kept.path; delete kept.status; }
  if (kept.kind === 'probe' && kept.protocol === 'ping') delete kept.port;
  return kept;
}

/** Of what the server tells of a plan, what is not part of the plan. */
const TOLD = ['id', 'revision', 'machineCount', 'lastRun', 'lastSuccessfulTestFailoverAt'];

/** All of a plan that is sent back: what was changed, and whatever else it holds, also what this page does not know. */
export function planBody(plan: Plan, changed: Partial<Plan>): Partial<Plan> & { groups: PlanGroup[] } {
  const rest = Object.fromEntries(Object.entries(plan).filter(([field]) => !TOLD.includes(field)));
  return { ...(rest as Pick<Plan, 'groups'>), ...changed };
}

export function moved<T>(list: T[], at: number, by: 1 | -1): T[] {
  const other = at + by;
  if (other < 0 || other >= list.length) return list;
  return list.with(at, list[other] as T).with(other, list[at] as T);
}

export function actionWords(action: PlanAction): string {
  const script = [action.script, ...(action.arguments ?? []).map((argument) => (/^[\w./:=-]+$/.test(argument) ? argument : JSON.stringify(argument)))].join(' ');
  switch (action.kind) {
    case 'script': return `runs the script ${script}`;
    case 'command': return `runs ${script} in the network of ${action.machine}`;
    case 'manual': return action.instructions ?? '';
    case 'probe': return `asks ${action.machine} by ${action.protocol}${action.port ? ` on port ${action.port}` : ''}${action.path ? ` for ${action.path}` : ''}${action.status ? `, status ${action.status}` : ''}, up to ${action.timeoutSeconds ?? 300} s`;
    case 'delay': return `waits ${action.seconds} s`;
    default: return `is of the kind ${String(action.kind)}, which this page does not know`;
  }
}

const TYPES = { test: 'test', planned: 'planned', unplanned: 'unplanned' } as const;

/** `only at test failover, on the way home`; empty: always. */
export function actionLimits(action: PlanAction): string {
  const types = (action.failoverTypes ?? []).map((type) => TYPES[type] ?? type);
  const directions = action.directions ?? [];
  const words: string[] = [];
  if (types.length) words.push(`only at ${types.join(' or ')} failover`);
  if (directions.length === 1) words.push(directions[0] === 'primaryToRecovery' ? 'only on the way to the target' : 'only on the way home');
  return words.join(', ');
}
