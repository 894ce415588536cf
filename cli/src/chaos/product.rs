//! The load of the product's own client: [`Producer`], which fails over by itself.
//!
//! The other producers write the protocol themselves, so that the oracle knows every answer. Here
//! the client that everybody uses is on trial as well: it may lose and double nothing. It does not
//! tell when it repeats a record, so no order within a key is asked of it: each record counts as
//! one of a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use aklight_common::client::{ClientConfig, Producer, Receipt};
use aklight_oracle::{Once, Outcome, RecordId};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::course::{Course, Stage};
use super::producers::{fields, key_of, topic_of};
use super::witness::Sending;

/// How often records fall due.
const TICK: Duration = Duration::from_millis(20);

/// Most records that wait for an answer: as much as the other producers leave open.
const WAITING_MAX: usize = 512;

/// How long a broker may be silent: shorter than the client's own default, as a user with a
/// shorter temper would have it.
const PATIENCE: Duration = Duration::from_secs(6);

/// Sends until the load is to end, and then waits for every answer, or until all is over.
pub async fn run(course: Course, number: u32, records_per_second: f64) {
    let mut config = ClientConfig::new(
        course.addresses.iter().cloned().collect(),
        &format!("chaos-{}-{number}", course.run),
    );
    config.request_timeout = PATIENCE;
    let producer = Producer::open(config, 1, Arc::clone(&course.clock));
    let mut waiting = JoinSet::new();
    let mut over = course.clone();
    tokio::select! {
        () = produce(&course, &producer, number, records_per_second, &mut waiting) => {}
        () = over.reaches(Stage::Over) => {
            let text = format!(
                "producer {number}, the client's own, was never answered for {} records",
                producer.unanswered()
            );
            course.witness.wrong(text);
        }
    }
}

async fn produce(
    course: &Course,
    producer: &Producer,
    number: u32,
    records_per_second: f64,
    waiting: &mut JoinSet<()>,
) {
    let mut rng = SmallRng::seed_from_u64(course.seed ^ u64::from(number) << 32);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = 0.0;
    while !(course.is_at(Stage::Draining) && waiting.is_empty()) {
        tokio::select! {
            _ = tick.tick() => {
                due += records_per_second * TICK.as_secs_f64();
                while due >= 1.0 {
                    due -= 1.0;
                    if waiting.len() < WAITING_MAX && !course.is_at(Stage::Draining) {
                        let (record, receipt) = send(course, producer, number, &mut rng).await;
                        waiting.spawn(answered(course.clone(), record, receipt));
                    }
                }
            }
            _ = waiting.join_next(), if !waiting.is_empty() => {}
        }
    }
}

async fn send(
    course: &Course,
    producer: &Producer,
    number: u32,
    rng: &mut SmallRng,
) -> (RecordId, Receipt) {
    let (key, topic) = (key_of(rng, number), topic_of(rng));
    let once = Some(Once { producer: number, sequence: producer.next_sequence() });
    let connection = course.witness.connection();
    let record = course.witness.sends(Sending { connection, key, topic, once });
    let (key, payload) = fields(key, record);
    let receipt = producer.enqueue(&course.witness.topic(topic), &key, &payload).await;
    (record, receipt)
}

async fn answered(course: Course, record: RecordId, receipt: Receipt) {
    let outcome = match receipt.answer().await {
        Ok(stored) => Outcome::Acked(stored.partition, stored.offset),
        Err(error) if error.code.is_passing() => return,
        Err(error) => {
            course.witness.wrong(format!("{record} was refused for good: {error}"));
            Outcome::Refused
        }
    };
    course.witness.answered(record, outcome);
}
