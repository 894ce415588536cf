// What is known: hosts, containers, alerts, deliveries, actions. Records go in, views read it.
//
// A record replaces what is known when it was not measured earlier: the state that is asked for and
// the stream that runs meanwhile may come in either order.

import { get } from './api.js';
import { about, matches, plain } from './topics.js';

/** What the page follows. */
const PASSING = ['metrics/docker/#', 'info/docker/#', 'events/docker/#'].join('|');
export const FOLLOWED = `${PASSING}|alerts/#|deliveries/#|actions/alerts`;

// Points of a sparkline, one a second.
const SPARK = 90;
const SPARKED = ['cpu', 'memory', 'network'];
// Silence after which a thing is marked, and after which it is not shown.
export const STALE = 6000;
const FORGOTTEN = 3600000;
// Newest deliveries, actions and events that are kept.
const KEPT = 200;
// Alerts that are kept, those that ring and those that changed last: a house has a few dozen.
const ALERTS = 2000;

class Thing {
  constructor(producer, container) {
    Object.assign(this, { producer, container, metrics: {}, times: {}, spark: {}, info: null, seen: 0, late: false });
    this.name = plain(container ?? producer);
    this.host = plain(producer);
  }

  take(metric, payload, time) {
    const ts = payload.ts ?? time;
    if (ts < (this.times[metric] ?? 0)) return;
    this.times[metric] = ts;
    this.metrics[metric] = payload;
    this.seen = Math.max(this.seen, ts);
    if (SPARKED.includes(metric)) this.point(metric, ts, payload.value);
  }

  point(metric, ts, value) {
    const points = (this.spark[metric] ??= []);
    if (typeof value !== 'number' || (points.length && points.at(-1)[0] >= ts)) return;
    points.push([ts, value]);
    if (points.length > SPARK) points.shift();
  }

  /** A number of the newest sample, if it is no older than the newest of all by much. */
  number(metric, field = 'value') {
    const value = this.metrics[metric]?.[field];
    return typeof value === 'number' && this.times[metric] > this.seen - 15000 ? value : undefined;
  }
}

export class Store {
  constructor() {
    Object.assign(this, { hosts: new Map(), containers: new Map(), removed: new Map(), alerts: new Map() });
    Object.assign(this, { deliveries: [], actions: [], watchers: new Set(), ahead: 0, ready: false });
    // What there was no room for: alerts, and topics of hosts and containers.
    this.leftOut = { alerts: 0, topics: 0 };
  }

  /** The broker's time. */
  now() { return Date.now() + this.ahead; }

  isStale(thing) { return this.now() - thing.seen > STALE; }

  /** Those that are there, or were within the hour. */
  shown(things) { return [...things.values()].filter((thing) => this.now() - thing.seen < FORGOTTEN); }

  /** Asks for what is known now: the alerts that changed last, those that ring, and what was there
   * within the hour. */
  async load() {
    const alerts = await get('/api/last', { match: 'alerts/#', limit: ALERTS });
    const { now } = alerts;
    this.ahead = now - Date.now();
    const ringing = alerts.left_out ? await get('/api/last', { match: 'alerts/#', where: 'state=firing' }) : { records: [] };
    const lately = await get('/api/last', { match: PASSING, from: now - FORGOTTEN });
    const known = new Set(alerts.records.map(({ topic }) => topic));
    const added = ringing.records.filter(({ topic }) => !known.has(topic));
    this.leftOut = { alerts: alerts.left_out - added.length, topics: lately.left_out };
    [...alerts.records, ...added, ...lately.records].forEach((record) => this.take(record));
    const day = now - 86400000;
    const sparked = SPARKED.flatMap((metric) => [`metrics/docker/+/${metric}`, `metrics/docker/+/+/${metric}`]).join('|');
    const [sparks, actions, deliveries] = await Promise.all([
      // A house with more lines than an answer has begins with empty ones.
      get('/api/history', { match: sparked, from: now - SPARK * 1000, to: now, points: SPARK }).catch(() => ({ series: [] })),
      get('/api/records', { match: 'actions/alerts', from: day, limit: KEPT }),
      get('/api/records', { match: 'deliveries/#', from: day, limit: KEPT }),
    ]);
    sparks.series.forEach((line) => this.spark(line));
    [...actions.records, ...deliveries.records].reverse().forEach((record) => this.take(record));
    this.ready = true;
  }

  spark({ topic, points }) {
    const { producer, container, metric } = about(topic);
    const thing = container ? this.containers.get(`${producer}/${container}`) : this.hosts.get(producer);
    if (!thing) return;
    const known = (thing.spark[metric] ?? []).filter(([ts]) => ts > (points.at(-1)?.[0] ?? 0) + 1000);
    thing.spark[metric] = [...points.map(([ts, mean]) => [ts, mean]), ...known].slice(-SPARK);
  }

  /** Takes records that came in. */
  takeAll(records) {
    records.forEach((record) => this.take(record));
  }

  take(record) {
    const { topic, time, payload } = record;
    if (payload === null || typeof payload !== 'object') return;
    if (topic.startsWith('alerts/')) this.alert(topic, payload);
    else if (topic.startsWith('deliveries/')) this.keep(this.deliveries, { ...payload, topicOf: topic, time });
    else if (topic === 'actions/alerts') this.keep(this.actions, { ...payload, time });
    else this.thing(topic, payload, time);
    this.watchers.forEach((watch) => watch(record));
  }

  thing(topic, payload, time) {
    const { kind, producer, container, metric } = about(topic);
    if (kind === 'metrics' && !container) this.of(this.hosts, producer, producer).take(metric, payload, time);
    if (!container) return;
    const key = `${producer}/${container}`;
    const ts = payload.ts ?? time;
    // A name may come back; what was told of it before it went does not bring it back.
    if (ts <= (this.removed.get(key) ?? 0)) return;
    if (kind === 'info' && payload.value === 0) {
      this.removed.set(key, ts);
      this.containers.delete(key);
    } else if (kind === 'info') {
      this.of(this.containers, key, producer, container).info = payload;
    } else if (kind === 'metrics') {
      this.of(this.containers, key, producer, container).take(metric, payload, time);
    }
  }

  of(map, key, ...names) {
    if (!map.has(key)) map.set(key, new Thing(...names));
    return map.get(key);
  }

  alert(topic, payload) {
    const known = this.alerts.get(topic);
    if (!known || (payload.ts ?? 0) >= (known.ts ?? 0)) this.alerts.set(topic, payload);
    if (this.alerts.size > ALERTS) this.forgetAlert();
  }

  /** What is over goes before what still rings, and the oldest first. */
  forgetAlert() {
    const place = ([, { state, ts }]) => [state !== 'ok', ts ?? 0];
    const least = [...this.alerts].reduce((a, b) => {
      const [[rings, ts], [otherRings, otherTs]] = [place(a), place(b)];
      return rings === otherRings ? (ts <= otherTs ? a : b) : rings ? b : a;
    });
    this.alerts.delete(least[0]);
    this.leftOut.alerts += 1;
  }

  keep(list, record) {
    if (list.some((known) => known.time === record.time && known.ts === record.ts && known.id === record.id && known.status === record.status)) return;
    list.push(record);
    list.sort((a, b) => a.time - b.time);
    if (list.length > KEPT) list.shift();
  }

  /** Who acknowledged an alert, and until when it is muted: as its consumer says, or as people
   * have asked since. */
  handling(alert) {
    const concerns = ({ rule, match }) => (rule === '+' || rule === alert.rule) && matches(match ?? '', alert.topic ?? '');
    const handling = { by: alert.acknowledged_by, until: alert.muted_until ?? 0 };
    for (const { action, ts, by, until } of this.actions.filter(concerns)) {
      if (action === 'acknowledge' && ts >= (alert.since ?? 0)) handling.by ??= by ?? 'somebody';
      if (action === 'mute') handling.until = until;
      if (action === 'unmute') handling.until = 0;
    }
    return { ...handling, muted: handling.until > this.now() };
  }

  /** How many alerts fire over each container, by {producer}/{container}; muted ones do not count. */
  ringing() {
    const numbers = new Map();
    for (const alert of this.inState('firing').filter((one) => !this.handling(one).muted)) {
      const { producer, container } = about(alert.topic ?? '');
      const key = `${producer}/${container}`;
      if (container) numbers.set(key, (numbers.get(key) ?? 0) + 1);
    }
    return numbers;
  }

  /** Alerts in a state, those that began last first. */
  inState(state) {
    const found = [...this.alerts.values()].filter((alert) => alert.state === state);
    return found.sort((a, b) => (b.since ?? b.ts ?? 0) - (a.since ?? a.ts ?? 0));
  }
}
