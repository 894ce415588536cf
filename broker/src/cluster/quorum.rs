//! Whether a cluster can go on without one of its brokers.
//!
//! Two majorities must be there, in every group: of those who vote now, because they have to agree to
//! its going; and of those who shall vote once it is gone, by brokers that vote already: one that has
//! not caught up yet holds little of what a majority is trusted to hold. A broker that was removed a
//! moment ago may still vote; it is not counted on, because it ends, and people stop it.
//!
//! The brokers are asked now: what they said lately would be true of one that has just died, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aklight_common::BrokerId;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::door::from_json;
use super::keeper::target_voters;
use super::pulse::{BrokerStatus, GroupStatus, newest_leader};
use super::view::group_ids;
use crate::replication::{GroupId, Kind};
use crate::services::Services;

/// Longest wait for another broker's answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// How long a group may be without a leader, or in the middle of a change, before the question is
/// given up: several elections.
const QUIET_WAIT: Duration = Duration::from_secs(6);

/// Pause between two rounds of asking.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Refuses, with the reason, when the cluster could not go on without a broker.
pub(super) async fn survives_without(services: &Services, without: BrokerId) -> Result<(), String> {
    let until = Instant::now() + QUIET_WAIT;
    loop {
        let brokers = services.sessions.metadata().brokers();
        let joined = brokers.iter().filter(|(_, info)| !info.incarnation.is_empty());
        let joined: BTreeSet<_> = joined.map(|(id, _)| *id).collect();
        let said = ask_all(services, &joined).await;
        let left: BTreeSet<_> = joined.iter().copied().filter(|id| *id != without).collect();
        let there: BTreeSet<_> = said.keys().copied().collect();
        let looked = group_ids(services).try_for_each(|id| {
            let group = as_its_leader_says(services.broker, id, &said);
            goes_on(id, &group, without, &left, &there)
        });
        match looked {
            Ok(()) => return Ok(()),
            Err(Doubt::Unsettled(_)) if Instant::now() < until => sleep(LOOK_EVERY).await,
            Err(Doubt::Unsettled(why) | Doubt::Outvoted(why)) => return Err(why),
        }
    }
}

/// Whether a broker is there, at this moment.
pub(super) async fn answers(services: &Services, broker: BrokerId) -> bool {
    ask(services, broker).await.is_some()
}

async fn ask_all(
    services: &Services,
    brokers: &BTreeSet<BrokerId>,
) -> BTreeMap<BrokerId, BrokerStatus> {
    let asked = brokers.iter().map(|id| async move { Some((*id, ask(services, *id).await?)) });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

async fn ask(services: &Services, broker: BrokerId) -> Option<BrokerStatus> {
    if broker == services.broker {
        return Some(services.pulse.own());
    }
    let call =
        services.peers.call(broker, GroupId::Metadata, Kind::Status, Bytes::new(), ANSWER_WAIT);
    from_json(&call.await.ok()?).ok()
}

fn as_its_leader_says(
    me: BrokerId,
    id: GroupId,
    said: &BTreeMap<BrokerId, BrokerStatus>,
) -> GroupStatus {
    let of = |status: &BrokerStatus| {
        status.groups.iter().find(|group| group.group == id.number()).cloned()
    };
    let own = said.get(&me).and_then(of).unwrap_or_default();
    newest_leader(own, said.values().filter_map(of))
}

/// Why a group might not go on.
#[derive(Debug, PartialEq, Eq)]
enum Doubt {
    /// It cannot be told yet.
    Unsettled(String),
    /// Too few of those who vote in it are there.
    Outvoted(String),
}

/// Whether a group goes on without a broker, when those in `left` stay; `there` are those who answer.
fn goes_on(
    id: GroupId,
    group: &GroupStatus,
    without: BrokerId,
    left: &BTreeSet<BrokerId>,
    there: &BTreeSet<BrokerId>,
) -> Result<(), Doubt> {
    let voters: BTreeSet<_> = group.voters.iter().copied().map(BrokerId).collect();
    if voters.is_empty() || !group.leads || group.changing {
        return Err(Doubt::Unsettled(format!(
            "{id} has no leader at the moment, or is in the middle of another change: try again when cluster status shows one"
        )));
    }
    let future = target_voters(&voters, left);
    if future.is_empty() {
        return Err(Doubt::Outvoted(format!(
            "broker {without} is the last of its cluster: nobody would be left"
        )));
    }
    let dead = &future - there;
    if !is_majority(&(&future - &dead), &future) {
        return Err(Doubt::Outvoted(format!(
            "without broker {without} no majority would be alive (dead: {}): start those again, or remove them first",
            list(&dead)
        )));
    }
    let counted: BTreeSet<_> = left.iter().copied().chain([without]).collect();
    let missing = &voters - &(&counted & there);
    if !is_majority(&(&voters - &missing), &voters) {
        return Err(Doubt::Outvoted(format!(
            "{id} would be left without a majority: brokers {} vote in it, and of those {} do not answer or were just removed; start those again, or wait until cluster status shows others in their place",
            list(&voters),
            list(&missing)
        )));
    }
    let new = &future - &voters;
    if !is_majority(&(&(&future - &new) - &dead), &future) {
        return Err(Doubt::Unsettled(format!(
            "broker {} has no vote in {id} yet: wait until it has caught up, and cluster status shows it as a voter",
            list(&new)
        )));
    }
    Ok(())
}

fn is_majority(some: &BTreeSet<BrokerId>, of: &BTreeSet<BrokerId>) -> bool {
    some.len() * 2 > of.len()
}

/// Numbers of brokers, as people read them.
pub(super) fn list(ids: impl IntoIterator<Item = impl ToString>) -> String {
    ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn voters(voters: &[u64]) -> GroupStatus {
        GroupStatus { voters: voters.to_vec(), leads: true, ..GroupStatus::default() }
    }

    fn check(group: &GroupStatus, without: u64, left: &[u64], there: &[u64]) -> Result<(), Doubt> {
        goes_on(GroupId::Metadata, group, BrokerId(without), &ids(left), &ids(there))
    }

    #[test]
    fn a_majority_of_those_who_stay_must_be_alive() {
        let three = voters(&[1, 2, 3]);
        assert_eq!(check(&three, 3, &[1, 2], &[1, 2]), Ok(()));
        assert_eq!(check(&voters(&[1, 2]), 2, &[1], &[1, 2]), Ok(()), "it agrees to its own going");
        let dead = check(&three, 1, &[2, 3], &[1, 2]).expect_err("one of two is no majority");
        assert!(matches!(&dead, Doubt::Outvoted(why) if why.contains("dead: 3")), "{dead:?}");
        let last = check(&voters(&[1]), 1, &[], &[1]).expect_err("nobody is left");
        assert!(matches!(&last, Doubt::Outvoted(why) if why.contains("the last")), "{last:?}");
    }

    #[test]
    fn a_majority_of_those_who_vote_now_must_be_alive() {
        // 1 was replaced a moment ago, and 4 does not vote yet: 3 must not go as well.
        let error = check(&voters(&[1, 2, 3]), 3, &[2, 4], &[2, 4]).expect_err("one of three");
        assert!(
            matches!(&error, Doubt::Outvoted(why) if why.contains("of those 1, 3 do")),
            "{error:?}"
        );
    }

    #[test]
    fn a_broker_that_has_not_caught_up_takes_nobodys_place() {
        // 2 was added a moment ago: 1 is all there is.
        let error = check(&voters(&[1]), 1, &[2], &[1, 2]).expect_err("2 has no vote yet");
        assert!(
            matches!(&error, Doubt::Unsettled(why) if why.contains("broker 2 has no vote")),
            "{error:?}"
        );
        let two_new = check(&voters(&[1, 2, 3]), 2, &[1, 3, 4, 5], &[1, 2, 3, 4, 5]);
        assert!(matches!(two_new, Err(Doubt::Unsettled(_))), "two of four: {two_new:?}");
        assert_eq!(check(&voters(&[1, 2, 3]), 3, &[1, 2, 4], &[1, 2, 4]), Ok(()));
    }

    #[test]
    fn a_group_without_a_leader_or_in_a_change_is_waited_for() {
        let leaderless = GroupStatus { leads: false, ..voters(&[1, 2, 3]) };
        let changing = GroupStatus { changing: true, ..voters(&[1, 2, 3]) };
        for unsettled in [leaderless, changing, voters(&[])] {
            let doubt = check(&unsettled, 3, &[1, 2], &[1, 2, 3]);
            assert!(matches!(doubt, Err(Doubt::Unsettled(_))), "{doubt:?}");
        }
    }
}
