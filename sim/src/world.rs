//! The world of one seed: machines, a network, clients and a nemesis, one tick after another.
//!
//! A tick is a millisecond. In each the nemesis acts, what is due on the network is delivered, every
//! broker lives for that millisecond (in an order drawn anew, so that none is always first), and
//! then the clients do. Nothing happens beside that: one thread, no real time.
//!
//! ```text
//! form the cluster ─▶ trouble under load ─▶ heal ─▶ drain ─▶ audit ─▶ the oracle's word
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aklight_common::{BrokerId, Term};
use aklight_log::Fsync;
use aklight_oracle::{Counts, Event};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::client::{self, Audit, Consumer, Kit, Producer, Progress, Stage};
use crate::dice::Dice;
use crate::gates::Gates;
use crate::host::{Host, Site, peer};
use crate::nemesis::{Nemesis, Troubles};
use crate::network::{Link, Net};
use crate::plants::{Plant, Plants};
use crate::teller::{SETTLE_US_MAX, Teller};
use crate::trace::Trace;

/// A tick: the shortest time that tokio's timers know.
const TICK_US: u64 = 1000;

/// Longest time until a new cluster serves on all brokers.
const FORM_US_MAX: u64 = 30_000_000;

/// After healing the load goes on for a while, so that a wrong state can show.
const AFTERMATH_US: u64 = 3_000_000;

/// How often leaders are looked at.
const LOOK_US: u64 = 50_000;

/// How often the plant of a restored backup makes one.
const BACKUP_US: u64 = 3_000_000;

/// How a seed is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variant {
    /// With a bug on purpose.
    pub plant: Option<Plant>,
    /// With brokers that acknowledge what is written, and sync it later.
    pub syncs_later: bool,
}

/// How long what was acknowledged may wait for a sync where that is not done before: some waits of a
/// client, so that processes die in between.
const FSYNC_INTERVAL: Duration = Duration::from_millis(200);

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it breaks.
    pub violations: Vec<String>,
    /// The digest of its trace.
    pub digest: u64,
    /// Simulated time.
    pub simulated_us: u64,
    /// What clients did.
    pub counts: Counts,
    /// What went wrong.
    pub troubles: Troubles,
    /// Changes of the cluster that were done.
    pub changes: u64,
    /// Terms in which somebody led.
    pub elections: u64,
}

struct World {
    site: Site,
    hosts: Vec<Host>,
    nemesis: Nemesis,
    clients: Runtime,
    clients_began: Instant,
    teller: Teller,
    dice: Dice,
    led: std::collections::BTreeSet<(u32, u64)>,
}

/// Runs one seed.
///
/// # Errors
/// When there is no memory for a runtime.
pub fn run(seed: u64, variant: Variant, told: bool) -> std::io::Result<Report> {
    let trace = Trace::new(told);
    let plants = Plants::from(variant.plant);
    let fsync = if variant.syncs_later { Fsync::Interval(FSYNC_INTERVAL) } else { Fsync::Always };
    let net = Net::new(seed, trace.clone(), plants);
    let site = Site { seed, trace: trace.clone(), net, gates: Gates::default(), plants, fsync };
    let mut dice = Dice::named(seed, "world");
    let brokers = if dice.once_in(3) { 5 } else { 3 };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let clients = builder.enable_time().start_paused(true).build()?;
    let clients_began = clients.block_on(async { Instant::now() });
    let peers: Vec<_> = (1..=brokers).map(peer).collect();
    let hosts = (1..=brokers).map(|id| Host::new(site.clone(), id, peers.clone())).collect();
    let mut world = World {
        teller: Teller::new(trace),
        nemesis: Nemesis::new(seed, brokers, plants),
        site,
        hosts,
        clients,
        clients_began,
        dice,
        led: std::collections::BTreeSet::new(),
    };
    world.live(brokers)
}

impl World {
    fn live(&mut self, brokers: u64) -> std::io::Result<Report> {
        for from in 1..=brokers {
            for to in 1..=brokers {
                self.site.net.set_link(from, to, Link::default());
            }
        }
        for host in &mut self.hosts {
            host.start()?;
        }
        while self.site.gates.brokers().len() < self.hosts.len() {
            if self.now_us() > FORM_US_MAX {
                return Ok(self.report(vec!["the cluster is not formed".to_owned()]));
            }
            self.tick()?;
        }
        let (stage, _) = watch::channel(Stage::Load);
        let progress = Arc::new(Progress::default());
        self.start_clients(&stage, &progress);
        let until_us = self.now_us() + self.dice.between(8_000_000, 30_000_000);
        while self.now_us() < until_us {
            self.nemesis.step(&mut self.hosts, &self.site)?;
            self.tick()?;
        }
        self.site.trace.tell(format_args!("HEAL"));
        self.nemesis.heal(&mut self.hosts, &self.site)?;
        self.teller.observe(&Event::Healed { at_us: self.now_us() });
        let healed_us = self.now_us();
        let mut untidy = None;
        while self.now_us() < healed_us + AFTERMATH_US
            || (untidy.is_some() && self.now_us() < healed_us + SETTLE_US_MAX)
        {
            self.nemesis.changes.step(&self.site, &mut self.hosts)?;
            untidy = self.nemesis.changes.tidy(&mut self.hosts)?;
            self.tick()?;
        }
        stage.send_replace(Stage::Drain);
        let audit = Audit::default();
        let kit = self.kit("auditor", &stage, &progress);
        let ids = self.hosts.iter().map(|host| host.id).collect();
        let auditing = self.clients.spawn(client::audit(kit, ids, audit.clone()));
        while !auditing.is_finished() && self.now_us() < healed_us + SETTLE_US_MAX {
            self.tick()?;
        }
        let mut extra = Vec::new();
        if !auditing.is_finished() {
            extra.push(format!("it waits for: {}", untidy.unwrap_or_else(|| audit.lock().clone())));
        }
        Ok(self.report(extra))
    }

    fn now_us(&self) -> u64 {
        self.site.trace.now_us()
    }

    fn tick(&mut self) -> std::io::Result<()> {
        let now_us = self.now_us() + TICK_US;
        self.site.trace.set_now_us(now_us);
        self.site.net.step();
        let mut order: Vec<_> = (0..self.hosts.len()).collect();
        self.dice.shuffle(&mut order);
        for at in order {
            if let Some(host) = self.hosts.get_mut(at) {
                host.step()?;
            }
        }
        let until = self.clients_began + Duration::from_micros(now_us);
        self.clients.block_on(async { tokio::time::sleep_until(until).await });
        if now_us.is_multiple_of(LOOK_US) {
            self.look();
        }
        if self.site.plants.restored_backup && now_us.is_multiple_of(BACKUP_US) {
            self.hosts.iter_mut().for_each(Host::back_up);
        }
        Ok(())
    }

    /// Who leads?
    fn look(&mut self) {
        for host in self.hosts.iter().filter(|host| !host.is_stopped) {
            let leads = host.look(|node| {
                let own = node.services().pulse.own();
                own.groups.into_iter().filter(|group| group.leads).collect::<Vec<_>>()
            });
            for group in leads.into_iter().flatten() {
                if self.led.insert((group.group, group.term)) {
                    self.site.trace.tell(format_args!(
                        "broker {} leads group {} in term {}",
                        host.id, group.group, group.term
                    ));
                }
                let (term, broker) = (Term(group.term), BrokerId(host.id));
                self.teller.observe(&Event::Led { group: group.group, term, broker });
            }
        }
    }

    fn kit(&self, name: &str, stage: &watch::Sender<Stage>, progress: &Arc<Progress>) -> Kit {
        Kit {
            dice: Dice::named(self.site.seed, name),
            gates: self.site.gates.clone(),
            teller: self.teller.clone(),
            stage: stage.subscribe(),
            progress: progress.clone(),
        }
    }

    fn start_clients(&self, stage: &watch::Sender<Stage>, progress: &Arc<Progress>) {
        let kit = |name: String| self.kit(&name, stage, progress);
        for number in 0..4 {
            progress.producing.fetch_add(1, Ordering::Relaxed);
            let producer = Producer { number, once: number % 2 == 0 };
            self.clients.spawn(client::produce(producer, kit(format!("producer {number}"))));
        }
        let wants = [None, Some(vec![1]), Some(vec![0, 2]), None];
        for (number, topics) in (0..).zip(wants) {
            let consumer = Consumer { number, topics, persistent: number < 3 };
            self.clients.spawn(client::consume(consumer, kit(format!("consumer {number}"))));
        }
        for number in 0..2 {
            self.clients.spawn(client::read(kit(format!("reader {number}"))));
        }
    }

    fn report(&self, extra: Vec<String>) -> Report {
        let counts = self.teller.counts();
        let (violations, left_out) = self.teller.finish();
        let mut texts: Vec<_> = violations.iter().map(ToString::to_string).collect();
        if left_out > 0 {
            texts.push(format!("and {left_out} more"));
        }
        texts.extend(extra);
        for host in &self.hosts {
            if let Some(why) = host.refusal.as_ref().filter(|_| !texts.is_empty()) {
                texts.push(format!("broker {} once refused to start: {why}", host.id));
            }
        }
        Report {
            violations: texts,
            digest: self.site.trace.digest(),
            simulated_us: self.now_us(),
            counts,
            troubles: self.nemesis.troubles,
            changes: self.nemesis.changes.done,
            elections: self.led.len() as u64,
        }
    }
}
