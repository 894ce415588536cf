//! `aklight top` on a real terminal, against a real broker.

mod support;
#[path = "support/terminal.rs"]
mod terminal;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use aklight_common::client::{Client, ClientConfig};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Running, aklight, free_port, is_alive, run, send, stdout_of, wait_until};
use terminal::Terminal;

struct Broker {
    process: Running,
    port: u16,
    dir: tempfile::TempDir,
}

fn start(port: u16, dir: &tempfile::TempDir) -> Running {
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let listen = format!("--listen=127.0.0.1:{port}");
    let http = format!("--listen-http=127.0.0.1:{}", port + 70);
    let peer = format!("--listen-peer=127.0.0.1:{}", port + 90);
    let process = Running::start(aklight(&["broker", &data, &listen, &http, &peer]));
    let brokers = format!("--brokers=127.0.0.1:{port}");
    wait_until("the broker answers", || run(&["topics", "#", &brokers]).status.success());
    process
}

impl Broker {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        Self { process: start(port, &dir), port, dir }
    }

    fn flag(&self) -> String {
        format!("--brokers=127.0.0.1:{}", self.port)
    }

    /// Stores records: topic, key and what is in it beside its time.
    fn store(&self, records: &[(String, Value)]) {
        let config = ClientConfig::new(vec![format!("127.0.0.1:{}", self.port)], "test");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let records: Vec<(&str, Vec<u8>)> = records
            .iter()
            .map(|(topic, fields)| {
                let mut payload = fields.clone();
                payload["ts"] = json!(u64::try_from(now.as_millis()).expect("small"));
                (topic.as_str(), payload.to_string().into_bytes())
            })
            .collect();
        let lines: Vec<(&str, &[u8], &[u8])> = records
            .iter()
            .map(|(topic, payload)| (*topic, topic.as_bytes(), payload.as_slice()))
            .collect();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut client = Client::connect(config).await.expect("connected");
            let answers = client.produce_all(&lines).await.expect("answered");
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        });
    }

    /// Stores what a producer tells of two containers, and an alert.
    fn fill(&self) {
        let mut records = container("db", 12.5, 200 << 20);
        records.extend(container("api", 49.9, 100 << 20));
        let topic = "metrics/docker/web/db/memory";
        let alert = json!({ "state": "firing", "rule": "memory-high", "topic": topic, "value": 97,
                            "severity": "critical", "unit": "percent", "text": "db is full" });
        records.push((format!("alerts/memory-high/{topic}"), alert));
        self.store(&records);
    }
}

fn container(name: &str, cpu: f64, bytes: u64) -> Vec<(String, Value)> {
    let topic = |metric: &str| format!("metrics/docker/web/{name}/{metric}");
    let limit = 256 << 20;
    vec![
        (
            format!("info/docker/web/{name}"),
            json!({ "value": 1, "image": format!("{name}:1"), "limit_bytes": limit, "limit_cpus": 2 }),
        ),
        (topic("cpu"), json!({ "value": cpu, "cpus": 4, "limit_cpus": 2 })),
        (
            topic("memory"),
            json!({ "value": bytes * 100 / limit, "bytes": bytes, "limit_bytes": limit }),
        ),
        (topic("state"), json!({ "value": 1, "state": "running", "health": "healthy" })),
    ]
}

/// Starts `top` from a shell that tells how it ended, and what became of the terminal's modes.
fn top(broker: &Broker) -> Terminal {
    top_by(broker, "")
}

/// The same, started by another program.
fn top_by(broker: &Broker, starter: &str) -> Terminal {
    let command = format!(
        "stty -g > {dir}/before; {starter} {program} top {brokers} --http=127.0.0.1:{http}; \
         echo \"ended with $?\"; stty -g > {dir}/after; echo done",
        program = assert_cmd::cargo::cargo_bin("aklight").display(),
        brokers = broker.flag(),
        http = broker.port + 70,
        dir = broker.dir.path().display(),
    );
    Terminal::start(&command)
}

/// Waits for the end, and holds the terminal against what it was before.
fn check_end(broker: &Broker, terminal: &Terminal, code: i32) {
    terminal.wait_for_log("done");
    let screen = terminal.screen();
    assert!(screen.log.contains(&format!("ended with {code}")), "{}", screen.log);
    assert!(!screen.taken && !screen.hidden, "the terminal was not given back");
    let modes = |name: &str| fs::read_to_string(broker.dir.path().join(name)).expect("modes");
    assert_eq!(modes("before"), modes("after"));
}

/// In which line of the screen something stands.
fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).unwrap_or(usize::MAX)
}

#[test]
fn it_shows_sorts_filters_opens_and_acknowledges() {
    let broker = Broker::start();
    broker.fill();
    let mut terminal = top(&broker);
    let text = terminal.wait_for(&["db", "api", "49.9", "12.5", "▲1", "Containers 2"]);
    assert!(line_of(&text, "49.9") < line_of(&text, "12.5"), "{text}");
    assert!(terminal.screen().taken && terminal.screen().hidden);

    terminal.press("r");
    wait_until("the order is reversed", || {
        let text = terminal.screen().text();
        line_of(&text, "12.5") < line_of(&text, "49.9")
    });
    terminal.press("/metrics/docker/+/api/#\r");
    terminal.wait_for(&["Containers 1 of 2", "49.9"]);
    terminal.press("\x1b");
    terminal.wait_for(&["Containers 2 ─", "12.5"]);

    broker.store(&[(
        "events/docker/web/db".to_owned(),
        json!({ "event": "die", "exit_code": 137, "oom_killed": true, "last_cpu": [1, 50, 99] }),
    )]);
    terminal.press("n");
    wait_until("it is sorted by name", || {
        let text = terminal.screen().text();
        line_of(&text, "49.9") < line_of(&text, "12.5") && text.contains("NAME▲")
    });
    terminal.press("\x1b[B\r");
    terminal.wait_for(&[
        "web/db",
        "limit 2 CPUs",
        "limit 256M",
        "exit code 137, killed for memory",
    ]);
    terminal.wait_for(&["the last minute before die", "99.0%"]);
    broker.store(&container("db", 77.7, 1));
    terminal.wait_for(&["77.7%"]);
    terminal.press("t");
    terminal.wait_for(&["-1h"]);

    terminal.press("2");
    terminal.wait_for(&["● firing", "memory-high", "db is full"]);
    terminal.press("a");
    terminal.wait_for(&["acknowledged memory-high of web/db memory"]);
    let stored = stdout_of(&["fetch", "actions/alerts", "--output=json", &broker.flag()]);
    let stored: Value = serde_json::from_str(stored.trim()).expect("one record");
    let payload = stored["payload"].as_str().expect("text");
    let payload: Value = serde_json::from_str(payload).expect("json");
    assert_eq!(payload["action"], "acknowledge");
    assert_eq!(payload["match"], "metrics/docker/web/db/memory");
    assert_eq!((&stored["key"], payload["rule"].as_str()), (&json!("alerts"), Some("memory-high")));

    terminal.press("3");
    terminal.wait_for(&["Brokers", "alive", "voter", "partition 0", "LAG OF 1", "leads"]);
    terminal.press("?");
    terminal.wait_for(&["Everywhere"]);
    terminal.press("q");
    check_end(&broker, &terminal, 0);
}

#[test]
fn it_survives_a_broker_that_is_killed_and_started_again() {
    let mut broker = Broker::start();
    broker.fill();
    let mut terminal = top(&broker);
    terminal.wait_for(&["Containers 2", "12.5"]);
    broker.process.signal(Signal::SIGKILL);
    terminal.wait_for(&["○ lost, trying again", "12.5"]);
    broker.process = start(broker.port, &broker.dir);
    terminal.wait_for(&[&format!("● 127.0.0.1:{}", broker.port)]);
    broker.store(&container("db", 77.7, 1));
    let text = terminal.wait_for(&["77.7"]);
    assert!(!text.contains("WARN"), "a log over the screen:\n{text}");
    terminal.press("q");
    check_end(&broker, &terminal, 0);
}

#[test]
fn signals_end_it_and_the_terminal_is_as_it_was() {
    let broker = Broker::start();
    broker.fill();
    let ends = [(Signal::SIGTERM, 0), (Signal::SIGINT, 130), (Signal::SIGHUP, 0)];
    for (signal, code) in ends {
        let terminal = top(&broker);
        terminal.wait_for(&["Containers 2"]);
        send(terminal.process("aklight"), signal);
        check_end(&broker, &terminal, code);
    }
    let mut terminal = top(&broker);
    terminal.wait_for(&["Containers 2"]);
    terminal.press("\x03");
    check_end(&broker, &terminal, 130);
}

#[test]
fn it_makes_place_for_the_shell_and_comes_back() {
    let broker = Broker::start();
    broker.fill();
    let mut terminal = Terminal::start("PS1='> ' bash --norc --noprofile -i");
    let program = assert_cmd::cargo::cargo_bin("aklight");
    terminal.press(&format!("{} top {}\r", program.display(), broker.flag()));
    terminal.wait_for(&["Containers 2"]);
    let process = terminal.process("aklight");
    for by_key in [true, false] {
        if by_key {
            terminal.press("\x1a");
        } else {
            send(process, Signal::SIGTSTP);
        }
        wait_for_prompt(&terminal);
        assert!(terminal.screen().log.contains("Stopped"));
        terminal.press("echo still $((40 + 2)) here; fg\r");
        terminal.wait_for_log("still 42 here");
        terminal.wait_for(&["Containers 2", "49.9"]);
        assert!(terminal.screen().taken);
    }
    terminal.press("q");
    wait_for_prompt(&terminal);
    terminal.press("echo ended with $?\r");
    terminal.wait_for_log("ended with 0");
}

/// The shell takes what is typed from here on: what is typed before may go to the program that is
/// about to leave.
fn wait_for_prompt(terminal: &Terminal) {
    wait_until("the shell is back", || {
        let screen = terminal.screen();
        !screen.taken && !screen.hidden && screen.log.ends_with("\n> ")
    });
}

#[test]
fn it_ends_when_its_terminal_is_closed() {
    let broker = Broker::start();
    broker.fill();
    // In a session of its own no SIGHUP tells it: that nothing can be written does.
    for starter in ["", "setsid -w"] {
        let mut terminal = top_by(&broker, starter);
        terminal.wait_for(&["Containers 2"]);
        let process = terminal.process("aklight");
        terminal.close();
        wait_until("it ends", || !is_alive(process));
    }
}

#[test]
fn it_follows_the_size_of_its_terminal() {
    let broker = Broker::start();
    broker.fill();
    let terminal = top(&broker);
    terminal.wait_for(&["Containers 2"]);
    let pty = fs::read_link(format!("/proc/{}/fd/0", terminal.process("aklight"))).expect("a pty");
    let resize = |rows: &str, columns: &str| {
        let status = std::process::Command::new("stty")
            .args(["-F", pty.to_str().expect("text"), "rows", rows, "cols", columns])
            .status();
        assert!(status.expect("stty").success());
    };
    resize("20", "60");
    terminal.wait_for(&["needs 80 columns and 24 lines", "has 60 and 20"]);
    resize("24", "80");
    terminal.wait_for(&["Containers 2", "49.9"]);
}

#[test]
fn where_there_is_no_terminal_it_prints_once_or_says_what_does() {
    let broker = Broker::start();
    broker.fill();
    let output = run(&["top", &broker.flag()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("aklight tail") && text.contains("--once"), "{text}");

    broker.fill();
    let text = stdout_of(&["top", "--once", &broker.flag()]);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    let start: Vec<&str> = lines[2][..6].iter().map(|cell| cell.trim()).collect();
    assert_eq!(start, ["db", "web", "healthy", "12.5%", "200M / 256M", "78.0%"], "{text}");
    broker.fill();
    let one = ["top", "--once", "--match=+/api", "--output=json", &broker.flag()];
    let json: Value = serde_json::from_str(&stdout_of(&one)).expect("json");
    assert_eq!(json.as_array().map(Vec::len), Some(1));
    assert_eq!((&json[0]["name"], &json[0]["cpu_percent"]), (&json!("api"), &json!(49.9)));
    assert_eq!((&json[0]["pids"], &json[0]["silent"]), (&Value::Null, &json!(false)));
}
