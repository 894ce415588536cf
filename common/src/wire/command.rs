//! What a client says: one command a line.

use std::borrow::Cow;

use super::error::{ErrorCode, WireError};
use super::escape::unescape;
use super::field::{escaped, fields, number, printable};
use crate::limits::{CLIENT_ID_BYTES_MAX, FETCH_RECORDS_DEFAULT};
use crate::pattern::check_pattern;
use crate::topic::check_topic;
use crate::{Offset, PartitionId};

/// How a producer wants its records acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerMode {
    /// One `ACK` a record, with its offset.
    Each,
    /// `ACKS|n` for the next n records: for producers that need no offsets.
    Cumulative,
}

/// A command, checked in all that can be checked without knowing the broker's state. Topics and
/// patterns are well formed; keys and payloads are unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Proves who is speaking.
    Auth {
        /// A JWT or an API token.
        token: &'a [u8],
    },
    /// Names this connection's producer.
    RegisterProducer {
        /// The producer's id.
        id: &'a str,
        /// How its records are acknowledged.
        mode: ProducerMode,
    },
    /// Names this connection's consumer.
    RegisterConsumer {
        /// The consumer's id.
        id: &'a str,
        /// Whether the broker keeps its offsets.
        persistent: bool,
    },
    /// Appends a record.
    Produce {
        /// Where it belongs.
        topic: &'a str,
        /// What it is partitioned by; may be empty.
        key: Cow<'a, [u8]>,
        /// What it says.
        payload: Cow<'a, [u8]>,
    },
    /// Appends a record unless this producer's sequence was appended before.
    ProduceOnce {
        /// The producer's own number for the record, from 1.
        sequence: u64,
        /// Where it belongs.
        topic: &'a str,
        /// What it is partitioned by; may be empty.
        key: Cow<'a, [u8]>,
        /// What it says.
        payload: Cow<'a, [u8]>,
    },
    /// Asks for matching records as they come.
    Subscribe {
        /// Which topics.
        pattern: &'a str,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// The pattern of the subscription.
        pattern: &'a str,
    },
    /// Asks for stored records.
    Fetch {
        /// Which topics.
        pattern: &'a str,
        /// The first offset wanted, in each partition asked.
        offset: Offset,
        /// One partition, or all.
        partition: Option<PartitionId>,
        /// Most records.
        max: u64,
        /// How long to wait for the first one, in milliseconds.
        wait_ms: u64,
    },
    /// Says that this consumer has processed a partition up to and including an offset.
    Ack {
        /// The topic of the record with that offset.
        topic: &'a str,
        /// The offset.
        offset: Offset,
        /// The partition.
        partition: PartitionId,
    },
    /// Asks for the newest record of each matching topic.
    Last {
        /// Which topics.
        pattern: &'a str,
    },
    /// Asks which topics there are.
    Topics {
        /// Which topics.
        pattern: &'a str,
    },
    /// Asks for brokers, partitions and leaders.
    Cluster,
    /// A barrier.
    Ping {
        /// Given back in the answer.
        token: &'a [u8],
    },
    /// Ends the connection.
    Quit,
}

impl<'a> Command<'a> {
    /// Reads a line (without its newline).
    ///
    /// # Errors
    /// The code and text to answer with.
    #[inline]
    pub fn decode(line: &'a [u8]) -> Result<Self, WireError> {
        // Most lines are of this one.
        if let Some(rest) = line.strip_prefix(b"PRODUCE|") {
            let [topic, key, payload] = last_takes_rest(Some(rest), PRODUCE_SHAPE)?;
            let (topic, key, payload) = record_fields(topic, key, payload)?;
            return Ok(Self::Produce { topic, key, payload });
        }
        Self::decode_other(line)
    }

    fn decode_other(line: &'a [u8]) -> Result<Self, WireError> {
        let name_end = memchr::memchr(b'|', line).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        let rest = rest.get(1..);
        match name {
            b"PRODUCE" => Err(wrong_fields(PRODUCE_SHAPE)),
            b"PRODUCE_ONCE" => {
                let [sequence, topic, key, payload] =
                    last_takes_rest(rest, "PRODUCE_ONCE|sequence|topic|key|payload")?;
                let sequence = number(sequence, "a sequence")?;
                if sequence == 0 {
                    return Err(ErrorCode::BadSequence.with("sequences are counted from 1"));
                }
                let (topic, key, payload) = record_fields(topic, key, payload)?;
                Ok(Self::ProduceOnce { sequence, topic, key, payload })
            }
            b"ACK" => {
                let [topic, offset, partition] = exactly(rest, "ACK|topic|offset|partition")?;
                Ok(Self::Ack {
                    topic: topic_field(topic)?,
                    offset: Offset(number(offset, "an offset")?),
                    partition: partition_number(partition)?,
                })
            }
            b"FETCH" => decode_fetch(rest),
            b"SUBSCRIBE" => {
                let [pattern] = exactly(rest, "SUBSCRIBE|pattern")?;
                Ok(Self::Subscribe { pattern: pattern_field(pattern)? })
            }
            b"UNSUBSCRIBE" => {
                let [pattern] = exactly(rest, "UNSUBSCRIBE|pattern")?;
                Ok(Self::Unsubscribe { pattern: pattern_field(pattern)? })
            }
            b"LAST" => {
                let [pattern] = exactly(rest, "LAST|pattern")?;
                Ok(Self::Last { pattern: pattern_field(pattern)? })
            }
            b"TOPICS" => {
                let [pattern] = exactly(rest, "TOPICS|pattern")?;
                Ok(Self::Topics { pattern: pattern_field(pattern)? })
            }
            b"CLUSTER" => exactly(rest, "CLUSTER").map(|[]| Self::Cluster),
            b"PING" => exactly(rest, "PING|token").map(|[token]| Self::Ping { token }),
            b"QUIT" => exactly(rest, "QUIT").map(|[]| Self::Quit),
            b"AUTH" => exactly(rest, "AUTH|token").map(|[token]| Self::Auth { token }),
            b"REGISTER_PRODUCER" => decode_register_producer(rest),
            b"REGISTER_CONSUMER" => {
                let [id, persistent] = exactly(rest, "REGISTER_CONSUMER|id|persistent")?;
                let persistent = match persistent {
                    b"1" | b"true" | b"persistent" => true,
                    b"0" | b"false" => false,
                    _ => {
                        return Err(ErrorCode::BadCommand
                            .with("persistent is 1, true or persistent, or else 0 or false"));
                    }
                };
                Ok(Self::RegisterConsumer { id: client_id(id)?, persistent })
            }
            _ => Err(ErrorCode::BadCommand.with(&format!(
                "no command is called '{}': commands are upper case, as in PING|token",
                printable(name)
            ))),
        }
    }

    /// Appends the command as a line, newline included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Auth { token } => fields(out, &[b"AUTH", token]),
            Self::RegisterProducer { id, mode } => {
                fields(out, &[b"REGISTER_PRODUCER", id.as_bytes()]);
                if *mode == ProducerMode::Cumulative {
                    out.extend_from_slice(b"|cumulative");
                }
            }
            Self::RegisterConsumer { id, persistent } => {
                let persistent: &[u8] = if *persistent { b"1" } else { b"0" };
                fields(out, &[b"REGISTER_CONSUMER", id.as_bytes(), persistent]);
            }
            Self::Produce { topic, key, payload } => {
                fields(out, &[b"PRODUCE", topic.as_bytes()]);
                escaped(out, key);
                escaped(out, payload);
            }
            Self::ProduceOnce { sequence, topic, key, payload } => {
                fields(out, &[b"PRODUCE_ONCE", sequence.to_string().as_bytes(), topic.as_bytes()]);
                escaped(out, key);
                escaped(out, payload);
            }
            Self::Subscribe { pattern } => fields(out, &[b"SUBSCRIBE", pattern.as_bytes()]),
            Self::Unsubscribe { pattern } => fields(out, &[b"UNSUBSCRIBE", pattern.as_bytes()]),
            Self::Fetch { pattern, offset, partition, max, wait_ms } => {
                let partition = partition.map_or_else(|| "*".to_owned(), |p| p.to_string());
                let rest = format!("FETCH|{pattern}|{offset}|{partition}|{max}|{wait_ms}");
                out.extend_from_slice(rest.as_bytes());
            }
            Self::Ack { topic, offset, partition } => {
                out.extend_from_slice(format!("ACK|{topic}|{offset}|{partition}").as_bytes());
            }
            Self::Last { pattern } => fields(out, &[b"LAST", pattern.as_bytes()]),
            Self::Topics { pattern } => fields(out, &[b"TOPICS", pattern.as_bytes()]),
            Self::Cluster => out.extend_from_slice(b"CLUSTER"),
            Self::Ping { token } => fields(out, &[b"PING", token]),
            Self::Quit => out.extend_from_slice(b"QUIT"),
        }
        out.push(b'\n');
    }
}

fn decode_register_producer(rest: Option<&[u8]>) -> Result<Command<'_>, WireError> {
    const SHAPE: &str = "REGISTER_PRODUCER|id or REGISTER_PRODUCER|id|cumulative";
    if let Ok([id]) = exactly(rest, SHAPE) {
        return Ok(Command::RegisterProducer { id: client_id(id)?, mode: ProducerMode::Each });
    }
    let [id, mode] = exactly(rest, SHAPE)?;
    if mode != b"cumulative" {
        return Err(ErrorCode::BadCommand.with(&format!("the command is {SHAPE}")));
    }
    Ok(Command::RegisterProducer { id: client_id(id)?, mode: ProducerMode::Cumulative })
}

fn decode_fetch(rest: Option<&[u8]>) -> Result<Command<'_>, WireError> {
    const SHAPE: &str = "FETCH|pattern|offset or FETCH|pattern|offset|partition|max|wait_ms";
    if let Ok([pattern, offset]) = exactly(rest, SHAPE) {
        return Ok(Command::Fetch {
            pattern: pattern_field(pattern)?,
            offset: Offset(number(offset, "an offset")?),
            partition: None,
            max: FETCH_RECORDS_DEFAULT,
            wait_ms: 0,
        });
    }
    let [pattern, offset, partition, max, wait_ms] = exactly(rest, SHAPE)?;
    Ok(Command::Fetch {
        pattern: pattern_field(pattern)?,
        offset: Offset(number(offset, "an offset")?),
        partition: if partition == b"*" { None } else { Some(partition_number(partition)?) },
        max: number(max, "a number of records")?,
        wait_ms: number(wait_ms, "a wait in milliseconds")?,
    })
}

/// Cuts into exactly N fields.
fn exactly<'a, const N: usize>(
    rest: Option<&'a [u8]>,
    shape: &str,
) -> Result<[&'a [u8]; N], WireError> {
    let mut cut = [&b""[..]; N];
    let mut given = rest.into_iter().flat_map(|rest| rest.split(|b| *b == b'|'));
    for field in &mut cut {
        *field = given.next().ok_or_else(|| wrong_fields(shape))?;
    }
    if given.next().is_some() {
        return Err(wrong_fields(shape));
    }
    Ok(cut)
}

const PRODUCE_SHAPE: &str = "PRODUCE|topic|key|payload";

/// Cuts into N fields, of which the last may hold pipes.
#[inline]
fn last_takes_rest<'a, const N: usize>(
    rest: Option<&'a [u8]>,
    shape: &str,
) -> Result<[&'a [u8]; N], WireError> {
    let mut cut = [&b""[..]; N];
    let mut rest = rest.ok_or_else(|| wrong_fields(shape))?;
    for field in &mut cut[..N - 1] {
        let end = memchr::memchr(b'|', rest).ok_or_else(|| wrong_fields(shape))?;
        *field = &rest[..end];
        rest = &rest[end + 1..];
    }
    cut[N - 1] = rest;
    Ok(cut)
}

fn wrong_fields(shape: &str) -> WireError {
    ErrorCode::BadCommand.with(&format!("wrong number of fields: the command is {shape}"))
}

type RecordFields<'a> = (&'a str, Cow<'a, [u8]>, Cow<'a, [u8]>);

#[inline]
fn record_fields<'a>(
    topic: &'a [u8],
    key: &'a [u8],
    payload: &'a [u8],
) -> Result<RecordFields<'a>, WireError> {
    Ok((
        topic_field(topic)?,
        unescape(key).map_err(|_| bad_escape("key"))?,
        unescape(payload).map_err(|_| bad_escape("payload"))?,
    ))
}

#[cold]
fn bad_escape(field: &str) -> WireError {
    ErrorCode::BadEscape.with(&format!("in the {field}: after a backslash stands one of \\ n r p; write \\\\ for a backslash itself"))
}

#[inline]
fn topic_field(field: &[u8]) -> Result<&str, WireError> {
    check_topic(field).map_err(|error| ErrorCode::BadTopic.with(&error.to_string()))
}

fn pattern_field(field: &[u8]) -> Result<&str, WireError> {
    check_pattern(field).map_err(|error| ErrorCode::BadPattern.with(&error.to_string()))
}

fn partition_number(field: &[u8]) -> Result<PartitionId, WireError> {
    let partition = number(field, "a partition")?;
    u32::try_from(partition)
        .map(PartitionId)
        .map_err(|_| ErrorCode::BadNumber.with(&format!("there is no partition {partition}")))
}

fn client_id(field: &[u8]) -> Result<&str, WireError> {
    check_client_id(field).map_err(|why| ErrorCode::BadCommand.with(&why))
}

/// Checks the id of a producer or consumer: one level of a topic, of at most 128 bytes.
///
/// # Errors
/// What an id must be.
pub fn check_client_id(id: &[u8]) -> Result<&str, String> {
    let rule = || {
        format!(
            "an id is one topic level of 1 to {CLIENT_ID_BYTES_MAX} bytes: no '/', '+', '#', '|' or control character"
        )
    };
    if id.len() > CLIENT_ID_BYTES_MAX || id.contains(&b'/') {
        return Err(rule());
    }
    check_topic(id).map_err(|_| rule())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(line: &str, code: ErrorCode) {
        match Command::decode(line.as_bytes()) {
            Err(error) => assert_eq!(error.code, code, "{line}: {error}"),
            Ok(command) => panic!("{line} was read as {command:?}"),
        }
    }

    #[test]
    fn the_wrong_shape_is_bad_command() {
        for line in [
            "PRODUCE",
            "PRODUCE|t",
            "PRODUCE|t|k",
            "produce|t|k|p",
            "NOPE",
            "",
            "FETCH|#",
            "FETCH|#|0|0",
            "FETCH|#|0|0|1",
            "FETCH|#|0|0|1|0|x",
            "QUIT|x",
            "PING",
            "PING|a|b",
            "REGISTER_PRODUCER",
            "REGISTER_PRODUCER|p|other",
            "REGISTER_PRODUCER|a/b",
            "REGISTER_PRODUCER|",
            "REGISTER_CONSUMER|c",
            "REGISTER_CONSUMER|c|maybe",
            "CLUSTER|",
            "ACK|t|1",
            "PRODUCE_ONCE|1|t|k",
        ] {
            refuse(line, ErrorCode::BadCommand);
        }
    }

    #[test]
    fn each_field_has_its_own_error() {
        refuse("PRODUCE|a//b|k|p", ErrorCode::BadTopic);
        refuse("PRODUCE|a/+|k|p", ErrorCode::BadTopic);
        refuse("PRODUCE|t|k\\x|p", ErrorCode::BadEscape);
        refuse("PRODUCE|t|k|p\\", ErrorCode::BadEscape);
        refuse("SUBSCRIBE|a/#/b", ErrorCode::BadPattern);
        refuse("FETCH|#|x", ErrorCode::BadNumber);
        refuse("FETCH|#|-1", ErrorCode::BadNumber);
        refuse("FETCH|#|+1", ErrorCode::BadNumber);
        refuse("FETCH|#|", ErrorCode::BadNumber);
        refuse("FETCH|#|99999999999999999999", ErrorCode::BadNumber);
        refuse("FETCH|#|0|99999999999|1|0", ErrorCode::BadNumber);
        refuse("PRODUCE_ONCE|one|t|k|p", ErrorCode::BadNumber);
        refuse("PRODUCE_ONCE|0|t|k|p", ErrorCode::BadSequence);
    }

    #[test]
    fn a_raw_pipe_in_the_payload_is_taken_and_written_escaped() {
        let command = Command::decode(b"PRODUCE|t||a|b|c").expect("decodes");
        let Command::Produce { ref payload, .. } = command else { panic!("{command:?}") };
        assert_eq!(&**payload, b"a|b|c");
        let mut line = Vec::new();
        command.encode(&mut line);
        assert_eq!(line, b"PRODUCE|t||a\\pb\\pc\n");
    }
}
