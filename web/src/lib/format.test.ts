import { describe, expect, test } from 'vitest';
import { age, bytes, duration, millis, utc, words } from './format';

test('bytes in binary units', () => {
  expect([0, 1023, 1024, 1536, 10 * 1024, 1024 ** 2 * 99.96, 1024 ** 3, 1024 ** 5 * 3000].map(bytes)).toEqual([
    '0 B', '1023 B', '1 KiB', '1.5 KiB', '10 KiB', '100 MiB', '1 GiB', '3000 PiB',
  ]);
  expect(bytes(1024 * 1024 - 1)).toBe('1 MiB');
});

test('durations: the two largest parts', () => {
  expect([0.05, 1, 5.25, 9.96, 42, 59.6, 60, 125, 3600, 3661, 90_000, 86_400 * 3 + 60].map(duration)).toEqual([
    '50 ms', '1 s', '5.3 s', '10 s', '42 s', '1 min', '1 min', '2 min 5 s', '1 h', '1 h 1 min', '1 d 1 h', '3 d',
  ]);
  expect([0.4, 1.9, 9.99, 70].map(age)).toEqual(['0 s', '1 s', '9 s', '1 min 10 s']);
});

describe('instants', () => {
  test('nanoseconds are cut, not misread', () => {
    expect(millis('2026-11-25T20:09:21.633725846Z')).toBe(Date.UTC(2026, 10, 25, 20, 9, 21, 633));
    expect(millis('2026-11-25T20:09:21Z')).toBe(Date.UTC(2026, 10, 25, 20, 9, 21));
  });
  test('UTC for the tooltip', () => expect(utc('2026-11-25T20:09:21.6Z')).toBe('2026-11-25 20:09:21 UTC'));
});

test('names of the API in words', () => {
  expect(['TestFailoverCleanup', 'InProgress', 'Protected', 'virtioBlk'].map(words)).toEqual(['Test failover cleanup', 'In progress', 'Protected', 'Virtio blk']);
});
