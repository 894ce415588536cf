// The table of containers: a row each, kept as long as the container is; sorted by a column, the
// order renewed every few seconds only, so that rows hold still under a pointer.

import { arrange, el, setAttribute } from './dom.js';
import { COLUMNS } from './columns.js';

const HOLD = 3000;

export class Table {
  constructor(store) {
    Object.assign(this, { store, rows: new Map(), sorted: 'cpu', rising: false, ordered: 0 });
    this.heads = COLUMNS.map((column) => el('th', { scope: 'col', class: column.id },
      el('button', { type: 'button', onclick: () => this.sortBy(column) }, column.title)));
    this.body = el('tbody');
    this.root = el('div', { class: 'scroll card' }, el('table', { class: 'containers' }, el('thead', {}, el('tr', {}, this.heads)), this.body));
    this.mark();
  }

  sortBy({ id }) {
    const same = this.sorted === id;
    this.rising = same ? !this.rising : ['name', 'state'].includes(id);
    this.sorted = id;
    this.ordered = 0;
    this.mark();
    this.update(this.shown ?? []);
  }

  mark() {
    COLUMNS.forEach(({ id }, place) => {
      const order = id === this.sorted ? (this.rising ? 'ascending' : 'descending') : null;
      setAttribute(this.heads[place], 'aria-sort', order);
    });
  }

  /** Shows these containers. */
  update(things) {
    this.shown = things;
    const ringing = this.store.ringing();
    for (const thing of things) this.row(thing).update(thing, this.store, ringing.get(keyOf(thing)) ?? 0);
    const keys = new Set(things.map(keyOf));
    for (const key of [...this.rows.keys()]) if (!keys.has(key)) this.rows.delete(key);
    const isNew = this.body.children.length !== things.length || things.some((thing) => !this.row(thing).root.isConnected);
    if (isNew || Date.now() - this.ordered > HOLD) {
      this.ordered = Date.now();
      arrange(this.body, this.inOrder(things).map((thing) => this.row(thing).root));
    }
  }

  row(thing) {
    const key = keyOf(thing);
    if (!this.rows.has(key)) this.rows.set(key, new Row());
    return this.rows.get(key);
  }

  inOrder(things) {
    const { key } = COLUMNS.find(({ id }) => id === this.sorted);
    const keyed = things.map((thing) => [key(thing, this.store), thing]);
    const sign = this.rising ? 1 : -1;
    // What is not known is last in either order; what is the same stands by name.
    return keyed.sort(([a, one], [b, other]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined) || byName(one, other);
      return (a < b ? -sign : a > b ? sign : 0) || byName(one, other);
    }).map(([, thing]) => thing);
  }
}

const keyOf = (thing) => `${thing.producer}/${thing.container}`;
const byName = (one, other) => keyOf(one).localeCompare(keyOf(other));

class Row {
  constructor() {
    this.cells = COLUMNS.map((column) => column.make());
    this.root = el('tr', {}, this.cells.map(({ cell }) => cell));
    this.root.addEventListener('click', (event) => {
      if (!event.target.closest('a')) this.root.querySelector('a').click();
    });
  }

  /** Shows a container over which so many alerts fire. */
  update(thing, store, alerts) {
    this.cells.forEach((cell) => cell.update(thing, store, alerts));
    setAttribute(this.root, 'data-stale', store.isStale(thing) ? '' : null);
  }
}
