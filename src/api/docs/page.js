// The page shows what the document says and adds nothing. Text is set as text: nothing from the document becomes markup.
'use strict';

const METHODS = ['get', 'post', 'put', 'delete'];
/** Objects in objects are shown this deep; the rest is in the document. */
const DEPTH_MAX = 4;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

let api;

/** Descriptions mark code with backquotes; here words are enough. */
function plain(text) {
  return text.replaceAll('`', '');
}

function resolve(schema) {
  let found = schema ?? {};
  while (found.$ref) found = api.components.schemas[found.$ref.split('/').pop()] ?? {};
  return found;
}

/** Without the `null` that an optional field may also be. */
function essence(schema) {
  const found = resolve(schema);
  const choices = (found.oneOf ?? found.anyOf ?? []).filter((one) => one.type !== 'null');
  return choices.length === 1 ? { ...resolve(choices[0]), description: found.description ?? resolve(choices[0]).description } : found;
}

/** What tells one of several objects from the others. */
function kindOf(schema) {
  return essence(schema).properties?.kind?.enum?.[0] ?? '';
}

function typeName(schema) {
  const found = essence(schema);
  const types = [found.type ?? []].flat().filter((type) => type !== 'null');
  if (found.enum) return found.enum.filter((value) => value !== null).join(' | ');
  if (types.includes('array')) return `list of ${typeName(found.items)}`;
  const choices = found.oneOf ?? found.anyOf;
  if (choices) return `one of: ${choices.map((one) => kindOf(one) || typeName(one)).join(' | ')}`;
  const range = [found.minimum, found.maximum].every((bound) => bound !== undefined) ? ` ${found.minimum} to ${found.maximum}` : '';
  return `${types.join(' or ') || 'anything'}${found.format ? ` (${found.format})` : ''}${range}`;
}

function rowsOf(schema, prefix, depth, seen) {
  const found = essence(schema);
  const required = new Set(found.required ?? []);
  const rows = [];
  for (const [name, field] of Object.entries(found.properties ?? {})) {
    const inner = essence(field);
    const path = prefix ? `${prefix}.${name}` : name;
    const words = field.description ?? inner.description ?? '';
    const given = field.default === undefined || field.default === null ? '' : ` Default: ${JSON.stringify(field.default)}.`;
    rows.push([path, typeName(field), required.has(name), plain(words + given)]);
    const of = [inner.type ?? []].flat().includes('array') ? essence(inner.items) : inner;
    if (of.properties && depth < DEPTH_MAX && !seen.includes(of)) {
      const below = [inner.type ?? []].flat().includes('array') ? `${path}[]` : path;
      rows.push(...rowsOf(of, below, depth + 1, [...seen, of]));
    }
    for (const choice of of.oneOf ?? of.anyOf ?? []) {
      if (essence(choice).properties && depth < DEPTH_MAX) rows.push(...rowsOf(choice, `${path} (${kindOf(choice)})`, depth + 1, [...seen, of]));
    }
  }
  return rows;
}

function table(head, rows) {
  const body = rows.map((row) => element('tr', {}, ...row.map((cell, place) =>
    element('td', {}, place === 0 ? element('code', {}, cell) : cell))));
  return element('div', { class: 'wide' }, element('table', {}, element('thead', {}, element('tr', {}, ...head.map((text) => element('th', { scope: 'col' }, text)))),
    element('tbody', {}, ...body)));
}

function fields(schema) {
  const rows = rowsOf(schema, '', 0, []).map(([name, type, required, words]) => [name, type, required ? 'yes' : '', words]);
  return rows.length ? table(['Field', 'Type', 'Always', 'Meaning'], rows) : element('p', {}, typeName(schema));
}

function curl(method, path, operation) {
  const parts = [`curl --cacert ca.pem -H "Authorization: Bearer $TOKEN"`];
  if (method !== 'get') parts.push(`-X ${method.toUpperCase()}`);
  const schema = operation.requestBody?.content?.['application/json']?.schema;
  if (schema) {
    const found = essence(schema);
    const example = Object.fromEntries((found.required ?? []).map((name) => [name, `<${typeName(found.properties[name])}>`]));
    parts.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(example)}'`);
  }
  parts.push(`"${location.origin}${path}"`);
  return parts.join(' \\\n  ');
}

/** A form for requests that change nothing. */
function tryIt(path, parameters) {
  const box = element('div', { class: 'try' });
  const inputs = parameters.filter((one) => one.in !== 'header').map((one) => {
    const input = element('input', { name: one.name, placeholder: one.required ? 'needed' : '' });
    if (one.name === 'vault') input.value = 'default';
    box.append(element('label', {}, one.name, input));
    return [one, input];
  });
  const send = element('button', { type: 'button' }, 'Send');
  const answer = element('pre', { hidden: '', tabindex: '0', 'aria-label': 'Answer' });
  send.addEventListener('click', async () => {
    let address = path;
    const query = new URLSearchParams();
    for (const [one, input] of inputs) {
      if (one.in === 'path') address = address.replace(`{${one.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(one.name, input.value);
    }
    answer.hidden = false;
    answer.textContent = 'Waiting…';
    try {
      const response = await fetch(query.size ? `${address}?${query}` : address, { signal: AbortSignal.timeout(60000) });
      const text = await response.text();
      let shown = text;
      try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: shown as it is */ }
      answer.textContent = `${response.status} ${response.statusText}\n${shown.slice(0, 200000)}`;
    } catch (error) {
      answer.textContent = `No answer: ${error.message}`;
    }
  });
  return element('div', {}, element('h3', {}, 'Try it'), box, send, answer);
}

function operationView(method, path, operation) {
  const body = element('div', { class: 'body' });
  const parameters = operation.parameters ?? [];
  const build = () => {
    if (body.childElementCount) return;
    if (operation.description) body.append(element('p', {}, plain(operation.description)));
    if (parameters.length) {
      body.append(element('h3', {}, 'Parameters'), table(['Name', 'In', 'Needed', 'Type', 'Meaning'], parameters.map((one) =>
        [one.name, one.in, one.required ? 'yes' : '', typeName(one.schema), one.description ?? ''])));
    }
    const schema = operation.requestBody?.content?.['application/json']?.schema;
    if (schema) {
      const rows = rowsOf(schema, '', 0, []).map(([name, type, required, words]) => [name, type, required ? 'yes' : '', words]);
      body.append(element('h3', {}, 'Body'), rows.length ? table(['Field', 'Type', 'Needed', 'Meaning'], rows) : element('p', {}, 'empty object'));
    }
    for (const [status, response] of Object.entries(operation.responses ?? {})) {
      const [kind, content] = Object.entries(response.content ?? {})[0] ?? [];
      const name = status === 'default' ? 'Any error' : `Answer ${status}`;
      body.append(element('h3', {}, kind ? `${name}, ${kind}` : name), kind && content.schema ? fields(content.schema) : element('p', {}, response.description || 'no body'));
    }
    body.append(element('h3', {}, 'With curl'), element('pre', { tabindex: '0' }, curl(method, path, operation)));
    if (method === 'get' && !path.endsWith('/stream') && path !== '/agent/lifeboat') body.append(tryIt(path, parameters));
  };
  const view = element('details', { id: operation.operationId },
    element('summary', {}, element('span', { class: `method ${method}` }, method.toUpperCase()), element('span', { class: 'path' }, path),
      element('span', { class: 'role' }, { none: 'no login', any: 'any login' }[operation['x-required-role']] ?? operation['x-required-role']),
      element('span', { class: 'words' }, plain(operation.summary ?? ''))), body);
  view.addEventListener('toggle', build);
  view.dataset.words = `${method} ${path} ${operation.summary ?? ''} ${operation.operationId}`.toLowerCase();
  return view;
}

function open(id) {
  const view = document.getElementById(id);
  if (view?.tagName === 'DETAILS') { view.open = true; view.scrollIntoView(); }
}

async function show() {
  const state = document.getElementById('state');
  try {
    const response = await fetch('/api/v1/openapi.json');
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    api = await response.json();
  } catch (error) {
    state.textContent = `The document could not be loaded: ${error.message}. Load this page again.`;
    return;
  }
  document.getElementById('about').textContent = `${api.info.description} Version ${api.info.version}.`;
  const main = document.getElementById('operations');
  const index = document.getElementById('index');
  const sections = [];
  for (const { name } of api.tags) {
    const views = [];
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS) {
        if (item[method]?.tags?.includes(name)) views.push(operationView(method, path, item[method]));
      }
    }
    if (!views.length) continue;
    const section = element('section', { 'aria-label': name }, element('h2', {}, name), ...views);
    const links = views.map((view) => element('li', {}, element('a', { href: `#${view.id}` }, view.id)));
    const list = element('div', {}, element('strong', {}, name), element('ul', {}, ...links));
    sections.push({ section, list, views, links });
    main.append(section);
    index.append(list);
  }
  state.remove();
  document.getElementById('filter').addEventListener('input', (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { section, list, views, links } of sections) {
      views.forEach((view, place) => {
        view.hidden = !words.every((word) => view.dataset.words.includes(word));
        links[place].hidden = view.hidden;
      });
      section.hidden = list.hidden = views.every((view) => view.hidden);
    }
  });
  addEventListener('hashchange', () => open(location.hash.slice(1)));
  open(location.hash.slice(1));
}

show();
