//! The shell around the engine: signals, time, brokers, the tasks that send.
//!
//! A persistent consumer subscribes only when it is its turn (see [`crate::lease`]), and takes
//! nothing more while it does not know whether it still is (`turns`).
//!
//! A tokio runtime of two workers: the engine's loop may wait for a disk or a stopped terminal,
//! and telephones must ring meanwhile.

mod moments;
mod turns;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::client::{Client, ClientConfig, Subscription, SubscriptionEvent};
use aklight_common::clock::SharedClock;
use aklight_common::settings::EXIT_INTERRUPTED;
use aklight_common::wire::{ErrorCode, WireError};
use aklight_common::{Offset, PartitionId, Topic};
use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::ConsumerArgs;
use crate::alerts::Memory;
use crate::alerts::dead::DeadLetters;
use crate::alerts::memory::{ANNOUNCEMENTS_MAX, NOTICES_MAX};
use crate::alerts::store::Store;
use crate::engine::{Engine, Outlet, Parts};
use crate::lease::{Lease, Turns, keep};
use crate::load::load_rules;
use crate::notify::announce::announce;
use crate::notify::console::Console;
use crate::notify::sender::{Event, Sender};
use crate::rules::Book;
use crate::setup::{Setup, warn_of_channels_not_set_up, with_causes};
use moments::Moments;
use turns::{Turn, turned};

/// How often silence, reminders and unwritten offsets are looked at: the grain of every duration
/// in a rule, and the most that is processed again by an engine after a crash.
const TICK: Duration = Duration::from_millis(500);
/// The file is written at most this often where nothing is to be told.
const TICKS_PER_WRITE: u32 = 2;
/// Most records that an alert waits for so as to share its write: a thousandth of a second's work.
const BATCH_MAX: usize = 256;
/// How long the end waits for what a carrier or the broker has not answered for.
const ANSWERS_GRACE: Duration = Duration::from_secs(2);
/// How long the end waits for the broker to confirm.
const CLOSE_GRACE: Duration = Duration::from_secs(4);

/// Runs a consumer until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting or from going on, with what to do about it.
pub fn run(args: ConsumerArgs) -> anyhow::Result<ExitCode> {
    let setup = Setup::resolve(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime: are threads or file descriptors used up?")?;
    let ended = runtime.block_on(setup.follow());
    // Whatever still waits (a name being resolved, say) must not hold up the end.
    runtime.shutdown_background();
    ended
}

impl Setup {
    async fn follow(self) -> anyhow::Result<ExitCode> {
        let Self { args, config, rules, carriers, patience, clock } = self;
        let now_ms = clock.wall_ms();
        let (store, memory) = if args.persistent {
            let (store, memory) = Store::open(&args.offsets_dir, &args.id, now_ms)?;
            (Some(store), memory)
        } else {
            (None, Memory::new(&args.id, now_ms))
        };
        let channels: Vec<_> = carriers.iter().map(|carrier| carrier.channel()).collect();
        warn_of_channels_not_set_up(&rules.list, &channels);
        info!(
            id = args.id,
            brokers = args.brokers,
            rules = rules.list.len(),
            channels =
                channels.iter().map(|channel| channel.as_str()).collect::<Vec<_>>().join(","),
            "following {}",
            args.patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        );
        let (events_in, events) = mpsc::channel(NOTICES_MAX);
        let mut senders = JoinSet::new();
        let mut outlets = Vec::new();
        for carrier in carriers {
            let (orders, queue) = mpsc::channel(NOTICES_MAX);
            let (channel, destinations) = (carrier.channel(), carrier.destinations());
            outlets.push(Outlet { channel, destinations, orders });
            let sender = Sender::new(&args.id, carrier, patience.clone(), Arc::clone(&clock));
            senders.spawn(sender.run(queue, events_in.clone()));
        }
        let (announcements, queue) = mpsc::channel(ANNOUNCEMENTS_MAX);
        let (announced_in, announced) = mpsc::channel(ANNOUNCEMENTS_MAX);
        let first = memory.announcements.front().map_or(memory.next_sequence, |a| a.sequence);
        let producer = ClientConfig { id: memory.producer.clone(), ..config.clone() };
        tokio::spawn(announce(producer, first, Arc::clone(&clock), queue, announced_in));
        let out = anstream::AutoStream::auto(std::io::stdout());
        let console = Console::new(Box::new(out), args.output, args.quiet);
        let dead = DeadLetters::of(&args.offsets_dir);
        let group_wait_ms = u64::try_from(args.group_wait.as_millis()).unwrap_or(u64::MAX);
        let parts = Parts {
            book: Book::new(rules.list),
            quiet: rules.quiet,
            memory,
            store,
            dead,
            console,
            group_wait_ms,
            outlets,
            announcements,
        };
        let instance = parts.memory.producer.clone();
        let mut engine = Engine::new(parts, now_ms);
        let turn = match args.persistent {
            true => {
                let lease = Lease::new(&config, &args.id, &instance, Arc::clone(&clock))?;
                let (turns_in, turns) = watch::channel(Turns::Unknown);
                let (stop, stopped) = oneshot::channel();
                let keeper = tokio::spawn(keep(lease, turns_in, stopped));
                Some(Turn { turns, stop, keeper })
            }
            false => {
                engine.begin(now_ms);
                None
            }
        };
        let shell = Shell {
            started_ms: clock.monotonic_ms(),
            args,
            config,
            moments: Moments::new(Arc::clone(&clock)),
            clock,
            engine,
            turn,
            subscription: None,
            held: None,
            connected: false,
            holding: false,
            others: 0,
            said_waiting: false,
            events,
            _events_in: events_in,
            announced,
            ticks: 0,
        };
        shell.run(senders).await
    }
}

/// The loop.
struct Shell {
    /// When it was started, on the monotonic clock.
    started_ms: u64,
    args: ConsumerArgs,
    config: ClientConfig,
    clock: SharedClock,
    moments: Moments,
    engine: Engine,
    /// `None` for a consumer that keeps nothing, and works whenever it runs.
    turn: Option<Turn>,
    /// Open from the first turn on.
    subscription: Option<Subscription>,
    /// What came in when it was not our turn.
    held: Option<SubscriptionEvent>,
    connected: bool,
    /// How often somebody else had worked before, when this one began.
    others: u32,
    said_waiting: bool,
    /// Whether records are taken: see `holds`.
    holding: bool,
    events: mpsc::Receiver<Event>,
    /// Held so that `events` does not end where there is no sender.
    _events_in: mpsc::Sender<Event>,
    announced: mpsc::Receiver<u64>,
    ticks: u32,
}

impl Shell {
    async fn run(mut self, senders: JoinSet<()>) -> anyhow::Result<ExitCode> {
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let code = loop {
            self.look_at_turn().await?;
            tokio::select! {
                event = next(&mut self.held, &mut self.subscription), if self.holding => match event {
                    Some(event) => self.take(event).await?,
                    None => bail!("the connection's task ended: this is a mistake in the consumer, please report it"),
                },
                () = turned(&mut self.turn) => {}
                _ = tick.tick() => self.on_tick(),
                Some(event) = self.events.recv() => self.on_event(event),
                Some(sequence) = self.announced.recv() => self.on_announced(sequence),
                _ = hang_up.recv() => self.reload(),
                _ = terminate.recv() => break ExitCode::SUCCESS,
                _ = interrupt.recv() => break ExitCode::from(EXIT_INTERRUPTED),
            }
            if self.engine.is_urgent() {
                self.take_waiting().await?;
                self.commit();
            }
        };
        self.end(senders).await;
        Ok(code)
    }

    /// Takes what has come in already, up to a limit: when a thousand topics fire at once, they
    /// share a few writes instead of needing one each.
    async fn take_waiting(&mut self) -> anyhow::Result<()> {
        for _ in 0..BATCH_MAX {
            if !self.holds() {
                break;
            }
            let next = next(&mut self.held, &mut self.subscription);
            match tokio::time::timeout(Duration::ZERO, next).await {
                Ok(Some(event)) => self.take(event).await?,
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Takes what came in, if it still may be judged: this process may have been stopped for long
    /// while it waited. If it may not, it is kept until it may again.
    async fn take(&mut self, event: SubscriptionEvent) -> anyhow::Result<()> {
        if self.holds() {
            return self.on_subscription(event).await;
        }
        self.held = Some(event);
        Ok(())
    }

    async fn on_subscription(&mut self, event: SubscriptionEvent) -> anyhow::Result<()> {
        match event {
            SubscriptionEvent::Message(message) => {
                let now_ms = self.now_ms();
                self.engine.on_message(&message, now_ms);
            }
            SubscriptionEvent::Connected { broker, positions } => {
                debug!(%broker, "connected");
                self.connected = true;
                self.catch_up(&positions).await;
                let now_ms = self.now_ms();
                self.engine.watch(Some(now_ms));
            }
            SubscriptionEvent::Disconnected { reason, retry_in } => {
                debug!(reason, retry_in_ms = retry_in.as_millis(), "not connected");
                self.connected = false;
                self.engine.watch(None);
            }
            SubscriptionEvent::Refused(error) if is_final(&error) => {
                bail!("the broker refused: {error}")
            }
            SubscriptionEvent::Refused(error) => warn!(%error, "the broker refused"),
        }
        Ok(())
    }

    /// The broker begins before what is processed here: either it was not told in time, or its
    /// log is another one.
    async fn catch_up(&mut self, positions: &[(PartitionId, Offset)]) {
        let behind = self.engine.behind(positions);
        if behind.is_empty() {
            return;
        }
        self.commit();
        let ends = self.ends().await;
        for (partition, position, next) in behind {
            let end = ends.iter().find(|(p, _)| *p == partition).map(|(_, end)| *end);
            if end.is_some_and(|end| end < next) {
                warn!(%partition, processed = %next, %position, "this log is shorter than what was processed of it: was its data removed? Beginning again");
                self.engine.restart_partition(partition, position);
            } else if let Some((topic, offset, partition)) = self.engine.last_processed(partition) {
                self.ack(&topic, offset, partition);
            }
        }
    }

    /// The end of each partition; nothing where no broker says. One that finds no leader tells the
    /// end of its own copy, which may be behind: that is not where the log ends.
    async fn ends(&self) -> Vec<(PartitionId, Offset)> {
        let ask = async {
            let mut client = Client::connect(self.config.clone()).await?;
            client.cluster().await
        };
        match tokio::time::timeout(self.config.request_timeout, ask).await {
            Ok(Ok(cluster)) => {
                let led = cluster.partitions.iter().filter(|partition| partition.leader.is_some());
                led.map(|partition| (partition.id, partition.end)).collect()
            }
            Ok(Err(error)) => {
                warn!(%error, "cannot ask how long the log is");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// The time of day; the engine hears of a clock that was set before anything is judged by it.
    fn now_ms(&mut self) -> u64 {
        let (now_ms, set_by_ms) = self.moments.now();
        if let Some(by_ms) = set_by_ms {
            self.engine.clock_set(by_ms, now_ms);
        }
        now_ms
    }

    fn on_event(&mut self, event: Event) {
        let now_ms = self.now_ms();
        self.engine.on_event(event, now_ms);
    }

    fn on_tick(&mut self) {
        let now_ms = self.now_ms();
        if self.holds() {
            self.engine.on_tick(now_ms);
        }
        self.ticks = (self.ticks + 1) % TICKS_PER_WRITE;
        if self.ticks == 0 || self.engine.has_due(now_ms) {
            self.commit();
        }
    }

    fn commit(&mut self) {
        let now_ms = self.now_ms();
        for (topic, offset, partition) in self.engine.commit(now_ms) {
            self.ack(&topic, offset, partition);
        }
    }

    fn on_announced(&mut self, sequence: u64) {
        self.engine.on_announced(sequence);
        for (topic, offset, partition) in self.engine.recorded() {
            self.ack(&topic, offset, partition);
        }
    }

    fn ack(&self, topic: &Topic, offset: Offset, partition: PartitionId) {
        if let Some(subscription) = &self.subscription {
            subscription.ack(topic, offset, partition);
        }
    }

    fn reload(&mut self) {
        let Some(file) = self.args.rules_file() else {
            info!("SIGHUP: no rules file to read again");
            return;
        };
        match load_rules(file) {
            Ok(rules) => {
                info!(rules = rules.list.len(), file = %file.display(), "rules read again");
                self.engine.replace_rules(rules);
            }
            Err(error) => {
                error!(
                    error = with_causes(&error),
                    kept = self.engine.rules().len(),
                    "the old rules stay in force"
                );
            }
        }
    }

    async fn end(mut self, mut senders: JoinSet<()>) {
        self.commit();
        // What is being sent or recorded right now may end well.
        self.drain_events().await;
        senders.abort_all();
        self.commit();
        let told = async {
            let told = match self.subscription.take() {
                Some(subscription) => subscription.close().await,
                None => true,
            };
            // After the last acknowledgement, so that who comes next begins behind it.
            if let Some(Turn { stop, keeper, .. }) = self.turn.take() {
                let _ = stop.send(());
                let _ = keeper.await;
            }
            told
        };
        match tokio::time::timeout(CLOSE_GRACE, told).await {
            Ok(true) => {}
            Ok(false) | Err(_) => info!("no broker to tell what is processed: the file knows"),
        }
        self.engine.say_totals();
    }

    /// Takes reports until nothing is being sent or recorded, for a short while at most.
    async fn drain_events(&mut self) {
        let deadline = tokio::time::sleep(ANSWERS_GRACE);
        tokio::pin!(deadline);
        while self.engine.is_busy() {
            tokio::select! {
                () = &mut deadline => return,
                Some(event) = self.events.recv() => {
                    self.on_event(event);
                    self.commit();
                }
                Some(sequence) = self.announced.recv() => self.on_announced(sequence),
            }
        }
    }
}

/// The next event, the one that was held first; never where there is no subscription yet.
async fn next(
    held: &mut Option<SubscriptionEvent>,
    subscription: &mut Option<Subscription>,
) -> Option<SubscriptionEvent> {
    match (held.take(), subscription) {
        (Some(event), _) => Some(event),
        (None, Some(subscription)) => subscription.next().await,
        (None, None) => std::future::pending().await,
    }
}

/// Refusals that no patience mends.
fn is_final(error: &WireError) -> bool {
    matches!(
        error.code,
        ErrorCode::Unauthorized
            | ErrorCode::Forbidden
            | ErrorCode::BadPattern
            | ErrorCode::BadCommand
    )
}
