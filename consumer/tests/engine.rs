//! The engine, step by step: what is kept, what is told, and in which order.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use aklight_common::client::Message;
use aklight_common::{Offset, PartitionId, Topic};
use aklight_consumer::alerts::dead::DeadLetters;
use aklight_consumer::alerts::store::Store;
use aklight_consumer::alerts::{Announcement, Memory};
use aklight_consumer::engine::{Engine, Parts, Telephones};
use aklight_consumer::notify::console::{Console, Output};
use aklight_consumer::notify::whatsapp::{Event, Order};
use aklight_consumer::rules::{Book, file};
use tokio::sync::mpsc;

const NOW_MS: u64 = 1_795_229_527_000;
const CPU: &str = "metrics/docker/web/cpu";
const RULES: &str = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/cpu"
fire = "> 80"
repeat = "30s"

[[rule]]
name = "telephone-only"
match = "metrics/docker/+/memory"
fire = "> 80"
notify = ["whatsapp"]
"#;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An engine with everything around it caught.
struct Stage {
    engine: Engine,
    out: Kept,
    orders: mpsc::Receiver<Order>,
    announcements: mpsc::Receiver<Announcement>,
}

impl Stage {
    fn open(folder: &Path) -> Self {
        let (store, memory) = Store::open(folder, "c1", NOW_MS).expect("opened");
        Self::with(folder, Some(store), memory)
    }

    fn with(folder: &Path, store: Option<Store>, memory: Memory) -> Self {
        let out = Kept::default();
        let plain = anstream::StripStream::new(Box::new(out.clone()) as Box<dyn Write + Send>);
        let (orders_in, orders) = mpsc::channel(256);
        let (announcements_in, announcements) = mpsc::channel(1024);
        let parts = Parts {
            book: Book::new(file::parse(Path::new("test"), RULES).expect("right")),
            memory,
            store,
            dead: DeadLetters::of(folder),
            console: Console::new(Box::new(plain), Output::Text, true),
            telephones: Some(Telephones {
                to: vec!["whatsapp:+34600000089".to_owned()],
                orders: orders_in,
            }),
            announcements: announcements_in,
        };
        Self { engine: Engine::new(parts, NOW_MS), out, orders, announcements }
    }

    fn sample(&mut self, topic: &str, offset: u64, age_ms: u64, value: f64) {
        let payload =
            format!("{{\"ts\":{},\"value\":{value},\"unit\":\"percent\"}}", NOW_MS - age_ms);
        self.payload(topic, offset, payload.as_bytes());
    }

    fn payload(&mut self, topic: &str, offset: u64, payload: &[u8]) {
        let message = Message {
            topic: Topic::new(topic).expect("a topic"),
            offset: Offset(offset),
            partition: PartitionId(0),
            key: b"k"[..].to_vec().into(),
            payload: payload.to_vec().into(),
        };
        self.engine.on_message(&message, NOW_MS);
    }

    fn printed(&self) -> String {
        String::from_utf8(self.out.0.lock().expect("a lock").clone()).expect("text")
    }

    fn rung(&mut self) -> Vec<Order> {
        std::iter::from_fn(|| self.orders.try_recv().ok()).collect()
    }

    fn announced(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.announcements.try_recv().ok()).map(|a| a.sequence).collect()
    }
}

#[test]
fn nothing_is_told_and_nothing_acknowledged_before_it_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample(CPU, 7, 0, 90.0);
    assert!(stage.engine.is_urgent());
    assert_eq!(stage.printed(), "");
    assert!(stage.rung().is_empty());
    let acknowledged = stage.engine.commit(NOW_MS);
    assert_eq!(acknowledged, [(Topic::new(CPU).expect("a topic"), Offset(7), PartitionId(0))]);
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
    assert_eq!(stage.rung().len(), 1);
    assert_eq!(stage.announced(), [1]);
    assert!(stage.engine.commit(NOW_MS).is_empty());
    assert!(stage.rung().is_empty() && stage.announced().is_empty());
}

/// What a crash between writing and telling leaves behind.
#[test]
fn what_was_written_and_not_told_is_told_by_the_next_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, mut memory) = Store::open(folder.path(), "c1", NOW_MS).expect("opened");
    drop(store);
    let mut first = Stage::with(folder.path(), None, memory.clone());
    first.sample(CPU, 0, 0, 90.0);
    first.engine.commit(NOW_MS);
    let order = first.rung().remove(0);
    // As it stood in the file when the process was killed.
    memory.notify(aklight_consumer::alerts::Destination::Console, order.notice.alert.clone());
    memory.notify(order.notice.destination.clone(), order.notice.alert.clone());
    memory.announcements.push(first.announcements.try_recv().expect("one"));
    memory.next_sequence = 2;
    let (store, _) = Store::open(folder.path(), "c1", NOW_MS).expect("opened");
    store.write(&memory).expect("written");
    drop(store);

    let mut second = Stage::open(folder.path());
    assert_eq!(second.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
    let rung = second.rung();
    assert!(rung.len() == 1 && rung[0].maybe_sent, "to be looked up first: {rung:?}");
    assert_eq!(second.announced(), [1], "with its old sequence");
    second.engine.on_event(Event::Delivered { id: rung[0].notice.id }, NOW_MS);
    second.engine.on_announced(1);
    second.engine.commit(NOW_MS);
    drop(second);

    let mut third = Stage::open(folder.path());
    assert_eq!((third.printed().as_str(), third.rung().len(), third.announced().len()), ("", 0, 0));
}

#[test]
fn a_state_that_cannot_be_written_silences_no_alert_and_acknowledges_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    // The write goes beside the file first: something stands in its way.
    let in_the_way = folder.path().join("c1.offsets.new");
    std::fs::create_dir(&in_the_way).expect("made");
    stage.sample(CPU, 0, 0, 90.0);
    assert!(stage.engine.commit(NOW_MS).is_empty());
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
    std::fs::remove_dir(&in_the_way).expect("removed");
    assert_eq!(stage.engine.commit(NOW_MS).len(), 1, "told once it is written");
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
}

#[test]
fn a_backlog_is_shown_and_rings_no_telephone_until_a_fresh_sample() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample(CPU, 0, 600_000, 90.0);
    stage.engine.commit(NOW_MS);
    assert!(stage.printed().contains("(late sample)"), "{}", stage.printed());
    assert!(stage.rung().is_empty());
    stage.sample(CPU, 1, 0, 91.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.rung().len(), 1);
    assert_eq!(stage.announced(), [1], "one change of state, recorded once");
    assert_eq!(stage.printed().lines().count(), 1);
}

#[test]
fn what_cannot_be_delivered_is_kept_and_shown_by_the_next_channel() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample("metrics/docker/web/memory", 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.printed(), "", "this rule is for the telephone only");
    let id = stage.rung()[0].notice.id;
    stage.engine.on_event(Event::Dead { id, reason: "code 63016".to_owned() }, NOW_MS);
    stage.engine.commit(NOW_MS);
    let printed = stage.printed();
    assert!(printed.contains("63016") && printed.contains("aklight alerts retry"), "{printed}");
    assert!(printed.contains("whatsapp:+34*******89"), "{printed}");
    assert_eq!(printed.matches("*** THRESHOLD EXCEEDED ***").count(), 1, "{printed}");
    let letters = DeadLetters::of(folder.path()).take().expect("letters");
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "code 63016"));
    drop(stage);
    assert!(Stage::open(folder.path()).rung().is_empty(), "it is not sent by itself again");
}

#[test]
fn what_was_processed_is_skipped_and_what_is_broken_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.payload(CPU, 4, b"nonsense");
    stage.sample(CPU, 5, 0, 90.0);
    stage.engine.commit(NOW_MS);
    stage.sample(CPU, 4, 0, 10.0);
    stage.sample(CPU, 5, 0, 10.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.printed().lines().count(), 1, "{}", stage.printed());
    let behind = stage.engine.behind(&[(PartitionId(0), Offset(3)), (PartitionId(1), Offset(3))]);
    assert_eq!(behind, [(PartitionId(0), Offset(3), Offset(6))]);
}

#[test]
fn consumers_do_not_judge_alerts_and_an_alert_with_too_long_a_topic_is_told_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample("alerts/hot/metrics/docker/web/cpu", 0, 0, 99.0);
    let long = format!("metrics/docker/{}/cpu", "x".repeat(235));
    stage.sample(&long, 1, 0, 99.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.printed().lines().count(), 1);
    assert_eq!((stage.rung().len(), stage.announced().len()), (1, 0));
}

#[test]
fn reminders_and_silence_wait_for_a_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    stage.engine.on_tick(NOW_MS + 40_000);
    stage.engine.commit(NOW_MS + 40_000);
    assert_eq!(stage.printed().lines().count(), 1, "not connected");
    stage.engine.watch(Some(NOW_MS));
    stage.engine.on_tick(NOW_MS + 40_000);
    stage.engine.commit(NOW_MS + 40_000);
    assert_eq!(stage.printed().lines().count(), 2);
    assert!(stage.printed().contains("is 90.0 %, limit > 80, for 40s now"), "{}", stage.printed());
    assert_eq!(stage.announced(), [1], "a reminder is no change");
}

#[test]
fn other_rules_keep_the_state_of_those_that_keep_their_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample(CPU, 0, 0, 90.0);
    stage.sample("metrics/docker/web/memory", 1, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let only_hot = RULES.split("[[rule]]").take(2).collect::<Vec<_>>().join("[[rule]]");
    stage.engine.replace_rules(file::parse(Path::new("test"), &only_hot).expect("right"));
    stage.sample(CPU, 2, 0, 50.0);
    stage.sample("metrics/docker/web/memory", 3, 0, 50.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.printed().matches("--- RESOLVED ---").count(), 1, "{}", stage.printed());
    assert_eq!(stage.rung().len(), 3, "two fired, one resolved");
}
