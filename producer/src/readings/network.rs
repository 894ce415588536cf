//! Network: bytes a second received and sent, over all interfaces but the loopback.
//!
//! `/proc/self/net/dev` is that of the network name space we are in: a container's own
//! interfaces inside of it, the machine's outside.

use std::collections::HashMap;

use super::counters::{Counters, Rates};
use super::{Moment, ReadError, Root};
use crate::sample::Sample;

const DEV: &str = "/proc/self/net/dev";

/// The names of the counters below, in their order.
pub const FIELDS: [&str; 6] =
    ["rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped"];

/// Where those stand behind an interface's colon: eight columns received, then eight sent
/// (proc(5)).
const COLUMNS: [usize; FIELDS.len()] = [0, 8, 2, 10, 3, 11];

/// The counters that [`FIELDS`] names, by interface.
pub type Interfaces = HashMap<String, [u64; FIELDS.len()]>;

/// Reads the interfaces at every tick.
#[derive(Debug)]
pub struct NetworkReader {
    root: Root,
    counters: Counters<{ FIELDS.len() }>,
}

impl NetworkReader {
    /// A reader of the name space that this process is in.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root, counters: Counters::new() }
    }

    /// What was received and sent since the last reading; `None` at the first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self, now: Moment) -> Result<Option<Sample>, ReadError> {
        let interfaces = parse(&self.root.read(DEV)?);
        let Some(rates) = self.counters.update(now, interfaces) else { return Ok(None) };
        Ok(Some(sample(now, rates)))
    }
}

/// The sample of what the counters gave.
#[must_use]
pub fn sample(now: Moment, rates: Rates<{ FIELDS.len() }>) -> Sample {
    let [rx_s, tx_s, ..] = rates.per_second;
    let sample = Sample::new(now.wall_ms, rx_s.saturating_add(tx_s), "bytes/s")
        .with("rx_bytes_s", rx_s)
        .with("tx_bytes_s", tx_s);
    let fields = FIELDS.into_iter().zip(rates.total);
    fields.fold(sample, |sample, (name, total)| sample.with(name, total))
}

/// The counters of each interface but the loopback, out of a `net/dev`.
#[must_use]
pub fn parse(text: &str) -> Interfaces {
    text.lines()
        .filter_map(|line| {
            // The two lines of headings have no colon.
            let (name, counters) = line.rsplit_once(':')?;
            let counters: Vec<u64> =
                counters.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
            let picked = COLUMNS.map(|column| counters.get(column).copied());
            let name = name.trim();
            (name != "lo" && picked.iter().all(Option::is_some))
                .then(|| (name.to_owned(), picked.map(Option::unwrap_or_default)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall_ms: seconds * 1000, monotonic_us: seconds * 1_000_000 }
    }

    fn dev(eth0: (u64, u64), eth1: (u64, u64)) -> String {
        format!(
            "Inter-|   Receive                        |  Transmit\n \
             face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs\n    \
             lo: 777 1 0 0 0 0 0 0 777 1 0 0 0 0 0 0\n  \
             eth0:{} 10 3 4 0 0 0 0 {} 20 5 6 0 0 0 0\n  \
             eth1: {} 10 0 0 0 0 0 0 {} 20 0 0 0 0 0 0\n",
            eth0.0, eth0.1, eth1.0, eth1.1
        )
    }

    #[test]
    fn interfaces_are_summed_without_the_loopback() {
        let tree = Tree::new(&[("/proc/self/net/dev", &dev((1000, 0), (0, 0)))]);
        let mut reader = NetworkReader::new(tree.root());
        assert_eq!(reader.read(at(0)).expect("read"), None);
        tree.put("/proc/self/net/dev", &dev((3000, 500), (100, 0)));
        let sample = reader.read(at(1)).expect("read").expect("a sample");
        assert_eq!(sample.value(), 2600.0);
        for (name, expect) in [
            ("rx_bytes_s", 2100.0),
            ("tx_bytes_s", 500.0),
            ("rx_bytes", 3100.0),
            ("tx_bytes", 500.0),
            ("rx_errors", 3.0),
            ("rx_dropped", 4.0),
            ("tx_errors", 5.0),
            ("tx_dropped", 6.0),
        ] {
            assert_eq!(sample.field(name), Some(expect), "{name}");
        }
    }

    #[test]
    fn lines_that_are_no_interface_are_passed_over() {
        assert!(parse("nonsense\nx: 1 2\n lo: 1 2 3 4 5 6 7 8 9 10 11 12\n\n").is_empty());
    }
}
