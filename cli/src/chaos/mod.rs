//! `aklight chaos`: a cluster is broken on purpose, under load, and must lose nothing.
//!
//! It makes a cluster of its own on this machine, sends it records, breaks it in an order that a
//! seed chooses, mends it, and holds everything that clients were told against what each broker
//! holds in the end, and the brokers' folders against each other. With `--against` it loads and checks a cluster that somebody else breaks.
//!
//! ```text
//!  producers, product ──► brokers ◄── nemesis (kill -9, SIGSTOP, isolation, full disks …)
//!  consumers, watch   ◄──    │
//!          └──── witness ────┴──► oracle ──► violations          ending: heal, settle, read all
//! ```
//!
//! The rooms: [`brokers`] are the processes, [`nemesis`] breaks them, [`disk`] is a small disk;
//! [`producers`], [`product`] and [`consumers`] are the load, each on [`link`]s; [`watch`] looks on;
//! [`witness`] tells the oracle; [`ending`] settles and reads; [`story`] prints.
//!
//! One thread runs it all: the kernel takes the death of the thread that started a broker for ours.
//!
//! A seed gives the same faults in the same order; when they strike is the machine's doing. What
//! must come again to the letter is found by the simulation.

mod brokers;
mod consumers;
mod course;
mod disk;
mod ending;
mod link;
mod nemesis;
mod producers;
mod product;
mod report;
mod story;
mod watch;
mod witness;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::client::parse_brokers;
use aklight_common::clock::{SharedClock, SystemClock};
use aklight_common::settings::{EXIT_DONE, EXIT_INTERRUPTED};
use anyhow::{Context, bail};
use clap::Args;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch::Sender;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::brokers::Broker;
use self::consumers::ConsumerTask;
use self::course::{Course, Stage};
use self::disk::SmallDisk;
use self::ending::Follower;
use self::nemesis::Nemesis;
use self::producers::ProducerTask;
use self::report::Report;
use self::story::Story;
use self::watch::Http;
use self::witness::{Topics, Witness};
use crate::connect::block_on;
use crate::verify::Findings;
use crate::verify::folders::{self, Checked};

/// How long a new cluster may take until it serves.
const FORMING_MAX: Duration = Duration::from_secs(60);

/// How long brokers that somebody else breaks may take to be whole again in the end.
const AGAINST_ANSWER_MAX_MS: u64 = 180_000;

/// Producers of each kind: several, so that records of many connections mix in each batch.
const PLAIN_PRODUCERS: u32 = 3;
const ONCE_PRODUCERS: u32 = 2;

/// The room of a small disk beyond the load's own data: the segments that are open, and slack.
const SMALL_DISK_BYTES: u64 = 256 << 20;

/// What a record takes on the disk, at most: its batch's header shared by few, with small batches.
const RECORD_BYTES: u64 = 400;

/// How to break what.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// How many brokers to run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    brokers: u8,
    /// How long to break them, in minutes; parts of one are allowed
    #[arg(long, default_value_t = 2.0, value_name = "MINUTES", value_parser = minutes)]
    minutes: f64,
    /// What the order of the faults is chosen by [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The folder for the data, which must not exist yet [default: a new one in /tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many records to send, all producers together
    #[arg(long, default_value_t = 500, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=20_000))]
    records_per_second: u32,
    /// Keep the folder; where something is found it is kept anyway
    #[arg(long)]
    keep: bool,
    /// Load and check these brokers, and break nothing: somebody else does
    #[arg(long, value_name = "HOST:PORT,…", value_parser = addresses,
          conflicts_with_all = ["brokers", "dir", "keep"])]
    against: Option<Addresses>,
}

/// A checked list of brokers.
#[derive(Debug, Clone)]
struct Addresses(Vec<String>);

fn addresses(list: &str) -> Result<Addresses, String> {
    parse_brokers(list).map(Addresses).map_err(|error| error.to_string())
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.01..=1440.0).contains(&minutes) => Ok(minutes),
        _ => Err("write a number of minutes from 0.01 to 1440".to_owned()),
    }
}

/// Breaks, heals, checks.
pub fn run(args: &ChaosArgs) -> anyhow::Result<ExitCode> {
    let clock = SystemClock::shared();
    let seed = args.seed.unwrap_or_else(|| clock.wall_us() % 1_000_000);
    let chaos = Chaos {
        minutes_ms: (args.minutes * 60_000.0) as u64,
        records_per_second: f64::from(args.records_per_second),
        seed,
        // Of several runs against one cluster each has topics and clients of its own.
        run: format!("{:x}", clock.wall_us()),
        story: Story::new(clock.clone()),
        clock,
    };
    match &args.against {
        Some(Addresses(addresses)) => {
            chaos.story.line(&format!("load and checks only, seed {seed}"));
            block_on(chaos.against(addresses.clone()))
        }
        None => own_cluster(&chaos, args),
    }
}

fn own_cluster(chaos: &Chaos, args: &ChaosArgs) -> anyhow::Result<ExitCode> {
    let dir =
        args.dir.clone().unwrap_or_else(|| format!("/tmp/aklight-chaos-{}", chaos.run).into());
    if dir.exists() {
        bail!("{} exists: chaos needs a folder of its own, choose another one", dir.display());
    }
    fs::create_dir_all(&dir).with_context(|| format!("no folder {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let (count, seed) = (usize::from(args.brokers), chaos.seed);
    chaos.story.line(&format!("{count} brokers, seed {seed}, data in {}", dir.display()));
    let mut rng = SmallRng::seed_from_u64(seed);
    let brokers = brokers::prepare(&dir, count, &mut rng)?;
    let small = small_disk(chaos, &brokers);
    let (http, clock, story) = (Http::new()?, chaos.clock.clone(), chaos.story.clone());
    let mut nemesis = Nemesis::new(brokers, small, http, clock, story, rng);
    let (exit, is_clean) = block_on(chaos.with_nemesis(&mut nemesis))?;
    if args.keep || !is_clean {
        if let Some(victim) = nemesis.small_victim() {
            // Its disk goes with us.
            let home = &nemesis.brokers[victim].home;
            disk::copy(home, &home.with_extension("disk"))
                .with_context(|| format!("{} cannot be kept", home.display()))?;
        }
        let folder = dir.display();
        chaos.story.line(&format!("kept: seed {seed}, data and the brokers' words in {folder}"));
    } else {
        // A folder with a disk mounted on it would be busy.
        drop(nemesis);
        fs::remove_dir_all(&dir).with_context(|| format!("{} cannot be removed", dir.display()))?;
    }
    Ok(exit)
}

/// The last broker gets a small disk, where this process may make one.
fn small_disk(chaos: &Chaos, brokers: &[Broker]) -> Option<(usize, SmallDisk)> {
    let victim = brokers.len().checked_sub(1)?;
    let records = chaos.minutes_ms as f64 / 1000.0 * chaos.records_per_second;
    let bytes = SMALL_DISK_BYTES + records as u64 * RECORD_BYTES;
    match SmallDisk::mount(&brokers[victim].home, bytes) {
        Ok(disk) => {
            let (name, mib) = (brokers[victim].id, bytes >> 20);
            chaos.story.line(&format!("broker{name} has a disk of {mib} MiB, to be filled"));
            Some((victim, disk))
        }
        Err(reason) => {
            chaos.story.line(&format!("no full disks here: {reason}"));
            None
        }
    }
}

struct Chaos {
    clock: SharedClock,
    story: Story,
    seed: u64,
    run: String,
    minutes_ms: u64,
    records_per_second: f64,
}

/// Everybody but the nemesis.
struct Cast {
    course: Course,
    stage: Sender<Stage>,
    producers: JoinSet<()>,
    followers: Vec<Follower>,
    others: JoinSet<()>,
}

impl Chaos {
    /// Forms a cluster, breaks it, and checks it. Also says whether nothing was found.
    async fn with_nemesis(&self, nemesis: &mut Nemesis) -> anyhow::Result<(ExitCode, bool)> {
        let mut wishes = Wishes::new()?;
        let formed = async {
            nemesis.heal().await?;
            nemesis.all_answer(FORMING_MAX).await
        };
        let formed = tokio::select! {
            formed = formed => formed,
            exit = wishes.next() => return Ok((ExitCode::from(exit), true)),
        };
        if let Err(reason) = formed {
            self.story.tell(&format!("no cluster came about: {reason}"));
            return Ok((ExitCode::FAILURE, false));
        }
        self.story.tell("the cluster serves; the load begins");
        let addresses = nemesis.brokers.iter().map(|broker| broker.line.to_string()).collect();
        let mut cast = self.cast(addresses, Http::new()?);
        let witness = Arc::clone(&cast.course.witness);
        let mut exit = EXIT_DONE;
        let until_ms = self.clock.monotonic_ms() + self.minutes_ms;
        tokio::select! {
            ended = nemesis.run(until_ms) => ended.unwrap_or_else(|reason| {
                self.story.tell(&reason);
                witness.wrong(reason);
            }),
            ended = wishes.next() => exit = ended,
        }
        self.story.tell("healing everything");
        let ended = async {
            let healed = async {
                nemesis.heal().await?;
                nemesis.all_answer(FORMING_MAX).await
            };
            if let Err(reason) = healed.await {
                self.story.tell(&reason);
                witness.wrong(reason);
            }
            self.end(&mut cast).await
        };
        let copies = tokio::select! {
            copies = ended => copies,
            // Once more: nobody wants to wait for the checks.
            exit = wishes.next() => return Ok((ExitCode::from(exit), true)),
        };
        for broker in &mut nemesis.brokers {
            if let Err(reason) = broker.end().await {
                witness.wrong(reason);
            }
            let panics = broker.panics();
            panics
                .into_iter()
                .for_each(|line| witness.wrong(format!("broker{}: {line}", broker.id)));
        }
        self.check_folders(nemesis, &witness);
        let disk_bytes = nemesis.brokers.iter().map(Broker::disk_bytes).collect();
        let report = Report { broken: Some(nemesis.broken), copies, disk_bytes };
        Ok(self.close(cast, witness, &report, exit))
    }

    /// What the brokers left behind must be whole, and the same on all of them.
    fn check_folders(&self, nemesis: &Nemesis, witness: &Witness) {
        let dirs: Vec<_> = nemesis.brokers.iter().map(|broker| broker.data.clone()).collect();
        let mut findings = Findings::default();
        match folders::check(&dirs, &mut findings) {
            Ok(Checked { batches, compared, .. }) => self.story.tell(&format!(
                "the folders hold {batches} batches; {compared} entries compared between brokers"
            )),
            Err(error) => witness.wrong(format!("the folders cannot be checked: {error:#}")),
        }
        findings.lines().for_each(|line| witness.wrong(line));
    }

    /// Loads and checks a cluster that somebody else breaks.
    async fn against(&self, addresses: Vec<String>) -> anyhow::Result<ExitCode> {
        let mut wishes = Wishes::new()?;
        if let Err(reason) = self.all_serve(&addresses, FORMING_MAX.as_millis() as u64).await {
            bail!("{reason}: before the load begins every broker must serve");
        }
        self.story.tell("the cluster serves; the load begins");
        let mut cast = self.cast(addresses.clone(), Http::new()?);
        let witness = Arc::clone(&cast.course.witness);
        let mut exit = EXIT_DONE;
        tokio::select! {
            () = sleep(Duration::from_millis(self.minutes_ms)) => {}
            ended = wishes.next() => exit = ended,
        }
        self.story.tell("waiting for every broker to serve");
        let ended = async {
            if let Err(reason) = self.all_serve(&addresses, AGAINST_ANSWER_MAX_MS).await {
                self.story.tell(&reason);
                witness.wrong(reason);
            }
            self.end(&mut cast).await
        };
        let copies = tokio::select! {
            copies = ended => copies,
            exit = wishes.next() => return Ok(ExitCode::from(exit)),
        };
        let report = Report { broken: None, copies, disk_bytes: Vec::new() };
        Ok(self.close(cast, witness, &report, exit).0)
    }

    async fn all_serve(&self, addresses: &[String], limit_ms: u64) -> Result<(), String> {
        let until_ms = self.clock.monotonic_ms() + limit_ms;
        for address in addresses {
            while let Err(reason) = nemesis::serves(address, &self.clock).await {
                if self.clock.monotonic_ms() >= until_ms {
                    return Err(format!("{address} does not serve ({reason})"));
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }

    /// Starts the load and those who look on.
    fn cast(&self, addresses: Vec<String>, http: Http) -> Cast {
        let count = addresses.len();
        let witness = Arc::new(Witness::new(&self.run, self.clock.clone()));
        let (course, stage) =
            Course::new(addresses, witness, self.clock.clone(), &self.run, self.seed);
        let (mut producers, mut others) = (JoinSet::new(), JoinSet::new());
        let rate = self.records_per_second / f64::from(PLAIN_PRODUCERS + ONCE_PRODUCERS + 1);
        for number in 0..PLAIN_PRODUCERS + ONCE_PRODUCERS {
            let once = number >= PLAIN_PRODUCERS;
            producers.spawn(ProducerTask::new(course.clone(), number, once, rate).run());
        }
        let number = PLAIN_PRODUCERS + ONCE_PRODUCERS;
        producers.spawn(product::run(course.clone(), number, rate));
        let mut followers = Vec::new();
        // One that acknowledges at once, and two that keep records for a while.
        let habits =
            [(Topics::All, 200..800), (Topics::Even, 1_000..4_000), (Topics::Odd, 500..6_000)];
        for (number, (topics, acks_every_ms)) in (1..).zip(habits) {
            let (task, reached) = ConsumerTask::new(course.clone(), number, topics, acks_every_ms);
            others.spawn(task.run());
            followers.push((topics, reached));
        }
        for number in 0..count {
            others.spawn(watch::ends(course.clone(), number));
        }
        others.spawn(watch::leaders(course.clone(), self.story.clone(), http));
        Cast { course, stage, producers, followers, others }
    }

    /// Nothing is broken any more: settles, and reads what every broker holds.
    async fn end(&self, cast: &mut Cast) -> Vec<u64> {
        let Cast { course, stage, producers, followers, .. } = cast;
        ending::settle(course, stage, producers, followers, &self.story).await;
        self.story.tell("reading every broker's copy from start to end");
        ending::read_copies(course).await
    }

    /// The last lines.
    fn close(
        &self,
        mut cast: Cast,
        witness: Arc<Witness>,
        report: &Report,
        exit: u8,
    ) -> (ExitCode, bool) {
        cast.others.abort_all();
        self.story.tell("judging");
        let is_clean = report.tell(&self.story, &witness, self.seed);
        (if is_clean { ExitCode::from(exit) } else { ExitCode::FAILURE }, is_clean)
    }
}

/// Ctrl-C and SIGTERM: the wishes to end.
struct Wishes {
    interrupt: Signal,
    terminate: Signal,
}

impl Wishes {
    fn new() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one; gives its exit code.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => EXIT_INTERRUPTED,
            _ = self.terminate.recv() => EXIT_DONE,
        }
    }
}
