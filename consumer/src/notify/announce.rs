//! Records of alerts: every change of an alert's state goes to `alerts/{rule}/{topic}`.
//!
//! The key is the topic itself, so that the changes of one alert keep their order.
//!
//! One task sends them in the order of their sequences, each with PRODUCE_ONCE: whatever was
//! not struck from the memory before a crash is sent again under its old sequence, and the
//! broker stores it once.

use aklight_common::client::{ClientConfig, Producer};
use aklight_common::clock::SharedClock;
use tokio::sync::mpsc;
use tracing::warn;

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
    while let Some(Announcement { sequence, topic, payload }) = announcements.recv().await {
        let receipt = producer.enqueue(&topic, topic.as_bytes(), payload.as_bytes()).await;
        assert_eq!(receipt.sequence(), sequence, "announcements are sent in order, without a gap");
        if let Err(error) = receipt.answer().await {
            warn!(%topic, %error, "the broker refused to record an alert");
        }
        if done.send(sequence).await.is_err() {
            return;
        }
    }
}
