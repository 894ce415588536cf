//! The end of a simulation: waits until the cluster is well, and reads what every replica holds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use aklight_common::wire::{Command, Reply};
use aklight_common::{BrokerId, Offset, PartitionId};
use aklight_oracle::{Event, Outcome, Seen};
use parking_lot::Mutex;

use super::connection::{Connection, Lost};
use super::{KEYS, Kit, key_name, topic_name};

/// What an audit waits for, for the story of one that never ended.
pub type Audit = Arc<Mutex<String>>;

/// Records of one FETCH of the audit.
const FETCH_RECORDS: u64 = 500;

type Ends = Vec<(PartitionId, Offset, Offset)>;
type Copies = BTreeMap<(u64, PartitionId), Vec<Seen>>;

/// Waits until all is well, and tells the oracle what every replica of these brokers holds.
pub async fn audit(mut kit: Kit, brokers: Vec<u64>, waits_for: Audit) {
    while !kit.progress.is_drained() {
        say(
            &waits_for,
            format!(
                "{} producers",
                kit.progress.producing.load(std::sync::atomic::Ordering::Relaxed)
            ),
        );
        kit.pause_ms(100, 100).await;
    }
    for broker in &brokers {
        say(&waits_for, format!("broker {broker} to take a record for each key"));
        while probe(&mut kit, *broker).await.is_err() {
            kit.pause_ms(100, 300).await;
        }
    }
    let ends = loop {
        match same_ends(&mut kit, &brokers).await {
            Ok(ends) => break ends,
            Err(why) => say(&waits_for, why),
        }
        kit.pause_ms(100, 300).await;
    };
    let mut copies = Copies::new();
    for broker in &brokers {
        for (partition, start, end) in &ends {
            say(&waits_for, format!("partition {partition} of broker {broker} up to {end}"));
            let copy = loop {
                if let Some(copy) = copy(&mut kit, *broker, *partition, (*start, *end)).await {
                    break copy;
                }
                kit.pause_ms(100, 300).await;
            };
            copies.insert((*broker, *partition), copy);
        }
    }
    while let Some(behind) = behind(&kit, &copies) {
        say(&waits_for, behind);
        kit.pause_ms(100, 100).await;
    }
    tell(&kit, &ends, &copies);
    kit.teller.observe(&Event::Settled { at_us: kit.teller.now_us() });
    say(&waits_for, String::new());
}

fn say(waits_for: &Audit, text: String) {
    *waits_for.lock() = text;
}

/// A record for each key through this broker.
async fn probe(kit: &mut Kit, broker: u64) -> Result<(), Lost> {
    let mut connection = Connection::to(kit, broker).ok_or(Lost)?;
    for key in 1..=KEYS {
        let record = kit.teller.send(connection.number, key, 0, None);
        let (topic, key, payload) = (topic_name(0), key_name(key), record.0.to_string());
        let (key, payload) = (Cow::Borrowed(key.as_bytes()), Cow::Borrowed(payload.as_bytes()));
        let sent = connection.send(&[Command::Produce { topic: &topic, key, payload }]).await;
        let answer = match sent {
            Ok(()) => connection.answer().await,
            Err(lost) => Err(lost),
        };
        let outcome = match answer.as_ref().map(|line| Reply::decode(line)) {
            Ok(Ok(Reply::Ack { offset, partition, .. })) => Outcome::Acked(partition, offset),
            _ => Outcome::Unknown,
        };
        kit.teller.answered(record, outcome);
        if outcome == Outcome::Unknown {
            return Err(Lost);
        }
    }
    Ok(())
}

/// The ends of all partitions, if all brokers say the same.
async fn same_ends(kit: &mut Kit, brokers: &[u64]) -> Result<Ends, String> {
    let mut first: Option<Ends> = None;
    for broker in brokers {
        let refused = || format!("broker {broker} to say where partitions end");
        let mut connection = Connection::to(kit, *broker).ok_or_else(refused)?;
        let ends = connection.ends(kit).await.ok().flatten().ok_or_else(refused)?;
        match &mut first {
            None => first = Some(ends),
            Some(first) if first.len() != ends.len() => return Err(refused()),
            Some(first) => {
                for (mine, other) in first.iter_mut().zip(&ends) {
                    if mine.2 != other.2 {
                        return Err(format!("ends of broker {broker}, {ends:?}, to be the same"));
                    }
                    mine.1 = mine.1.max(other.1);
                }
            }
        }
    }
    first.ok_or_else(|| "any broker".to_owned())
}

/// All records of one replica.
async fn copy(
    kit: &mut Kit,
    broker: u64,
    partition: PartitionId,
    (start, end): (Offset, Offset),
) -> Option<Vec<Seen>> {
    let mut connection = Connection::to(kit, broker)?;
    let (mut all, mut next) = (Vec::new(), start);
    while next < end {
        let fetched = connection.fetch(partition, next, FETCH_RECORDS, 100).await.ok()??;
        next = fetched.next.filter(|further| *further > next)?;
        all.extend(fetched.seen);
    }
    Some(all)
}

/// A persistent consumer that was not sent all that it is owed.
fn behind(kit: &Kit, copies: &Copies) -> Option<String> {
    for (consumer, state) in kit.progress.delivered.lock().iter() {
        for ((_, partition), records) in copies {
            let wanted = |seen: &&Seen| {
                state.topics.as_ref().is_none_or(|topics| topics.contains(&seen.topic))
            };
            let Some(last) = records.iter().rev().find(wanted) else { continue };
            let begin = state.begins.get(partition).copied().unwrap_or_default();
            if last.offset >= begin && state.highest.get(partition) < Some(&last.offset) {
                return Some(format!(
                    "consumer {consumer} to be sent offset {} of partition {partition}",
                    last.offset
                ));
            }
        }
    }
    None
}

fn tell(kit: &Kit, ends: &Ends, copies: &Copies) {
    for ((broker, partition), records) in copies {
        let Some((_, start, end)) = ends.iter().find(|(id, ..)| id == partition) else { continue };
        let (broker, partition) = (BrokerId(*broker), *partition);
        kit.teller.observe(&Event::CopyBegins { broker, partition, start: *start });
        for seen in records {
            kit.teller.observe(&Event::Stored { broker, seen: *seen });
        }
        kit.teller.observe(&Event::CopyEnds { broker, partition, end: *end });
    }
}
