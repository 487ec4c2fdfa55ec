/** Recovery points: which one a choice means, what is lost with it, where there are gaps. Pure. */
import { age, bytes, millis } from './format';
import type { Item, Point } from './words';

interface Offer { value: string; label: string; hint: string; group?: true }
export const CHOICES = [
  { value: 'LatestProcessed', label: 'Latest processed', hint: 'The newest point that is ready. Starts at once.' },
  { value: 'Latest', label: 'Latest', hint: 'Ships what is pending first, if the source answers. Least loss, takes longer.' },
  { value: 'LatestAppConsistent', label: 'Latest app-consistent', hint: 'The newest point made with the applications quiesced.' },
  { value: 'LatestMultiVm', label: 'Latest shared by its group', hint: 'The newest instant that all machines of its group hold: together they are as they were then.', group: true },
  { value: 'LatestMultiVmAppConsistent', label: 'Latest shared by its group, app-consistent', hint: 'The same, with the applications of all of them quiesced.', group: true },
  { value: 'Custom', label: 'A point of your choice', hint: 'For example the last one before damage was done.' },
] as const satisfies Offer[];
export type Choice = (typeof CHOICES)[number]['value'];

/** Why a machine with these disks cannot be started from a point; null: it can. */
export function unusable(point: Point, disks: string[]): string | null {
  // Its blocks are not of one instant.
  if (point.consistency === 'Fuzzy') return 'It is fuzzy: its blocks are not of one instant. Choose another.';
  return disks.every((disk) => point.disks.includes(disk)) ? null : 'It does not hold all disks: one was added later. Choose another.';
}

/** Points newest first; as the server chooses. The point that a choice means at this moment; null: there is none. */
export function resolve(choice: Choice, custom: string | null, points: Point[], disks: string[] = []): Point | null {
  if (choice === 'Custom') return points.find((point) => point.id === custom) ?? null;
  const usable = (point: Point) => unusable(point, disks) === null;
  switch (choice) {
    case 'LatestAppConsistent': return points.find((point) => point.consistency === 'AppConsistent' && usable(point)) ?? null;
    case 'LatestMultiVm': return points.find((point) => point.groupPoint && usable(point)) ?? null;
    case 'LatestMultiVmAppConsistent': return points.find((point) => point.groupConsistency === 'AppConsistent' && usable(point)) ?? null;
    default: return points.find(usable) ?? null;
  }
}

/** Seconds between a point and the server's now. */
export function lossSeconds(point: Pick<Point, 'instant'>, computedAt: string): number {
  return Math.max(0, (millis(computedAt) - millis(point.instant)) / 1000);
}

export interface Loss {
  /** Null: nothing, or not known beforehand. */
  seconds: number | null;
  text: string;
}

/** What an unplanned failover loses, in words. */
export function expectedLoss(item: Item, choice: Choice, lastSync: boolean, point: Point | null): Loss {
  if (lastSync && item.connected) {
    return {
      seconds: null,
      text: `What is pending (${bytes(item.pendingBytes)}) is shipped first. Lost is only what ${item.name} writes after that, until it is shut out.`,
    };
  }
  if (!point) return { seconds: null, text: 'There is no such recovery point.' };
  const seconds = lossSeconds(point, item.computedAt);
  const all = `Everything that ${item.name} wrote after this point is lost: ${age(seconds)} as of now.`;
  if (choice === 'Latest' && !item.connected) {
    return { seconds, text: `${item.name} does not answer, so nothing more can be shipped. ${all}` };
  }
  return { seconds, text: all };
}

export interface Gap { from: number; to: number }

const HOUR = 3_600_000;

/** Longest distance between two neighbours that is no gap. Older points are thinned by design: one per 5 minutes after
 * an hour, one per hour after a day. */
export function usualDistance(ageMillis: number, everySeconds: number): number {
  const made = everySeconds * 3000;
  if (ageMillis < HOUR) return Math.max(made, 15_000);
  if (ageMillis < 24 * HOUR) return Math.max(made, 2 * 300_000);
  return Math.max(made, 2 * HOUR);
}

/** Stretches without a point. `times` ascending, in milliseconds. */
export function gaps(times: number[], now: number, everySeconds: number): Gap[] {
  const found: Gap[] = [];
  for (let index = 1; index <= times.length; index += 1) {
    const from = times[index - 1] as number;
    const to = times[index] ?? now;
    if (to - from > usualDistance(now - from, everySeconds)) found.push({ from, to });
  }
  return found;
}

/** Index of the entry of ascending `times` nearest to `at`; -1: there is none. */
export function nearest(times: number[], at: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((times[middle] as number) < at) low = middle + 1;
    else high = middle;
  }
  if (low === times.length) return low - 1;
  if (low > 0 && at - (times[low - 1] as number) < (times[low] as number) - at) return low - 1;
  return low;
}
