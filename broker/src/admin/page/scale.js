// Scales of charts: round numbers up the side, round times along the foot.

const TIMES = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600].map((s) => s * 1000);

/** Steps of a scale from 0 to at least `top`: about `wanted` of them, at numbers that are round in
 * tens, or in powers of two for bytes. */
export function heights(top, wanted, binary) {
  const rough = Math.max(top, 1e-9) / wanted;
  let step;
  if (binary) {
    step = 2 ** Math.ceil(Math.log2(rough));
  } else {
    const unit = 10 ** Math.floor(Math.log10(rough));
    step = [1, 2, 2.5, 5, 10].find((n) => n * unit >= rough) * unit;
  }
  const count = Math.max(1, Math.ceil(top / step - 1e-9));
  return Array.from({ length: count + 1 }, (_, n) => n * step);
}

/** Moments between two that are round by this reader's clock, at most `most` of them. */
export function moments(from, to, most) {
  const step = TIMES.find((ms) => (to - from) / ms <= most) ?? TIMES.at(-1);
  const shift = new Date(from).getTimezoneOffset() * 60000;
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at < to; at += step) found.push(at);
  const options = { hour: '2-digit', minute: '2-digit', ...(step < 60000 && { second: '2-digit' }) };
  return found.map((at) => [at, new Date(at).toLocaleTimeString('en-GB', options)]);
}
