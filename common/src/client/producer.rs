//! The async producer: reconnects by itself, pipelines, loses and doubles nothing.
//!
//! A background task owns the socket; the state (the pipeline that the blocking link uses too)
//! stands behind a mutex that is held for moments and never across an `await`. Callers put
//! records in and wait for their answers; when the window is full they wait in a queue, in the
//! order in which they came.
//!
//! ```text
//!  callers ──gate──► pipeline ──task──► socket
//!     ▲                 │ answers
//!     └──── receipts ◄──┘
//! ```
//!
//! Dropping the [`Producer`] ends the task; receipts that are still waiting are then answered
//! with an error, and it is not known whether their records were stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::config::ClientConfig;
use super::dial::dial;
use super::dialer::Dialer;
use super::pipeline::{Answer, Pipeline};
use super::values::Stored;
use crate::clock::SharedClock;
use crate::wire::{ErrorCode, WireError};

/// Read from the socket at one go: answers are short.
const CHUNK_BYTES: usize = 16 << 10;

type Answered = Result<Stored, WireError>;

struct State {
    pipeline: Pipeline,
    waiting: HashMap<u64, oneshot::Sender<Answered>>,
}

struct Shared {
    state: Mutex<State>,
    /// Something was put in that the task does not know of.
    work: Notify,
    /// Something was answered, so that there is room again.
    room: Notify,
}

/// A producer that tasks may share behind an `Arc`.
pub struct Producer {
    shared: Arc<Shared>,
    /// Who waits for room, one at a time: the others queue here in the order of their coming.
    gate: tokio::sync::Mutex<()>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("unanswered", &self.unanswered()).finish_non_exhaustive()
    }
}

/// The answer to come for one record.
#[derive(Debug)]
pub struct Receipt {
    sequence: u64,
    answer: oneshot::Receiver<Answered>,
}

impl Receipt {
    /// The record's sequence.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Waits until a broker has answered for the record, however often the connection breaks.
    ///
    /// # Errors
    /// What a broker refused for good; `unavailable` when the producer was dropped meanwhile.
    pub async fn answer(self) -> Result<Stored, WireError> {
        let gone = || {
            ErrorCode::Unavailable
                .with("the producer was closed before an answer came: not known whether stored")
        };
        self.answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Producer {
    /// Starts the background task: to be called within a tokio runtime. `next_sequence` is 1 for
    /// an id that never produced, and above every sequence used before for one that did.
    #[must_use]
    pub fn open(config: ClientConfig, next_sequence: u64, clock: SharedClock) -> Self {
        let state = State {
            pipeline: Pipeline::new(config.clone(), next_sequence),
            waiting: HashMap::new(),
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), work: Notify::new(), room: Notify::new() });
        let task = tokio::spawn(run(Arc::clone(&shared), config, clock));
        Self { shared, gate: tokio::sync::Mutex::new(()), task }
    }

    /// Waits for room in the window, sends the record and waits for its answer.
    ///
    /// # Errors
    /// As [`Receipt::answer`].
    pub async fn send(&self, topic: &str, key: &[u8], payload: &[u8]) -> Result<Stored, WireError> {
        self.enqueue(topic, key, payload).await.answer().await
    }

    /// Waits for room in the window only; the receipt waits for the answer. Records are sent in
    /// the order of these calls.
    pub async fn enqueue(&self, topic: &str, key: &[u8], payload: &[u8]) -> Receipt {
        let _turn = self.gate.lock().await;
        loop {
            if let Some(receipt) = self.try_enqueue(topic, key, payload) {
                return receipt;
            }
            // The gate lets one wait at a time, so a permit left behind is never another's.
            self.shared.room.notified().await;
        }
    }

    fn try_enqueue(&self, topic: &str, key: &[u8], payload: &[u8]) -> Option<Receipt> {
        let mut state = self.shared.state.lock();
        let sequence = state.pipeline.send(topic, key, payload).ok()?;
        let (sender, answer) = oneshot::channel();
        state.waiting.insert(sequence, sender);
        // A record that can be told wrong here is answered at once.
        state.hand_out();
        drop(state);
        self.shared.work.notify_one();
        Some(Receipt { sequence, answer })
    }

    /// The sequence that the next record will have.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.shared.state.lock().pipeline.next_sequence()
    }

    /// How many records no broker has answered for.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.shared.state.lock().pipeline.unanswered()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // With the task goes the last hold on `waiting`: receipts do not wait for ever.
        self.task.abort();
    }
}

impl State {
    /// Gives answers to whoever waits for them.
    fn hand_out(&mut self) {
        for answer in self.pipeline.take_answers() {
            let (sequence, answered) = match answer {
                Answer::Stored { sequence, offset, partition } => {
                    (sequence, Ok(Stored { offset, partition }))
                }
                Answer::Refused { sequence, error } => (sequence, Err(error)),
            };
            if let Some(waiting) = self.waiting.remove(&sequence) {
                // Who dropped the receipt does not want to know.
                let _ = waiting.send(answered);
            }
        }
    }
}

/// Dials, serves, waits, for ever.
async fn run(shared: Arc<Shared>, config: ClientConfig, clock: SharedClock) {
    let mut dialer = Dialer::new(config.brokers.clone(), config.backoff);
    loop {
        let broker = dialer.broker().map(str::to_owned);
        let reason = match broker {
            None => "no broker was given".to_owned(),
            Some(broker) => match dial(&config, &broker).await {
                Err(reason) => reason,
                Ok(stream) => match serve(stream, &shared, &mut dialer, &clock).await {
                    Ok(never) => match never {},
                    Err(reason) => reason,
                },
            },
        };
        shared.state.lock().pipeline.disconnected();
        let wait_ms = dialer.failed(&reason);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}

/// Runs one connection to its end, which is always an error: the reason.
async fn serve(
    mut stream: TcpStream,
    shared: &Shared,
    dialer: &mut Dialer,
    clock: &SharedClock,
) -> Result<std::convert::Infallible, String> {
    shared.state.lock().pipeline.connected(clock.monotonic_ms())?;
    let (mut reader, mut writer) = stream.split();
    let mut input = BytesMut::new();
    let mut out = BytesMut::new();
    let mut announced = false;
    loop {
        let sleep_ms = {
            let now_ms = clock.monotonic_ms();
            let mut state = shared.state.lock();
            state.pipeline.check_time(now_ms)?;
            if out.is_empty() {
                state.pipeline.fill(now_ms);
                out = state.pipeline.out().split();
            }
            if state.pipeline.is_ready() && !announced {
                announced = true;
                dialer.connected();
            }
            if state.pipeline.is_proved() {
                dialer.proved();
            }
            // At least a millisecond: a clock that lags behind the timer must not spin here.
            state.pipeline.wake_ms().map(|wake| wake.saturating_sub(now_ms).max(1))
        };
        let alarm = async {
            match sleep_ms {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        input.reserve(CHUNK_BYTES);
        tokio::select! {
            read = reader.read_buf(&mut input) => {
                if read.map_err(|error| error.to_string())? == 0 {
                    return Err("the broker closed the connection".to_owned());
                }
                let mut state = shared.state.lock();
                let received = state.pipeline.received(&input, clock.monotonic_ms());
                input.clear();
                state.hand_out();
                drop(state);
                shared.room.notify_one();
                received?;
            }
            written = writer.write_buf(&mut out), if out.has_remaining() => {
                written.map_err(|error| error.to_string())?;
            }
            () = shared.work.notified() => {}
            () = alarm => {}
        }
    }
}
