//! Whether a cluster can go on without one of its brokers.
//!
//! Two majorities must be alive: of those who shall vote once the broker is gone, and, in every
//! group, of those who vote now, because they have to agree to its going. A broker that was removed
//! a moment ago may still vote in some group, until one that is new there has caught up; it is
//! not counted on, because people stop it.
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
        let voters = services.sessions.group().view().members.voters;
        let voters = target_voters(&voters, &left);
        let dead = voters.iter().filter(|id| !said.contains_key(id)).map(|id| id.0).collect();
        majority_is_left(without, voters.len(), dead)?;
        let looked = group_ids(services).try_for_each(|id| {
            let group = as_its_leader_says(services.broker, id, &said);
            agrees(id, &group, |voter| joined.contains(&voter) && said.contains_key(&voter))
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

/// Whether those who vote in a group now can agree to a change; `counts` tells on whom they count.
fn agrees(
    id: GroupId,
    group: &GroupStatus,
    counts: impl Fn(BrokerId) -> bool,
) -> Result<(), Doubt> {
    let count = group.voters.iter().filter(|id| counts(BrokerId(**id))).count();
    if !group.voters.is_empty() && count * 2 <= group.voters.len() {
        let missing: Vec<_> =
            group.voters.iter().copied().filter(|id| !counts(BrokerId(*id))).collect();
        return Err(Doubt::Outvoted(format!(
            "{id} would be left without a majority: brokers {} vote in it, and of those {} do not answer or were just removed; start those again, or wait until cluster status shows others in their place",
            list(&group.voters),
            list(&missing)
        )));
    }
    if !group.leads || group.changing {
        return Err(Doubt::Unsettled(format!(
            "{id} has no leader at the moment, or is in the middle of another change: try again when cluster status shows one"
        )));
    }
    Ok(())
}

fn majority_is_left(without: BrokerId, voters: usize, dead: Vec<u64>) -> Result<(), String> {
    if voters == 0 {
        return Err(format!("broker {without} is the last of its cluster: nobody would be left"));
    }
    if (voters - dead.len()) * 2 > voters {
        return Ok(());
    }
    Err(format!(
        "without broker {without} no majority would be alive (dead: {}): start those again, or remove them first",
        list(&dead)
    ))
}

pub(super) fn list(ids: &[u64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_those_who_stay_must_be_alive() {
        let check = |voters, dead: &[u64]| majority_is_left(BrokerId(9), voters, dead.to_vec());
        assert_eq!(check(2, &[]), Ok(()));
        assert_eq!(check(1, &[]), Ok(()));
        assert_eq!(check(3, &[3]), Ok(()));
        let error = check(2, &[3]).expect_err("one of two is no majority");
        assert!(error.contains("dead: 3"), "{error}");
        assert!(check(0, &[]).expect_err("nobody is left").contains("the last"));
    }

    #[test]
    fn a_majority_of_those_who_vote_now_must_be_alive_in_each_group() {
        let group = |voters: &[u64], leads, changing| GroupStatus {
            voters: voters.to_vec(),
            leads,
            changing,
            ..GroupStatus::default()
        };
        let check = |group: &GroupStatus, there: &[u64]| {
            agrees(GroupId::Metadata, group, |id| there.contains(&id.0))
        };
        let three = group(&[1, 2, 3], true, false);
        assert_eq!(check(&three, &[2, 3]), Ok(()));
        // 1 was replaced a moment ago, and 4 does not vote yet: 3 must not go as well.
        let error = check(&three, &[2, 4]).expect_err("one of three is no majority");
        assert!(
            matches!(&error, Doubt::Outvoted(why) if why.contains("of those 1, 3 do")),
            "{error:?}"
        );
        // A broker that is there agrees to its own going.
        assert_eq!(check(&group(&[1, 2], true, false), &[1, 2]), Ok(()));
        for unsettled in [
            group(&[1, 2, 3], false, false),
            group(&[1, 2, 3], true, true),
            group(&[], false, false),
        ] {
            assert!(matches!(check(&unsettled, &[1, 2, 3]), Err(Doubt::Unsettled(_))));
        }
    }
}
