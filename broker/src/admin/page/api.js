// Asking the broker that served this page.

const PATIENCE = 20000;
// How often a question is asked for which there was no connection: see reload.js.
const TRIES = 4;
const PAUSE = 500;

async function ask(path, options) {
  const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE) });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `the broker answers ${answer.status}`);
  return body;
}

/** Asks a question; parameters without a value are left out. */
export function get(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return again(given.length ? `${path}?${query}` : path);
}

async function again(address) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await ask(address);
    } catch (error) {
      if (!(error instanceof TypeError) || tried === TRIES) throw error;
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

/** Acknowledges, mutes or unmutes. */
export function act(action) {
  return ask('/api/alerts/actions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(action),
  });
}
