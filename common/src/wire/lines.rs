//! Lines about one partition's records, one after another: MESSAGE, what delivering a record costs, and
//! ACK, what answering for one does.
//!
//! They are the lines that [`Reply`](super::Reply) is written as, made with what is known beforehand: the
//! partition stands in its place, and offsets that follow each other, or nearly, are counted up as text.

use super::escape::escape_into;
use super::field::{DIGITS, digits};
use crate::{Offset, PartitionId};

const MESSAGE: &[u8] = b"MESSAGE|";
const ACK: &[u8] = b"ACK|";

/// The longest number, and a pipe before it.
const OFFSET_END: usize = 1 + DIGITS;

/// `|offset|partition` and one byte more, at its longest.
const PLACE_BYTES: usize = OFFSET_END + 1 + 10 + 1;

/// Writes the MESSAGE lines of one partition's records.
#[derive(Debug, Clone)]
pub struct MessageLines(Place);

impl MessageLines {
    /// For the records of a partition.
    #[must_use]
    pub fn of(partition: PartitionId) -> Self {
        Self(Place::of(partition, b'|'))
    }

    /// Appends a record as a line, newline included.
    #[inline]
    pub fn put(
        &mut self,
        out: &mut Vec<u8>,
        topic: &[u8],
        offset: Offset,
        key: &[u8],
        payload: &[u8],
    ) {
        let place = self.0.at(offset);
        // What needs no escape fits; each escape may take one more byte.
        out.reserve(MESSAGE.len() + topic.len() + PLACE_BYTES + key.len() + payload.len() + 2);
        out.extend_from_slice(MESSAGE);
        out.extend_from_slice(topic);
        out.extend_from_slice(place);
        if !key.is_empty() {
            escape_into(key, out);
        }
        out.push(b'|');
        escape_into(payload, out);
        out.push(b'\n');
    }
}

/// Writes the ACK lines of one partition's records.
#[derive(Debug, Clone)]
pub struct AckLines(Place);

impl AckLines {
    /// For the records of a partition.
    #[must_use]
    pub fn of(partition: PartitionId) -> Self {
        Self(Place::of(partition, b'\n'))
    }

    /// Appends the line for a record, newline included.
    #[inline]
    pub fn put(&mut self, out: &mut Vec<u8>, topic: &[u8], offset: Offset) {
        let place = self.0.at(offset);
        out.reserve(ACK.len() + topic.len() + PLACE_BYTES);
        out.extend_from_slice(ACK);
        out.extend_from_slice(topic);
        out.extend_from_slice(place);
    }
}

/// Where a record is, as text that is counted up.
#[derive(Debug, Clone)]
struct Place {
    /// `|offset|partition` and what follows it, from `start` to `end`; the offset ends at [`OFFSET_END`].
    text: [u8; PLACE_BYTES],
    start: usize,
    end: usize,
    /// The offset that stands there.
    offset: Option<Offset>,
}

impl Place {
    fn of(partition: PartitionId, behind: u8) -> Self {
        let mut text = [b'|'; PLACE_BYTES];
        let (digits, first) = digits(u64::from(partition.0));
        let digits = &digits[first..];
        let end = OFFSET_END + 1 + digits.len();
        text[OFFSET_END + 1..end].copy_from_slice(digits);
        text[end] = behind;
        Self { text, start: OFFSET_END - 1, end: end + 1, offset: None }
    }

    #[inline]
    fn at(&mut self, offset: Offset) -> &[u8] {
        match self.offset.and_then(|before| offset.0.checked_sub(before.0)) {
            Some(step @ 0..10) => self.count_up(step as u8),
            _ => self.write_out(offset),
        }
        self.offset = Some(offset);
        &self.text[self.start..self.end]
    }

    /// Adds less than ten.
    fn count_up(&mut self, step: u8) {
        let mut at = OFFSET_END - 1;
        self.text[at] += step;
        while self.text[at] > b'9' {
            self.text[at] -= 10;
            at -= 1;
            if at == self.start {
                // 99 is followed by 100.
                self.start -= 1;
                self.text[self.start] = b'|';
                self.text[at] = b'0';
            }
            self.text[at] += 1;
        }
    }

    fn write_out(&mut self, offset: Offset) {
        let (digits, first) = digits(offset.0);
        self.text[1..OFFSET_END].copy_from_slice(&digits);
        self.start = first;
        self.text[first] = b'|';
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reply;
    use super::*;

    #[test]
    fn a_line_is_what_the_reply_says() {
        const AROUND: [u64; 9] =
            [0, 9, 10, 99, 999_999, 1_000_000, u64::MAX / 10, u64::MAX - 2, u64::MAX - 1];
        for partition in [0, 7, 10, u32::MAX].map(PartitionId) {
            let (mut lines, mut acks) = (MessageLines::of(partition), AckLines::of(partition));
            for first in AROUND {
                let steps = [0, 1, 1, 9, 9, 2, 10, 0, 100].into_iter();
                let offsets = steps.scan(first, |at, step| {
                    *at = u64::saturating_add(*at, step);
                    Some(Offset(*at))
                });
                for offset in offsets.chain([Offset(first.saturating_sub(3))]) {
                    let (topic, key, payload) = ("a/b", &b"k|"[..], &b"pay\nload"[..]);
                    let mut line = Vec::new();
                    lines.put(&mut line, topic.as_bytes(), offset, key, payload);
                    let (key, payload) = (key.into(), payload.into());
                    let mut expect = Vec::new();
                    Reply::Message { topic, offset, partition, key, payload }.encode(&mut expect);
                    assert_eq!(line, expect, "{}", line.escape_ascii());
                    let (mut line, mut expect) = (Vec::new(), Vec::new());
                    acks.put(&mut line, topic.as_bytes(), offset);
                    Reply::Ack { topic, offset, partition }.encode(&mut expect);
                    assert_eq!(line, expect, "{}", line.escape_ascii());
                }
            }
        }
    }
}
