// The cluster: brokers, who leads what, how far behind copies are, disk, and how much comes in.

import { get } from './api.js';
import { badge, el, setText } from './dom.js';
import { bytes, count, moment, short } from './format.js';
import { spark } from './spark.js';

const EVERY = 2000;
const EVENTS = 12;
// Entries that a copy may be behind, as on their way, before it is marked.
const LAG = 100;
const KINDS = { alive: 'good', dead: 'bad', expected: 'busy' };
const LEVELS = { ERROR: 'bad', WARN: 'warn', INFO: 'good' };

export class Cluster {
  constructor(store) {
    Object.assign(this, { store, title: 'Cluster', ends: new Map(), rates: new Map() });
    this.head = el('p', { class: 'tally' });
    this.trouble = el('p', { class: 'none', role: 'status', hidden: true });
    this.brokers = table(['Broker', 'State', 'Leads', 'Clients at', 'HTTP at', 'Disk']);
    this.groups = table(['Group', 'Leader', 'Records a second', 'Offsets', 'Lag of copies']);
    this.events = el('ol', { class: 'events' });
    this.root = el('div', { class: 'stack-large' }, el('h1', { class: 'hidden' }, 'Cluster'), this.head, this.trouble,
      el('section', { class: 'card padded' }, el('h2', {}, 'Brokers'), this.brokers.root),
      el('section', { class: 'card padded' }, el('h2', {}, 'Groups'), this.groups.root),
      el('section', { class: 'card padded' }, el('h2', {}, 'What this broker did lately'), this.events));
    this.load();
    this.timer = setInterval(() => this.load(), EVERY);
  }

  async load() {
    try {
      const [view, events] = await Promise.all([get('/cluster'), get('/debug/events')]);
      this.trouble.hidden = true;
      this.show(view, Date.now());
      this.showEvents(events);
    } catch (error) {
      setText(this.trouble, `Not up to date: ${error.message}`);
      this.trouble.hidden = false;
    }
  }

  show(view, now) {
    const leads = (id) => view.groups.filter((group) => group.leader === id).map(({ group }) => group.replace('partition ', ''));
    this.brokers.body.replaceChildren(...view.brokers.map((broker) => el('tr', {},
      el('th', { scope: 'row' }, String(broker.id), broker.id === view.answered_by ? el('small', {}, 'this one') : null),
      el('td', {}, badge(broker.fault ? 'warn' : KINDS[broker.state], broker.state), broker.fault ? el('small', {}, broker.fault) : null),
      el('td', {}, leads(broker.id).join(', ') || '–'),
      el('td', {}, broker.address || '–'), el('td', {}, broker.http || '–'),
      el('td', { class: 'num' }, bytes(broker.disk_bytes ?? undefined)))));
    this.groups.body.replaceChildren(...view.groups.map((group) => this.group(group, now)));
    const all = [...this.rates.values()].map((points) => points.at(-1)?.[1] ?? 0).reduce((sum, one) => sum + one, 0);
    const parts = [`Cluster ${view.cluster}`, `version ${view.version}`, `answered by broker ${view.answered_by}`, `${short(Math.round(all))} records a second`];
    setText(this.head, parts.join(' · '));
  }

  group({ group, leader, start, end, replicas }, now) {
    const isMetadata = group === 'metadata';
    const before = this.ends.get(group);
    const points = this.rates.get(group) ?? [];
    if (!isMetadata && before && now > before.now) points.push([now, Math.max(0, end - before.end) * 1000 / (now - before.now)]);
    this.ends.set(group, { end, now });
    this.rates.set(group, points.slice(-60));
    const line = spark('cpu');
    line.draw(points, now, 10);
    const lag = replicas.map(({ broker, behind }) => badge(behind > LAG ? 'warn' : 'good', `${broker}: ${count(behind)}`));
    return el('tr', {}, el('th', { scope: 'row' }, group),
      el('td', {}, leader === null ? badge('bad', 'nobody') : `broker ${leader}`),
      el('td', { class: 'num' }, isMetadata ? '–' : el('div', { class: 'pair' }, line, el('b', {}, points.length ? count(points.at(-1)[1]) : '–'))),
      el('td', { class: 'num' }, isMetadata ? '–' : `${count(start)} to ${count(end)}`),
      el('td', {}, lag.length ? el('span', { class: 'badges' }, lag) : '–'));
  }

  showEvents(events) {
    const newest = events.slice(-EVENTS).reverse();
    const said = JSON.stringify(newest);
    if (said === this.said) return;
    this.said = said;
    this.events.replaceChildren(...newest.map(({ at, level, text }) => el('li', {},
      el('time', { datetime: at }, moment(Date.parse(at))), badge(LEVELS[String(level).toUpperCase()] ?? 'off', text))));
  }

  update() {}

  end() { clearInterval(this.timer); }
}

function table(titles) {
  const body = el('tbody');
  const head = el('thead', {}, el('tr', {}, titles.map((title) => el('th', { scope: 'col' }, title))));
  return { body, root: el('div', { class: 'scroll' }, el('table', {}, head, body)) };
}
