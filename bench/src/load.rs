//! What is sent: topics and payloads, the same for every peer.
//!
//! Topics are those of `design/limits.md`: `metrics/docker/web{0..}/{cpu,mem,net,disk}`, taken in
//! turns, so that record `n` belongs to topic `n mod topics`. A payload begins with its record's
//! number in sixteen hexadecimal digits, by which a reader knows what it has and when it was due;
//! the rest is text as metrics look, with digits that differ, so that a peer which compresses
//! gains what it would gain at home and not more.
//!
//! Everything is made before measuring begins: sending a record copies bytes and allocates nothing.

use anyhow::ensure;

/// Digits that tell a record's number, at the beginning of its payload.
pub const NUMBER_BYTES: usize = 16;

/// What a host measures of a container; the last level of a topic.
const KINDS: [&str; 4] = ["cpu", "mem", "net", "disk"];

/// Bytes of text that payloads are cut from: more than the window of lz4 (64 KiB), less than a
/// cache, or the client would be measured.
const TEXT_BYTES: usize = 256 << 10;

/// Different tails of payloads at most.
const TAILS_MAX: usize = 1_024;

/// The topics, and how payloads look.
pub struct Load {
    names: Vec<u8>,
    // Where each name ends in `names`.
    ends: Vec<usize>,
    tails: Vec<u8>,
    tail_bytes: usize,
    tails_count: u64,
}

impl Load {
    /// `topics` topics, payloads of `payload_bytes`.
    ///
    /// # Errors
    /// When there is no topic, or a payload is too short for its number.
    pub fn new(topics: usize, payload_bytes: usize) -> anyhow::Result<Self> {
        ensure!(topics > 0, "take at least one topic");
        ensure!(
            payload_bytes >= NUMBER_BYTES,
            "a payload holds its record's number: take at least {NUMBER_BYTES} bytes"
        );
        let (mut names, mut ends) = (Vec::new(), Vec::with_capacity(topics));
        for topic in 0..topics {
            let kind = KINDS[topic % KINDS.len()];
            names.extend_from_slice(
                format!("metrics/docker/web{}/{kind}", topic / KINDS.len()).as_bytes(),
            );
            ends.push(names.len());
        }
        let tail_bytes = payload_bytes - NUMBER_BYTES;
        let tails_count = (TEXT_BYTES / tail_bytes.max(1)).clamp(1, TAILS_MAX);
        let tails = text(tail_bytes * tails_count);
        Ok(Self { names, ends, tails, tail_bytes, tails_count: tails_count as u64 })
    }

    /// How many topics.
    pub fn topics(&self) -> usize {
        self.ends.len()
    }

    /// The topic of that number, with `/` between its levels.
    pub fn topic(&self, number: usize) -> &[u8] {
        let begin = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.names[begin..self.ends[number]]
    }

    /// The topic that record `n` belongs to, by its number.
    #[inline]
    pub fn topic_of(&self, n: u64) -> usize {
        usize::try_from(n % self.ends.len() as u64).unwrap_or(0)
    }

    /// Bytes of a payload.
    pub fn payload_bytes(&self) -> usize {
        NUMBER_BYTES + self.tail_bytes
    }

    /// Appends the payload of record `n`.
    #[inline]
    pub fn payload(&self, n: u64, out: &mut Vec<u8>) {
        put_number(n, out);
        let begin = usize::try_from(n % self.tails_count).unwrap_or(0) * self.tail_bytes;
        out.extend_from_slice(&self.tails[begin..begin + self.tail_bytes]);
    }
}

/// The number of the record that a payload is of; `None` when it is no payload of ours.
#[inline]
pub fn number_of(payload: &[u8]) -> Option<u64> {
    let digits = payload.get(..NUMBER_BYTES)?;
    let mut number = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u64::from(value);
    }
    Some(number)
}

fn put_number(n: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; NUMBER_BYTES];
    for (at, byte) in n.to_be_bytes().into_iter().enumerate() {
        digits[2 * at] = DIGITS[usize::from(byte >> 4)];
        digits[2 * at + 1] = DIGITS[usize::from(byte & 15)];
    }
    out.extend_from_slice(&digits);
}

/// Text as metrics look, without a byte that any protocol here would have to escape.
fn text(bytes: usize) -> Vec<u8> {
    const NAMES: [&str; 6] = ["usage", "limit", "throttled", "rss_bytes", "rx", "tx"];
    let mut out = Vec::with_capacity(bytes + 32);
    // xorshift64: any seed but 0; the same text in every run.
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    while out.len() < bytes {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let name = NAMES[usize::try_from(dice >> 32).unwrap_or(0) % NAMES.len()];
        out.extend_from_slice(format!("{name}={} ", dice % 100_000).as_bytes());
    }
    out.truncate(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_number() {
        let load = Load::new(1_000, 100).expect("a load");
        for n in [0, 1, 999, 1_000_000, u64::MAX] {
            let mut payload = Vec::new();
            load.payload(n, &mut payload);
            assert_eq!(payload.len(), 100);
            assert_eq!(number_of(&payload), Some(n));
            assert!(payload.iter().all(|byte| (b' '..=b'~').contains(byte)));
            assert!(!payload.iter().any(|byte| b"|\\\r\n".contains(byte)));
        }
    }

    #[test]
    fn topics_are_those_of_the_limits() {
        let load = Load::new(1_000, 16).expect("a load");
        assert_eq!(load.topics(), 1_000);
        assert_eq!(load.topic(0), b"metrics/docker/web0/cpu");
        assert_eq!(load.topic(999), b"metrics/docker/web249/disk");
    }

    #[test]
    fn what_is_no_payload_has_no_number() {
        assert_eq!(number_of(b"short"), None);
        assert_eq!(number_of(b"0123456789abcdeg"), None);
    }
}
