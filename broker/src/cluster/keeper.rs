//! Sees that copies and leaders are where the metadata wants them.
//!
//! Each broker looks once a second at the groups that it leads, and takes the next step that is
//! due: give a new broker a copy, give a copy that has caught up a vote, take both from a broker
//! that was removed, hand the lead to the broker that shall have it. One step at a time, each of
//! them safe by itself, and every new leader goes on where the last one stopped.
//!
//! Who shall lead: the broker that a person chose, else voters take turns over the groups, so that
//! leaders are spread evenly and spread again when a broker is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aklight_common::{BrokerId, RaftIndex};
use tokio::time::{Instant, sleep};

use super::forming::was_let_go;
use crate::data_dir::DataDir;
use crate::replication::{Group, GroupId, Peer, Role, View};
use crate::services::{Ending, Services};
use crate::sessions::{BrokerInfo, MetaCommand, Standing};

/// Most brokers whose word counts in a group: five bear the loss of two, and each more makes every
/// write slower. Further ones learn.
pub const VOTERS_MAX: usize = 5;

/// Time between two looks.
const ROUND: Duration = Duration::from_secs(1);

/// How long a broker must have been back before it is given leaders: it catches up first.
const BACK_FOR: Duration = Duration::from_secs(5);

/// Shortest life of a broker before it starts itself anew for a log that takes no more writes: a disk
/// that refuses again and again must not keep it from serving reads.
const RENEW_EVERY: Duration = Duration::from_secs(15);

/// Time between two tries to move one leader.
const MOVE_EVERY: Duration = Duration::from_secs(10);

/// Entries that a copy may lack to count as caught up: a fraction of a second of writing.
const BEHIND_MAX: u64 = 64;

/// Keeps things where they should be until the broker ends; `own` is what this broker says of
/// itself.
pub async fn keep(services: Arc<Services>, data_dir: Arc<DataDir>, own: BrokerInfo) {
    let stopping = services.stopping.clone();
    for group in groups(&services) {
        tokio::spawn(
            stopping
                .clone()
                .run_until_cancelled_owned(tell_leaders(services.clone(), group.clone())),
        );
    }
    let started = Instant::now();
    let moved = BTreeMap::new();
    let mut keeper = Keeper { services, data_dir, own, started, moved };
    let rounds = async {
        loop {
            keeper.round().await;
            sleep(ROUND).await;
        }
    };
    stopping.run_until_cancelled(rounds).await;
}

fn groups(services: &Services) -> impl Iterator<Item = &Group> {
    let partitions = services.partitions.iter().map(crate::partition::Partition::group);
    std::iter::once(services.sessions.group()).chain(partitions)
}

/// Notes every change of leader, for people.
async fn tell_leaders(services: Arc<Services>, group: Group) {
    let mut roles = group.roles();
    let mut known = None;
    loop {
        let now = roles.borrow_and_update().leader(services.broker);
        if now != known {
            let (id, term) = (group.id(), group.view().term.0);
            let text = match now {
                Some(leader) => format!("{id}: broker {leader} leads (term {term})"),
                None => format!("{id}: no leader (term {term}), an election is due"),
            };
            services.events.info("leader", text);
            known = now;
        }
        if roles.changed().await.is_err() {
            return;
        }
    }
}

struct Keeper {
    services: Arc<Services>,
    data_dir: Arc<DataDir>,
    own: BrokerInfo,
    started: Instant,
    /// When a leader was last asked to move.
    moved: BTreeMap<GroupId, Instant>,
}

impl Keeper {
    async fn round(&mut self) {
        let services = self.services.clone();
        let brokers = services.sessions.metadata().brokers();
        for (id, info) in brokers.iter().filter(|(_, info)| !info.peer.is_empty()) {
            services.peers.set_address(*id, &info.peer);
        }
        let standing =
            services.sessions.metadata().standing(services.broker, &self.own.incarnation);
        let is_removed = standing == Standing::Retired || services.pulse.says_removed();
        if is_removed {
            self.go_if_needed_no_more().await;
        } else {
            self.note_others(&brokers);
            self.announce(&brokers, standing).await;
        }
        for group in groups(&services) {
            self.renew_if_broken(group);
            if matches!(group.role(), Role::Leads(_)) {
                self.step(group, &brokers, is_removed).await;
            }
        }
    }

    /// Starts this broker anew when that mends it: its copy is damaged, or takes no more writes
    /// (a disk that was full when an entry came), and others have what it lacks.
    fn renew_if_broken(&self, group: &Group) {
        let services = &self.services;
        if services.ending.borrow().is_some() {
            return;
        }
        let why = match group.status().failed {
            _ if group.is_damaged() => "is damaged on this disk".to_owned(),
            Some(why) if self.started.elapsed() >= RENEW_EVERY && group.may_be_renewed() => {
                format!("takes no more writes ({why})")
            }
            _ => return,
        };
        let id = group.id();
        services.events.error(
            "renew",
            format!("{id} {why}: starting anew, to mend it from the other brokers"),
        );
        services.ending.send_replace(Some(Ending::Renew));
    }

    /// Ends this broker, which was removed, when no group needs it to go on without it: it would show
    /// clients what gets older and older.
    async fn go_if_needed_no_more(&self) {
        let services = &self.services;
        if services.ending.borrow().is_some()
            || !was_let_go(&services.peers, &self.own.incarnation).await
        {
            return;
        }
        self.data_dir.set_removed();
        services.events.error(
            "removed",
            "this broker was removed from its cluster and nobody counts on it any more: it ends",
        );
        services.ending.send_replace(Some(Ending::Removed));
    }

    /// Keeps beside the logs who else is of the cluster.
    fn note_others(&self, brokers: &BTreeMap<BrokerId, BrokerInfo>) {
        if brokers.is_empty() {
            // The cluster has not begun.
            return;
        }
        let joined = |info: &BrokerInfo| !info.incarnation.is_empty() && !info.peer.is_empty();
        let others =
            brokers.iter().filter(|(id, info)| **id != self.services.broker && joined(info));
        let others = others.map(|(id, info)| (id.0, info.peer.clone())).collect();
        if let Err(error) = self.data_dir.set_others(others) {
            tracing::warn!(%error, "who else is of the cluster is not noted");
        }
    }

    /// Says where this broker is, when the others know something else.
    async fn announce(&self, brokers: &BTreeMap<BrokerId, BrokerInfo>, standing: Standing) {
        let me = self.services.broker;
        let is_known = brokers.get(&me) == Some(&self.own);
        let may = matches!(standing, Standing::Member | Standing::Expected)
            || (brokers.is_empty() && standing == Standing::Unknown);
        if is_known || !may {
            return;
        }
        let announce = MetaCommand::Announce { broker: me.0, info: self.own.clone() };
        if let Err(error) = self.services.sessions.write(&announce).await {
            tracing::debug!(%error, "the others do not know yet where this broker is");
        }
    }

    /// Takes the next step that is due in a group that this broker leads.
    async fn step(
        &mut self,
        group: &Group,
        brokers: &BTreeMap<BrokerId, BrokerInfo>,
        is_removed: bool,
    ) {
        let view = group.view();
        let joined =
            |(id, info): (&BrokerId, &BrokerInfo)| (!info.incarnation.is_empty()).then_some(*id);
        let wanted: BTreeSet<_> = brokers.iter().filter_map(joined).collect();
        let step = match (is_removed, wanted.contains(&self.services.broker)) {
            // What else it knows of the cluster may be old.
            (true, _) => Step::HandOver,
            (false, true) => next_step(&view, &wanted),
            (false, false) => return,
        };
        let id = group.id();
        let done = match &step {
            Step::None => return self.lead_or_move(group, &view).await,
            Step::Learn(broker) => {
                let address = brokers.get(broker).map(|info| info.peer.clone());
                let peer = Peer { id: *broker, address: address.unwrap_or_default() };
                group.add_learner(&peer).await
            }
            Step::Vote(voters) => group.set_voters(voters).await,
            Step::Forget(learners) => group.remove_learners(learners).await,
            Step::HandOver => {
                // Each try that fails costs an election: only to one that can take it, now and then.
                let pulse = &self.services.pulse;
                let can = |heir: &&BrokerId| {
                    wanted.contains(heir)
                        && pulse.alive_for(**heir).is_some()
                        && has_caught_up(&view, **heir)
                };
                let heir = view.members.voters.iter().find(can).copied();
                let Some(heir) = heir.filter(|_| self.may_move(id)) else { return };
                group.transfer_to(heir).await
            }
        };
        match done {
            Ok(()) => self.services.events.info("members", format!("{id}: {step}")),
            Err(error) => {
                tracing::warn!(group = %id, %step, %error, "not done yet; it is tried again");
            }
        }
    }

    /// Whether the lead of a group may be moved again; from then on it may not, for a while.
    fn may_move(&mut self, id: GroupId) -> bool {
        let now = Instant::now();
        let moved = self.moved.get(&id).is_some_and(|at| now.duration_since(*at) < MOVE_EVERY);
        if !moved {
            self.moved.insert(id, now);
        }
        !moved
    }

    /// Hands the lead to the broker that shall have it, once that one is ready for it.
    async fn lead_or_move(&mut self, group: &Group, view: &View) {
        let services = &self.services;
        let id = group.id();
        let Some(chosen) = chosen(id, view, services.sessions.metadata().preferred(id)) else {
            return;
        };
        let is_ready = services.pulse.alive_for(chosen).is_some_and(|time| time >= BACK_FOR)
            && has_caught_up(view, chosen);
        if chosen == services.broker || !is_ready || !self.may_move(id) {
            return;
        }
        self.services.events.info("leader", format!("{id}: handing the lead to broker {chosen}"));
        if let Err(error) = group.transfer_to(chosen).await {
            tracing::warn!(group = %id, %error, "the lead was not handed over");
        }
    }
}

/// What is to be done next in a group.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// All is as it should be.
    None,
    /// A broker gets a copy.
    Learn(BrokerId),
    /// These become the voters.
    Vote(BTreeSet<BrokerId>),
    /// These lose their copies, which have no vote.
    Forget(BTreeSet<BrokerId>),
    /// This broker was removed: another shall lead, and take its copy away.
    HandOver,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |ids: &BTreeSet<BrokerId>| {
            ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::None => f.write_str("nothing to do"),
            Self::Learn(broker) => write!(f, "broker {broker} gets a copy"),
            Self::Vote(voters) => write!(f, "the voters are {}", list(voters)),
            Self::Forget(gone) => write!(f, "no copy any more on {}", list(gone)),
            Self::HandOver => f.write_str("this broker was removed and hands the lead over"),
        }
    }
}

fn next_step(view: &View, wanted: &BTreeSet<BrokerId>) -> Step {
    if wanted.is_empty() {
        return Step::None;
    }
    let voters = &view.members.voters;
    let target = target_voters(voters, wanted);
    if view.members.changing {
        return Step::Vote(voters.intersection(&target).copied().collect());
    }
    let has_copy = |id: &&BrokerId| voters.contains(id) || view.members.learners.contains(id);
    if let Some(new) = wanted.iter().find(|id| !has_copy(id)) {
        return Step::Learn(*new);
    }
    let ready = target.difference(voters).find(|id| has_caught_up(view, **id));
    if let Some(ready) = ready {
        return Step::Vote(voters.iter().chain([ready]).copied().collect());
    }
    let staying: BTreeSet<_> = voters.intersection(wanted).copied().collect();
    if !staying.is_empty() && staying.len() < voters.len() {
        return Step::Vote(staying);
    }
    let gone: BTreeSet<_> = view.members.learners.difference(wanted).copied().collect();
    if gone.is_empty() { Step::None } else { Step::Forget(gone) }
}

/// Voters stay voters; free places go to the lowest numbers.
pub(super) fn target_voters(
    voters: &BTreeSet<BrokerId>,
    wanted: &BTreeSet<BrokerId>,
) -> BTreeSet<BrokerId> {
    let mut target: BTreeSet<_> = voters.intersection(wanted).copied().collect();
    for id in wanted {
        if target.len() >= VOTERS_MAX {
            break;
        }
        target.insert(*id);
    }
    target
}

fn has_caught_up(view: &View, broker: BrokerId) -> bool {
    let last = view.last.map_or(0, |RaftIndex(index)| index);
    view.copies
        .get(&broker)
        .copied()
        .flatten()
        .is_some_and(|RaftIndex(index)| index + BEHIND_MAX >= last)
}

/// Who shall lead a group.
fn chosen(id: GroupId, view: &View, preferred: Option<BrokerId>) -> Option<BrokerId> {
    let voters: Vec<_> = view.members.voters.iter().copied().collect();
    if view.members.changing || voters.is_empty() {
        return None;
    }
    // The metadata is the last to take its turn: partitions begin with the first voter.
    let turn = match id {
        GroupId::Metadata => voters.len() - 1,
        GroupId::Partition(id) => id.0 as usize,
    };
    let in_turn = voters[turn % voters.len()];
    Some(preferred.filter(|id| voters.contains(id)).unwrap_or(in_turn))
}

#[cfg(test)]
mod tests {
    use aklight_common::PartitionId;

    use super::*;
    use crate::replication::Members;

    fn ids(ids: &[u64]) -> BTreeSet<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn view(voters: &[u64], learners: &[u64], copies: &[(u64, u64)]) -> View {
        View {
            term: aklight_common::Term(3),
            last: Some(RaftIndex(1000)),
            committed: Some(RaftIndex(1000)),
            members: Members {
                voters: ids(voters),
                learners: ids(learners),
                changing: false,
                committed: true,
            },
            copies: copies.iter().map(|(id, at)| (BrokerId(*id), Some(RaftIndex(*at)))).collect(),
        }
    }

    #[test]
    fn a_new_broker_learns_then_votes_and_a_removed_one_goes() {
        let step = |view: &View, wanted: &[u64]| next_step(view, &ids(wanted));
        assert_eq!(step(&view(&[1, 2, 3], &[], &[]), &[1, 2, 3]), Step::None);
        assert_eq!(step(&view(&[1, 2, 3], &[], &[]), &[1, 2, 3, 4]), Step::Learn(BrokerId(4)));
        let behind = view(&[1, 2, 3], &[4], &[(4, 10)]);
        assert_eq!(step(&behind, &[1, 2, 3, 4]), Step::None);
        let ready = view(&[1, 2, 3], &[4], &[(4, 990)]);
        assert_eq!(step(&ready, &[1, 2, 3, 4]), Step::Vote(ids(&[1, 2, 3, 4])));
        // Replaced: 3 is gone, and 4 votes before 3 goes.
        assert_eq!(step(&ready, &[1, 2, 4]), Step::Vote(ids(&[1, 2, 3, 4])));
        assert_eq!(step(&view(&[1, 2, 3, 4], &[], &[]), &[1, 2, 4]), Step::Vote(ids(&[1, 2, 4])));
        assert_eq!(step(&view(&[1, 2], &[3], &[]), &[1, 2]), Step::Forget(ids(&[3])));
    }

    #[test]
    fn five_vote_and_further_ones_learn() {
        let full = view(&[1, 2, 3, 4, 5], &[6], &[(6, 1000)]);
        assert_eq!(next_step(&full, &ids(&[1, 2, 3, 4, 5, 6])), Step::None);
        let gone = ids(&[1, 2, 3, 4, 6]);
        assert_eq!(
            next_step(&full, &gone),
            Step::Vote(ids(&[1, 2, 3, 4, 5, 6])),
            "6 votes before 5 goes"
        );
    }

    #[test]
    fn leaders_take_turns_unless_somebody_chose() {
        let three = view(&[1, 2, 3], &[], &[]);
        let turn = |id| chosen(id, &three, None).expect("somebody").0;
        let partition = |id| GroupId::Partition(PartitionId(id));
        assert_eq!([turn(partition(0)), turn(partition(1)), turn(partition(2))], [1, 2, 3]);
        assert_eq!(turn(GroupId::Metadata), 3);
        assert_eq!(chosen(partition(0), &three, Some(BrokerId(2))), Some(BrokerId(2)));
        assert_eq!(chosen(partition(0), &three, Some(BrokerId(9))), Some(BrokerId(1)));
    }
}
