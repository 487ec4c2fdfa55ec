/** Recovery plans as they are edited. Pure: every change gives new groups. */
import { age } from './format';
import type { PlanAction, PlanGroup } from './words';

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

export function actionWords(action: PlanAction): string {
  switch (action.kind) {
    case 'script': return `runs the script ${action.script}`;
    case 'command': return `runs ${action.script} in the network of ${action.machine}`;
    case 'manual': return action.instructions ?? '';
    case 'probe': return `asks ${action.machine} by ${action.protocol}${action.port ? ` on port ${action.port}` : ''}, up to ${action.timeoutSeconds ?? 300} s`;
    case 'delay': return `waits ${action.seconds} s`;
  }
}
