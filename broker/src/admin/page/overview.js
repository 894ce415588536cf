// The first view: hosts, and every container in one table.

import { el, setText } from './dom.js';
import { get } from './api.js';
import { KINDS, stateOf } from './state.js';
import { Hosts } from './hosts.js';
import { Table } from './table.js';
import { filter } from './topics.js';

const METRICS = ['cpu', 'memory', 'disk', 'network', 'pids', 'throttling', 'pressure', 'restarts', 'state'];

// What was typed stays while other views are looked at.
let typed = '';

export class Overview {
  constructor(store) {
    this.store = store;
    this.title = 'Overview';
    this.hosts = new Hosts(store);
    this.table = new Table(store);
    this.box = el('input', {
      type: 'search', id: 'filter', autocomplete: 'off', spellcheck: 'false',
      placeholder: 'Filter by a word, or by a topic: metrics/docker/+/web-#',
      'aria-label': 'Filter containers', 'aria-keyshortcuts': '/',
      oninput: () => { typed = this.box.value; this.update(); },
      onkeydown: (event) => { if (event.key === 'Escape') this.clear(); },
    });
    this.box.value = typed;
    this.tally = el('p', { class: 'tally', role: 'status', 'aria-live': 'polite' });
    this.none = el('p', { class: 'none', hidden: true }, 'No container matches. ', el('button', { type: 'button', onclick: () => this.clear() }, 'Show all'));
    this.empty = el('section', { class: 'empty card', hidden: true });
    const label = el('label', { class: 'filter' }, this.box, el('kbd', { 'aria-hidden': 'true' }, '/'));
    this.body = el('div', { class: 'stack-large' }, this.hosts.root, el('div', { class: 'tools' }, label, this.tally), this.table.root, this.none);
    this.root = el('div', {}, this.empty, this.body);
    this.greet();
  }

  async greet() {
    const cluster = await get('/cluster').catch(() => null);
    const address = cluster?.brokers[0]?.address || `${location.hostname}:7000`;
    this.empty.replaceChildren(
      el('h1', {}, 'No producer yet'),
      el('p', {}, 'This broker has no samples. Start a producer on the machine that you want to see:'),
      el('pre', {}, el('code', {}, `aklight producer --brokers ${address}`)),
      el('p', { class: 'quiet' }, 'What it measures is here two seconds later; you need not reload.'));
  }

  clear() {
    typed = '';
    this.box.value = '';
    this.update();
    this.box.focus();
  }

  update() {
    const { store } = this;
    const all = store.shown(store.containers);
    const isEmpty = store.ready && all.length === 0 && store.shown(store.hosts).length === 0;
    this.empty.hidden = !isEmpty;
    this.body.hidden = isEmpty || !store.ready;
    const wanted = filter(typed);
    const found = all.filter((thing) => wanted(this.described(thing)));
    this.hosts.update();
    this.table.update(found);
    this.table.root.hidden = found.length === 0;
    this.none.hidden = found.length > 0 || all.length === 0;
    setText(this.tally, this.counted(all, found));
  }

  counted(all, found) {
    const kinds = found.map((thing) => stateOf(thing, this.store).kind);
    const names = { bad: 'failing', warn: 'restarting', busy: 'starting', good: 'running', off: 'not running' };
    const parts = KINDS.map((kind) => [kinds.filter((one) => one === kind).length, names[kind]]).filter(([n]) => n > 0);
    const shown = found.length === all.length ? `${all.length} containers` : `${found.length} of ${all.length} containers`;
    const { topics } = this.store.leftOut;
    return [shown, ...parts.map(([n, name]) => `${n} ${name}`), topics && `${topics} topics have no room here`].filter(Boolean).join(' · ');
  }

  described(thing) {
    const topic = `${thing.producer}/${thing.container}`;
    const state = stateOf(thing, this.store);
    const labels = Object.entries(thing.info ?? {}).filter(([name]) => name.includes('.')).map(([, value]) => value);
    return {
      topics: ['', ...METRICS.map((metric) => `/${metric}`)].map((rest) => `metrics/docker/${topic}${rest}`),
      words: [thing.name, thing.host, thing.info?.image ?? '', thing.info?.id ?? '', state.text, state.detail, ...labels],
    };
  }

  /** The key `/` finds the filter. */
  focusFilter() {
    this.box.focus();
    this.box.select();
  }
}
