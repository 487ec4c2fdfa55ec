/** Numbers and times as a person reads them. Pure. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Binary units, three digits at most: `1.5 GiB`. */
export function bytes(value: number): string {
  let amount = Math.max(0, value);
  let unit = 0;
  while (amount >= 1023.5 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || amount >= 99.95 ? 0 : amount >= 9.995 ? 1 : 2;
  return `${Number(amount.toFixed(digits))} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond: number): string {
  return `${bytes(bytesPerSecond)}/s`;
}

/** The two largest parts: `42 s`, `2 min 5 s`, `3 d 4 h`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, seconds);
  if (whole < 1) return `${Math.round(whole * 1000)} ms`;
  if (whole < 9.95) return `${Number(whole.toFixed(1))} s`;
  const total = Math.round(whole);
  const parts: [number, string][] = [
    [Math.floor(total / 86400), 'd'],
    [Math.floor(total / 3600) % 24, 'h'],
    [Math.floor(total / 60) % 60, 'min'],
    [total % 60, 's'],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  return parts
    .slice(first, first + 2)
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(' ');
}

/** As `duration`, whole seconds: for values that change while they are read. */
export function age(seconds: number): string {
  return seconds < 1 ? '0 s' : duration(seconds < 10 ? Math.floor(seconds) : seconds);
}

/** Milliseconds since 1970 of an RFC 3339 instant; its nanoseconds are cut. */
export function millis(instant: string): number {
  return Date.parse(instant.replace(/(\.\d{3})\d+/, '$1'));
}

export function utc(instant: string): string {
  return `${new Date(millis(instant)).toISOString().replace('T', ' ').slice(0, 19)} UTC`;
}

const FULL = new Intl.DateTimeFormat(undefined, {
  year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23',
});
const TIME = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** In the viewer's zone: the time alone for today, else with the date. */
export function local(instant: string, now: number = Date.now()): string {
  const date = new Date(millis(instant));
  return date.toDateString() === new Date(now).toDateString() ? TIME.format(date) : FULL.format(date);
}

export function localFull(instant: string): string {
  return FULL.format(new Date(millis(instant)));
}

/** `TestFailoverCleanup` -> `Test failover cleanup`. */
export function words(name: string): string {
  const spaced = name.replace(/([a-z0-9])([A-Z])/g, (_, before: string, after: string) => `${before} ${after.toLowerCase()}`);
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

export function count(amount: number, one: string, many: string = `${one}s`): string {
  return `${amount} ${amount === 1 ? one : many}`;
}
