//! From bytes to bodies: what is done with a read of a socket before it is anybody's turn.

use std::hint::black_box;

use aklight_common::partitioner::Partitioner;
use aklight_common::record::{BodyBuilder, Record};
use aklight_common::wire::{Command, Line, LineCutter};
use anyhow::ensure;

use super::load;

/// What a busy sender's socket gives with one read.
const READ_BYTES: usize = 256 << 10;

/// Longest line: a broker's default.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Records of a round: some reads.
const RECORDS: u64 = 10_000;

/// Partitions of a new cluster.
const PARTITIONS: u32 = 2;

/// Cuts reads into lines, and understands each.
pub fn parse(rounds: u64) -> anyhow::Result<u64> {
    let bytes = load::lines(RECORDS);
    let mut cutter = LineCutter::new(LINE_BYTES_MAX);
    let mut understood = 0;
    for _ in 0..rounds {
        for read in bytes.chunks(READ_BYTES) {
            cutter.buffer().extend_from_slice(read);
            for line in cutter.lines().iter() {
                if let Line::Whole(line) = line
                    && let Ok(command) = Command::decode(line)
                {
                    understood += u64::from(matches!(black_box(command), Command::Produce { .. }));
                }
            }
        }
    }
    ensure!(understood == rounds * RECORDS, "{understood} lines were understood");
    Ok(understood)
}

/// Leads commands to their partitions, and writes each of these a body a read.
pub fn route(rounds: u64) -> anyhow::Result<u64> {
    let bytes = load::lines(RECORDS);
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let commands: Vec<_> = lines.map(Command::decode).collect::<Result<_, _>>()?;
    let records_a_read = READ_BYTES * commands.len() / bytes.len();
    let partitioner = Partitioner::new(PARTITIONS);
    let mut routed = 0;
    for _ in 0..rounds {
        for read in commands.chunks(records_a_read) {
            let mut bodies = [BodyBuilder::new(), BodyBuilder::new()];
            // As a connection that knows how much came last.
            bodies.iter_mut().for_each(|body| body.reserve(READ_BYTES / 2));
            for command in read {
                let Command::Produce { topic, key, payload } = command else { continue };
                let body = &mut bodies[partitioner.route(key).0 as usize];
                body.push(&Record { time_us: routed, topic, key, payload, once: None });
                routed += 1;
            }
            black_box(bodies.map(BodyBuilder::finish));
        }
    }
    ensure!(routed == rounds * RECORDS, "{routed} records were led to a partition");
    Ok(routed)
}
