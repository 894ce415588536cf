//! Samples of one number, in the order of their time, as many as a chart has use for.
//!
//! Samples come from three sides (the newest ones, history, live) and may come twice, late or out
//! of order; a time has one value, the one that came last. Pure.

use std::collections::VecDeque;

/// Most samples of a series: five minutes of one a second.
pub const SAMPLES_MAX: usize = 300;

/// Most minutes of a series of rollups: a day.
pub const ROLLUPS_MAX: usize = 1440;

/// The samples.
#[derive(Debug, Clone)]
pub struct Series {
    samples: VecDeque<(u64, f64)>,
    samples_max: usize,
}

impl Series {
    /// An empty series that keeps the newest `samples_max`.
    pub fn keeping(samples_max: usize) -> Self {
        Self { samples: VecDeque::new(), samples_max }
    }

    /// Takes a sample in; one that is older than all of a full series is let go.
    pub fn insert(&mut self, ts_ms: u64, value: f64) {
        let place = self.samples.iter().rposition(|(ts, _)| *ts <= ts_ms);
        match place {
            Some(place) if self.samples[place].0 == ts_ms => {
                self.samples[place].1 = value;
                return;
            }
            None if self.samples.len() == self.samples_max => return,
            _ => self.samples.insert(place.map_or(0, |place| place + 1), (ts_ms, value)),
        }
        if self.samples.len() > self.samples_max {
            self.samples.pop_front();
        }
    }

    /// From the oldest on: milliseconds and value.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, f64)> + '_ {
        self.samples.iter().copied()
    }

    /// The highest value in each of `count` spans of `span_ms`, the last of which holds `until_ms`.
    /// Spans begin at multiples of their length, so that a moving window does not flicker.
    pub fn peaks(&self, until_ms: u64, span_ms: u64, count: usize) -> Vec<Option<f64>> {
        let mut peaks = vec![None; count];
        let last = until_ms / span_ms;
        for (ts, value) in self.samples.iter().rev() {
            let Some(back) = last.checked_sub(ts / span_ms) else { continue };
            let back = usize::try_from(back).unwrap_or(usize::MAX);
            if back >= count {
                break;
            }
            let peak: &mut Option<f64> = &mut peaks[count - 1 - back];
            *peak = Some(peak.map_or(*value, |known| known.max(*value)));
        }
        peaks
    }
}

impl Default for Series {
    fn default() -> Self {
        Self::keeping(SAMPLES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_in_order_once_each_and_the_oldest_make_place() {
        let mut series = Series::keeping(3);
        for (ts, value) in [(3, 3.0), (1, 1.0), (2, 2.0), (2, 2.5), (4, 4.0), (1, 9.0)] {
            series.insert(ts, value);
        }
        assert_eq!(series.iter().collect::<Vec<_>>(), [(2, 2.5), (3, 3.0), (4, 4.0)]);
    }

    #[test]
    fn a_span_shows_its_peak_and_an_empty_one_nothing() {
        let mut series = Series::default();
        for (ts, value) in [(1_000, 5.0), (1_900, 7.0), (4_100, 1.0), (9_000, 99.0)] {
            series.insert(ts, value);
        }
        assert_eq!(series.peaks(4_500, 1_000, 4), [Some(7.0), None, None, Some(1.0)]);
    }
}
