//! What people ask of a cluster: add, remove and replace a broker, move a leader, break one.
//!
//! Any broker can be asked. It looks first at what was committed anywhere, refuses what cannot end
//! well and says why, then writes a command to the metadata; the keepers of the groups' leaders
//! carry it out. Where the end can be seen it is waited for, so that `done` means done.
//!
//! Invariants: a number is never used for two disks; a cluster is never left without a majority
//! that is alive; asking twice does no harm.
//!
//! Left out: who may ask. Whoever reaches the HTTP port may, as with the metrics.

use std::time::Duration;

use aklight_common::{BrokerId, PartitionId};
use tokio::time::{sleep, timeout};

use super::door::{MoveLeader, not_allowed, to_json};
use super::faults::{Fault, SLOW_MS_MAX};
use super::quorum::{answers, list, survives_without};
use super::view::group_ids;
use crate::replication::{GroupId, Kind, PeerError, Role};
use crate::services::Services;
use crate::sessions::{BrokerInfo, MetaCommand, SessionError, Standing};

/// Longest wait for what was asked to be so: several elections, and the keeper's rounds.
const DONE_WAIT: Duration = Duration::from_secs(15);

/// Longest wait for the metadata's leader, before anything is decided.
const BARRIER_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for another broker's answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// Longest wait for one handing over of a lead, after which it is asked for again: the leader may
/// have changed, or the heir not have had everything yet.
const MOVE_WAIT: Duration = Duration::from_secs(3);

/// Pause between two looks at what the brokers say of themselves.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longest `HOST:PORT`: a name in the DNS has at most 253 bytes.
const ADDRESS_BYTES_MAX: usize = 260;

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It makes no sense, whatever the cluster is like.
    #[error("{0}")]
    Nonsense(String),
    /// It is not allowed here.
    #[error("{0}")]
    Forbidden(String),
    /// As the cluster is now, it must not be done.
    #[error("{0}")]
    Refused(String),
    /// No majority answers, or it was not done in time.
    #[error("{0}")]
    Unavailable(String),
}

type Answer = Result<String, ControlError>;

impl From<SessionError> for ControlError {
    fn from(error: SessionError) -> Self {
        // What a session says of offsets would be out of place here.
        let cause = match error {
            SessionError::Unavailable(cause) | SessionError::Stopped(cause) => cause,
            SessionError::TooMany => error.to_string(),
        };
        Self::Unavailable(format!("the cluster's metadata cannot be written now: {cause}"))
    }
}

/// Expects a new broker: its first start makes it a member.
///
/// # Errors
/// When its number or address cannot be used, or no majority answers.
pub async fn add(services: &Services, broker: BrokerId, peer: &str) -> Answer {
    let hint = expect(services, broker, peer).await?;
    Ok(format!("broker {broker} is expected at {peer}. {hint}"))
}

/// Takes a broker out of the cluster, for ever.
///
/// # Errors
/// When too few brokers would be left, or no majority answers.
pub async fn remove(services: &Services, broker: BrokerId) -> Answer {
    look(services).await?;
    if standing(services, broker) == Standing::Retired {
        // Asked again, it is waited for again.
        until_nobody_counts_on(services, broker).await?;
        return Ok(removed(broker));
    }
    let info = known(services, broker)?;
    if broker == services.broker {
        return Err(ControlError::Refused(format!(
            "broker {broker} cannot see its own removal through: ask another broker of the cluster for it"
        )));
    }
    if !info.incarnation.is_empty() {
        survives_without(services, broker).await.map_err(ControlError::Refused)?;
    }
    retire(services, broker).await?;
    Ok(removed(broker))
}

fn removed(broker: BrokerId) -> String {
    format!(
        "broker {broker} is removed and its number is not used again. If it still runs, it ends by itself; its --data-dir is needed no more"
    )
}

/// Lets a new broker take the place of one that is lost.
///
/// # Errors
/// As [`add`] and [`remove`] do, and when the broker is not lost at all.
pub async fn replace(services: &Services, dead: BrokerId, broker: BrokerId, peer: &str) -> Answer {
    if dead == broker {
        return Err(ControlError::Nonsense(format!(
            "broker {dead} cannot take its own place: give the new broker a number that was never used"
        )));
    }
    look(services).await?;
    let is_gone = standing(services, dead) == Standing::Retired
        && matches!(standing(services, broker), Standing::Expected);
    if !is_gone {
        known(services, dead)?;
        if answers(services, dead).await {
            return Err(ControlError::Refused(format!(
                "broker {dead} is alive: stop it first, or keep it until the new one has caught up (cluster add {broker}@{peer}, then cluster remove {dead})"
            )));
        }
        survives_without(services, dead).await.map_err(ControlError::Refused)?;
    }
    let hint = expect(services, broker, peer).await?;
    if !is_gone {
        retire(services, dead).await?;
    }
    Ok(format!("broker {dead} is removed, and broker {broker} is expected at {peer}. {hint}"))
}

/// Makes a broker lead a group, now and whenever it can.
///
/// # Errors
/// When it cannot lead, or does not in time.
pub async fn transfer_leader(services: &Services, group: &str, to: BrokerId) -> Answer {
    let id = group_named(services, group)?;
    look(services).await?;
    known(services, to)?;
    let status = services.pulse.group(id);
    if !status.voters.contains(&to.0) {
        return Err(ControlError::Refused(format!(
            "broker {to} has no vote in {id} and cannot lead it; who has: {}",
            list(&status.voters)
        )));
    }
    if !services.pulse.is_alive(to) {
        return Err(ControlError::Refused(format!(
            "broker {to} does not answer and cannot lead {id} now: start it, or choose another"
        )));
    }
    let prefer = MetaCommand::Prefer { group: id.number(), broker: to.0 };
    services.sessions.write(&prefer).await?;
    services.events.info("control", format!("{id}: broker {to} shall lead"));
    let moved = async {
        while !leads_within(services, id, to, Duration::ZERO).await {
            if let Err(error) = ask_to_move(services, id, to).await {
                tracing::warn!(group = %id, %to, %error, "the lead was not handed over yet");
            }
            if leads_within(services, id, to, MOVE_WAIT).await {
                break;
            }
        }
    };
    timeout(DONE_WAIT, moved).await.map_err(|_| {
        ControlError::Unavailable(format!(
            "broker {to} does not lead {id} yet; that it shall is noted, and it will once it has caught up"
        ))
    })?;
    Ok(format!("broker {to} leads {id}"))
}

/// Breaks a broker on purpose, or mends it: `dead`, `alive`, `isolate`, `slow`.
///
/// # Errors
/// When that broker is not to be broken, or is not reached.
pub async fn fault(services: &Services, broker: BrokerId, fault: &str, ms: Option<u64>) -> Answer {
    let fault = fault_named(fault, ms)?;
    if broker == services.broker {
        if !services.faults.allowed() {
            return Err(ControlError::Forbidden(not_allowed(broker)));
        }
        services.faults.set(fault);
    } else {
        known(services, broker)?;
        let body = to_json(&fault).map_err(|e| ControlError::Nonsense(e.to_string()))?;
        let told = services.peers.call(broker, GroupId::Metadata, Kind::Fault, body, ANSWER_WAIT);
        told.await.map_err(|error| match error {
            PeerError::Refused(text) if text == not_allowed(broker) => {
                ControlError::Forbidden(text)
            }
            error => ControlError::Unavailable(format!(
                "broker {broker} {error}: ask it itself, at its own HTTP port"
            )),
        })?;
    }
    let text = match fault {
        Some(fault) => format!("broker {broker} is broken on purpose: {fault}"),
        None => format!("broker {broker} is mended: nothing is broken on purpose any more"),
    };
    services.events.warn("fault", text.clone());
    Ok(text)
}

/// Sees to it that this broker knows all that was decided anywhere.
async fn look(services: &Services) -> Result<(), ControlError> {
    let looked = services.sessions.group().barrier(BARRIER_WAIT).await;
    looked.map_err(|error| {
        ControlError::Unavailable(format!(
            "the cluster's metadata cannot be read now ({error}): are most of its brokers up?"
        ))
    })
}

fn standing(services: &Services, broker: BrokerId) -> Standing {
    services.sessions.metadata().standing(broker, "")
}

/// What is known of a broker that must be of the cluster.
fn known(services: &Services, broker: BrokerId) -> Result<BrokerInfo, ControlError> {
    let mut brokers = services.sessions.metadata().brokers();
    let ids: Vec<_> = brokers.keys().map(|id| id.0).collect();
    brokers.remove(&broker).ok_or_else(|| {
        let what = match standing(services, broker) {
            Standing::Retired => "was removed before",
            _ => "is not of this cluster",
        };
        ControlError::Refused(format!("broker {broker} {what}; its brokers: {}", list(&ids)))
    })
}

/// Expects a broker; says how it is to be started. Asked again, it is expected still.
async fn expect(services: &Services, broker: BrokerId, peer: &str) -> Answer {
    check_new(broker, peer)?;
    look(services).await?;
    let brokers = services.sessions.metadata().brokers();
    if brokers.get(&services.broker).is_none_or(|own| own.peer.is_empty()) {
        return Err(ControlError::Refused(format!(
            "broker {} was started without --peers, so no other can reach it: start it again with --peers {}@HOST:PORT, its own address for other brokers",
            services.broker, services.broker
        )));
    }
    let used = |text: &str| Err(ControlError::Refused(text.to_owned()));
    match standing(services, broker) {
        Standing::Retired => {
            return used(&format!(
                "broker {broker} was removed before, and numbers are not used again: choose one that was never used"
            ));
        }
        Standing::Unknown => {}
        Standing::Expected if brokers.get(&broker).is_some_and(|info| info.peer == peer) => {}
        Standing::Expected => {
            return used(&format!(
                "broker {broker} is expected at another address: cluster remove {broker}, and choose a new number"
            ));
        }
        Standing::Member | Standing::OtherDisk => {
            return used(&format!(
                "broker {broker} is of this cluster already: choose a number that was never used"
            ));
        }
        Standing::Undecided => return used("the cluster has not begun yet"),
    }
    if let Some((other, _)) = brokers.iter().find(|(id, i)| **id != broker && i.peer == peer) {
        // One that is lost may have its address taken over; one that is there is there.
        if services.pulse.is_alive(*other) {
            return used(&format!("broker {other} is at {peer}, and alive"));
        }
    }
    let expect = MetaCommand::Expect { broker: broker.0, peer: peer.to_owned() };
    services.sessions.write(&expect).await?;
    if standing(services, broker) != Standing::Expected {
        return used(&format!("broker {broker} was taken or removed by somebody else meanwhile"));
    }
    services.events.info("control", format!("broker {broker} is expected at {peer}"));
    let mut all: Vec<_> = brokers
        .iter()
        .filter(|(id, info)| **id != broker && info.peer != peer)
        .map(|(id, info)| format!("{id}@{}", info.peer))
        .collect();
    all.push(format!("{broker}@{peer}"));
    Ok(format!(
        "Start it now, with an empty --data-dir: aklight broker --node-id {broker} --peers {}",
        all.join(",")
    ))
}

fn check_new(broker: BrokerId, peer: &str) -> Result<(), ControlError> {
    if broker.0 == 0 {
        return Err(ControlError::Nonsense("brokers are numbered from 1".to_owned()));
    }
    let is_address = peer.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_address && peer.len() <= ADDRESS_BYTES_MAX {
        return Ok(());
    }
    Err(ControlError::Nonsense(format!(
        "'{}' is no address: write HOST:PORT, as in broker{broker}:7090",
        peer.escape_debug()
    )))
}

/// Removes a broker and waits until nobody counts on it: its groups' leaders take its votes away, and
/// it hands over what it leads itself.
async fn retire(services: &Services, broker: BrokerId) -> Result<(), ControlError> {
    services.sessions.write(&MetaCommand::Retire { broker: broker.0 }).await?;
    services.events.warn("control", format!("broker {broker} is removed from the cluster"));
    until_nobody_counts_on(services, broker).await
}

async fn until_nobody_counts_on(services: &Services, broker: BrokerId) -> Result<(), ControlError> {
    let counted_on = |id: GroupId| {
        let status = services.pulse.group(id);
        status.leader == Some(broker.0)
            || status.voters.contains(&broker.0)
            || status.learners.contains(&broker.0)
    };
    let gone = async {
        while group_ids(services).any(counted_on) {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(DONE_WAIT, gone).await.map_err(|_| {
        ControlError::Unavailable(format!(
            "broker {broker} is removed, but not all groups go on without it yet: if it runs, keep it running until it ends by itself, or cluster status shows it in no group; asked again, this waits again"
        ))
    })
}

/// Asks a group's leader to hand over.
async fn ask_to_move(services: &Services, id: GroupId, to: BrokerId) -> Result<(), String> {
    let group = match id {
        GroupId::Metadata => Some(services.sessions.group()),
        GroupId::Partition(partition) => services.partitions.get(partition).map(|p| p.group()),
    };
    let group = group.ok_or("there is no such group")?;
    match group.role() {
        Role::Leads(_) => group.transfer_to(to).await.map_err(|error| error.to_string()),
        Role::Follows(leader) => {
            let body = to_json(&MoveLeader { to: to.0 }).map_err(|error| error.to_string())?;
            let asked = services.peers.call(leader, id, Kind::MoveLeader, body, ANSWER_WAIT).await;
            asked.map(drop).map_err(|error| error.to_string())
        }
        Role::Nobody => Err("nobody leads at the moment".to_owned()),
    }
}

/// Waits until a broker says itself that it leads.
async fn leads_within(services: &Services, id: GroupId, to: BrokerId, wait: Duration) -> bool {
    let leads = async {
        loop {
            let status = services.pulse.group(id);
            if status.leads && status.leader == Some(to.0) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(wait, leads).await.is_ok()
}

fn group_named(services: &Services, name: &str) -> Result<GroupId, ControlError> {
    let id = match name.strip_prefix("partition ") {
        None => (name == "metadata").then_some(GroupId::Metadata),
        Some(number) => number.parse().ok().map(|number| GroupId::Partition(PartitionId(number))),
    };
    id.filter(|id| group_ids(services).any(|known| known == *id)).ok_or_else(|| {
        ControlError::Nonsense(format!(
            "there is no group '{}': write metadata, or partition and a number from 0 to {}",
            name.escape_debug(),
            services.partitions.len().saturating_sub(1)
        ))
    })
}

fn fault_named(name: &str, ms: Option<u64>) -> Result<Option<Fault>, ControlError> {
    match (name, ms) {
        ("alive", None) => Ok(None),
        ("dead", None) => Ok(Some(Fault::Dead)),
        ("isolate", None) => Ok(Some(Fault::Isolate)),
        ("slow", Some(ms)) if (1..=SLOW_MS_MAX).contains(&ms) => Ok(Some(Fault::Slow(ms))),
        ("slow", _) => Err(ControlError::Nonsense(format!(
            "slow needs a number of milliseconds from 1 to {SLOW_MS_MAX}"
        ))),
        ("alive" | "dead" | "isolate", Some(_)) => {
            Err(ControlError::Nonsense(format!("{name} takes no milliseconds: only slow does")))
        }
        _ => Err(ControlError::Nonsense(format!(
            "'{}' is no fault: dead, alive, isolate, or slow and its milliseconds",
            name.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_faults_are_read_as_they_are_written() {
        let new = |id, peer: &str| check_new(BrokerId(id), peer).is_ok();
        assert!(new(4, "broker4:7090") && new(4, "10.0.0.4:7090") && new(4, "[::1]:7090"));
        for wrong in ["", "broker4", ":7090", "broker4:0", "broker4:70900", "a b:1", "a,2@b:1"] {
            assert!(!new(4, wrong), "{wrong}");
        }
        assert!(!new(0, "broker4:7090"));
        assert_eq!(fault_named("alive", None), Ok(None));
        assert_eq!(fault_named("slow", Some(100)), Ok(Some(Fault::Slow(100))));
        for (name, ms) in [
            ("slow", None),
            ("slow", Some(0)),
            ("slow", Some(60_001)),
            ("dead", Some(1)),
            ("x", None),
        ] {
            assert!(fault_named(name, ms).is_err(), "{name} {ms:?}");
        }
    }
}
