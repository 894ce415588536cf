//! Readings of one container, and the samples that two of them make.
//!
//! A [`Reading`] is what stood in the files, or in the engine's answer, at one moment: mostly
//! counters. [`Gauges`] keep the last one of each counter and make samples of what happened since,
//! by the same formulas as the producer's own metrics. What cannot be read is no sample.

use std::collections::HashMap;

use super::group::Limits;
use super::shapes::{InterfaceStats, Stats};
use crate::readings::counters::Counters;
use crate::readings::cpu::{CpuCounter, Times};
use crate::readings::disk::{self, Devices, READ, WRITTEN};
use crate::readings::memory::{Use, without};
use crate::readings::network::{self, Interfaces};
use crate::readings::{Moment, percent, value_of};
use crate::sample::{Metric, Sample};

/// What was read at one moment.
#[derive(Debug)]
pub struct Reading {
    /// When.
    pub moment: Moment,
    /// CPU time so far.
    pub cpu: Option<Times>,
    /// What it may use.
    pub limits: Limits,
    /// Memory now.
    pub memory: Option<Use>,
    /// Bytes of disks so far.
    pub disk: Option<Devices>,
    /// Bytes of networks so far.
    pub network: Option<Interfaces>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Throttled periods so far.
    pub throttled: Option<Throttled>,
    /// Percent of ten seconds waited for CPU, memory and disks.
    pub pressure: [Option<f64>; 3],
    /// Processes killed for memory so far.
    pub oom_kills: Option<u64>,
}

/// What a quota of CPU time did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttled {
    periods: u64,
    throttled: u64,
    throttled_us: u64,
}

impl Throttled {
    /// Out of a `cpu.stat`: version 1 counts nanoseconds, version 2 microseconds. `None` where the
    /// file has no such lines.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let v1 = || value_of(text, "throttled_time").map(|ns| ns / 1000);
        Some(Self {
            periods: value_of(text, "nr_periods")?,
            throttled: value_of(text, "nr_throttled")?,
            throttled_us: value_of(text, "throttled_usec").or_else(v1)?,
        })
    }

    fn since(self, last: Self) -> Option<f64> {
        let periods = self.periods.checked_sub(last.periods)?;
        Some(percent(self.throttled.checked_sub(last.throttled)?, periods))
    }
}

impl Reading {
    /// Out of the engine's answer to `/containers/ID/stats`.
    #[must_use]
    pub fn of_stats(stats: Stats, moment: Moment, limit_cpus: Option<f64>) -> Self {
        let Stats { cpu_stats, memory_stats, pids_stats, blkio_stats, networks } = stats;
        let stat = |name| memory_stats.stats.get(name).copied();
        let memory = memory_stats.usage.map(|usage| Use {
            bytes: without(usage, stat("total_inactive_file").or_else(|| stat("inactive_file"))),
            limit_bytes: memory_stats.limit,
            rss_bytes: stat("total_rss").or_else(|| stat("anon")),
        });
        let mut devices = Devices::new();
        for entry in blkio_stats.io_service_bytes_recursive {
            let counter = match entry.op.to_ascii_lowercase().as_str() {
                "read" => READ,
                "write" => WRITTEN,
                _ => continue,
            };
            let device = format!("{}:{}", entry.major, entry.minor);
            devices.entry(device).or_default()[counter] += entry.value;
        }
        let times = Times {
            used: cpu_stats.cpu_usage.total_usage,
            whole: cpu_stats.system_cpu_usage,
            cpus: cpu_stats.online_cpus.max(1),
        };
        let throttled = cpu_stats.throttling_data.map(|data| Throttled {
            periods: data.periods,
            throttled: data.throttled_periods,
            throttled_us: data.throttled_time / 1000,
        });
        let pids = Some(pids_stats.limit).filter(|limit| !matches!(limit, 0 | &u64::MAX));
        Self {
            moment,
            cpu: Some(times),
            limits: Limits { cpus: limit_cpus, bytes: memory_stats.limit, pids },
            memory,
            disk: Some(devices),
            network: networks.map(interfaces),
            pids: pids_stats.current,
            throttled,
            pressure: [None; 3],
            oom_kills: None,
        }
    }
}

fn interfaces(stats: HashMap<String, InterfaceStats>) -> Interfaces {
    let in_order = |s: InterfaceStats| {
        [s.rx_bytes, s.tx_bytes, s.rx_errors, s.tx_errors, s.rx_dropped, s.tx_dropped]
    };
    stats.into_iter().map(|(name, stats)| (name, in_order(stats))).collect()
}

/// The counters of a container as they stood last.
#[derive(Debug, Default)]
pub struct Gauges {
    cpu: CpuCounter,
    disk: Counters<2>,
    network: Counters<{ network::FIELDS.len() }>,
    throttled: Option<Throttled>,
}

impl Gauges {
    /// What happened since the last reading, and what is now.
    pub fn samples(&mut self, reading: Reading) -> Vec<(Metric, Sample)> {
        let now = reading.moment;
        let Limits { cpus: limit_cpus, pids: limit_pids, .. } = reading.limits;
        let cpu = reading.cpu.and_then(|times| self.cpu.update(now.wall_ms, times, limit_cpus));
        let memory = reading.memory.map(|used| used.sample(now.wall_ms));
        let disk = reading.disk.and_then(|devices| self.disk.update(now, devices));
        let network = reading.network.and_then(|devices| self.network.update(now, devices));
        let pids = reading
            .pids
            .map(|pids| Sample::new(now.wall_ms, pids, "count").with_some("limit", limit_pids));
        let throttling = reading.throttled.and_then(|throttled| {
            let value = throttled.since(self.throttled.replace(throttled)?)?;
            let sample = Sample::new(now.wall_ms, value, "percent");
            Some(sample.with("throttled_us", throttled.throttled_us))
        });
        let mut samples = Vec::with_capacity(7);
        let mut add = |metric, sample: Option<Sample>| {
            samples.extend(sample.map(|sample| (metric, sample)));
        };
        add(Metric::Cpu, cpu);
        add(Metric::Memory, memory);
        add(Metric::Disk, disk.map(|rates| disk::sample(now, rates)));
        add(Metric::Network, network.map(|rates| network::sample(now, rates)));
        add(Metric::Pids, pids);
        add(Metric::Throttling, throttling);
        add(Metric::Pressure, pressure(now, reading.pressure));
        samples
    }
}

fn pressure(now: Moment, waited: [Option<f64>; 3]) -> Option<Sample> {
    let worst = waited.into_iter().flatten().reduce(f64::max)?;
    let sample = Sample::new(now.wall_ms, worst, "percent");
    let fields = ["cpu", "memory", "io"].into_iter().zip(waited);
    Some(fields.fold(sample, |sample, (name, value)| sample.with_some(name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall_ms: seconds * 1000, monotonic_us: seconds * 1_000_000 }
    }

    /// An answer as Docker's on version 1 of control groups, and as on version 2.
    fn stats(v1: bool, cpu_s: u64) -> Stats {
        let (inactive, rss, read) = if v1 {
            ("total_inactive_file", "total_rss", "Read")
        } else {
            ("inactive_file", "anon", "read")
        };
        serde_json::from_value(serde_json::json!({
            "cpu_stats": {
                "cpu_usage": {"total_usage": cpu_s * 500_000_000},
                "system_cpu_usage": cpu_s * 2_000_000_000, "online_cpus": 2,
                "throttling_data":
                    {"periods": cpu_s * 10, "throttled_periods": cpu_s * 5, "throttled_time": 7000},
            },
            "memory_stats": {"usage": 300, "limit": 1000, "stats": {inactive: 100, rss: 50}},
            "pids_stats": {"current": 3, "limit": u64::MAX},
            "blkio_stats": {"io_service_bytes_recursive":
                [{"major": 8, "minor": 0, "op": read, "value": cpu_s * 4096}]},
            "networks": {"eth0": {"rx_bytes": cpu_s * 10, "tx_bytes": 0, "rx_errors": 0,
                "tx_errors": 0, "rx_dropped": 0, "tx_dropped": 0, "rx_packets": 9}},
        }))
        .expect("stats")
    }

    #[test]
    fn the_engines_numbers_make_the_same_samples_in_both_versions() {
        for v1 in [true, false] {
            let mut gauges = Gauges::default();
            gauges.samples(Reading::of_stats(stats(v1, 1), at(1), Some(0.5)));
            let samples: HashMap<Metric, Sample> = gauges
                .samples(Reading::of_stats(stats(v1, 2), at(2), Some(0.5)))
                .into_iter()
                .collect();
            let value = |metric| samples[&metric].value();
            assert_eq!(value(Metric::Cpu), 50.0);
            assert_eq!(samples[&Metric::Cpu].field("limit_percent"), Some(100.0));
            assert_eq!(value(Metric::Memory), 20.0);
            assert_eq!(samples[&Metric::Memory].field("rss_bytes"), Some(50.0));
            assert_eq!(value(Metric::Disk), 4096.0);
            assert_eq!(value(Metric::Network), 10.0);
            assert_eq!(value(Metric::Pids), 3.0);
            assert_eq!(samples[&Metric::Pids].field("limit"), None);
            assert_eq!(value(Metric::Throttling), 50.0);
            assert_eq!(samples[&Metric::Throttling].field("throttled_us"), Some(7.0));
            assert!(!samples.contains_key(&Metric::Pressure));
        }
    }

    #[test]
    fn counters_that_began_anew_are_a_new_baseline() {
        let mut gauges = Gauges::default();
        gauges.samples(Reading::of_stats(stats(true, 9), at(1), None));
        let after = gauges.samples(Reading::of_stats(stats(true, 1), at(2), None));
        assert!(
            after.iter().all(|(metric, _)| !matches!(metric, Metric::Cpu | Metric::Throttling))
        );
        let next = gauges.samples(Reading::of_stats(stats(true, 2), at(3), None));
        assert!(next.iter().any(|(metric, cpu)| *metric == Metric::Cpu && cpu.value() == 50.0));
    }

    #[test]
    fn throttling_without_a_quota_is_none_and_not_a_division_by_zero() {
        let none = Throttled::parse("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n");
        assert_eq!(none.and_then(|t| t.since(t)), Some(0.0));
        assert_eq!(Throttled::parse("usage_usec 5\n"), None);
        let v2 = Throttled::parse("usage_usec 5\nnr_periods 4\nnr_throttled 1\nthrottled_usec 9\n");
        assert_eq!(v2, Some(Throttled { periods: 4, throttled: 1, throttled_us: 9 }));
    }
}
