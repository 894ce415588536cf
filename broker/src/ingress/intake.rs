//! The reading half of a connection: lines in, work out, in the order of the lines.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::wire::{Command, ErrorCode, Line, LineCutter, WireError};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::run::{ProducedRun, RunBuilder};
use crate::partition::producers::Producer;
use crate::services::{PERMIT_BYTES, Services, permits};

/// Room for one read of the socket.
const READ_BYTES: usize = 64 << 10;

/// Room for one read of a sender who fills what he is given: what is read at once becomes one entry
/// of each partition's log, and an entry costs as much as some hundred records.
const READ_BYTES_MAX: usize = 256 << 10;

/// Bytes of lines whose answers a connection may be waiting for: at least two reads and one
/// longest line; beyond it the client is not read, which TCP tells it.
const OWN_BYTES_MIN: usize = 1 << 20;

/// Pieces of work that may wait for their answers. Each holds a budget of bytes as well; this
/// bounds what they cost beside that.
pub(super) const WORK_MAX: usize = 256;

/// What a client's bytes come from: a socket, or what a simulation has for one.
pub type Reading = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// Something to be answered.
pub(super) enum Work {
    /// Records on their way.
    Produced(ProducedRun),
    /// A line to be carried out when its turn comes; it was decoded once and is well formed.
    Command(Bytes),
    /// A line that is no command.
    Refused(WireError),
}

/// Work, with the bytes of the connection's own budget that it holds.
pub(super) type Queued = (Work, OwnedSemaphorePermit);

/// Reads a connection until it ends.
pub(super) struct Intake {
    services: Arc<Services>,
    socket: Reading,
    cutter: LineCutter,
    // For the next read.
    room: usize,
    queue: mpsc::Sender<Queued>,
    own: Arc<Semaphore>,
    own_permits: u32,
    // Who registered; known to the table of producers from the first PRODUCE_ONCE on.
    producer_id: Option<Box<str>>,
    producer: Option<Arc<Producer>>,
    run: RunBuilder,
    // Cancelled when nobody answers any more, or nobody is there to be answered.
    ended: CancellationToken,
    // Held while a line longer than a read is coming in.
    long_line: Option<OwnedSemaphorePermit>,
}

/// The other side no longer takes work: the connection is ending.
struct Ended;

impl Intake {
    pub(super) fn new(
        services: Arc<Services>,
        socket: Reading,
        queue: mpsc::Sender<Queued>,
        ended: CancellationToken,
    ) -> Self {
        let line_bytes_max = services.limits.line_bytes_max;
        let own_bytes = OWN_BYTES_MIN.max(2 * line_bytes_max) + 2 * READ_BYTES_MAX;
        let own_permits = permits(own_bytes);
        Self {
            socket,
            cutter: LineCutter::new(line_bytes_max),
            room: READ_BYTES,
            queue,
            own: Arc::new(Semaphore::new(own_bytes.div_ceil(PERMIT_BYTES))),
            own_permits,
            producer_id: None,
            producer: None,
            ended,
            long_line: None,
            run: RunBuilder::new(services.partitions.len()),
            services,
        }
    }

    /// Reads until the client says QUIT or closes its side, or the connection ends otherwise. Gives
    /// the socket back.
    pub(super) async fn read(mut self) -> Reading {
        loop {
            match self.fill().await {
                Ok(0) => return self.socket,
                Ok(read) => self.services.stats.bytes_received.inc_by(read as u64),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let seconds = self.services.limits.stalled_max.as_secs();
                    let error = ErrorCode::Busy.with(&format!(
                        "cut off: a long line was begun and nothing came for {seconds} s; send lines whole, and connect again"
                    ));
                    // When nobody takes it the connection is ending anyway.
                    let _ = self.queue_refusal(error).await;
                    return self.socket;
                }
                Err(error) => {
                    // The client is gone, not just silent: nobody waits for what it asked.
                    tracing::debug!(%error, "a connection broke");
                    self.ended.cancel();
                    return self.socket;
                }
            };
            if self.take_lines().await.is_err() {
                return self.socket;
            }
        }
    }

    /// Reads once; 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        let ended = self.ended.clone();
        let mut patience = Duration::MAX;
        if self.cutter.buffer().len() < READ_BYTES {
            self.long_line = None;
        } else if self.long_line.is_none() {
            let permit = self.services.long_lines.clone().acquire_owned();
            let Some(permit) = ended.run_until_cancelled(permit).await else { return Ok(0) };
            self.long_line = permit.ok();
        }
        if self.long_line.is_some() {
            // Others wait for this place: a long line must come in without a long pause.
            patience = self.services.limits.stalled_max;
        }
        let buffer = self.cutter.buffer();
        if buffer.is_empty() && buffer.capacity() > 2 * READ_BYTES_MAX {
            // A long line was in it.
            *buffer = BytesMut::new();
        }
        buffer.reserve(self.room);
        let read = timeout(patience, self.socket.read_buf(buffer));
        let read = match ended.run_until_cancelled(read).await {
            None => return Ok(0),
            Some(Ok(read)) => read?,
            Some(Err(_)) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let is_full = read >= self.room;
        self.room = if is_full { (2 * self.room).min(READ_BYTES_MAX) } else { READ_BYTES };
        Ok(read)
    }

    async fn take_lines(&mut self) -> Result<(), Ended> {
        let lines = self.cutter.lines();
        self.run.read_from(lines.bytes());
        for line in lines.iter() {
            match line {
                Line::TooLong => {
                    let max = self.services.limits.line_bytes_max;
                    let error = ErrorCode::TooLarge.with(&format!(
                        "a line has at most {max} bytes (the broker's --max-line); this one was left out"
                    ));
                    self.queue_refusal(error).await?;
                }
                Line::Whole(line) => match self.take_record(line) {
                    None => {}
                    Some(Ok(command)) => self.take_command(line, command).await?,
                    Some(Err(error)) => self.queue_refusal(error).await?,
                },
            }
            if self.run.bytes() >= READ_BYTES_MAX {
                self.end_run().await?;
            }
        }
        self.end_run().await?;
        // An idle connection holds none of what it was sent.
        self.run.read_from(&Bytes::new());
        Ok(())
    }

    /// Adds a record to the run; gives back what is none. Most lines are records, and need not wait.
    #[inline]
    fn take_record<'l>(&mut self, line: &'l [u8]) -> Option<Result<Command<'l>, WireError>> {
        let command = Command::decode(line);
        match &command {
            Ok(record @ Command::Produce { .. }) => {
                self.run.add(line, record, None, &self.services);
                None
            }
            Ok(record @ Command::ProduceOnce { .. }) => {
                if let (None, Some(id)) = (&self.producer, &self.producer_id) {
                    self.producer = Some(self.services.partitions.producers.named(id));
                }
                self.run.add(line, record, self.producer.as_ref(), &self.services);
                None
            }
            _ => Some(command),
        }
    }

    async fn take_command(&mut self, line: &[u8], command: Command<'_>) -> Result<(), Ended> {
        // Known here at once, so that a PRODUCE_ONCE right behind it finds its producer.
        if let Command::RegisterProducer { id, .. } = &command {
            self.producer_id = Some((*id).into());
            self.producer = None;
        }
        let quits = command == Command::Quit;
        self.end_run().await?;
        let bytes = line.len();
        // A copy, so that a small line does not hold a whole read's memory while it waits.
        self.queue(Work::Command(Bytes::copy_from_slice(line)), bytes).await?;
        if quits { Err(Ended) } else { Ok(()) }
    }

    /// A refusal within a run of records takes its place there; elsewhere it is work of its own.
    async fn queue_refusal(&mut self, error: WireError) -> Result<(), Ended> {
        if self.run.is_empty() {
            return self.queue(Work::Refused(error), 0).await;
        }
        self.run.refuse(error);
        Ok(())
    }

    async fn end_run(&mut self) -> Result<(), Ended> {
        if self.run.is_empty() {
            return Ok(());
        }
        let bytes = self.run.bytes();
        let run = self.run.dispatch(&self.services).await;
        self.queue(Work::Produced(run), bytes).await
    }

    async fn queue(&self, work: Work, bytes: usize) -> Result<(), Ended> {
        let wanted = permits(bytes).min(self.own_permits);
        let permit = self.own.clone().acquire_many_owned(wanted).await.map_err(|_| Ended)?;
        self.queue.send((work, permit)).await.map_err(|_| Ended)
    }
}
