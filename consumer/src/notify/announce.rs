//! Records of alerts: every change of an alert's state goes to `alerts/{rule}/{topic}`.
//!
//! The key is the topic itself, so that the changes of one alert keep their order.
//!
//! One task sends them in the order of their sequences, each with PRODUCE_ONCE: whatever was
//! not struck from the memory before a crash is sent again under its old sequence, and the
//! broker stores it once.
//!
//! Many are on their way at once, for thousands of alerts may ring together; of one topic there is
//! one at a time, for a broker that is busy in between may store a later record first. They are
//! reported as done in the order of their sequences.

use std::collections::HashSet;

use aklight_common::client::{ClientConfig, Producer};
use aklight_common::clock::SharedClock;
use aklight_common::wire::ErrorCode;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::alerts::Announcement;

/// Sends announcements until there are no more, and reports the sequence of each that is done.
///
/// Invariant: the first one's sequence is `next_sequence`, and each further one's is one more.
pub async fn announce(
    config: ClientConfig,
    next_sequence: u64,
    clock: SharedClock,
    mut announcements: mpsc::Receiver<Announcement>,
    done: mpsc::Sender<u64>,
) {
    let producer = Producer::open(config, next_sequence, clock);
    let mut on_their_way = FuturesOrdered::new();
    let mut topics = HashSet::new();
    let mut next: Option<Announcement> = None;
    loop {
        if let Some(ready) = next.take_if(|next| topics.insert(next.topic.clone())) {
            let Announcement { sequence, topic, payload } = ready;
            // The producer's window bounds how many are on their way.
            let receipt = producer.enqueue(&topic, topic.as_bytes(), payload.as_bytes()).await;
            assert_eq!(receipt.sequence(), sequence, "sent in order, without a gap");
            on_their_way.push_back(async move { (sequence, topic, receipt.answer().await) });
        }
        tokio::select! {
            Some((sequence, topic, answer)) = on_their_way.next() => {
                topics.remove(&topic);
                match answer {
                    Ok(_) => {}
                    // Far behind one that it has: it was stored before a crash.
                    Err(error) if error.code == ErrorCode::BadSequence => {
                        debug!(%topic, sequence, "recorded by an earlier run");
                    }
                    Err(error) => warn!(%topic, %error, "the broker refused to record an alert"),
                }
                if done.send(sequence).await.is_err() {
                    return;
                }
            }
            Some(taken) = announcements.recv(), if next.is_none() => next = Some(taken),
            else => return,
        }
    }
}
