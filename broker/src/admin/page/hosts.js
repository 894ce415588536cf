// A card for each producer: the machine or container that it runs in, and how many it watches.

import { arrange, el, setAttribute, setText } from './dom.js';
import { bytes, count, duration, percent, rate } from './format.js';
import { spark } from './spark.js';

export class Hosts {
  constructor(store) {
    Object.assign(this, { store, cards: new Map(), root: el('section', { class: 'hosts', 'aria-label': 'Hosts' }) });
  }

  update() {
    const hosts = this.store.shown(this.store.hosts).sort((a, b) => a.name.localeCompare(b.name));
    const cards = hosts.map((host) => {
      if (!this.cards.has(host.producer)) this.cards.set(host.producer, new Card());
      const card = this.cards.get(host.producer);
      card.update(host, this.store);
      return card.root;
    });
    arrange(this.root, cards);
  }
}

function figure(title, kind) {
  const line = kind && spark(kind);
  const big = el('b');
  const small = el('small');
  return { root: el('div', { class: `figure ${kind ?? ''}` }, el('span', {}, title), big, small, line), line, big, small };
}

class Card {
  constructor() {
    this.name = el('h2');
    this.note = el('small');
    const [cpu, memory, network] = ['CPU', 'Memory', 'Network'].map((title) => figure(title, title.toLowerCase()));
    this.figures = { cpu, memory, network, disk: figure('Disk') };
    this.root = el('article', { class: 'card host' },
      el('header', {}, this.name, this.note),
      el('div', { class: 'figures' }, Object.values(this.figures).map(({ root }) => root)));
  }

  update(host, store) {
    const { cpu, memory, network, disk } = this.figures;
    setText(this.name, host.name);
    const own = [...store.containers.values()].filter((one) => one.producer === host.producer);
    const running = own.filter((one) => one.metrics.state?.value === 1).length;
    const silent = store.isStale(host);
    setAttribute(this.root, 'data-stale', silent ? '' : null);
    const cost = host.number('cost');
    const notes = [`${count(running)} running`, cost !== undefined && `measuring takes ${percent(cost)}`];
    setText(this.note, silent ? `no sample for ${duration(store.now() - host.seen)}` : notes.filter(Boolean).join(' · '));
    const cpus = host.number('cpu', 'limit_cpus') ?? host.number('cpu', 'cpus');
    setText(cpu.big, percent(host.number('cpu')));
    setText(cpu.small, cpus ? `of ${cpus} CPU` : '');
    setText(memory.big, percent(host.number('memory')));
    setText(memory.small, host.number('memory', 'bytes') === undefined ? '' : `${bytes(host.number('memory', 'bytes'))} of ${bytes(host.number('memory', 'limit_bytes'))}`);
    setText(network.big, rate(host.number('network')));
    setText(network.small, host.number('network', 'rx_bytes_s') === undefined ? '' : `↓ ${rate(host.number('network', 'rx_bytes_s'))}  ↑ ${rate(host.number('network', 'tx_bytes_s'))}`);
    const used = host.number('disk', 'fs_used_percent');
    setText(disk.big, used === undefined ? rate(host.number('disk')) : `${percent(used)} full`);
    setText(disk.small, used === undefined ? '' : rate(host.number('disk')));
    cpu.line.draw(host.spark.cpu, store.now(), 10);
    memory.line.draw(host.spark.memory, store.now(), 100);
    network.line.draw(host.spark.network, store.now(), 1000);
  }
}
