//! How a run goes, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::machine;

/// How often a plain line is written: seldom enough for a log, often enough to see life.
const LINE_EVERY_MS: u64 = 5_000;

/// The share of a CPU is measured over at least this long; shorter spans only flicker.
const MEASURE_MS: u64 = 1_000;

pub(crate) struct Progress {
    seconds: u64,
    bar: Option<ProgressBar>,
    next_line_ms: u64,
    measured: (u64, f64),
    cpu_percent: f64,
}

impl Progress {
    pub(crate) fn new(seconds: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(seconds * 1000);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let measured = (0, machine::cpu_seconds());
        Self { seconds, bar, next_line_ms: LINE_EVERY_MS, measured, cpu_percent: 0.0 }
    }

    pub(crate) fn show(&mut self, elapsed_ms: u64, touched_mib: u64) {
        self.measure(elapsed_ms);
        let text = format!(
            "{} of {} s, CPU {:.0} %, {touched_mib} MiB",
            elapsed_ms / 1000,
            self.seconds,
            self.cpu_percent
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(elapsed_ms);
                bar.set_message(text);
            }
            None if elapsed_ms >= self.next_line_ms => {
                self.next_line_ms += LINE_EVERY_MS;
                eprintln!("stress: {text}");
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn measure(&mut self, elapsed_ms: u64) {
        let (then_ms, then_cpu) = self.measured;
        let span_ms = elapsed_ms.saturating_sub(then_ms);
        if span_ms >= MEASURE_MS {
            let cpu = machine::cpu_seconds();
            self.cpu_percent = (cpu - then_cpu) * 100_000.0 / span_ms as f64;
            self.measured = (elapsed_ms, cpu);
        }
    }
}
