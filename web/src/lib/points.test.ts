import { describe, expect, test } from 'vitest';
import { expectedLoss, gaps, lossSeconds, nearest, resolve, unusable } from './points';
import type { Item, Point } from './words';

const point = (id: string, second: number, consistency = 'CrashConsistent'): Point => ({
  id, consistency, instant: new Date(second * 1000).toISOString(), note: '', freezeMs: 1, storedBytes: 1, disks: ['d'],
});
const POINTS = [point('fuzzy', 100, 'Fuzzy'), point('crash', 90), point('app', 60, 'AppConsistent'), point('old', 10)];
const item = (changes: Partial<Item>) => ({ name: 'web1', connected: true, pendingBytes: 2048, computedAt: new Date(120_000).toISOString(), ...changes }) as Item;

describe('the point that a choice means', () => {
  test('a fuzzy point is never taken by itself', () => {
    expect(resolve('Latest', null, POINTS)?.id).toBe('crash');
    expect(resolve('LatestProcessed', null, POINTS)?.id).toBe('crash');
  });
  test('by kind and by choice', () => {
    expect(resolve('LatestAppConsistent', null, POINTS)?.id).toBe('app');
    expect(resolve('Custom', 'fuzzy', POINTS)?.id).toBe('fuzzy');
    expect(resolve('Custom', null, POINTS)).toBeNull();
    expect(resolve('LatestAppConsistent', null, [POINTS[1] as Point])).toBeNull();
  });
});

describe('points that a group shares', () => {
  const shared = (id: string, second: number, own: string, least: string): Point => ({ ...point(id, second, own), groupPoint: `g${second}`, groupConsistency: least });
  const of = [point('alone', 95), shared('crash', 90, 'AppConsistent', 'CrashConsistent'), shared('app', 60, 'AppConsistent', 'AppConsistent')];
  test('only those that all hold; the least of them counts', () => {
    expect(resolve('LatestMultiVm', null, of)?.id).toBe('crash');
    expect(resolve('LatestMultiVmAppConsistent', null, of)?.id).toBe('app');
    expect(resolve('LatestProcessed', null, of)?.id).toBe('alone');
  });
  test('none of them, where there is no group', () => {
    expect(resolve('LatestMultiVm', null, POINTS)).toBeNull();
    expect(resolve('LatestMultiVmAppConsistent', null, POINTS)).toBeNull();
  });
});

test('a point that does not hold all disks starts no machine', () => {
  expect(resolve('LatestProcessed', null, POINTS, ['d', 'e'])).toBeNull();
  expect(unusable(POINTS[1] as Point, ['d', 'e'])).toContain('all disks');
  expect(unusable(POINTS[0] as Point, ['d'])).toContain('fuzzy');
  expect(unusable(POINTS[1] as Point, ['d'])).toBeNull();
});

describe('what is lost', () => {
  test('by the clock of the server', () => {
    expect(lossSeconds(POINTS[1] as Point, new Date(120_000).toISOString())).toBe(30);
    expect(lossSeconds(POINTS[1] as Point, new Date(80_000).toISOString())).toBe(0);
  });
  test('with a last synchronization next to nothing', () => {
    const loss = expectedLoss(item({}), 'Latest', true, POINTS[1] as Point);
    expect(loss.seconds).toBeNull();
    expect(loss.text).toContain('2 KiB');
  });
  test('a source that does not answer ships nothing', () => {
    const loss = expectedLoss(item({ connected: false }), 'Latest', true, POINTS[1] as Point);
    expect(loss.seconds).toBe(30);
    expect(loss.text).toContain('does not answer');
    expect(loss.text).toContain('30 s');
  });
  test('an old point costs all since', () => {
    expect(expectedLoss(item({}), 'Custom', false, POINTS[3] as Point).text).toContain('1 min 50 s');
  });
});

describe('gaps', () => {
  const now = 10_000_000_000;
  test('the regular distance is none, a longer one is', () => {
    expect(gaps([now - 90_000, now - 60_000, now - 30_000], now, 30)).toEqual([]);
    expect(gaps([now - 600_000, now - 30_000], now, 30)).toEqual([{ from: now - 600_000, to: now - 30_000 }]);
  });
  test('the end counts: no new point is a gap', () => {
    expect(gaps([now - 600_000], now, 30)).toEqual([{ from: now - 600_000, to: now }]);
  });
  test('thinning is no gap', () => {
    const hour = 3_600_000;
    const thinned = [now - 26 * hour, now - 25 * hour, now - 24 * hour];
    expect(gaps([...thinned, now - 23.9 * hour], now, 30)).toEqual([{ from: now - 23.9 * hour, to: now }]);
  });
});

test('the nearest by binary search agrees with looking at all', () => {
  const times = Array.from({ length: 200 }, (_, index) => index * index);
  for (let at = -10; at < 40_100; at += 37) {
    const far = Math.min(...times.map((time) => Math.abs(time - at)));
    expect(Math.abs((times[nearest(times, at)] as number) - at)).toBe(far);
  }
  expect(nearest([], 5)).toBe(-1);
});
