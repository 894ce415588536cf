//! Histograms for openraft, without tables.
//!
//! openraft counts how long its batches are, for `Raft::runtime_stats`, which AKLight does not ask. The
//! crate that it counts with reckons out, when the first histogram is made, the bounds of the buckets
//! of all sixteen precisions that it knows: 27 MB that stay, and 15 ms of a broker's start. This one
//! stands in its place (`[patch.crates-io]` in the root's Cargo.toml), and has of it what openraft names.
//!
//! A bucket here is a power of two: values of so many bits. So a percentile is the least value of its
//! bucket, at most half of what it stands for below it. To go when the tables are made one by one.

use std::fmt;
use std::marker::PhantomData;

/// Values of 0 to 64 bits.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each number of bits came. `T` is what openraft leaves at its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Nothing came yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], of: PhantomData }
    }

    /// Counts a value.
    pub const fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value that came `count` times.
    pub const fn record_n(&mut self, value: u64, count: u64) {
        let bits = u64::BITS - value.leading_zeros();
        self.counts[bits as usize] = self.counts[bits as usize].saturating_add(count);
    }

    /// What so many of the values reach at most.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let permille = |share: u64| self.permille(share);
        PercentileStats {
            samples: self.samples(),
            p0_1: permille(1),
            p1: permille(10),
            p5: permille(50),
            p10: permille(100),
            p50: permille(500),
            p90: permille(900),
            p99: permille(990),
            p99_9: permille(999),
        }
    }

    fn samples(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The least value of the bucket in which the count reaches this share of all; 0 of none.
    fn permille(&self, share: u64) -> u64 {
        let wanted = u128::from(self.samples()) * u128::from(share);
        let mut seen = 0;
        let bits = self.counts.iter().position(|count| {
            seen += u128::from(*count) * 1000;
            *count > 0 && seen >= wanted
        });
        bits.and_then(|bits| bits.checked_sub(1)).map_or(0, |zeros| 1 << zeros)
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What so many of the values reach at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says itself which share it is of")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p99, .. } = self;
        write!(f, "{samples} samples, half of them from {p50} on, p99 {p99}")
    }
}

/// Histograms one below the other.
#[derive(Debug, Clone)]
pub struct AsciiChart<T = ()>(Vec<(String, Histogram<T>)>);

impl<T> AsciiChart<T> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// One more.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0 {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_value_of_its_bucket() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        histogram.record_n(5, 98);
        histogram.record(0);
        histogram.record(u64::MAX);
        let PercentileStats { samples, p0_1, p1, p5, p50, p99, p99_9, .. } =
            histogram.percentile_stats();
        assert_eq!((samples, p0_1, p1), (100, 0, 0));
        assert_eq!((p5, p50, p99, p99_9), (4, 4, 4, 1 << 63));
    }
}
