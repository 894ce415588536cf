// The live stream, and what keeps it alive: when it ends, is cut off or falls silent it is opened
// anew, with growing pauses, and the state is asked for anew each time, so that nothing which came
// in between is missing.

// A browser opens six connections to a broker, all its tabs together: one that nobody looks at for
// so long gives its own back.
const HIDDEN = 30000;
const SILENCE = 12000;
const PAUSES = [500, 1000, 2000, 4000];

export class Stream {
  /** `begin` is called (and waited for) each time the stream has begun, `take` with each list of
   * records, `tell` with whether it is up and, if not, why. */
  constructor(match, { begin, take, tell }) {
    Object.assign(this, { match, begin, take, tell, failures: 0, source: null, timer: 0 });
    this.open();
    document.addEventListener('visibilitychange', () => this.rest());
  }

  rest() {
    clearTimeout(this.resting);
    if (document.visibilityState === 'visible') {
      if (this.isAsleep) this.open();
    } else {
      this.resting = setTimeout(() => this.sleep(), HIDDEN);
    }
  }

  sleep() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    this.isAsleep = true;
  }

  open() {
    this.isAsleep = false;
    const source = new EventSource(`/api/live?match=${encodeURIComponent(this.match)}`);
    this.source = source;
    const on = (name, act) => source.addEventListener(name, (event) => {
      if (this.source !== source) return;
      this.watch();
      act(event);
    });
    on('hello', () => this.restate(source));
    on('records', (event) => this.take(JSON.parse(event.data)));
    on('alive', () => {});
    on('gap', () => this.restate(source));
    on('cut', (event) => this.again(JSON.parse(event.data).error));
    source.onerror = () => { if (this.source === source) this.again('no connection to the broker'); };
    this.watch();
  }

  async restate(source) {
    try {
      await this.begin();
      if (this.source !== source) return;
      this.failures = 0;
      this.tell(true);
    } catch (error) {
      if (this.source === source) this.again(error.message);
    }
  }

  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.again('the broker is silent'), SILENCE);
  }

  again(why) {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    const pause = PAUSES[Math.min(this.failures, PAUSES.length - 1)];
    this.failures += 1;
    this.tell(false, why);
    this.timer = setTimeout(() => this.open(), pause);
  }
}
