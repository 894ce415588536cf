//! The protocol's laws, over whatever proptest thinks of: what is encoded decodes to itself,
//! what decodes has one canonical line, and no bytes from outside bring a decoder down.

use aklight_common::limits::{CLIENT_ID_BYTES_MAX, TOPIC_BYTES_MAX};
use aklight_common::record::{BodyBuilder, Once, Record, Records, Stored, StoredRecords};
use aklight_common::wire::escape::{escape_into, unescape};
use aklight_common::wire::{
    Command, ErrorCode, Line, LineCutter, MessageLines, ProducerMode, Reply, WireError,
};
use aklight_common::{BrokerId, Offset, PartitionId};
use proptest::collection::vec;
use proptest::prelude::*;

/// What commands and replies are made of.
#[derive(Debug, Clone)]
struct Parts {
    variant: usize,
    topic: String,
    pattern: String,
    id: String,
    key: Vec<u8>,
    payload: Vec<u8>,
    token: Vec<u8>,
    text: String,
    a: u64,
    b: u64,
    partition: u32,
    flag: bool,
    positions: Vec<(u32, u64)>,
}

const COMMANDS: usize = 14;
const REPLIES: usize = 12;

fn level() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9$ ._é中-]{1,12}"
}

fn topic() -> impl Strategy<Value = String> {
    vec(level(), 1..8)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("fits", |t| t.len() <= TOPIC_BYTES_MAX)
}

fn pattern() -> impl Strategy<Value = String> {
    let level = prop_oneof![level(), Just("+".to_owned())];
    (vec(level, 1..8), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("fits", |t| t.len() <= TOPIC_BYTES_MAX)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, any::<u64>(), Just(u64::MAX)]
}

/// Bytes among which the escaped ones are frequent.
fn field() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![any::<u8>(), prop::sample::select(b"\\\n\r|pnr".to_vec())], 0..40)
}

/// A field without escapes: it must not hold what would end it.
fn token() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>().prop_filter("no end", |b| !b"|\n\r".contains(b)), 0..20)
}

fn parts(variants: usize) -> impl Strategy<Value = Parts> {
    let names = (topic(), pattern(), level());
    let bytes = (field(), field(), token(), "[^\n\r]{0,30}");
    let numbers = (number(), number(), any::<u32>(), any::<bool>());
    let positions = vec((any::<u32>(), number()), 0..4);
    (0..variants, names, bytes, numbers, positions).prop_map(
        |(variant, (topic, pattern, id), (key, payload, token, text), numbers, positions)| {
            assert!(id.len() <= CLIENT_ID_BYTES_MAX);
            let (a, b, partition, flag) = numbers;
            Parts {
                variant,
                topic,
                pattern,
                id,
                key,
                payload,
                token,
                text,
                a,
                b,
                partition,
                flag,
                positions,
            }
        },
    )
}

fn command(parts: &Parts) -> Command<'_> {
    let (topic, pattern, id) = (&*parts.topic, &*parts.pattern, &*parts.id);
    let (offset, partition) = (Offset(parts.a), PartitionId(parts.partition));
    let (key, payload, token) = ((&*parts.key).into(), (&*parts.payload).into(), &*parts.token);
    match parts.variant {
        0 => Command::Auth { token },
        1 => {
            let mode = if parts.flag { ProducerMode::Cumulative } else { ProducerMode::Each };
            Command::RegisterProducer { id, mode }
        }
        2 => Command::RegisterConsumer { id, persistent: parts.flag },
        3 => Command::Produce { topic, key, payload },
        4 => Command::ProduceOnce { sequence: parts.a.max(1), topic, key, payload },
        5 => Command::Subscribe { pattern },
        6 => Command::Unsubscribe { pattern },
        7 => {
            let partition = parts.flag.then_some(partition);
            Command::Fetch { pattern, offset, partition, max: parts.b, wait_ms: parts.a }
        }
        8 => Command::Ack { topic, offset, partition },
        9 => Command::Last { pattern },
        10 => Command::Topics { pattern },
        11 => Command::Cluster,
        12 => Command::Ping { token },
        _ => Command::Quit,
    }
}

fn reply(parts: &Parts) -> Reply<'_> {
    let topic = &*parts.topic;
    let (offset, partition) = (Offset(parts.a), PartitionId(parts.partition));
    let positions: Vec<_> =
        parts.positions.iter().map(|(p, o)| (PartitionId(*p), Offset(*o))).collect();
    match parts.variant {
        0 => Reply::Ok,
        1 => Reply::OkPositions(positions),
        2 => Reply::Ack { topic, offset, partition },
        3 => Reply::Acks(parts.a),
        4 => {
            let (key, payload) = ((&*parts.key).into(), (&*parts.payload).into());
            Reply::Message { topic, offset, partition, key, payload }
        }
        5 => Reply::End { count: parts.a, next: parts.flag.then_some(positions) },
        6 => Reply::Topic { name: topic, records: parts.a },
        7 => Reply::Broker { id: BrokerId(parts.a), address: &parts.id, state: "alive" },
        8 => {
            let leader = parts.flag.then_some(BrokerId(parts.b));
            Reply::Partition { id: partition, leader, start: offset, end: Offset(parts.b) }
        }
        9 => Reply::Pong(&parts.token),
        10 => Reply::Bye,
        _ => {
            let code = ErrorCode::ALL[parts.partition as usize % ErrorCode::ALL.len()];
            Reply::Err(WireError::new(code, &parts.text))
        }
    }
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut line = Vec::new();
    encode(&mut line);
    line
}

/// A line of the protocol with a few bytes changed, or any bytes at all.
fn strange_line() -> impl Strategy<Value = Vec<u8>> {
    let damaged = |line: Vec<u8>, hits: Vec<(prop::sample::Index, u8)>| {
        let mut line = line;
        for (at, byte) in hits {
            let at = at.index(line.len());
            line[at] = byte;
        }
        line
    };
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"|\\/+#*0,:1".to_vec())];
    let hits = vec((any::<prop::sample::Index>(), byte), 0..4);
    prop_oneof![
        3 => (parts(COMMANDS), hits.clone())
            .prop_map(move |(p, hits)| damaged(encoded(|out| command(&p).encode(out)), hits)),
        3 => (parts(REPLIES), hits)
            .prop_map(move |(p, hits)| damaged(encoded(|out| reply(&p).encode(out)), hits)),
        1 => vec(any::<u8>(), 0..80),
    ]
    // A decoder is given lines: what stands before the newline.
    .prop_map(|bytes| bytes.split(|b| *b == b'\n').next().unwrap_or_default().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_command_survives_its_line(parts in parts(COMMANDS)) {
        let command = command(&parts);
        let line = encoded(|out| command.encode(out));
        let (end, body) = line.split_last().expect("a newline");
        prop_assert_eq!(*end, b'\n');
        prop_assert!(!body.contains(&b'\n') && !body.contains(&b'\r'));
        prop_assert_eq!(Command::decode(body), Ok(command));
    }

    #[test]
    fn a_reply_survives_its_line(parts in parts(REPLIES)) {
        let reply = reply(&parts);
        let line = encoded(|out| reply.encode(out));
        let (end, body) = line.split_last().expect("a newline");
        prop_assert_eq!(*end, b'\n');
        prop_assert!(!body.contains(&b'\n') && !body.contains(&b'\r'));
        prop_assert_eq!(Reply::decode(body), Ok(reply));
    }

    #[test]
    fn the_lines_of_a_partition_are_those_of_its_replies(
        partition in any::<u32>().prop_map(PartitionId),
        first in number(),
        records in vec((0..12_u64, topic(), field(), vec(field(), 0..6)), 1..12),
    ) {
        let mut messages = MessageLines::of(partition);
        let mut offset = Offset(first);
        for (step, topic, key, payload) in &records {
            offset = Offset(offset.0.saturating_add(*step));
            let (key, payload) = (&key[..], &payload.concat()[..]);
            let line = encoded(|out| messages.put(out, topic.as_bytes(), offset, key, payload));
            let (key, payload) = (key.into(), payload.into());
            let reply = Reply::Message { topic, offset, partition, key, payload };
            prop_assert_eq!(&line, &encoded(|out| reply.encode(out)));
            prop_assert_eq!(Reply::decode(&line[..line.len() - 1]), Ok(reply));
        }
    }

    #[test]
    fn what_decodes_has_one_canonical_line(line in strange_line()) {
        if let Ok(command) = Command::decode(&line) {
            let canonical = encoded(|out| command.encode(out));
            let again = Command::decode(&canonical[..canonical.len() - 1]);
            prop_assert_eq!(again.as_ref(), Ok(&command));
            let twice = encoded(|out| again.expect("just compared").encode(out));
            prop_assert_eq!(twice, canonical);
        }
        if let Ok(reply) = Reply::decode(&line) {
            let canonical = encoded(|out| reply.encode(out));
            let again = Reply::decode(&canonical[..canonical.len() - 1]);
            prop_assert_eq!(again.as_ref(), Ok(&reply));
            let twice = encoded(|out| again.expect("just compared").encode(out));
            prop_assert_eq!(twice, canonical);
        }
    }

    #[test]
    fn a_field_survives_its_escapes(raw in vec(field(), 0..6)) {
        let raw = raw.concat();
        let escaped = encoded(|out| escape_into(&raw, out));
        prop_assert!(!escaped.iter().any(|b| b"|\n\r".contains(b)));
        let unescaped = unescape(&escaped).expect("what was escaped");
        prop_assert_eq!(unescaped.as_ref(), &raw[..]);
    }

    #[test]
    fn the_cutter_cuts_as_a_plain_split_does(
        input in vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), any::<u8>()], 0..200),
        cuts in vec(1..20_usize, 1..20),
        line_bytes_max in 1..12_usize,
    ) {
        let mut expect = Vec::new();
        let mut lines: Vec<&[u8]> = input.split(|b| *b == b'\n').collect();
        lines.pop();
        for line in lines {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > line_bytes_max {
                expect.push(Line::TooLong);
            } else if !line.is_empty() {
                expect.push(Line::Whole(line.to_vec().into()));
            }
        }
        let (mut single, mut whole) =
            (LineCutter::new(line_bytes_max), LineCutter::new(line_bytes_max));
        let (mut singly, mut at_once) = (Vec::new(), Vec::new());
        let mut rest = &input[..];
        for cut in cuts.iter().cycle() {
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            single.buffer().extend_from_slice(part);
            singly.extend(std::iter::from_fn(|| single.next_line()));
            whole.buffer().extend_from_slice(part);
            at_once.extend(whole.lines().iter().map(|line| match line {
                Line::Whole(line) => Line::Whole(line.to_vec().into()),
                Line::TooLong => Line::TooLong,
            }));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&singly, &expect);
        prop_assert_eq!(&at_once, &expect);
    }

    #[test]
    fn a_body_gives_its_records_back(
        records in vec((topic(), field(), field(), prop::option::of((level(), number())), 0..1000_u64), 0..30),
        start in 0..u64::MAX / 2,
    ) {
        let mut builder = BodyBuilder::new();
        let mut time_us = start;
        let mut expect = Vec::new();
        for (topic, key, payload, once, later) in &records {
            time_us += later;
            let once = once.as_ref().map(|(id, sequence)| Once { producer: id, sequence: *sequence });
            expect.push(Record { time_us, topic, key, payload, once });
        }
        expect.iter().for_each(|record| builder.push(record));
        let body = builder.finish();
        prop_assert_eq!(body.records as usize, records.len());
        let got: Result<Vec<_>, _> = body.records().collect();
        prop_assert_eq!(got.as_ref(), Ok(&expect));
        let mut stored = StoredRecords::new(&body.bytes, body.first_time_us);
        for record in expect {
            let Record { time_us, topic, key, payload, once } = record;
            let topic = topic.as_bytes();
            let expect = Stored { time_us, topic, key, payload, once };
            prop_assert_eq!(stored.next(Some), Some(Ok(expect)));
        }
        prop_assert_eq!(stored.next(Some), None);
    }

    #[test]
    fn no_body_brings_the_reader_down(bytes in vec(any::<u8>(), 0..120), start in any::<u64>()) {
        // The reader ends: each record takes at least a byte, and the first error is the last.
        prop_assert!(Records::new(&bytes, start).count() <= bytes.len());
    }
}
