// The columns of the table of containers: what each shows of one, and what it is sorted by.

import { el, setAttribute, setText } from './dom.js';
import { NONE, bytes, count, duration, percent, rate } from './format.js';
import { spark } from './spark.js';
import { KINDS, stateOf } from './state.js';

const runs = (thing) => thing.metrics.state?.value !== 0;
const value = (thing, metric, field) => (runs(thing) ? thing.number(metric, field) : undefined);

/** How full something is of its limit: calm, warm or hot. */
function heat(filled) {
  if (typeof filled !== 'number') return null;
  return filled >= 90 ? 'hot' : filled >= 75 ? 'warm' : null;
}

function bar() {
  const inner = el('i');
  const root = el('span', { class: 'meter', 'aria-hidden': 'true' }, inner);
  root.fill = (filled) => {
    inner.style.width = `${Math.min(100, Math.max(0, filled ?? 0))}%`;
    setAttribute(root, 'data-heat', heat(filled));
  };
  return root;
}

function withSpark(metric, least, upper, lower, filled) {
  const line = spark(metric);
  const big = el('b');
  const small = el('small');
  const meter = bar();
  return {
    cell: el('td', { class: `num wide ${metric}` }, el('div', { class: 'pair' }, line, el('span', { class: 'stack' }, big, small)), meter),
    update(thing, store) {
      setText(big, upper(thing));
      setText(small, lower(thing));
      meter.fill(filled(thing));
      meter.hidden = filled(thing) === undefined;
      line.draw(thing.spark[metric], store.now(), least);
    },
  };
}

function twoLines(name, upper, lower) {
  const big = el('b');
  const small = el('b');
  return {
    cell: el('td', { class: `num ${name}` }, el('span', { class: 'stack even' }, big, small)),
    update(thing) {
      for (const [place, text] of [[big, upper(thing)], [small, lower(thing)]]) {
        setText(place, text);
        setAttribute(place, 'data-zero', / 0 B/.test(text) ? '' : null);
      }
    },
  };
}

function plainNumber(name, text, mark = () => null) {
  const cell = el('td', { class: `num ${name}` });
  return {
    cell,
    update(thing, store) {
      setText(cell, text(thing, store));
      setAttribute(cell, 'data-heat', mark(thing));
    },
  };
}

const limited = (text, limit) => (typeof limit === 'number' && limit > 0 ? `of ${text(limit)}` : '');
const arrow = (sign, number) => (number === undefined ? NONE : `${sign} ${rate(number)}`);

function nameCell() {
  const link = el('a', { class: 'name' });
  const mark = el('a', { class: 'rings', href: '#/alerts' });
  const image = el('small');
  // Where there is no room for its own column the state stands here.
  const state = badge();
  return {
    cell: el('th', { scope: 'row', class: 'name' }, el('span', { class: 'stack' }, el('span', { class: 'called' }, link, mark), image, el('span', { class: 'aside' }, state.root))),
    update(thing, store, alerts) {
      state.show(stateOf(thing, store));
      setText(mark, `▲ ${alerts}`);
      setAttribute(mark, 'aria-label', `${alerts} firing`);
      mark.hidden = alerts === 0;
      setText(link, thing.name);
      setAttribute(link, 'href', `#/c/${encodeURIComponent(thing.producer)}/${encodeURIComponent(thing.container)}`);
      const host = store.hosts.size > 1 ? thing.host : '';
      setText(image, [thing.info?.image, host].filter(Boolean).join(' · '));
    },
  };
}

function stateCell() {
  const state = badge();
  const small = el('small');
  return {
    cell: el('td', { class: 'state' }, el('span', { class: 'stack' }, state.root, small)),
    update(thing, store) {
      const said = stateOf(thing, store);
      state.show(said);
      setText(small, said.detail);
    },
  };
}

function badge() {
  const dot = el('i', { class: 'dot', 'aria-hidden': 'true' });
  const text = el('span');
  const show = (said) => {
    setAttribute(dot, 'data-kind', said.kind);
    setText(text, said.text);
  };
  return { root: el('span', { class: 'badge' }, dot, text), show };
}

const uptime = (thing, store) => (runs(thing) && thing.info?.started ? store.now() - thing.info.started : undefined);
const memoryLimit = (thing) => thing.metrics.memory?.limit_bytes;

/** Each column: its title, what it is sorted by (texts rise at first, numbers fall), its cell. */
export const COLUMNS = [
  { id: 'name', title: 'Container', key: (thing) => thing.name.toLowerCase(), make: nameCell },
  { id: 'state', title: 'State', key: (thing, store) => String(KINDS.indexOf(stateOf(thing, store).kind)), make: stateCell },
  {
    id: 'cpu', title: 'CPU', key: (thing) => value(thing, 'cpu'),
    make: () => withSpark('cpu', 5, (thing) => percent(value(thing, 'cpu')),
      (thing) => (thing.info?.limit_cpus > 0 ? `of ${thing.info.limit_cpus} CPU` : ''),
      (thing) => (thing.info?.limit_cpus > 0 ? value(thing, 'cpu', 'limit_percent') : undefined)),
  },
  {
    id: 'memory', title: 'Memory', key: (thing) => value(thing, 'memory', 'bytes'),
    make: () => withSpark('memory', 5, (thing) => bytes(value(thing, 'memory', 'bytes')),
      (thing) => (thing.info?.limit_bytes > 0 ? limited(bytes, memoryLimit(thing)) : percent(value(thing, 'memory'))),
      (thing) => value(thing, 'memory')),
  },
  {
    id: 'network', title: 'Network', key: (thing) => value(thing, 'network'),
    make: () => twoLines('network',
      (thing) => arrow('↓', value(thing, 'network', 'rx_bytes_s')),
      (thing) => arrow('↑', value(thing, 'network', 'tx_bytes_s'))),
  },
  {
    id: 'disk', title: 'Disk', key: (thing) => value(thing, 'disk'),
    make: () => twoLines('disk',
      (thing) => arrow('r', value(thing, 'disk', 'read_bytes_s')),
      (thing) => arrow('w', value(thing, 'disk', 'written_bytes_s'))),
  },
  {
    id: 'pids', title: 'PIDs', key: (thing) => value(thing, 'pids'),
    make: () => plainNumber('pids',
      (thing) => count(value(thing, 'pids')),
      (thing) => heat(100 * value(thing, 'pids') / value(thing, 'pids', 'limit'))),
  },
  {
    id: 'restarts', title: 'Restarts', key: (thing) => thing.number('restarts'),
    make: () => plainNumber('restarts',
      (thing) => count(thing.number('restarts')),
      (thing) => (thing.number('restarts') > 0 ? 'warm' : null)),
  },
  { id: 'uptime', title: 'Up', key: uptime, make: () => plainNumber('uptime', (thing, store) => duration(uptime(thing, store))) },
];
