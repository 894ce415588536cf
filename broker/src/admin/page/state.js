// How a container is, in words and in one of five kinds: good, busy (on its way), warn, bad, off.

import { duration } from './format.js';

// Percent of its periods from which on it is worth a word.
const THROTTLED = 10;

/** What is to be said of a container first. */
export function stateOf(thing, store) {
  const { state, health, exit_code: code, oom_killed: oom, failed } = thing.metrics.state ?? {};
  if (store.isStale(thing)) {
    return { kind: 'off', text: 'silent', detail: `no sample for ${duration(store.now() - thing.seen)}` };
  }
  if (state === undefined) return { kind: 'off', text: 'unknown', detail: '' };
  if (state === 'running') {
    if (health === 'unhealthy') return { kind: 'bad', text: 'unhealthy', detail: 'running' };
    if (health === 'starting') return { kind: 'busy', text: 'starting', detail: 'running' };
    const throttled = thing.number('throttling');
    const detail = throttled >= THROTTLED ? `throttled ${Math.round(throttled)} %` : '';
    return { kind: 'good', text: health === 'healthy' ? 'healthy' : 'running', detail };
  }
  if (state === 'restarting') return { kind: 'warn', text: 'restarting', detail: ended(code, oom) };
  if (state === 'paused' || state === 'created') return { kind: 'off', text: state, detail: '' };
  if (oom) return { kind: 'bad', text: 'OOM killed', detail: ended(code, oom) };
  return { kind: failed ? 'bad' : 'off', text: state, detail: ended(code, oom) };
}

function ended(code, oom) {
  if (typeof code !== 'number') return '';
  return oom ? `code ${code}, killed for memory` : `code ${code}`;
}

// Worst first.
export const KINDS = ['bad', 'warn', 'busy', 'good', 'off'];
