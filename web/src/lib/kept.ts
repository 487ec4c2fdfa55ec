/** What this browser keeps of a person's choices. Storage may be switched off. */
export function kept<T>(name: string, fallback: T): T {
  try {
    const text = localStorage.getItem(`lifeboat-${name}`);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch { return fallback; }
}
export function keep(name: string, value: unknown) {
  try { localStorage.setItem(`lifeboat-${name}`, JSON.stringify(value)); } catch { /* storage is switched off */ }
}
