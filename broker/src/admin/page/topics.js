// Topics, and what people type to find them.

/** A name without a topic's escapes: % and two hexadecimal digits stand for a byte. */
export function plain(name) {
  if (!name.includes('%')) return name;
  const bytes = [];
  const source = new TextEncoder().encode(name);
  for (let at = 0; at < source.length; at += 1) {
    const digits = String.fromCharCode(...source.slice(at + 1, at + 3));
    if (source[at] === 0x25 && /^[0-9A-Fa-f]{2}$/.test(digits)) {
      bytes.push(parseInt(digits, 16));
      at += 2;
    } else {
      bytes.push(source[at]);
    }
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

/** What a topic is about: its kind, producer, container and metric, as far as it has them. */
export function about(topic) {
  const levels = topic.split('/');
  if (levels[1] !== 'docker') return {};
  const [kind, , producer, ...rest] = levels;
  if (kind === 'metrics' && rest.length === 1) return { kind, producer, metric: rest[0] };
  if (kind === 'metrics' && rest.length === 2) return { kind, producer, container: rest[0], metric: rest[1] };
  return rest.length === 1 ? { kind, producer, container: rest[0] } : {};
}

const isPattern = (text) => /[/+#]/.test(text);

// One level; within one, + and # stand for any letters, so that web-# finds web-1.
function level(pattern) {
  if (pattern === '+') return /^.*$/;
  const plainly = pattern.replace(/[.*?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${plainly.replace(/[+#]/g, '.*')}$`);
}

/** Whether a topic matches a pattern. Beside what a broker takes for one, # may end a level: web-# is
 * everything of whatever begins with web-. */
export function matches(pattern, topic) {
  const wanted = pattern.split('/');
  const levels = topic.split('/');
  for (let at = 0; at < wanted.length; at += 1) {
    const isLast = at === wanted.length - 1;
    if (isLast && wanted[at] === '#') return levels.length >= at;
    if (isLast && wanted[at].endsWith('#')) return levels.length > at && level(wanted[at]).test(levels[at]);
    if (at >= levels.length || !level(wanted[at]).test(levels[at])) return false;
  }
  return wanted.length === levels.length;
}

/** A test for things that have `topics` and `words`: by topic pattern, or by every word typed. */
export function filter(text) {
  const typed = text.trim();
  if (!typed) return () => true;
  if (isPattern(typed)) return ({ topics }) => topics.some((topic) => matches(typed, topic));
  const words = typed.toLowerCase().split(/\s+/);
  return (thing) => {
    const all = thing.words.join(' ').toLowerCase();
    return words.every((word) => all.includes(word));
  };
}
