//! Records on their way to a broker: many at once, those of one alert in their order.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use aklight_common::client::ClientConfig;
use aklight_common::clock::SystemClock;
use aklight_consumer::alerts::Announcement;
use aklight_consumer::notify::announce::announce;
use support::{FakeBroker, LONG};
use tokio::sync::mpsc;

/// Sends these to a broker, from that sequence on; gives back the sequences as they are done.
async fn sent(broker: &FakeBroker, first: u64, records: &[(&str, &str)]) -> Vec<u64> {
    let config = ClientConfig::new(vec![broker.address.to_string()], "c1.alerts");
    let (announcements, queue) = mpsc::channel(records.len());
    let (done_in, mut done) = mpsc::channel(records.len());
    for (sequence, (topic, payload)) in (first..).zip(records) {
        let (topic, payload) = ((*topic).to_owned(), (*payload).to_owned());
        announcements.try_send(Announcement { sequence, topic, payload }).expect("room");
    }
    drop(announcements);
    let all = async {
        announce(config, first, SystemClock::shared(), queue, done_in).await;
        std::iter::from_fn(|| done.try_recv().ok()).collect()
    };
    tokio::time::timeout(LONG, all).await.expect("it ends when all is answered for")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_busy_in_between_changes_no_alerts_order() {
    let broker = FakeBroker::start();
    broker.log().busy = 1;
    let records = [
        ("alerts/hot/a", "firing"),
        ("alerts/hot/b", "firing"),
        ("alerts/hot/a", "ok"),
        ("alerts/hot/a", "firing"),
    ];
    assert_eq!(sent(&broker, 1, &records).await, [1, 2, 3, 4]);
    let log = broker.log();
    let of = |topic: &str| {
        let of = log.records.iter().filter(|(of, _)| of == topic);
        of.map(|(_, payload)| payload.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("alerts/hot/a"), ["firing", "ok", "firing"]);
    assert_eq!(of("alerts/hot/b"), ["firing"]);
}

/// Killed before it could strike from its file what had been stored long before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_far_behind_what_the_broker_has_is_done() {
    let broker = FakeBroker::start();
    assert_eq!(sent(&broker, 9_000, &[("alerts/hot/b", "firing")]).await, [9_000]);
    let again = sent(&broker, 1, &[("alerts/hot/a", "firing")]);
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), again).await, Ok(vec![1]));
    assert_eq!(broker.log().records.len(), 1);
}
