//! The records over HTTP, and the page: one test a rule.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{BrokerProcess, Nc, PATIENCE, get, json, post, try_http};

fn broker() -> (tempfile::TempDir, BrokerProcess) {
    started_with(&[])
}

fn started_with(flags: &[&str]) -> (tempfile::TempDir, BrokerProcess) {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start_with(folder.path(), flags);
    (folder, broker)
}

/// DJB2 of the key, mod 2.
fn partition_of(key: &str) -> u32 {
    key.bytes().fold(5381_u32, |h, b| h.wrapping_mul(33).wrapping_add(u32::from(b))) % 2
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn produce(nc: &mut Nc, topic: &str, payload: &Value) {
    let answer = nc.ask(&format!("PRODUCE|{topic}|k|{payload}"));
    assert!(answer.starts_with("ACK|"), "{answer}");
}

/// The whole answer to a request, headers too.
fn raw(address: SocketAddr, head: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    write!(socket, "{head}Connection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    answer
}

/// A stream of server-sent events.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(address: SocketAddr, path: &str) -> Self {
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        reader.read_line(&mut line).expect("a status");
        assert!(line.contains(" 200 "), "{line}");
        Self(reader)
    }

    /// The next event and its data; nothing at the end.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("the stream goes on") == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                event.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).expect("JSON")));
            }
        }
    }
}

#[test]
fn last_shows_the_newest_record_of_each_topic() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    produce(&mut nc, "a/x", &json!({"value": 1}));
    produce(&mut nc, "a/x", &json!({"value": 2}));
    nc.ask("PRODUCE|a/y||<b>no JSON</b>");
    produce(&mut nc, "b/z", &json!({"value": 4}));
    let last = json(broker.http, "/api/last?match=a/%2B|b/%23");
    let shown: Vec<_> = last["records"].as_array().expect("a list").iter().collect();
    let payloads: Vec<_> = shown.iter().map(|record| record["payload"].clone()).collect();
    assert_eq!(payloads, [json!({"value": 2}), json!("<b>no JSON</b>"), json!({"value": 4})]);
    assert_eq!(shown[0]["topic"], "a/x");
    assert!(shown[0]["time"].as_u64() <= last["now"].as_u64());
    assert_eq!(last["left_out"], 0);
    // Those that had a record last, still by their names.
    produce(&mut nc, "a/x", &json!({"value": 5}));
    let last = json(broker.http, "/api/last?match=a/%2B|b/%23&limit=2");
    let shown = last["records"].as_array().expect("a list").iter();
    let shown: Vec<_> = shown.map(|record| record["topic"].clone()).collect();
    assert_eq!((shown, &last["left_out"]), (vec![json!("a/x"), json!("b/z")], &json!(1)));
    // Those that say something, however long ago.
    produce(&mut nc, "b/y", &json!({"state": "firing"}));
    produce(&mut nc, "b/z", &json!({"state": "ok"}));
    let last = json(broker.http, "/api/last?match=a/%2B|b/%23&where=state%3Dfiring");
    assert_eq!(last["records"].as_array().expect("a list").len(), 1);
    assert_eq!(last["records"][0]["topic"], "b/y");
}

#[test]
fn a_short_history_is_read_from_samples_by_the_time_they_were_measured() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    let from = now_ms() - 100_000;
    // The second came in late, behind what was measured after it.
    for (second, value) in [(1, 10.0), (30, 4.0), (2, 30.0), (31, 8.0)] {
        let ts = from + second * 1000;
        let sample = json!({"ts": ts, "value": value, "unit": "percent", "bytes": value * 100.0});
        produce(&mut nc, "metrics/docker/h/web/memory", &sample);
    }
    let path = format!(
        "/api/history?match=metrics/docker/h/%2B/memory&from={from}&to={}&points=4&fields=value,bytes",
        from + 100_000
    );
    let history = json(broker.http, &path);
    let lines = history["series"].as_array().expect("a list");
    assert_eq!(history["step"], 25_000);
    assert_eq!(
        lines[0]["points"],
        json!([[from, 20.0, 10.0, 30.0], [from + 25_000, 6.0, 4.0, 8.0]])
    );
    assert_eq!(lines[0]["source"], "samples");
    assert_eq!(lines[0]["unit"], "percent");
    assert_eq!(lines[1]["field"], "bytes");
    assert_eq!(lines[1]["points"][0], json!([from, 2000.0, 1000.0, 3000.0]));
}

#[test]
fn a_long_history_is_read_from_minutes_and_ends_with_samples() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    let to = now_ms();
    let minute = |back: u64| (to / 60_000 - back) * 60_000;
    for back in [50, 3, 2] {
        let record = json!({"ts": minute(back), "value": back, "min": 0, "max": 99, "count": 60, "unit": "percent"});
        produce(&mut nc, "rollup/1m/metrics/docker/h/cpu", &record);
    }
    // One that the minute's record holds already, one that is newer.
    for ts in [minute(2) + 5000, to - 1000] {
        produce(&mut nc, "metrics/docker/h/cpu", &json!({"ts": ts, "value": 7, "unit": "percent"}));
    }
    // One without minutes' records is read from its samples.
    produce(&mut nc, "metrics/docker/g/cpu", &json!({"ts": to - 2_000_000, "value": 5}));
    let from = to - 3_600_000;
    let path = format!("/api/history?match=metrics/docker/%2B/cpu&from={from}&to={to}&points=1000");
    let history = json(broker.http, &path);
    let lines = history["series"].as_array().expect("a list");
    let line = |topic: &str| {
        let topic = format!("metrics/docker/{topic}/cpu");
        lines.iter().find(|line| line["topic"] == topic.as_str()).expect("there").clone()
    };
    let means: Vec<_> =
        line("h")["points"].as_array().expect("a list").iter().map(|p| p[1].clone()).collect();
    assert_eq!(means, [json!(50.0), json!(3.0), json!(2.0), json!(7.0)]);
    assert_eq!(line("h")["source"], "rollup/1m");
    assert_eq!(
        (&line("g")["source"], &line("g")["points"][0][1]),
        (&json!("samples"), &json!(5.0))
    );
}

#[test]
fn a_day_is_read_from_five_minutes_and_goes_on_with_minutes_and_samples() {
    const MINUTE: u64 = 60_000;
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    let to = now_ms() / (5 * MINUTE) * (5 * MINUTE);
    let rollup = |back: u64, value: u64| json!({"ts": to - back * MINUTE, "value": value, "min": 0, "max": 99, "count": 1});
    let sample = |back_ms: u64, value: u64| json!({"ts": to - back_ms, "value": value});
    for (back, value) in [(1000, 200), (25, 5), (15, 3)] {
        produce(&mut nc, "rollup/5m/metrics/docker/h/cpu", &rollup(back, value));
    }
    // The first is in the last five minutes, another where five minutes are missing: it was started anew.
    for (back, value) in [(11, 50), (18, 60), (10, 20), (2, 30)] {
        produce(&mut nc, "rollup/1m/metrics/docker/h/cpu", &rollup(back, value));
    }
    // The first is in the last minute.
    for (back_ms, value) in [(MINUTE + 1, 50), (1000, 7)] {
        produce(&mut nc, "metrics/docker/h/cpu", &sample(back_ms, value));
    }
    // One whose producer made no records of five minutes at first.
    produce(&mut nc, "rollup/1m/metrics/docker/old/cpu", &rollup(1200, 80));
    produce(&mut nc, "rollup/1m/metrics/docker/old/cpu", &rollup(5, 40));
    produce(&mut nc, "rollup/5m/metrics/docker/old/cpu", &rollup(5, 60));
    // One that is too young for five minutes, and one without any rollup.
    produce(&mut nc, "rollup/1m/metrics/docker/young/cpu", &rollup(4, 4));
    produce(&mut nc, "metrics/docker/young/cpu", &sample(1000, 5));
    produce(&mut nc, "metrics/docker/g/cpu", &sample(2_000_000, 6));
    let from = to - 86_400_000;
    let lines = |points: u64| {
        let path = format!(
            "/api/history?match=metrics/docker/%2B/cpu&from={from}&to={to}&points={points}"
        );
        let history = json(broker.http, &path);
        let line = |line: &Value| {
            let topic = line["topic"].as_str().expect("a text").to_owned();
            let points = line["points"].as_array().expect("a list").iter();
            let means: Vec<_> = points.map(|point| point[1].as_f64().expect("a number")).collect();
            (topic, line["source"].as_str().expect("a text").to_owned(), means)
        };
        let lines: Vec<_> =
            history["series"].as_array().expect("a list").iter().map(line).collect();
        lines
    };
    let line = |topic: &str, source: &str, means: &[f64]| {
        (format!("metrics/docker/{topic}/cpu"), source.to_owned(), means.to_owned())
    };
    assert_eq!(
        lines(288),
        [
            line("h", "rollup/5m", &[200.0, 5.0, 60.0, 3.0, 20.0, 18.5]),
            line("old", "rollup/5m", &[80.0, 60.0]),
            line("young", "rollup/1m", &[4.5]),
            line("g", "samples", &[6.0]),
        ]
    );
    // Steps that are shorter than five minutes are made of minutes.
    assert_eq!(lines(360)[0], line("h", "rollup/1m", &[60.0, 35.0, 18.5]));
}

#[test]
fn both_directions_are_told_from_minutes_and_up_to_now() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    let to = now_ms();
    let minute = |back: u64| (to / 60_000 - back) * 60_000;
    // Its producer did not tell directions apart before.
    let before = json!({"ts": minute(50), "value": 9, "min": 9, "max": 9, "count": 60});
    let since = json!({"ts": minute(3), "value": 7, "min": 1, "max": 9, "count": 60,
        "rx_bytes_s": 5, "rx_bytes_s_min": 1, "rx_bytes_s_max": 6,
        "tx_bytes_s": 2, "tx_bytes_s_min": 0, "tx_bytes_s_max": 3});
    for record in [before, since] {
        produce(&mut nc, "rollup/1m/metrics/docker/h/web/network", &record);
    }
    let newest = json!({"ts": to - 1000, "value": 12, "rx_bytes_s": 8, "tx_bytes_s": 4});
    produce(&mut nc, "metrics/docker/h/web/network", &newest);
    let from = to - 3_600_000;
    let path = format!(
        "/api/history?match=metrics/docker/h/web/%2B&from={from}&to={to}&points=1000&fields=value,rx_bytes_s,tx_bytes_s"
    );
    let history = json(broker.http, &path);
    let lines: Vec<_> = history["series"].as_array().expect("a list").iter().map(numbers).collect();
    assert_eq!(
        lines,
        [
            json!(["value", [[9.0, 9.0, 9.0], [7.0, 1.0, 9.0], [12.0, 12.0, 12.0]]]),
            json!(["rx_bytes_s", [[5.0, 1.0, 6.0], [8.0, 8.0, 8.0]]]),
            json!(["tx_bytes_s", [[2.0, 0.0, 3.0], [4.0, 4.0, 4.0]]]),
        ]
    );
}

/// A line's field, and its points without their times.
fn numbers(line: &Value) -> Value {
    let points = line["points"].as_array().expect("a list").iter();
    let points: Vec<_> = points.map(|point| json!([point[1], point[2], point[3]])).collect();
    json!([line["field"], points])
}

#[test]
fn records_come_newest_first_from_every_partition() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    for n in 0..20 {
        // Without a key they go round the partitions.
        nc.ask(&format!("PRODUCE|events/docker/h/web||{{\"n\":{n}}}"));
        nc.ask("PRODUCE|other||{}");
    }
    let records = json(broker.http, "/api/records?match=events/%23&limit=5");
    let numbers = records["records"].as_array().expect("a list").iter();
    let numbers: Vec<_> = numbers.map(|record| record["payload"]["n"].as_u64()).collect();
    assert_eq!(numbers, [Some(19), Some(18), Some(17), Some(16), Some(15)]);
    assert_eq!(records["whole"], true);
    let before = records["records"][4]["time"].as_u64().expect("a time");
    let older = json(broker.http, &format!("/api/records?match=events/%23&to={before}&limit=1000"));
    assert!(older["records"].as_array().expect("a list").len() <= 15);
    let later = before + 3_600_000;
    let none = json(broker.http, &format!("/api/records?match=events/%23&from={later}"));
    assert_eq!(none["records"], json!([]));
}

#[test]
fn a_stream_brings_what_is_committed_and_ends_with_the_broker() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    produce(&mut nc, "a", &json!({"value": "before"}));
    let mut events = Events::open(broker.http, "/api/live?match=a|b/%23");
    assert_eq!(events.next().expect("begins").0, "hello");
    let sent = Instant::now();
    produce(&mut nc, "c", &json!({"value": "not asked for"}));
    produce(&mut nc, "b/x", &json!({"value": 1}));
    let (name, records) = events.next().expect("goes on");
    assert_eq!(name, "records");
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    assert_eq!(records[0]["topic"], "b/x");
    assert_eq!(records[0]["payload"], json!({"value": 1}));
    assert_eq!(records.as_array().expect("a list").len(), 1);
    assert_eq!(events.next().expect("it says that it is alive").0, "alive");
    let ending = std::thread::spawn(move || broker.terminate());
    let (name, said) = events.next().expect("a last word");
    assert_eq!(name, "cut");
    assert!(said["error"].as_str().expect("a text").contains("ending"), "{said}");
    assert_eq!(events.next(), None);
    assert!(ending.join().expect("it ends").success());
}

#[test]
fn who_reads_a_stream_too_slowly_is_told_and_cut_off() {
    let (_folder, broker) = broker();
    let mut events = Events::open(broker.http, "/api/live?match=t");
    assert_eq!(events.next().expect("begins").0, "hello");
    let mut nc = broker.connect();
    assert_eq!(nc.ask("REGISTER_PRODUCER|p|cumulative"), "OK");
    // More than the sockets hold, and the stream may be behind: 100,000 records of 300 bytes.
    let record = format!("PRODUCE|t|k|{}\n", "x".repeat(300));
    for _ in 0..100 {
        nc.send_bytes(record.repeat(1000).as_bytes());
    }
    nc.send("PING|all");
    while nc.line().expect("an answer") != "PONG|all" {}
    // One that is not cut off comes to the end of what there is, and is told that it is alive.
    let mut rest = std::iter::from_fn(|| events.next());
    let last = rest.find(|(name, _)| name != "records").expect("a last word");
    assert_eq!(last.0, "cut");
    assert!(last.1["error"].as_str().expect("a text").contains("too slowly"), "{}", last.1);
}

#[test]
fn more_than_one_question_may_read_is_answered_in_part_and_says_so() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    let fill = "x".repeat(1_000_000);
    let line = format!("PRODUCE|t|k|{}", json!({"value": 1, "fill": fill}));
    (0..72).for_each(|_| nc.send(&line));
    (0..72).for_each(|n| assert_eq!(nc.line(), Some(format!("ACK|t|{n}|{}", partition_of("k")))));
    let records = json(broker.http, "/api/records?match=t&limit=1000");
    assert_eq!(records["whole"], false);
    assert!(records["left_out"].as_u64() > Some(0), "{}", records["left_out"]);
    let from = now_ms() - 3_600_000;
    let history = json(broker.http, &format!("/api/history?match=t&points=4&from={from}"));
    assert_eq!(history["series"][0]["source"], "sampled");
    assert_eq!(history["series"][0]["points"].as_array().expect("a list").len(), 1);
}

#[test]
fn streams_never_take_every_connection() {
    let (_folder, broker) = broker();
    let streams: Vec<_> = (0..32).map(|_| Events::open(broker.http, "/api/live?match=a")).collect();
    let mut one_more = TcpStream::connect(broker.http).expect("it listens");
    write!(one_more, "GET /api/live?match=a HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
    let mut status = String::new();
    BufReader::new(one_more).read_line(&mut status).expect("an answer");
    assert!(status.contains(" 503 "), "{status}");
    assert_eq!(get(broker.http, "/livez").0, 200);
    drop(streams);
}

#[test]
fn what_people_do_about_alerts_becomes_a_record() {
    let (_folder, broker) = broker();
    let until = now_ms() + 3_600_000;
    let action = json!({"action": "mute", "rule": "cpu-high", "match": "metrics/docker/+/cpu", "until": until, "reason": "a \\ night"});
    let (status, said) = post(broker.http, "/api/alerts/actions", &action.to_string());
    assert_eq!((status, said.contains("muted: cpu-high")), (200, true), "{said}");
    let last = json(broker.http, "/api/last?match=actions/alerts");
    let mut stored = last["records"][0]["payload"].clone();
    let ts = stored.as_object_mut().expect("an object").remove("ts").expect("a time");
    assert!(ts.as_u64() <= last["now"].as_u64());
    let mut expected = action;
    expected["by"] = json!("page");
    assert_eq!(stored, expected);
    // It is a record as any other.
    let line = broker.connect().listing("LAST|actions/alerts").remove(0);
    assert!(line.starts_with("MESSAGE|actions/alerts|0|") && line.contains("|alerts|{"), "{line}");
}

#[test]
fn what_makes_no_sense_is_told_so() {
    let (_folder, broker) = broker();
    for (path, said) in [
        ("/api/last", "match"),
        ("/api/last?match=a%23", "whole levels"),
        ("/api/last?match=a&wrong=1", "wrong"),
        ("/api/last?match=a&where=state", "a field"),
        ("/api/history?match=a&points=0", "from 1 to 1000"),
        ("/api/history?match=a&from=2&to=1", "before to"),
        ("/api/history?match=a&from=yesterday", "from"),
        ("/api/records?match=a&limit=1001", "from 1 to 1000"),
        ("/api/live?match=", "no pattern"),
    ] {
        let (status, body) = get(broker.http, path);
        assert_eq!(status, 400, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert!(body["error"].as_str().expect("a text").contains(said), "{path}: {body}");
    }
    let (status, said) =
        post(broker.http, "/api/alerts/actions", r#"{"action":"mute","rule":"a","match":"a"}"#);
    assert_eq!((status, said.contains("give until")), (400, true), "{said}");
}

#[test]
fn pages_of_elsewhere_are_kept_out() {
    let (_folder, broker) = started_with(&["--http-hosts", "mon.example.com"]);
    let action = r##"{"action":"acknowledge","rule":"+","match":"#"}"##;
    let json_type = "Content-Type: application/json\r\n";
    let post = |headers: &str| {
        let head = format!("POST /api/alerts/actions HTTP/1.1\r\n{headers}");
        try_http(broker.http, &head, action).expect("HTTP is served").0
    };
    assert_eq!(
        post(&format!("{json_type}Host: localhost:1\r\nOrigin: http://localhost:1\r\n")),
        200
    );
    assert_eq!(
        post(&format!("{json_type}Host: mon.example.com\r\nOrigin: https://mon.example.com\r\n")),
        200
    );
    assert_eq!(post(&format!("{json_type}Host: localhost:1\r\nOrigin: http://evil.com\r\n")), 403);
    assert_eq!(post(&format!("{json_type}Host: evil.com\r\nOrigin: http://evil.com\r\n")), 403);
    assert_eq!(post("Content-Type: text/plain\r\nHost: localhost\r\n"), 415);
    for (path, status) in [
        ("/", 403),
        ("/api/last?match=a", 403),
        ("/cluster", 403),
        ("/livez", 200),
        ("/metrics", 200),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: evil.com:7070\r\n");
        assert_eq!(try_http(broker.http, &head, "").expect("served").0, status, "{path}");
    }
}

#[test]
fn the_page_comes_with_its_policy_and_is_known_again() {
    let (_folder, broker) = broker();
    let page = raw(broker.http, "GET / HTTP/1.1\r\nHost: x\r\n");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let policy = page.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
    assert!(policy.expect("a policy").starts_with("default-src 'none'; script-src 'self';"));
    assert!(page.contains("nosniff"), "{page}");
    let tag = page.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
    let again = raw(broker.http, &format!("GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n"));
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    // Whatever the page names is there, and nothing of it is elsewhere.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
    for file in std::fs::read_dir(folder).expect("the page's files") {
        let name = file.expect("a file").file_name().into_string().expect("text");
        let (status, body) = get(
            broker.http,
            &if name == "index.html" { "/".to_owned() } else { format!("/page/{name}") },
        );
        assert_eq!(status, 200, "{name}");
        let elsewhere = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{name}");
    }
    assert_eq!(get(broker.http, "/page/none.js").0, 404);
}

#[test]
fn containers_have_the_names_that_dashboards_ask_for() {
    for (names, some) in [
        (
            "otel",
            "container_memory_usage_bytes{container_name=\"a/b\",container_id=\"abc\",container_image_name=\"nginx\",host_name=\"h\"} 1024",
        ),
        (
            "cadvisor",
            "container_memory_working_set_bytes{id=\"/docker/abc\",name=\"a/b\",image=\"nginx\",host=\"h\"} 1024",
        ),
    ] {
        let hosts = ["--http-hosts", "prometheus.example.com"];
        let (_folder, broker) = started_with(&[&["--metric-names", names], &hosts[..]].concat());
        let mut nc = broker.connect();
        let ts = now_ms();
        for (topic, payload) in [
            (
                "metrics/docker/h/a%2Fb/memory",
                json!({"ts": ts, "value": 1, "unit": "percent", "bytes": 1024}),
            ),
            ("metrics/docker/h/a%2Fb/cpu", json!({"ts": ts, "value": 50, "unit": "percent"})),
            ("info/docker/h/a%2Fb", json!({"ts": ts, "value": 1, "id": "abc", "image": "nginx"})),
            (
                "metrics/docker/h/gone/memory",
                json!({"ts": ts, "value": 1, "unit": "percent", "bytes": 1}),
            ),
            ("info/docker/h/gone", json!({"ts": ts, "value": 0, "id": "def", "image": "nginx"})),
        ] {
            produce(&mut nc, topic, &payload);
        }
        let answer = raw(broker.http, "GET /metrics HTTP/1.1\r\nHost: prometheus.example.com\r\n");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains(some), "{answer}");
        assert!(!answer.contains("gone"), "{answer}");
        // A counter that no sample holds is not guessed.
        assert!(!answer.contains("container_cpu_usage_seconds_total"), "{answer}");
        assert!(!answer.contains("container_cpu_time_seconds_total"), "{answer}");
        let by_address = get(broker.http, "/metrics").1;
        assert!(by_address.contains(some), "{by_address}");
        // Whoever asks by a stranger's name gets what tells of no container, and why.
        let stranger = raw(broker.http, "GET /metrics HTTP/1.1\r\nHost: evil.com\r\n");
        assert!(stranger.starts_with("HTTP/1.1 200"), "{stranger}");
        assert!(stranger.contains("aklight_build_info"), "{stranger}");
        assert!(!stranger.contains("nginx"), "{stranger}");
        assert!(stranger.contains("\n# No containers: refused: this broker"), "{stranger}");
    }
}

/// Topics live as long as their records, and the page asks for what lives.
#[test]
fn topics_that_are_no_longer_written_cost_no_room() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    for n in 0..2100 {
        nc.send(&format!("PRODUCE|metrics/docker/h/old{n:04}/cpu|k|{{\"value\":{n}}}"));
    }
    (0..2100).for_each(|_| assert!(nc.line().expect("an answer").starts_with("ACK|")));
    let all = json(broker.http, "/api/last?match=metrics/%23");
    let all = all["records"].as_array().expect("a list");
    let values: Vec<_> = all.iter().map(|record| record["payload"]["value"].as_u64()).collect();
    assert_eq!(values, (0..2100).map(Some).collect::<Vec<_>>(), "by the topics' names");
    let newest = all.iter().filter_map(|record| record["time"].as_u64()).max().expect("some");
    while now_ms() <= newest {
        std::hint::spin_loop();
    }
    let from = now_ms();
    produce(&mut nc, "metrics/docker/h/new/cpu", &json!({"value": 7}));
    let last = json(broker.http, &format!("/api/last?match=metrics/%23&from={from}"));
    assert_eq!(last["records"].as_array().expect("a list").len(), 1, "{last}");
    assert_eq!(last["records"][0]["payload"]["value"], 7);
    let history = json(
        broker.http,
        &format!("/api/history?match=metrics/%23&from={from}&to={}", from + 600_000),
    );
    assert_eq!(history["series"].as_array().expect("a list").len(), 1, "{history}");
}

#[test]
fn a_history_of_many_lines_has_fewer_steps() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    for n in 0..300 {
        nc.send(&format!("PRODUCE|many/{n}|k|{{\"value\":1,\"a\":2}}"));
    }
    (0..300).for_each(|_| assert!(nc.line().expect("an answer").starts_with("ACK|")));
    let (from, to) = (now_ms() - 300_000, now_ms() + 100_000);
    let path = format!("match=many/%2B&from={from}&to={to}&points=1000&fields=value,a,b,c");
    let history = json(broker.http, &format!("/api/history?{path}"));
    // 1,200 lines of 166 steps are 200,000 points.
    assert_eq!(history["step"], (to - from).div_ceil(166));
    assert_eq!(history["series"].as_array().expect("a list").len(), 600);
}

#[test]
fn a_history_of_too_much_loses_neither_its_newest_values_nor_a_word_about_it() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    let (now, fill) = (now_ms(), "x".repeat(1_000_000));
    let old = json!({"ts": now - 600_000, "value": 1, "fill": fill});
    let line = format!("PRODUCE|t|k|{old}");
    (0..72).for_each(|_| nc.send(&line));
    (0..72).for_each(|_| assert!(nc.line().expect("an answer").starts_with("ACK|")));
    produce(&mut nc, "t", &json!({"ts": now - 30_000, "value": 77}));
    let newest = json(broker.http, "/api/last?match=t");
    let newest = newest["records"][0]["time"].as_u64().expect("a time");
    // Nine hundred steps, the last of which begins with the newest record.
    let (from, to) = (newest - 899 * 960, newest + 960);
    let path = format!("/api/history?match=t&points=900&from={from}&to={to}");
    let history = json(broker.http, &path);
    let line = &history["series"][0];
    assert_eq!(line["source"], "sampled");
    let points = line["points"].as_array().expect("a list");
    assert_eq!(points.last().expect("some")[1], 77.0, "{line}");
}

#[test]
fn samples_behind_the_last_minute_are_shown_however_late_it_is() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    // What was measured since is stored minutes before the question's end, as broker's times go.
    let (now, minute) = (now_ms(), now_ms() / 60_000 * 60_000);
    let record = json!({"ts": minute - 120_000, "value": 2, "count": 60, "unit": "percent"});
    produce(&mut nc, "rollup/1m/t", &record);
    produce(&mut nc, "t", &json!({"ts": now - 1000, "value": 7, "unit": "percent"}));
    let to = now + 600_000;
    let path = format!("/api/history?match=t&points=1000&from={}&to={to}", now - 600_000);
    let history = json(broker.http, &path);
    let line = &history["series"][0];
    let points = line["points"].as_array().expect("a list");
    let means: Vec<_> = points.iter().map(|point| point[1].clone()).collect();
    assert_eq!(means, [json!(2.0), json!(7.0)], "{line}");
}

#[test]
fn records_are_paged_without_losing_one() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    for n in 0..300 {
        nc.send(&format!("PRODUCE|events/x|{}|{{\"n\":{n}}}", n % 3));
    }
    (0..300).for_each(|_| assert!(nc.line().expect("an answer").starts_with("ACK|")));
    let (mut numbers, mut before) = (Vec::new(), String::new());
    for _ in 0..100 {
        let page = json(broker.http, &format!("/api/records?match=events/%23&limit=7{before}"));
        let records = page["records"].as_array().expect("a list");
        numbers.extend(records.iter().map(|r| r["payload"]["n"].as_u64().expect("a number")));
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(numbers.len(), 300);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    let (status, said) = get(broker.http, "/api/records?match=a&before=yesterday");
    assert_eq!((status, said.contains("next")), (400, true), "{said}");
}

#[test]
fn records_that_were_too_much_to_read_come_with_the_next_question() {
    let (_folder, broker) = broker();
    let mut nc = broker.connect();
    let fill = "x".repeat(1_000_000);
    for n in 0..72 {
        nc.send(&format!("PRODUCE|t|k|{}", json!({"n": n, "fill": fill})));
    }
    (0..72).for_each(|_| assert!(nc.line().expect("an answer").starts_with("ACK|")));
    let page = json(broker.http, "/api/records?match=t&limit=20");
    let shown = page["records"].as_array().expect("a list").len();
    assert_eq!(page["left_out"], 20 - shown, "{}", page["left_out"]);
    let number = |record: &Value| record["payload"]["n"].as_u64().expect("a number");
    let oldest = number(&page["records"][shown - 1]);
    let next = page["next"].as_str().expect("more");
    let older = json(broker.http, &format!("/api/records?match=t&limit=1&before={next}"));
    assert_eq!(number(&older["records"][0]), oldest - 1);
}

/// Every `.route("…", get(…))` of the sources stands in the description, and nothing else does.
#[test]
fn the_description_names_every_route() {
    let (_folder, broker) = broker();
    let described = json(broker.http, "/openapi.json");
    let mut told = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys().filter(|m| *m != "parameters") {
            told.insert((path.clone(), method.clone()));
        }
    }
    let mut routes = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(path).expect("a source");
                for part in source.split(".route(\"").skip(1) {
                    let (path, rest) = part.split_once("\", ").expect("a path");
                    let method = rest.split('(').next().expect("a method");
                    routes.insert((path.to_owned(), method.to_owned()));
                }
            }
        }
    }
    assert_eq!(told, routes);
}
