//! Records in, screens out: the model by records as MONITORING.md writes them, the pages by what
//! stands on a terminal of 80 columns.

use std::time::Duration;

use aklight_common::client::{BrokerInfo, ClusterInfo, Message, PartitionInfo, SubscriptionEvent};
use aklight_common::{BrokerId, Offset, PartitionId, Topic};
use bytes::Bytes;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::app::{App, Effect};
use super::ask::{Answer, Ask, Members};
use super::draw::{Theme, draw};
use super::rows::Filter;

/// When the records below are from: a Thursday.
const NOW_MS: u64 = 1_795_651_200_000;

fn message(topic: &str, payload: &Value) -> Message {
    Message {
        topic: Topic::new(topic).expect("a topic"),
        offset: Offset(0),
        partition: PartitionId(0),
        key: Bytes::new(),
        payload: Bytes::from(payload.to_string()),
    }
}

/// A record that was measured so many seconds ago.
fn record(topic: &str, seconds_ago: u64, fields: &Value) -> Message {
    let mut payload = json!({ "ts": NOW_MS - seconds_ago * 1000, "value": 1, "unit": "x" });
    for (name, value) in fields.as_object().expect("fields") {
        payload[name] = value.clone();
    }
    message(topic, &payload)
}

fn app() -> App {
    let mut app = App::new(Filter::default(), "ada@desk".to_owned(), NOW_MS);
    app.hear(SubscriptionEvent::Connected { broker: "b1:7000".to_owned(), positions: Vec::new() });
    app
}

fn store(app: &mut App, messages: Vec<Message>) {
    app.answered(Answer::Stored(messages));
}

/// What a producer tells of a container that runs.
fn running(name: &str, cpu: f64, bytes: u64) -> Vec<Message> {
    let topic = |metric: &str| format!("metrics/docker/web/{name}/{metric}");
    vec![
        record(
            &format!("info/docker/web/{name}"),
            50,
            &json!({ "id": "0123456789ab", "image": format!("{name}:1"), "source": "cgroup v2",
                     "started": NOW_MS - 11_100_000, "limit_cpus": 0.5, "limit_bytes": 268_435_456 }),
        ),
        record(&topic("cpu"), 2, &json!({ "value": cpu / 2.0, "cpus": 4, "limit_cpus": 0.5 })),
        record(&topic("cpu"), 1, &json!({ "value": cpu, "cpus": 4, "limit_cpus": 0.5 })),
        record(
            &topic("memory"),
            1,
            &json!({ "value": bytes as f64 / 2_684_354.56, "bytes": bytes, "limit_bytes": 268_435_456 }),
        ),
        record(&topic("network"), 1, &json!({ "rx_bytes_s": 2048, "tx_bytes_s": 1e6 })),
        record(&topic("disk"), 1, &json!({ "read_bytes_s": 0, "written_bytes_s": 512 })),
        record(&topic("pids"), 1, &json!({ "value": 7, "limit": 100 })),
        record(&topic("restarts"), 1, &json!({ "value": 0 })),
        record(&topic("state"), 1, &json!({ "state": "running", "health": "healthy" })),
    ]
}

/// What it tells of one that ended.
fn ended(name: &str, exit_code: i64, oom_killed: bool) -> Vec<Message> {
    let topic = |metric: &str| format!("metrics/docker/web/{name}/{metric}");
    let state = json!({ "value": 0, "state": "exited", "health": "none", "exit_code": exit_code,
                        "oom_killed": oom_killed, "failed": i32::from(exit_code != 0) });
    vec![record(&topic("state"), 1, &state), record(&topic("restarts"), 1, &json!({ "value": 3 }))]
}

fn host() -> Vec<Message> {
    let topic = |metric: &str| format!("metrics/docker/web/{metric}");
    vec![
        record(&topic("cpu"), 1, &json!({ "value": 130, "cpus": 4 })),
        record(
            &topic("memory"),
            1,
            &json!({ "value": 25, "bytes": 4_294_967_296_u64, "limit_bytes": 17_179_869_184_u64 }),
        ),
        record(&topic("network"), 1, &json!({ "rx_bytes_s": 5e6, "tx_bytes_s": 1e3 })),
        record(&topic("disk"), 1, &json!({ "fs_used_percent": 61.5 })),
        record(&topic("cost"), 1, &json!({ "value": 0.4, "bytes": 14_680_064 })),
    ]
}

fn alert(state: &str, fields: &Value) -> Message {
    let mut all = json!({
        "state": state, "rule": "memory-high", "topic": "metrics/docker/web/db/memory",
        "severity": "critical", "value": 97.3, "unit": "percent", "limit": "> 90",
        "since": NOW_MS - 240_000, "consumer": "c", "text": "metrics/docker/web/db/memory is 97.3 %, limit > 90, for 30s",
    });
    for (name, value) in fields.as_object().expect("fields") {
        all[name] = value.clone();
    }
    record("alerts/memory-high/metrics/docker/web/db/memory", 3, &all)
}

/// A host with three containers.
fn room() -> App {
    let mut app = app();
    let mut messages = [
        host(),
        running("db", 12.5, 255 << 20),
        running("api", 49.9, 100 << 20),
        ended("batch", 137, true),
    ]
    .concat();
    messages.push(alert("firing", &json!({})));
    store(&mut app, messages);
    app
}

fn press(app: &mut App, keys: &str) -> Option<Effect> {
    let mut effect = None;
    for key in keys.chars() {
        let code = match key {
            '⏎' => KeyCode::Enter,
            '⎋' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            key => KeyCode::Char(key),
        };
        effect = app.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    effect
}

fn control(app: &mut App, key: char) -> Option<Effect> {
    app.press(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL))
}

/// What stands on a screen of that size, without blanks at the ends of lines.
fn screen(app: &mut App, columns: u16, lines: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("a terminal");
    terminal.draw(|frame| draw(app, Theme::new(false), frame)).expect("drawn");
    let buffer = terminal.backend().buffer();
    (0..lines)
        .map(|y| {
            let mut line = String::new();
            let mut x = 0;
            while x < columns {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                x += u16::try_from(ratatui::text::Span::raw(symbol).width().max(1)).expect("small");
            }
            line.trim_end().to_owned()
        })
        .collect()
}

fn check(app: &mut App, expect: &str) {
    let lines = screen(app, 80, 24);
    let shown = lines.join("\n");
    let expect = expect.trim_start_matches('\n').trim_end();
    assert_eq!(shown.trim_end(), expect, "\n--- shown:\n{shown}\n--- expected:\n{expect}");
}

fn names(app: &App) -> Vec<String> {
    app.rows().iter().map(|row| row.name.clone()).collect()
}

#[test]
fn the_list_shows_each_container_as_it_is() {
    check(&mut room(), include_str!("tests/list.txt"));
}

#[test]
fn a_container_is_shown_with_its_charts_and_its_last_minute() {
    let mut app = room();
    assert!(matches!(press(&mut app, "n↓↓⏎"), Some(Effect::Ask(Ask::Everything(_)))));
    let key = app.detail.as_ref().expect("open").key.clone();
    let samples = (1..=60_u64).map(|second| {
        let percent = if second > 30 { 40 } else { 10 };
        record("metrics/docker/web/db/cpu", second * 4, &json!({ "value": percent, "cpus": 4 }))
    });
    let climb: Vec<u64> = (0..60).map(|n| n * 100 / 60).collect();
    let died = json!({ "event": "die", "exit_code": 137, "oom_killed": true, "failed": 1,
                       "last_cpu": vec![10; 60], "last_memory": climb });
    let mut stored: Vec<Message> = samples.collect();
    stored.push(record("events/docker/web/db", 200, &died));
    stored.push(record("events/docker/web/db", 190, &json!({ "event": "start" })));
    app.answered(Answer::Everything(key, stored, Vec::new()));
    check(&mut app, include_str!("tests/container.txt"));
}

#[test]
fn longer_charts_come_from_rollups() {
    let mut app = room();
    press(&mut app, "n↓↓⏎");
    let key = app.detail.as_ref().expect("open").key.clone();
    let minutes = (1..60_u64).map(|minute| {
        let topic = "rollup/1m/metrics/docker/web/db/cpu";
        record(topic, minute * 60, &json!({ "value": minute, "count": 60 }))
    });
    app.answered(Answer::Everything(key, Vec::new(), minutes.collect()));
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("-5m") && !shown.contains("60%"), "{shown}");
    press(&mut app, "t");
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("-1h") && shown.contains("60%"), "{shown}");
}

#[test]
fn alerts_are_shown_with_what_people_did_about_them() {
    let mut app = room();
    store(
        &mut app,
        vec![record(
            "alerts/stopped/metrics/docker/web/batch/state",
            600,
            &json!({ "state": "ok", "rule": "stopped", "severity": "warning", "text": "it runs again" }),
        )],
    );
    press(&mut app, "2");
    check(&mut app, include_str!("tests/alerts.txt"));
    store(&mut app, vec![alert("firing", &json!({ "acknowledged_by": "bob@desk" }))]);
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("● seen") && shown.contains("acknowledged by bob@desk"), "{shown}");
    store(&mut app, vec![alert("firing", &json!({ "muted_until": NOW_MS + 1_800_000 }))]);
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("● muted") && shown.contains("muted for 30m"), "{shown}");
}

#[test]
fn what_is_done_about_an_alert_is_a_record() {
    let mut app = room();
    let expect = [
        (
            "2a",
            json!({ "ts": NOW_MS, "action": "acknowledge", "rule": "memory-high",
                       "match": "metrics/docker/web/db/memory", "by": "ada@desk" }),
        ),
        (
            "m",
            json!({ "ts": NOW_MS, "action": "mute", "rule": "memory-high",
                      "match": "metrics/docker/web/db/memory", "by": "ada@desk",
                      "until": NOW_MS + 3_600_000 }),
        ),
        (
            "u",
            json!({ "ts": NOW_MS, "action": "unmute", "rule": "memory-high",
                      "match": "metrics/docker/web/db/memory", "by": "ada@desk" }),
        ),
    ];
    for (keys, expect) in expect {
        let Some(Effect::Ask(Ask::Act(deed, about, record))) = press(&mut app, keys) else {
            panic!("{keys} does nothing");
        };
        assert_eq!(serde_json::from_str::<Value>(&record).expect("json"), expect);
        app.answered(Answer::Acted(deed, about));
        let shown = screen(&mut app, 80, 24);
        assert!(shown[23].contains("memory-high of web/db memory"), "{shown:?}");
    }
}

#[test]
fn the_cluster_is_shown_by_what_every_broker_tells() {
    let members = |end: u64, at_ms: u64| {
        let brokers = [(1, "alive"), (2, "dead")].map(|(id, state)| BrokerInfo {
            id: BrokerId(id),
            address: format!("b{id}:7000"),
            state: state.to_owned(),
        });
        let partition = PartitionInfo {
            id: PartitionId(0),
            leader: Some(BrokerId(1)),
            start: Offset(100),
            end: Offset(end),
        };
        let info = ClusterInfo { brokers: brokers.to_vec(), partitions: vec![partition] };
        Answer::Cluster(Box::new(Members { info, view: None, at_ms }))
    };
    let mut app = room();
    assert!(matches!(press(&mut app, "3"), Some(Effect::Ask(Ask::Cluster))));
    app.answered(members(1_000, NOW_MS));
    app.answered(members(1_900, NOW_MS + 2_000));
    check(&mut app, include_str!("tests/cluster.txt"));
}

#[test]
fn the_list_is_sorted_by_any_column_both_ways() {
    let mut app = room();
    let expect = [
        ("", "api db batch"),
        ("r", "batch db api"),
        ("n", "api batch db"),
        ("n", "db batch api"),
        ("m", "db api batch"),
        ("s", "api db batch"),
        ("nsS", "api batch db"),
        ("s", "batch api db"),
    ];
    for (keys, names_then) in expect {
        press(&mut app, keys);
        assert_eq!(names(&app).join(" "), names_then, "{keys}: {:?}", app.sort);
    }
}

#[test]
fn the_list_is_filtered_by_a_part_of_a_name_or_by_a_pattern() {
    let mut app = room();
    let expect = [
        ("/DB", "db"),
        ("⎋/ba", "batch"),
        ("⎋", "api db batch"),
        ("/oom-kill⏎", "batch"),
        ("⎋", "api db batch"),
        ("/api:1⏎⎋/web/d", "db"),
        ("⎋/metrics/docker/+/db/#", "db"),
        ("⎋/+/api/+", ""),
        ("⎋/+/api", "api"),
        ("⎋/metrics/docker/+/+/pids", "api db batch"),
        ("⎋/db+", "api db batch"),
    ];
    for (keys, names_then) in expect {
        press(&mut app, keys);
        assert_eq!(names(&app).join(" "), names_then, "{keys}");
    }
    let shown = screen(&mut app, 80, 24);
    assert!(shown[23].contains("stand for whole levels"), "{shown:?}");
}

#[test]
fn what_is_selected_stays_so_when_the_list_is_sorted_anew() {
    let mut app = room();
    press(&mut app, "↓");
    assert_eq!(app.selected.as_ref().map(|key| key.container.as_str()), Some("db"));
    press(&mut app, "r⏎");
    assert_eq!(app.detail.as_ref().map(|detail| detail.key.container.as_str()), Some("db"));
}

#[test]
fn a_late_sample_changes_no_present_number() {
    let mut app = room();
    let late = json!({ "value": 400, "cpus": 4, "late": true });
    app.hear(SubscriptionEvent::Message(record("metrics/docker/web/db/cpu", 90, &late)));
    let rows = app.rows();
    let db = rows.iter().find(|row| row.name == "db").expect("there");
    assert_eq!(db.container.usage.cpu.get().map(|cpu| cpu.percent), Some(12.5));
    assert_eq!(db.container.usage.cpu_series.iter().next(), Some((NOW_MS - 90_000, 400.0)));
}

#[test]
fn a_removed_container_vanishes_and_its_last_samples_bring_no_ghost() {
    let mut app = room();
    let gone = record("info/docker/web/db", 0, &json!({ "value": 0 }));
    app.hear(SubscriptionEvent::Message(gone));
    assert_eq!(names(&app), ["api", "batch"]);
    let ghost = record("metrics/docker/web/db/cpu", 1, &json!({ "value": 5 }));
    app.hear(SubscriptionEvent::Message(ghost));
    assert_eq!(names(&app), ["api", "batch"]);
    app.now_ms += 5_000;
    let again = json!({ "ts": NOW_MS + 5_000, "value": 1, "image": "db:2" });
    app.hear(SubscriptionEvent::Message(message("info/docker/web/db", &again)));
    assert_eq!(names(&app), ["api", "db", "batch"]);
}

#[test]
fn what_is_silent_is_grey_and_in_time_gone() {
    let mut app = room();
    app.tick(NOW_MS + 20_000);
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("○ silent 21s"), "{shown}");
    let sample = json!({ "ts": NOW_MS - 7_200_000, "value": 1, "state": "running" });
    // The other machine's clock may be hours behind: what comes now is present.
    app.hear(SubscriptionEvent::Message(message("metrics/docker/web/db/state", &sample)));
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("● healthy"), "{shown}");
    app.tick(NOW_MS + 3_610_000);
    assert_eq!(names(&app), ["db"]);
}

#[test]
fn a_name_can_neither_break_the_list_nor_speak_to_the_terminal() {
    let mut app = app();
    let names =
        ["a".repeat(120), "数据库数据库数据库数据库数据库".to_owned(), "x%1B[2J%2Fy".to_owned()];
    let messages = names.iter().flat_map(|name| running(name, 10.0, 1 << 20)).collect();
    store(&mut app, messages);
    let shown = screen(&mut app, 80, 24);
    for (line, name) in shown[3..].iter().zip(["aaaaa", "x\\u{1b}[2J/y", "数据库"]) {
        let width = ratatui::text::Span::raw(line.as_str()).width();
        assert!(line.contains(name) && width <= 80, "{line}");
        assert!(line.contains("● healthy") && line.contains("10.0"), "{line}");
    }
}

#[test]
fn an_empty_list_says_what_fills_it() {
    let mut app = app();
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("Reading what is stored"), "{shown}");
    assert!(matches!(app.answered(Answer::Stored(Vec::new())), Some(Ask::LastMinutes)));
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("aklight producer") && shown.contains("aklight up"), "{shown}");
    let mut app = room();
    press(&mut app, "/nobody");
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("0 of 3") && shown.contains("esc shows all"), "{shown}");
}

#[test]
fn what_was_not_answered_is_asked_again() {
    let mut app = app();
    for _ in 0..2 {
        assert!(matches!(app.tick(NOW_MS), Some(Ask::Newest)));
        assert!(app.tick(NOW_MS).is_none(), "once is enough");
        app.answered(Answer::Failed(Ask::Newest, "no broker answers".to_owned()));
    }
    let shown = screen(&mut app, 80, 24);
    assert!(shown[23].contains("no broker answers"), "{shown:?}");
}

#[test]
fn a_lost_connection_is_told_and_so_is_its_return() {
    let mut app = room();
    app.hear(SubscriptionEvent::Disconnected {
        reason: "connection refused".to_owned(),
        retry_in: Duration::from_millis(2_300),
    });
    let shown = screen(&mut app, 100, 24);
    assert!(shown[0].contains("○ lost, trying again in 3s: connection refused"), "{}", shown[0]);
    let connected =
        SubscriptionEvent::Connected { broker: "b2:7000".to_owned(), positions: Vec::new() };
    app.hear(connected);
    let shown = screen(&mut app, 100, 24);
    assert!(shown[0].contains("● b2:7000") && shown[23].contains("connected to b2:7000 again"));
    app.tick(NOW_MS + 7_000);
    let shown = screen(&mut app, 100, 24);
    assert!(shown[23].contains("q quit"), "{}", shown[23]);
}

#[test]
fn a_small_terminal_is_told_how_large_it_must_be() {
    let shown = screen(&mut room(), 79, 24).join("\n");
    assert!(shown.contains("80 columns and 24 lines") && shown.contains("79 and 24"), "{shown}");
    screen(&mut room(), 1, 1);
}

#[test]
fn no_page_of_any_size_panics() {
    let mut app = room();
    for keys in ["", "?", "x⏎", "t", "⎋2", "3", "/long filter⏎"] {
        press(&mut app, keys);
        for (columns, lines) in [(80, 24), (81, 25), (119, 30), (200, 60), (400, 100)] {
            screen(&mut app, columns, lines);
        }
    }
}

#[test]
fn ctrl_c_ends_with_130_and_q_with_0_but_not_while_one_types() {
    let mut app = room();
    press(&mut app, "/");
    assert!(press(&mut app, "q").is_none());
    assert_eq!(app.filter.text(), "q");
    assert!(matches!(control(&mut app, 'c'), Some(Effect::End(130))));
    press(&mut app, "⎋");
    assert!(matches!(press(&mut app, "q"), Some(Effect::End(0))));
    assert!(matches!(control(&mut app, 'z'), Some(Effect::Suspend)));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut app = app();
    for n in 0..2_100 {
        let sample = record(&format!("metrics/docker/web/c{n}/cpu"), 1, &json!({}));
        app.hear(SubscriptionEvent::Message(sample));
    }
    for n in 0..1_100 {
        let topic = format!("alerts/r{n}/metrics/docker/web/db/cpu");
        app.hear(SubscriptionEvent::Message(record(&topic, 1, &json!({ "state": "firing" }))));
    }
    for n in 0..300 {
        let sample = record(&format!("metrics/docker/h{n}/cpu"), 1, &json!({}));
        app.hear(SubscriptionEvent::Message(sample));
    }
    let model = &app.model;
    assert_eq!((model.containers.len(), model.alerts.len(), model.hosts.len()), (2000, 1000, 256));
    let shown = screen(&mut app, 120, 24).join("\n");
    assert!(shown.contains("some are left out"), "{shown}");
}
