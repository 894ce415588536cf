//! The sending side of AKLight, which checks while it measures.
//!
//! Each `ACK` must name the topic of the next record
//! that was sent, and, where nobody else sends, an offset one above the last of its partition:
//! a broker that acknowledges wrongly is stopped, not averaged. A cumulative one counts.

use std::sync::Arc;

use anyhow::{Context, ensure};
use memchr::memchr;

use super::{Acks, number, shown};
use crate::load::Load;
use crate::peers::{Place, Publisher, Share, Taken};

/// A connection that sends `PRODUCE` lines.
pub struct AklightPublisher {
    load: Arc<Load>,
    share: Share,
    acks: Acks,
    // `PRODUCE|topic||` of all topics, and where each ends.
    heads: Vec<u8>,
    ends: Vec<usize>,
    sent: u64,
    answered: u64,
    registered: bool,
    // The next offset of each partition, once one was seen.
    next: Vec<Option<u64>>,
    // Where each record is, once somebody wants to know.
    places: Option<Vec<Place>>,
}

impl AklightPublisher {
    /// A connection that sends its share of the load.
    pub fn new(load: &Arc<Load>, share: Share, acks: Acks) -> Self {
        let (mut heads, mut ends) = (Vec::new(), Vec::with_capacity(load.topics()));
        for topic in 0..load.topics() {
            heads.extend_from_slice(b"PRODUCE|");
            heads.extend_from_slice(load.topic(topic));
            heads.extend_from_slice(b"||");
            ends.push(heads.len());
        }
        let registered = acks == Acks::Own;
        let load = Arc::clone(load);
        let (next, places) = (Vec::new(), None);
        Self { load, share, acks, heads, ends, sent: 0, answered: 0, registered, next, places }
    }

    fn topic_of(&self, turn: u64) -> usize {
        self.load.topic_of(self.share.first + turn * self.share.step)
    }

    // `rest` is what stands behind `ACK|`.
    fn check(&mut self, rest: &[u8]) -> anyhow::Result<()> {
        ensure!(self.answered < self.sent, "an ACK for a record that was never sent");
        let topic = self.load.topic(self.topic_of(self.answered));
        let numbers = rest
            .strip_prefix(topic)
            .and_then(|rest| rest.strip_prefix(b"|"))
            .with_context(|| format!("this ACK is owed to {}", topic.escape_ascii()))?;
        let (offset, numbers) = number(numbers).context("an ACK without an offset")?;
        let (partition, rest) = number(numbers).context("an ACK without a partition")?;
        ensure!(rest.is_empty(), "an ACK with more than three fields");
        if let Some(places) = &mut self.places {
            places.push(Place { partition, offset });
        }
        let partition = usize::try_from(partition)?;
        if self.next.len() <= partition {
            ensure!(partition < 1 << 16, "partition {partition} is none");
            self.next.resize(partition + 1, None);
        }
        if let Some(due) = self.next[partition] {
            let alone = self.share.step == 1;
            let right = if alone { offset == due } else { offset >= due };
            ensure!(right, "offset {offset} of partition {partition}, where {due} was due");
        }
        self.next[partition] = Some(offset + 1);
        self.answered += 1;
        Ok(())
    }

    fn answer(&mut self, line: &[u8]) -> anyhow::Result<u64> {
        if let Some(rest) = line.strip_prefix(b"ACK|") {
            ensure!(self.acks == Acks::Own, "an ACK where an ACKS was asked for");
            self.check(rest)?;
            return Ok(1);
        }
        if let Some(rest) = line.strip_prefix(b"ACKS|") {
            ensure!(self.acks == Acks::Cumulative, "an ACKS where an ACK was asked for");
            let (count, rest) = number(rest).context("an ACKS without a number")?;
            ensure!(rest.is_empty() && count > 0, "an ACKS with a wrong number");
            self.answered += count;
            ensure!(self.answered <= self.sent, "{} ACKS for {} records", self.answered, self.sent);
            return Ok(count);
        }
        ensure!(line == b"OK" && !self.registered, "not an answer to PRODUCE");
        self.registered = true;
        Ok(0)
    }
}

impl Publisher for AklightPublisher {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.acks == Acks::Cumulative {
            let id = format!("REGISTER_PRODUCER|bench-{}|cumulative\n", self.share.first);
            out.extend_from_slice(id.as_bytes());
        }
    }

    fn is_ready(&self) -> bool {
        self.registered
    }

    fn publish(&mut self, out: &mut Vec<u8>) {
        let topic = self.topic_of(self.sent);
        let begin = if topic == 0 { 0 } else { self.ends[topic - 1] };
        out.extend_from_slice(&self.heads[begin..self.ends[topic]]);
        self.load.payload(self.share.first + self.sent * self.share.step, out);
        out.push(b'\n');
        self.sent += 1;
    }

    fn take(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> anyhow::Result<Taken> {
        let mut taken = Taken::default();
        while let Some(length) = memchr(b'\n', &bytes[taken.consumed..]) {
            let line = &bytes[taken.consumed..taken.consumed + length];
            let acknowledged =
                self.answer(line).with_context(|| format!("the broker said '{}'", shown(line)))?;
            taken.acknowledged += acknowledged;
            taken.consumed += length + 1;
        }
        Ok(taken)
    }

    fn keep_places(&mut self) {
        self.places = Some(Vec::new());
    }

    fn places(&self) -> &[Place] {
        self.places.as_deref().unwrap_or_default()
    }
}
