/** Replication groups: their health in words, who can be taken in. Pure. */
import { count } from './format';
import type { Group, Item, Tone } from './words';

export const MEMBERS_MAX = 16;

/** How its shared points go, and why. */
export function groupState(group: Group): { tone: Tone; text: string; why: string } {
  const away = group.members.filter((member) => !member.takesPart);
  const names = away.map((member) => `${member.name}: ${member.trouble}`).join('; ');
  if (group.members.length < 2) return { tone: 'none', text: 'Too few machines', why: 'Points are shared from two machines on.' };
  if (group.health === 'Warning') return { tone: 'warn', text: 'No shared points', why: names || 'No shared point could be made.' };
  if (group.health === 'None') return { tone: 'none', text: 'Not known yet', why: names || 'No round has run since the server started.' };
  if (away.length) return { tone: 'warn', text: `Without ${count(away.length, 'machine')}`, why: names };
  return { tone: 'ok', text: 'Healthy', why: '' };
}

/** Replicated machines that a group can take in: a machine is in one group at most. */
export function candidates(items: Item[], groups: Group[]): { name: string; refusal: string | null }[] {
  const home = new Map(groups.flatMap((group) => group.members.map((member) => [member.name, group.name] as const)));
  return items
    .map((item) => ({ name: item.name, refusal: home.has(item.name) ? `It is in the group ${home.get(item.name)}.` : null }))
    .sort((one, other) => one.name.localeCompare(other.name));
}

/** From the order to freeze until all had thawed. */
export function freezeWindow(group: Group): string {
  const [half, most] = [group.freezeWindowMsP50, group.freezeWindowMsP99];
  if (half == null || most == null) return 'not known yet';
  return `${half.toFixed(0)} ms, 99 % within ${most.toFixed(0)} ms`;
}
