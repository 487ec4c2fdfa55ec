/** Addresses of the pages: the path says the page, the query its tab, filter and sort order. */

export interface Place { path: string; query: URLSearchParams }

function read(): Place {
  return { path: decodeURI(location.pathname), query: new URLSearchParams(location.search) };
}

let current = $state.raw<Place>(read());

export const place = {
  get path() { return current.path; },
  get query() { return current.query; },
};

export function go(address: string, options: { replace?: boolean } = {}) {
  if (address !== location.pathname + location.search) {
    history[options.replace ? 'replaceState' : 'pushState'](null, '', address);
  }
  const before = current.path;
  current = read();
  if (before !== current.path) {
    scrollTo(0, 0);
    // Those who do not see the page hear that it is another one.
    queueMicrotask(() => document.getElementById('main')?.focus({ preventScroll: true }));
  }
}

/** Changes one part of the query; null takes it out. */
export function setQuery(changes: Record<string, string | null>, options: { replace?: boolean } = { replace: true }) {
  const query = new URLSearchParams(current.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  go(current.path + (text ? `?${text}` : ''), options);
}

addEventListener('popstate', () => { current = read(); });

/** Links within the page need no load; modified clicks stay the browser's. */
addEventListener('click', (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.('a');
  if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
  if (link.pathname.startsWith('/api/') || link.getAttribute('href')?.startsWith('#')) return;
  event.preventDefault();
  go(link.pathname + link.search);
});

/** Parts of the path after `pattern`'s first segment: `/items/{name}` gives the name; null: another page. */
export function match(pattern: string, path: string): string[] | null {
  const wanted = pattern.split('/');
  const given = path.replace(/\/+$/, '').split('/');
  if (path === '/') return pattern === '/' ? [] : null;
  if (wanted.length !== given.length) return null;
  const found: string[] = [];
  for (const [index, part] of wanted.entries()) {
    if (part === '*') found.push(given[index] as string);
    else if (part !== given[index]) return null;
  }
  return found;
}
