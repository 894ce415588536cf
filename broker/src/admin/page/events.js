// What happened to a container, and, where it matters, its last minute.

import { badge, el, svg } from './dom.js';
import { bytes, moment, percent } from './format.js';

const KINDS = { die: 'warn', oom: 'bad', restart: 'warn', start: 'good', stop: 'off', destroy: 'off' };

/** An event in words. */
function told(event) {
  const { event: what, exit_code: code, oom_killed: oom, restarts, health } = event;
  if (what === 'die') return `ended with code ${code ?? '?'}${oom ? ', killed for memory' : ''}`;
  if (what === 'oom') return 'out of memory';
  if (what === 'restart') return `restarted by the engine${restarts ? `, ${restarts} times so far` : ''}`;
  if (what === 'health') return `health: ${health ?? 'unknown'}`;
  if (what === 'destroy') return 'removed';
  return { start: 'started', stop: 'stopped' }[what] ?? String(what);
}

function kindOf(event) {
  if (event.event === 'health') return event.health === 'unhealthy' ? 'bad' : 'good';
  if (event.event === 'die') return event.failed ? 'bad' : 'off';
  return KINDS[event.event] ?? 'off';
}

function minute(name, values, show) {
  const top = Math.max(1e-9, ...values);
  const bars = values.map((value, at) => svg('rect', { x: at * 4, width: 3, y: 40 - 40 * value / top, height: Math.max(1, 40 * value / top) }));
  const span = `${name}: at most ${show(Math.max(...values))}, at last ${show(values.at(-1))}`;
  const picture = { viewBox: `0 0 ${values.length * 4} 40`, preserveAspectRatio: 'none', role: 'img', 'aria-label': span };
  return el('figure', { class: 'minute' }, el('figcaption', {}, span), svg('svg', picture, bars));
}

function lastMinute(event) {
  const lists = [['CPU', event.last_cpu, percent], ['Memory', event.last_memory, percent], ['Memory', event.last_memory_bytes, bytes]];
  const known = lists.filter(([, values]) => Array.isArray(values) && values.length > 0);
  if (known.length === 0) return null;
  const until = event.last_ts ? ` until ${moment(event.last_ts)}` : '';
  return el('details', {}, el('summary', {}, `its last minute${until}`), el('div', { class: 'minutes' }, known.map((list) => minute(...list))));
}

/** A list of event records, newest first. */
export function eventList(records) {
  if (records.length === 0) return el('p', { class: 'quiet' }, 'Nothing happened to it in the last day.');
  return el('ol', { class: 'events' }, records.map(({ payload, time }) => el('li', {},
    el('time', { datetime: new Date(payload.ts ?? time).toISOString() }, moment(payload.ts ?? time)),
    badge(kindOf(payload), told(payload)),
    lastMinute(payload))));
}
