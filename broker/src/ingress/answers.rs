//! The answering half of a connection: carries work out in its order, and pushes between.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::wire::{Command, ErrorCode, ProducerMode, Reply, WireError};
use aklight_common::{BrokerId, Offset, PartitionId, Pattern};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::intake::{Queued, Work};
use super::run::{ProducedRun, Slot};
use crate::fetch::Outbox;
use crate::fetch::listing::{self, FetchRequest, ListingError, no_partition};
use crate::fetch::live::{Live, SUBSCRIPTIONS_MAX};
use crate::partition::ProduceError;
use crate::partition::producers::Place;
use crate::services::Services;
use crate::sessions::SessionError;

/// Longest wait for a record to become durable, or an acknowledgement; then `unavailable` is
/// answered. Far above the slowest sync of a healthy disk, short enough for a client to fail over.
const DURABLE_WAIT: Duration = Duration::from_secs(10);

/// Who consumes on this connection.
struct Consumer {
    id: Arc<str>,
    persistent: bool,
}

/// Answers a connection until it ends.
pub(super) struct Answers {
    services: Arc<Services>,
    out: Outbox,
    mode: ProducerMode,
    consumer: Option<Consumer>,
    live: Live,
    // The last command was a SUBSCRIBE.
    subscribing: bool,
    // The last acknowledgement handed in, whoever consumed then: a PING waits for it.
    acknowledged: u64,
    // Cancelled when the client is gone or the broker shuts down: no FETCH waits on.
    ended: CancellationToken,
}

/// Whether the connection goes on.
enum Then {
    GoOn,
    Close,
}

/// What there is to do next.
enum Wake {
    Work(Queued),
    Push,
    End,
}

impl Answers {
    pub(super) fn new(services: Arc<Services>, out: Outbox, ended: CancellationToken) -> Self {
        Self {
            services,
            out,
            mode: ProducerMode::Each,
            consumer: None,
            live: Live::default(),
            subscribing: false,
            acknowledged: 0,
            ended,
        }
    }

    /// Works until the queue ends, the client quits or is gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Queued>) -> io::Result<()> {
        let mut commits = self.services.partitions.commits.clone();
        let mut behind = false;
        loop {
            match self.next(&mut queue, &mut commits, behind).await? {
                Wake::End => break,
                Wake::Push => {}
                Wake::Work((work, _permit)) => {
                    if let Then::Close = self.carry_out(work).await? {
                        break;
                    }
                }
            }
            // What else was asked in the same breath comes first: a persistent consumer of several
            // patterns is then sent all that it has not acknowledged in the order of offsets.
            if !self.live.is_empty() && (queue.is_empty() || !self.subscribing) {
                commits.borrow_and_update();
                behind = self.push();
                // A reader that is far behind must not keep others from their turn.
                tokio::task::yield_now().await;
            }
            self.out.flush_when_large().await?;
        }
        self.out.flush().await?;
        self.out.close().await;
        Ok(())
    }

    async fn next(
        &mut self,
        queue: &mut mpsc::Receiver<Queued>,
        commits: &mut watch::Receiver<u64>,
        behind: bool,
    ) -> io::Result<Wake> {
        match queue.try_recv() {
            Ok(queued) => return Ok(Wake::Work(queued)),
            Err(mpsc::error::TryRecvError::Disconnected) => return Ok(Wake::End),
            Err(mpsc::error::TryRecvError::Empty) if behind => return Ok(Wake::Push),
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        // Nothing is ready: the client gets what there is before we sleep.
        self.out.flush().await?;
        let subscribed = !self.live.is_empty();
        Ok(tokio::select! {
            biased;
            queued = queue.recv() => queued.map_or(Wake::End, Wake::Work),
            Ok(()) = commits.changed(), if subscribed => Wake::Push,
        })
    }

    /// Pushes one round of records; says whether more are due at once.
    fn push(&mut self) -> bool {
        match self.live.push(&self.services.partitions, &mut self.out) {
            Ok(pushed) => {
                self.services.stats.records_pushed.inc_by(pushed.records);
                for gap in pushed.gaps {
                    self.services.events.warn("gap", format!("a subscriber skips: {gap}"));
                }
                pushed.more
            }
            Err(error) => {
                // The place is kept: the next commit tries again.
                self.services.events.error("read", error.to_string());
                false
            }
        }
    }

    async fn carry_out(&mut self, work: Work) -> io::Result<Then> {
        self.subscribing = false;
        match work {
            Work::Produced(run) => self.answer_run(run).await?,
            Work::Refused(error) => self.refuse(error),
            Work::Command(line) => return self.command(&line).await,
        }
        Ok(Then::GoOn)
    }

    fn refuse(&mut self, error: WireError) {
        self.services.stats.commands_refused.inc();
        self.out.push(&Reply::Err(error));
    }

    async fn answer_run(&mut self, run: ProducedRun) -> io::Result<()> {
        let mut bases: Vec<Option<Result<Offset, WireError>>> =
            vec![None; self.services.partitions.len()];
        for (partition, ticket) in run.tickets {
            bases[partition.0 as usize] = Some(durable(ticket).await);
        }
        for slot in run.slots {
            match slot {
                Slot::Batch { partition, nth, topic } => match &bases[partition.0 as usize] {
                    Some(Ok(base)) => {
                        let place = Place { partition, offset: Offset(base.0 + u64::from(nth)) };
                        self.services.stats.records_stored.inc();
                        self.acknowledge(topic.as_str(), place);
                    }
                    Some(Err(error)) => self.refuse(error.clone()),
                    None => self.refuse(ErrorCode::Internal.with("the batch has no ticket")),
                },
                Slot::Stored { place, topic } => self.acknowledge(topic.as_str(), place),
                Slot::Repeat { place, topic } => match timeout(DURABLE_WAIT, place).await {
                    Ok(Ok(place)) => self.acknowledge(topic.as_str(), place),
                    Ok(Err(_)) | Err(_) => self.refuse(not_known()),
                },
                Slot::Refused(error) => self.refuse(error),
            }
            self.out.flush_when_large().await?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, topic: &str, place: Place) {
        match self.mode {
            ProducerMode::Each => {
                let Place { partition, offset } = place;
                self.out.push(&Reply::Ack { topic, offset, partition });
            }
            ProducerMode::Cumulative => self.out.push_cumulative_ack(),
        }
    }

    async fn command(&mut self, line: &Bytes) -> io::Result<Then> {
        let answered = match Command::decode(line) {
            Ok(Command::Quit) => {
                self.out.push(&Reply::Bye);
                return Ok(Then::Close);
            }
            Ok(command) => self.answer(command).await,
            Err(error) => Err(error.into()),
        };
        match answered {
            Ok(()) => Ok(Then::GoOn),
            Err(ListingError::Refused(error)) => {
                self.refuse(error);
                Ok(Then::GoOn)
            }
            Err(ListingError::Gone(error)) => Err(error),
        }
    }

    async fn answer(&mut self, command: Command<'_>) -> Result<(), ListingError> {
        let services = self.services.clone();
        let partitions = &services.partitions;
        match command {
            Command::RegisterProducer { mode, .. } => {
                self.mode = mode;
                self.out.push(&Reply::Ok);
            }
            Command::RegisterConsumer { id, persistent } => {
                self.register_consumer(id, persistent).await?;
            }
            Command::Subscribe { pattern } => {
                self.subscribe(&checked(pattern)?)?;
                self.subscribing = true;
            }
            Command::Unsubscribe { pattern } => {
                self.live.unsubscribe(&checked(pattern)?);
                self.out.push(&Reply::Ok);
            }
            Command::Ack { offset, partition, .. } => self.ack(partition, offset)?,
            Command::Fetch { pattern, offset, partition, max, wait_ms } => {
                let pattern = checked(pattern)?;
                let request = FetchRequest { pattern, offset, partition, max, wait_ms };
                listing::fetch(partitions, &request, &self.ended, &mut self.out).await?;
            }
            Command::Last { pattern } => {
                listing::last(partitions, &checked(pattern)?, &mut self.out).await?;
            }
            Command::Topics { pattern } => {
                listing::topics(partitions, &checked(pattern)?, &mut self.out).await?;
            }
            Command::Cluster => self.cluster(),
            Command::Ping { token } => {
                let durable = services.sessions.durable(self.acknowledged);
                let durable = timeout(DURABLE_WAIT, durable).await;
                durable.map_err(|_| not_known())?.map_err(session_error)?;
                self.out.push(&Reply::Pong(token));
            }
            // A broker without authentication takes any token: clients need no second way.
            Command::Auth { .. } => self.out.push(&Reply::Ok),
            Command::Produce { .. } | Command::ProduceOnce { .. } | Command::Quit => {
                return Err(ErrorCode::Internal.with("not a command for here").into());
            }
        }
        Ok(())
    }

    async fn register_consumer(&mut self, id: &str, persistent: bool) -> Result<(), WireError> {
        let ends = self.services.partitions.ends();
        let positions = if persistent {
            let registered = self.services.sessions.register(id, ends);
            let positions = timeout(DURABLE_WAIT, registered).await.map_err(|_| not_known())?;
            positions.map_err(session_error)?
        } else {
            ends
        };
        self.consumer = Some(Consumer { id: id.into(), persistent });
        let positions = (0..).map(PartitionId).zip(positions).collect();
        self.out.push(&Reply::OkPositions(positions));
        Ok(())
    }

    fn subscribe(&mut self, pattern: &Pattern) -> Result<(), WireError> {
        if self.live.len() >= SUBSCRIPTIONS_MAX {
            return Err(ErrorCode::Busy.with(&format!(
                "a connection has at most {SUBSCRIPTIONS_MAX} subscriptions: use a wildcard, or another connection"
            )));
        }
        let partitions = &self.services.partitions;
        let mut start = partitions.ends();
        if let Some(Consumer { id, persistent: true, .. }) = &self.consumer
            && let Some(positions) = self.services.sessions.positions(id)
        {
            start = positions;
        }
        self.live.subscribe(pattern.clone(), start);
        self.out.push(&Reply::Ok);
        Ok(())
    }

    fn ack(&mut self, partition: PartitionId, offset: Offset) -> Result<(), WireError> {
        let Some(consumer) = &self.consumer else {
            return Err(ErrorCode::NotRegistered
                .with("ACK needs REGISTER_CONSUMER|id|1 before it on this connection"));
        };
        let partitions = &self.services.partitions;
        let known =
            partitions.get(partition).ok_or_else(|| no_partition(partition, partitions.len()))?;
        let end = known.end();
        if offset >= end {
            return Err(ErrorCode::OffsetOutOfRange.with(&format!(
                "partition {partition} has no offset {offset} yet: the first one kept is {}, the next to be written {end}",
                known.start()
            )));
        }
        // A consumer that is not persistent has nothing that outlives its connection.
        if consumer.persistent {
            // It cannot have processed what it was not sent yet: a second pattern's older records.
            let sent = self.live.sent_up_to(partition).unwrap_or(end);
            let next = offset.next().min(sent);
            self.acknowledged = self.services.sessions.acknowledge(&consumer.id, partition, next);
        }
        Ok(())
    }

    fn cluster(&mut self) {
        let services = self.services.clone();
        let address = &services.address;
        self.out.push(&Reply::Broker { id: services.broker, address, state: "alive" });
        for partition in services.partitions.iter() {
            let leader: Option<BrokerId> = partition.status().leader;
            let (start, end) = (partition.start(), partition.end());
            self.out.push(&Reply::Partition { id: partition.id, leader, start, end });
        }
        let count = 1 + services.partitions.len() as u64;
        self.out.push(&Reply::End { count, next: None });
    }
}

async fn durable(
    ticket: oneshot::Receiver<Result<Offset, ProduceError>>,
) -> Result<Offset, WireError> {
    match timeout(DURABLE_WAIT, ticket).await {
        Ok(Ok(Ok(base))) => Ok(base),
        Ok(Ok(Err(ProduceError::NoRoom(text)))) => Err(ErrorCode::Busy.with(&text)),
        Ok(Ok(Err(ProduceError::Unavailable(text)))) => Err(ErrorCode::Unavailable.with(&text)),
        Ok(Err(_)) | Err(_) => Err(not_known()),
    }
}

fn not_known() -> WireError {
    ErrorCode::Unavailable.with(
        "not durable within the time limit, or the broker is shutting down: whether it was stored is not known; repeat it with PRODUCE_ONCE",
    )
}

fn session_error(error: SessionError) -> WireError {
    let code = match error {
        SessionError::TooMany => ErrorCode::Busy,
        SessionError::Unavailable(_) => ErrorCode::Unavailable,
    };
    code.with(&error.to_string())
}

fn checked(pattern: &str) -> Result<Pattern, WireError> {
    Pattern::new(pattern).map_err(|error| ErrorCode::BadPattern.with(&error.to_string()))
}
