//! What is stored, in the order of its times: every partition is read by pages, and the record
//! with the oldest `ts` comes next. It ends where the log ended when it began.

use std::collections::VecDeque;

use aklight_common::client::{Client, FetchRequest, Message};
use aklight_common::clock::{Clock as _, SystemClock};
use aklight_common::limits::FETCH_RECORDS_DEFAULT;
use aklight_common::{Offset, PartitionId, Pattern};

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// At this offset in each partition.
    Offset(u64),
    /// At this moment, Unix milliseconds.
    Time(u64),
}

/// Reads an offset, a time, or how long ago.
pub fn from(text: &str) -> Result<From, String> {
    if let Ok(offset) = text.parse() {
        return Ok(From::Offset(offset));
    }
    let unix_ms = |ms: i64| u64::try_from(ms).map(From::Time).map_err(|_| before_1970());
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return unix_ms(time.as_millisecond());
    }
    match humantime::parse_duration(text) {
        Ok(ago) => {
            let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            Ok(From::Time(SystemClock::new().wall_ms().saturating_sub(ago_ms)))
        }
        Err(_) => {
            Err("write an offset (0), a time (2026-11-26T02:00:00Z), or how long ago (2h)"
                .to_owned())
        }
    }
}

fn before_1970() -> String {
    "nothing is that old".to_owned()
}

/// The records of a pattern.
pub struct Stored {
    client: Client,
    pattern: Pattern,
    partitions: Vec<Part>,
}

struct Part {
    id: PartitionId,
    next: Offset,
    end: Offset,
    waiting: VecDeque<(u64, Message)>,
    newest_ms: u64,
}

impl Stored {
    /// Begins where `from` says.
    pub async fn open(mut client: Client, pattern: &Pattern, from: From) -> anyhow::Result<Self> {
        let cluster = client.cluster().await?;
        let mut partitions = Vec::new();
        for partition in cluster.partitions {
            let next = match from {
                From::Offset(offset) => Offset(offset.max(partition.start.0)),
                From::Time(ms) => client.first_since(pattern, &partition, ms, time_of).await?,
            };
            let (id, end) = (partition.id, partition.end);
            partitions.push(Part { id, next, end, waiting: VecDeque::new(), newest_ms: 0 });
        }
        Ok(Self { client, pattern: pattern.clone(), partitions })
    }

    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        for part in &mut self.partitions {
            while part.waiting.is_empty() && part.next < part.end {
                let request = FetchRequest {
                    pattern: self.pattern.clone(),
                    offset: part.next,
                    partition: Some(part.id),
                    max: FETCH_RECORDS_DEFAULT,
                    wait_ms: 0,
                };
                let fetched = self.client.fetch(&request).await?;
                let next = fetched.next.iter().find(|(id, _)| *id == part.id).map(|(_, n)| *n);
                // An answer without progress is the end of what this broker knows.
                part.next = next.filter(|next| *next > part.next).unwrap_or(part.end);
                for message in fetched.messages {
                    if message.offset < part.end {
                        part.newest_ms = time_of(&message).unwrap_or(part.newest_ms);
                        part.waiting.push_back((part.newest_ms, message));
                    }
                }
            }
        }
        let waiting = self.partitions.iter_mut().filter(|part| !part.waiting.is_empty());
        let oldest = waiting.min_by_key(|part| part.waiting.front().map(|(ms, _)| *ms));
        Ok(oldest.and_then(|part| part.waiting.pop_front()).map(|(_, message)| message))
    }
}

/// When a record was measured, as it says itself.
fn time_of(message: &Message) -> Option<u64> {
    let payload: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
    payload["ts"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_begin_at_an_offset_at_a_time_or_some_time_ago() {
        assert!(matches!(from("17"), Ok(From::Offset(17))));
        assert!(matches!(from("1970-01-01T00:00:01Z"), Ok(From::Time(1000))));
        assert!(matches!(from("2h"), Ok(From::Time(ms)) if ms > 0));
        for bad in ["soon", "", "-1", "1969-01-01T00:00:00Z"] {
            assert!(from(bad).is_err(), "{bad}");
        }
    }
}
