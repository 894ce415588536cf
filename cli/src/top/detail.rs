//! One container, looked at closely: how far its charts go back, and its rollups. Pure.
//!
//! The last five minutes are drawn from the samples that the model keeps anyway; longer spans from
//! `rollup/1m`, which are fetched for the container that is looked at and kept no longer.

use aklight_common::client::Message;
use ratatui::crossterm::event::KeyCode;

use super::container::Event;
use super::record::{Key, Payload, ROLLUP, Subject};
use super::series::{ROLLUPS_MAX, Series};

/// How far the charts go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Five minutes, from samples.
    Minutes5,
    /// An hour, from rollups.
    Hour,
    /// Six hours.
    Hours6,
    /// A day.
    Day,
}

/// The spans, shortest first.
pub const SPANS: [Span; 4] = [Span::Minutes5, Span::Hour, Span::Hours6, Span::Day];

impl Span {
    /// How long it is.
    pub fn ms(self) -> u64 {
        match self {
            Self::Minutes5 => 300_000,
            Self::Hour => 3_600_000,
            Self::Hours6 => 6 * 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minutes5 => "5m",
            Self::Hour => "1h",
            Self::Hours6 => "6h",
            Self::Day => "24h",
        }
    }
}

/// The means of one metric by the minute.
#[derive(Debug)]
pub struct Minutes {
    /// The means.
    pub series: Series,
    newest_ms: u64,
    newest_count: f64,
    newest_mean: f64,
}

impl Minutes {
    fn new() -> Self {
        let series = Series::keeping(ROLLUPS_MAX);
        Self { series, newest_ms: 0, newest_count: 0.0, newest_mean: 0.0 }
    }

    /// Takes a minute in. One in which the producer was started again has two records, which weigh
    /// as much as samples are in them.
    fn take(&mut self, ts_ms: u64, mean: f64, count: f64) {
        let (mean, count) = if ts_ms == self.newest_ms && self.newest_count > 0.0 {
            let both = self.newest_count + count;
            ((self.newest_mean * self.newest_count + mean * count) / both, both)
        } else {
            (mean, count)
        };
        self.series.insert(ts_ms, mean);
        (self.newest_ms, self.newest_count, self.newest_mean) = (ts_ms, count, mean);
    }
}

/// The means of what has two directions.
#[derive(Debug)]
pub struct TwoWays {
    /// Received, or read.
    pub into: Minutes,
    /// Sent, or written.
    pub out: Minutes,
    /// Both together, of minutes whose producer did not tell them apart yet.
    pub together: Minutes,
}

impl TwoWays {
    fn new() -> Self {
        Self { into: Minutes::new(), out: Minutes::new(), together: Minutes::new() }
    }

    fn take(&mut self, payload: &Payload, into: &str, out: &str) {
        let (ts, count) = (payload.ts(), payload.amount("count"));
        if payload.number(into).is_some() {
            self.into.take(ts, payload.amount(into), count);
            self.out.take(ts, payload.amount(out), count);
        } else {
            self.together.take(ts, payload.amount("value"), count);
        }
    }
}

/// A container that is looked at.
#[derive(Debug)]
pub struct Detail {
    /// Whose it is.
    pub key: Key,
    /// How far its charts go back.
    pub span: Span,
    /// Which event is looked at, from the newest on; `None` as long as nobody has chosen.
    event: Option<usize>,
    /// Whether what is stored has been read.
    pub loaded: bool,
    /// Percent of one CPU.
    pub cpu: Minutes,
    /// Percent of the limit.
    pub memory: Minutes,
    /// Bytes a second.
    pub network: TwoWays,
    /// Bytes a second.
    pub disk: TwoWays,
}

impl Detail {
    /// Nothing known of it yet.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            span: Span::Minutes5,
            event: None,
            loaded: false,
            cpu: Minutes::new(),
            memory: Minutes::new(),
            network: TwoWays::new(),
            disk: TwoWays::new(),
        }
    }

    /// Takes a rollup in, if it is of this container.
    pub fn take_rollup(&mut self, message: &Message) {
        let Some(topic) = message.topic.as_str().strip_prefix(ROLLUP) else { return };
        let Some(Subject::Container { key, metric }) = Subject::of(topic) else { return };
        let Some(payload) = Payload::of(message).filter(|_| key == self.key) else { return };
        let minutes = match metric {
            "cpu" => &mut self.cpu,
            "memory" => &mut self.memory,
            "network" => return self.network.take(&payload, "rx_bytes_s", "tx_bytes_s"),
            "disk" => return self.disk.take(&payload, "read_bytes_s", "written_bytes_s"),
            _ => return,
        };
        minutes.take(payload.ts(), payload.amount("value"), payload.amount("count"));
    }

    /// The event that is looked at: by itself the newest that tells of a last minute.
    pub fn chosen_event(&self, events: &[Event]) -> usize {
        let telling = || events.iter().rev().position(|event| !event.last_cpu.is_empty());
        let chosen = self.event.or_else(telling).unwrap_or(0);
        chosen.min(events.len().saturating_sub(1))
    }

    /// Looks at another event.
    pub fn choose_event(&mut self, at: Option<usize>) {
        self.event = at;
    }

    /// A key was pressed that means nothing to the whole.
    pub fn press(&mut self, code: KeyCode) {
        let at = SPANS.iter().position(|span| *span == self.span).unwrap_or(0);
        let to = match code {
            KeyCode::Char('t' | '+') => (at + 1) % SPANS.len(),
            KeyCode::Char('T' | '-') => (at + SPANS.len() - 1) % SPANS.len(),
            _ => at,
        };
        self.span = SPANS[to];
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::{Offset, PartitionId, Topic};

    use super::*;

    #[test]
    fn the_two_records_of_a_minute_weigh_by_their_samples() {
        let mut minutes = Minutes::new();
        minutes.take(60_000, 10.0, 30.0);
        minutes.take(120_000, 10.0, 45.0);
        minutes.take(120_000, 50.0, 15.0);
        let found: Vec<_> = minutes.series.iter().collect();
        assert_eq!(found, [(60_000, 10.0), (120_000, 20.0)]);
    }

    #[test]
    fn a_minute_that_tells_no_directions_apart_is_kept_by_itself() {
        let mut detail = Detail::new(Key { producer: "web".into(), container: "db".into() });
        let mut take = |payload: &str| {
            detail.take_rollup(&Message {
                topic: Topic::new("rollup/1m/metrics/docker/web/db/disk").expect("a topic"),
                offset: Offset(0),
                partition: PartitionId(0),
                key: Default::default(),
                payload: payload.as_bytes().to_vec().into(),
            });
        };
        take(r#"{"ts":60000,"value":5,"count":60}"#);
        take(r#"{"ts":120000,"value":5,"count":60,"read_bytes_s":3,"written_bytes_s":2}"#);
        let TwoWays { into, out, together } = &detail.disk;
        let shown = [into, out, together].map(|minutes| minutes.series.iter().collect::<Vec<_>>());
        assert_eq!(shown, [[(120_000, 3.0)], [(120_000, 2.0)], [(60_000, 5.0)]]);
    }
}
