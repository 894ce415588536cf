// A chart of values over time: lines with a band from the least to the greatest of each step, lines
// for limits, and a reading at the pointer (or, with the arrow keys, anywhere).
//
// Points are [time, mean, least, greatest]. Where none came for several steps the line has a gap.

import { el, setText, svg } from './dom.js';
import { moment } from './format.js';
import { heights, moments } from './scale.js';

const HEIGHT = 170;
const SIDE = { left: 64, right: 10, top: 8, bottom: 22 };

// What a limit must be of the highest value to be worth its room.
const LIMIT_IN_SIGHT = 2.5;

export class Chart {
  /** `lines` are names; `show` writes a value; `least` is the lowest top of the scale; `aim` is
   * called with the time pointed at, or null. */
  constructor({ title, lines, show, least = 1, binary = false, detail, aim }) {
    Object.assign(this, { title, names: lines, show, least, binary, detail, aim, width: 0, data: null, at: null });
    this.reading = el('output', { class: 'reading' });
    this.plot = svg('svg', { class: 'plot', height: HEIGHT, tabindex: '0', role: 'img' });
    this.root = el('figure', { class: 'card chart' }, el('figcaption', {}, el('h3', {}, title), this.reading), this.plot);
    // A browser says that a pointer moved when the chart under it was drawn anew, too: who uses the
    // arrow keys meanwhile is not to be brought back.
    this.plot.addEventListener('pointermove', (event) => {
      if (event.movementX || event.movementY || this.at === null) this.aim(this.timeAt(event.offsetX));
    });
    this.plot.addEventListener('pointerleave', () => this.aim(null));
    this.plot.addEventListener('blur', () => this.aim(null));
    this.plot.addEventListener('keydown', (event) => this.key(event));
    new ResizeObserver(() => {
      const width = Math.floor(this.root.clientWidth - 2);
      if (width > 0 && width !== this.width) {
        this.width = width;
        this.draw();
      }
    }).observe(this.root);
  }

  /** Shows `lines` (points of each), between two times, with limits [value, name]. */
  set({ from, to, step, lines, limits = [] }) {
    this.data = { from, to, step, lines, limits };
    this.draw();
  }

  timeAt(x) {
    if (!this.data) return null;
    const { from, to } = this.data;
    const inner = this.width - SIDE.left - SIDE.right;
    return from + Math.min(1, Math.max(0, (x - SIDE.left) / inner)) * (to - from);
  }

  key(event) {
    if (!this.data || !['ArrowLeft', 'ArrowRight', 'Escape'].includes(event.key)) return;
    event.preventDefault();
    const { from, to, step } = this.data;
    if (event.key === 'Escape') return this.aim(null);
    const move = (event.key === 'ArrowLeft' ? -1 : 1) * Math.max(step, (to - from) / 100);
    this.aim(Math.min(to, Math.max(from, (this.at ?? to) + move)));
  }

  /** Points at a time, or at none. */
  point(at) {
    this.at = at;
    this.drawPointer();
  }

  draw() {
    if (!this.data || !this.width) return;
    const { from, to, lines, limits } = this.data;
    const highest = Math.max(0, ...lines.flat().map((point) => point[3]));
    const inSight = limits.filter(([value]) => value > 0 && value <= Math.max(highest * LIMIT_IN_SIGHT, this.least));
    const ticks = heights(Math.max(this.least, highest, ...inSight.map(([value]) => value)), 4, this.binary);
    const top = ticks.at(-1);
    this.x = (at) => SIDE.left + (this.width - SIDE.left - SIDE.right) * (at - from) / (to - from);
    this.y = (value) => HEIGHT - SIDE.bottom - (HEIGHT - SIDE.top - SIDE.bottom) * value / top;
    const right = this.width - SIDE.right;
    const foot = HEIGHT - SIDE.bottom;
    const grid = ticks.flatMap((value) => [
      svg('line', { class: 'grid', x1: SIDE.left, x2: right, y1: this.y(value), y2: this.y(value) }),
      svg('text', { class: 'tick', x: SIDE.left - 8, y: this.y(value) + 4, 'text-anchor': 'end' }, this.show(value).replace(/(\.\d*?)0+(?= )/, '$1').replace(/\.(?= )/, '')),
    ]);
    const times = moments(from, to, Math.max(2, Math.floor((right - SIDE.left) / 90)));
    const along = times.filter(([at]) => this.x(at) < right - 14)
      .map(([at, text]) => svg('text', { class: 'tick', x: this.x(at), y: HEIGHT - 5, 'text-anchor': 'middle' }, text));
    const limited = inSight.flatMap(([value, name]) => [
      svg('line', { class: 'limit', x1: SIDE.left, x2: right, y1: this.y(value), y2: this.y(value) }),
      // Under the line where there is no room above it.
      svg('text', { class: 'limit-name', x: right - 4, y: this.y(value) + (this.y(value) < 24 ? 13 : -5), 'text-anchor': 'end' }, name),
    ]);
    const isEmpty = lines.every((points) => points.length === 0);
    const nothing = { class: 'nothing', x: (SIDE.left + right) / 2, y: (SIDE.top + foot) / 2, 'text-anchor': 'middle' };
    const drawn = isEmpty ? [svg('text', nothing, 'no samples in this time')] : lines.flatMap((points, n) => this.line(points, n));
    this.pointer = svg('g', { class: 'pointer' });
    this.plot.setAttribute('width', this.width);
    const ground = svg('line', { class: 'foot', x1: SIDE.left, x2: right, y1: foot, y2: foot });
    this.plot.replaceChildren(...grid, ...along, ground, ...drawn, ...limited, this.pointer);
    this.drawPointer();
  }

  line(points, n) {
    const runs = [];
    const hole = Math.max(3 * this.data.step, 5000);
    points.forEach((point, at) => {
      if (at === 0 || point[0] - points[at - 1][0] > hole) runs.push([]);
      runs.at(-1).push(point);
    });
    const place = (at, value) => `${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}`;
    return runs.flatMap((run) => {
      const mean = run.map(([at, value]) => place(at, value)).join('L');
      const least = [...run].reverse().map(([at, , value]) => place(at, value)).join('L');
      const greatest = run.map(([at, , , value]) => place(at, value)).join('L');
      const foot = HEIGHT - SIDE.bottom;
      return [
        n === 0 && svg('path', { class: `area line-${n}`, d: `M${this.x(run[0][0]).toFixed(1)} ${foot}L${mean}L${this.x(run.at(-1)[0]).toFixed(1)} ${foot}Z` }),
        svg('path', { class: `band line-${n}`, d: `M${greatest}L${least}Z` }),
        svg('path', { class: `line line-${n}`, d: run.length > 1 ? `M${mean}` : `M${mean}h1.5` }),
      ].filter(Boolean);
    });
  }

  drawPointer() {
    if (!this.data || !this.pointer) return;
    const { lines, to } = this.data;
    const at = this.at ?? to;
    const near = lines.map((points) => nearest(points, at, Math.max(3 * this.data.step, 5000)));
    const parts = near.map((point, n) => point && this.read(point, n)).filter(Boolean);
    const when = this.at === null ? '' : `${moment(near.find(Boolean)?.[0] ?? at)}  `;
    setText(this.reading, parts.length ? when + parts.join('  ') : '–');
    this.plot.setAttribute('aria-label', `${this.title}: ${this.reading.textContent}`);
    if (this.at === null) return this.pointer.replaceChildren();
    const dots = near.map((point, n) => point && svg('circle', { class: `dot line-${n}`, cx: this.x(point[0]), cy: this.y(point[1]), r: 3.5 }));
    const bar = svg('line', { class: 'cursor', x1: this.x(at), x2: this.x(at), y1: SIDE.top, y2: HEIGHT - SIDE.bottom });
    this.pointer.replaceChildren(bar, ...dots.filter(Boolean));
  }

  read([, mean, least, greatest], n) {
    const name = this.names.length > 1 ? `${this.names[n]} ` : '';
    const spread = greatest - least > Math.abs(mean) * 0.02 && this.at !== null ? ` (${this.show(least)} to ${this.show(greatest)})` : '';
    return `${name}${this.show(mean)}${spread}${this.detail && n === 0 ? this.detail(mean) : ''}`;
  }
}

function nearest(points, at, reach) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < at) low = middle + 1;
    else high = middle;
  }
  const found = [points[low - 1], points[low]].filter(Boolean).sort((a, b) => Math.abs(a[0] - at) - Math.abs(b[0] - at))[0];
  return found && Math.abs(found[0] - at) <= reach ? found : undefined;
}
