//! What waits in this consumer's own file from before another one of its name worked.
//!
//! The log is the judge: the other one went on from what was recorded there. So a message of which
//! the log knows nothing was told by the other one or had no reason any more, and one that it knows
//! to be told is told. Only one that is known to be on its way is told on. Records that wait are
//! numbered, and without one of them the broker would take none after it: each is sent as what it speaks of stands
//! by now.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Engine;
use super::adopting::Left;
use super::untold::Messages;
use crate::alerts::{Announcement, Destination};

impl Engine {
    /// Drops what the other one's work has made untrue.
    pub(super) fn drop_outdated(&mut self, left: &Left, messages: &Messages) {
        let memory = &mut self.parts.memory;
        let consumer = memory.consumer.clone();
        memory.notices.retain(|notice| {
            notice.destination != Destination::Console
                && messages.is_on_its_way(&notice.reference(&consumer))
        });
        let records = left.alerts.iter().chain(&left.deliveries);
        let newest: HashMap<_, _> = records
            .filter_map(|message| {
                let payload = std::str::from_utf8(&message.payload).ok()?;
                Some((subject(message.topic.as_str(), payload)?, payload))
            })
            .collect();
        for announcement in &mut memory.announcements {
            let subject = subject(&announcement.topic, &announcement.payload);
            match subject.and_then(|subject| newest.get(&subject)) {
                Some(payload) => announcement.payload = (*payload).to_owned(),
                None => announcement.payload = untold(announcement),
            }
        }
    }
}

/// What a record speaks of: an alert, or a message by its reference.
fn subject(topic: &str, payload: &str) -> Option<String> {
    if topic.starts_with("alerts/") {
        return Some(topic.to_owned());
    }
    let record: Value = serde_json::from_str(payload).ok()?;
    record["reference"].as_str().map(str::to_owned)
}

/// A record of something that did not come to be.
fn untold(announcement: &Announcement) -> String {
    let Ok(mut record) = serde_json::from_str::<Value>(&announcement.payload) else {
        return announcement.payload.clone();
    };
    if announcement.topic.starts_with("alerts/") {
        record["state"] = json!("ok");
        record["told"] = json!(false);
        record["messages"] = json!([]);
    } else if matches!(record["status"].as_str(), Some("queued" | "delayed")) {
        record["status"] = json!("failed");
        record["reason"] = json!("another consumer of this name took over");
    }
    record.to_string()
}
