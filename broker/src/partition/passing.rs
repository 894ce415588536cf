//! What brokers say to each other about records for a partition's leader, as bytes.
//!
//! ```text
//! message = crc32c of the rest (u32), what (u8): 0 hello | 1 batch
//! batch   = records, of PRODUCE_ONCE (u32 each), first time, last time (u64 each), length (u32),
//!           body (see `aklight_common::record`)
//! answer  = what (u8): 0 welcome | 1 not the leader | 2 from: offset (u64)
//!         | 3 each: count (u32), for each: what (u8): 0 stored | 1 too old, and u64
//!         | 4 no room | 5 not stored | 6 not known: length (u32), text
//! ```
//!
//! Numbers are little-endian. New fields come at the end only, and readers ignore what follows the
//! fields that they know. The checksum is there because what is passed on is kept: TCP's own lets
//! one damaged packet in some millions through.

use aklight_common::Offset;
use aklight_common::record::Body;
use aklight_common::topic::check_topic;
use aklight_common::wire::command::check_client_id;
use aklight_log::BODY_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::placed::{Outcome, Placed, ProduceError};

/// What is said over a stream to a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Do you lead? Always the first.
    Hello,
    /// Store these.
    Batch(Batch),
}

/// Records that are passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) body: Body,
    /// How many of them are of PRODUCE_ONCE.
    pub(super) once: u32,
}

/// What a leader answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It leads, and takes batches.
    Welcome,
    /// What became of a batch.
    Batch(Result<Placed, ProduceError>),
}

/// What does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what another broker passed on is damaged ({0})")]
pub(super) struct Nonsense(&'static str);

const CUT_SHORT: Nonsense = Nonsense("it is cut short");

/// Bytes of a batch beside its body.
const HEAD_BYTES: usize = 33;

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let length = match self {
            Self::Hello => 0,
            Self::Batch(batch) => batch.body.bytes.len(),
        };
        let mut out = BytesMut::with_capacity(HEAD_BYTES + length);
        out.put_u32_le(0);
        match self {
            Self::Hello => out.put_u8(0),
            Self::Batch(Batch { body, once }) => {
                out.put_u8(1);
                out.put_u32_le(body.records);
                out.put_u32_le(*once);
                out.put_u64_le(body.first_time_us);
                out.put_u64_le(body.last_time_us);
                put_bytes(&mut out, &body.bytes);
            }
        }
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out.freeze()
    }

    /// Reads a message, and every record in it: what comes in here is trusted from then on.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, Nonsense> {
        let crc = bytes.try_get_u32_le().map_err(|_| CUT_SHORT)?;
        if crc32c::crc32c(&bytes) != crc {
            return Err(Nonsense("its checksum is wrong"));
        }
        match bytes.try_get_u8().map_err(|_| CUT_SHORT)? {
            0 => Ok(Self::Hello),
            1 => {
                let records = bytes.try_get_u32_le().map_err(|_| CUT_SHORT)?;
                let once = bytes.try_get_u32_le().map_err(|_| CUT_SHORT)?;
                let first_time_us = bytes.try_get_u64_le().map_err(|_| CUT_SHORT)?;
                let last_time_us = bytes.try_get_u64_le().map_err(|_| CUT_SHORT)?;
                let bytes = get_bytes(&mut bytes)?;
                let batch =
                    Batch { body: Body { records, first_time_us, last_time_us, bytes }, once };
                batch.check()?;
                Ok(Self::Batch(batch))
            }
            _ => Err(Nonsense("it is of a kind that this release does not know")),
        }
    }
}

impl Batch {
    fn check(&self) -> Result<(), Nonsense> {
        let Self { body, once } = self;
        if body.bytes.len() > BODY_BYTES_MAX {
            return Err(Nonsense("it is too long"));
        }
        let (mut found, mut found_once, mut last_us) = (0_u32, 0_u32, body.first_time_us);
        for record in body.records() {
            let record = record.map_err(|_| Nonsense("a record does not decode"))?;
            check_topic(record.topic.as_bytes()).map_err(|_| Nonsense("a topic is none"))?;
            let in_order = record.time_us >= last_us && (found > 0 || record.time_us == last_us);
            if !in_order {
                return Err(Nonsense("the times of its records do not rise"));
            }
            last_us = record.time_us;
            found += 1;
            if let Some(once) = record.once {
                found_once += 1;
                if once.sequence == 0 || check_client_id(once.producer.as_bytes()).is_err() {
                    return Err(Nonsense("a producer or a sequence is none"));
                }
            }
        }
        if found == 0 || (found, found_once, last_us) != (body.records, *once, body.last_time_us) {
            return Err(Nonsense("its head does not tell what it holds"));
        }
        Ok(())
    }
}

impl Said {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Welcome => out.put_u8(0),
            Self::Batch(Err(ProduceError::NotLeader)) => out.put_u8(1),
            Self::Batch(Ok(Placed::From(base))) => {
                out.put_u8(2);
                out.put_u64_le(base.0);
            }
            Self::Batch(Ok(Placed::Each(outcomes))) => {
                out.put_u8(3);
                // As many as the batch has records, which are counted in 32 bits.
                out.put_u32_le(u32::try_from(outcomes.len()).unwrap_or(u32::MAX));
                for outcome in outcomes {
                    let (what, number) = match outcome {
                        Outcome::Stored(offset) => (0, offset.0),
                        Outcome::TooOld(highest) => (1, *highest),
                    };
                    out.put_u8(what);
                    out.put_u64_le(number);
                }
            }
            Self::Batch(Err(ProduceError::NoRoom(text))) => put_text(&mut out, 4, text),
            Self::Batch(Err(ProduceError::NotStored(text))) => put_text(&mut out, 5, text),
            Self::Batch(Err(ProduceError::Unknown(text))) => put_text(&mut out, 6, text),
        }
        out.freeze()
    }

    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, Nonsense> {
        Ok(Self::Batch(match bytes.try_get_u8().map_err(|_| CUT_SHORT)? {
            0 => return Ok(Self::Welcome),
            1 => Err(ProduceError::NotLeader),
            2 => Ok(Placed::From(Offset(bytes.try_get_u64_le().map_err(|_| CUT_SHORT)?))),
            3 => {
                let count = bytes.try_get_u32_le().map_err(|_| CUT_SHORT)?;
                let outcomes = (0..count).map(|_| get_outcome(&mut bytes));
                Ok(Placed::Each(outcomes.collect::<Result<_, _>>()?))
            }
            4 => Err(ProduceError::NoRoom(get_text(&mut bytes)?)),
            5 => Err(ProduceError::NotStored(get_text(&mut bytes)?)),
            6 => Err(ProduceError::Unknown(get_text(&mut bytes)?)),
            _ => return Err(Nonsense("it is an answer that this release does not know")),
        }))
    }
}

fn get_outcome(bytes: &mut Bytes) -> Result<Outcome, Nonsense> {
    let what = bytes.try_get_u8().map_err(|_| CUT_SHORT)?;
    let number = bytes.try_get_u64_le().map_err(|_| CUT_SHORT)?;
    match what {
        0 => Ok(Outcome::Stored(Offset(number))),
        1 => Ok(Outcome::TooOld(number)),
        _ => Err(Nonsense("it is an answer that this release does not know")),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    // No body and no text is longer than a message may be.
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn get_bytes(bytes: &mut Bytes) -> Result<Bytes, Nonsense> {
    let length = bytes.try_get_u32_le().map_err(|_| CUT_SHORT)? as usize;
    if bytes.len() < length {
        return Err(CUT_SHORT);
    }
    Ok(bytes.split_to(length))
}

fn put_text(out: &mut BytesMut, what: u8, text: &str) {
    out.put_u8(what);
    put_bytes(out, text.as_bytes());
}

fn get_text(bytes: &mut Bytes) -> Result<String, Nonsense> {
    let text = get_bytes(bytes)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use aklight_common::record::{BodyBuilder, Once, Record};
    use proptest::prelude::*;

    use super::*;

    fn batches() -> impl Strategy<Value = Batch> {
        let record = (0_u64..1000, ".{0,8}", any::<Vec<u8>>(), proptest::option::of(1_u64..));
        proptest::collection::vec(record, 1..20).prop_map(|records| {
            let mut builder = BodyBuilder::new();
            let (mut time_us, mut found) = (1_000, 0);
            for (pause, key, payload, sequence) in &records {
                time_us += pause;
                let once = sequence.map(|sequence| Once { producer: "p", sequence });
                found += u32::from(once.is_some());
                let key = key.as_bytes();
                builder.push(&Record { time_us, topic: "a/b", key, payload, once });
            }
            Batch { body: builder.finish(), once: found }
        })
    }

    fn answers() -> impl Strategy<Value = Said> {
        let outcome = prop_oneof![
            any::<u64>().prop_map(|at| Outcome::Stored(Offset(at))),
            any::<u64>().prop_map(Outcome::TooOld),
        ];
        prop_oneof![
            Just(Said::Welcome),
            Just(Said::Batch(Err(ProduceError::NotLeader))),
            any::<u64>().prop_map(|at| Said::Batch(Ok(Placed::From(Offset(at))))),
            proptest::collection::vec(outcome, 0..40)
                .prop_map(|outcomes| Said::Batch(Ok(Placed::Each(outcomes)))),
            ".*".prop_map(|text| Said::Batch(Err(ProduceError::NoRoom(text)))),
            ".*".prop_map(|text| Said::Batch(Err(ProduceError::NotStored(text)))),
            ".*".prop_map(|text| Said::Batch(Err(ProduceError::Unknown(text)))),
        ]
    }

    /// A client that reads the topic's line would be told something else.
    #[test]
    fn what_has_no_topic_does_not_come_in() {
        let mut builder = BodyBuilder::new();
        let (topic, key, payload) = ("a/b", &b""[..], &b"x"[..]);
        builder.push(&Record { time_us: 1_000, topic, key, payload, once: None });
        let body = builder.finish();
        for (byte, comes_in) in [(b'/', true), (b'|', false), (b'#', false), (b'\n', false)] {
            let mut bytes = body.bytes.to_vec();
            let slash = bytes.iter().position(|b| *b == b'/').expect("the topic's");
            bytes[slash] = byte;
            let body = Body { bytes: bytes.into(), ..body.clone() };
            let message = Message::Batch(Batch { body, once: 0 }).encode();
            assert_eq!(Message::decode(message).is_ok(), comes_in, "{}", byte.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_is_passed_on_comes_in_whole_or_not_at_all(batch in batches(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let message = Message::Batch(batch);
            let bytes = message.encode();
            prop_assert_eq!(Message::decode(bytes.clone()), Ok(message));
            let mut damaged = bytes.to_vec();
            let at = at.index(damaged.len());
            damaged[at] ^= 1_u8 << bit;
            prop_assert!(Message::decode(damaged.into()).is_err());
            prop_assert!(Message::decode(bytes.slice(..at)).is_err());
        }

        #[test]
        fn answers_come_back_and_may_grow_at_their_end(said in answers(), more in any::<Vec<u8>>()) {
            let mut bytes = said.encode().to_vec();
            bytes.extend_from_slice(&more);
            prop_assert_eq!(Said::decode(bytes.into()), Ok(said));
        }

        #[test]
        fn nonsense_is_an_error_and_no_panic(bytes in any::<Vec<u8>>()) {
            let mut sealed = crc32c::crc32c(&bytes).to_le_bytes().to_vec();
            sealed.extend_from_slice(&bytes);
            let _ = Message::decode(sealed.into());
            let _ = Said::decode(bytes.into());
        }
    }

    #[test]
    fn a_head_that_tells_something_else_is_refused() {
        let mut builder = BodyBuilder::new();
        builder.push(&Record { time_us: 5, topic: "a", key: b"", payload: b"x", once: None });
        let body = builder.finish();
        let decode = |body: Body, once| {
            Message::decode(Message::Batch(Batch { body, once }).encode()).is_ok()
        };
        assert!(decode(body.clone(), 0));
        assert!(!decode(body.clone(), 1));
        assert!(!decode(Body { records: 2, ..body.clone() }, 0));
        assert!(!decode(Body { last_time_us: 6, ..body.clone() }, 0));
        assert!(!decode(Body { bytes: Bytes::new(), records: 0, ..body }, 0));
    }
}
