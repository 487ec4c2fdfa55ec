// What people do with the web interface, in a real browser before a real site.
import { ADMIN, browser, login, tab, verdict } from './lib.mjs';
import { alerts } from './topics/alerts.mjs';
import { begin } from './topics/begin.mjs';
import { connection } from './topics/connection.mjs';
import { failover } from './topics/failover.mjs';
import { groups } from './topics/groups.mjs';
import { pages } from './topics/pages.mjs';
import { roles } from './topics/roles.mjs';
import { site } from './topics/site.mjs';

const TOPICS = { begin, groups, failover, roles, alerts, site, connection, pages };
// Some of them alone: TOPICS=begin,alerts; without `begin` the site is one that a story has begun.
const wanted = process.env.TOPICS?.split(',') ?? Object.keys(TOPICS);
const agents = [];
try {
  const story = { ...(await tab({ colorScheme: 'light' })), agents };
  if (!wanted.includes('begin')) {
    await login(story.page, 'admin', ADMIN);
    await story.page.getByRole('heading', { name: 'Overview' }).waitFor();
  }
  for (const name of wanted) await TOPICS[name](story);
  verdict();
} finally {
  for (const agent of agents) agent.kill('SIGTERM');
  await browser.close();
}
