//! The tail: minutes of records on a schedule, at half of what a broker can take.
//!
//! Records are due on a fixed schedule, and acknowledgements and deliveries are counted from then
//! (no coordinated omission: a broker that stalls is charged for all that waited). Retention deletes
//! segments all the while. One subscriber reads on; another one reads nothing for a while in the
//! middle, and must then be brought all that it missed, from the disk. Everything is checked: each
//! acknowledgement's topic and offset by the publisher, each delivery by `order`.
//!
//! All of it is one thread, as in every other row; the seconds' figures are taken in it as well, and
//! what that takes is in the latencies.

mod clerk;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;

use crate::clock::{SECOND_NS, now_ns, seconds, seconds_since};
use crate::drive::{Sender, histogram, pipelined};
use crate::load::Load;
use crate::order::Order;
use crate::peers::aklight::Aklight;
use crate::peers::{Safety, Share, Wanted, Way};
use crate::receive::Receiver;
use crate::server::Fleet;
use crate::usage::{Cpu, own_cpu_seconds};
use crate::wire::wait_ns;
use crate::work::float;
use clerk::Clerk;
pub use clerk::Second;

/// What is asked of the broker.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long.
    pub seconds: u64,
    /// Records a second; half of the highest rate where none is said.
    pub rate: Option<u64>,
    /// When a record is safe.
    pub safety: Safety,
    /// What a partition keeps; half as much again as comes during the pause where none is said.
    pub retention_bytes: Option<u64>,
    /// Topics, taken in turns.
    pub topics: usize,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Records on the way at most, while the highest rate is looked for.
    pub window: u64,
}

/// How long the highest rate is looked for, after as long a warm-up: processors that are lent are quicker for
/// the first seconds than they are for minutes.
const HIGHEST_SECONDS: f64 = 10.0;

/// The longest time for which the second subscriber reads nothing; a fifth of a short run.
const PAUSE_SECONDS_MAX: u64 = 60;

/// Partitions of a new broker.
const PARTITIONS: u64 = 2;

/// What a record may take on the disk beside its payload: more than it does.
const RECORD_BYTES_MAX: u64 = 60;

/// Before the first record is due.
const LEAD_NS: u64 = 1_000_000;

/// Nothing coming for so long is a failure and not a slow broker.
const SILENCE_SECONDS: f64 = 30.0;

/// Bytes that wait for a broker that takes nothing, at most: seconds of the highest rate.
const UNSENT_BYTES_MAX: usize = 1 << 30;

/// What came of it.
pub struct Tail {
    /// What was asked.
    pub plan: Plan,
    /// The highest rate, where it was looked for.
    pub highest: Option<f64>,
    /// The rate that was kept.
    pub rate: u64,
    /// Records, each acknowledged once.
    pub records: u64,
    /// From when a record was due to its acknowledgement, in nanoseconds.
    pub acks: Histogram<u64>,
    /// The same to the subscriber that reads on.
    pub deliveries: Histogram<u64>,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// For how long the second subscriber read nothing.
    pub pause_seconds: u64,
    /// How many records it was behind then.
    pub behind: u64,
    /// How long it took to be brought them, and all that came meanwhile.
    pub caught_up_seconds: f64,
    /// Segments that were deleted.
    pub segments_deleted: usize,
    /// Processor time of the broker and of the bench, of one processor.
    pub server_cores: f64,
    /// The same of the bench.
    pub client_cores: f64,
}

/// Runs it.
///
/// # Errors
/// When the broker fails, acknowledges what is not so, or does not bring each record once in order.
pub fn run(program: &Path, plan: Plan) -> anyhow::Result<Tail> {
    let load = Arc::new(Load::new(plan.topics, plan.payload_bytes)?);
    let pause_seconds = PAUSE_SECONDS_MAX.min(plan.seconds / 5);
    let highest = match plan.rate {
        Some(_) => None,
        None => Some(highest(&Aklight::new(program), &load, &plan)?),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of records is positive and far below 2^53"
    )]
    let rate = plan.rate.unwrap_or_else(|| (highest.unwrap_or_default() / 2.0) as u64).max(1);
    eprintln!("{} s at {rate} records/s", plan.seconds);
    let record_bytes = plan.payload_bytes as u64 + RECORD_BYTES_MAX;
    let pause_bytes = rate * record_bytes * pause_seconds / PARTITIONS;
    let retention_bytes = plan.retention_bytes.unwrap_or(pause_bytes + pause_bytes / 2).max(1);
    // One that reads nothing for a while is to be kept here, not cut off.
    let patience = pause_seconds + PAUSE_SECONDS_MAX;
    let flags = [("--retention-bytes", retention_bytes), ("--slow-client-seconds", patience)];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]);
    let way = Aklight { flags: flags.collect(), ..Aklight::new(program) };
    let plan = Plan { retention_bytes: Some(retention_bytes), ..plan };
    let fleet = Fleet::start(&way, plan.safety, false, 1)?;
    let mut course = Course::begin(&way, &load, &fleet, rate, plan.seconds, pause_seconds)?;
    course.run(&fleet)?;
    course.into_tail(plan, highest, &fleet)
}

/// Records a second, the window always full.
fn highest(way: &Aklight, load: &Arc<Load>, plan: &Plan) -> anyhow::Result<f64> {
    let fleet = Fleet::start(way, plan.safety, false, 1)?;
    let publisher = way.publisher(load, Share::WHOLE);
    let mut senders = [Sender::connect(fleet.address(0), publisher)?];
    pipelined(&mut senders, u64::MAX / 2, plan.window, HIGHEST_SECONDS)?;
    let sent = pipelined(&mut senders, u64::MAX / 2, plan.window, HIGHEST_SECONDS)?;
    Ok(float(sent.records) / sent.seconds)
}

/// A run from its first record to the last one.
struct Course<'a> {
    way: &'a Aklight,
    load: &'a Load,
    rate: u64,
    records: u64,
    first_ns: u64,
    // From when to when the second subscriber reads nothing.
    pause_ns: (u64, u64),
    sender: Sender,
    steady: Receiver,
    pausing: Receiver,
    orders: [Order; 2],
    acks: Histogram<u64>,
    deliveries: Histogram<u64>,
    clerk: Clerk,
    behind: u64,
    caught_up_ns: Option<u64>,
    cpu: Cpu,
    own_cpu: f64,
}

impl<'a> Course<'a> {
    fn begin(
        way: &'a Aklight,
        load: &'a Arc<Load>,
        fleet: &Fleet<'_>,
        rate: u64,
        seconds: u64,
        pause_seconds: u64,
    ) -> anyhow::Result<Self> {
        let receiver = || {
            let feed = way.feed(load, Wanted::Live).context("it pushes nothing")?;
            Receiver::connect(fleet.address(0), feed)
        };
        let (steady, pausing) = (receiver()?, receiver()?);
        let sender = Sender::connect(fleet.address(0), way.publisher(load, Share::WHOLE))?;
        let first_ns = now_ns() + LEAD_NS;
        let stops_ns = first_ns + seconds * SECOND_NS / 2 - pause_seconds * SECOND_NS / 2;
        Ok(Self {
            way,
            load,
            rate,
            records: rate * seconds,
            first_ns,
            pause_ns: (stops_ns, stops_ns + pause_seconds * SECOND_NS),
            sender,
            steady,
            pausing,
            orders: [Order::default(), Order::default()],
            acks: histogram()?,
            deliveries: histogram()?,
            clerk: Clerk::new(first_ns)?,
            behind: 0,
            caught_up_ns: None,
            cpu: fleet.cpu(),
            own_cpu: own_cpu_seconds(),
        })
    }

    fn due_ns(&self, number: u64) -> u64 {
        due_ns(self.first_ns, self.rate, number)
    }

    fn is_pausing(&self, now: u64) -> bool {
        (self.pause_ns.0..self.pause_ns.1).contains(&now)
    }

    fn run(&mut self, fleet: &Fleet<'_>) -> anyhow::Result<()> {
        let mut progress_ns = self.first_ns;
        while !self.is_over() {
            let now = now_ns();
            self.send(now)?;
            let mut came = self.take_acks()?;
            came |= self.take_deliveries()?;
            if self.is_pausing(now) {
                self.behind = self.behind.max(self.sender.sent() - self.pausing.records);
            } else {
                came |= self.take_late_deliveries(now)?;
            }
            self.clerk.note(now, fleet);
            if came {
                progress_ns = now;
            } else {
                self.rest(now)?;
            }
            ensure!(
                now < progress_ns || seconds_since(progress_ns) < SILENCE_SECONDS,
                "{} of {} records came, and then nothing",
                self.steady.records,
                self.sender.sent()
            );
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let came = self.steady.records.min(self.pausing.records);
        came.min(self.sender.acknowledged()) == self.records
    }

    fn send(&mut self, now: u64) -> anyhow::Result<()> {
        while self.sender.sent() < self.records && self.due_ns(self.sender.sent()) <= now {
            self.sender.publish();
        }
        self.sender.flush()?;
        ensure!(
            self.sender.unsent() < UNSENT_BYTES_MAX,
            "the broker does not keep up with {} records/s: after {:.0} s it has acknowledged {} of {}; if the machine was quicker when the highest rate was looked for, give --rate",
            self.rate,
            seconds_since(self.first_ns),
            self.sender.acknowledged(),
            self.sender.sent()
        );
        Ok(())
    }

    fn take_acks(&mut self) -> anyhow::Result<bool> {
        let before = self.sender.acknowledged();
        let came = self.sender.receive()?;
        let now = now_ns();
        for number in before..self.sender.acknowledged() {
            let took = now.saturating_sub(self.due_ns(number));
            self.acks.saturating_record(took);
            self.clerk.acks.saturating_record(took);
        }
        Ok(came)
    }

    fn take_deliveries(&mut self) -> anyhow::Result<bool> {
        let Self { steady, orders, way, load, deliveries, clerk, first_ns, rate, .. } = self;
        let (mut came_ns, mut wrong) = (None, None);
        let came = steady.receive(&mut |number, record| {
            let now = *came_ns.get_or_insert_with(now_ns);
            let took = now.saturating_sub(due_ns(*first_ns, *rate, number));
            deliveries.saturating_record(took);
            clerk.deliveries.saturating_record(took);
            wrong = wrong.take().or(orders[0].check(*way, load, number, record).err());
        })?;
        wrong.map_or(Ok(came), Err)
    }

    fn take_late_deliveries(&mut self, now: u64) -> anyhow::Result<bool> {
        let Self { pausing, orders, way, load, .. } = self;
        let mut wrong = None;
        let came = pausing.receive(&mut |number, record| {
            wrong = wrong.take().or(orders[1].check(*way, load, number, record).err());
        })?;
        // As far as the other one is as far as it ever will be.
        let is_level = self.pausing.records >= self.steady.records;
        if now >= self.pause_ns.1 && self.caught_up_ns.is_none() && is_level {
            self.caught_up_ns = Some(now - self.pause_ns.1);
        }
        wrong.map_or(Ok(came), Err).context("the subscriber that had stopped")
    }

    // Until the next record is due, or something comes for somebody who reads.
    fn rest(&self, now: u64) -> anyhow::Result<()> {
        let sent = self.sender.sent();
        let next_ns = if sent < self.records { self.due_ns(sent) } else { now + SECOND_NS };
        let left_ns = next_ns.saturating_sub(now_ns());
        let mut fds = vec![self.steady.poll_fd(), self.sender.poll_fd()];
        if !self.is_pausing(now) {
            fds.push(self.pausing.poll_fd());
        }
        wait_ns(&mut fds, left_ns)
    }

    fn into_tail(
        self,
        plan: Plan,
        highest: Option<f64>,
        fleet: &Fleet<'_>,
    ) -> anyhow::Result<Tail> {
        let sum = self.records * (self.records - 1) / 2;
        let is_whole =
            [&self.steady, &self.pausing].iter().all(|r| r.records == self.records && r.sum == sum);
        ensure!(is_whole, "not every record came once");
        let took = seconds_since(self.first_ns);
        Ok(Tail {
            plan,
            highest,
            rate: self.rate,
            records: self.records,
            acks: self.acks,
            deliveries: self.deliveries,
            seconds: self.clerk.seconds,
            pause_seconds: (self.pause_ns.1 - self.pause_ns.0) / SECOND_NS,
            behind: self.behind,
            caught_up_seconds: seconds(self.caught_up_ns.unwrap_or_default()),
            segments_deleted: self.clerk.segments.deleted(),
            server_cores: fleet.cpu().seconds_since(&self.cpu) / took,
            client_cores: (own_cpu_seconds() - self.own_cpu) / took,
        })
    }
}

/// When a record is due.
fn due_ns(first_ns: u64, rate: u64, number: u64) -> u64 {
    // Whole seconds first: a night's numbers times 10^9 would not fit.
    first_ns + number / rate * SECOND_NS + number % rate * SECOND_NS / rate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_neither_drifts_nor_overflows() {
        assert_eq!(due_ns(5, 3, 0), 5);
        assert_eq!(due_ns(0, 3, 1), 333_333_333);
        assert_eq!(due_ns(0, 3, 3), SECOND_NS);
        assert_eq!(due_ns(0, 300_000, 300_000 * 86_400), 86_400 * SECOND_NS);
    }
}
