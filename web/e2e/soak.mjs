// All pages under a live lab, again and again: no error in the console, and memory that stays flat.
// run.sh ends with 20 seconds of it; SOAK_SECONDS=600 e2e/run.sh is the long one.
import assert from 'node:assert/strict';
import { ADMIN, BASE, browser, login, tab, verdict } from './lib.mjs';
import { PAGES } from './topics/pages.mjs';

const SECONDS = Number(process.env.SOAK_SECONDS ?? 20);
/** What the heap may grow by between the first whole round and the last, after a collection. */
const GROWTH_MIB = 6;
const { context, page } = await tab();
try {
  await login(page, 'admin', process.env.PASSWORD ?? ADMIN);
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  const session = await context.newCDPSession(page);
  await session.send('Performance.enable');
  async function memory() {
    await session.send('HeapProfiler.collectGarbage');
    const { metrics } = await session.send('Performance.getMetrics');
    const of = (name) => metrics.find((metric) => metric.name === name).value;
    return { heap: of('JSHeapUsedSize') / 2 ** 20, nodes: of('Nodes'), listeners: of('JSEventListeners'), documents: of('Documents') };
  }
  // Within the page, as a person goes from one to the next: a load would begin with an empty heap.
  const go = async (path) => {
    await page.evaluate((path) => { const link = document.createElement('a'); link.href = path; document.body.append(link); link.click(); link.remove(); }, path);
    await page.locator('h1').first().waitFor();
    await page.waitForFunction((path) => location.pathname + location.search === path && !document.querySelector('[aria-busy=true]'), path);
  };
  const begin = Date.now();
  const left = () => SECONDS * 1000 - (Date.now() - begin);
  const samples = [];
  const pause = Math.min(3000, (SECONDS * 1000) / 3 / PAGES.length);
  do {
    for (const path of PAGES) {
      await go(path);
      await new Promise((done) => setTimeout(done, pause));
    }
    await go('/');
    const now = await memory();
    samples.push(now);
    console.log(`  ${((Date.now() - begin) / 1000).toFixed(0)} s, round ${samples.length}: heap ${now.heap.toFixed(1)} MiB, ${now.nodes} nodes, ${now.listeners} listeners`);
  } while (left() > 0 || samples.length < 2);
  // The first round fills what is kept: the points of an item, code that was compiled.
  const first = samples[Math.min(1, samples.length - 2)];
  const last = samples.at(-1);
  assert.ok(last.heap - first.heap < GROWTH_MIB, `the heap grew from ${first.heap.toFixed(1)} to ${last.heap.toFixed(1)} MiB`);
  assert.ok(last.nodes < first.nodes * 1.5 + 500, `nodes grew from ${first.nodes} to ${last.nodes}`);
  verdict();
  console.log(`  ${samples.length} rounds over ${PAGES.length} pages of ${BASE} in ${((Date.now() - begin) / 1000).toFixed(0)} s`);
} finally {
  await browser.close();
}
