//! Counters: from numbers that only grow to what happened since the last look.
//!
//! The kernel counts bytes a device, from when the device appeared. Devices come and go, and a
//! counter that is lower than it was has started anew: both make a new baseline for that device
//! alone and no huge rate. [`Counters`] keeps the last reading of each.

use std::collections::HashMap;

use super::Moment;

/// The last reading of each device: N counters a device.
#[derive(Debug)]
pub struct Counters<const N: usize> {
    last: Option<(Moment, HashMap<String, [u64; N]>)>,
}

/// What a look at the counters gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates<const N: usize> {
    /// Sum over the devices, by counter, a second.
    pub per_second: [u64; N],
    /// Sum over the devices of the counters as they stand.
    pub total: [u64; N],
}

impl<const N: usize> Counters<N> {
    /// Nothing was read yet.
    #[must_use]
    pub fn new() -> Self {
        Self { last: None }
    }

    /// Takes a reading in; answers what happened since the one before, `None` at the first.
    pub fn update(&mut self, now: Moment, devices: HashMap<String, [u64; N]>) -> Option<Rates<N>> {
        let mut total = [0_u64; N];
        let mut grown = [0_u64; N];
        for (device, counters) in &devices {
            let before = self.last.as_ref().and_then(|(_, last)| last.get(device));
            for n in 0..N {
                total[n] = total[n].wrapping_add(counters[n]);
                let before = before.map_or(counters[n], |before| before[n]);
                grown[n] += counters[n].saturating_sub(before);
            }
        }
        let (then, _) = self.last.replace((now, devices))?;
        let elapsed_us = now.monotonic_us.saturating_sub(then.monotonic_us);
        (elapsed_us > 0)
            .then(|| Rates { per_second: grown.map(|grown| per_second(grown, elapsed_us)), total })
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self::new()
    }
}

fn per_second(grown: u64, elapsed_us: u64) -> u64 {
    let rate = u128::from(grown) * 1_000_000 / u128::from(elapsed_us);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment { wall_ms: ms, monotonic_us: ms * 1000 }
    }

    fn devices(list: &[(&str, u64)]) -> HashMap<String, [u64; 1]> {
        list.iter().map(|(name, n)| ((*name).to_owned(), [*n])).collect()
    }

    #[test]
    fn a_rate_is_what_was_added_by_the_time_between() {
        let mut counters = Counters::new();
        assert_eq!(counters.update(at(0), devices(&[("a", 100), ("b", 5)])), None);
        let rates = counters.update(at(2000), devices(&[("a", 300), ("b", 5)]));
        assert_eq!(rates, Some(Rates { per_second: [100], total: [305] }));
    }

    #[test]
    fn a_counter_below_its_last_value_is_a_new_baseline_for_itself_alone() {
        let mut counters = Counters::new();
        counters.update(at(0), devices(&[("a", 1000), ("b", 1000)]));
        let rates = counters.update(at(1000), devices(&[("a", 10), ("b", 1500)]));
        assert_eq!(rates, Some(Rates { per_second: [500], total: [1510] }));
        let rates = counters.update(at(2000), devices(&[("a", 20), ("b", 1500)]));
        assert_eq!(rates.map(|rates| rates.per_second), Some([10]));
    }

    #[test]
    fn a_device_that_appears_or_goes_adds_nothing_to_the_rate() {
        let mut counters = Counters::new();
        counters.update(at(0), devices(&[("a", 0)]));
        let rates = counters.update(at(1000), devices(&[("a", 1), ("new", 1 << 40)]));
        assert_eq!(rates.map(|rates| rates.per_second), Some([1]));
        let rates = counters.update(at(2000), devices(&[("a", 3)]));
        assert_eq!(rates.map(|rates| rates.per_second), Some([2]));
    }
}
