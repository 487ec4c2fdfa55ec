/** What this tab knows of the server: lists, kept live by server-sent events and by asking again. Nothing is computed
 * that the server says itself. */
import { api, ok, problemOf, whenLoggedOut } from './api';
import { keep, kept } from './kept';
import roles from './roles.json';
import type { components } from './schema';
import { roleRefusal, type Event, type Item, type Job, type Machine, type Plan, type PlanRun, type Policy, type Problem } from './words';

type Schemas = components['schemas'];
type Lists = 'items' | 'jobs' | 'events' | 'machines' | 'policies' | 'plans' | 'servers' | 'store';

/** RPO and progress grow older without a change in the database, so they are asked for. */
const POLL_MILLIS = 3_000;
const SLOW_POLL_EVERY = 4;
/** Three polls missed. */
const STALE_MILLIS = 10_000;
const PAGE = 1000;
const KEPT = 500;

interface Page<T> { items: T[]; nextCursor?: string | null }

async function all<T>(ask: (query: { limit: number; cursor?: string }) => Promise<Page<T>>): Promise<T[]> {
  const found: T[] = [];
  let cursor: string | undefined;
  do {
    const page = await ask(cursor ? { limit: PAGE, cursor } : { limit: PAGE });
    found.push(...page.items);
    cursor = page.nextCursor ?? undefined;
  } while (cursor && found.length < 20 * PAGE);
  return found;
}

export function upsert<T extends { id: string | number }>(list: T[], entry: T, fresh: 'first' | 'last'): T[] {
  const at = list.findIndex((other) => other.id === entry.id);
  if (at >= 0) return list.with(at, entry);
  return fresh === 'first' ? [entry, ...list] : [...list, entry];
}

const SESSION = 'lifeboat-session';
function remember(there: boolean) {
  try {
    if (there) localStorage.setItem(SESSION, '1');
    else localStorage.removeItem(SESSION);
  } catch { /* storage is switched off */ }
}
/** Null: not known. */
function remembered(): boolean | null {
  try { return localStorage.getItem(SESSION) !== null; } catch { return null; }
}

class Site {
  /** False until the server said who is here. */
  asked = $state(false);
  who = $state.raw<Schemas['WhoAmI'] | null>(null);
  /** The login ended by itself; said on the login page. */
  ended = $state(false);
  version = $state('');

  items = $state.raw<Item[]>([]);
  jobs = $state.raw<Job[]>([]);
  events = $state.raw<Event[]>([]);
  machines = $state.raw<Machine[]>([]);
  policies = $state.raw<Policy[]>([]);
  plans = $state.raw<Plan[]>([]);
  servers = $state.raw<Schemas['ServerFacts'][]>([]);
  store = $state.raw<Schemas['StoreView'] | null>(null);
  loaded = $state<Partial<Record<Lists, true>>>({});
  trouble = $state<Partial<Record<Lists, Problem>>>({});

  stream = $state<'off' | 'connecting' | 'open' | 'broken'>('off');
  contactAt = $state(Date.now());
  now = $state(Date.now());

  #source: EventSource | null = null;
  #timers: ReturnType<typeof setInterval>[] = [];
  #again: ReturnType<typeof setTimeout> | undefined;
  #polls = 0;
  #polling = false;

  /** As a person chose it, in this browser or by an address with `?vault=`. */
  wanted = $state(new URLSearchParams(location.search).get('vault') ?? kept('vault', 'default'));
  vaults = $derived((this.who?.roles ?? []).map((role) => role.vault));
  vault = $derived(this.vaults.find((name) => name === this.wanted) ?? this.vaults.find((name) => name === 'default') ?? this.vaults[0] ?? 'default');
  role = $derived(this.who?.roles.find((role) => role.vault === this.vault)?.role ?? null);
  stale = $derived(this.now - this.contactAt > STALE_MILLIS);
  running = $derived(this.jobs.filter((job) => job.state === 'InProgress' || job.state === 'NotStarted'));

  constructor() {
    whenLoggedOut(() => {
      if (this.who) this.ended = true;
      this.stop();
      this.who = null;
      remember(false);
    });
  }

  /** Shows another vault; what was known of the one before is let go of. */
  choose(vault: string) {
    this.wanted = vault;
    keep('vault', vault);
    this.start();
  }

  /** As `refusal`, for what belongs to the site: the role in the vault `default` counts. */
  siteRefusal(route: string): string | null {
    return roleRefusal(this.who?.roles.find((role) => role.vault === 'default')?.role ?? null, (roles as Record<string, string>)[route]);
  }

  /** Why the user may not call `route` (`POST /policies`); null: they may. */
  refusal(route: string): string | null {
    return roleRefusal(this.role, (roles as Record<string, string>)[route]);
  }

  item(name: string): Item | undefined {
    return this.items.find((item) => item.name === name || item.id === name);
  }

  /** Without a session that this browser knows of, asking would only be refused. */
  async begin() {
    if (remembered() === false) this.asked = true;
    else await this.whoami();
  }

  /** Who is here and in which vaults, without beginning anew. */
  async look() {
    this.who = await ok(api.GET('/api/v1/whoami'));
  }

  async whoami() {
    try {
      this.who = await ok(api.GET('/api/v1/whoami'));
      this.ended = false;
      remember(true);
      if (!this.who.mustChangePassword) this.start();
    } catch (error) {
      const { status } = problemOf(error);
      if (status === 401) remember(false);
      else throw error;
    } finally {
      this.asked = true;
    }
  }

  async logout() {
    this.stop();
    await ok(api.POST('/api/v1/logout'));
    this.who = null;
    this.ended = false;
    remember(false);
  }

  start() {
    this.stop();
    this.contactAt = Date.now();
    this.#timers = [
      setInterval(() => { this.now = Date.now(); }, 1000),
      setInterval(() => void this.#poll(), POLL_MILLIS),
    ];
    void this.refresh();
    this.#listen();
  }

  stop() {
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#again);
    this.#timers = [];
    this.#source?.close();
    this.#source = null;
    this.stream = 'off';
    for (const name of ['items', 'jobs', 'events', 'machines', 'policies', 'plans', 'servers'] as const) this[name] = [];
    this.store = null;
    this.loaded = {};
    this.trouble = {};
  }

  async #load<K extends Lists>(name: K, ask: () => Promise<Site[K]>) {
    try {
      const found = await ask();
      if (this.stream === 'off') return;
      (this as Site)[name] = found;
      this.loaded[name] = true;
      delete this.trouble[name];
      this.contactAt = this.now = Date.now();
    } catch (error) {
      this.trouble[name] = problemOf(error);
    }
  }

  loadItems = () => this.#load('items', () => all((query) => ok(api.GET('/api/v1/vaults/{vault}/replicated-items', { params: { path: { vault: this.vault }, query } }))));
  loadMachines = () => this.#load('machines', () => all((query) => ok(api.GET('/api/v1/vaults/{vault}/machines', { params: { path: { vault: this.vault }, query } }))));
  loadPolicies = () => this.#load('policies', () => all((query) => ok(api.GET('/api/v1/vaults/{vault}/policies', { params: { path: { vault: this.vault }, query } }))));
  loadPlans = () => this.#load('plans', () => all((query) => ok(api.GET('/api/v1/vaults/{vault}/recovery-plans', { params: { path: { vault: this.vault }, query } }))));
  loadJobs = () => this.#load('jobs', async () => (await ok(api.GET('/api/v1/vaults/{vault}/jobs', { params: { path: { vault: this.vault }, query: { limit: 200 } } }))).items);
  loadEvents = () => this.#load('events', async () => (await ok(api.GET('/api/v1/vaults/{vault}/events', { params: { path: { vault: this.vault }, query: { limit: 200 } } }))).items);
  loadServers = () => this.#load('servers', async () => (await ok(api.GET('/api/v1/vaults/{vault}/servers', { params: { path: { vault: this.vault } } }))).items);
  loadStore = () => this.#load('store', () => ok(api.GET('/api/v1/vaults/{vault}/store', { params: { path: { vault: this.vault } } })));

  async refresh() {
    await Promise.all([
      this.loadItems(), this.loadJobs(), this.loadEvents(), this.loadMachines(), this.loadPolicies(), this.loadPlans(), this.loadServers(), this.loadStore(),
    ]);
  }

  async #poll() {
    // A hidden tab asks nothing; it catches up when it is looked at.
    if (document.hidden || this.#polling) return;
    this.#polling = true;
    this.#polls += 1;
    try {
      const slow = this.#polls % SLOW_POLL_EVERY === 0;
      await Promise.all([this.loadItems(), ...(slow ? [this.loadMachines(), this.loadServers(), this.loadStore()] : [])]);
    } finally {
      this.#polling = false;
    }
  }

  #listen() {
    this.#source?.close();
    if (this.stream !== 'broken') this.stream = 'connecting';
    const source = new EventSource(`/api/v1/vaults/${encodeURIComponent(this.vault)}/events/stream`);
    this.#source = source;
    source.onopen = () => {
      // After a break the missed changes come by themselves; what is not in the stream is read again.
      if (this.stream === 'broken') void this.refresh();
      this.stream = 'open';
    };
    source.onerror = () => {
      this.stream = 'broken';
      // The browser tries again by itself unless the answer was an error.
      if (source.readyState === EventSource.CLOSED && this.#source === source) {
        clearTimeout(this.#again);
        this.#again = setTimeout(() => this.#listen(), POLL_MILLIS);
      }
    };
    const on = (name: string, action: (data: never) => void) => {
      source.addEventListener(name, (message) => {
        this.contactAt = Date.now();
        action(JSON.parse(message.data) as never);
      });
    };
    const gone = (data: object) => 'gone' in data;
    on('item', (data: Item) => {
      this.items = gone(data) ? this.items.filter((item) => item.id !== data.id) : upsert(this.items, data, 'last');
    });
    on('job', (data: Job) => {
      if (!gone(data)) this.jobs = upsert(this.jobs, data, 'first').slice(0, KEPT);
    });
    on('event', (data: Event) => {
      if (!gone(data)) this.events = upsert(this.events, data, 'first').slice(0, KEPT);
    });
    on('machine', () => void this.loadMachines());
    on('plan', () => void this.loadPlans());
    on('planRun', (run: PlanRun) => {
      if (gone(run)) return;
      // Ids begin with their time: an older run does not stand before a newer one.
      this.plans = this.plans.map((plan) => (plan.id === run.plan.id && (plan.lastRun?.id ?? '') <= run.id ? { ...plan, lastRun: run } : plan));
      if (run.state === 'Succeeded') void this.loadPlans();
    });
    on('policy', () => void this.loadPolicies());
    on('reset', () => void this.refresh());
  }
}

export const site = new Site();

document.addEventListener('visibilitychange', () => {
  if (!document.hidden && site.stream !== 'off') void site.refresh();
});
