// The page: which view the address names, what is common to all of them, and the beat in which they
// are drawn.

import { Alerts } from './alerts.js';
import { Cluster } from './cluster.js';
import { ContainerView } from './container.js';
import { setAttribute, setText } from './dom.js';
import { Overview } from './overview.js';
import { FOLLOWED, Store } from './store.js';
import { Stream } from './stream.js';

// How often what is shown is drawn anew: samples come once a second.
const BEAT = 500;

const store = new Store();
const main = document.getElementById('main');
const notice = document.getElementById('notice');
const link = document.getElementById('link');
let view = null;

function named() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
  if (name === 'c' && rest.length === 2) return ['overview', () => new ContainerView(store, rest)];
  if (name === 'alerts') return ['alerts', () => new Alerts(store)];
  if (name === 'cluster') return ['cluster', () => new Cluster(store)];
  return ['overview', () => new Overview(store)];
}

function show() {
  const [name, make] = named();
  view?.end?.();
  view = make();
  for (const place of document.querySelectorAll('nav a')) {
    setAttribute(place, 'aria-current', place.dataset.view === name ? 'page' : null);
  }
  main.replaceChildren(view.root);
  scrollTo(0, 0);
  draw();
}

function draw() {
  const firing = store.inState('firing').filter((alert) => !store.handling(alert).muted).length;
  const count = document.getElementById('firing');
  setText(count, String(firing));
  count.hidden = firing === 0;
  document.title = `${firing ? `(${firing}) ` : ''}${view.title} · AKLight`;
  if (document.visibilityState === 'visible') view.update();
}

function tell(isUp, why) {
  setText(link, isUp ? 'live' : 'reconnecting');
  link.dataset.up = isUp;
  setText(notice, isUp ? '' : `Reconnecting: ${why}. What is shown is as it was before.`);
  notice.hidden = isUp;
  draw();
}

function switchTheme() {
  const { dataset } = document.documentElement;
  const isDark = dataset.theme ? dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  dataset.theme = isDark ? 'light' : 'dark';
  // Storage may be forbidden; then the choice lasts as long as the page.
  try { localStorage.setItem('theme', dataset.theme); } catch {}
}

addEventListener('hashchange', () => {
  show();
  main.focus();
});
addEventListener('keydown', (event) => {
  const isTyping = event.target.closest?.('input, textarea, select');
  if (event.key !== '/' || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (!view.focusFilter) location.hash = '#/';
  setTimeout(() => view.focusFilter?.());
});
addEventListener('visibilitychange', draw);
document.getElementById('theme').addEventListener('click', switchTheme);
store.watchers.add((record) => view?.take?.(record));

show();
new Stream(FOLLOWED, { begin: () => store.load(), take: (records) => store.takeAll(records), tell });
setInterval(draw, BEAT);
