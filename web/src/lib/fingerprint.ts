/** `sha256:` and the hash of the first certificate of a PEM text, as agents are told it. */
export async function fingerprintOf(pem: string): Promise<string> {
  const body = /-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/.exec(pem)?.[1];
  if (!body) throw new Error('The server sent no certificate.');
  const der = Uint8Array.from(atob(body.replace(/\s+/g, '')), (character) => character.charCodeAt(0));
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', der));
  return `sha256:${Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
