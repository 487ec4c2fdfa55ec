/** Words for what a failover would start. Pure. */
import type { components } from './schema';
import { network, type Nic } from './words';

export type PreviewNic = components['schemas']['NicPreview'];

/** The network of a card, as it will be; `own`: the item's setting for it, which knows of forwarded ports. */
export function previewNetwork(nic: PreviewNic, own: Nic | undefined): string {
  if (own && own.network.kind === nic.networkKind) return network(own);
  const name = nic.networkName ?? '';
  switch (nic.networkKind) {
    case 'isolated': return `Isolated network ${name}`;
    case 'bridge': return `Bridge ${name} of the host`;
    case 'user': return 'Private, outgoing through the host';
    case 'isolatedUser': return 'Isolated, nothing leads out';
    case 'source': return name ? `Its own network ${name}` : 'Its own network';
    default: return `Network ${name}`;
  }
}

/** Whether the machine reaches others from there. */
export function previewLeadsOut(nic: Pick<PreviewNic, 'networkKind'>): boolean {
  return nic.networkKind === 'user' || nic.networkKind === 'bridge';
}
