//! The tail's report: what it was, how late records were, and minute by minute how things went.

use std::fmt::Write as _;

use super::machine::Machine;
use super::number::shown;
use super::svg::{Anchor, INK, OWN, OWN_PALE, Picture};
use crate::peers::Safety;
use crate::tail::{Second, Tail};
use crate::work::float;

/// Seconds of a line of the table.
const MINUTE: usize = 60;

/// The quantiles that are told, with their names.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// The text.
pub fn write(tail: &Tail, machine: &Machine, picture: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, tail, machine);
    let _ = latencies(&mut out, tail);
    let _ = minutes(&mut out, tail);
    let _ = write!(out, "\n![latency and memory over time]({picture})\n");
    out
}

fn head(out: &mut String, tail: &Tail, machine: &Machine) -> std::fmt::Result {
    let plan = &tail.plan;
    let rate = shown(float(tail.rate));
    writeln!(out, "# The tail: {} s at {rate} records/s\n", plan.seconds)?;
    let safety = match plan.safety {
        Safety::Synced => "synced before their ACK",
        Safety::Cached => "acknowledged from the page cache",
    };
    let highest = tail.highest.map_or_else(String::new, |highest| {
        format!(" That is half of {} records/s, the highest rate just before.", shown(highest))
    });
    writeln!(
        out,
        "{} cores of {}, Linux {}; fdatasync of 4 KiB takes {} µs (p50), {} µs (p99). Payloads of \
         {} bytes, {} topics in turns, {safety}, {} MiB kept in each partition; one producer and \
         two subscribers in one thread on the same machine, counted from when each record was \
         due.{highest}\n",
        machine.cores,
        machine.processor,
        machine.kernel,
        shown(machine.sync.p50_us),
        shown(machine.sync.p99_us),
        plan.payload_bytes,
        plan.topics,
        plan.retention_bytes.unwrap_or_default() >> 20,
    )?;
    let memory = |seconds: &[Second]| {
        let (least, most) = span(seconds, |second| float(second.memory_bytes) / 1e6);
        format!("{}–{} MB", shown(least), shown(most))
    };
    let (first, later) = tail.seconds.split_at(MINUTE.min(tail.seconds.len() / 2));
    let (_, disk) = span(&tail.seconds, |second| float(second.disk_bytes) / 1e6);
    writeln!(
        out,
        "- {} records: each ACK had its topic and the next offset of its partition, each delivery \
         came once and in order to both subscribers\n\
         - the broker's memory: {} at first, {} later; its folder: {} MB at most; {} segments \
         deleted\n\
         - one subscriber read nothing for {} s, was {} records behind, and level with the other \
         one {} s after\n\
         - the broker used {} of one core, the bench {}",
        shown(float(tail.records)),
        memory(first),
        memory(later),
        shown(disk),
        tail.segments_deleted,
        tail.pause_seconds,
        shown(float(tail.behind)),
        shown(tail.caught_up_seconds),
        shown(tail.server_cores),
        shown(tail.client_cores),
    )
}

fn latencies(out: &mut String, tail: &Tail) -> std::fmt::Result {
    let names = QUANTILES.map(|(name, _)| name);
    writeln!(out, "\n| µs | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
    for (what, took) in [("ACK", &tail.acks), ("delivery", &tail.deliveries)] {
        let at = |(_, quantile)| shown(float(took.value_at_quantile(quantile)) / 1e3);
        writeln!(out, "| {what} | {} |", QUANTILES.map(at).join(" | "))?;
    }
    Ok(())
}

fn minutes(out: &mut String, tail: &Tail) -> std::fmt::Result {
    writeln!(out, "\n| minute | memory, MB | disk, MB | longest ACK, ms | longest delivery, ms |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for (at, seconds) in (1..).zip(tail.seconds.chunks(MINUTE)) {
        let (least, most) = span(seconds, |second| float(second.memory_bytes) / 1e6);
        let most_of = |of: fn(&Second) -> f64| shown(span(seconds, of).1);
        writeln!(
            out,
            "| {at} | {}–{} | {} | {} | {} |",
            shown(least),
            shown(most),
            most_of(|second| float(second.disk_bytes) / 1e6),
            most_of(|second| second.acks_us.1 / 1e3),
            most_of(|second| second.deliveries_us.1 / 1e3),
        )?;
    }
    Ok(())
}

fn span(seconds: &[Second], of: impl Fn(&Second) -> f64) -> (f64, f64) {
    let least = seconds.iter().map(&of).fold(f64::INFINITY, f64::min);
    let most = seconds.iter().map(&of).fold(0.0, f64::max);
    (least.min(most), most)
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const HEAD: f64 = 44.0;
const FOOT: f64 = 30.0;

/// Latency over time by powers of ten, and memory over time from nought.
pub fn draw(tail: &Tail) -> String {
    let mut picture = Picture::new(WIDTH, 3.0 * HEIGHT);
    // From 10 µs to 10 s: six powers of ten.
    let decades = |us: f64| (us.max(10.0).log10() - 1.0) / 6.0;
    let marks = [(10.0, "10 µs"), (1e3, "1 ms"), (1e5, "100 ms"), (1e7, "10 s")];
    let marks = marks.map(|(us, name)| (decades(us), name.to_owned()));
    for (top, what, of) in [
        (0.0, "ACK", (|second| second.acks_us) as fn(&Second) -> (f64, f64)),
        (HEIGHT, "delivery", |second| second.deliveries_us),
    ] {
        let title = format!("{what}: p99 and longest (pale) of each second");
        frame(&mut picture, top, &title, &marks, tail.seconds.len());
        curve(&mut picture, top, tail, OWN_PALE, |second| decades(of(second).1));
        curve(&mut picture, top, tail, OWN, |second| decades(of(second).0));
    }
    let megabytes = |second: &Second| float(second.memory_bytes) / 1e6;
    let (_, most) = span(&tail.seconds, megabytes);
    let marks = [(0.0, "0".to_owned()), (1.0, format!("{} MB", shown(most)))];
    frame(&mut picture, 2.0 * HEIGHT, "the broker's memory", &marks, tail.seconds.len());
    curve(&mut picture, 2.0 * HEIGHT, tail, OWN, |second| megabytes(second) / most.max(1.0));
    picture.finish()
}

fn y(top: f64, part: f64) -> f64 {
    top + HEIGHT - FOOT - (HEIGHT - HEAD - FOOT) * part
}

fn frame(picture: &mut Picture, top: f64, title: &str, marks: &[(f64, String)], seconds: usize) {
    picture.text(LEFT, top + 20.0, 14.0, Anchor::Start, title);
    for (part, name) in marks {
        let y = y(top, *part);
        picture.line(&[(LEFT, y), (WIDTH - RIGHT, y)], 0.5, INK);
        picture.text(LEFT - 6.0, y + 4.0, 12.0, Anchor::End, name);
    }
    let end = format!("{seconds} s");
    picture.text(WIDTH - RIGHT, y(top, 0.0) + 18.0, 12.0, Anchor::End, &end);
}

fn curve(
    picture: &mut Picture,
    top: f64,
    tail: &Tail,
    colour: &str,
    part: impl Fn(&Second) -> f64,
) {
    let steps = float(tail.seconds.len().saturating_sub(1).max(1) as u64);
    let points = tail.seconds.iter().enumerate().map(|(at, second)| {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * float(at as u64) / steps;
        (x, y(top, part(second)))
    });
    picture.line(&points.collect::<Vec<_>>(), 1.5, colour);
}
