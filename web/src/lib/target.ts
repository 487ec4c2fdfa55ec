/** The form of the target settings: text fields to and from what the API takes. Pure. */
import type { Machine, Nic, Target } from './words';

export interface NicForm { kind: Nic['network']['kind']; name: string; mac: string; forwards: string; address?: Nic['address'] }
export interface TargetForm {
  name: string; cpus: number; memoryMiB: number; firmware: Target['firmware']; diskBus: Target['diskBus']; nics: NicForm[]; testNics: NicForm[];
}

const MIB = 1024 * 1024;

function nicForm(nic: Nic): NicForm {
  const where = nic.network;
  return {
    kind: where.kind, mac: nic.mac ?? '', ...(nic.address ? { address: nic.address } : {}), name: 'name' in where ? where.name : '',
    forwards: 'forwards' in where ? (where.forwards ?? []).map((forward) => `${forward.hostPort}:${forward.guestPort}`).join(', ') : '',
  };
}

export function formOf(target: Target): TargetForm {
  return {
    name: target.name, cpus: target.cpus, memoryMiB: Math.round(target.memoryBytes / MIB), firmware: target.firmware, diskBus: target.diskBus,
    nics: target.nics.map(nicForm), testNics: target.testNics.map(nicForm),
  };
}

/** A beginning for a machine whose settings are made by hand. */
export function formOfMachine(machine: Machine): TargetForm {
  return {
    name: `${machine.name}-asr`, cpus: Math.max(1, machine.cpus), memoryMiB: Math.max(128, Math.round(machine.memoryBytes / MIB)),
    firmware: machine.firmware === 'uefi' ? 'uefi' : 'bios', diskBus: 'virtioBlk',
    nics: [{ kind: 'user', name: '', mac: '', forwards: '' }], testNics: [{ kind: 'isolatedUser', name: '', mac: '', forwards: '' }],
  };
}

/** `2222:22, 0:80`; throws with words for a person. */
export function parseForwards(text: string): { hostPort: number; guestPort: number }[] {
  return text.split(',').map((part) => part.trim()).filter(Boolean).map((part) => {
    const found = /^(\d{1,5}):(\d{1,5})$/.exec(part);
    const [host, guest] = [Number(found?.[1]), Number(found?.[2])];
    if (!found || host > 65_535 || guest > 65_535 || guest === 0) throw new Error(`“${part}” is not HOST-PORT:GUEST-PORT, for example 2222:22.`);
    return { hostPort: host, guestPort: guest };
  });
}

function nicOf(form: NicForm): Nic {
  // What this form does not show is kept.
  const mac = form.mac.trim() || null;
  const kept = form.address ? { address: form.address } : {};
  switch (form.kind) {
    case 'user':
    case 'isolatedUser': return { mac, ...kept, network: { kind: form.kind, forwards: parseForwards(form.forwards) } };
    case 'isolated':
    case 'bridge':
    case 'named': {
      if (!form.name.trim()) throw new Error('A bridge or network needs its name.');
      return { mac, ...kept, network: { kind: form.kind, name: form.name.trim() } };
    }
  }
}

export function targetOf(form: TargetForm): Target {
  if (!form.name.trim()) throw new Error('The machine needs a name at the target.');
  if (!(form.cpus >= 1 && form.cpus <= 512)) throw new Error('Processors: 1 to 512.');
  if (!(form.memoryMiB >= 1)) throw new Error('Memory is missing.');
  return {
    name: form.name.trim(), cpus: Math.round(form.cpus), memoryBytes: Math.round(form.memoryMiB) * MIB, firmware: form.firmware, diskBus: form.diskBus,
    nics: form.nics.map(nicOf), testNics: form.testNics.map(nicOf),
  };
}
