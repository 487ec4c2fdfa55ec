/** Recovery points: which one a choice means, what is lost with it, where there are gaps. Pure. */
import { age, bytes, millis } from './format';
import type { Item, Point } from './words';

export const CHOICES = [
  { value: 'LatestProcessed', label: 'Latest processed', hint: 'The newest point that is ready. Starts at once.' },
  { value: 'Latest', label: 'Latest', hint: 'Ships what is pending first, if the source answers. Least loss, takes longer.' },
  { value: 'LatestAppConsistent', label: 'Latest app-consistent', hint: 'The newest point made with the applications quiesced.' },
  { value: 'LatestCrashConsistent', label: 'Latest crash-consistent', hint: 'The newest point with all file systems frozen at one instant.' },
  { value: 'Custom', label: 'A point of your choice', hint: 'For example the last one before damage was done.' },
] as const;
export type Choice = (typeof CHOICES)[number]['value'];

/** Points newest first. The point that a choice means at this moment; null: there is none. */
export function resolve(choice: Choice, custom: string | null, points: Point[]): Point | null {
  switch (choice) {
    case 'Custom': return points.find((point) => point.id === custom) ?? null;
    case 'LatestAppConsistent': return points.find((point) => point.consistency === 'AppConsistent') ?? null;
    case 'LatestCrashConsistent': return points.find((point) => point.consistency === 'CrashConsistent') ?? null;
    // A fuzzy point starts no machine unless it is asked for.
    default: return points.find((point) => point.consistency !== 'Fuzzy') ?? null;
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
