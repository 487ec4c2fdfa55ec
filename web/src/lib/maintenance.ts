/** Maintenance windows: the form, and which is on for whom. Pure. */
import { millis } from './format';
import type { Tone, Window } from './words';

export interface WindowForm { machine: string; now: boolean; begins: string; ends: string; note: string }

const DAY = 86_400_000;
const DAYS_MAX = 31;

/** A time as the browser's field for it writes it, in the viewer's zone: `2026-03-01T22:00`. */
export function fieldTime(at: number): string {
  const date = new Date(at);
  const two = (value: number) => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}T${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** Two hours from now. */
export function freshWindow(now: number): WindowForm {
  return { machine: '', now: true, begins: fieldTime(now), ends: fieldTime(now + 2 * 3_600_000), note: '' };
}

/** Why it cannot be planned; null: it can. The server has the last word. */
export function windowTrouble(form: WindowForm, now: number): string | null {
  const begins = form.now ? now : Date.parse(form.begins);
  const ends = Date.parse(form.ends);
  if (Number.isNaN(begins) || Number.isNaN(ends)) return 'Give its times.';
  if (ends <= now) return 'Its end is over.';
  if (ends <= begins) return 'It ends before it begins.';
  if (ends - begins > DAYS_MAX * DAY) return `It is longer than ${DAYS_MAX} days.`;
  return null;
}

export function windowRequest(form: WindowForm): { machine: string | null; beginsAt: string | null; endsAt: string; note: string } {
  return {
    machine: form.machine || null, beginsAt: form.now ? null : new Date(form.begins).toISOString(), endsAt: new Date(form.ends).toISOString(), note: form.note.trim(),
  };
}

export function windowTone(state: string): Tone {
  return state === 'On' ? 'info' : 'none';
}

/** The window that is on for a machine, its own or that of the vault: the one that ends last. */
export function windowOf(windows: Window[], machine: string): Window | null {
  const on = windows.filter((window) => window.state === 'On' && (!window.machine || window.machine.id === machine));
  return on.sort((one, other) => millis(other.endsAt) - millis(one.endsAt))[0] ?? null;
}
