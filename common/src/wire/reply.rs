//! What a broker says: one answer a line, or several lines and an END.

use std::borrow::Cow;

use super::error::{ErrorCode, WireError};
use super::escape::unescape;
use super::field::{digits, escaped, fields, number};
use crate::topic::check_topic;
use crate::{BrokerId, Offset, PartitionId};

/// A broker's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Done.
    Ok,
    /// Done; the next offset that a consumer has not acknowledged, for each partition.
    OkPositions(Vec<(PartitionId, Offset)>),
    /// A record is stored.
    Ack {
        /// Its topic.
        topic: &'a str,
        /// Its offset.
        offset: Offset,
        /// Its partition.
        partition: PartitionId,
    },
    /// The next so many records are stored.
    Acks(u64),
    /// A record.
    Message {
        /// Its topic.
        topic: &'a str,
        /// Its offset.
        offset: Offset,
        /// Its partition.
        partition: PartitionId,
        /// Its key, unescaped.
        key: Cow<'a, [u8]>,
        /// Its payload, unescaped.
        payload: Cow<'a, [u8]>,
    },
    /// The end of a listing.
    End {
        /// Lines before this one.
        count: u64,
        /// Of FETCH: where the next one goes on, for each partition asked.
        next: Option<Vec<(PartitionId, Offset)>>,
    },
    /// A line of TOPICS.
    Topic {
        /// The topic.
        name: &'a str,
        /// How many of its records are kept.
        records: u64,
    },
    /// A line of CLUSTER.
    Broker {
        /// The broker.
        id: BrokerId,
        /// Where clients reach it.
        address: &'a str,
        /// `alive` or `dead`.
        state: &'a str,
    },
    /// A line of CLUSTER.
    Partition {
        /// The partition.
        id: PartitionId,
        /// The broker that leads it, if one does.
        leader: Option<BrokerId>,
        /// The first offset that is kept.
        start: Offset,
        /// The next offset to be written.
        end: Offset,
    },
    /// Every command before the PING is done.
    Pong(&'a [u8]),
    /// The broker closes.
    Bye,
    /// A command was refused.
    Err(WireError),
}

impl<'a> Reply<'a> {
    /// Appends the reply as a line, newline included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ok => out.extend_from_slice(b"OK"),
            Self::OkPositions(positions) => {
                out.extend_from_slice(b"OK|");
                put_positions(out, positions);
            }
            Self::Ack { topic, offset, partition } => {
                fields(out, &[b"ACK", topic.as_bytes()]);
                put_number(out, offset.0);
                put_number(out, u64::from(partition.0));
            }
            Self::Acks(count) => {
                out.extend_from_slice(b"ACKS");
                put_number(out, *count);
            }
            Self::Message { topic, offset, partition, key, payload } => {
                fields(out, &[b"MESSAGE", topic.as_bytes()]);
                put_number(out, offset.0);
                put_number(out, u64::from(partition.0));
                escaped(out, key);
                escaped(out, payload);
            }
            Self::End { count, next } => {
                out.extend_from_slice(b"END");
                put_number(out, *count);
                if let Some(next) = next {
                    out.push(b'|');
                    put_positions(out, next);
                }
            }
            Self::Topic { name, records } => {
                fields(out, &[b"TOPIC", name.as_bytes()]);
                put_number(out, *records);
            }
            Self::Broker { id, address, state } => {
                out.extend_from_slice(format!("BROKER|{id}|{address}|{state}").as_bytes());
            }
            Self::Partition { id, leader, start, end } => {
                let leader = leader.map_or_else(|| "-".to_owned(), |id| id.to_string());
                out.extend_from_slice(format!("PARTITION|{id}|{leader}|{start}|{end}").as_bytes());
            }
            Self::Pong(token) => fields(out, &[b"PONG", token]),
            Self::Bye => out.extend_from_slice(b"BYE"),
            Self::Err(WireError { code, text }) => {
                fields(out, &[b"ERR", code.as_str().as_bytes(), text.as_bytes()]);
            }
        }
        out.push(b'\n');
    }

    /// Reads a line (without its newline).
    ///
    /// # Errors
    /// When the line is no reply of this version of the protocol.
    pub fn decode(line: &'a [u8]) -> Result<Self, NoReply> {
        decode(line).ok_or_else(|| NoReply(line[..line.len().min(80)].escape_ascii().to_string()))
    }
}

/// A line that no broker of this version says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a line of the AKLight protocol, version 1: '{0}'")]
pub struct NoReply(String);

fn decode(line: &[u8]) -> Option<Reply<'_>> {
    let mut parts = line.splitn(6, |b| *b == b'|');
    let name = parts.next()?;
    let reply = match name {
        b"ACK" => Reply::Ack {
            topic: check_topic(parts.next()?).ok()?,
            offset: Offset(whole(parts.next()?)?),
            partition: partition(parts.next()?)?,
        },
        b"ACKS" => Reply::Acks(whole(parts.next()?)?),
        b"MESSAGE" => Reply::Message {
            topic: check_topic(parts.next()?).ok()?,
            offset: Offset(whole(parts.next()?)?),
            partition: partition(parts.next()?)?,
            key: unescape(parts.next()?).ok()?,
            payload: unescape(parts.next()?).ok()?,
        },
        b"OK" => match parts.next() {
            None => Reply::Ok,
            Some(positions) => Reply::OkPositions(read_positions(positions)?),
        },
        b"END" => Reply::End {
            count: whole(parts.next()?)?,
            next: match parts.next() {
                None => None,
                Some(positions) => Some(read_positions(positions)?),
            },
        },
        b"TOPIC" => {
            Reply::Topic { name: check_topic(parts.next()?).ok()?, records: whole(parts.next()?)? }
        }
        b"BROKER" => Reply::Broker {
            id: BrokerId(whole(parts.next()?)?),
            address: std::str::from_utf8(parts.next()?).ok()?,
            state: std::str::from_utf8(parts.next()?).ok()?,
        },
        b"PARTITION" => Reply::Partition {
            id: partition(parts.next()?)?,
            leader: match parts.next()? {
                b"-" => None,
                id => Some(BrokerId(whole(id)?)),
            },
            start: Offset(whole(parts.next()?)?),
            end: Offset(whole(parts.next()?)?),
        },
        b"PONG" => Reply::Pong(parts.next()?),
        b"BYE" => Reply::Bye,
        b"ERR" => {
            // The text is the last field and may hold pipes.
            let mut parts = line.splitn(3, |b| *b == b'|').skip(1);
            let code = parts.next()?;
            let code = ErrorCode::ALL.into_iter().find(|c| c.as_str().as_bytes() == code)?;
            let text = std::str::from_utf8(parts.next()?).ok()?;
            return Some(Reply::Err(WireError::new(code, text)));
        }
        _ => return None,
    };
    parts.next().is_none().then_some(reply)
}

fn whole(field: &[u8]) -> Option<u64> {
    number(field, "a number").ok()
}

fn partition(field: &[u8]) -> Option<PartitionId> {
    u32::try_from(whole(field)?).ok().map(PartitionId)
}

fn read_positions(field: &[u8]) -> Option<Vec<(PartitionId, Offset)>> {
    if field.is_empty() {
        return Some(Vec::new());
    }
    field
        .split(|b| *b == b',')
        .map(|pair| {
            let colon = memchr::memchr(b':', pair)?;
            Some((partition(&pair[..colon])?, Offset(whole(&pair[colon + 1..])?)))
        })
        .collect()
}

fn put_positions(out: &mut Vec<u8>, positions: &[(PartitionId, Offset)]) {
    for (n, (partition, offset)) in positions.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        out.extend_from_slice(format!("{comma}{partition}:{offset}").as_bytes());
    }
}

/// A pipe and a number. Lines that come by the thousand are written by [`super::AckLines`] and
/// [`super::MessageLines`].
fn put_number(out: &mut Vec<u8>, value: u64) {
    let (digits, first) = digits(value);
    out.push(b'|');
    out.extend_from_slice(&digits[first..]);
}
