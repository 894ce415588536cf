//! The state file as text: one thing a line, fields separated by `|` (which no topic holds).
//!
//! ```text
//! AKLIGHT-CONSUMER|2
//! # …what the lines mean, for people…
//! consumer|consumer1
//! producer|consumer1.alerts.1795229527000|next sequence|next notice
//! partition|number|next offset
//! topic name|partition|last processed offset       (a name of four levels, as a rule)
//! labels|{JSON}     state|{JSON}        mute|{JSON}      acknowledged|{JSON}
//! stand-in|{JSON}   notice|{JSON}     announcement|{JSON}
//! end|CRC-32C of all bytes before this line, in hexadecimal digits
//! ```
//!
//! The line of a topic begins with the topic itself, behind `topic|`: who looks for it with
//! `grep` finds it. The checksum is there because a flipped digit in an offset would otherwise
//! silently skip or repeat records.
//!
//! Version 1 had no labels, mutes, acknowledgements and stand-ins, and is read as one without any.

use std::fmt::Write as _;

use aklight_common::{Offset, PartitionId, Topic};

use super::Memory;

const HEADER: &str = "AKLIGHT-CONSUMER|2";
const HEADER_OF_1: &str = "AKLIGHT-CONSUMER|1";
const COMMENT: &str = "\
# What this consumer has processed and whom it must still tell; written by aklight-consumer.
# partition|number|next offset to process
# topic|name|partition|last offset processed
# To change it by hand, stop the consumer, and give the last line as 'end|edited'.
";
/// In place of the checksum, where a person has edited the file.
const EDITED: &str = "edited";

/// Why a text is no memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the first line of this version.
    #[error("it does not begin with '{HEADER}'")]
    Header,
    /// Bytes that are no text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// No last line, or another checksum.
    #[error("its checksum does not fit its content")]
    Checksum,
    /// A line that says nothing known.
    #[error("line {0} cannot be read")]
    Line(usize),
}

/// The memory as a file's content.
pub(super) fn encode(memory: &Memory) -> Vec<u8> {
    let mut text = format!("{HEADER}\n{COMMENT}");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "consumer|{}", memory.consumer);
    let _ = writeln!(
        text,
        "producer|{}|{}|{}",
        memory.producer, memory.next_sequence, memory.next_notice
    );
    for (partition, next) in &memory.next {
        let _ = writeln!(text, "partition|{partition}|{next}");
    }
    for ((topic, partition), offset) in &memory.processed {
        let _ = writeln!(text, "topic|{topic}|{partition}|{offset}");
    }
    json_lines(&mut text, "labels", &memory.labels);
    json_lines(&mut text, "state", &memory.standings);
    json_lines(&mut text, "mute", &memory.mutes);
    json_lines(&mut text, "acknowledged", &memory.acknowledged);
    json_lines(&mut text, "stand-in", &memory.stand_ins);
    json_lines(&mut text, "notice", &memory.notices);
    json_lines(&mut text, "announcement", &memory.announcements);
    let checksum = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "end|{checksum:08x}");
    text.into_bytes()
}

fn json_lines<'a, T: serde::Serialize + 'a>(
    text: &mut String,
    kind: &str,
    values: impl IntoIterator<Item = &'a T>,
) {
    for value in values {
        let json = serde_json::to_string(value)
            .unwrap_or_else(|error| unreachable!("plain structs are always JSON: {error}"));
        let _ = writeln!(text, "{kind}|{json}");
    }
}

/// Reads a file's content.
pub(super) fn decode(content: &[u8]) -> Result<Memory, DecodeError> {
    let text = std::str::from_utf8(content).map_err(|_| DecodeError::NotText)?;
    if !matches!(text.lines().next(), Some(HEADER | HEADER_OF_1)) {
        return Err(DecodeError::Header);
    }
    let body_end = text.trim_end().rfind('\n').ok_or(DecodeError::Checksum)? + 1;
    let (body, end) = text.split_at(body_end);
    let checksum = format!("{:08x}", crc32c::crc32c(body.as_bytes()));
    match end.trim_end().strip_prefix("end|") {
        Some(EDITED) => {}
        Some(given) if given == checksum => {}
        _ => return Err(DecodeError::Checksum),
    }
    let mut memory = Memory::new("", 0);
    for (n, line) in body.lines().enumerate().skip(1) {
        if !line.is_empty() && !line.starts_with('#') {
            read_line(&mut memory, line).ok_or(DecodeError::Line(n + 1))?;
        }
    }
    Ok(memory)
}

fn read_line(memory: &mut Memory, line: &str) -> Option<()> {
    let (kind, rest) = line.split_once('|')?;
    let mut fields = rest.split('|');
    match kind {
        "consumer" => memory.consumer = rest.to_owned(),
        "producer" => {
            memory.producer = fields.next()?.to_owned();
            memory.next_sequence = fields.next()?.parse().ok()?;
            memory.next_notice = fields.next()?.parse().ok()?;
        }
        "partition" => {
            let partition = PartitionId(fields.next()?.parse().ok()?);
            memory.next.insert(partition, Offset(fields.next()?.parse().ok()?));
        }
        "topic" => {
            let topic = Topic::new(fields.next()?).ok()?;
            let partition = PartitionId(fields.next()?.parse().ok()?);
            let offset = Offset(fields.next()?.parse().ok()?);
            memory.processed.insert((topic, partition), offset);
        }
        "labels" => memory.labels.push(serde_json::from_str(rest).ok()?),
        "mute" => memory.mutes.push(serde_json::from_str(rest).ok()?),
        "acknowledged" => memory.acknowledged.push(serde_json::from_str(rest).ok()?),
        "stand-in" => memory.stand_ins.push_back(serde_json::from_str(rest).ok()?),
        "state" => memory.standings.push(serde_json::from_str(rest).ok()?),
        "notice" => memory.notices.push(serde_json::from_str(rest).ok()?),
        "announcement" => memory.announcements.push_back(serde_json::from_str(rest).ok()?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
pub(super) mod tests {
    use aklight_common::Pattern;

    use super::*;
    use crate::alerts::actions::{Acknowledged, Mute};
    use crate::alerts::memory::{Announcement, Destination, Notice, StandIn, Standing};
    use crate::alerts::{Alert, Sense};
    use crate::rules::book::Labels;
    use crate::rules::condition::Growth;
    use crate::rules::machine::{Phase, State};
    use crate::rules::{Channel, Container, Kind, Severity};

    fn grown() -> Growth {
        let mut growth = Growth::default();
        growth.take(1, 1.0, 1000);
        growth.take(2, 3.5, 1000);
        growth
    }

    pub(in crate::alerts) fn full() -> Memory {
        let mut memory = Memory::new("consumer1", 1_795_229_527_000);
        let topic = Topic::new("metrics/docker/producer 1/cpu").expect("a topic");
        memory.process(&topic, PartitionId(1), Offset(41));
        memory.standings.push(Standing {
            rule: "cpu-high".to_owned(),
            topic: topic.to_string(),
            state: State {
                phase: Phase::Firing { since_ms: 7, said_ms: 9 },
                told: true,
                sample_ms: 8,
                heard_ms: 9,
                value: 0.1 + 0.2,
                clear_since_ms: 11,
                reminder_owed: true,
                growth: grown(),
            },
        });
        let alert = Alert {
            kind: Kind::Fired,
            rule: "cpu-high".to_owned(),
            topic: topic.to_string(),
            severity: Severity::Critical,
            value: 93.5,
            unit: "%".to_owned(),
            limit: "> 80".to_owned(),
            absence: false,
            since_ms: Some(7),
            at_ms: 8,
            late: false,
            sense: Sense::Growth,
            reason: String::new(),
            context: "exit code 137".to_owned(),
            said: String::new(),
        };
        memory.notify(Notice::new(0, Destination::Console, alert.clone()));
        let anna = Destination::WhatsApp { to: "whatsapp:+34600000089".to_owned() };
        memory.notify(Notice {
            more: vec![alert.clone()],
            due_ms: 12,
            fallback: vec![Channel::Email],
            reference: "[consumer1-2 x]".to_owned(),
            sid: Some("SM1".to_owned()),
            ..Notice::new(0, anna, alert)
        });
        memory.labels.push(Labels {
            container: Container { producer: "p".to_owned(), name: "web".to_owned() },
            labels: [("aklight.alert.memory".to_owned(), "> 90 | \n".to_owned())].into(),
        });
        memory.mutes.push(Mute {
            rule: "+".to_owned(),
            pattern: Pattern::new("metrics/#").expect("a pattern"),
            by: "anna".to_owned(),
            until_ms: 13,
            reason: String::new(),
        });
        memory.acknowledged.push(Acknowledged {
            rule: "cpu-high".to_owned(),
            topic: topic.clone(),
            by: "anna".to_owned(),
        });
        memory.stand_in(StandIn {
            rule: "cpu-high".to_owned(),
            topic: topic.to_string(),
            channel: Channel::Email,
            ended: true,
        });
        memory.announcements.push_back(Announcement {
            sequence: 1,
            topic: "alerts/cpu-high/x".to_owned(),
            payload: "{\"a\":\"|\\n\"}".to_owned(),
        });
        memory.next_sequence = 2;
        memory
    }

    #[test]
    fn what_is_written_is_read_back() {
        let memory = full();
        assert_eq!(decode(&encode(&memory)), Ok(memory));
    }

    /// What the version before wrote, byte for byte.
    #[test]
    fn a_file_of_version_1_is_read() {
        let memory = decode(include_bytes!("../../tests/fixtures/version1.offsets")).expect("read");
        assert_eq!((memory.next_sequence, memory.next_notice), (2, 3));
        assert_eq!(memory.next[&PartitionId(1)], Offset(42));
        assert_eq!(memory.standings[0].state.phase, Phase::Firing { since_ms: 7, said_ms: 9 });
        assert_eq!(memory.notices[0].destination, Destination::Console);
        assert_eq!(memory.notices[1].sid.as_deref(), Some("SM1"));
        assert_eq!((memory.notices[1].due_ms, memory.notices[1].alert.sense), (0, Sense::Value));
        assert_eq!(memory.announcements.len(), 1);
    }

    #[test]
    fn a_person_finds_topic_partition_and_offset() {
        let text = String::from_utf8(encode(&full())).expect("text");
        assert!(text.contains("\ntopic|metrics/docker/producer 1/cpu|1|41\n"), "{text}");
        assert!(text.contains("\npartition|1|42\n"), "{text}");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&full());
        for at in 0..good.len() {
            // The case of the newline at the very end is no damage.
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            if at + 1 < good.len() {
                assert!(decode(&bad).is_err(), "bit flipped in byte {at}");
                assert!(decode(&good[..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn an_edited_file_is_taken_where_it_says_so() {
        let text = String::from_utf8(encode(&full())).expect("text");
        let (body, _) = text.rsplit_once("end|").expect("an end");
        let edited = body.replace("partition|1|42", "partition|1|50") + "end|edited\n";
        let memory = decode(edited.as_bytes()).expect("read");
        assert_eq!(memory.next[&PartitionId(1)], Offset(50));
        let unmarked = text.replace("partition|1|42", "partition|1|50");
        assert_eq!(decode(unmarked.as_bytes()), Err(DecodeError::Checksum));
    }
}
