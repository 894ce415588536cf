//! How a live subscription begins, and how it fetches what was stored while it was away.
//!
//! One that comes back fetches twice: before it subscribes, however much there is, and after it,
//! what little was stored in between. Nothing pushed is read meanwhile, so it waits in the
//! socket, and where the two meet the positions of `progress` keep each record single. The
//! fetching is done on a connection of its own, to the same broker (another may know of less),
//! because on one connection a pushed record before a listing could not be told from the
//! listing's first line.

use super::SubscriptionEvent;
use super::connection::{Connection, Said};
use super::progress::Progress;
use super::task::{Task, next_said};
use crate::client::ask::Client;
use crate::client::error::ClientError;
use crate::client::values::{FetchRequest, Fetched};
use crate::wire::ErrorCode;
use crate::{Offset, PartitionId};

/// Most records that may be pushed between the answers to the SUBSCRIBEs of a live subscription:
/// they are sent in one packet, so a handful is usual.
const HELD_MAX: usize = 65_536;

/// Records fetched at a time when catching up: they are in memory at once, and each may be as
/// long as a line.
const CATCH_UP_RECORDS: u64 = 256;

impl Task {
    /// Subscribes; before and after it, fetches what was missed.
    pub(super) async fn begin_live(
        &mut self,
        connection: &mut Connection,
        broker: &str,
        connected: SubscriptionEvent,
    ) -> Result<(), String> {
        if self.connected_before {
            self.catch_up(broker).await?;
        }
        for pattern in &self.patterns {
            connection.subscribe(pattern.as_str());
        }
        let mut held = Vec::new();
        let mut answered = 0;
        while answered < self.patterns.len() {
            match next_said(connection).await? {
                Said::Subscribed => answered += 1,
                Said::SubscriptionRefused(error) if error.code.is_passing() => {
                    return Err(format!("the broker did not take the subscription: {error}"));
                }
                Said::SubscriptionRefused(error) => {
                    answered += 1;
                    self.tell_refusal(error);
                }
                Said::Message(message) if held.len() < HELD_MAX => held.push(message),
                other => return Err(format!("the broker answered SUBSCRIBE with {other:?}")),
            }
        }
        if self.connected_before {
            self.catch_up(broker).await?;
        }
        self.pending.push_back(connected);
        for message in held {
            self.take_message(message);
        }
        Ok(())
    }

    /// Fetches and delivers whatever was stored since the positions, up to the log's end.
    async fn catch_up(&mut self, broker: &str) -> Result<(), String> {
        let Progress::Live(live) = &self.progress else { return Ok(()) };
        let mut config = self.config.clone();
        config.brokers = vec![broker.to_owned()];
        let mut client = Client::connect(config).await.map_err(|error| error.to_string())?;
        for (number, partition, from) in live.gaps() {
            let mut from = from;
            loop {
                let fetched = self.fetch_gap(&mut client, number, partition, &mut from).await?;
                let Progress::Live(live) = &mut self.progress else { return Ok(()) };
                let full = fetched.messages.len() as u64 >= CATCH_UP_RECORDS;
                for message in fetched.messages {
                    if live.note_fetched(number, &message) {
                        self.pending.push_back(SubscriptionEvent::Message(message));
                    }
                }
                let told = fetched.next.iter().find(|(at, _)| *at == partition);
                let next = told.map_or(from, |(_, next)| *next);
                live.fetched_up_to(number, partition, next);
                self.deliver_pending().await;
                if !full || next <= from {
                    break;
                }
                from = next;
            }
        }
        // The broker may have gone since; then nothing is owed to it.
        let _ = client.quit().await;
        Ok(())
    }

    async fn fetch_gap(
        &self,
        client: &mut Client,
        number: usize,
        partition: PartitionId,
        from: &mut Offset,
    ) -> Result<Fetched, String> {
        let Progress::Live(live) = &self.progress else { return Ok(Fetched::default()) };
        let mut request = FetchRequest {
            pattern: live.pattern(number).clone(),
            offset: *from,
            partition: Some(partition),
            max: CATCH_UP_RECORDS,
            wait_ms: 0,
        };
        match client.fetch(&request).await {
            Err(ClientError::Refused(error)) if error.code == ErrorCode::OffsetOutOfRange => {
                let cluster = client.cluster().await.map_err(|error| error.to_string())?;
                let kept = cluster.partitions.iter().find(|p| p.id == partition);
                let start = kept.map_or(*from, |kept| kept.start);
                tracing::warn!(%partition, missed_from = %from, %start, "retention was quicker than this subscription");
                *from = start;
                request.offset = start;
                client.fetch(&request).await
            }
            fetched => fetched,
        }
        .map_err(|error| error.to_string())
    }
}
