//! The reading side of AKLight: `SUBSCRIBE` for what comes, `FETCH` for what is stored.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use memchr::{memchr, memrchr};

use super::{number, shown};
use crate::peers::{Feed, Found, Place};

/// Records that a FETCH asks for: the figure of the peer to beat, which polls 10,000.
const FETCH_RECORDS: u64 = 10_000;

/// How a record's line begins.
const MESSAGE: &[u8] = b"MESSAGE|";

/// The record of a `MESSAGE` line. The broker escapes every `|` in its payload, so the last one of
/// the line stands before it.
#[inline]
fn record(line: &[u8]) -> Option<Found<'_>> {
    if !line.starts_with(MESSAGE) {
        return None;
    }
    memrchr(b'|', line).map(|at| Found { payload: &line[at + 1..], head: &line[..at] })
}

/// What stands before it: `MESSAGE|topic|offset|partition|key`.
pub fn place(head: &[u8]) -> Option<(Place, &[u8])> {
    let rest = head.strip_prefix(MESSAGE)?;
    let (topic, rest) = rest.split_at(memchr(b'|', rest)?);
    let (offset, rest) = number(&rest[1..]).ok()?;
    let (partition, _key) = number(rest).ok()?;
    Some((Place { partition, offset }, topic))
}

/// What comes from now on, whatever its topic.
#[derive(Default)]
pub struct Subscription {
    answers: usize,
}

impl Feed for Subscription {
    fn begin(&mut self, out: &mut Vec<u8>) {
        // Without a registration nobody is told apart, and none is needed: nothing is kept for it.
        out.extend_from_slice(b"REGISTER_CONSUMER|bench|0\nSUBSCRIBE|metrics/#\n");
    }

    fn is_ready(&self) -> bool {
        self.answers >= 2
    }

    fn take(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        sink: &mut dyn FnMut(Found<'_>),
    ) -> anyhow::Result<usize> {
        let mut consumed = 0;
        while let Some(length) = memchr(b'\n', &bytes[consumed..]) {
            let line = &bytes[consumed..consumed + length];
            match record(line) {
                Some(record) => sink(record),
                None if line.starts_with(b"OK") => self.answers += 1,
                None => bail!("the broker says '{}'", shown(line)),
            }
            consumed += length + 1;
        }
        Ok(consumed)
    }
}

/// What is stored: the first FETCH goes over all partitions and learns which there are, then each
/// partition has one on the way until it has no more.
pub struct Fetching {
    pattern: Vec<u8>,
    // From where each partition was asked last.
    asked: BTreeMap<u64, u64>,
    // How many FETCHes are not answered.
    open: usize,
}

impl Fetching {
    /// All that matches.
    pub fn new(pattern: Vec<u8>) -> Self {
        Self { pattern, asked: BTreeMap::new(), open: 0 }
    }

    fn ask(&mut self, from: u64, partition: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"FETCH|");
        out.extend_from_slice(&self.pattern);
        out.extend_from_slice(format!("|{from}|{partition}|{FETCH_RECORDS}|0\n").as_bytes());
        self.open += 1;
    }

    // `END|count|p:next,p:next`
    fn answered(&mut self, end: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        let (_count, mut rest) = number(end).context("an END without a count")?;
        self.open = self.open.saturating_sub(1);
        while !rest.is_empty() {
            let (partition, next, behind) = position(rest).context("not a position")?;
            // A partition that did not move has no more.
            if self.asked.insert(partition, next) != Some(next) {
                self.ask(next, &partition.to_string(), out);
            }
            rest = behind;
        }
        Ok(())
    }
}

/// The position that a list of them begins with: `partition:offset`.
fn position(list: &[u8]) -> Option<(u64, u64, &[u8])> {
    let end = memchr(b',', list).unwrap_or(list.len());
    let (first, rest) = list.split_at(end);
    let colon = memchr(b':', first)?;
    let (partition, _) = number(&first[..colon]).ok()?;
    let (offset, _) = number(&first[colon + 1..]).ok()?;
    Some((partition, offset, rest.strip_prefix(b",").unwrap_or(rest)))
}

impl Feed for Fetching {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.ask(0, "*", out);
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn is_over(&self) -> bool {
        self.open == 0
    }

    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(Found<'_>),
    ) -> anyhow::Result<usize> {
        let mut consumed = 0;
        while let Some(length) = memchr(b'\n', &bytes[consumed..]) {
            let line = &bytes[consumed..consumed + length];
            if let Some(record) = record(line) {
                sink(record);
            } else if let Some(end) = line.strip_prefix(b"END|") {
                self.answered(end, out)?;
            } else {
                bail!("the broker says '{}'", shown(line));
            }
            consumed += length + 1;
        }
        Ok(consumed)
    }
}
