//! What a broker is to a group, followed from openraft's metrics.

use aklight_common::{BrokerId, Term};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
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
///
/// All that openraft tells changes three times with each record, the part that says who leads only with the
/// leader: to be woken by the first is a good part of what a record in flight alone would wait for.
pub(super) fn follow(raft: &Raft, me: BrokerId) -> watch::Receiver<Role> {
    let (mut metrics, mut server) = (raft.metrics(), raft.server_metrics());
    let (roles, role) = watch::channel(role_of(&metrics.borrow_watched(), me));
    tokio::spawn(async move {
        loop {
            let changed = if is_settled(&metrics.borrow_watched(), &server.borrow_watched()) {
                server.changed().await
            } else {
                metrics.changed().await
            };
            if changed.is_err() {
                break;
            }
            let now = role_of(&metrics.borrow_watched(), me);
            roles.send_if_modified(|role| std::mem::replace(role, now) != now);
        }
        roles.send_replace(Role::Nobody);
    });
    role
}

/// Whether the role stays until there is a change in `server`. That is told first, so it may be ahead.
fn is_settled(metrics: &Metrics, server: &RaftServerMetrics<Types>) -> bool {
    metrics.running_state.is_ok()
        && (metrics.state, metrics.current_leader) == (server.state, server.current_leader)
        && metrics.vote == server.vote
        // The vote is told once it is on the disk, and the term before.
        && metrics.current_term == metrics.vote.leader_id.term
        && (metrics.state != ServerState::Leader || has_applied_its_first(metrics))
}

/// The first entry of a term is a blank one: once it is applied, so is all before it.
fn has_applied_its_first(metrics: &Metrics) -> bool {
    metrics.last_applied.as_ref().map(|id| id.leader_id.term) == Some(metrics.current_term)
}

fn role_of(metrics: &Metrics, me: BrokerId) -> Role {
    if metrics.running_state.is_err() {
        return Role::Nobody;
    }
    if metrics.state == ServerState::Leader {
        let term = Term(metrics.current_term);
        return if has_applied_its_first(metrics) { Role::Leads(term) } else { Role::Nobody };
    }
    match metrics.current_leader {
        Some(leader) if leader != me.0 => Role::Follows(BrokerId(leader)),
        _ => Role::Nobody,
    }
}
