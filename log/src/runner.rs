//! Who runs a log's writer: a thread of its own, or the log's owner, turn by turn.
//!
//! A log that a broker opens has a thread: whoever must wait for it, blocks. A *driven* log has
//! none, so that a whole cluster can run in one thread, on simulated time: what is queued waits
//! until its owner calls [`Driver::turn`], and whoever would have to wait (for a truncation, a
//! checkpoint, room in the queue, the log's end) turns it himself. Both run the same [`Writer`].
//!
//! ```text
//! Log ── queue ──▶ Seat { Writer } ◀── its thread, for ever; or Driver::turn, or a caller that must
//!   └─ at once ───────▲                not block
//! ```
//!
//! What needs no sync is written by its caller, at once, while the thread has nothing to do: to wake
//! the thread and to be woken by it takes many times as long as the write. Operations are taken from
//! the queue with the seat held, so a seat that is free beside an empty queue means that all before
//! is done.
//!
//! Where nothing is acknowledged by a sync, the thread has another beside it that syncs (see
//! `writer::syncer`). A driven log has none: its syncs are made in its turns.
//!
//! Answers of a driven log are called in order, and while no lock of the log is held.
//!
//! A driven log dies like a process: when its [`Driver`] is dropped nothing is written any more,
//! and what was queued is dropped without an answer. The same goes for dropping the last handle
//! without [`close`](crate::Log::close), unless the driver is turned once more. That is what a
//! crash is in a simulation.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::disk::DiskLock;
use crate::options::{Fsync, LogOptions};
use crate::writer::{Answer, Op, Syncer, Told, Writer};

/// Called when something was queued for a [`Driver`], by whoever queued it: it may wake a task,
/// and must not call the log.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Who runs the writer.
pub(crate) enum Runner {
    Thread { seat: Arc<Seat>, running: Mutex<Option<Running>>, id: ThreadId },
    Owner { seat: Arc<Seat>, wake: Wake, queue_ops_max: usize },
}

/// The writer thread.
pub(crate) struct Running {
    thread: JoinHandle<()>,
    dir: PathBuf,
}

/// Where the writer sits: one at a time may run it.
pub(crate) struct Seat {
    /// Gone once the log is closed, or its driver; the folder is free then.
    seated: Mutex<Option<Seated>>,
    /// In the order of the operations; whoever is next without a lock calls them.
    answers: Mutex<VecDeque<Answer>>,
}

struct Seated {
    writer: Writer,
    _lock: Box<dyn DiskLock>,
}

/// The queue of a log that has a thread: callers wait when it is full.
pub(crate) fn queue_of_thread(options: &LogOptions) -> (Sender<Op>, Receiver<Op>) {
    bounded(options.queue_ops_max.max(1))
}

/// The queue of a driven log. Its bound is kept by [`Runner::attend`].
pub(crate) fn queue_of_owner() -> (Sender<Op>, Receiver<Op>) {
    unbounded()
}

impl Runner {
    /// Gives the writer a thread.
    pub(crate) fn spawn(mut writer: Writer, lock: Box<dyn DiskLock>) -> io::Result<Self> {
        if writer.shared.options.fsync != Fsync::Always {
            writer.syncer = Some(Syncer::spawn()?);
        }
        let dir = writer.shared.dir.clone();
        let queue = writer.queue.clone();
        let seat = Arc::new(Seat::new(writer, lock));
        let of_thread = seat.clone();
        let thread = std::thread::Builder::new()
            // Linux shows 15 bytes of a thread's name.
            .name("log writer".to_owned())
            .spawn(move || of_thread.run(&queue))?;
        let id = thread.thread().id();
        let running = Mutex::new(Some(Running { thread, dir }));
        Ok(Self::Thread { seat, running, id })
    }

    /// Leaves the writer to the log's owner.
    pub(crate) fn owned(mut writer: Writer, lock: Box<dyn DiskLock>, wake: Wake) -> (Self, Driver) {
        writer.hold_answers();
        let queue_ops_max = writer.shared.options.queue_ops_max.max(1);
        let seat = Arc::new(Seat::new(writer, lock));
        let driver = Driver { seat: seat.clone(), wake: wake.clone() };
        (Self::Owner { seat, wake, queue_ops_max }, driver)
    }

    /// Does an operation in the caller's thread, if that takes no wait; returns what is left to be
    /// queued. The caller sees to it that nothing is queued meanwhile that must come behind it.
    pub(crate) fn do_at_once(&self, op: Op) -> Option<Op> {
        match self {
            Self::Thread { seat, .. } => seat.do_at_once(op),
            Self::Owner { .. } => Some(op),
        }
    }

    /// Waits until an operation shows, which is when the other end of `shown` is dropped. The
    /// caller may hold a lock: nothing is answered here.
    pub(crate) fn wait_until_shown(&self, shown: &Receiver<()>) {
        match self {
            // Nothing is ever sent: the writer thread drops the sender.
            Self::Thread { .. } => drop(shown.recv()),
            Self::Owner { seat, .. } => seat.work_off(0),
        }
    }

    /// Sees to what was queued: the caller holds no lock now.
    pub(crate) fn attend(&self) {
        let Self::Owner { seat, wake, queue_ops_max } = self else { return };
        seat.work_off(*queue_ops_max);
        seat.answer();
        if seat.waiting() > 0 {
            wake();
        }
    }

    /// Does everything that is queued, where nobody else would do it for a caller who waits. The
    /// caller holds no lock.
    pub(crate) fn work_off(&self) {
        if let Self::Owner { seat, .. } = self {
            seat.work_off(0);
            seat.answer();
        }
    }

    /// Waits for the end of a writer that was told to end. The caller holds no lock.
    pub(crate) fn end(&self) {
        match self {
            Self::Owner { .. } => self.work_off(),
            // The last handle may be dropped by an answer, on the writer thread itself: then it
            // ends by itself, right after.
            Self::Thread { id, .. } if std::thread::current().id() == *id => {}
            Self::Thread { running, .. } => {
                if let Some(running) = running.lock().take()
                    && running.thread.join().is_err()
                {
                    let dir = running.dir.display();
                    tracing::error!(%dir, "the log's writer thread panicked");
                }
            }
        }
    }

    /// Whether the last handle closes the log when it goes. A driven log dies with it instead,
    /// unless its driver goes on: that one is told.
    pub(crate) fn closes_on_drop(&self) -> bool {
        match self {
            Self::Thread { .. } => true,
            Self::Owner { wake, .. } => {
                wake();
                false
            }
        }
    }
}

impl Seat {
    fn new(writer: Writer, lock: Box<dyn DiskLock>) -> Self {
        let seated = Mutex::new(Some(Seated { writer, _lock: lock }));
        Self { seated, answers: Mutex::default() }
    }

    /// Works until the log is closed.
    fn run(&self, queue: &Receiver<Op>) {
        let _on_panic = Vacate(self);
        loop {
            let (due, syncing) = self.syncs();
            let mut something = Select::new();
            something.recv(queue);
            if let Some(result) = &syncing {
                something.recv(result);
            }
            // Only looks: what is in the queue is taken in `turn`, with the seat held.
            match due {
                None => drop(something.ready()),
                Some(wait) => drop(something.ready_timeout(wait)),
            }
            if !self.turn() {
                return;
            }
        }
    }

    /// When the next sync is due, and the result of the one that is on its way.
    fn syncs(&self) -> (Option<Duration>, Option<Told>) {
        let seated = self.seated.lock();
        let Some(Seated { writer, .. }) = &*seated else { return (None, None) };
        let result = writer.syncing.as_ref().map(|syncing| syncing.result.clone());
        (writer.sync_due(), result)
    }

    fn do_at_once(&self, op: Op) -> Option<Op> {
        let Some(mut seated) = self.seated.try_lock() else { return Some(op) };
        match &mut *seated {
            Some(Seated { writer, .. }) => writer.do_at_once(op),
            None => Some(op),
        }
    }

    /// One turn; `false` when the writer is gone.
    fn turn(&self) -> bool {
        let mut seated = self.seated.lock();
        let Some(Seated { writer, .. }) = &mut *seated else { return false };
        let goes_on = writer.turn();
        self.answers.lock().extend(writer.take_answers());
        let gone = if goes_on { None } else { seated.take() };
        // What is dropped with the writer may belong to callers.
        drop(seated);
        drop(gone);
        goes_on
    }

    /// How many operations wait for a turn.
    fn waiting(&self) -> usize {
        self.seated.lock().as_ref().map_or(0, |seated| seated.writer.queue.len())
    }

    /// Turns until at most so many operations wait.
    fn work_off(&self, ops_max: usize) {
        while self.waiting() > ops_max && self.turn() {}
    }

    fn answer(&self) {
        loop {
            let next = self.answers.lock().pop_front();
            let Some((done, result)) = next else { return };
            done(result);
        }
    }
}

/// A writer whose thread died is gone with everything that waits for it: nobody shall wait for ever,
/// or find the folder locked.
struct Vacate<'a>(&'a Seat);

impl Drop for Vacate<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let gone = self.0.seated.lock().take();
            drop(gone);
        }
    }
}

/// Runs the writer of a log that was opened with
/// [`Log::open_driven`](crate::Log::open_driven). Dropping it is the writer's death: see the
/// module's lesson.
pub struct Driver {
    seat: Arc<Seat>,
    wake: Wake,
}

impl Driver {
    /// Does what the writer thread does in one turn: takes what has queued up to the bytes of a
    /// wave, writes it, syncs it (or notes the hint and syncs what an interval has made due),
    /// answers. What is left in the queue then is told by another wake. `false` once the log is
    /// closed.
    pub fn turn(&mut self) -> bool {
        let goes_on = self.seat.turn();
        self.seat.answer();
        if self.seat.waiting() > 0 {
            (self.wake)();
        }
        goes_on
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let gone = self.seat.seated.lock().take();
        drop(gone);
        let unanswered = std::mem::take(&mut *self.seat.answers.lock());
        drop(unanswered);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("waiting", &self.seat.waiting()).finish_non_exhaustive()
    }
}
