//! What goes wrong, when, and for how long, by seed.
//!
//! Each seed has a temper: a few kinds of trouble that it likes, how often, how many at once. So
//! some seeds are nothing but partitions, others crash in the middle of slow disks. Trouble ends by
//! itself after a while, and all of it when the simulation heals.

use aklight_log::Fsync;

use crate::changes::{Change, Changes};
use crate::dice::Dice;
use crate::host::{Down, Host, Site};
use crate::network::{Link, Net};
use crate::plants::Plants;

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Isolate,
    OneWay,
    Split,
    CutLink,
    BadLinks,
    CrashOne,
    CrashLeader,
    CrashSome,
    CrashAll,
    Restart,
    Stop,
    SlowDisk,
    FullDisk,
    FailingSync,
    ClockJump,
    ResetClients,
    Damage,
    MoveLeader,
    AddBroker,
    RemoveBroker,
    ReplaceBroker,
}

const KINDS: [Kind; 21] = [
    Kind::Isolate,
    Kind::OneWay,
    Kind::Split,
    Kind::CutLink,
    Kind::BadLinks,
    Kind::CrashOne,
    Kind::CrashLeader,
    Kind::CrashSome,
    Kind::CrashAll,
    Kind::Restart,
    Kind::Stop,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::FailingSync,
    Kind::ClockJump,
    Kind::ResetClients,
    Kind::Damage,
    Kind::MoveLeader,
    Kind::AddBroker,
    Kind::RemoveBroker,
    Kind::ReplaceBroker,
];

/// What ends again.
#[derive(Debug, Clone, Copy)]
enum End {
    Links,
    Of(u64, Of),
}

/// What ends on one machine.
#[derive(Debug, Clone, Copy)]
enum Of {
    Start,
    Resume,
    FastDisk,
    RoomAgain,
    /// A log that failed takes writes again only after a restart.
    PowerCycle,
}

/// What went wrong so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Troubles {
    /// Brokers that crashed.
    pub crashes: u64,
    /// Networks that were cut in some way.
    pub partitions: u64,
    /// Brokers that were stopped.
    pub stops: u64,
    /// Disks that were slow, full or failing.
    pub disks: u64,
    /// Disks that were damaged.
    pub damages: u64,
    /// Everything.
    pub all: u64,
}

/// Makes trouble.
pub struct Nemesis {
    dice: Dice,
    likes: Vec<Kind>,
    next_us: u64,
    pause_us_max: u64,
    ends: Vec<(u64, End)>,
    /// The one broker whose disk may be damaged: what a minority lost, the others have.
    unlucky: u64,
    /// What went wrong so far.
    pub troubles: Troubles,
    /// Changes of the cluster.
    pub changes: Changes,
}

impl Nemesis {
    /// The nemesis of a seed, for so many brokers. Where a bug is planted, the trouble that brings
    /// it out is always there.
    #[must_use]
    pub fn new(seed: u64, brokers: u64, plants: Plants) -> Self {
        let mut dice = Dice::named(seed, "nemesis");
        let mut likes = KINDS.to_vec();
        dice.shuffle(&mut likes);
        likes.truncate(usize::try_from(dice.between(2, 7)).unwrap_or(2));
        if plants.any() {
            likes.extend([Kind::CrashAll, Kind::CrashAll, Kind::Isolate, Kind::ResetClients]);
        }
        let pause_us_max = dice.between(1_000_000, 6_000_000);
        let unlucky = dice.between(1, brokers);
        let troubles = Troubles::default();
        let (ends, changes) = (Vec::new(), Changes::new(seed, brokers));
        Self { dice, likes, next_us: 0, pause_us_max, ends, unlucky, troubles, changes }
    }

    /// Makes the trouble that is due now, and ends what is over.
    ///
    /// # Errors
    /// When a machine cannot be switched on.
    pub fn step(&mut self, hosts: &mut Vec<Host>, site: &Site) -> std::io::Result<()> {
        let (now_us, net) = (site.trace.now_us(), &site.net);
        self.changes.step(site, hosts)?;
        self.end_what_is_over(now_us, hosts, net)?;
        if now_us < self.next_us {
            return Ok(());
        }
        self.next_us = now_us + self.dice.between(50_000, self.pause_us_max);
        let Some(kind) = self.dice.pick(&self.likes).copied() else { return Ok(()) };
        site.trace.tell(format_args!("TROUBLE {kind:?}"));
        self.troubles.all += 1;
        let until_us = now_us + self.dice.between(100_000, 8_000_000);
        let frail = self.likes.contains(&Kind::Damage).then_some(self.unlucky);
        match kind {
            Kind::Isolate | Kind::OneWay | Kind::Split | Kind::CutLink => {
                self.troubles.partitions += 1;
                self.cut(kind, hosts, net);
                self.ends.push((until_us, End::Links));
            }
            Kind::BadLinks => {
                self.spoil_links(hosts, net);
                self.ends.push((until_us, End::Links));
            }
            Kind::CrashOne | Kind::CrashLeader | Kind::CrashSome | Kind::CrashAll => {
                self.crash(kind, hosts, now_us);
            }
            Kind::Restart => self.restart(hosts, now_us),
            Kind::Stop => self.stop(hosts, until_us),
            Kind::SlowDisk | Kind::FullDisk | Kind::FailingSync => {
                self.troubles.disks += 1;
                self.spoil_disk(kind, hosts, until_us);
            }
            Kind::Damage if site.fsync != Fsync::Always => {}
            Kind::Damage => self.damage(hosts, now_us),
            Kind::ClockJump => {
                let off_us = i64::try_from(self.dice.below(7_200_000_000)).unwrap_or(0);
                if let Some(host) = self.some_up(hosts) {
                    host.clock().set_off_us(off_us - 3_600_000_000);
                }
            }
            Kind::ResetClients => {
                if let Some(host) = self.some_up(hosts) {
                    host.reset_clients();
                }
            }
            Kind::MoveLeader => self.changes.ask(Change::Move, frail, hosts),
            Kind::AddBroker => self.changes.ask(Change::Add, frail, hosts),
            Kind::RemoveBroker => self.changes.ask(Change::Remove, frail, hosts),
            Kind::ReplaceBroker => self.changes.ask(Change::Replace, frail, hosts),
        }
        Ok(())
    }

    /// Ends all trouble.
    ///
    /// # Errors
    /// When a machine cannot be switched on.
    pub fn heal(&mut self, hosts: &mut [Host], site: &Site) -> std::io::Result<()> {
        self.end_what_is_over(u64::MAX, hosts, &site.net)?;
        site.net.set_links(&Link::default());
        for host in hosts {
            host.clock().set_off_us(0);
            if host.log_failed() || host.is_ending() {
                host.crash(Down::Kill);
            }
            host.start()?;
        }
        Ok(())
    }

    fn end_what_is_over(
        &mut self,
        now_us: u64,
        hosts: &mut [Host],
        net: &Net,
    ) -> std::io::Result<()> {
        let ends = std::mem::take(&mut self.ends);
        let (over, going_on): (Vec<_>, Vec<_>) =
            ends.into_iter().partition(|(at, _)| *at <= now_us);
        self.ends = going_on;
        for (_, end) in over {
            let End::Of(id, end) = end else {
                net.set_links(&Link::default());
                continue;
            };
            let Some(host) = hosts.iter_mut().find(|host| host.id == id) else { continue };
            match end {
                Of::Start => host.start()?,
                Of::Resume if host.is_stopped => host.resume(),
                Of::Resume => {}
                Of::FastDisk => host.pace.slow_down(None),
                Of::RoomAgain => host.disk().lift_limit(),
                Of::PowerCycle => {
                    host.disk().clear_faults();
                    host.crash(Down::Power);
                    host.start()?;
                }
            }
        }
        Ok(())
    }

    fn some_up<'a>(&mut self, hosts: &'a mut [Host]) -> Option<&'a mut Host> {
        let up: Vec<_> = hosts.iter().filter(|host| host.is_up() && !host.is_stopped).collect();
        let id = self.dice.pick(&up).map(|host| host.id)?;
        hosts.iter_mut().find(|host| host.id == id)
    }

    fn cut(&mut self, kind: Kind, hosts: &[Host], net: &Net) {
        let mut ids: Vec<_> = hosts.iter().map(|host| host.id).collect();
        self.dice.shuffle(&mut ids);
        let size = match kind {
            Kind::Split => self.dice.between(1, ids.len() as u64 / 2),
            _ => 1,
        };
        let (some, others) = ids.split_at(usize::try_from(size).unwrap_or(1));
        let (out, inward) = match kind {
            Kind::OneWay if self.dice.once_in(2) => (true, false),
            Kind::OneWay => (false, true),
            _ => (true, true),
        };
        let others = if kind == Kind::CutLink { &others[..1] } else { others };
        for one in some {
            for other in others {
                if out {
                    net.set_link(*one, *other, Link { is_cut: true, ..net.link(*one, *other) });
                }
                if inward {
                    net.set_link(*other, *one, Link { is_cut: true, ..net.link(*other, *one) });
                }
            }
        }
    }

    fn spoil_links(&mut self, hosts: &[Host], net: &Net) {
        let dice = &mut self.dice;
        let link = Link {
            is_cut: false,
            delay_us_min: 1000,
            delay_us_max: dice.between(2000, 150_000),
            late_once_in: dice.below(20),
            late_us_max: dice.between(10_000, 3_000_000),
            lost_once_in: dice.below(10),
            doubled_once_in: dice.below(10),
        };
        for from in hosts {
            for to in hosts {
                net.set_link(from.id, to.id, link.clone());
            }
        }
    }

    fn crash(&mut self, kind: Kind, hosts: &mut [Host], now_us: u64) {
        let up = hosts.iter().filter(|host| host.is_up()).count() as u64;
        let count = match kind {
            Kind::CrashOne | Kind::CrashLeader => 1,
            Kind::CrashSome => self.dice.between(1, up.saturating_sub(1).max(1)),
            _ => up,
        };
        for _ in 0..count {
            let may = |host: &&Host| host.is_up() && (kind != Kind::CrashLeader || host.leads());
            let up: Vec<_> = hosts.iter().filter(may).map(|host| host.id).collect();
            let Some(id) = self.dice.pick(&up).copied() else { return };
            let Some(host) = hosts.iter_mut().find(|host| host.id == id) else { return };
            let down = if self.dice.once_in(3) { Down::Kill } else { Down::Power };
            host.crash(down);
            self.troubles.crashes += 1;
            // Often back before anybody else is elected: what it did not sync must not be missed.
            let later_us = if self.dice.once_in(3) { 300_000 } else { 6_000_000 };
            let back_us = now_us + self.dice.between(10_000, later_us);
            self.ends.push((back_us, End::Of(id, Of::Start)));
        }
    }

    fn restart(&mut self, hosts: &mut [Host], now_us: u64) {
        if let Some(host) = self.some_up(hosts) {
            host.end();
            let id = host.id;
            let back_us = now_us + self.dice.between(2_000_000, 8_000_000);
            self.ends.push((back_us, End::Of(id, Of::Start)));
        }
    }

    fn stop(&mut self, hosts: &mut [Host], until_us: u64) {
        let Some(host) = self.some_up(hosts) else { return };
        host.stop();
        let id = host.id;
        self.ends.push((until_us, End::Of(id, Of::Resume)));
        self.troubles.stops += 1;
    }

    fn damage(&mut self, hosts: &mut [Host], now_us: u64) {
        let Some(host) = hosts.iter_mut().find(|host| host.id == self.unlucky) else { return };
        if host.is_scrapped {
            return;
        }
        host.crash(Down::Kill);
        host.damage(&mut self.dice);
        self.troubles.damages += 1;
        let back_us = now_us + self.dice.between(10_000, 3_000_000);
        self.ends.push((back_us, End::Of(self.unlucky, Of::Start)));
    }

    fn spoil_disk(&mut self, kind: Kind, hosts: &mut [Host], until_us: u64) {
        let (slowest_us, room) =
            (self.dice.between(10_000, 500_000), self.dice.between(0, 200 << 10));
        let syncs = usize::try_from(self.dice.below(20)).unwrap_or(0);
        let Some(host) = self.some_up(hosts) else { return };
        let id = host.id;
        match kind {
            Kind::SlowDisk => {
                host.pace.slow_down(Some(slowest_us));
                self.ends.push((until_us, End::Of(id, Of::FastDisk)));
            }
            Kind::FullDisk => {
                let used: u64 = host.disk().files().iter().map(|(_, bytes)| bytes).sum();
                host.disk().limit(used + room);
                self.ends.push((until_us, End::Of(id, Of::RoomAgain)));
            }
            _ => {
                host.disk().fail("sync", ".log", syncs, std::io::ErrorKind::Other);
                self.ends.push((until_us, End::Of(id, Of::PowerCycle)));
            }
        }
    }
}
