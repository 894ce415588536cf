//! The engine, step by step: what is kept, what is told, and in which order.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use aklight_common::client::Message;
use aklight_common::{Offset, PartitionId, Topic};
use aklight_consumer::alerts::dead::DeadLetters;
use aklight_consumer::alerts::store::Store;
use aklight_consumer::alerts::{Alert, Announcement, Destination, Memory, Notice};
use aklight_consumer::engine::adopting::Left;
use aklight_consumer::engine::{Engine, Outlet, Parts};
use aklight_consumer::notify::console::{Console, Output};
use aklight_consumer::notify::sender::{Event, Order};
use aklight_consumer::rules::{Book, Channel, Kind, Rules, file};
use serde_json::Value;
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
    /// As a consumer that is started again at another time.
    fn at(folder: &Path, rules: &str, now_ms: u64) -> Self {
        let (store, memory) = Store::open(folder, "c1", now_ms).expect("opened");
        let rules = file::parse(Path::new("test"), rules).expect("right");
        Self::started(folder, Some(store), memory, rules, 0, vec![anna()], now_ms).begun(now_ms)
    }

    fn open(folder: &Path) -> Self {
        let (store, memory) = Store::open(folder, "c1", NOW_MS).expect("opened");
        Self::with(folder, Some(store), memory)
    }

    fn with(folder: &Path, store: Option<Store>, memory: Memory) -> Self {
        let rules = file::parse(Path::new("test"), RULES).expect("right");
        Self::started(folder, store, memory, rules, 0, vec![anna()], NOW_MS).begun(NOW_MS)
    }

    fn by(folder: &Path, rules: &str, group_wait_ms: u64) -> Self {
        let (store, memory) = Store::open(folder, "c1", NOW_MS).expect("opened");
        let rules = file::parse(Path::new("test"), rules).expect("right");
        let stage =
            Self::started(folder, Some(store), memory, rules, group_wait_ms, vec![anna()], NOW_MS);
        stage.begun(NOW_MS)
    }

    /// With these recipients of mails.
    fn mailing(folder: &Path, rules: &str, mails: Vec<Destination>) -> Self {
        Self::waiting(folder, rules, mails).begun(NOW_MS)
    }

    /// Whose turn it is not yet.
    fn waiting(folder: &Path, rules: &str, mails: Vec<Destination>) -> Self {
        let (store, memory) = Store::open(folder, "c1", NOW_MS).expect("opened");
        let rules = file::parse(Path::new("test"), rules).expect("right");
        Self::started(folder, Some(store), memory, rules, 0, mails, NOW_MS)
    }

    fn started(
        folder: &Path,
        store: Option<Store>,
        memory: Memory,
        rules: Rules,
        group_wait_ms: u64,
        mails: Vec<Destination>,
        now_ms: u64,
    ) -> Self {
        let out = Kept::default();
        let plain = anstream::StripStream::new(Box::new(out.clone()) as Box<dyn Write + Send>);
        let (orders_in, orders) = mpsc::channel(256);
        let (announcements_in, announcements) = mpsc::channel(1024);
        let parts = Parts {
            book: Book::new(rules.list),
            quiet: rules.quiet,
            group_wait_ms,
            memory,
            store,
            dead: DeadLetters::of(folder),
            console: Console::new(Box::new(plain), Output::Text, true),
            outlets: vec![
                Outlet {
                    channel: Channel::WhatsApp,
                    destinations: vec![Destination::WhatsApp {
                        to: "whatsapp:+34600000089".to_owned(),
                    }],
                    orders: orders_in.clone(),
                },
                Outlet { channel: Channel::Email, destinations: mails, orders: orders_in },
            ],
            announcements: announcements_in,
        };
        Self { engine: Engine::new(parts, now_ms), out, orders, announcements }
    }

    fn begun(mut self, now_ms: u64) -> Self {
        self.engine.begin(now_ms);
        self
    }

    fn sample(&mut self, topic: &str, offset: u64, age_ms: u64, value: f64) {
        let payload =
            format!("{{\"ts\":{},\"value\":{value},\"unit\":\"percent\"}}", NOW_MS - age_ms);
        self.payload(topic, offset, payload.as_bytes());
    }

    fn sample_at(&mut self, topic: &str, offset: u64, now_ms: u64, value: f64) {
        let payload = format!("{{\"ts\":{now_ms},\"value\":{value},\"unit\":\"percent\"}}");
        self.payload_at(topic, offset, payload.as_bytes(), now_ms);
    }

    fn payload(&mut self, topic: &str, offset: u64, payload: &[u8]) {
        self.payload_at(topic, offset, payload, NOW_MS);
    }

    fn payload_at(&mut self, topic: &str, offset: u64, payload: &[u8], now_ms: u64) {
        let message = Message {
            topic: Topic::new(topic).expect("a topic"),
            offset: Offset(offset),
            partition: PartitionId(0),
            key: b"k"[..].to_vec().into(),
            payload: payload.to_vec().into(),
        };
        self.engine.on_message(&message, now_ms);
    }

    fn printed(&self) -> String {
        String::from_utf8(self.out.0.lock().expect("a lock").clone()).expect("text")
    }

    fn rung(&mut self) -> Vec<Order> {
        std::iter::from_fn(|| self.orders.try_recv().ok()).collect()
    }

    /// Lets what rang since arrive; gives back how many messages that were.
    fn deliver(&mut self, now_ms: u64) -> usize {
        let rung = self.rung();
        for order in &rung {
            self.engine.on_event(Event::Delivered { id: order.notice.id, arrived: true }, now_ms);
        }
        self.engine.commit(now_ms);
        rung.len()
    }

    /// The numbers of what was recorded since.
    fn announced(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.announcements.try_recv().ok()).map(|a| a.sequence).collect()
    }

    /// The states (of alerts) or statuses (of deliveries) recorded since, under topics that begin
    /// so; the others are dropped.
    fn recorded(&mut self, prefix: &str) -> Vec<String> {
        let records = self.records(prefix);
        let said = |record: &Value| {
            let said = record.get("status").unwrap_or(&record["state"]);
            said.as_str().expect("text").to_owned()
        };
        records.iter().map(said).collect()
    }

    fn records(&mut self, prefix: &str) -> Vec<Value> {
        std::iter::from_fn(|| self.announcements.try_recv().ok())
            .filter(|announcement| announcement.topic.starts_with(prefix))
            .map(|announcement| serde_json::from_str(&announcement.payload).expect("JSON"))
            .collect()
    }
}

fn anna() -> Destination {
    Destination::Email { to: "anna@example.org".to_owned() }
}

fn ben() -> Destination {
    Destination::Email { to: "ben@example.org".to_owned() }
}

#[test]
fn nothing_is_told_and_nothing_acknowledged_before_it_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample(CPU, 7, 0, 90.0);
    assert!(stage.engine.is_urgent());
    assert_eq!(stage.printed(), "");
    assert!(stage.rung().is_empty());
    assert!(stage.engine.commit(NOW_MS).is_empty(), "before it is recorded");
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
    assert_eq!(stage.rung().len(), 2, "a telephone and a mail");
    assert_eq!(stage.recorded("alerts/"), ["firing"]);
    stage.engine.on_announced(2);
    stage.sample("metrics/docker/web/network", 8, 0, 90.0);
    assert!(stage.engine.commit(NOW_MS).is_empty(), "nor before all of it is");
    stage.engine.on_announced(3);
    let acknowledged = stage.engine.commit(NOW_MS);
    assert_eq!(acknowledged, [(Topic::new(CPU).expect("a topic"), Offset(7), PartitionId(0))]);
    assert_eq!(stage.engine.commit(NOW_MS).len(), 1, "what came in meanwhile");
    assert!(stage.engine.commit(NOW_MS).is_empty());
    assert!(stage.rung().is_empty() && stage.recorded("alerts/").is_empty());
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
    memory.notify(Notice::new(0, Destination::Console, order.notice.alert.clone()));
    memory.notify(order.notice.clone());
    memory
        .announcements
        .push_back(Announcement { sequence: 1, ..first.announcements.try_recv().expect("one") });
    memory.next_sequence = 2;
    let (store, _) = Store::open(folder.path(), "c1", NOW_MS).expect("opened");
    store.write(&memory).expect("written");
    drop(store);

    let mut second = Stage::open(folder.path());
    assert_eq!(second.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
    let rung = second.rung();
    assert!(rung.len() == 1 && rung[0].maybe_sent, "to be looked up first: {rung:?}");
    assert_eq!(second.announced(), [1], "with its old sequence");
    second.engine.on_event(Event::Delivered { id: rung[0].notice.id, arrived: true }, NOW_MS);
    second.engine.on_announced(2);
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
    stage.engine.on_announced(3);
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
    assert_eq!(stage.rung().len(), 2);
    let told: Vec<_> = stage.records("alerts/").iter().map(|r| r["told"].as_bool()).collect();
    assert_eq!(told, [Some(false), Some(true)], "recorded again when the telephone hears of it");
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
    assert_eq!((stage.rung().len(), stage.recorded("alerts/").len()), (2, 0));
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
    assert_eq!(stage.recorded("alerts/"), ["firing"], "a reminder is no change");
}

fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: Topic::new(topic).expect("a topic"),
        offset: Offset(0),
        partition: PartitionId(0),
        key: b"k"[..].to_vec().into(),
        payload: payload.as_bytes().to_vec().into(),
    }
}

/// The machine of the other consumer died, and took producers with it that it had heard of.
#[test]
fn who_takes_over_misses_what_the_other_one_had_heard_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = "[[rule]]\nname = \"silent\"\nmatch = \"metrics/docker/+/cpu\"\nabsent = \"30s\"";
    let mut stage = Stage::by(folder.path(), silent, 0);
    let absent = ",\"aklight.alert.absent\":\"10s\"";
    let gone = info(absent).replace("\"value\":1", "\"value\":0");
    let told = |topic: &str| {
        let record = format!(
            "{{\"ts\":1,\"state\":\"firing\",\"rule\":\"silent\",\"topic\":\"{topic}\",\"consumer\":\"c1\"}}"
        );
        message(&format!("alerts/silent/{topic}"), &record)
    };
    let heard = [
        "metrics/docker/host2/cpu",
        "metrics/docker/host3/cpu",
        "metrics/docker/host2/web/state",
        "metrics/docker/host2/old/state",
        "metrics/docker/host2/db/state",
    ];
    let left = Left {
        infos: vec![
            message("info/docker/host2/web", &info(absent)),
            message("info/docker/host2/db", &info("")),
            message("info/docker/host2/old", &gone),
        ],
        heard: heard.iter().map(|topic| Topic::new(topic).expect("a topic")).collect(),
        alerts: vec![told("metrics/docker/host3/cpu")],
        ..Left::default()
    };
    stage.engine.adopt(&left, NOW_MS);
    stage.engine.watch(Some(NOW_MS));
    stage.engine.on_tick(NOW_MS + 9_000);
    stage.engine.commit(NOW_MS + 9_000);
    assert_eq!(stage.recorded("alerts/"), [""; 0]);
    stage.engine.on_tick(NOW_MS + 31_000);
    stage.engine.commit(NOW_MS + 31_000);
    let recorded = stage.records("alerts/");
    let missed: Vec<_> = recorded.iter().map(|record| record["topic"].as_str()).collect();
    assert_eq!(missed, [Some("metrics/docker/host2/cpu"), Some("metrics/docker/host2/web/state")]);
}

/// Whether who takes over from `first`, all of whose messages went through, rings at `later`.
fn rings_after_a_takeover(first: &mut Stage, rules: &str, later: u64) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let mut second = Stage::by(folder.path(), rules, 0);
    second.engine.adopt(&left(first), NOW_MS);
    second.sample_at(CPU, 0, later, 91.0);
    second.engine.commit(later);
    !second.rung().is_empty()
}

#[test]
fn who_takes_over_tells_what_was_withheld_and_only_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let later = NOW_MS + 60_000;
    // NOW_MS is 02:52:07 UTC.
    let quiet = format!("[quiet]\nfrom = \"02:00\"\nto = \"02:53\"\nzone = \"UTC\"\n{RULES}");
    let mut stage = Stage::by(folder.path(), &quiet, 0);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    assert!(stage.rung().is_empty(), "withheld");
    assert!(rings_after_a_takeover(&mut stage, &quiet, later), "nobody was told in the night");
    stage.sample_at(CPU, 1, later, 90.0);
    stage.engine.commit(later);
    assert_eq!(stage.deliver(later), 2, "told in the morning");
    assert!(!rings_after_a_takeover(&mut stage, &quiet, later), "told once");

    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let until = NOW_MS + 50_000;
    let mute = format!(
        "{{\"action\":\"mute\",\"rule\":\"+\",\"match\":\"#\",\"by\":\"a\",\"until\":{until}}}"
    );
    stage.payload("actions/alerts", 1, mute.as_bytes());
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.deliver(NOW_MS), 2, "told before it was muted");
    assert!(!rings_after_a_takeover(&mut stage, RULES, later), "told before");
}

/// All that is stored of what a stage recorded since.
fn left(stage: &mut Stage) -> Left {
    let mut left = Left::default();
    for announcement in std::iter::from_fn(|| stage.announcements.try_recv().ok()) {
        let message = message(&announcement.topic, &announcement.payload);
        if announcement.topic.starts_with("deliveries/") {
            left.deliveries.push(message);
        } else {
            left.alerts.retain(|known| known.topic != message.topic);
            left.alerts.push(message);
        }
    }
    left
}

/// The machine of the other consumer is gone with all that waited there to be told.
#[test]
fn who_takes_over_tells_what_was_never_said_to_be_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = Stage::by(folder.path(), RULES, 5_000);
    first.sample(CPU, 0, 0, 90.0);
    first.sample("metrics/docker/db/cpu", 1, 0, 90.0);
    first.engine.commit(NOW_MS + 5_000);
    let lost = first.rung();
    let (telephone, mail) = (&lost[0].notice, &lost[1].notice);
    // The mail is out, and the first of the two alerts is over meanwhile.
    first.engine.on_event(Event::Delivered { id: mail.id, arrived: false }, NOW_MS);
    first.sample_at(CPU, 2, NOW_MS + 6_000, 10.0);
    first.engine.commit(NOW_MS + 6_000);
    let left = left(&mut first);
    assert_eq!(left.alerts.len(), 2);

    let folder = tempfile::tempdir().expect("another");
    let mut second = Stage::by(folder.path(), RULES, 5_000);
    second.engine.adopt(&left, NOW_MS + 30_000);
    second.engine.commit(NOW_MS + 30_000);
    let rung = second.rung();
    let told: Vec<_> = rung
        .iter()
        .map(|Order { notice, maybe_sent }| {
            let alerts = notice.alerts().map(|a| (a.topic.as_str(), a.state()));
            (notice.destination.channel(), *maybe_sent, alerts.collect::<Vec<_>>())
        })
        .collect();
    let (over, firing) = ((CPU, "ok"), ("metrics/docker/db/cpu", "firing"));
    let expect = [
        (Channel::WhatsApp, true, vec![firing]),
        (Channel::WhatsApp, true, vec![over]),
        (Channel::Email, true, vec![over]),
    ];
    assert_eq!(told, expect, "the mail about what fires is out");
    let again = &rung[0].notice;
    assert_eq!((again.id, again.reference("c1")), (telephone.id, telephone.reference("c1")));
    let said = aklight_consumer::notify::message::what(&again.alert);
    assert_eq!(said, "metrics/docker/db/cpu is 90.0 %, limit > 80");
    // Numbers go on: nothing new is taken for what the other one told.
    second.sample_at("metrics/docker/new/cpu", 3, NOW_MS + 30_000, 90.0);
    second.engine.commit(NOW_MS + 35_000);
    let known: Vec<_> = lost.iter().chain(&rung).map(|order| order.notice.id).collect();
    let new = second.rung();
    assert!(new.len() == 2 && new.iter().all(|order| !known.contains(&order.notice.id)), "{new:?}");
    // A third one finds it all told.
    for order in rung.iter().chain(&new) {
        second.engine.on_event(Event::Delivered { id: order.notice.id, arrived: true }, NOW_MS);
    }
    second.engine.commit(NOW_MS + 35_000);
    let mut all = self::left(&mut second);
    all.alerts.extend(left.alerts);
    all.deliveries.extend(left.deliveries);
    let mut third = Stage::by(tempfile::tempdir().expect("a third").path(), RULES, 5_000);
    third.engine.adopt(&all, NOW_MS + 60_000);
    third.engine.commit(NOW_MS + 60_000);
    assert_eq!(third.rung().len(), 0);
}

/// It died with a mail that was not out and records that were not stored; another one told both, and
/// the end as well.
#[test]
fn who_comes_back_tells_nothing_that_another_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = Stage::mailing(folder.path(), BY_MAIL, vec![anna()]);
    first.sample(CPU, 0, 0, 90.0);
    first.sample("metrics/docker/db/cpu", 1, 0, 90.0);
    first.engine.commit(NOW_MS);
    assert_eq!(first.rung().len(), 2);
    let mut left = left(&mut first);
    // Nobody but itself knows of the second.
    left.alerts.pop();
    left.deliveries.pop();
    drop(first);
    let other = tempfile::tempdir().expect("another");
    let mut second = Stage::mailing(other.path(), BY_MAIL, vec![anna()]);
    second.engine.adopt(&left, NOW_MS + 30_000);
    second.sample_at(CPU, 2, NOW_MS + 30_000, 10.0);
    for _ in 0..2 {
        second.engine.commit(NOW_MS + 30_000);
        for order in second.rung() {
            let id = order.notice.id;
            second.engine.on_event(Event::Delivered { id, arrived: false }, NOW_MS + 30_000);
        }
    }
    let told = self::left(&mut second);
    left.alerts = told.alerts;
    left.deliveries.extend(told.deliveries);
    assert_eq!(
        left.deliveries.len(),
        4,
        "each of two mails queued and sent: {:?}",
        left.deliveries
    );

    let mut back = Stage::waiting(folder.path(), BY_MAIL, vec![anna()]);
    back.engine.commit(NOW_MS + 60_000);
    assert_eq!((back.rung().len(), back.recorded("").len()), (0, 0), "it is not its turn");
    back.engine.adopt(&left, NOW_MS + 60_000);
    back.engine.begin(NOW_MS + 60_000);
    back.engine.commit(NOW_MS + 60_000);
    assert_eq!(back.rung().len(), 0);
    // Its records keep their numbers, and say what has become of the alerts and the mails.
    assert_eq!(back.recorded(""), ["sent", "ok", "failed", "ok"]);
}

/// The other one died before it told the broker what it had processed.
#[test]
fn what_the_broker_sends_again_after_a_takeover_rings_no_second_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = Stage::open(folder.path());
    for (offset, value) in [(0, 90.0), (1, 50.0)] {
        first.sample(CPU, offset, 0, value);
    }
    first.engine.commit(NOW_MS);
    assert_eq!(first.deliver(NOW_MS), 4);
    let mut second = Stage::open(tempfile::tempdir().expect("another").path());
    second.engine.adopt(&left(&mut first), NOW_MS);
    for (offset, value) in [(0, 90.0), (1, 50.0)] {
        second.sample(CPU, offset, 0, value);
    }
    second.engine.commit(NOW_MS);
    assert_eq!((second.rung().len(), second.recorded("alerts/").len()), (0, 0));
}

/// A channel had failed for good, and the next one had not told it yet.
#[test]
fn who_takes_over_tells_what_was_on_its_way_by_the_fallback() {
    let rules = RULES.replace("notify", "fallback = [\"email\"]\nnotify");
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = Stage::by(folder.path(), &rules, 0);
    first.sample("metrics/docker/web/memory", 0, 0, 90.0);
    first.engine.commit(NOW_MS);
    let id = first.rung()[0].notice.id;
    first.engine.on_event(Event::Dead { id, reason: "code 63016".to_owned() }, NOW_MS);
    first.engine.commit(NOW_MS);
    let mut second = Stage::by(tempfile::tempdir().expect("another").path(), &rules, 0);
    second.engine.adopt(&left(&mut first), NOW_MS + 30_000);
    second.engine.commit(NOW_MS + 30_000);
    let rung = second.rung();
    assert_eq!(rung.len(), 1, "{rung:?}");
    assert_eq!(rung[0].notice.destination, anna());
}

/// A channel was in trouble, and the next one had told it.
#[test]
fn who_takes_over_tries_on_what_was_delayed_and_tells_no_fallback_again() {
    let rules = RULES.replace("notify", "fallback = [\"email\"]\nnotify");
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = Stage::by(folder.path(), &rules, 0);
    first.sample("metrics/docker/web/memory", 0, 0, 90.0);
    first.engine.commit(NOW_MS);
    let late = first.rung()[0].notice.id;
    let held_up = |id| Event::HeldUp { id, reason: "429".to_owned() };
    first.engine.on_event(held_up(late), NOW_MS);
    first.engine.commit(NOW_MS + 1);
    let by_mail = first.rung()[0].notice.id;
    first.engine.on_event(Event::Delivered { id: by_mail, arrived: true }, NOW_MS + 1);
    first.engine.commit(NOW_MS + 1);
    let mut second = Stage::by(tempfile::tempdir().expect("another").path(), &rules, 0);
    second.engine.adopt(&left(&mut first), NOW_MS + 30_000);
    second.engine.commit(NOW_MS + 30_000);
    let rung = second.rung();
    assert_eq!(rung.len(), 1, "{rung:?}");
    assert_eq!(rung[0].notice.destination.channel(), Channel::WhatsApp);
    second.engine.on_event(held_up(rung[0].notice.id), NOW_MS + 90_000);
    second.engine.commit(NOW_MS + 90_001);
    assert_eq!(second.rung().len(), 0);
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
    assert_eq!(stage.rung().len(), 5, "two fired, one resolved, one of them by mail too");
}

const WEB: &str = "metrics/docker/p/web/memory";

fn info(labels: &str) -> String {
    format!("{{\"ts\":{NOW_MS},\"value\":1,\"unit\":\"present\",\"id\":\"abc\"{labels}}}")
}

const GENERAL: &str = r#"
[[rule]]
name = "container-memory"
match = "metrics/docker/+/+/memory"
fire = "> 95"
severity = "critical"
"#;

#[test]
fn a_containers_label_is_a_rule_for_it_alone_as_long_as_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::by(folder.path(), GENERAL, 0);
    let labels = r#","aklight.alert.memory":"> 50 clear < 40","aklight.alert.notify":"email""#;
    stage.payload("info/docker/p/web", 0, info(labels).as_bytes());
    stage.sample(WEB, 1, 0, 60.0);
    stage.sample("metrics/docker/p/db/memory", 2, 0, 60.0);
    stage.engine.commit(NOW_MS);
    let rung = stage.rung();
    assert_eq!(rung.len(), 1, "{rung:?}");
    assert_eq!(rung[0].notice.destination, anna());
    assert_eq!(rung[0].notice.alert.rule, "label-memory");
    assert_eq!(rung[0].notice.alert.limit, "> 50");
    // It is firing, and the consumer is started again before the container says anything.
    drop(stage);
    let mut stage = Stage::by(folder.path(), GENERAL, 0);
    stage.sample(WEB, 3, 0, 45.0);
    stage.sample(WEB, 4, 0, 99.0);
    stage.engine.commit(NOW_MS);
    assert!(stage.rung().iter().all(|order| order.maybe_sent), "it fires already");
    stage.payload("info/docker/p/web", 5, format!("{{\"ts\":{NOW_MS},\"value\":0}}").as_bytes());
    stage.engine.commit(NOW_MS);
    let file = std::fs::read_to_string(folder.path().join("c1.offsets")).expect("a file");
    let listed: Vec<_> = file.lines().filter(|line| line.starts_with("topic|")).collect();
    assert_eq!(listed, ["topic|metrics/docker/p/db/memory|0|2"]);
    let rung = stage.rung();
    assert_eq!(rung.len(), 1, "{rung:?}");
    assert_eq!(rung[0].notice.alert.reason, "the container was removed");
    // Another one of that name, without a label: the general rule.
    stage.payload("info/docker/p/web", 6, info("").as_bytes());
    stage.sample(WEB, 7, 0, 60.0);
    stage.sample(WEB, 8, 0, 96.0);
    stage.engine.commit(NOW_MS);
    let rung = stage.rung();
    assert_eq!(rung.len(), 2, "{rung:?}");
    assert_eq!(rung[0].notice.alert.rule, "container-memory");
}

/// A container without limits of its own that is worth waking somebody.
#[test]
fn labels_of_severity_and_channels_count_for_the_general_rules_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = GENERAL.replace("critical", "info");
    let mut stage = Stage::by(folder.path(), &rules, 0);
    let labels = r#","aklight.alert.severity":"critical","aklight.alert.notify":"email""#;
    // Before and after its first sample; and of another container, nothing is changed.
    stage.payload("info/docker/p/web", 0, info(labels).as_bytes());
    stage.sample("metrics/docker/p/db/memory", 1, 0, 60.0);
    stage.payload("info/docker/p/db", 2, info(labels).as_bytes());
    for (n, container) in (3..).zip(["web", "db", "other"]) {
        stage.sample(&format!("metrics/docker/p/{container}/memory"), n, 0, 99.0);
    }
    stage.engine.commit(NOW_MS);
    let told: Vec<_> = stage
        .rung()
        .into_iter()
        .map(|Order { notice, .. }| {
            let severity = notice.alert.severity.as_str();
            (notice.alert.topic, severity, notice.destination.channel())
        })
        .collect();
    let topic = |container: &str| format!("metrics/docker/p/{container}/memory");
    let expect = [
        (topic("web"), "critical", Channel::Email),
        (topic("db"), "critical", Channel::Email),
        (topic("other"), "info", Channel::WhatsApp),
        (topic("other"), "info", Channel::Email),
    ];
    assert_eq!(told, expect);
    // The labels go while it fires: it is the same alert, and rings as every other.
    stage.payload("info/docker/p/web", 6, info("").as_bytes());
    stage.sample(WEB, 7, 0, 10.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.rung().len(), 2);
}

#[test]
fn a_label_that_says_off_silences_the_general_rule_and_a_wrong_one_leaves_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::by(folder.path(), GENERAL, 0);
    stage.payload("info/docker/p/web", 0, info(r#","aklight.alert.memory":"off""#).as_bytes());
    stage.payload("info/docker/p/db", 1, info(r#","aklight.alert.memory":"90""#).as_bytes());
    stage.sample(WEB, 2, 0, 99.0);
    stage.sample("metrics/docker/p/db/memory", 3, 0, 99.0);
    stage.engine.commit(NOW_MS);
    let topics: Vec<_> = stage.rung().into_iter().map(|o| o.notice.alert.topic).collect();
    assert_eq!(topics, ["metrics/docker/p/db/memory"; 2]);
    // The label goes while it would fire: the general rule is in force again.
    stage.payload("info/docker/p/web", 4, info("").as_bytes());
    stage.sample(WEB, 5, 0, 99.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.rung().len(), 2);
}

#[test]
fn a_container_killed_for_memory_rings_with_its_exit_code_and_its_last_minute() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = r#"
[[rule]]
name = "container-failed"
match = "metrics/docker/+/+/state"
field = "failed"
fire = "== 1"
"#;
    let mut stage = Stage::by(folder.path(), rules, 0);
    let die = r#"{"ts":1795229527000,"value":1,"unit":"event","event":"die","image":"x","restarts":2,
        "exit_code":137,"oom_killed":1,"failed":1,"last_cpu":[1,50,99],"last_memory":[20,60,99.6],"last_ts":1795229526000}"#;
    stage.payload("events/docker/p/web", 0, die.as_bytes());
    let state = r#"{"ts":1795229527000,"value":0,"unit":"state","state":"exited","health":"none","exit_code":137,"oom_killed":1,"failed":1}"#;
    stage.payload("metrics/docker/p/web/state", 1, state.as_bytes());
    stage.engine.commit(NOW_MS);
    let expect = "metrics/docker/p/web/state: failed == 1; exit code 137, killed for memory, \
                  2 restarts; cpu ▁▅█ 99.0 %, memory ▂▅█ 99.6 %";
    assert!(stage.printed().contains(expect), "{}", stage.printed());
    assert_eq!(stage.records("alerts/")[0]["text"], expect);
    assert_eq!(stage.rung()[0].notice.alert.context.split(',').next(), Some("exit code 137"));
}

/// A minute around the limit, at a sample a second: one message, and one end.
#[test]
fn a_value_that_hovers_around_the_threshold_rings_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/cpu"
fire = "> 80"
clear = "< 70"
for = "5s"
notify = ["whatsapp"]
"#;
    let mut stage = Stage::by(folder.path(), rules, 0);
    stage.engine.watch(Some(NOW_MS));
    let mut rung = Vec::new();
    for second in 0..=70_u64 {
        let value =
            if second > 60 { 50.0 } else { [80.1, 81.0, 79.9, 80.2][second as usize / 10 % 2 * 2] };
        // Wavers within each ten seconds' mood as well.
        let value = if second <= 60 && second % 7 == 6 { 79.5 } else { value };
        let now_ms = NOW_MS + second * 1000;
        let payload = format!("{{\"ts\":{now_ms},\"value\":{value}}}");
        let message = Message {
            topic: Topic::new(CPU).expect("a topic"),
            offset: Offset(second),
            partition: PartitionId(0),
            key: b"k"[..].to_vec().into(),
            payload: payload.into_bytes().into(),
        };
        stage.engine.on_message(&message, now_ms);
        stage.engine.on_tick(now_ms);
        stage.engine.commit(now_ms);
        rung.extend(stage.rung().into_iter().map(|order| order.notice.alert.kind));
    }
    use aklight_consumer::rules::Kind;
    assert_eq!(rung, [Kind::Fired, Kind::Resolved]);
}

#[test]
fn what_fires_together_is_one_message_and_the_console_waits_for_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::by(folder.path(), GENERAL, 5_000);
    for n in 0..60 {
        stage.sample(&format!("metrics/docker/p/web{n}/memory"), n, 0, 99.0);
    }
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.printed().lines().count(), 60);
    assert!(stage.rung().is_empty(), "they wait for each other");
    stage.engine.commit(NOW_MS + 4_999);
    assert!(stage.rung().is_empty());
    // Killed meanwhile: nothing is lost, and it goes when it is due.
    drop(stage);
    let mut stage = Stage::by(folder.path(), GENERAL, 5_000);
    assert!(stage.rung().is_empty(), "not due yet at the first run's time");
    stage.engine.commit(NOW_MS + 5_000);
    let rung = stage.rung();
    let counts: Vec<_> = rung.iter().map(|order| order.notice.alerts().count()).collect();
    // Fifty fit into one message; a telephone and a mail.
    assert_eq!(counts, [50, 50, 10, 10]);
    assert_eq!(stage.recorded("deliveries/c1/email"), ["queued", "queued"], "a record a message");
}

#[test]
fn what_is_acknowledged_reminds_nobody_until_it_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.engine.watch(Some(NOW_MS));
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    stage.rung();
    let ack = r#"{"ts":1,"action":"acknowledge","rule":"hot","match":"metrics/docker/web/#","by":"anna"}"#;
    stage.payload("actions/alerts", 1, ack.as_bytes());
    stage.engine.commit(NOW_MS);
    let records = stage.records("alerts/");
    assert_eq!(records.last().expect("one")["acknowledged_by"], "anna");
    stage.engine.on_tick(NOW_MS + 40_000);
    stage.engine.commit(NOW_MS + 40_000);
    assert!(stage.rung().is_empty(), "no reminder");
    // Neither after a restart; but its end is told, and the next one reminds again.
    drop(stage);
    let mut stage = Stage::open(folder.path());
    stage.engine.watch(Some(NOW_MS));
    stage.engine.on_tick(NOW_MS + 80_000);
    stage.engine.commit(NOW_MS + 80_000);
    assert!(stage.rung().iter().all(|order| order.maybe_sent), "no reminder");
    stage.sample(CPU, 2, 0, 10.0);
    stage.sample(CPU, 3, 0, 90.0);
    stage.engine.on_tick(NOW_MS + 120_000);
    stage.engine.commit(NOW_MS + 120_000);
    assert_eq!(stage.rung().len(), 6, "over, firing, reminded; by telephone and mail");
}

#[test]
fn what_is_muted_wakes_nobody_and_is_told_at_the_end_if_it_still_is_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    let until = NOW_MS + 60_000;
    let mute = format!(
        r#"{{"ts":1,"action":"mute","rule":"+","match":"metrics/docker/#","by":"anna","until":{until}}}"#
    );
    stage.payload("actions/alerts", 0, mute.as_bytes());
    stage.sample(CPU, 1, 0, 90.0);
    stage.sample("metrics/docker/other/cpu", 2, 0, 90.0);
    stage.engine.commit(NOW_MS);
    assert!(stage.rung().is_empty());
    assert_eq!(stage.printed().lines().count(), 2, "the console shows it all the same");
    assert_eq!(stage.records("alerts/")[0]["muted_until"], until);
    stage.sample("metrics/docker/other/cpu", 3, 0, 10.0);
    drop(stage);
    let mut stage = Stage::open(folder.path());
    stage.engine.on_tick(until);
    stage.sample_at(CPU, 4, until, 90.0);
    stage.sample_at("metrics/docker/other/cpu", 5, until, 10.0);
    stage.engine.commit(until);
    let topics: Vec<_> = stage.rung().into_iter().map(|o| o.notice.alert.topic).collect();
    assert_eq!(topics, [CPU; 2], "what is over needs no message");
}

#[test]
fn the_end_of_what_has_no_more_samples_is_told_when_the_mute_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::by(folder.path(), GENERAL, 0);
    stage.sample(WEB, 0, 0, 99.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.rung().len(), 2);
    let until = NOW_MS + 60_000;
    let mute =
        format!(r##"{{"action":"mute","rule":"+","match":"#","by":"anna","until":{until}}}"##);
    stage.payload("actions/alerts", 1, mute.as_bytes());
    stage.payload("info/docker/p/web", 2, format!("{{\"ts\":{NOW_MS},\"value\":0}}").as_bytes());
    stage.engine.commit(NOW_MS);
    assert!(stage.rung().is_empty(), "muted");
    assert_eq!(stage.printed().matches("--- RESOLVED ---").count(), 1);
    stage.engine.on_tick(until);
    stage.engine.commit(until);
    let told = stage.rung().into_iter().map(|order| order.notice.alert.reason);
    assert_eq!(told.collect::<Vec<_>>(), ["the container was removed"; 2]);
}

/// A mute of an hour, taken back after some seconds.
#[test]
fn an_unmute_brings_forward_an_end_and_a_reminder_that_waited_for_the_mute() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::by(folder.path(), &format!("{RULES}{GENERAL}"), 0);
    stage.engine.watch(Some(NOW_MS));
    stage.sample(CPU, 0, 0, 90.0);
    stage.sample(WEB, 1, 0, 99.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.deliver(NOW_MS), 4);
    let until = NOW_MS + 3_600_000;
    let mute =
        format!(r##"{{"action":"mute","rule":"+","match":"#","by":"anna","until":{until}}}"##);
    stage.payload("actions/alerts", 2, mute.as_bytes());
    stage.payload("info/docker/p/web", 3, format!("{{\"ts\":{NOW_MS},\"value\":0}}").as_bytes());
    // A reminder is due every 30 s: the console shows it all the same, and once.
    for second in [30, 31, 32] {
        stage.engine.on_tick(NOW_MS + second * 1000);
        stage.engine.commit(NOW_MS + second * 1000);
    }
    assert!(stage.rung().is_empty(), "muted");
    assert_eq!(stage.printed().matches("for 30s now").count(), 1, "{}", stage.printed());
    // It survives a restart.
    drop(stage);
    let now_ms = NOW_MS + 33_000;
    let mut stage = Stage::at(folder.path(), &format!("{RULES}{GENERAL}"), now_ms);
    stage.engine.watch(Some(now_ms));
    let unmute = br##"{"action":"unmute","rule":"+","match":"#","by":"anna"}"##;
    stage.payload_at("actions/alerts", 4, unmute, now_ms);
    for second in 33..60 {
        stage.engine.on_tick(NOW_MS + second * 1000);
        stage.engine.commit(NOW_MS + second * 1000);
    }
    let told = |stage: &mut Stage| {
        let rung = stage.rung().into_iter();
        rung.map(|order| (order.notice.alert.topic, order.notice.alert.at_ms)).collect::<Vec<_>>()
    };
    let rung = told(&mut stage);
    let (end, reminder) = ((WEB.to_owned(), NOW_MS), (CPU.to_owned(), now_ms));
    assert_eq!(rung, [end.clone(), end, reminder.clone(), reminder], "each once, at once");
    // The next reminder comes when it would have come.
    stage.engine.on_tick(NOW_MS + 60_000);
    stage.engine.commit(NOW_MS + 60_000);
    assert_eq!(told(&mut stage).len(), 2);
}

const HOUR_MS: u64 = 3_600_000;

/// Summer time that somebody set by hand: everything goes on as if nothing had been set.
#[test]
fn a_clock_that_is_set_back_holds_nothing_and_one_set_forward_hurries_nothing() {
    let rules = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/cpu"
fire = "> 80"
for = "10s"
repeat = "30s"

[[rule]]
name = "grown"
match = "metrics/docker/+/restarts"
fire = "> 2"
increase = "1m"
"#;
    let rules = format!("{rules}{}", ABSENT.replace("/cpu", "/memory"));
    for (back, restarted) in [(true, false), (true, true), (false, false)] {
        let case = format!("back: {back}, restarted: {restarted}");
        let folder = tempfile::tempdir().expect("a folder");
        let mut stage = Stage::by(folder.path(), &rules, 0);
        stage.engine.watch(Some(NOW_MS));
        stage.sample(CPU, 0, 0, 90.0);
        stage.sample("metrics/docker/web/memory", 1, 0, 50.0);
        stage.sample("metrics/docker/web/restarts", 2, 0, 0.0);
        stage.sample_at("metrics/docker/web/restarts", 3, NOW_MS + 5_000, 5.0);
        stage.sample_at(CPU, 4, NOW_MS + 5_000, 90.0);
        stage.engine.commit(NOW_MS + 5_000);
        assert_eq!(stage.recorded("alerts/"), ["pending", "firing"], "{case}");
        let set = |ms: u64| if back { ms - HOUR_MS } else { ms + HOUR_MS };
        if restarted {
            drop(stage);
            stage = Stage::at(folder.path(), &rules, set(NOW_MS + 5_000));
            stage.engine.watch(Some(set(NOW_MS + 5_000)));
            stage.recorded("");
        } else {
            let by_ms = i64::try_from(HOUR_MS).expect("small");
            stage.engine.clock_set(if back { -by_ms } else { by_ms }, set(NOW_MS + 5_000));
        }
        let (mut seen, mut reminders) = (Vec::new(), 0);
        for second in 6..=66 {
            let now_ms = set(NOW_MS + second * 1000);
            stage.sample_at(CPU, 2 * second, now_ms, 90.0);
            stage.sample_at("metrics/docker/web/restarts", 2 * second + 1, now_ms, 5.0);
            stage.engine.on_tick(now_ms);
            stage.engine.commit(now_ms);
            for record in stage.records("alerts/") {
                let text = |name: &str| record[name].as_str().expect("text").to_owned();
                seen.push((second, format!("{} {}", text("rule"), text("state"))));
            }
            let said = stage.printed().matches("s now").count();
            if std::mem::replace(&mut reminders, said) < said {
                seen.push((second, "reminder".to_owned()));
            }
        }
        let seen: Vec<_> = seen.iter().map(|(second, what)| (*second, what.as_str())).collect();
        // A clock that is set forward breaks a run of samples: nobody knows what was between.
        let fires = if back { 10 } else { 16 };
        // One that is started again has listened since then only.
        let silent = if restarted { 35 } else { 30 };
        let mut expect = vec![
            (fires, "hot firing"),
            (silent, "silent firing"),
            (fires + 30, "reminder"),
            (65, "grown ok"),
        ];
        if !back {
            // So it does with growth within a window.
            expect.retain(|(_, what)| *what != "grown ok");
            expect.insert(0, (6, "grown ok"));
        }
        assert_eq!(seen, expect, "{case}");
    }
}

#[test]
fn an_unmute_takes_the_mute_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    let until = NOW_MS + 60_000;
    let mute =
        format!(r##"{{"action":"mute","rule":"hot","match":"#","by":"a","until":{until}}}"##);
    stage.payload("actions/alerts", 0, mute.as_bytes());
    stage.payload(
        "actions/alerts",
        1,
        br##"{"action":"unmute","rule":"hot","match":"#","by":"a"}"##,
    );
    stage.payload("actions/alerts", 2, b"nonsense");
    stage.sample(CPU, 3, 0, 90.0);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.rung().len(), 2);
}

#[test]
fn in_quiet_hours_only_the_worst_rings_and_the_rest_is_told_together_in_the_morning() {
    let folder = tempfile::tempdir().expect("a folder");
    // NOW_MS is 02:52:07 UTC.
    let rules = r#"
[quiet]
from = "02:00"
to = "02:53"
zone = "UTC"
except = ["critical"]

[[rule]]
name = "bad"
match = "metrics/docker/+/cpu"
fire = "> 80"
notify = ["whatsapp"]

[[rule]]
name = "worst"
match = "metrics/docker/+/memory"
fire = "> 80"
severity = "critical"
notify = ["whatsapp"]
"#;
    let mut stage = Stage::by(folder.path(), rules, 5_000);
    stage.sample("metrics/docker/a/cpu", 0, 0, 90.0);
    stage.sample("metrics/docker/b/cpu", 1, 0, 90.0);
    stage.sample("metrics/docker/a/memory", 2, 0, 90.0);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 5_000);
    let rung = stage.rung();
    assert_eq!((rung.len(), rung[0].notice.alert.rule.as_str()), (1, "worst"));
    let morning = NOW_MS + 60_000;
    stage.sample_at("metrics/docker/a/cpu", 3, morning, 91.0);
    stage.sample_at("metrics/docker/b/cpu", 4, morning, 91.0);
    stage.engine.commit(morning);
    stage.engine.commit(morning + 5_000);
    let rung = stage.rung();
    assert_eq!((rung.len(), rung[0].notice.alerts().count()), (1, 2));
}

#[test]
fn what_became_of_a_message_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let rung = stage.rung();
    let (telephone, mail) = (rung[0].notice.id, rung[1].notice.id);
    stage.engine.on_event(Event::Accepted { id: telephone, sid: "SM1".to_owned() }, NOW_MS);
    stage.engine.on_event(Event::Delivered { id: telephone, arrived: true }, NOW_MS);
    stage.engine.on_event(Event::Delivered { id: mail, arrived: false }, NOW_MS);
    stage.engine.commit(NOW_MS);
    let records = stage.records("deliveries/c1/");
    let of = |id: u64| {
        let id = format!("c1-{id}");
        let of = records.iter().filter(move |record| record["id"] == id.as_str());
        of.map(|record| record["status"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(telephone), ["queued", "sent", "delivered"]);
    assert_eq!(of(mail), ["queued", "sent"]);
    assert_eq!((&records[0]["rule"], &records[0]["state"]), (&"hot".into(), &"firing".into()));
}

#[test]
fn a_channel_that_fails_falls_back_to_the_next_that_is_set_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/cpu"
fire = "> 80"
notify = ["whatsapp"]
fallback = ["webhook", "email"]
"#;
    let mut stage = Stage::by(folder.path(), rules, 0);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let id = stage.rung()[0].notice.id;
    stage.engine.on_event(Event::Dead { id, reason: "code 63016".to_owned() }, NOW_MS);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    let rung = stage.rung();
    assert_eq!(rung.len(), 1, "the webhook is not set up: {rung:?}");
    assert_eq!(rung[0].notice.destination, anna());
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 0);
    let records = stage.records("deliveries/c1/whatsapp");
    assert_eq!(records.last().expect("one")["reason"], "code 63016");
    // The mail fails as well: the console is the last.
    let id = rung[0].notice.id;
    stage.engine.on_event(Event::Dead { id, reason: "refused".to_owned() }, NOW_MS);
    stage.engine.commit(NOW_MS);
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
}

const BY_MAIL: &str = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/cpu"
fire = "> 80"
notify = ["email"]
fallback = ["whatsapp"]
"#;

/// An alarm must reach somebody while a channel is out; and once is enough, for all who were to be
/// told by it, however each of their messages ends.
#[test]
fn a_channel_that_is_held_up_falls_back_once_and_is_tried_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::mailing(folder.path(), BY_MAIL, vec![anna(), ben()]);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let mails: Vec<_> = stage.rung().iter().map(|order| order.notice.id).collect();
    assert_eq!(mails.len(), 2);
    let held_up = |id| Event::HeldUp { id, reason: "refused".to_owned() };
    stage.engine.on_event(held_up(mails[0]), NOW_MS);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    let rung = stage.rung();
    assert_eq!(rung.len(), 1, "{rung:?}");
    let telephone = rung[0].notice.id;
    assert_eq!(rung[0].notice.destination.channel(), Channel::WhatsApp);
    stage.engine.on_event(Event::Delivered { id: telephone, arrived: true }, NOW_MS);
    // Known to the next run as well.
    stage.engine.commit(NOW_MS + 2);
    let records = stage.records("deliveries/c1/email");
    drop(stage);
    let mut stage = Stage::mailing(folder.path(), BY_MAIL, vec![anna(), ben()]);
    assert_eq!(stage.rung().len(), 2, "tried on");
    stage.engine.on_event(held_up(mails[1]), NOW_MS);
    stage.engine.on_event(Event::Dead { id: mails[0], reason: "too old".to_owned() }, NOW_MS);
    stage.engine.on_event(Event::Delivered { id: mails[1], arrived: false }, NOW_MS);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    assert!(stage.rung().is_empty(), "the telephone rang already");
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 0);
    let records = [records, stage.records("deliveries/c1/email")].concat();
    let told = |to: &str| {
        let of = records.iter().filter(move |record| record["to"] == to);
        of.map(|record| record["status"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    // What the broker did not confirm before is recorded under the same sequences again.
    assert_eq!(without_repeats(told("anna@example.org")), ["queued", "delayed", "failed"]);
    assert_eq!(without_repeats(told("ben@example.org")), ["queued", "delayed", "sent"]);
}

fn without_repeats(mut all: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    all.retain(|one| seen.insert(one.clone()));
    all
}

/// Whoever was told that it fires is told that it is over, by whatever way; and by the fallback once,
/// though the mail cannot tell the end either.
#[test]
fn who_was_told_instead_is_told_the_end_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::mailing(folder.path(), BY_MAIL, vec![anna()]);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let mail = stage.rung()[0].notice.id;
    let held_up = |id| Event::HeldUp { id, reason: "refused".to_owned() };
    stage.engine.on_event(held_up(mail), NOW_MS);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    let telephone = stage.rung()[0].notice.id;
    for id in [telephone, mail] {
        stage.engine.on_event(Event::Delivered { id, arrived: true }, NOW_MS);
    }
    stage.engine.commit(NOW_MS + 2);
    // Known to the next run as well.
    drop(stage);
    let mut stage = Stage::mailing(folder.path(), BY_MAIL, vec![anna()]);
    stage.sample(CPU, 1, 0, 10.0);
    stage.engine.commit(NOW_MS);
    let rung = stage.rung();
    let told: Vec<_> = rung
        .iter()
        .map(|order| (order.notice.destination.channel(), order.notice.alert.kind))
        .collect();
    assert_eq!(told, [(Channel::Email, Kind::Resolved), (Channel::WhatsApp, Kind::Resolved)]);
    stage.engine.on_event(Event::Delivered { id: rung[1].notice.id, arrived: true }, NOW_MS);
    stage.engine.on_event(held_up(rung[0].notice.id), NOW_MS);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    assert!(stage.rung().is_empty(), "the telephone knows it");
    // The next time mails go through: it is no matter of the telephone.
    stage.sample(CPU, 2, 0, 90.0);
    stage.engine.commit(NOW_MS);
    stage.sample(CPU, 3, 0, 10.0);
    stage.engine.commit(NOW_MS);
    assert!(stage.rung().iter().all(|it| it.notice.destination.channel() == Channel::Email));
}

/// It was over before the fallback told of it: that tells both, for the mail may be back before the
/// end is held up as well.
#[test]
fn what_was_over_soon_is_told_instead_with_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::mailing(folder.path(), BY_MAIL, vec![anna()]);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    stage.sample(CPU, 1, 0, 10.0);
    stage.engine.commit(NOW_MS);
    let mails: Vec<_> = stage.rung().iter().map(|order| order.notice.id).collect();
    assert_eq!(mails.len(), 2);
    for (mail, told) in mails.into_iter().zip([vec![Kind::Fired, Kind::Resolved], vec![]]) {
        let held_up = Event::HeldUp { id: mail, reason: "refused".to_owned() };
        stage.engine.on_event(held_up, NOW_MS);
        stage.engine.commit(NOW_MS);
        stage.engine.commit(NOW_MS + 1);
        assert_eq!(by_telephone(&stage.rung()), told);
    }
}

/// What the telephone has told, in order.
fn by_telephone(rung: &[Order]) -> Vec<Kind> {
    let telephone = rung.iter().filter(|it| it.notice.destination.channel() == Channel::WhatsApp);
    telephone.flat_map(|order| order.notice.alerts()).map(|alert| alert.kind).collect()
}

/// Its end was withheld, so that nobody heard of it; the next one is the first that is told.
#[test]
fn who_was_told_instead_is_told_the_end_that_is_told_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::mailing(folder.path(), BY_MAIL, vec![anna()]);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let id = stage.rung()[0].notice.id;
    stage.engine.on_event(Event::HeldUp { id, reason: "refused".to_owned() }, NOW_MS);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    assert_eq!(by_telephone(&stage.rung()), [Kind::Fired]);
    let order = |action: &str, until: u64| {
        format!(
            r#"{{"ts":1,"action":"{action}","rule":"+","match":"metrics/#","by":"b","until":{until}}}"#
        )
    };
    stage.payload("actions/alerts", 1, order("mute", NOW_MS + 60_000).as_bytes());
    for (offset, value) in [(2, 10.0), (3, 90.0)] {
        stage.sample(CPU, offset, 0, value);
        stage.engine.commit(NOW_MS + 2);
    }
    stage.payload("actions/alerts", 4, order("unmute", 0).as_bytes());
    for (offset, value) in [(5, 90.0), (6, 10.0)] {
        stage.sample(CPU, offset, 0, value);
        stage.engine.commit(NOW_MS + 3);
    }
    assert_eq!(by_telephone(&stage.rung()), [Kind::Resolved]);
}

#[test]
fn who_takes_over_tells_the_end_to_whom_the_fallback_told() {
    let mut first = Stage::mailing(tempfile::tempdir().expect("one").path(), BY_MAIL, vec![anna()]);
    first.sample(CPU, 0, 0, 90.0);
    first.engine.commit(NOW_MS);
    let mail = first.rung()[0].notice.id;
    first.engine.on_event(Event::HeldUp { id: mail, reason: "refused".to_owned() }, NOW_MS);
    first.engine.commit(NOW_MS);
    first.engine.commit(NOW_MS + 1);
    let telephone = first.rung()[0].notice.id;
    for id in [telephone, mail] {
        first.engine.on_event(Event::Delivered { id, arrived: true }, NOW_MS + 1);
    }
    first.engine.commit(NOW_MS + 1);
    let folder = tempfile::tempdir().expect("another");
    let mut second = Stage::mailing(folder.path(), BY_MAIL, vec![anna()]);
    second.engine.adopt(&left(&mut first), NOW_MS + 30_000);
    second.engine.commit(NOW_MS + 30_000);
    assert_eq!(by_telephone(&second.rung()), []);
    second.sample_at(CPU, 1, NOW_MS + 40_000, 10.0);
    second.engine.commit(NOW_MS + 40_000);
    assert_eq!(by_telephone(&second.rung()), [Kind::Resolved]);
}

/// Where there is no other channel, whoever looks at the console sees it.
#[test]
fn what_is_held_up_without_a_fallback_is_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = BY_MAIL.replace("fallback", "# fallback");
    let mut stage = Stage::mailing(folder.path(), &rules, vec![anna(), ben()]);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    for order in stage.rung() {
        let id = order.notice.id;
        stage.engine.on_event(Event::HeldUp { id, reason: "refused".to_owned() }, NOW_MS);
        stage.engine.on_event(Event::Dead { id, reason: "too old".to_owned() }, NOW_MS);
    }
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
    assert!(stage.printed().contains("held up (refused)"), "{}", stage.printed());
}

/// By a channel that the rule tells by anyway, people know it already; and a second channel that
/// fails is no second reason to tell the third.
#[test]
fn a_fallback_tells_nobody_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let by_all = BY_MAIL.replace("notify = [\"email\"]", "");
    let mut stage = Stage::mailing(folder.path(), &by_all, vec![anna()]);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    let rung = stage.rung();
    let (telephone, mail) = (rung[0].notice.id, rung[1].notice.id);
    stage.engine.on_event(Event::Delivered { id: telephone, arrived: true }, NOW_MS);
    stage.engine.on_event(Event::Dead { id: mail, reason: "refused".to_owned() }, NOW_MS);
    stage.engine.commit(NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    assert!(stage.rung().is_empty(), "the telephone rang already");
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
    // Two channels that fail one after the other, and no third: the console once.
    drop(stage);
    let folder = tempfile::tempdir().expect("a folder");
    let both = BY_MAIL.replace("[\"email\"]", "[\"email\", \"whatsapp\"]");
    let mut stage = Stage::mailing(folder.path(), &both, vec![anna()]);
    stage.sample(CPU, 0, 0, 90.0);
    stage.engine.commit(NOW_MS);
    for order in stage.rung() {
        let id = order.notice.id;
        stage.engine.on_event(Event::Dead { id, reason: "refused".to_owned() }, NOW_MS);
        stage.engine.commit(NOW_MS);
    }
    stage.engine.commit(NOW_MS + 1);
    assert!(stage.rung().is_empty());
    assert_eq!(stage.printed().matches("*** THRESHOLD EXCEEDED ***").count(), 1);
}

#[test]
fn a_channel_that_is_out_takes_no_room_from_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = file::parse(Path::new("test"), BY_MAIL).expect("right");
    let memory = Memory::new("c1", NOW_MS);
    let stage = Stage::started(folder.path(), None, memory, rules, 0, vec![anna()], NOW_MS);
    let mut stage = stage.begun(NOW_MS);
    // As many as may wait, and each has its own message.
    for n in 0..256 {
        stage.sample(&format!("metrics/docker/m{n}/cpu"), n, 0, 90.0);
        stage.engine.commit(NOW_MS);
    }
    let rung = stage.rung();
    assert_eq!(rung.len(), 256);
    let id = rung[0].notice.id;
    stage.engine.on_event(Event::HeldUp { id, reason: "refused".to_owned() }, NOW_MS);
    stage.engine.commit(NOW_MS + 1);
    assert_eq!(stage.rung().len(), 1, "the telephone: {}", stage.printed());
}

/// A mail was for all recipients once.
#[test]
fn a_file_of_before_has_its_mails_sent_to_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, mut memory) = Store::open(folder.path(), "c1", NOW_MS).expect("opened");
    let all: Destination = serde_json::from_str(r#"{"channel":"email"}"#).expect("as it stood");
    let id = memory.notify(Notice::new(0, all, Alert::example()));
    store.write(&memory).expect("written");
    drop(store);
    let mut stage = Stage::mailing(folder.path(), BY_MAIL, vec![anna(), ben()]);
    let rung = stage.rung();
    let to: Vec<_> = rung.iter().map(|order| order.notice.destination.clone()).collect();
    assert_eq!(to, [anna(), ben()]);
    assert!(rung[0].notice.id == id && rung[1].notice.id > id, "{rung:?}");
}

const ABSENT: &str = r#"
[[rule]]
name = "silent"
match = "metrics/docker/+/cpu"
absent = "30s"
"#;

/// A rule that is new to a topic does not take it for silent since 1970; silence from now on is.
#[test]
fn a_new_rule_on_a_topic_that_is_known_counts_silence_from_when_it_was_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let general = format!("{RULES}{GENERAL}");
    let mut stage = Stage::by(folder.path(), &general, 0);
    stage.engine.watch(Some(NOW_MS - 600_000));
    stage.sample(CPU, 0, 0, 90.0);
    stage.sample(WEB, 1, 0, 10.0);
    stage.sample("metrics/docker/p/web/state", 2, 0, 1.0);
    stage.engine.commit(NOW_MS);
    let firing = |stage: &mut Stage, now_ms: u64| {
        stage.engine.on_tick(now_ms);
        stage.engine.commit(now_ms);
        let records = stage.records("alerts/silent/");
        records.iter().map(|record| record["value"].clone()).collect::<Vec<_>>()
    };
    let rules = format!("{general}{ABSENT}");
    stage.engine.replace_rules(file::parse(Path::new("test"), &rules).expect("right"));
    assert_eq!(firing(&mut stage, NOW_MS + 500), [0.0; 0], "by other rules");
    assert_eq!(firing(&mut stage, NOW_MS + 30_000), [30.0]);
    // Started again, with another name for the rule.
    drop(stage);
    let renamed = rules.replace("silent", "silence");
    let mut stage = Stage::by(folder.path(), &renamed, 0);
    stage.engine.watch(Some(NOW_MS));
    stage.engine.on_tick(NOW_MS + 500);
    stage.engine.commit(NOW_MS + 500);
    assert!(!stage.recorded("alerts/silence/").contains(&"firing".to_owned()), "by a restart");
}

#[test]
fn a_label_that_asks_for_silence_counts_it_from_when_the_container_was_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let general = GENERAL.replace("/memory", "/state").replace("> 95", "== 5");
    let mut stage = Stage::by(folder.path(), &general, 0);
    stage.engine.watch(Some(NOW_MS - 600_000));
    stage.sample("metrics/docker/p/web/state", 0, 0, 1.0);
    stage.payload("info/docker/p/web", 1, info(r#","aklight.alert.absent":"5s""#).as_bytes());
    stage.engine.on_tick(NOW_MS + 500);
    stage.engine.commit(NOW_MS + 500);
    assert_eq!(stage.printed(), "");
    stage.engine.on_tick(NOW_MS + 5_000);
    stage.engine.commit(NOW_MS + 5_000);
    assert!(stage.printed().contains("silent for 5 s"), "{}", stage.printed());
}

/// Whether by a signal or by a restart: a rule that goes leaves nothing firing behind.
#[test]
fn an_alert_whose_rule_is_gone_ends() {
    for restarted in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut stage = Stage::open(folder.path());
        stage.sample(CPU, 0, 0, 90.0);
        stage.engine.commit(NOW_MS);
        assert_eq!((stage.rung().len(), stage.recorded("alerts/hot/")), (2, vec!["firing".into()]));
        let renamed = RULES.replace("\"hot\"", "\"hotter\"");
        if restarted {
            drop(stage);
            stage = Stage::by(folder.path(), &renamed, 0);
            stage.rung();
        } else {
            stage.engine.replace_rules(file::parse(Path::new("test"), &renamed).expect("right"));
        }
        stage.engine.watch(Some(NOW_MS));
        stage.engine.on_tick(NOW_MS + 500);
        stage.engine.commit(NOW_MS + 500);
        assert_eq!(stage.recorded("alerts/hot/").last().map(String::as_str), Some("ok"));
        let told = stage.rung().into_iter().map(|order| order.notice.alert.reason);
        assert_eq!(told.collect::<Vec<_>>(), ["its rule is gone"; 2], "restarted: {restarted}");
        stage.engine.on_tick(NOW_MS + 1_000);
        stage.engine.commit(NOW_MS + 1_000);
        assert!(stage.rung().is_empty(), "once");
    }
}

#[test]
fn what_is_acknowledged_while_it_is_muted_is_not_told_when_the_mute_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::open(folder.path());
    let until = NOW_MS + 60_000;
    for (n, action) in [
        format!(r##"{{"action":"mute","rule":"+","match":"#","by":"anna","until":{until}}}"##),
        r##"{"action":"acknowledge","rule":"+","match":"#","by":"anna"}"##.to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        stage.payload("actions/alerts", 2 * n as u64, action.as_bytes());
        stage.sample(CPU, 2 * n as u64 + 1, 0, 90.0);
    }
    stage.engine.on_tick(until);
    stage.sample_at(CPU, 4, until, 90.0);
    stage.engine.commit(until);
    assert!(stage.rung().is_empty());
}

#[test]
fn a_silence_that_is_acknowledged_is_recorded_as_long_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::by(folder.path(), ABSENT, 0);
    stage.engine.watch(Some(NOW_MS));
    stage.sample(CPU, 0, 0, 37.5);
    stage.engine.on_tick(NOW_MS + 30_000);
    let ack = r##"{"action":"acknowledge","rule":"+","match":"#","by":"anna"}"##;
    stage.payload_at("actions/alerts", 1, ack.as_bytes(), NOW_MS + 40_000);
    stage.engine.commit(NOW_MS + 40_000);
    let records = stage.records("alerts/silent/");
    assert_eq!(records.last().expect("one")["value"], 40.0);
}

/// It ended before anybody looked: there is no event of it, but its state says as much.
#[test]
fn a_container_that_had_failed_before_rings_with_its_exit_code_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules =
        GENERAL.replace("/memory", "/state").replace("> 95\"", "== 1\"\nfield = \"failed\"");
    let mut stage = Stage::by(folder.path(), &rules, 0);
    let state = r#"{"ts":1795229527000,"value":0,"unit":"state","state":"exited","health":"none","exit_code":137,"oom_killed":1,"failed":1}"#;
    stage.payload("metrics/docker/p/web/state", 0, state.as_bytes());
    let ack = r##"{"action":"acknowledge","rule":"+","match":"#","by":"anna"}"##;
    stage.payload("actions/alerts", 1, ack.as_bytes());
    stage.engine.commit(NOW_MS);
    let expect = "metrics/docker/p/web/state: failed == 1; exit code 137, killed for memory";
    assert!(stage.printed().contains(expect), "{}", stage.printed());
    let records = stage.records("alerts/");
    let said =
        |record: &Value| record["text"].as_str().is_some_and(|text| text.contains("code 137"));
    assert!(records.len() == 2 && records.iter().all(said), "{records:?}");
}
