//! What `--peers` names: this broker's own address, and whether others are named that must be.

use aklight_common::BrokerId;

use super::NodeError;
use crate::config::BrokerConfig;
use crate::replication::Peer;

/// Refuses to go on without `--peers` where others are of the cluster.
pub(super) fn expect_peers(
    config: &BrokerConfig,
    members: impl IntoIterator<Item = BrokerId>,
) -> Result<(), NodeError> {
    let others = members.into_iter().filter(|id| *id != config.broker);
    let others: Vec<_> = others.map(|id| id.to_string()).collect();
    if others.is_empty() || !config.peers.is_empty() {
        return Ok(());
    }
    Err(NodeError::NoPeers { broker: config.broker.0, others: others.join(", ") })
}

pub(super) fn own_address(peers: &[Peer], me: BrokerId) -> String {
    let own = peers.iter().find(|peer| peer.id == me);
    own.map(|peer| peer.address.clone()).unwrap_or_default()
}
