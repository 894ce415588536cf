//! Streams: what TCP makes of the same links. In order and whole, held up where a link is cut, and
//! broken when an end dies or loses its patience.
//!
//! Each end learns of a break at a moment of its own: the receiver may go on working for a sender
//! that is told already that nothing is known. That is where doubled and overtaken records come
//! from, if they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aklight_broker::replication::{Answers, Envelope, Kind, PeerError};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream as _, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::pipe::{Item, Pipe};
use super::{Delivery, Inner, Net, note};
use crate::trace::Trace;

/// Messages of a stream that are on their way or not yet taken, each way: what a window of HTTP/2
/// and the kernel's buffers come to, in messages.
const WINDOW: usize = 32;

/// How long an end bears a cut link: from a lost connection that is found at once to a keepalive's
/// patience (10 s and 5 s more).
const PATIENCE_US: (u64, u64) = (500_000, 15_000_000);

/// Streams on their way.
#[derive(Default)]
pub(crate) struct Streams {
    open: BTreeMap<u64, Stream>,
}

/// One end of a stream.
struct End {
    is_here: bool,
    /// When it will learn that the other end is gone.
    told_at_us: Option<u64>,
    patience_us: u64,
}

struct Stream {
    from: u64,
    to: u64,
    kind: Kind,
    opens_at_us: u64,
    /// Waits for the connection.
    connecting: Option<oneshot::Sender<Result<(), PeerError>>>,
    /// Taken by the receiver when the stream opens.
    messages: Option<mpsc::UnboundedReceiver<(Envelope, OwnedSemaphorePermit)>>,
    there: Pipe<Envelope>,
    back: Pipe<Result<Bytes, PeerError>>,
    sender: End,
    receiver: End,
    serving: Option<AbortHandle>,
    cut_since_us: Option<u64>,
}

/// A stream that has arrived.
pub(crate) struct Opened {
    id: u64,
    to: u64,
    messages: BoxStream<'static, Envelope>,
}

impl End {
    fn new(patience_us: u64) -> Self {
        Self { is_here: true, told_at_us: None, patience_us }
    }

    fn tell(&mut self, at_us: u64) {
        self.told_at_us = Some(self.told_at_us.map_or(at_us, |told| told.min(at_us)));
    }
}

/// The sender's hold on a stream; when it goes, so does the stream.
struct Hold {
    net: Net,
    id: u64,
    pump: Option<AbortHandle>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(pump) = &self.pump {
            pump.abort();
        }
        let now_us = self.net.trace.now_us();
        self.net.inner.lock().let_go(self.id, now_us);
    }
}

impl Net {
    /// Opens a stream: see `PeerTransport::stream`.
    pub(super) async fn open_stream(
        &self,
        from: u64,
        to: u64,
        kind: Kind,
        messages: BoxStream<'static, Envelope>,
        ttl: Duration,
    ) -> Result<Answers, PeerError> {
        let (answered, answers) = mpsc::unbounded_channel();
        let (connecting, connected) = oneshot::channel();
        let id = {
            let now_us = self.trace.now_us();
            self.inner.lock().new_stream(from, to, kind, now_us, connecting, answered)
        };
        let mut hold = Hold { net: self.clone(), id, pump: None };
        match timeout(ttl, connected).await {
            Ok(Ok(connected)) => connected?,
            Ok(Err(_)) | Err(_) => {
                return Err(PeerError::Unreachable("no connection in time".to_owned()));
            }
        }
        let pump = tokio::spawn(pump(self.clone(), id, messages));
        hold.pump = Some(pump.abort_handle());
        let state = Some((answers, hold));
        let answers = stream::unfold(state, |state| async move {
            let (mut answers, hold): (mpsc::UnboundedReceiver<_>, Hold) = state?;
            let (answer, permit): (Result<Bytes, PeerError>, OwnedSemaphorePermit) =
                answers.recv().await?;
            drop(permit);
            let next = answer.is_ok().then_some((answers, hold));
            Some((answer, next))
        });
        Ok(answers.boxed())
    }

    /// Lets the receiver work on a stream that has arrived.
    pub(super) fn serve(&self, opened: Opened) {
        let Opened { id, to, messages } = opened;
        let Some((runtime, handler)) = self.station(to) else { return };
        let net = self.clone();
        let serving = runtime.spawn(async move {
            let mut answers = handler.stream(messages);
            let window = Arc::new(Semaphore::new(WINDOW));
            while let Ok(permit) = window.clone().acquire_owned().await {
                let Some(answer) = answers.next().await else { break };
                let is_last = answer.is_err();
                let now_us = net.trace.now_us();
                if !net.inner.lock().send_back(id, Item::Data(answer, permit), now_us) || is_last {
                    break;
                }
            }
            let now_us = net.trace.now_us();
            net.inner.lock().send_back(id, Item::End, now_us);
        });
        let mut inner = self.inner.lock();
        if let Some(stream) = inner.streams.open.get_mut(&id) {
            stream.serving = Some(serving.abort_handle());
        }
    }
}

/// Puts the sender's messages onto the way.
async fn pump(net: Net, id: u64, mut messages: BoxStream<'static, Envelope>) {
    let window = Arc::new(Semaphore::new(WINDOW));
    while let Ok(permit) = window.clone().acquire_owned().await {
        let Some(message) = messages.next().await else { break };
        let now_us = net.trace.now_us();
        if !net.inner.lock().send_there(id, Item::Data(message, permit), now_us) {
            return;
        }
    }
    let now_us = net.trace.now_us();
    net.inner.lock().send_there(id, Item::End, now_us);
}

impl Inner {
    fn new_stream(
        &mut self,
        from: u64,
        to: u64,
        kind: Kind,
        now_us: u64,
        connecting: oneshot::Sender<Result<(), PeerError>>,
        answers: mpsc::UnboundedSender<(Result<Bytes, PeerError>, OwnedSemaphorePermit)>,
    ) -> u64 {
        let id = self.new_id();
        let opens_at_us = now_us + self.delay_us(from, to);
        let (into, messages) = mpsc::unbounded_channel();
        let patience =
            |inner: &mut Self| End::new(inner.dice.between(PATIENCE_US.0, PATIENCE_US.1));
        let (sender, receiver) = (patience(self), patience(self));
        let stream = Stream {
            from,
            to,
            kind,
            opens_at_us,
            connecting: Some(connecting),
            messages: Some(messages),
            there: Pipe::new(into),
            back: Pipe::new(answers),
            sender,
            receiver,
            serving: None,
            cut_since_us: None,
        };
        self.streams.open.insert(id, stream);
        id
    }

    fn send_there(&mut self, id: u64, item: Item<Envelope>, now_us: u64) -> bool {
        let Some((from, to)) = self.streams.open.get(&id).map(|s| (s.from, s.to)) else {
            return false;
        };
        let due_us = now_us + self.delay_us(from, to);
        let swaps = self.plants.swapped_messages && self.dice.once_in(8);
        let Some(stream) = self.streams.open.get_mut(&id) else { return false };
        stream.there.put(due_us, item);
        if swaps && stream.kind == Kind::Produce {
            stream.there.swap_last();
        }
        stream.sender.is_here
    }

    fn send_back(&mut self, id: u64, item: Item<Result<Bytes, PeerError>>, now_us: u64) -> bool {
        let Some((from, to)) = self.streams.open.get(&id).map(|s| (s.from, s.to)) else {
            return false;
        };
        let due_us = now_us + self.delay_us(to, from);
        let Some(stream) = self.streams.open.get_mut(&id) else { return false };
        stream.back.put(due_us, item);
        stream.receiver.is_here
    }

    /// The sender wants no more of it.
    fn let_go(&mut self, id: u64, now_us: u64) {
        let Some((from, to)) = self.streams.open.get(&id).map(|s| (s.from, s.to)) else { return };
        let told_at_us = now_us + self.delay_us(from, to);
        let Some(stream) = self.streams.open.get_mut(&id) else { return };
        stream.sender.is_here = false;
        stream.receiver.tell(told_at_us);
    }

    /// A broker is gone: the other ends of its streams will hear of it.
    pub(super) fn break_streams_of(&mut self, broker: u64, now_us: u64) {
        for mut stream in std::mem::take(&mut self.streams.open) {
            let (from, to) = (stream.1.from, stream.1.to);
            if from == broker {
                stream.1.sender.is_here = false;
                stream.1.receiver.tell(now_us + self.delay_us(from, to));
            }
            if to == broker {
                stream.1.receiver.is_here = false;
                stream.1.serving = None;
                stream.1.sender.tell(now_us + self.delay_us(to, from));
            }
            self.streams.open.insert(stream.0, stream.1);
        }
    }

    /// What is due now.
    pub(super) fn step_streams(&mut self, now_us: u64, trace: &Trace) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        for (id, mut stream) in std::mem::take(&mut self.streams.open) {
            deliveries.extend(self.step_stream(id, &mut stream, now_us, trace));
            if stream.sender.is_here || stream.receiver.is_here {
                self.streams.open.insert(id, stream);
            }
        }
        deliveries
    }

    fn step_stream(
        &mut self,
        id: u64,
        stream: &mut Stream,
        now_us: u64,
        trace: &Trace,
    ) -> Option<Delivery> {
        let (from, to) = (stream.from, stream.to);
        let (there_cut, back_cut) = (self.link(from, to).is_cut, self.link(to, from).is_cut);
        // TCP needs both ways: what goes one way is confirmed on the other.
        let is_cut = there_cut || back_cut;
        stream.cut_since_us = is_cut.then(|| stream.cut_since_us.unwrap_or(now_us));
        let mut opened = None;
        if stream.connecting.is_some() {
            opened = self.connect(id, stream, is_cut, now_us, trace);
        }
        if stream.receiver.is_here && !there_cut && !self.is_stopped(to) {
            for message in stream.there.due(now_us) {
                note(trace, "stream", message);
                self.carried.arrived += 1;
            }
            stream.there.deliver(now_us);
        }
        if stream.sender.is_here && !back_cut && !self.is_stopped(from) {
            for answer in stream.back.due(now_us) {
                let digest = answer.as_ref().map_or(1, |bytes| u64::from(crc32c::crc32c(bytes)));
                trace.note("stream answer", &[from, to, stream.kind as u64, digest]);
            }
            if stream.back.deliver(now_us) {
                // The receiver has said all that it had to say.
                stream.sender.is_here = false;
                stream.receiver.is_here = false;
            }
        }
        self.notice(stream, is_cut, now_us, trace);
        opened
    }

    fn connect(
        &mut self,
        id: u64,
        stream: &mut Stream,
        is_cut: bool,
        now_us: u64,
        trace: &Trace,
    ) -> Option<Delivery> {
        if stream.opens_at_us > now_us || is_cut || self.is_stopped(stream.to) {
            return None;
        }
        let connecting = stream.connecting.take()?;
        if !self.stations.contains_key(&stream.to) {
            let refused = PeerError::Unreachable("connection refused".to_owned());
            let _ = connecting.send(Err(refused));
            stream.receiver.is_here = false;
            return None;
        }
        trace.note("open", &[stream.from, stream.to, stream.kind as u64]);
        let _ = connecting.send(Ok(()));
        let messages = stream.messages.take()?;
        Some(Delivery::Stream(Opened { id, to: stream.to, messages: received(messages) }))
    }

    /// Tells each end what it cannot know yet, once its time has come.
    fn notice(&mut self, stream: &mut Stream, is_cut: bool, now_us: u64, trace: &Trace) {
        let cut_us = stream.cut_since_us.map_or(0, |since| now_us - since);
        let (from, to) = (stream.from, stream.to);
        let hears = |end: &End| {
            let is_told = end.told_at_us.is_some_and(|at| at <= now_us && !is_cut);
            end.is_here && (is_told || cut_us > end.patience_us)
        };
        if hears(&stream.sender) && !self.is_stopped(from) {
            stream.sender.is_here = false;
            trace.note("broken for its sender", &[from, to, stream.kind as u64]);
            self.carried.broken += 1;
            let gone = PeerError::Unreachable("the connection broke".to_owned());
            stream.back.fail(gone);
            stream.receiver.tell(now_us + self.delay_us(from, to));
            return;
        }
        if hears(&stream.receiver) && !self.is_stopped(to) {
            stream.receiver.is_here = false;
            trace.note("broken for its receiver", &[from, to, stream.kind as u64]);
            if let Some(serving) = stream.serving.take() {
                serving.abort();
            }
            stream.there.close();
            stream.sender.tell(now_us + self.delay_us(to, from));
        }
    }
}

/// The receiver's end of the messages: taking one makes room for another.
fn received(
    messages: mpsc::UnboundedReceiver<(Envelope, OwnedSemaphorePermit)>,
) -> BoxStream<'static, Envelope> {
    let stream = stream::unfold(messages, |mut messages| async move {
        let (message, permit) = messages.recv().await?;
        drop(permit);
        Some((message, messages))
    });
    debug_assert_eq!(stream.size_hint().0, 0, "nothing has come yet");
    stream.boxed()
}
