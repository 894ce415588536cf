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
/// leader: to be woken by the first each time is a tenth of what a record in flight alone takes of the processor.
pub(super) fn follow(raft: &Raft, me: BrokerId) -> watch::Receiver<Role> {
    let (mut metrics, mut server) = (raft.metrics(), raft.server_metrics());
    let (roles, role) = watch::channel(role_of(&metrics.borrow_watched(), me));
    tokio::spawn(async move {
        loop {
            let (now, is_settled) = {
                // Both from one look, and the first held during the second: what is told in between would
                // else be taken for known.
                let (metrics, server) = (metrics.borrow_watched(), server.borrow_watched());
                (role_of(&metrics, me), is_settled(&metrics, &server))
            };
            roles.send_if_modified(|role| std::mem::replace(role, now) != now);
            let changed = if is_settled { server.changed().await } else { metrics.changed().await };
            if changed.is_err() {
                break;
            }
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

#[cfg(test)]
mod tests {
    use openraft::vote::RaftVote as _;

    use super::super::types::{Vote, log_id};
    use super::*;

    const ME: BrokerId = BrokerId(1);

    /// As openraft tells it; a vote in a term, and the term of what was applied last.
    fn told(
        state: ServerState,
        leader: Option<u64>,
        (term, voted): (u64, u64),
        applied: u64,
    ) -> Metrics {
        let mut metrics = Metrics::new_initial(ME.0);
        let leader_id = openraft::vote::leader_id_std::LeaderId { term: voted, voted_for: 1 };
        metrics.vote = Vote::from_leader_id(leader_id, true);
        (metrics.state, metrics.current_leader) = (state, leader);
        metrics.current_term = term;
        metrics.last_applied = Some(log_id(applied, 7));
        metrics
    }

    fn server_of(metrics: &Metrics) -> RaftServerMetrics<Types> {
        RaftServerMetrics {
            id: metrics.id,
            vote: metrics.vote,
            state: metrics.state,
            current_leader: metrics.current_leader,
            membership_config: metrics.membership_config.clone(),
            committed_membership_config: metrics.committed_membership_config.clone(),
        }
    }

    #[test]
    fn a_role_is_settled_once_nothing_but_the_server_can_change_it() {
        let candidate = told(ServerState::Candidate, None, (3, 3), 2);
        let elected = told(ServerState::Leader, Some(1), (3, 3), 2);
        let leads = told(ServerState::Leader, Some(1), (3, 3), 3);
        let unsaved = told(ServerState::Leader, Some(1), (3, 2), 3);
        let follows = told(ServerState::Follower, Some(2), (4, 4), 3);
        for (metrics, role, settled) in [
            (&candidate, Role::Nobody, true),
            // It waits for its first entry.
            (&elected, Role::Nobody, false),
            (&leads, Role::Leads(Term(3)), true),
            (&unsaved, Role::Leads(Term(3)), false),
            (&follows, Role::Follows(BrokerId(2)), true),
        ] {
            assert_eq!(role_of(metrics, ME), role);
            assert_eq!(is_settled(metrics, &server_of(metrics)), settled, "{role:?}");
        }
        // What the server says is ahead of all that is told.
        for (metrics, ahead) in [(&candidate, &elected), (&leads, &follows), (&unsaved, &leads)] {
            assert!(!is_settled(metrics, &server_of(ahead)));
        }
        let mut ended = leads;
        ended.running_state = Err(openraft::errors::Fatal::Stopped);
        assert_eq!(role_of(&ended, ME), Role::Nobody);
        assert!(!is_settled(&ended, &server_of(&ended)));
    }
}
