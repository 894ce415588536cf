//! Alerts from a shell, before a real broker with a real consumer: list, acknowledge, mute,
//! deliveries; thousands at once; and rules tried on what is stored.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aklight_common::Pattern;
use aklight_common::client::{Client, ClientConfig};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{DEADLINE, Running, aklight, free_port, run, stdout_of, wait_until};

const RULES: &str = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/+/cpu"
fire = "> 80"
clear = "< 70"
severity = "critical"
"#;

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

/// A webhook that takes everything.
fn hook() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut read = [0; 1 << 16];
            let _ = stream.read(&mut read);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
        }
    });
    url
}

struct Scene {
    port: u16,
    brokers: String,
    broker: Running,
    dir: tempfile::TempDir,
}

impl Scene {
    fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let broker = Self::broker(&dir, port);
        let brokers = format!("--brokers=127.0.0.1:{port}");
        wait_until("the broker answers", || run(&["topics", "#", &brokers]).status.success());
        std::fs::write(dir.path().join("rules.toml"), RULES).expect("written");
        Self { port, brokers, broker, dir }
    }

    fn broker(dir: &tempfile::TempDir, port: u16) -> Running {
        let data = format!("--data-dir={}", dir.path().join("data").display());
        let listen = format!("--listen=127.0.0.1:{port}");
        Running::start(aklight(&["broker", &data, &listen]))
    }

    /// kill -9, and another one on the same disk.
    fn break_broker(&mut self) {
        self.broker.signal(Signal::SIGKILL);
        self.broker.wait();
        self.broker = Self::broker(&self.dir, self.port);
    }

    fn consumer(&self) -> Command {
        aklight(&[
            "consumer",
            "--id=c1",
            "--group-wait=0s",
            &self.brokers,
            &format!("--rules={}", self.path("rules.toml")),
            &format!("--offsets-dir={}", self.path("offsets")),
        ])
    }

    async fn client(&self) -> Client {
        let config = ClientConfig::new(vec![format!("127.0.0.1:{}", self.port)], "test");
        Client::connect(config).await.expect("a broker")
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.dir.path()).join(name).display().to_string()
    }

    fn sample(&self, container: &str, ts: u128, value: f64) {
        let topic = format!("metrics/docker/p/{container}/cpu");
        let payload = format!("{{\"ts\":{ts},\"value\":{value},\"unit\":\"percent\"}}");
        let key = format!("p/{container}");
        stdout_of(&["produce", &topic, &key, &payload, &self.brokers]);
    }

    fn until_registered(&self, consumer: &mut Running) {
        wait_until("the consumer is registered", || {
            self.sample("seen", now_ms(), 1.0);
            consumer.poll().is_some_and(|line| line.contains("seen/cpu 1.0 %"))
        });
    }

    fn list(&self) -> Vec<Value> {
        let text = stdout_of(&["alerts", "list", "--output=json", &self.brokers]);
        serde_json::from_str(&text).expect("JSON")
    }
}

#[test]
fn an_alert_is_listed_acknowledged_muted_and_its_messages_seen() {
    let scene = Scene::open();
    let mut consumer = scene.consumer();
    consumer.env("AKLIGHT_WEBHOOK_URL", hook());
    let mut consumer = Running::start(consumer);
    scene.until_registered(&mut consumer);
    assert!(scene.list().is_empty());
    scene.sample("web", now_ms(), 90.0);
    wait_until("it is listed", || scene.list().len() == 1);
    let table = stdout_of(&["alerts", "list", &scene.brokers]);
    for part in ["firing", "critical", "hot", "metrics/docker/p/web/cpu", "90.0 %", "> 80"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    stdout_of(&["alerts", "ack", "hot", "metrics/docker/p/web/#", "--by=anna", &scene.brokers]);
    wait_until("it is acknowledged", || scene.list()[0]["acknowledged_by"] == "anna");
    stdout_of(&["alerts", "mute", "+", "--for=1h", "--by=anna", &scene.brokers]);
    wait_until("it is muted", || scene.list()[0]["muted_until"].is_u64());
    stdout_of(&["alerts", "unmute", "+", &scene.brokers]);
    wait_until("it is muted no more", || scene.list()[0]["muted_until"].is_null());
    let deliveries = || stdout_of(&["alerts", "deliveries", &scene.brokers]);
    wait_until("the message is delivered", || deliveries().contains("delivered"));
    let lines = deliveries();
    assert!(lines.contains("queued") && lines.contains("c1        webhook"), "{lines}");
    let mail =
        r#"{"ts":1,"id":"c1-0","status":"failed","to":"ben@example.org","reason":"unknown"}"#;
    stdout_of(&["produce", "deliveries/c1/email", "deliveries/c1/email", mail, &scene.brokers]);
    let lines = deliveries();
    assert!(lines.contains("email    ben@example.org  c1-0     failed"), "{lines}");
    scene.sample("web", now_ms(), 50.0);
    wait_until("it is over", || scene.list().is_empty());
    assert!(stdout_of(&["alerts", "list", "--all", &scene.brokers]).contains("ok"));
}

/// A sample of each of so many containers, all at once.
async fn burst(scene: &Scene, containers: usize, value: f64) {
    let payload = format!("{{\"ts\":{},\"value\":{value},\"unit\":\"percent\"}}", now_ms());
    let names: Vec<_> = (0..containers).map(|n| format!("p/web{n}")).collect();
    let topics: Vec<_> = names.iter().map(|name| format!("metrics/docker/{name}/cpu")).collect();
    let record = |(topic, name)| -> (&str, &[u8], &[u8]) {
        let (topic, name): (&String, &String) = (topic, name);
        (topic, name.as_bytes(), payload.as_bytes())
    };
    let records: Vec<_> = topics.iter().zip(&names).map(record).collect();
    let answers = scene.client().await.produce_all(&records).await.expect("answers");
    assert!(answers.iter().all(Result::is_ok));
}

/// The states recorded of each topic, in order.
async fn recorded(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let pattern = Pattern::new("alerts/hot/#").expect("a pattern");
    let mut states: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for message in scene.client().await.fetch_all(&pattern).await.expect("records") {
        let record: Value = serde_json::from_slice(&message.payload).expect("JSON");
        let state = record["state"].as_str().expect("a state").to_owned();
        states.entry(message.topic.to_string()).or_default().push(state);
    }
    states
}

async fn until_recorded(scene: &Scene, containers: usize, state: &str) {
    let started = Instant::now();
    loop {
        let states = recorded(scene).await;
        let there = states.values().filter(|states| states.last().is_some_and(|s| s == state));
        let there = there.count();
        if there == containers {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{there} of {containers} are recorded as {state}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// More than may wait for a broker at once; and the broker goes down while they are recorded.
#[tokio::test]
async fn thousands_of_alerts_at_once_are_recorded_each_once_and_in_order() {
    const CONTAINERS: usize = 5_000;
    let mut scene = Scene::open();
    let mut consumer = Running::start(scene.consumer());
    scene.until_registered(&mut consumer);
    burst(&scene, CONTAINERS, 90.0).await;
    wait_until("the first are recorded", || !scene.list().is_empty());
    scene.break_broker();
    wait_until("the broker answers", || run(&["topics", "#", &scene.brokers]).status.success());
    until_recorded(&scene, CONTAINERS, "firing").await;
    burst(&scene, CONTAINERS, 50.0).await;
    until_recorded(&scene, CONTAINERS, "ok").await;
    for (topic, states) in recorded(&scene).await {
        assert_eq!(states, ["firing", "ok"], "{topic}");
    }
}

#[test]
fn rules_are_tried_on_what_is_stored_from_an_offset_or_a_time_on() {
    let scene = Scene::open();
    let t0 = now_ms() - 600_000;
    for (second, value) in [(0, 90.0), (1, 50.0), (300, 95.0), (301, 96.0), (302, 10.0)] {
        scene.sample("web", t0 + second * 1000, value);
    }
    let rules = scene.path("rules.toml");
    let test = |from: &str| stdout_of(&["rules", "test", &rules, "--from", from, &scene.brokers]);
    let all = test("0");
    let marks: Vec<_> = all.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(marks, ["FIRING", "RESOLVED", "FIRING", "RESOLVED"], "{all}");
    assert!(
        all.contains("[critical] hot: metrics/docker/p/web/cpu is 90.0 %, limit > 80"),
        "{all}"
    );
    assert_eq!(test("6m").lines().count(), 2, "the first five minutes are left out");
    assert_eq!(test("1").lines().count(), 2, "without the first record");
    assert!(stdout_of(&["rules", "check", &rules]).contains("1 rule, no mistake"));
    assert!(stdout_of(&["check-rules", &rules]).contains("1 rule, no mistake"));
    let wrong = run(&["rules", "test", &rules, "--from", "soon", &scene.brokers]);
    assert_eq!(wrong.status.code(), Some(2));
}
