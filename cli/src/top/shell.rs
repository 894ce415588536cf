//! What ties it together: waits for records, answers, keys, signals and time, hands them to the
//! [`App`], and draws when something has changed.
//!
//! Invariants: at most ten frames a second, and none when nothing has changed; as many questions on
//! their way as [`ASKS_MAX`]; keys that nobody has had time for wait in a short queue.

use std::io;
use std::thread;
use std::time::Duration;

use aklight_common::Pattern;
use aklight_common::client::Subscription;
use aklight_common::clock::{Clock, SystemClock};
use aklight_common::settings::{EXIT_DONE, EXIT_INTERRUPTED};
use anyhow::{Context, bail};
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::app::{App, Effect};
use super::ask::{Answer, Ask, Asker};
use super::draw::{Theme, draw};
use super::screen::{Screen, Stops};

/// What is listened to.
const PATTERNS: [&str; 5] = [
    "metrics/docker/#",
    "info/docker/#",
    "events/docker/#",
    "alerts/#",
    "rollup/1m/metrics/docker/#",
];

/// No two frames are nearer to each other: eyes see no more, and a slow line carries no more.
const FRAME_MS: u64 = 100;

/// Time itself changes what is shown: how long something lasts, and what has gone silent.
const TICK: Duration = Duration::from_secs(1);

/// Most questions on their way. Each is a connection; one more is told to wait.
const ASKS_MAX: usize = 8;

/// Most keys that wait: more than anybody types ahead.
const KEYS_MAX: usize = 64;

/// Shows until somebody ends it; the exit code.
pub async fn show(mut app: App, theme: Theme, asker: Asker, every: Duration) -> anyhow::Result<u8> {
    let clock = SystemClock::new();
    let patterns = PATTERNS.iter().map(|text| Pattern::new(text)).collect::<Result<_, _>>()?;
    let mut live = Subscription::open(asker.config.clone(), false, patterns);
    let mut asks = Asks { asker, under_way: JoinSet::new() };
    let stops = Stops::new()?;
    let mut signals = Signals::new()?;
    let mut screen = Screen::take().context("the terminal cannot be taken")?;
    let mut keys = keys()?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut frames = Frames { every_ms: u64::try_from(every.as_millis())?, drawn_ms: 0, due: None };
    frames.want(FRAME_MS);
    loop {
        app.now_ms = clock.wall_ms();
        let wait = frames.wait(clock.monotonic_ms());
        tokio::select! {
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {
                frames.drawn(clock.monotonic_ms());
                if screen.draw(|frame| draw(&mut app, theme, frame)).is_err() {
                    // Nobody is at the other end of the terminal any more.
                    return Ok(EXIT_DONE);
                }
            }
            event = live.next() => {
                let Some(event) = event else { bail!("the subscription ended by itself") };
                if app.hear(event) {
                    frames.want(frames.every_ms);
                }
            }
            Some(answer) = asks.under_way.join_next(), if !asks.under_way.is_empty() => {
                if let Some(ask) = app.answered(answer.context("a question failed")?) {
                    asks.ask(ask, &mut app);
                }
                frames.want(FRAME_MS);
            }
            event = keys.recv() => {
                let Some(event) = event else { bail!("the terminal's keys cannot be read any more") };
                let effect = match event {
                    Event::Key(key) if key.is_press() => app.press(key),
                    _ => None,
                };
                match effect {
                    Some(Effect::End(code)) => return Ok(code),
                    Some(Effect::Suspend) => screen.suspend(&stops)?,
                    Some(Effect::Ask(ask)) => asks.ask(ask, &mut app),
                    None => {}
                }
                frames.want(FRAME_MS);
            }
            () = stops.asked() => {
                screen.suspend(&stops)?;
                frames.want(FRAME_MS);
            }
            heard = signals.heard() => match heard {
                Heard::End(code) => return Ok(code),
                Heard::Woken => {
                    screen.take_again()?;
                    frames.want(FRAME_MS);
                }
            },
            _ = ticks.tick() => {
                if let Some(ask) = app.tick(clock.wall_ms()) {
                    asks.ask(ask, &mut app);
                }
                frames.want(frames.every_ms);
            }
        }
    }
}

/// When the next frame is due.
struct Frames {
    every_ms: u64,
    drawn_ms: u64,
    due: Option<u64>,
}

impl Frames {
    /// Something has changed: a frame is wanted, so long after the one before.
    fn want(&mut self, after_ms: u64) {
        let at = self.drawn_ms + after_ms.max(FRAME_MS);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// How long to wait for it.
    fn wait(&self, now_ms: u64) -> Option<Duration> {
        self.due.map(|due| Duration::from_millis(due.saturating_sub(now_ms)))
    }

    fn drawn(&mut self, now_ms: u64) {
        *self = Self { drawn_ms: now_ms, due: None, ..*self };
    }
}

/// Questions on their way.
struct Asks {
    asker: Asker,
    under_way: JoinSet<Answer>,
}

impl Asks {
    fn ask(&mut self, ask: Ask, app: &mut App) {
        if self.under_way.len() >= ASKS_MAX {
            return app
                .say("the broker has not answered yet: try again in a moment".to_owned(), true);
        }
        self.under_way.spawn(self.asker.clone().ask(ask, app.now_ms));
    }
}

/// Signals that mean something here.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    woken: Signal,
}

/// What a signal means.
enum Heard {
    End(u8),
    /// The process was stopped, and goes on.
    Woken,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            woken: signal(SignalKind::from_raw(nix::libc::SIGCONT))?,
        })
    }

    async fn heard(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupt.recv() => Heard::End(EXIT_INTERRUPTED),
            _ = self.terminate.recv() => Heard::End(EXIT_DONE),
            _ = self.hangup.recv() => Heard::End(EXIT_DONE),
            _ = self.woken.recv() => Heard::Woken,
        }
    }
}

/// The terminal's keys and changes of size, read by a thread, because reading them blocks. It ends
/// with the process.
fn keys() -> io::Result<mpsc::Receiver<Event>> {
    let (sender, keys) = mpsc::channel(KEYS_MAX);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(keys)
}
