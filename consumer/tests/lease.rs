//! Turns of consumers before a broker: what keeps one at work.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use aklight_common::client::ClientConfig;
use aklight_common::clock::SystemClock;
use aklight_consumer::lease::{Lease, Step};
use support::{Consumer, FakeBroker, now_ms, until};

/// The turns of `c1`, taken by one of its instances.
fn lease(broker: &FakeBroker, instance: &str) -> Lease {
    let config = ClientConfig::new(vec![broker.address.to_string()], "c1");
    Lease::new(&config, "c1", instance, SystemClock::shared()).expect("an id")
}

/// A producer without containers has all its samples in one partition, where the oldest go; the
/// turns are in another, which is nearly empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_keeps_its_turn_where_another_partition_begins_far_beyond_that_of_the_turns() {
    let broker = FakeBroker::start();
    broker.log().start = 52_500;
    let mut first = lease(&broker, "first");
    for _ in 0..3 {
        assert_eq!(first.step().await.expect("a turn"), Step::Ours { after_another: false });
    }
    first.end().await.expect("ended");
    let mut second = lease(&broker, "second");
    for after_another in [true, false] {
        assert_eq!(second.step().await.expect("a turn"), Step::Ours { after_another });
    }
    assert_eq!(first.step().await.expect("an answer"), Step::Others);
}

/// Each turn is a record, not a connection: a connection is a line in the log.
#[tokio::test(flavor = "multi_thread")]
async fn turns_share_a_connection() {
    let broker = FakeBroker::start();
    let mut lease = lease(&broker, "first");
    for _ in 0..3 {
        assert_eq!(lease.step().await.expect("a turn"), Step::Ours { after_another: false });
    }
    lease.end().await.expect("ended");
    assert_eq!(broker.log().turns.len(), 4);
    assert_eq!(broker.log().turn_takers, 1);
}

/// Whoever reads the log of a consumer that may not judge sees so.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_turns_are_refused_says_that_it_judges_nothing() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let consumer = Consumer::start(&broker, folder.path(), &[], &[]);
    until("registered", || broker.log().registrations == 1).await;
    broker.log().refuses_turns = true;
    until("it says so", || consumer.log().contains("ERROR")).await;
    assert!(consumer.log().contains("nothing is judged"), "{}", consumer.log());
    broker.sample("web", now_ms(), 5.0);
    broker.log().refuses_turns = false;
    until("it goes on", || consumer.log().contains("judging again")).await;
    consumer.until_line("metrics/docker/web/cpu 5.0 %").await;
}
