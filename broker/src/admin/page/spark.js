// A line as high as a word: how something went during the last minute and a half.

import { setAttribute, svg } from './dom.js';

const WIDTH = 96;
const HEIGHT = 22;
const SPAN = 90000;
// Silence from which on the line has a gap.
const HOLE = 5000;

/** A sparkline; `draw(points, now, least)` shows points [ts, value], with a scale of at least
 * `least`, so that an idle thing looks idle. */
export function spark(kind) {
  const area = svg('path', { class: 'spark-area' });
  const line = svg('path', { class: 'spark-line' });
  const root = svg('svg', { class: `spark ${kind}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, area, line);
  root.draw = (points, now, least) => {
    const shown = (points ?? []).filter(([ts]) => ts > now - SPAN);
    if (shown.length < 2) {
      setAttribute(line, 'd', null);
      setAttribute(area, 'd', null);
      return;
    }
    const top = Math.max(least, ...shown.map(([, value]) => value));
    const x = (ts) => (WIDTH * (1 - (now - ts) / SPAN)).toFixed(1);
    const y = (value) => (HEIGHT - 1 - (HEIGHT - 3) * Math.max(0, value) / top).toFixed(1);
    const runs = [];
    shown.forEach((point, at) => {
      if (at === 0 || point[0] - shown[at - 1][0] > HOLE) runs.push([]);
      runs.at(-1).push(point);
    });
    const path = (run) => run.map(([ts, value]) => `${x(ts)} ${y(value)}`).join('L');
    setAttribute(line, 'd', runs.map((run) => `M${path(run)}`).join(''));
    setAttribute(area, 'd', runs.map((run) => `M${x(run[0][0])} ${HEIGHT}L${path(run)}L${x(run.at(-1)[0])} ${HEIGHT}Z`).join(''));
  };
  return root;
}
