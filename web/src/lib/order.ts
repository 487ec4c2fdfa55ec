/** Sends an operation's order. */
import { api, ok } from './api';
import { operation, type Order } from './operations';
import type { Job } from './words';

/** The job that carries it out. Sent again under the same key it is not carried out twice. */
export async function order(vault: string, item: string, name: string, chosen: Order, key: string): Promise<Job> {
  const about = operation(name);
  if (!about) throw new Error(`There is no operation ${name} here.`);
  const [method, path] = about.route.split(' ') as ['POST' | 'DELETE', string];
  // The document's types know each path; here it comes from the table above.
  const call = api[method] as unknown as (path: string, init: object) => Promise<{ data?: { job: Job }; error?: unknown; response: Response }>;
  const answer = await ok(call(`/api/v1/vaults/{vault}${path}`, {
    params: { path: { vault, item }, ...(about.query ? { query: about.query(chosen) } : {}), ...(method === 'POST' ? { header: { 'Idempotency-Key': key } } : {}) },
    ...(about.body ? { body: about.body(chosen) } : {}),
  }));
  return answer.job;
}
