import { expect, test } from 'vitest';
import { previewLeadsOut, previewNetwork, type PreviewNic } from './preview';

const nic = (networkKind: string, networkName: string | null = null): PreviewNic => ({ name: 'eth0', mac: null, networkKind, networkName, address: null, how: 'by DHCP' });

test('a name is shown as what stands behind it', () => {
  expect(previewNetwork(nic('bridge', 'br0'), { mac: null, network: { kind: 'named', name: 'office' } })).toBe('Bridge br0 of the host');
  expect(previewNetwork(nic('isolated', 'drill'), undefined)).toBe('Isolated network drill');
});

test('at home it has what it had', () => {
  expect(previewNetwork(nic('source', '10.0.0.0/24'), undefined)).toBe('Its own network 10.0.0.0/24');
});

test('forwarded ports are not lost', () => {
  expect(previewNetwork(nic('user'), { mac: null, network: { kind: 'user', forwards: [{ hostPort: 8080, guestPort: 80 }] } })).toContain('8080→80');
});

test('where a copy reaches others', () => {
  expect(['user', 'bridge', 'isolated', 'isolatedUser'].map((kind) => previewLeadsOut(nic(kind)))).toEqual([true, true, false, false]);
});
