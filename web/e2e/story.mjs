// What people do with the web interface, in a real browser before a real site.
import { browser, tab, verdict } from './lib.mjs';
import { alerts } from './topics/alerts.mjs';
import { begin } from './topics/begin.mjs';
import { connection } from './topics/connection.mjs';
import { failover } from './topics/failover.mjs';
import { pages } from './topics/pages.mjs';
import { roles } from './topics/roles.mjs';
import { site } from './topics/site.mjs';

const agents = [];
try {
  const story = { ...(await tab({ colorScheme: 'light' })), agents };
  for (const topic of [begin, failover, roles, alerts, site, connection, pages]) await topic(story);
  verdict();
} finally {
  for (const agent of agents) agent.kill('SIGTERM');
  await browser.close();
}
