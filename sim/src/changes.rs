//! Changes of the cluster while it runs: what people ask of it, in the middle of trouble.
//!
//! A change is asked of some broker, by the code that answers `aklight cluster …`, and takes as long
//! as it takes; the broker may die over it. Then nobody knows whether it was done, and the cluster
//! itself tells: a broker whose number is retired has been removed.

use std::sync::Arc;

use aklight_broker::cluster::{ClusterView, control, status};
use aklight_broker::sessions::Standing;
use aklight_common::BrokerId;
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::host::{Down, Host, Site, peer};
use crate::network::Link;

/// Most brokers of a simulated cluster, removed ones included: two more than vote.
const BROKERS_MAX: u64 = 7;

/// A change that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A group gets another leader.
    Move,
    /// A broker comes.
    Add,
    /// A broker goes.
    Remove,
    /// A broker comes for one that is gone.
    Replace,
}

type Answer = Arc<Mutex<Option<bool>>>;

/// Asks for changes, and does to the machines what people would.
pub struct Changes {
    dice: Dice,
    last_id: u64,
    /// Answers that are waited for, and the broker that comes when they are good.
    pending: Vec<(Answer, Option<u64>)>,
    /// How many were asked for.
    pub asked: u64,
    /// How many were done.
    pub done: u64,
}

impl Changes {
    /// No change yet in a cluster of brokers up to `last_id`.
    #[must_use]
    pub fn new(seed: u64, last_id: u64) -> Self {
        let dice = Dice::named(seed, "changes");
        Self { dice, last_id, pending: Vec::new(), asked: 0, done: 0 }
    }

    /// Whether answers are still waited for.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Asks some broker for a change. One that is `frail`, its disk being damaged now and then,
    /// is the only one that is ever given up, and three at least stay: of two disks, or of two that
    /// are left of three, none may be lost.
    pub fn ask(&mut self, change: Change, frail: Option<u64>, hosts: &mut [Host]) {
        // One after another, as a careful person would; moving a leader hurts nobody.
        if change != Change::Move && self.is_pending() {
            return;
        }
        let comes = matches!(change, Change::Add | Change::Replace).then_some(self.last_id + 1);
        if comes.is_some_and(|id| id > BROKERS_MAX) {
            return;
        }
        let all: Vec<_> = hosts.iter().map(|host| host.id).collect();
        let Some(mut of) = self.dice.pick(&all).copied() else { return };
        if let Some(frail) = frail {
            let members = |host: &Host| host.look(|n| n.services().sessions.metadata().brokers());
            let members = hosts.iter().filter_map(members).map(|all| all.len()).min();
            if change == Change::Remove && members.is_none_or(|members| members <= 3) {
                return;
            }
            if change == Change::Replace {
                of = frail;
            }
        }
        if change == Change::Replace
            && let Some(host) = hosts.iter_mut().find(|host| host.id == of)
        {
            host.crash(Down::Power);
            host.is_scrapped = true;
        }
        let group = ["metadata", "partition 0", "partition 1"];
        let group = self.dice.pick(&group).copied().unwrap_or("metadata");
        let serving: Vec<_> =
            hosts.iter().filter(|host| host.id != of && !host.is_stopped).collect();
        let Some(asked) = self.dice.pick(&serving).copied() else { return };
        let answer = Answer::default();
        let slot = answer.clone();
        let spawned = asked.spawn(move |services| async move {
            let of = BrokerId(of);
            let new = BrokerId(comes.unwrap_or_default());
            let address = peer(new.0).address;
            let done = match change {
                Change::Move => control::transfer_leader(&services, group, of).await,
                Change::Add => control::add(&services, new, &address).await,
                Change::Remove => control::remove(&services, of).await,
                Change::Replace => control::replace(&services, of, new, &address).await,
            };
            *slot.lock() = Some(done.is_ok());
        });
        if spawned {
            self.asked += 1;
            self.last_id = comes.unwrap_or(self.last_id);
            self.pending.push((answer, comes));
        }
    }

    /// Takes answers that have come; a broker that was asked for is switched on.
    ///
    /// # Errors
    /// When a machine cannot be switched on.
    pub fn step(&mut self, site: &Site, hosts: &mut Vec<Host>) -> std::io::Result<()> {
        for (answer, comes) in std::mem::take(&mut self.pending) {
            let done = *answer.lock();
            match (done, comes) {
                (None, _) if Arc::strong_count(&answer) > 1 => self.pending.push((answer, comes)),
                (Some(true), comes) => {
                    self.done += 1;
                    if let Some(id) = comes {
                        let peers = hosts.iter().map(|host| host.id).chain([id]).map(peer);
                        let mut host = Host::new(site.clone(), id, peers.collect());
                        for other in hosts.iter() {
                            site.net.set_link(id, other.id, Link::default());
                            site.net.set_link(other.id, id, Link::default());
                        }
                        host.start()?;
                        hosts.push(host);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes away machines whose brokers were removed, once they have ended and no group needs them
    /// any more, and brings those back that were to be replaced and are not. Says what is still
    /// waited for.
    ///
    /// # Errors
    /// When a machine cannot be switched on.
    pub fn tidy(&self, hosts: &mut Vec<Host>) -> std::io::Result<Option<String>> {
        let views: Vec<_> =
            hosts.iter().filter_map(|host| host.look(|node| status(node.services()))).collect();
        let retired = |of: &Host, hosts: &[Host]| {
            hosts.iter().any(|host| {
                let standing = host
                    .look(|node| node.services().sessions.metadata().standing(BrokerId(of.id), ""));
                standing == Some(Standing::Retired)
            })
        };
        let removed: Vec<_> =
            hosts.iter().filter(|host| retired(host, hosts)).map(|host| host.id).collect();
        let is_over = |host: &Host| !host.is_up() && !is_needed(host.id, &views);
        hosts.retain(|host| !removed.contains(&host.id) || !is_over(host));
        let is_removed = |host: &Host| removed.contains(&host.id);
        if self.is_pending() {
            return Ok(Some("answers to changes that were asked for".to_owned()));
        }
        for host in hosts.iter_mut().filter(|host| host.is_scrapped && !is_removed(host)) {
            host.is_scrapped = false;
            host.start()?;
        }
        let staying = hosts.iter().find(|host| is_removed(host));
        Ok(staying
            .map(|host| format!("broker {}, which was removed, to be needed no more", host.id)))
    }
}

/// Whether a broker votes in a group, in the eyes of everybody who knows all groups' leaders.
fn is_needed(id: u64, views: &[ClusterView]) -> bool {
    let goes_on = |view: &ClusterView| {
        view.groups.iter().all(|group| !group.replicas.is_empty() && !group.voters.contains(&id))
    };
    !views.iter().any(goes_on)
}
