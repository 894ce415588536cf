//! Before a broker says where a partition ends, it asks the leader, and waits until its own copy
//! is there: whoever comes from another broker is told no end that it has seen passed.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};

use crate::partition::Partitions;
use crate::replication::ProposeError;

/// Waits until everything that is committed anywhere, in any partition, can be read here.
///
/// # Errors
/// When the time is up before a majority has answered for every partition.
pub async fn catch_up(partitions: &Partitions, wait: Duration) -> Result<(), ProposeError> {
    try_join_all(partitions.iter().map(|partition| partition.group().barrier(wait))).await?;
    Ok(())
}

/// The same, partition by partition: whether this broker's copy is known to be where the leader is.
pub async fn caught_up(partitions: &Partitions, wait: Duration) -> Vec<bool> {
    let asked = partitions.iter().map(|partition| partition.group().barrier(wait));
    join_all(asked).await.iter().map(Result::is_ok).collect()
}
