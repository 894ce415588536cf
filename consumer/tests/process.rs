//! The consumer as users run it: a process before a broker, ended and killed at any moment.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::twilio::twilio;
use support::{Consumer, FakeBroker, now_ms, until};
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
for = "1s"
"#;

/// How often each offset stands in the lines of samples.
fn offsets(lines: &[String]) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    for line in lines {
        if let Some((_, offset)) = line.split_once("(p0@") {
            *seen.entry(offset.trim_end_matches(')').parse().expect(line)).or_default() += 1;
        }
    }
    seen
}

fn state_file(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("c1.offsets")).unwrap_or_default()
}

fn processed(folder: &Path, next: u64) -> bool {
    state_file(folder).contains(&format!("\npartition|0|{next}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_consumer_processes_nothing_twice_and_misses_nothing() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = Vec::new();
    let mut next = 0;
    for round in 0..4 {
        let consumer = Consumer::start(&broker, folder.path(), &[], &[]);
        until("registered", || broker.log().acknowledged.contains_key("c1")).await;
        for _ in 0..25 {
            next = broker.sample("producer1", now_ms(), 5.0) + 1;
        }
        consumer.until_line(&format!("(p0@{})", next - 1)).await;
        consumer.signal(Signal::SIGTERM);
        let (status, printed, log) = consumer.ended();
        assert_eq!(status.code(), Some(0), "round {round}: {log}");
        lines.extend(printed);
        assert_eq!(broker.log().acknowledged["c1"], next, "told at the end");
        // While it is away.
        next = broker.sample("producer2", now_ms(), 6.0) + 1;
    }
    let seen = offsets(&lines);
    // The last sample came after the last end.
    assert_eq!(seen.len() as u64, next - 1, "{seen:?}");
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    assert!(lines.iter().any(|line| line.starts_with("metrics/docker/producer1/cpu 5.0 % (p0@")));
    let file = state_file(folder.path());
    assert!(file.contains("\ntopic|metrics/docker/producer1/cpu|0|"), "{file}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_sends_again_is_skipped() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let first = Consumer::start(&broker, folder.path(), &[], &[]);
    until("registered", || broker.log().acknowledged.contains_key("c1")).await;
    for _ in 0..10 {
        broker.sample("producer1", now_ms(), 5.0);
    }
    until("kept", || processed(folder.path(), 10)).await;
    let mut lines = first.killed();
    // As if the acknowledgement had never arrived.
    broker.log().acknowledged.insert("c1".to_owned(), 0);
    let second = Consumer::start(&broker, folder.path(), &[], &[]);
    until("told again", || broker.log().acknowledged["c1"] == 10).await;
    broker.sample("producer1", now_ms(), 5.0);
    second.until_line("(p0@10)").await;
    lines.extend(second.killed());
    let seen = offsets(&lines);
    assert_eq!(seen.len(), 11);
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

/// The moments at which the consumer is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kill {
    /// Beyond the limit, not yet for long enough.
    Pending,
    /// Twilio has the message, and its answer is under way.
    WhileTwilioAnswers,
    /// All is told.
    Told,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_once_wherever_the_consumer_is_killed() {
    for point in [Kill::Pending, Kill::WhileTwilioAnswers, Kill::Told] {
        let slow =
            if point == Kill::WhileTwilioAnswers { Duration::from_secs(8) } else { Duration::ZERO };
        let (server, bodies) = twilio(slow, Duration::ZERO).await;
        let uri = server.uri();
        let env = [
            ("TWILIO_ACCOUNT_SID", "AC1"),
            ("TWILIO_AUTH_TOKEN", "geheim"),
            ("TWILIO_FROM_NUMBER", "+14155238886"),
            ("TWILIO_TO_NUMBER", "+34600000089"),
            ("TWILIO_BASE_URL", &uri),
        ];
        let broker = FakeBroker::start();
        let folder = tempfile::tempdir().expect("a folder");
        let rules = folder.path().join("rules.toml");
        std::fs::write(&rules, RULES).expect("written");
        let args = ["--group-wait", "0s", "--rules", rules.to_str().expect("text")];
        let start = || Consumer::start(&broker, folder.path(), &args, &env);

        let first = start();
        until("registered", || broker.log().acknowledged.contains_key("c1")).await;
        let t0 = now_ms() - 5000;
        broker.sample("web", t0, 90.0);
        until("pending is kept", || processed(folder.path(), 1)).await;
        if point != Kill::Pending {
            broker.sample("web", t0 + 1000, 91.0);
            until("Twilio has it", || bodies.with(FIRED) == 1).await;
            until("the console's notice is struck", || {
                !state_file(folder.path()).contains("\"console\"")
            })
            .await;
        }
        if point == Kill::Told {
            until("Twilio's answer is kept", || {
                state_file(folder.path()).contains("\"sid\":\"SM1\"")
            })
            .await;
        }
        let mut lines = first.killed();

        let second = start();
        broker.sample("web", t0 + 1500, 92.0);
        broker.sample("web", t0 + 2000, 50.0);
        until("the end is sent", || bodies.with(RESOLVED) == 1).await;
        second.until_line(RESOLVED).await;
        until("recorded", || broker.announced("hot").len() >= 3).await;
        second.signal(Signal::SIGTERM);
        let (status, printed, log) = second.ended();
        assert_eq!(status.code(), Some(0), "{log}");
        lines.extend(printed);

        let of = |mark: &str| lines.iter().filter(|line| line.contains(mark)).count();
        assert_eq!((of(FIRED), of(RESOLVED)), (1, 1), "{point:?}: {lines:#?}\n{log}");
        assert_eq!((bodies.with(FIRED), bodies.with(RESOLVED)), (1, 1), "{point:?}\n{log}");
        assert_eq!(broker.announced("hot"), ["pending", "firing", "ok"], "{point:?}");
        assert!(!log.contains("600000089") && !log.contains("geheim"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_rules_again_and_a_mistake_leaves_the_old_ones() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.toml");
    std::fs::write(&rules, RULES).expect("written");
    let consumer = Consumer::start(
        &broker,
        folder.path(),
        &["--quiet", "--rules", rules.to_str().expect("text")],
        &[],
    );
    until("registered", || broker.log().acknowledged.contains_key("c1")).await;
    std::fs::write(&rules, RULES.replace("fire", "fier")).expect("written");
    consumer.signal(Signal::SIGHUP);
    until("the mistake is told", || consumer.log().contains("did you mean 'fire'?")).await;
    let t0 = now_ms() - 5000;
    broker.sample("web", t0, 90.0);
    broker.sample("web", t0 + 1000, 90.0);
    consumer.until_line(FIRED).await;
    // The state stays with the rule's name; the new limits count from the next sample on.
    std::fs::write(&rules, RULES.replace("> 80", "> 99").replace("< 70", "< 95")).expect("written");
    consumer.signal(Signal::SIGHUP);
    until("read again", || consumer.log().contains("rules read again")).await;
    broker.sample("web", t0 + 2000, 90.0);
    consumer.until_line(RESOLVED).await;
    assert_eq!(consumer.lines().len(), 2, "quiet: {:?}", consumer.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_payloads_are_said_once_a_topic_and_stop_nothing() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let consumer = Consumer::start(&broker, folder.path(), &[], &[]);
    until("registered", || broker.log().acknowledged.contains_key("c1")).await;
    for payload in ["", "no JSON", "{\"ts\":1}", "{\"value\":\"high\"}", "[]"] {
        broker.append("metrics/docker/web/cpu", payload);
        broker.append("metrics/docker/web/memory", payload);
    }
    broker.sample("web", now_ms(), 7.0);
    consumer.until_line("metrics/docker/web/cpu 7.0 % (p0@10)").await;
    consumer.signal(Signal::SIGINT);
    let (status, lines, log) = consumer.ended();
    assert_eq!(status.code(), Some(130));
    assert_eq!(offsets(&lines).len(), 11);
    assert_eq!(log.matches("cannot be judged").count(), 2, "{log}");
    assert!(log.contains("broken_payloads=10"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_set_aside_and_the_next_start_goes_on() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c1.offsets"), "\0\0\0").expect("written");
    let (status, _, log) = Consumer::start(&broker, folder.path(), &[], &[]).ended();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("was set aside as") && log.contains("Start again"), "{log}");
    let next = Consumer::start(&broker, folder.path(), &[], &[]);
    until("registered", || broker.log().acknowledged.contains_key("c1")).await;
    broker.sample("web", now_ms(), 7.0);
    next.until_line("(p0@0)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_began_anew_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let first = Consumer::start(&broker, folder.path(), &[], &[]);
    until("registered", || broker.log().acknowledged.contains_key("c1")).await;
    for _ in 0..5 {
        broker.sample("web", now_ms(), 7.0);
    }
    until("kept", || processed(folder.path(), 5)).await;
    first.killed();
    // The broker's data were removed: its log begins with 0 again.
    let broker = FakeBroker::start();
    let second = Consumer::start(&broker, folder.path(), &[], &[]);
    until("registered", || broker.log().acknowledged.contains_key("c1")).await;
    until("said", || second.log().contains("Beginning again")).await;
    broker.sample("web", now_ms(), 8.0);
    second.until_line("web/cpu 8.0 % (p0@0)").await;
    until("kept", || processed(folder.path(), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_that_a_broker_without_a_leader_knows_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let first = Consumer::start(&broker, folder.path(), &[], &[]);
    until("registered", || broker.log().acknowledged.contains_key("c1")).await;
    for n in 0..5 {
        broker.sample("web", now_ms(), f64::from(n));
    }
    until("kept", || processed(folder.path(), 5)).await;
    first.killed();
    // Another broker, whose copy is behind, and which cannot ask anybody.
    let behind = FakeBroker::start();
    behind.log().leaderless = true;
    let second = Consumer::start(&behind, folder.path(), &[], &[]);
    // Once for its turn, and once for what it is behind.
    until("asked", || behind.log().asked_for_ends > 1).await;
    for n in 0..6 {
        behind.sample("web", now_ms(), f64::from(n));
    }
    second.until_line("web/cpu 5.0 % (p0@5)").await;
    assert_eq!(second.count("web/cpu"), 1, "the first five were processed: {:?}", second.lines());
    assert!(!second.log().contains("Beginning again"), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_a_call_is_told_at_once() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let args = ["--rules", "/nowhere/rules.toml"];
    let env = [("TWILIO_ACCOUNT_SID", "AC1"), ("TWILIO_FROM_NUMBER", "")];
    let consumer = Consumer::start(&broker, folder.path(), &args, &env);
    let (status, _, log) = consumer.ended();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("/nowhere/rules.toml"), "{log}");
    assert!(log.contains("TWILIO_AUTH_TOKEN and TWILIO_FROM_NUMBER and TWILIO_TO_NUMBER"), "{log}");
    let (status, _, log) =
        Consumer::start(&broker, folder.path(), &["--patterns", "a/#/b"], &[]).ended();
    assert_eq!(status.code(), Some(2));
    assert!(log.contains("'#' is the last level"), "{log}");
}

/// As MONITORING.md says: whoever sets a proxy for the machine has one for webhooks.
#[tokio::test]
async fn a_webhook_goes_through_the_proxy_but_not_where_none_is_wanted() {
    for (no_proxy, goes) in [("", true), ("127.0.0.1", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let rules = folder.path().join("rules.toml");
        std::fs::write(&rules, RULES.replace("for = \"1s\"", "")).expect("written");
        let (proxy, hook) = (MockServer::start().await, MockServer::start().await);
        for server in [&proxy, &hook] {
            let taken = Mock::given(method("POST")).respond_with(ResponseTemplate::new(204));
            taken.mount(server).await;
        }
        let (proxy_url, hook_url) = (proxy.uri(), hook.uri());
        let env = [
            ("HTTP_PROXY", proxy_url.as_str()),
            ("NO_PROXY", no_proxy),
            ("AKLIGHT_WEBHOOK_URL", &hook_url),
        ];
        let broker = FakeBroker::start();
        let args = ["--group-wait", "0s", "--rules", rules.to_str().expect("text")];
        let _consumer = Consumer::start(&broker, folder.path(), &args, &env);
        until("registered", || broker.log().registrations > 0).await;
        broker.sample("web", now_ms(), 90.0);
        until("told", || broker.log().records.iter().any(|(_, says)| says.contains("delivered")))
            .await;
        let (by_proxy, straight) =
            (proxy.received_requests().await, hook.received_requests().await);
        let counts = (by_proxy.map(|posts| posts.len()), straight.map(|posts| posts.len()));
        assert_eq!(counts, if goes { (Some(1), Some(0)) } else { (Some(0), Some(1)) });
    }
}
