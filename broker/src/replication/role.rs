//! What a broker is to a group, followed from openraft's metrics.

use aklight_common::{BrokerId, Term};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use super::state_machine::StateMachine;
use super::types::Types;

/// What this broker is to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads, and has applied everything of earlier terms: what it knows is all there is.
    Leads(Term),
    /// It follows another.
    Follows(BrokerId),
    /// Nobody is known to lead, or this broker is about to.
    Nobody,
}

impl Role {
    /// Who leads, as far as this broker knows.
    #[must_use]
    pub const fn leader(self, me: BrokerId) -> Option<BrokerId> {
        match self {
            Self::Leads(_) => Some(me),
            Self::Follows(leader) => Some(leader),
            Self::Nobody => None,
        }
    }
}

type Raft = openraft::Raft<Types, StateMachine>;
type Metrics = openraft::RaftMetrics<Types>;

/// Follows a group's role until it ends.
pub(super) fn follow(raft: &Raft, me: BrokerId) -> watch::Receiver<Role> {
    let mut metrics = raft.metrics();
    let (roles, role) = watch::channel(role_of(&metrics.borrow_watched(), me));
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let now = role_of(&metrics.borrow_watched(), me);
            roles.send_if_modified(|role| std::mem::replace(role, now) != now);
        }
        roles.send_replace(Role::Nobody);
    });
    role
}

fn role_of(metrics: &Metrics, me: BrokerId) -> Role {
    if metrics.running_state.is_err() {
        return Role::Nobody;
    }
    if metrics.state == ServerState::Leader {
        // The first entry of a term is a blank one: once it is applied, so is all before it.
        let applied = metrics.last_applied.as_ref().map(|id| id.leader_id.term);
        let leads = applied == Some(metrics.current_term);
        return if leads { Role::Leads(Term(metrics.current_term)) } else { Role::Nobody };
    }
    match metrics.current_leader {
        Some(leader) if leader != me.0 => Role::Follows(BrokerId(leader)),
        _ => Role::Nobody,
    }
}
