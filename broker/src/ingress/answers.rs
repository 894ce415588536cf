//! The answering half of a connection: carries work out in its order, and pushes between.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::wire::{AckLines, Command, ErrorCode, ProducerMode, Reply, WireError};
use aklight_common::{BrokerId, Offset, PartitionId, Pattern};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::intake::{Queued, Work};
use super::run::{ProducedRun, RunText, Slot, too_old};
use crate::fetch::listing::{self, FetchRequest, ListingError, no_partition};
use crate::fetch::live::{Live, SUBSCRIPTIONS_MAX};
use crate::fetch::{Outbox, Subscriber, Wanted, barrier};
use crate::partition::{Outcome, PRODUCE_WAIT, Placed, ProduceError};
use crate::services::Services;
use crate::sessions::SessionError;

/// Longest wait for a record or an acknowledgement to become durable; then `unavailable` is
/// answered. A little more than partitions wait themselves: they know better what to tell.
const DURABLE_WAIT: Duration = PRODUCE_WAIT.saturating_add(Duration::from_secs(1));

/// Longest wait for this broker's copy to be where others are, where an older answer is better
/// than none.
const GLANCE_WAIT: Duration = Duration::from_secs(1);

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
    // For each partition.
    ack_lines: Box<[AckLines]>,
    consumer: Option<Consumer>,
    live: Live,
    // While something is subscribed to.
    subscriber: Option<Subscriber>,
    // The last command was a SUBSCRIBE.
    subscribing: bool,
    // The last acknowledgement handed in, whoever consumed then: a PING waits for it.
    acknowledged: u64,
    // For each partition, the offset behind the last record that it was told to be stored.
    seen: Vec<Offset>,
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
        let seen = vec![Offset(0); services.partitions.len()];
        let ack_lines = services.partitions.iter().map(|partition| AckLines::of(partition.id));
        Self {
            ack_lines: ack_lines.collect(),
            services,
            out,
            seen,
            mode: ProducerMode::Each,
            consumer: None,
            live: Live::default(),
            subscriber: None,
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
        let Services { partitions, lines, .. } = &*self.services;
        match self.live.push_lines(partitions, lines, &mut self.out) {
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
        let ProducedRun { text, slots, refusals, tickets } = run;
        let mut placed: Vec<Option<Result<Placed, WireError>>> =
            vec![None; self.services.partitions.len()];
        for (partition, mut ticket) in tickets {
            let answer = match ticket.try_recv() {
                Ok(answer) => answer.map_err(|error| refusal(&error)),
                Err(_) => {
                    // A client that sends on and on is told of what is done, not only when all is.
                    self.out.flush().await?;
                    durable(ticket).await
                }
            };
            placed[partition.0 as usize] = Some(answer);
        }
        let mut stored = 0;
        let answered = self.answer_slots(&text, slots, refusals, &placed, &mut stored).await;
        self.services.stats.records_stored.inc_by(stored);
        answered
    }

    async fn answer_slots(
        &mut self,
        text: &RunText,
        slots: Vec<Slot>,
        refusals: Vec<WireError>,
        placed: &[Option<Result<Placed, WireError>>],
        stored: &mut u64,
    ) -> io::Result<()> {
        // How many records of each batch are answered.
        let mut answered = vec![0; placed.len()];
        let mut refusals = refusals.into_iter();
        for slot in slots {
            match slot {
                Slot::Batch { partition, topic } => {
                    let number = partition.0 as usize;
                    let nth = answered[number];
                    answered[number] += 1;
                    match &placed[number] {
                        Some(Ok(placed)) => match placed.of(nth) {
                            Some(Outcome::Stored(offset)) => {
                                *stored += 1;
                                self.seen[number] = offset.next().max(self.seen[number]);
                                match self.mode {
                                    ProducerMode::Each => {
                                        let lines = &mut self.ack_lines[number];
                                        self.out.push_ack(lines, text.topic(topic), offset);
                                    }
                                    ProducerMode::Cumulative => self.out.push_cumulative_ack(),
                                }
                            }
                            Some(Outcome::TooOld(highest)) => self.refuse(too_old(highest)),
                            None => self.refuse(not_known()),
                        },
                        Some(Err(error)) => self.refuse(error.clone()),
                        None => self.refuse(ErrorCode::Internal.with("the batch has no ticket")),
                    }
                }
                Slot::Refused => self.refuse(refusals.next().unwrap_or_else(not_known)),
            }
            self.out.flush_when_large().await?;
        }
        Ok(())
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
                self.subscribe(&checked(pattern)?).await?;
                self.subscribing = true;
            }
            Command::Unsubscribe { pattern } => {
                self.live.unsubscribe(&checked(pattern)?);
                self.subscriber.take_if(|_| self.live.is_empty());
                self.out.push(&Reply::Ok);
            }
            Command::Ack { offset, partition, .. } => self.ack(partition, offset).await?,
            Command::Fetch { pattern, offset, partition, max, wait_ms } => {
                let wanted = Wanted::new(&checked(pattern)?);
                let request = FetchRequest { wanted, offset, partition, max, wait_ms };
                self.see_own().await;
                listing::fetch(partitions, &request, &self.ended, &mut self.out).await?;
            }
            Command::Last { pattern } => {
                self.see_own().await;
                listing::last(partitions, &checked(pattern)?, &mut self.out).await?;
            }
            Command::Topics { pattern } => {
                self.see_own().await;
                listing::topics(partitions, &checked(pattern)?, &mut self.out).await?;
            }
            Command::Cluster => self.cluster().await,
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
        let registered = async {
            let sessions = &self.services.sessions;
            if persistent
                && let Some(positions) = sessions.known(id).await.map_err(session_error)?
            {
                return Ok(positions);
            }
            let partitions = &self.services.partitions;
            let caught_up = barrier::catch_up(partitions, DURABLE_WAIT).await;
            caught_up.map_err(|error| {
                ErrorCode::Unavailable.with(&format!("where the log ends is not known: {error}"))
            })?;
            let ends = partitions.ends();
            if !persistent {
                return Ok(ends);
            }
            sessions.register(id, ends).await.map_err(session_error)
        };
        let positions = timeout(DURABLE_WAIT, registered).await.map_err(|_| not_known())??;
        self.consumer = Some(Consumer { id: id.into(), persistent });
        let positions = (0..).map(PartitionId).zip(positions).collect();
        self.out.push(&Reply::OkPositions(positions));
        Ok(())
    }

    async fn subscribe(&mut self, pattern: &Pattern) -> Result<(), WireError> {
        if self.live.len() >= SUBSCRIPTIONS_MAX {
            return Err(ErrorCode::Busy.with(&format!(
                "a connection has at most {SUBSCRIPTIONS_MAX} subscriptions: use a wildcard, or another connection"
            )));
        }
        let partitions = &self.services.partitions;
        if self.consumer.is_none() && self.live.is_empty() {
            // "From now on": not from where a copy that lags behind happens to be. Without a
            // majority that copy is all there is.
            let _ = barrier::catch_up(partitions, GLANCE_WAIT).await;
        }
        let mut start = partitions.ends();
        if let Some(Consumer { id, persistent: true, .. }) = &self.consumer
            && let Some(positions) = self.services.sessions.positions(id)
        {
            start = positions;
        }
        self.live.subscribe(pattern.clone(), start);
        self.subscriber.get_or_insert_with(|| self.services.lines.join());
        self.out.push(&Reply::Ok);
        Ok(())
    }

    async fn ack(&mut self, partition: PartitionId, offset: Offset) -> Result<(), WireError> {
        let Some(consumer) = &self.consumer else {
            return Err(ErrorCode::NotRegistered
                .with("ACK needs REGISTER_CONSUMER|id|1 before it on this connection"));
        };
        let partitions = &self.services.partitions;
        let known =
            partitions.get(partition).ok_or_else(|| no_partition(partition, partitions.len()))?;
        if offset >= known.end()
            // It may have been read at a broker that is ahead of this one.
            && let Err(error) = known.group().barrier(GLANCE_WAIT).await
            && offset >= known.end()
        {
            return Err(ErrorCode::Unavailable.with(&format!(
                "whether partition {partition} has offset {offset} is not known here at the moment ({error}): acknowledge it again, here or at another broker"
            )));
        }
        let end = known.end();
        if offset >= end {
            return Err(ErrorCode::OffsetOutOfRange.with(&format!(
                "partition {partition} has no offset {offset} yet: the first one kept is {}, the next to be written {end}",
                known.start()
            )));
        }
        // A consumer that is not persistent has nothing that outlives its connection.
        if consumer.persistent {
            let next = self.live.acknowledge(partition, offset);
            self.acknowledged = self.services.sessions.acknowledge(&consumer.id, partition, next);
        }
        Ok(())
    }

    /// Waits until what this connection was told to be stored can be read here: another broker may
    /// lead, and this one's copy be a moment behind.
    async fn see_own(&self) {
        for (partition, seen) in self.services.partitions.iter().zip(&self.seen) {
            // A copy that does not get there tells what it has, as it does to everybody.
            let _ = timeout(GLANCE_WAIT, partition.reaches(*seen)).await;
        }
    }

    async fn cluster(&mut self) {
        let services = self.services.clone();
        let known = barrier::caught_up(&services.partitions, GLANCE_WAIT).await;
        let brokers = services.sessions.metadata().brokers();
        let mut count = brokers.len().max(1) + services.partitions.len();
        if brokers.is_empty() {
            let address = &services.address;
            self.out.push(&Reply::Broker { id: services.broker, address, state: "alive" });
        }
        for (id, info) in &brokers {
            if info.client.is_empty() {
                // Expected, and never seen yet.
                count -= 1;
                continue;
            }
            let state = if services.pulse.is_alive(*id) { "alive" } else { "dead" };
            self.out.push(&Reply::Broker { id: *id, address: &info.client, state });
        }
        for (partition, is_known) in services.partitions.iter().zip(known) {
            // No leader answers for it: the end is what this broker knows, and may be passed.
            let leader: Option<BrokerId> = partition.status().leader.filter(|_| is_known);
            let (start, end) = (partition.start(), partition.end());
            self.out.push(&Reply::Partition { id: partition.id, leader, start, end });
        }
        self.out.push(&Reply::End { count: count as u64, next: None });
    }
}

async fn durable(
    ticket: oneshot::Receiver<Result<Placed, ProduceError>>,
) -> Result<Placed, WireError> {
    match timeout(DURABLE_WAIT, ticket).await {
        Ok(Ok(answer)) => answer.map_err(|error| refusal(&error)),
        Ok(Err(_)) | Err(_) => Err(not_known()),
    }
}

fn refusal(error: &ProduceError) -> WireError {
    let code = match error {
        ProduceError::NoRoom(_) => ErrorCode::Busy,
        ProduceError::NotStored(_) | ProduceError::Unknown(_) | ProduceError::NotLeader => {
            ErrorCode::Unavailable
        }
    };
    code.with(&error.to_string())
}

fn not_known() -> WireError {
    ErrorCode::Unavailable.with(
        "not durable within the time limit, or the broker is shutting down: whether it was stored is not known; repeat it with PRODUCE_ONCE",
    )
}

fn session_error(error: SessionError) -> WireError {
    let code = match error {
        SessionError::TooMany => ErrorCode::Busy,
        SessionError::Unavailable(_) | SessionError::Stopped(_) => ErrorCode::Unavailable,
    };
    code.with(&error.to_string())
}

fn checked(pattern: &str) -> Result<Pattern, WireError> {
    Pattern::new(pattern).map_err(|error| ErrorCode::BadPattern.with(&error.to_string()))
}
