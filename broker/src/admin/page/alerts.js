// Alerts: what rings, what may soon, what rang; acknowledge and mute; what became of the messages.

import { act } from './api.js';
import { arrange, badge, el, setAttribute, setText } from './dom.js';
import { duration, inUnit, moment } from './format.js';
import { about, plain } from './topics.js';

const HOUR = 3600000;
const MUTES = [[1, '1 h'], [8, '8 h'], [24, '24 h']];
// Most that are shown of a list.
const SHOWN = { firing: 200, pending: 200, ok: 30 };
const DELIVERIES = 50;
const DELIVERED = { delivered: 'good', sent: 'good', queued: 'busy', delayed: 'warn', failed: 'bad' };

export class Alerts {
  constructor(store) {
    Object.assign(this, { store, title: 'Alerts', items: new Map() });
    this.trouble = el('p', { class: 'none', role: 'alert', hidden: true });
    this.leftOut = el('p', { class: 'none', role: 'status', hidden: true });
    this.lists = {
      firing: this.section('Firing', 'Nothing rings.'),
      pending: this.section('Pending', 'Nothing is about to.'),
      ok: this.section('Resolved', 'Nothing rang so far.'),
    };
    this.sent = el('tbody');
    this.unsent = el('p', { class: 'quiet' }, 'No message was sent in the last day.');
    const titles = ['When', 'What', 'Channel', 'Status'].map((title) => el('th', { scope: 'col' }, title));
    this.deliveries = el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr', {}, titles)), this.sent));
    this.root = el('div', { class: 'stack-large' },
      el('h1', { class: 'hidden' }, 'Alerts'), this.trouble,
      Object.values(this.lists).map(({ root }) => root), this.leftOut,
      el('section', { class: 'card padded' }, el('h2', {}, 'Messages'), this.unsent, this.deliveries));
  }

  section(title, nothing) {
    const list = el('ul', { class: 'alerts' });
    const empty = el('p', { class: 'quiet' }, nothing);
    const number = el('span', { class: 'count calm' });
    return { list, empty, number, root: el('section', { class: 'card padded' }, el('h2', {}, title, ' ', number), empty, list) };
  }

  update() {
    const kept = new Set();
    for (const [state, { list, empty, number }] of Object.entries(this.lists)) {
      const all = this.store.inState(state);
      const alerts = all.slice(0, SHOWN[state]);
      arrange(list, alerts.map((alert) => {
        const key = `${alert.rule}/${alert.topic}`;
        kept.add(key);
        if (!this.items.has(key)) this.items.set(key, new Item((action) => this.act(action)));
        const item = this.items.get(key);
        item.update(alert, this.store);
        return item.root;
      }));
      empty.hidden = alerts.length > 0;
      setText(number, all.length > alerts.length ? `${alerts.length} of ${all.length}` : String(alerts.length));
      number.hidden = alerts.length === 0;
    }
    for (const key of this.items.keys()) if (!kept.has(key)) this.items.delete(key);
    const { alerts } = this.store.leftOut;
    setText(this.leftOut, `${alerts} more alerts are not shown, which do not ring and changed longer ago.`);
    this.leftOut.hidden = alerts === 0;
    this.showDeliveries();
  }

  async act(action) {
    try {
      await act(action);
      this.trouble.hidden = true;
    } catch (error) {
      setText(this.trouble, `Not done: ${error.message}`);
      this.trouble.hidden = false;
    }
  }

  showDeliveries() {
    const newest = this.store.deliveries.slice(-DELIVERIES).reverse();
    this.unsent.hidden = newest.length > 0;
    this.deliveries.hidden = newest.length === 0;
    const said = JSON.stringify(newest);
    if (said === this.said) return;
    this.said = said;
    this.sent.replaceChildren(...newest.map((delivery) => {
      const [, consumer, channel] = delivery.topicOf.split('/');
      return el('tr', {},
        el('td', {}, moment(delivery.ts ?? delivery.time)),
        el('td', {}, [delivery.rule, delivery.state].filter(Boolean).join(' '), el('small', {}, subject(delivery.topic).text)),
        el('td', {}, [plain(channel ?? ''), delivery.to].filter(Boolean).join(' '), el('small', {}, plain(consumer ?? ''))),
        el('td', {}, badge(DELIVERED[delivery.status] ?? 'off', delivery.status ?? ''), el('small', {}, delivery.reason ?? '')));
    }));
  }
}

/** Whom a topic is about, with a link where there is a view of it. */
function subject(topic) {
  const { producer, container, metric } = about(topic ?? '');
  if (!producer) return { text: topic ?? '' };
  const text = [plain(container ?? producer), metric].filter(Boolean).join(' · ');
  return { text, href: container && `#/c/${encodeURIComponent(producer)}/${encodeURIComponent(container)}` };
}

/** What happened, without the topic: whom it is about stands above it. */
function said({ text, topic }) {
  return topic && text.startsWith(topic) ? text.slice(topic.length).replace(/^:?\s*/, '') : text;
}

const SEVERE = { critical: 'bad', warning: 'warn', info: 'busy' };

class Item {
  constructor(act) {
    this.dot = el('i', { class: 'dot' });
    this.rule = el('b');
    this.subject = el('a');
    this.text = el('p', { class: 'said' });
    this.note = el('p', { class: 'note', 'aria-live': 'polite' });
    const button = (text, label, action) => el('button', {
      type: 'button',
      'aria-label': label,
      onclick: () => act({ ...action(), rule: this.alert.rule, match: this.alert.topic }),
    }, text);
    const mute = ([hours, name]) => button(name, `Mute for ${name}`, () => ({ action: 'mute', until: Math.floor(this.store.now() + hours * HOUR) }));
    this.acknowledge = button('Acknowledge', null, () => ({ action: 'acknowledge' }));
    this.mutes = el('span', { class: 'mutes', role: 'group', 'aria-label': 'Mute' }, el('span', { 'aria-hidden': 'true' }, 'Mute'), MUTES.map(mute));
    this.unmute = button('Unmute', null, () => ({ action: 'unmute' }));
    this.root = el('li', {},
      el('div', { class: 'what' }, el('p', {}, this.dot, this.rule, ' ', this.subject), this.text, this.note),
      el('div', { class: 'buttons' }, this.acknowledge, this.mutes, this.unmute));
  }

  update(alert, store) {
    Object.assign(this, { alert, store });
    const { text, href } = subject(alert.topic);
    const { by, until, muted } = store.handling(alert);
    const isOver = alert.state === 'ok';
    setAttribute(this.dot, 'data-kind', isOver ? 'good' : alert.state === 'pending' ? 'busy' : (SEVERE[alert.severity] ?? 'bad'));
    setAttribute(this.dot, 'title', alert.severity);
    setText(this.rule, alert.rule ?? '');
    setText(this.subject, text);
    setAttribute(this.subject, 'href', href);
    setText(this.text, alert.text ? said(alert) : this.value());
    const began = alert.since ?? alert.ts;
    const notes = [
      isOver ? `since ${moment(began)}` : `for ${duration(store.now() - began)}, since ${moment(began)}`,
      alert.late && 'told late',
      !isOver && by && `acknowledged by ${by}`,
      muted && `muted until ${moment(until)}`,
    ];
    setText(this.note, notes.filter(Boolean).join(' · '));
    this.acknowledge.hidden = Boolean(by) || alert.state !== 'firing';
    this.mutes.hidden = muted || isOver;
    this.unmute.hidden = !muted;
    setAttribute(this.root, 'data-quiet', by || muted || isOver ? '' : null);
  }

  value() {
    const { value, unit, limit } = this.alert;
    if (value === undefined) return '';
    return limit === undefined ? inUnit(value, unit) : `${inUnit(value, unit)}, limit ${typeof limit === 'number' ? inUnit(limit, unit) : limit}`;
  }
}
