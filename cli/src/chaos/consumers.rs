//! Persistent consumers: they come and go, on whatever broker, and must be sent everything.
//!
//! A visit is one connection: register, subscribe, take records, acknowledge the highest of each
//! partition now and then with a PING behind, and leave without a word after some seconds, so that
//! the next visit begins with what was not acknowledged. When the load is over a visit lasts as
//! long as it is needed.
//!
//! Left out: sessions that mend themselves (`Subscription`); they would hide what the oracle is to
//! know exactly, as in `link`.

use std::collections::BTreeMap;
use std::time::Duration;

use aklight_common::wire::{Command, Reply};
use aklight_common::{Offset, PartitionId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use super::course::{Course, Stage};
use super::link::Link;
use super::witness::Topics;

/// How long a visit lasts while there is load.
const VISIT_MS: std::ops::Range<u64> = 2_000..20_000;

/// How long a visitor waits for a word that it asked for.
const PATIENCE_MS: std::ops::Range<u64> = 3_000..10_000;

/// Between two visits, at most.
const PAUSE_MS_MAX: u64 = 500;

/// How often it is looked whether something is to be done.
const TICK: Duration = Duration::from_millis(50);

/// The token of every PING: their order tells them apart.
const TOKEN: &[u8] = b"acks";

/// Of each partition the highest offset that a consumer was sent.
pub type Reached = BTreeMap<PartitionId, Offset>;

/// One consumer, over all its visits.
pub struct ConsumerTask {
    course: Course,
    number: u32,
    topics: Topics,
    /// How long it keeps records before it acknowledges them.
    acks_every_ms: std::ops::Range<u64>,
    rng: SmallRng,
    broker: usize,
    reached: watch::Sender<Reached>,
}

/// What one visit knows.
#[derive(Default)]
struct Visit {
    subscribed: bool,
    /// The highest record of each partition that is not acknowledged: its topic and offset.
    taken: BTreeMap<PartitionId, (String, Offset)>,
    /// What the PING on its way stands behind; none without one.
    on_the_way: Option<Vec<(PartitionId, Offset)>>,
}

impl ConsumerTask {
    /// A consumer that was never there, and how far it gets.
    pub fn new(
        course: Course,
        number: u32,
        topics: Topics,
        acks_every_ms: std::ops::Range<u64>,
    ) -> (Self, watch::Receiver<Reached>) {
        let rng = SmallRng::seed_from_u64(course.seed ^ u64::from(number) << 40);
        let broker = usize::try_from(number).unwrap_or(0) % course.addresses.len();
        let (reached, watched) = watch::channel(Reached::new());
        (Self { course, number, topics, acks_every_ms, rng, broker, reached }, watched)
    }

    /// Visits brokers until all is over.
    pub async fn run(mut self) {
        let mut course = self.course.clone();
        tokio::select! {
            () = self.visits() => {}
            () = course.reaches(Stage::Over) => {}
        }
    }

    async fn visits(&mut self) {
        loop {
            if let Err(reason) = self.visit().await {
                tracing::debug!(consumer = self.number, %reason, "another visit");
            }
            self.broker = (self.broker + 1) % self.course.addresses.len();
            sleep(Duration::from_millis(self.rng.random_range(0..PAUSE_MS_MAX))).await;
        }
    }

    async fn visit(&mut self) -> Result<(), String> {
        let patience = Duration::from_millis(self.rng.random_range(PATIENCE_MS));
        let until_ms = self.course.clock.monotonic_ms() + self.rng.random_range(VISIT_MS);
        let address = self.course.addresses[self.broker].clone();
        let mut link = Link::open(&address, patience, &self.course.clock).await?;
        self.register(&mut link).await?;
        let pattern = self.course.witness.pattern(self.topics).map_err(|e| e.to_string())?;
        link.say(&Command::Subscribe { pattern: pattern.as_str() });
        let mut visit = Visit::default();
        let mut tick = interval(TICK);
        let mut acks_at_ms = 0;
        loop {
            while let Some(line) = link.next_line()? {
                let reply = Reply::decode(&line).map_err(|error| error.to_string())?;
                self.take(&reply, &mut visit)?;
            }
            tokio::select! {
                done = link.step() => done?,
                _ = tick.tick() => {
                    let now_ms = self.course.clock.monotonic_ms();
                    if now_ms >= until_ms && !self.course.is_at(Stage::Draining) {
                        return Ok(());
                    }
                    if visit.on_the_way.is_some() || !visit.subscribed {
                        link.check_patience()?;
                    } else if now_ms >= acks_at_ms {
                        self.acknowledge(&mut link, &mut visit);
                        acks_at_ms = now_ms + self.rng.random_range(self.acks_every_ms.clone());
                    }
                }
            }
        }
    }

    async fn register(&mut self, link: &mut Link) -> Result<(), String> {
        let id = format!("chaos-{}-c{}", self.course.run, self.number);
        let mut positions = None;
        link.ask(&Command::RegisterConsumer { id: &id, persistent: true }, |reply| match reply {
            Reply::OkPositions(told) => {
                positions = Some(told);
                Ok(true)
            }
            other => Err(format!("it answers REGISTER_CONSUMER with {other:?}")),
        })
        .await?;
        self.course.witness.registered(self.number, self.topics, positions.unwrap_or_default());
        Ok(())
    }

    fn take(&self, reply: &Reply<'_>, visit: &mut Visit) -> Result<(), String> {
        if let (Some(seen), Reply::Message { topic, .. }) = (self.course.witness.read(reply), reply)
        {
            self.course.witness.delivered(self.number, seen);
            visit.taken.insert(seen.partition, ((*topic).to_owned(), seen.offset));
            self.reached.send_modify(|reached| {
                let highest = reached.entry(seen.partition).or_insert(seen.offset);
                *highest = (*highest).max(seen.offset);
            });
            return Ok(());
        }
        match reply {
            Reply::Ok if !visit.subscribed => visit.subscribed = true,
            Reply::Pong(TOKEN) => {
                for (partition, upto) in visit.on_the_way.take().unwrap_or_default() {
                    self.course.witness.confirmed(self.number, partition, upto);
                }
            }
            // An acknowledgement or the subscription is refused: the next visit tries again.
            Reply::Err(error) if error.code.is_passing() => return Err(error.to_string()),
            Reply::Err(error) => {
                let text = format!("consumer {} was refused for good: {error}", self.number);
                self.course.witness.wrong(text.clone());
                return Err(text);
            }
            other => return Err(format!("it says what nobody asked: {other:?}")),
        }
        Ok(())
    }

    /// Acknowledges what was taken; a PING alone asks for a sign of life.
    fn acknowledge(&self, link: &mut Link, visit: &mut Visit) {
        let mut on_the_way = Vec::new();
        for (partition, (topic, offset)) in std::mem::take(&mut visit.taken) {
            self.course.witness.acking(self.number, partition, offset);
            link.say(&Command::Ack { topic: &topic, offset, partition });
            on_the_way.push((partition, offset));
        }
        link.say(&Command::Ping { token: TOKEN });
        link.begins_to_wait();
        visit.on_the_way = Some(on_the_way);
    }
}
