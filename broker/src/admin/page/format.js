// Numbers and times as people read them. What is not known is a dash.

export const NONE = '–';

const is = (value) => typeof value === 'number' && Number.isFinite(value);

/** Percent, with a decimal as long as it says something. */
export function percent(value) {
  if (!is(value)) return NONE;
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)} %`;
}

function scaled(value, step, units) {
  let at = 0;
  while (Math.abs(value) >= step * 0.9995 && at < units.length - 1) {
    value /= step;
    at += 1;
  }
  const digits = at === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[at]}`;
}

/** Sizes in memory and on disks: 128 MiB. */
export function bytes(value) {
  return is(value) ? scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']) : NONE;
}

/** Bytes a second, in the decimal units of `docker stats`. */
export function rate(value) {
  return is(value) ? scaled(value, 1000, ['B/s', 'kB/s', 'MB/s', 'GB/s']) : NONE;
}

/** A plain number. */
export function count(value) {
  return is(value) ? Math.round(value).toLocaleString('en') : NONE;
}

/** A number as short as it may be. */
export function short(value) {
  if (!is(value)) return NONE;
  return Math.abs(value) >= 10000 ? scaled(value, 1000, ['', 'k', 'M', 'G']).trim() : String(Math.round(value * 100) / 100);
}

/** A value in its own unit. */
export function inUnit(value, unit) {
  if (unit === 'percent') return percent(value);
  if (unit === 'bytes/s') return rate(value);
  if (unit === 'bytes') return bytes(value);
  return short(value);
}

/** A length of time, in its two largest units. */
export function duration(ms) {
  if (!is(ms)) return NONE;
  const seconds = Math.max(0, Math.round(ms / 1000));
  const parts = [[Math.floor(seconds / 86400), 'd'], [Math.floor(seconds / 3600) % 24, 'h'], [Math.floor(seconds / 60) % 60, 'min'], [seconds % 60, 's']];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return '0 s';
  return parts.slice(first, first + 2).filter(([n]) => n > 0).map(([n, unit]) => `${n} ${unit}`).join(' ');
}

/** A moment of today by its time, another with its day. */
export function moment(ms) {
  if (!is(ms)) return NONE;
  const date = new Date(ms);
  const time = date.toLocaleTimeString('en-GB');
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${time}`;
}
