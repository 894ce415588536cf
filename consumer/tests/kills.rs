//! A consumer killed at any moment of its alerts' lives, and two of one name: what people get.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::twilio::twilio;
use support::{Consumer, FakeBroker, now_ms, until};
use tempfile::TempDir;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

const FIRED: &str = "*** THRESHOLD EXCEEDED ***";
const RESOLVED: &str = "--- RESOLVED ---";
const RULES: &str = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/cpu"
fire = "> 80"
clear = "< 70"
"#;

/// How long a carrier takes to answer: long enough for kills to come in between.
const SLOW: Duration = Duration::from_millis(100);

/// Kills of one run.
const ROUNDS: u64 = 50;

/// A seed that is printed by a failure; give it as KILLS_SEED to see it again.
fn seed() -> u64 {
    std::env::var("KILLS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now_ms)
}

/// xorshift64: moments that nobody chose, and that can be had again.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Whether a message of WhatsApp says this of a topic: alone, or in a line among others.
fn says(body: &str, mark: &str, word: &str, topic: &str) -> bool {
    let alone = body.contains(mark) && !body.contains(" alerts\n") && body.contains(topic);
    alone || body.lines().any(|line| line.starts_with(word) && line.contains(topic))
}

/// For each topic and state, under which keys the webhook was told.
async fn told(webhook: &MockServer) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut told: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for request in webhook.received_requests().await.expect("recorded") {
        let key = request.headers["idempotency-key"].to_str().expect("text").to_owned();
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        for alert in body["alerts"].as_array().expect("a list") {
            let text = |name: &str| alert[name].as_str().expect("text").to_owned();
            told.entry((text("topic"), text("state"))).or_default().insert(key.clone());
        }
    }
    told
}

/// Fifty kills, each while one alert begins and another ends: what can be told apart (a message at
/// Twilio, a key at the webhook, a record at the broker) is there once.
#[tokio::test(flavor = "multi_thread")]
async fn no_moment_of_a_kill_loses_or_doubles_a_message_or_a_record() {
    let seed = seed();
    println!("KILLS_SEED={seed}");
    let mut state = seed | 1;
    let (server, bodies) = twilio(SLOW, SLOW).await;
    let webhook = MockServer::start().await;
    let slow = ResponseTemplate::new(200).set_delay(SLOW);
    Mock::given(method("POST")).respond_with(slow).mount(&webhook).await;
    let (uri, hook) = (server.uri(), webhook.uri());
    let env = [
        ("TWILIO_ACCOUNT_SID", "AC1"),
        ("TWILIO_AUTH_TOKEN", "geheim"),
        ("TWILIO_FROM_NUMBER", "+14155238886"),
        ("TWILIO_TO_NUMBER", "+34600000089"),
        ("TWILIO_BASE_URL", &uri),
        ("AKLIGHT_WEBHOOK_URL", &hook),
        ("AKLIGHT_WHATSAPP_PER_MINUTE", "4800"),
    ];
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.toml");
    std::fs::write(&rules, RULES).expect("written");
    let args = ["--quiet", "--group-wait", "20ms", "--rules", rules.to_str().expect("text")];
    let mut lines = Vec::new();
    let name = |round: u64| format!("web{round:02}");
    for round in 0..ROUNDS {
        let consumer = Consumer::start(&broker, folder.path(), &args, &env);
        let registered = usize::try_from(round).expect("small");
        until("registered", || broker.log().registrations > registered).await;
        broker.sample(&name(round), now_ms(), 90.0);
        if round > 0 {
            broker.sample(&name(round - 1), now_ms(), 50.0);
        }
        // Not a wait for something, but the moment itself.
        tokio::time::sleep(Duration::from_millis(draw(&mut state) % 120)).await;
        lines.extend(consumer.killed());
    }
    let last = Consumer::start(&broker, folder.path(), &args, &env);
    until("registered", || broker.log().registrations as u64 > ROUNDS).await;
    broker.sample(&name(ROUNDS - 1), now_ms(), 50.0);
    let topics: Vec<_> =
        (0..ROUNDS).map(|round| format!("metrics/docker/{}/cpu", name(round))).collect();
    let at_twilio = |mark: &str, word: &str, topic: &str| {
        bodies.all().iter().filter(|body| says(body, mark, word, topic)).count()
    };
    until("all is told", || {
        topics.iter().all(|topic| {
            at_twilio(FIRED, "FIRING", topic) > 0 && at_twilio(RESOLVED, "RESOLVED", topic) > 0
        })
    })
    .await;
    until("all is recorded", || broker.announced("hot").len() as u64 >= 2 * ROUNDS).await;
    until("nothing waits", || {
        let file = std::fs::read_to_string(folder.path().join("c1.offsets")).unwrap_or_default();
        !file.contains("\nnotice|")
    })
    .await;
    lines.extend(last.killed());
    assert_eq!(broker.announced("hot").len() as u64, 2 * ROUNDS, "seed {seed}");
    let told = told(&webhook).await;
    for topic in &topics {
        let counts = (at_twilio(FIRED, "FIRING", topic), at_twilio(RESOLVED, "RESOLVED", topic));
        assert_eq!(counts, (1, 1), "seed {seed}, {topic} at Twilio: {:#?}", bodies.all());
        for state in ["firing", "ok"] {
            let keys = told.get(&(topic.clone(), state.to_owned()));
            let keys = keys.map_or(0, BTreeSet::len);
            assert_eq!(keys, 1, "seed {seed}, {topic} {state} at the webhook: {told:#?}");
        }
        let on_console =
            lines.iter().filter(|line| line.contains(FIRED) && line.contains(topic)).count();
        // A line cannot be looked up: at least once.
        assert!((1..=2).contains(&on_console), "seed {seed}, {topic}: {lines:#?}");
    }
}

/// A broker, and two machines for consumers of one name.
struct Scene {
    broker: FakeBroker,
    here: TempDir,
    there: TempDir,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl Scene {
    fn open(rules: &str, args: &[&str], env: &[(&'static str, &str)]) -> Self {
        let folder = || tempfile::tempdir().expect("a folder");
        let (broker, here, there) = (FakeBroker::start(), folder(), folder());
        // Both have it, whatever becomes of the other.
        let file = there.path().join("rules.toml");
        std::fs::write(&file, rules).expect("written");
        let always = ["--quiet", "--rules", file.to_str().expect("text")];
        let args = always.iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        let env = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { broker, here, there, args, env }
    }

    fn start(&self, folder: &TempDir) -> Consumer {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        let env: Vec<_> = self.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Consumer::start(&self.broker, folder.path(), &args, &env)
    }

    /// One at work, and one that waits for its end.
    async fn two(&self) -> (&FakeBroker, Consumer, Consumer) {
        let first = self.start(&self.here);
        until("registered", || self.broker.log().registrations == 1).await;
        let second = self.start(&self.there);
        until("the second waits", || second.log().contains("waiting for its end")).await;
        (&self.broker, first, second)
    }
}

/// Two of one name on two machines: one works, the other waits, and goes on where the first one
/// stopped, without its file.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_consumers_of_one_name_one_rings_and_the_other_takes_over() {
    let scene = Scene::open(RULES, &[], &[]);
    let (broker, first, second) = scene.two().await;
    broker.sample("web", now_ms(), 90.0);
    first.until_line(FIRED).await;
    until("recorded", || broker.announced("hot") == ["firing"]).await;

    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended().0.code(), Some(0));
    until("the second goes on", || broker.log().registrations == 2).await;
    broker.sample("web", now_ms(), 91.0);
    broker.sample("web", now_ms(), 50.0);
    second.until_line(RESOLVED).await;
    assert_eq!(second.count(FIRED), 0, "the first one told it: {:?}", second.lines());
    broker.sample("db", now_ms(), 90.0);
    second.until_line(FIRED).await;
    until("recorded", || broker.announced("hot") == ["firing", "ok", "firing"]).await;

    // The first one again, with its old file; and the second dies without a word.
    let first = scene.start(&scene.here);
    until("it waits", || first.log().contains("waiting for its end")).await;
    second.killed();
    until("it goes on", || broker.log().registrations == 3).await;
    broker.sample("web", now_ms(), 50.0);
    broker.sample("db", now_ms(), 90.0);
    broker.sample("db", now_ms(), 50.0);
    first.until_line(RESOLVED).await;
    assert_eq!(first.lines().len(), 1, "neither did 'web' end again: {:?}", first.lines());
}

/// A producer falls silent with the consumer that had heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn silence_that_begins_before_another_takes_over_is_told() {
    let silent = "[[rule]]\nname = \"silent\"\nmatch = \"metrics/docker/+/cpu\"\nabsent = \"10s\"";
    let scene = Scene::open(silent, &["--patterns", "metrics/docker/host2/#"], &[]);
    let (broker, first, second) = scene.two().await;
    broker.sample("host2", now_ms(), 5.0);
    broker.sample("host3", now_ms(), 5.0);
    until("it is heard", || broker.log().acknowledged["c1"] > 0).await;
    first.signal(Signal::SIGTERM);
    assert!(first.ended().1.is_empty(), "it is no silence yet");
    until("the second goes on", || broker.log().registrations == 2).await;
    second.until_line("metrics/docker/host2/cpu").await;
    until("recorded", || !broker.announced("silent").is_empty()).await;
    assert_eq!(broker.announced("silent"), ["firing"], "it does not listen to host3");
}

/// One that was stopped for so long that another took over judges nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_stopped_for_too_long_ends_instead_of_ringing_twice() {
    let scene = Scene::open(RULES, &[], &[]);
    let (broker, first, second) = scene.two().await;
    first.signal(Signal::SIGSTOP);
    until("the second goes on", || broker.log().registrations == 2).await;
    broker.sample("web", now_ms(), 90.0);
    second.until_line(FIRED).await;
    first.signal(Signal::SIGCONT);
    let (status, lines, log) = first.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("took over") && lines.is_empty(), "{lines:?}\n{log}");
    assert_eq!(broker.announced("hot"), ["firing"]);
}

/// The machine of the first one is lost while its message waits, or while the carrier has it and
/// says nothing yet: the second one tells it, and no message comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_a_machine_that_is_lost_is_told_once_by_who_takes_over() {
    tokio::join!(lose_a_machine("5s"), lose_a_machine("0s"));
}

async fn lose_a_machine(group_wait: &str) {
    let (server, bodies) = twilio(Duration::from_secs(9), Duration::ZERO).await;
    let uri = server.uri();
    let env = [
        ("TWILIO_ACCOUNT_SID", "AC1"),
        ("TWILIO_AUTH_TOKEN", "geheim"),
        ("TWILIO_FROM_NUMBER", "+14155238886"),
        ("TWILIO_TO_NUMBER", "+34600000089"),
        ("TWILIO_BASE_URL", &uri),
    ];
    let scene = Scene::open(RULES, &["--group-wait", group_wait], &env);
    let (broker, first, second) = scene.two().await;
    broker.sample("web", now_ms(), 90.0);
    until("recorded", || broker.announced("hot") == ["firing"]).await;
    if group_wait == "0s" {
        until("Twilio has it", || bodies.with(FIRED) == 1).await;
    }
    until("acknowledged", || broker.log().acknowledged["c1"] == 1).await;
    first.killed();
    let is_lost = group_wait == "0s";
    if is_lost {
        std::fs::remove_file(scene.here.path().join("c1.offsets")).expect("removed");
    }
    until("the second goes on", || broker.log().registrations == 2).await;
    let status = |status: &str| {
        let log = broker.log();
        let said = format!("\"status\":\"{status}\"");
        log.records.iter().filter(|(_, payload)| payload.contains(&said)).count()
    };
    until("it is told", || status("delivered") == 1).await;
    assert_eq!(bodies.all().len(), 1, "--group-wait {group_wait}: {:#?}", bodies.all());
    broker.sample("web", now_ms(), 91.0);
    broker.sample("web", now_ms(), 50.0);
    until("the end is told", || bodies.with(RESOLVED) == 1).await;
    assert_eq!(bodies.all().len(), 2, "--group-wait {group_wait}: {:#?}", bodies.all());
    assert_eq!(second.count(FIRED), 0);
    if is_lost {
        return;
    }
    // The first one comes back with its file, in which the message waits.
    let first = scene.start(&scene.here);
    until("it waits", || first.log().contains("waiting for its end")).await;
    second.killed();
    until("it goes on", || broker.log().registrations == 3).await;
    broker.sample("db", now_ms(), 90.0);
    until("it tells what is new", || bodies.all().len() > 2).await;
    assert!(bodies.all().last().expect("one").contains("docker/db/cpu"), "{:#?}", bodies.all());
    assert_eq!(first.count(RESOLVED), 0);
}

/// No broker can say whose turn it is: what waited is told all the same, after a while.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_told_after_a_restart_though_no_broker_answers() {
    let webhook = MockServer::start().await;
    let out = Mock::given(method("POST")).respond_with(ResponseTemplate::new(503));
    let out = out.mount_as_scoped(&webhook).await;
    let hook = webhook.uri();
    let scene = Scene::open(RULES, &[], &[("AKLIGHT_WEBHOOK_URL", &hook)]);
    let first = scene.start(&scene.here);
    until("registered", || scene.broker.log().registrations == 1).await;
    scene.broker.sample("web", now_ms(), 90.0);
    until("recorded", || scene.broker.announced("hot") == ["firing"]).await;
    first.killed();
    drop(out);
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&webhook).await;
    let gone = Scene { broker: FakeBroker::gone(), ..scene };
    let again = gone.start(&gone.here);
    until("it is told", || again.log().contains("telling what the last run was about to tell"))
        .await;
    let file = || std::fs::read_to_string(gone.here.path().join("c1.offsets")).unwrap_or_default();
    until("it is out", || !file().contains("\nnotice|")).await;
}
