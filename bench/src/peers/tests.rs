//! Each parser, shown an answer at once, and byte by byte: it must find the same.

use std::path::Path;
use std::sync::Arc;

use super::aklight::{Aklight, Kind};
use super::mosquitto::Mosquitto;
use super::nats::Nats;
use super::redis::Redis;
use super::{Feed, Publisher, Share, Wanted, Way};
use crate::load::{Load, number_of};

fn load() -> Arc<Load> {
    Arc::new(Load::new(4, 16).expect("a load"))
}

fn aklight(kind: Kind) -> Aklight {
    Aklight { kind, ..Aklight::new(Path::new("aklight")) }
}

/// Shows bytes as a connection would, `step` more at a time; what is not consumed stays.
fn show(
    bytes: &[u8],
    step: usize,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<usize>,
) -> anyhow::Result<()> {
    let (mut from, mut to) = (0, 0);
    while to < bytes.len() {
        to = (to + step).min(bytes.len());
        from += take(&bytes[from..to])?;
    }
    assert_eq!(from, bytes.len(), "everything is consumed");
    Ok(())
}

/// The records that a feed finds, and what it asks meanwhile, its first words aside.
fn read(way: &dyn Way, wanted: Wanted, bytes: &[u8], step: usize) -> (Vec<u64>, String) {
    let mut feed: Box<dyn Feed> = way.feed(&load(), wanted).expect("a feed");
    feed.begin(&mut Vec::new());
    let (mut found, mut out) = (Vec::new(), Vec::new());
    let shown = show(bytes, step, |bytes| {
        feed.take(bytes, &mut out, &mut |record| {
            found.push(number_of(record.payload).expect("a payload of ours"));
        })
    });
    shown.expect("understood");
    assert!(feed.is_ready());
    (found, out.escape_ascii().to_string())
}

fn check_feed(way: &dyn Way, wanted: Wanted, said: &[u8], records: &[u64], asked: &str) {
    for step in [said.len(), 7, 1] {
        let (found, out) = read(way, wanted, said, step);
        assert_eq!(found, records, "{} by {step}", way.name());
        assert_eq!(out, asked, "{} by {step}", way.name());
    }
}

/// How many of `sent` records are acknowledged by an answer.
fn acknowledged(way: &dyn Way, sent: u64, said: &[u8], step: usize) -> anyhow::Result<u64> {
    let mut publisher: Box<dyn Publisher> = way.publisher(&load(), Share::WHOLE);
    let mut out = Vec::new();
    publisher.begin(&mut out);
    (0..sent).for_each(|_| publisher.publish(&mut out));
    let mut count = 0;
    show(said, step, |bytes| {
        let taken = publisher.take(bytes, &mut out)?;
        count += taken.acknowledged;
        Ok(taken.consumed)
    })?;
    assert!(publisher.is_ready());
    Ok(count)
}

fn check_publisher(way: &dyn Way, said: &[u8], records: u64) {
    for step in [said.len(), 7, 1] {
        let count = acknowledged(way, records, said, step).expect("understood");
        assert_eq!(count, records, "{} by {step}", way.name());
    }
}

fn first_record(way: &dyn Way) -> String {
    let mut out = Vec::new();
    way.publisher(&load(), Share { first: 2, step: 3 }).publish(&mut out);
    out.escape_ascii().to_string()
}

const ONE: &[u8] = b"0000000000000001";
const TWO: &[u8] = b"0000000000000002";

#[test]
fn aklight_is_read_line_by_line() {
    let said = [
        b"OK|0:0,1:0\nMESSAGE|metrics/docker/web0/mem|0|1||",
        ONE,
        b"\nOK\nMESSAGE|metrics/docker/web0/net|0|0|k\\py|",
        TWO,
        b"\n",
    ]
    .concat();
    check_feed(&aklight(Kind::Own), Wanted::Live, &said, &[1, 2], "");
}

#[test]
fn aklight_is_asked_on_until_no_partition_moves() {
    let said = [b"MESSAGE|t|0|0||", ONE, b"\nEND|1|0:1,1:0\nEND|0|0:1\nEND|0|1:0\n"].concat();
    let asked = "FETCH|metrics/#|1|0|10000|0\\nFETCH|metrics/#|0|1|10000|0\\n";
    check_feed(&aklight(Kind::Own), Wanted::All, &said, &[1], asked);
}

#[test]
fn aklight_acknowledges_each_or_many() {
    let own = b"ACK|metrics/docker/web0/cpu|7|0\nACK|metrics/docker/web0/mem|3|1\n\
                ACK|metrics/docker/web0/net|8|0\n";
    check_publisher(&aklight(Kind::Own), own, 3);
    check_publisher(&aklight(Kind::Cumulative), b"OK\nACKS|2\nACKS|1\n", 3);
    let record = "PRODUCE|metrics/docker/web0/net||0000000000000002\\n";
    assert_eq!(first_record(&aklight(Kind::Own)), record);
}

#[test]
fn aklight_is_stopped_when_it_acknowledges_what_is_not_so() {
    let wrong: [&[u8]; 6] = [
        b"ACK|metrics/docker/web0/mem|0|0\n",
        b"ACK|metrics/docker/web0/cpu|0|0\nACK|metrics/docker/web0/mem|0|0\n",
        b"ACK|metrics/docker/web0/cpu|0|0\nACK|metrics/docker/web0/mem|2|0\n",
        b"ACK|metrics/docker/web0/cpu|0\n",
        b"ACKS|2\n",
        b"ERR|busy|try again\n",
    ];
    for said in wrong {
        let found = acknowledged(&aklight(Kind::Own), 2, said, said.len());
        assert!(found.is_err(), "{}", said.escape_ascii());
    }
    let many = acknowledged(&aklight(Kind::Cumulative), 2, b"OK\nACKS|3\n", 11);
    assert!(many.is_err(), "three of two");
}

#[test]
fn redis_streams_are_asked_on_from_their_last_entries() {
    let entry = |id: &str, payload: &[u8]| {
        [format!("*2\r\n$3\r\n{id}\r\n*2\r\n$1\r\np\r\n$16\r\n").as_bytes(), payload, b"\r\n"]
            .concat()
    };
    let said = [b"*2\r\n".to_vec(), entry("7-0", ONE), entry("7-1", TWO), b"*0\r\n".to_vec()];
    let asked = "*6\\r\\n$6\\r\\nXRANGE\\r\\n$23\\r\\nmetrics/docker/web0/net\\r\\n$4\\r\\n(7-1\\r\\n\
                 $1\\r\\n+\\r\\n$5\\r\\nCOUNT\\r\\n$4\\r\\n1000\\r\\n";
    check_feed(&Redis::Streams, Wanted::Topic(2), &said.concat(), &[1, 2], asked);
}

#[test]
fn redis_is_waited_on_and_asked_again() {
    let said = [
        b"*1\r\n*2\r\n$7\r\nmetrics\r\n*1\r\n*2\r\n$3\r\n9-4\r\n*4\r\n$1\r\nt\r\n$3\r\na/b\r\n",
        b"$1\r\np\r\n$16\r\n".as_slice(),
        ONE,
        b"\r\n",
    ]
    .concat();
    let asked = "*8\\r\\n$5\\r\\nXREAD\\r\\n$5\\r\\nBLOCK\\r\\n$1\\r\\n0\\r\\n$5\\r\\nCOUNT\\r\\n\
                 $4\\r\\n1000\\r\\n$7\\r\\nSTREAMS\\r\\n$7\\r\\nmetrics\\r\\n$3\\r\\n9-4\\r\\n";
    check_feed(&Redis::Stream, Wanted::Live, &said, &[1], asked);
}

#[test]
fn redis_pushes_what_is_published() {
    let said = [
        b"*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n",
        b"$3\r\na/b\r\n$16\r\n".as_slice(),
        TWO,
        b"\r\n",
    ]
    .concat();
    check_feed(&Redis::PubSub, Wanted::Live, &said, &[2], "");
}

#[test]
fn redis_acknowledges_with_ids_or_counts() {
    check_publisher(&Redis::Streams, b"$15\r\n1764172800123-0\r\n$15\r\n1764172800123-1\r\n", 2);
    check_publisher(&Redis::PubSub, b":0\r\n:12\r\n", 2);
    let refused = acknowledged(&Redis::Streams, 1, b"-OOM command not allowed\r\n", 100);
    assert!(refused.is_err());
    let record = "*3\\r\\n$7\\r\\nPUBLISH\\r\\n$23\\r\\nmetrics/docker/web0/net\\r\\n$16\\r\\n\
                  0000000000000002\\r\\n";
    assert_eq!(first_record(&Redis::PubSub), record);
}

#[test]
fn nats_is_read_message_by_message() {
    let said = [
        b"INFO {\"x\":1}\r\nPONG\r\nMSG _INBOX.r 2 2\r\n{}\r\nMSG metrics.a 1 $JS.ACK.x 16\r\n",
        ONE,
        b"\r\nPING\r\nHMSG metrics.b 1 12 28\r\nNATS/1.0\r\n\r\n",
        TWO,
        b"\r\n",
    ]
    .concat();
    check_feed(&Nats::JetStream, Wanted::Live, &said, &[1, 2], "PONG\\r\\n");
    check_feed(&Nats::Core, Wanted::Live, &said[..said.len() - 54], &[1], "PONG\\r\\n");
}

#[test]
fn nats_acknowledges_what_it_stored() {
    let said = b"PONG\r\nMSG _INBOX.p0 1 26\r\n{\"stream\":\"BENCH\",\"seq\":1}\r\n\
                 MSG _INBOX.p0 1 26\r\n{\"stream\":\"BENCH\",\"seq\":2}\r\n";
    check_publisher(&Nats::JetStream, said, 2);
    let nobody = b"HMSG _INBOX.p0 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
    assert!(acknowledged(&Nats::JetStream, 1, nobody, nobody.len()).is_err());
    let record = "PUB metrics.docker.web0.net _INBOX.p2 16\\r\\n0000000000000002\\r\\n";
    assert_eq!(first_record(&Nats::JetStream), record);
}

#[test]
fn mosquitto_is_read_packet_by_packet() {
    let said = [
        b"\x20\x02\x00\x00\x90\x03\x00\x01\x01\x32\x17\x00\x03a/b\x00\x07",
        ONE,
        b"\x30\x15\x00\x03a/c",
        TWO,
    ]
    .concat();
    check_feed(&Mosquitto::Qos1, Wanted::Live, &said, &[1, 2], "@\\x02\\x00\\x07");
}

#[test]
fn mosquitto_acknowledges_packets() {
    check_publisher(&Mosquitto::Qos1, b"\x20\x02\x00\x00\x40\x02\x00\x01\x40\x02\x00\x02", 2);
    let record = "2+\\x00\\x17metrics/docker/web0/net\\x00\\x010000000000000002";
    assert_eq!(first_record(&Mosquitto::Qos1), record);
}

#[test]
fn a_peer_that_speaks_something_else_is_refused() {
    let ways: [&dyn Way; 4] =
        [&aklight(Kind::Own), &Redis::Streams, &Nats::JetStream, &Mosquitto::Qos1];
    for way in ways {
        let said = b"HTTP/1.1 400 Bad Request\n\n\xff\xff\xff\xff\xff\xff\n";
        let mut publisher = way.publisher(&load(), Share::WHOLE);
        publisher.publish(&mut Vec::new());
        let found = publisher.take(said, &mut Vec::new());
        assert!(found.is_err() || found.is_ok_and(|t| t.acknowledged == 0), "{}", way.name());
    }
}
