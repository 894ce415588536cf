//! The async forms of the client against a broker that misbehaves.

mod fake;

use std::time::Duration;

use aklight_common::client::{
    Client, ClientConfig, ClientError, FetchRequest, Message, Producer, Subscription,
    SubscriptionEvent,
};
use aklight_common::clock::SystemClock;
use aklight_common::limits::SEQUENCE_WINDOW;
use aklight_common::wire::ErrorCode;
use aklight_common::{Offset, PartitionId, Pattern, Topic};
use fake::{FakeBroker, Plan};
use tokio::time::timeout;

fn config(brokers: &[String]) -> ClientConfig {
    let mut config = ClientConfig::new(brokers.to_vec(), "consumer1");
    config.backoff.first = Duration::from_millis(4);
    config.backoff.max = Duration::from_millis(50);
    config
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

/// The next record, and how often the subscription (re)connected before it.
async fn message(subscription: &mut Subscription) -> Message {
    let wait = async {
        loop {
            match subscription.next().await.expect("the task runs") {
                SubscriptionEvent::Message(message) => return message,
                SubscriptionEvent::Refused(error) => panic!("refused: {error}"),
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("a record in time")
}

async fn payloads(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        let message = message(subscription).await;
        payloads.push(String::from_utf8(message.payload.to_vec()).expect("text"));
    }
    payloads
}

async fn connected(subscription: &mut Subscription) -> (String, Vec<(PartitionId, Offset)>) {
    let wait = async {
        loop {
            let event = subscription.next().await.expect("the task runs");
            if let SubscriptionEvent::Connected { broker, positions } = event {
                return (broker, positions);
            }
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("connected in time")
}

#[tokio::test]
async fn every_question_is_answered_in_owned_values() {
    let plan = Plan { chunk: Some(3), ..Plan::default() };
    let broker = FakeBroker::start(vec![plan]);
    let mut client = Client::connect(config(&[broker.name()])).await.expect("connected");
    assert_eq!(client.broker(), broker.name());
    let stored = client.produce("metrics/a", b"k", b"one|\n").await.expect("stored");
    assert_eq!((stored.partition, stored.offset), (PartitionId(0), Offset(0)));
    let records: Vec<(&str, &[u8], &[u8])> =
        (0..500).map(|_| ("metrics/a", &b""[..], &b"x"[..])).collect();
    let answers = client.produce_all(&records).await.expect("answered");
    let offsets: Vec<u64> = answers.iter().map(|a| a.as_ref().expect("stored").offset.0).collect();
    assert_eq!(offsets, (1..=500).collect::<Vec<_>>());
    let request = FetchRequest {
        pattern: pattern("metrics/+"),
        offset: Offset(0),
        partition: Some(PartitionId(0)),
        max: 2,
        wait_ms: 0,
    };
    let fetched = client.fetch(&request).await.expect("fetched");
    assert_eq!(fetched.messages.len(), 2);
    assert_eq!(&*fetched.messages[0].payload, b"one|\n");
    assert_eq!(&*fetched.messages[0].key, b"k");
    assert_eq!(fetched.next, [(PartitionId(0), Offset(2))]);
    assert_eq!(client.last(&pattern("#")).await.expect("last")[0].offset, Offset(500));
    let topics = client.topics(&pattern("#")).await.expect("topics");
    assert_eq!((topics[0].topic.as_str(), topics[0].records), ("metrics/a", 3));
    let cluster = client.cluster().await.expect("cluster");
    assert_eq!((cluster.brokers.len(), cluster.partitions.len()), (1, 2));
    assert_eq!(cluster.partitions[0].end, Offset(501));
    client.ping().await.expect("pong");
    client.quit().await.expect("bye");
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_usable() {
    let broker = FakeBroker::start(vec![]);
    let mut client = Client::connect(config(&[broker.name()])).await.expect("connected");
    match client.produce("a//b", b"", b"x").await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::BadTopic),
        other => panic!("{other:?}"),
    }
    client.ping().await.expect("pong");
}

#[tokio::test]
async fn where_no_broker_is_the_error_says_what_to_do() {
    let gone = FakeBroker::start(vec![]);
    let name = gone.name();
    gone.stop();
    let error = Client::connect(config(std::slice::from_ref(&name))).await.expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!(
            "no broker answers at {name} (connection refused): is one running? start it with `aklight up`"
        )
    );
    let second = FakeBroker::start(vec![]);
    let client = Client::connect(config(&[name, second.name()])).await.expect("the second");
    assert_eq!(client.broker(), second.name());
}

#[tokio::test]
async fn a_silent_broker_is_not_waited_for_for_ever() {
    let silent = FakeBroker::start(vec![Plan { silent: true, ..Plan::default() }]);
    let mut config = config(&[silent.name()]);
    config.greeting_timeout = Duration::from_millis(80);
    let error = Client::connect(config).await.expect_err("silent");
    assert!(error.to_string().contains("did not answer within 80ms"), "{error}");
}

#[tokio::test]
async fn a_producer_loses_and_doubles_nothing_over_many_connections() {
    for swallow_last_answer in [false, true] {
        let plan = |n| Plan { drop_after: Some(n), swallow_last_answer, ..Plan::default() };
        let broker = FakeBroker::start([1, 30, 400, 2, 999].map(plan).to_vec());
        let producer = Producer::open(config(&[broker.name()]), 1, SystemClock::shared());
        let mut receipts = Vec::new();
        // More than the window: the last ones wait for room.
        for n in 1..=SEQUENCE_WINDOW + 1000 {
            let receipt = producer.enqueue("metrics/a", b"", n.to_string().as_bytes()).await;
            assert_eq!(receipt.sequence(), n);
            assert!(producer.unanswered() as u64 <= SEQUENCE_WINDOW);
            receipts.push(receipt);
        }
        for (n, receipt) in receipts.into_iter().enumerate() {
            let answer = timeout(Duration::from_secs(20), receipt.answer()).await;
            let stored = answer.expect("in time").expect("stored");
            let at = usize::try_from(stored.offset.0).expect("small");
            let kept = broker.lock().partitions[stored.partition.0 as usize][at].clone();
            assert_eq!(kept.payload, (n + 1).to_string().as_bytes());
        }
        let inner = broker.lock();
        let total: usize = inner.partitions.iter().map(Vec::len).sum();
        assert_eq!(total as u64, SEQUENCE_WINDOW + 1000);
        for partition in &inner.partitions {
            assert!(partition.is_sorted_by_key(|kept| kept.sequence));
        }
        assert!(inner.connections >= 6, "{}", inner.connections);
    }
}

#[tokio::test]
async fn a_producer_is_told_of_refusals_and_of_its_end() {
    let refuse = vec![(1, ErrorCode::Busy), (2, ErrorCode::Forbidden)];
    let broker = FakeBroker::start(vec![Plan { refuse, ..Plan::default() }]);
    let producer = Producer::open(config(&[broker.name()]), 1, SystemClock::shared());
    producer.send("a", b"", b"busy, then stored").await.expect("stored");
    let error = producer.send("a", b"", b"x").await.expect_err("refused");
    assert_eq!(error.code, ErrorCode::Forbidden);
    let error = producer.send("a/+", b"", b"x").await.expect_err("no topic");
    assert_eq!(error.code, ErrorCode::BadTopic);
    broker.stop();
    let receipt = producer.enqueue("a", b"", b"x").await;
    drop(producer);
    assert_eq!(receipt.answer().await.expect_err("closed").code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_persistent_consumer_goes_on_where_it_acknowledged() {
    let broker = FakeBroker::start(vec![]);
    let open = || Subscription::open(config(&[broker.name()]), true, vec![pattern("metrics/#")]);
    let mut first = open();
    connected(&mut first).await;
    for n in 0..10 {
        broker.append("metrics/a", &format!("r{n}"), 0);
        broker.append("other", "not for us", 0);
    }
    assert_eq!(payloads(&mut first, 5).await, ["r0", "r1", "r2", "r3", "r4"]);
    let topic = Topic::new("metrics/a").expect("a topic");
    first.ack(&topic, Offset(4), PartitionId(0));
    first.ack(&topic, Offset(8), PartitionId(0));
    eventually_async("the ack is durable", || {
        first.acknowledged().get(&PartitionId(0)) == Some(&Offset(8))
    })
    .await;
    // Acknowledged at the last moment: close() must carry it.
    first.ack(&topic, Offset(10), PartitionId(0));
    assert!(first.close().await, "everything acknowledged is durable");
    assert_eq!(broker.lock().positions["consumer1"][&0], 11);
    assert_eq!(broker.lock().lines.last().map(String::as_str), Some("QUIT"));
    let mut second = open();
    let (_, positions) = connected(&mut second).await;
    assert_eq!(positions[0], (PartitionId(0), Offset(11)));
    assert_eq!(payloads(&mut second, 4).await, ["r6", "r7", "r8", "r9"]);
}

#[tokio::test]
async fn a_persistent_consumer_sees_each_record_once_over_reconnections() {
    let broker = FakeBroker::start(vec![Plan { chunk: Some(5), ..Plan::default() }]);
    let mut subscription = Subscription::open(
        config(&[broker.name()]),
        true,
        vec![pattern("metrics/a"), pattern("metrics/#")],
    );
    connected(&mut subscription).await;
    let topic = Topic::new("metrics/a").expect("a topic");
    let mut expect = Vec::new();
    let mut got = Vec::new();
    for round in 0..6 {
        eventually_async("it is back", || broker.lock().connections as u64 > round).await;
        for n in 0..20 {
            let payload = format!("{round}.{n}");
            broker.append(if n % 2 == 0 { "metrics/a" } else { "metrics/b" }, &payload, n % 2);
            expect.push(payload);
        }
        broker.hang_up(false);
        got.extend(payloads(&mut subscription, 20).await);
        // Some are acknowledged late, some never.
        if round % 2 == 1 {
            subscription.ack(&topic, Offset(10 * round), PartitionId(0));
        }
    }
    broker.append("metrics/a", "last", 0);
    assert_eq!(payloads(&mut subscription, 1).await, ["last"], "and no double before it");
    got.sort_unstable();
    expect.sort_unstable();
    assert_eq!(got, expect);
    assert!(broker.lock().connections >= 6);
}

#[tokio::test]
async fn an_acknowledgement_lost_with_its_connection_is_sent_again_before_anything_else() {
    let broker = FakeBroker::start(vec![Plan { lose_ack: true, ..Plan::default() }]);
    let mut subscription = Subscription::open(config(&[broker.name()]), true, vec![Pattern::all()]);
    connected(&mut subscription).await;
    broker.append("a", "0", 0);
    broker.append("a", "1", 0);
    let first = message(&mut subscription).await;
    assert_eq!(message(&mut subscription).await.offset, Offset(1));
    subscription.ack(&first.topic, first.offset, first.partition);
    connected(&mut subscription).await;
    broker.append("a", "2", 0);
    // "1" is not acknowledged and comes again, but the caller has it.
    assert_eq!(payloads(&mut subscription, 1).await, ["2"]);
    assert_eq!(subscription.acknowledged().get(&PartitionId(0)), Some(&Offset(0)));
    let inner = broker.lock();
    let of = |start: &str| inner.lines.iter().rposition(|line| line.starts_with(start));
    assert!(of("REGISTER_CONSUMER") < of("ACK|a|0|0") && of("ACK|a|0|0") < of("SUBSCRIBE"));
}

#[tokio::test]
async fn what_runs_ahead_of_another_pattern_does_not_acknowledge_it() {
    let broker = FakeBroker::start(vec![]);
    broker.lock().positions.insert("consumer1".to_owned(), [(0, 0), (1, 0)].into());
    broker.append("b", "older", 0);
    broker.append("a", "ran ahead", 0);
    let patterns = vec![pattern("a"), pattern("b")];
    let mut subscription = Subscription::open(config(&[broker.name()]), true, patterns);
    let first = message(&mut subscription).await;
    assert_eq!(&*first.payload, b"ran ahead", "the fake answers SUBSCRIBE by SUBSCRIBE");
    subscription.ack(&first.topic, first.offset, first.partition);
    // Before it has heard of the other pattern the fake would push what is appended first.
    while !broker.lock().lines.iter().any(|line| line == "SUBSCRIBE|b") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    broker.append("a", "later", 0);
    assert_eq!(payloads(&mut subscription, 1).await, ["older"]);
    let last = message(&mut subscription).await;
    assert_eq!(&*last.payload, b"later");
    subscription.ack(&last.topic, last.offset, last.partition);
    assert!(subscription.close().await);
    let inner = broker.lock();
    let acks: Vec<&String> = inner.lines.iter().filter(|l| l.starts_with("ACK")).collect();
    assert_eq!(acks, ["ACK|a|2|0"]);
}

#[tokio::test]
async fn a_live_subscription_fetches_what_it_missed() {
    let broker = FakeBroker::start(vec![]);
    broker.append("metrics/a", "before its time", 0);
    let mut live = Subscription::open(config(&[broker.name()]), false, vec![pattern("metrics/#")]);
    connected(&mut live).await;
    broker.append("metrics/a", "pushed", 0);
    assert_eq!(payloads(&mut live, 1).await, ["pushed"]);
    broker.hang_up(true);
    // More than one fetch takes, and in both partitions.
    for n in 0..700 {
        broker.append("metrics/a", &format!("gap {n}"), 0);
        broker.append("other", "not for us", 1);
    }
    broker.append("metrics/b", "in the other partition", 1);
    broker.lock().closed = false;
    let missed = payloads(&mut live, 701).await;
    let expect: Vec<String> = (0..700).map(|n| format!("gap {n}")).collect();
    assert_eq!(missed[..700], expect);
    assert_eq!(missed[700], "in the other partition");
    broker.append("metrics/a", "pushed again", 0);
    assert_eq!(payloads(&mut live, 1).await, ["pushed again"]);
    // Much is fetched before the SUBSCRIBE, and what came in between after it.
    eventually_async("a FETCH after the second SUBSCRIBE", || {
        let inner = broker.lock();
        let mut kinds = inner.lines.iter().filter_map(|line| line.split('|').next());
        kinds.find(|kind| *kind == "SUBSCRIBE").expect("the first");
        let before = kinds.by_ref().take_while(|kind| *kind != "SUBSCRIBE");
        before.filter(|kind| *kind == "FETCH").count() >= 4 && kinds.any(|kind| kind == "FETCH")
    })
    .await;
}

#[tokio::test]
async fn a_live_subscription_under_load_misses_and_doubles_nothing() {
    let broker = std::sync::Arc::new(FakeBroker::start(vec![]));
    let patterns = vec![pattern("metrics/a"), pattern("metrics/#")];
    let mut live = Subscription::open(config(&[broker.name()]), false, patterns);
    connected(&mut live).await;
    const RECORDS: usize = 4000;
    let writer = {
        let broker = std::sync::Arc::clone(&broker);
        std::thread::spawn(move || {
            for n in 0..RECORDS {
                broker.append(
                    if n % 3 == 0 { "metrics/a" } else { "metrics/b" },
                    &n.to_string(),
                    0,
                );
                if n % 500 == 499 {
                    broker.hang_up(false);
                }
                if n % 50 == 0 {
                    // Spreads the records over the reconnections.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        })
    };
    let mut got: Vec<usize> = payloads(&mut live, RECORDS)
        .await
        .iter()
        .map(|payload| payload.parse().expect("a number"))
        .collect();
    writer.join().expect("written");
    broker.append("metrics/a", "last", 0);
    assert_eq!(payloads(&mut live, 1).await, ["last"], "and no double before it");
    got.sort_unstable();
    assert_eq!(got, (0..RECORDS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscription_fails_over_and_tells() {
    let first = FakeBroker::start(vec![]);
    let second = FakeBroker::start(vec![]);
    let brokers = [first.name(), second.name()];
    let mut live = Subscription::open(config(&brokers), false, vec![Pattern::all()]);
    assert_eq!(connected(&mut live).await.0, first.name());
    first.stop();
    match live.next().await {
        Some(SubscriptionEvent::Disconnected { reason, .. }) => {
            assert!(reason.contains("closed") || reason.contains("reset"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(connected(&mut live).await.0, second.name());
}

#[tokio::test]
async fn a_refused_acknowledgement_is_told_and_is_not_durable() {
    let broker = FakeBroker::start(vec![]);
    let mut subscription = Subscription::open(config(&[broker.name()]), true, vec![Pattern::all()]);
    connected(&mut subscription).await;
    subscription.ack(&Topic::new("a").expect("a topic"), Offset(1), PartitionId(99));
    match timeout(Duration::from_secs(10), subscription.next()).await.expect("in time") {
        Some(SubscriptionEvent::Refused(error)) => assert_eq!(error.code, ErrorCode::BadNumber),
        other => panic!("{other:?}"),
    }
    assert!(subscription.acknowledged().is_empty());
    broker.append("a", "on it goes", 0);
    assert_eq!(payloads(&mut subscription, 1).await, ["on it goes"]);
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed_without_a_question() {
    let broker = FakeBroker::start(vec![]);
    let silent = FakeBroker::start(vec![Plan { silent: true, ..Plan::default() }]);
    let mut config = config(&[silent.name(), broker.name()]);
    config.greeting_timeout = Duration::from_millis(60);
    config.request_timeout = Duration::from_millis(60);
    let mut live = Subscription::open(config, false, vec![Pattern::all()]);
    assert_eq!(connected(&mut live).await.0, broker.name());
    // An idle line is asked for a sign of life, and answers.
    eventually_async("a question on an idle line", || {
        broker.lock().lines.iter().filter(|line| *line == "CLUSTER").count() > 2
    })
    .await;
    assert_eq!(broker.lock().lines.iter().filter(|l| l.starts_with("SUBSCRIBE")).count(), 1);
    broker.append("a", "still there", 0);
    assert_eq!(payloads(&mut live, 1).await, ["still there"]);
}

#[tokio::test]
async fn a_broker_that_is_cut_off_from_its_peers_is_left_by_who_waits_for_records() {
    for persistent in [false, true] {
        let first = FakeBroker::start(vec![]);
        let second = FakeBroker::start(vec![]);
        let mut config = config(&[first.name(), second.name()]);
        config.request_timeout = Duration::from_millis(60);
        let mut live = Subscription::open(config, persistent, vec![Pattern::all()]);
        assert_eq!(connected(&mut live).await.0, first.name());
        first.lock().cut_off = true;
        assert_eq!(connected(&mut live).await.0, second.name());
        second.append("a", "it goes on here", 0);
        assert_eq!(payloads(&mut live, 1).await, ["it goes on here"]);
    }
}

#[tokio::test]
async fn a_registration_without_a_leader_is_tried_elsewhere() {
    let cut_off = FakeBroker::start(vec![]);
    cut_off.lock().cut_off = true;
    let other = FakeBroker::start(vec![]);
    let brokers = [cut_off.name(), other.name()];
    let mut live = Subscription::open(config(&brokers), true, vec![Pattern::all()]);
    match live.next().await {
        Some(SubscriptionEvent::Disconnected { reason, .. }) => {
            assert!(reason.contains("no leader"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(connected(&mut live).await.0, other.name());
}

#[tokio::test]
async fn a_slow_caller_holds_the_broker_back_and_still_acknowledges() {
    let broker = std::sync::Arc::new(FakeBroker::start(vec![]));
    let mut subscription = Subscription::open(config(&[broker.name()]), true, vec![Pattern::all()]);
    connected(&mut subscription).await;
    let payload = "x".repeat(2_000);
    for n in 0..300 {
        broker.append("a", &format!("{n} {payload}"), 0);
    }
    let first = message(&mut subscription).await;
    assert_eq!(first.offset, Offset(0));
    // The queue is full, nobody reads it, and the acknowledgement arrives all the same.
    subscription.ack(&first.topic, first.offset, first.partition);
    eventually_async("the ack arrives", || {
        broker.lock().positions["consumer1"].get(&0) == Some(&1)
    })
    .await;
    let rest = payloads(&mut subscription, 299).await;
    assert!(rest.iter().enumerate().all(|(n, p)| p.starts_with(&format!("{} ", n + 1))));
}

async fn eventually_async(what: &str, holds: impl FnMut() -> bool) {
    // The tasks of a current-thread runtime go on only while this one yields.
    let mut holds = holds;
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "not within ten seconds: {what}");
}
