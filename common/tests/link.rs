//! The blocking producer link against a broker that misbehaves: whatever happens to
//! connections, each record is stored once, in order, and answered once.

mod fake;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use aklight_common::client::ClientConfig;
use aklight_common::client::blocking::{LinkEvent, ProducerLink, WindowFull};
use aklight_common::clock::{Clock, ManualClock, SystemClock};
use aklight_common::limits::SEQUENCE_WINDOW;
use aklight_common::wire::ErrorCode;
use fake::{FakeBroker, Plan};

fn config(brokers: &[String]) -> ClientConfig {
    let mut config = ClientConfig::new(brokers.to_vec(), "producer1");
    // Quick enough for a test, and still exponential.
    config.backoff.first = Duration::from_millis(4);
    config.backoff.max = Duration::from_millis(50);
    config
}

fn link(brokers: &[String]) -> ProducerLink {
    ProducerLink::new(config(brokers), 1, SystemClock::shared())
}

/// Drives until a condition over all events so far holds.
#[track_caller]
fn drive_until(
    link: &mut ProducerLink,
    events: &mut Vec<LinkEvent>,
    mut holds: impl FnMut(&[LinkEvent], &ProducerLink) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        events.extend(link.drive());
        if holds(events, link) {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {link:?} {events:?}");
        link.wait(100);
    }
}

fn stored(events: &[LinkEvent]) -> BTreeMap<u64, (u32, u64)> {
    let mut answers = BTreeMap::new();
    for event in events {
        if let LinkEvent::Stored { sequence, offset, partition } = event {
            let before = answers.insert(*sequence, (partition.0, offset.0));
            assert_eq!(before, None, "sequence {sequence} was answered twice");
        }
    }
    answers
}

/// Sends `count` records and drives until all are answered; then checks what the broker keeps.
fn send_all(broker: &FakeBroker, link: &mut ProducerLink, count: u64) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    for n in 1..=count {
        assert_eq!(link.send("metrics/a", b"", format!("r{n}").as_bytes()), Ok(n));
    }
    drive_until(link, &mut events, |_, link| link.unanswered() == 0);
    let kept = broker.payloads();
    for (sequence, (partition, offset)) in stored(&events) {
        let payload = &kept[partition as usize][usize::try_from(offset).expect("small")];
        assert_eq!(*payload, format!("r{sequence}"), "the answer names the record's place");
    }
    events
}

fn assert_stored_once_in_order(broker: &FakeBroker, count: u64) {
    let inner = broker.lock();
    let mut all = Vec::new();
    for partition in &inner.partitions {
        let sequences: Vec<u64> = partition.iter().map(|kept| kept.sequence).collect();
        assert!(sequences.is_sorted(), "{sequences:?}");
        all.extend(sequences);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=count).collect::<Vec<_>>());
}

#[test]
fn a_dropped_connection_loses_and_doubles_nothing() {
    for swallow_last_answer in [false, true] {
        for drop_after in [1, 2, 7, 99, 100] {
            let plan =
                Plan { drop_after: Some(drop_after), swallow_last_answer, ..Plan::default() };
            let broker = FakeBroker::start(vec![plan.clone(), plan]);
            let mut link = link(&[broker.name()]);
            let events = send_all(&broker, &mut link, 100);
            assert_eq!(stored(&events).len(), 100);
            assert_stored_once_in_order(&broker, 100);
        }
    }
}

#[test]
fn after_a_drop_the_same_sequences_come_again_in_order() {
    let plan = Plan { drop_after: Some(3), swallow_last_answer: true, ..Plan::default() };
    let broker = FakeBroker::start(vec![plan]);
    let mut link = link(&[broker.name()]);
    let events = send_all(&broker, &mut link, 10);
    let again: Vec<u64> =
        broker.lock().seen.iter().filter(|(conn, _)| *conn == 2).map(|(_, s)| *s).collect();
    // The third was stored without an answer, so it is the first to come again, unless the
    // hang-up took the first answers with it (a reset throws away what was not read).
    let first = again.first().copied().expect("something came again");
    assert!(first <= 3, "{again:?}");
    assert_eq!(again, (first..=10).collect::<Vec<_>>());
    let connections = |e: &&LinkEvent| matches!(e, LinkEvent::Connected { .. });
    assert_eq!(events.iter().filter(connections).count(), 2);
    assert_stored_once_in_order(&broker, 10);
}

#[test]
fn half_an_answer_is_forgotten_with_its_connection() {
    let plan = Plan { drop_after: Some(3), halve_last_answer: true, ..Plan::default() };
    let broker = FakeBroker::start(vec![plan]);
    let mut link = link(&[broker.name()]);
    assert_eq!(stored(&send_all(&broker, &mut link, 3)).len(), 3);
    assert_eq!(broker.lock().connections, 2, "the next one began with a clean line");
}

#[test]
fn lines_may_be_cut_at_any_byte() {
    for chunk in 1..8 {
        let plan = Plan { chunk: Some(chunk), ..Plan::default() };
        let broker = FakeBroker::start(vec![plan]);
        let mut link = link(&[broker.name()]);
        assert_eq!(stored(&send_all(&broker, &mut link, 20)).len(), 20);
    }
}

#[test]
fn passing_errors_are_sent_again_and_permanent_ones_handed_over() {
    let refuse = vec![
        (2, ErrorCode::Busy),
        (3, ErrorCode::Unavailable),
        (5, ErrorCode::TooLarge),
        (9, ErrorCode::Forbidden),
    ];
    let broker = FakeBroker::start(vec![Plan { refuse, ..Plan::default() }]);
    let mut link = link(&[broker.name()]);
    let events = send_all(&broker, &mut link, 10);
    let answered: Vec<u64> = stored(&events).into_keys().collect();
    assert_eq!(answered, [1, 2, 3, 4, 6, 7, 8, 10]);
    let refused: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            LinkEvent::Refused { sequence, error } => Some((*sequence, error.code)),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [(5, ErrorCode::TooLarge), (9, ErrorCode::Forbidden)]);
    assert_eq!(broker.lock().connections, 1, "an error costs no connection");
}

#[test]
fn what_no_broker_would_take_is_refused_without_asking() {
    let broker = FakeBroker::start(vec![]);
    let mut link = link(&[broker.name()]);
    link.send("a|b\nQUIT", b"", b"x").expect("room");
    link.send("a", b"", &vec![b'|'; 600_000]).expect("room");
    link.send("a", b"k|\n", b"y\r\n|\\").expect("room");
    let mut events = Vec::new();
    drive_until(&mut link, &mut events, |events, link| {
        link.unanswered() == 0 && !stored(events).is_empty()
    });
    let codes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            LinkEvent::Refused { sequence, error } => Some((*sequence, error.code)),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [(1, ErrorCode::BadTopic), (2, ErrorCode::TooLarge)]);
    let inner = broker.lock();
    let kept = inner.partitions.iter().flatten().next().expect("the third");
    assert_eq!((kept.key.as_slice(), kept.payload.as_slice()), (&b"k|\n"[..], &b"y\r\n|\\"[..]));
}

#[test]
fn the_second_broker_is_found_when_the_first_is_gone() {
    let first = FakeBroker::start(vec![]);
    let second = FakeBroker::start(vec![]);
    let mut link = link(&[first.name(), second.name()]);
    let mut events = Vec::new();
    link.send("a", b"", b"1").expect("room");
    drive_until(&mut link, &mut events, |_, link| link.unanswered() == 0);
    first.stop();
    link.send("a", b"", b"2").expect("room");
    drive_until(&mut link, &mut events, |_, link| link.unanswered() == 0);
    let brokers: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            LinkEvent::Connected { broker } => Some(broker.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(brokers, [first.name(), second.name()]);
    assert_eq!(second.lock().seen, [(1, 2)], "only what was unanswered");
}

#[test]
fn a_silent_broker_is_left_after_the_request_timeout() {
    let silent = FakeBroker::start(vec![Plan { silent_for_records: true, ..Plan::default() }]);
    let other = FakeBroker::start(vec![]);
    let mut config = config(&[silent.name(), other.name()]);
    config.request_timeout = Duration::from_millis(80);
    let clock = SystemClock::shared();
    let mut link = ProducerLink::new(config, 1, clock);
    link.send("a", b"", b"1").expect("room");
    let mut events = Vec::new();
    let started = Instant::now();
    drive_until(&mut link, &mut events, |_, link| link.unanswered() == 0);
    assert!(started.elapsed() >= Duration::from_millis(80));
    let timed_out = |event: &LinkEvent| matches!(event, LinkEvent::Disconnected { reason, .. } if reason.contains("did not answer"));
    assert!(events.iter().any(timed_out), "{events:?}");
    assert_eq!(other.lock().seen.len(), 1);
}

#[test]
fn a_broker_that_takes_connections_and_says_nothing_is_left_after_the_greeting() {
    let silent = FakeBroker::start(vec![Plan { silent: true, ..Plan::default() }]);
    let other = FakeBroker::start(vec![]);
    let mut config = config(&[silent.name(), other.name()]);
    config.greeting_timeout = Duration::from_millis(80);
    config.request_timeout = Duration::from_secs(3600);
    let mut link = ProducerLink::new(config, 1, SystemClock::shared());
    link.send("a", b"", b"1").expect("room");
    drive_until(&mut link, &mut Vec::new(), |_, link| link.unanswered() == 0);
    assert_eq!(other.lock().seen.len(), 1);
}

/// Drives on a clock that this thread turns, until a condition holds.
#[track_caller]
fn turn_until(
    link: &mut ProducerLink,
    clock: &ManualClock,
    mut holds: impl FnMut(&ProducerLink) -> bool,
) -> Vec<LinkEvent> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut events = Vec::new();
    while !holds(link) {
        assert!(Instant::now() < deadline, "not in time: {link:?} {events:?}");
        clock.advance_us(10_000);
        events.extend(link.drive());
        link.wait(1);
    }
    events
}

#[test]
fn a_broker_that_finds_no_leader_is_asked_again_and_then_left() {
    let cut_off = FakeBroker::start(vec![Plan { leaderless: true, ..Plan::default() }]);
    let other = FakeBroker::start(vec![]);
    let clock = ManualClock::at(0);
    let config = config(&[cut_off.name(), other.name()]);
    let mut link = ProducerLink::new(config, 1, clock.clone());
    for _ in 0..20 {
        link.send("a", b"", b"x").expect("room");
    }
    let events = turn_until(&mut link, &clock, |link| link.unanswered() == 0);
    let lost = events.iter().find_map(|event| match event {
        LinkEvent::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let lost = lost.expect("it was left");
    assert!(lost.contains("unavailable: no leader"), "{lost}");
    let first = cut_off.lock().seen.iter().filter(|(_, sequence)| *sequence == 1).count();
    assert!(first > 5, "asked again meanwhile, {first} times");
    assert!(clock.monotonic_ms() >= 3000, "an election has its time");
    assert_stored_once_in_order(&other, 20);
}

/// What is logged while `act` runs on this thread, without times.
fn logged(act: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one thread").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let text = String::from_utf8(written.0.lock().expect("one thread").clone()).expect("text");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_change_an_outage_and_its_end_are_one_line_each() {
    let mut brokers: Vec<_> = (0..3).map(|_| FakeBroker::start(vec![])).collect();
    let names: Vec<_> = brokers.iter().map(FakeBroker::name).collect();
    let clock = ManualClock::at(0);
    let mut link = ProducerLink::new(config(&names), 1, clock.clone());
    let lines = logged(|| {
        let send = |link: &mut ProducerLink| {
            link.send("a", b"", b"x").expect("room");
            turn_until(link, &clock, |link| link.unanswered() == 0);
        };
        send(&mut link);
        brokers[0].stop();
        send(&mut link);
        send(&mut link);
        for broker in &brokers {
            broker.lock().cut_off = true;
        }
        brokers[2].stop();
        link.send("a", b"", b"x").expect("room");
        let until_ms = clock.monotonic_ms() + 60_000;
        turn_until(&mut link, &clock, |_| clock.monotonic_ms() > until_ms);
        brokers[1].lock().cut_off = false;
        send(&mut link);
    });
    brokers.clear();
    let [a, b, c] = names.as_slice() else { panic!("three") };
    assert_eq!(lines[0], format!("INFO connected to {a}"));
    assert!(lines[1].starts_with(&format!("WARN now at {b}, because {a} failed: ")), "{lines:?}");
    let outage = &lines[2];
    assert!(
        outage.starts_with("WARN no broker serves (") && outage.contains("no leader"),
        "{lines:?}"
    );
    assert!([a, b, c].iter().all(|name| outage.contains(*name)), "{lines:?}");
    assert_eq!(lines[3..], [format!("INFO back at {b}")], "{lines:?}");
}

#[test]
fn no_more_than_the_window_is_unanswered() {
    let mut link = link(&["127.0.0.1:1".to_owned()]);
    for n in 0..SEQUENCE_WINDOW {
        assert_eq!(link.send("a", b"", b"x"), Ok(n + 1));
    }
    assert_eq!(link.send("a", b"", b"x"), Err(WindowFull));
    assert_eq!(link.send_with(7, "a", b"", b"x"), Ok(()), "that one is on its way already");
    assert_eq!(link.unanswered() as u64, SEQUENCE_WINDOW);
    assert_eq!(link.next_sequence(), SEQUENCE_WINDOW + 1);
    // A few long records fill the memory set aside before they fill the window.
    let mut link = self::link(&["127.0.0.1:1".to_owned()]);
    let sent = (0..200).take_while(|_| link.send("a", b"", &vec![b'x'; 1 << 19]).is_ok()).count();
    assert!((100..=128).contains(&sent), "{sent}");
}

#[test]
fn a_full_window_drains_through_a_broker_that_keeps_hanging_up() {
    let plan = |n: usize| Plan { drop_after: Some(n * 300), ..Plan::default() };
    let broker = FakeBroker::start((1..6).map(plan).collect());
    let mut link = link(&[broker.name()]);
    send_all(&broker, &mut link, SEQUENCE_WINDOW);
    assert_stored_once_in_order(&broker, SEQUENCE_WINDOW);
}

#[test]
fn spooled_records_go_first_and_keep_their_sequences() {
    let broker = FakeBroker::start(vec![]);
    let mut link = ProducerLink::new(config(&[broker.name()]), 8, SystemClock::shared());
    assert_eq!(link.send("a", b"", b"new"), Ok(8));
    for sequence in [5, 7] {
        link.send_with(sequence, "a", b"", b"old").expect("room");
    }
    let mut events = Vec::new();
    drive_until(&mut link, &mut events, |_, link| link.unanswered() == 0);
    assert_eq!(stored(&events).into_keys().collect::<Vec<_>>(), [5, 7, 8]);
    assert_eq!(broker.lock().seen, [(1, 5), (1, 7), (1, 8)]);
    assert_eq!(link.next_sequence(), 9);
}

#[test]
fn attempts_wait_longer_and_longer_by_the_clock_that_was_passed_in() {
    // A port that was free a moment ago and refuses.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let clock = ManualClock::at(0);
    let mut config = ClientConfig::new(vec![address.to_string()], "p");
    config.backoff.first = Duration::from_millis(100);
    let mut link = ProducerLink::new(config, 1, clock.clone());
    let mut waits = Vec::new();
    while waits.len() < 40 {
        let due_ms = link.next_wake_ms().expect("an idle link has a time to dial");
        let early = due_ms.saturating_sub(clock.monotonic_ms() + 1);
        clock.advance_us(early * 1000);
        assert!(clock.monotonic_ms() >= due_ms || link.drive().is_empty(), "not before its time");
        clock.advance_us(due_ms.saturating_sub(clock.monotonic_ms()) * 1000);
        // The refusal itself arrives by the kernel, not by our clock.
        fake::eventually("refused", || {
            let refused = link.drive().into_iter().find_map(|event| match event {
                LinkEvent::Disconnected { retry_in_ms, .. } => Some(retry_in_ms),
                _ => None,
            });
            waits.extend(refused);
            refused.is_some()
        });
    }
    assert!(waits[0] <= 100, "{waits:?}");
    assert!(waits.iter().all(|w| *w <= 5000), "{waits:?}");
    let late: Vec<u64> = waits[10..].to_vec();
    assert!(late.iter().any(|w| *w > 1000) && late.iter().max() != late.iter().min(), "{waits:?}");
}

#[test]
fn a_port_where_something_else_answers_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("sent");
        stream
    });
    let mut link = link(&[address]);
    let mut events = Vec::new();
    drive_until(&mut link, &mut events, |events, _| !events.is_empty());
    let LinkEvent::Disconnected { reason, .. } = &events[0] else { panic!("{events:?}") };
    assert!(reason.contains("not a line of the AKLight protocol"), "{reason}");
    drop(server.join());
}
