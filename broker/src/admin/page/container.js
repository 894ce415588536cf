// One container: its charts over five minutes to a day, its limits and labels, what happened to it.

import { get } from './api.js';
import { Chart } from './chart.js';
import { el, setAttribute, setText } from './dom.js';
import { eventList } from './events.js';
import { bytes, count, duration, inUnit, moment, percent, rate } from './format.js';
import { stateOf } from './state.js';
import { about, plain } from './topics.js';

const MINUTE = 60000;
const RANGES = [[5, '5 min'], [15, '15 min'], [60, '1 h'], [360, '6 h'], [1440, '24 h']];
// Up to here history comes from samples, which come live as well.
const LIVE = 15;
// Of a day each is five minutes, which have records of their own.
const POINTS = 288;
const FIELDS = 'value,rx_bytes_s,tx_bytes_s,read_bytes_s,written_bytes_s';
const EVENTS = 100;
const SAMPLED = 'There are no rollups for this time, and too many samples to read them all: something short may be missing.';
const LABELS = { 'com.docker.compose.project': 'Project', 'com.docker.compose.service': 'Service' };

// The range stays while other containers are looked at.
let minutes = 5;

/** Points at times that other points have none for: both ways together are drawn only of minutes whose
 * producer did not tell the two apart. */
function without(points, others) {
  const times = new Set(others.map(([at]) => at));
  return points.filter(([at]) => !times.has(at));
}

export class ContainerView {
  constructor(store, [producer, container]) {
    Object.assign(this, { store, producer, container, lines: new Map(), loaded: null, events: [] });
    this.title = plain(container);
    this.state = el('span', { class: 'badge large' });
    this.facts = el('dl', { class: 'facts' });
    this.ranges = RANGES.map(([length, name]) => el('button', {
      type: 'button', 'aria-pressed': String(length === minutes), onclick: () => this.choose(length),
    }, name));
    this.trouble = el('p', { class: 'none', role: 'status', hidden: true });
    this.happened = el('div');
    this.makeCharts();
    this.plots = el('section', { class: 'charts', 'aria-label': 'Charts' }, Object.values(this.charts).map(({ chart }) => chart.root));
    this.root = el('div', { class: 'stack-large' },
      el('div', { class: 'heading' },
        el('a', { class: 'back', href: '#/' }, '‹ Overview'), el('h1', {}, this.title), this.state,
        el('div', { class: 'ranges', role: 'group', 'aria-label': 'Time shown' }, this.ranges)),
      this.facts, this.trouble,
      this.plots,
      el('section', { class: 'card padded', 'aria-label': 'Events' }, el('h2', {}, 'Events of the last day'), this.happened));
    this.load();
    this.loadEvents();
    this.timer = setInterval(() => this.load(), 30000);
  }

  makeCharts() {
    const aim = (at) => Object.values(this.charts).forEach(({ chart }) => chart.point(at));
    const memory = (value) => {
      const limit = this.thing()?.metrics.memory?.limit_bytes;
      return limit ? ` · ${bytes(value / 100 * limit)} of ${bytes(limit)}` : '';
    };
    const make = (wanted, options) => ({ wanted, chart: new Chart({ aim, ...options }) });
    this.charts = {
      cpu: make(['cpu/value'], { title: 'CPU', lines: ['CPU'], show: percent, least: 2 }),
      memory: make(['memory/value'], { title: 'Memory', lines: ['Memory'], show: percent, least: 2, detail: memory }),
      network: make(['network/rx_bytes_s', 'network/tx_bytes_s', 'network/value'], { title: 'Network', lines: ['↓', '↑', 'both ways'], show: rate, least: 1000 }),
      disk: make(['disk/read_bytes_s', 'disk/written_bytes_s', 'disk/value'], { title: 'Disk', lines: ['read', 'written', 'both ways'], show: rate, least: 1000 }),
      pids: make(['pids/value'], { title: 'Processes and threads', lines: ['PIDs'], show: (value) => count(value), least: 4 }),
      throttling: make(['throttling/value', 'pressure/value'], { title: 'Throttled, and pressure', lines: ['throttled', 'pressure'], show: percent, least: 10 }),
    };
  }

  thing() { return this.store.containers.get(`${this.producer}/${this.container}`); }

  choose(length) {
    minutes = length;
    this.ranges.forEach((button, place) => setAttribute(button, 'aria-pressed', String(RANGES[place][0] === length)));
    setAttribute(this.plots, 'aria-busy', 'true');
    this.load();
  }

  async load() {
    const asked = minutes;
    const to = Math.floor(this.store.now());
    const from = to - asked * MINUTE;
    try {
      const match = `metrics/docker/${this.producer}/${this.container}/+`;
      const history = await get('/api/history', { match, from, to, points: POINTS, fields: FIELDS });
      if (asked !== minutes) return;
      this.lines = new Map(history.series.map(({ topic, field, points }) => [`${about(topic).metric}/${field}`, points]));
      this.loaded = { minutes: asked, step: history.step };
      setAttribute(this.plots, 'data-minutes', asked);
      this.tell(history.series.some(({ source }) => source === 'sampled') ? SAMPLED : '');
    } catch (error) {
      this.tell(`No history: ${error.message}`);
    }
    setAttribute(this.plots, 'aria-busy', null);
    this.draw();
  }

  async loadEvents() {
    try {
      const { records } = await get('/api/records', { match: `events/docker/${this.producer}/${this.container}`, limit: EVENTS });
      this.events = records;
      this.happened.replaceChildren(eventList(records));
    } catch (error) {
      this.happened.replaceChildren(el('p', { class: 'quiet' }, `No events: ${error.message}`));
    }
  }

  tell(text) {
    setText(this.trouble, text);
    this.trouble.hidden = !text;
  }

  /** A record came in: of this container it goes into the charts. */
  take({ topic, time, payload }) {
    const { kind, producer, container, metric } = about(topic);
    if (producer !== this.producer || container !== this.container) return;
    if (kind === 'events') this.loadEvents();
    if (kind !== 'metrics' || !this.loaded || this.loaded.minutes > LIVE) return;
    const ts = payload.ts ?? time;
    for (const field of FIELDS.split(',')) {
      const value = payload[field];
      if (typeof value !== 'number') continue;
      const key = `${metric}/${field}`;
      const points = this.lines.get(key) ?? [];
      this.lines.set(key, points);
      if (!points.length || points.at(-1)[0] < ts) points.push([ts, value, value, value]);
    }
  }

  draw() {
    if (!this.loaded) return;
    const to = this.store.now();
    const from = to - this.loaded.minutes * MINUTE;
    const limits = this.limits();
    for (const [name, { wanted, chart }] of Object.entries(this.charts)) {
      const lines = wanted.map((key) => (this.lines.get(key) ?? []).filter(([ts]) => ts >= from));
      if (name === 'network' || name === 'disk') lines[2] = without(lines[2], lines[0]);
      chart.set({ from, to, step: this.loaded.step, lines, limits: limits[name] });
    }
  }

  limits() {
    const { info, metrics } = this.thing() ?? {};
    return {
      cpu: info?.limit_cpus > 0 ? [[info.limit_cpus * 100, `limit ${info.limit_cpus} CPU`]] : [],
      memory: info?.limit_bytes > 0 ? [[100, `limit ${bytes(info.limit_bytes)}`]] : [],
      pids: metrics?.pids?.limit > 0 ? [[metrics.pids.limit, `limit ${metrics.pids.limit}`]] : [],
    };
  }

  update() {
    const thing = this.thing();
    if (!thing) {
      this.state.replaceChildren('not there any more');
      this.facts.replaceChildren();
    } else {
      this.describe(thing);
    }
    if (this.loaded && this.loaded.minutes <= LIVE) this.draw();
  }

  describe(thing) {
    const { kind, text, detail } = stateOf(thing, this.store);
    const info = thing.info ?? {};
    this.state.replaceChildren(el('i', { class: 'dot', 'data-kind': kind, 'aria-hidden': 'true' }), [text, detail].filter(Boolean).join(' · '));
    const labels = Object.entries(info).filter(([name]) => name.includes('.')).map(([name, value]) => [LABELS[name] ?? name, value]);
    const facts = [
      ['Image', info.image], ['Host', thing.host], ['Id', info.id],
      ['CPU limit', info.limit_cpus > 0 ? `${info.limit_cpus} CPU` : 'none'],
      ['Memory limit', info.limit_bytes > 0 ? bytes(info.limit_bytes) : 'none'],
      ['Up', thing.metrics.state?.value === 1 && info.started ? `${duration(this.store.now() - info.started)}, since ${moment(info.started)}` : undefined],
      ['Restarts', inUnit(thing.number('restarts'))], ['Read from', info.source],
      ...labels,
    ].filter(([, value]) => value !== undefined && value !== '');
    // Written again only when it says something else: people select and copy here.
    const said = JSON.stringify(facts);
    if (said === this.said) return;
    this.said = said;
    this.facts.replaceChildren(...facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, String(value)))));
  }

  end() { clearInterval(this.timer); }
}
