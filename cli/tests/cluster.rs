//! `aklight cluster` and `aklight fault`, against something that answers as a broker's HTTP does.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use support::{Running, aklight, run, stdout_of};

/// What is answered: a status and a body, or nothing but the end of the connection.
type Answer = Option<(u16, Value)>;

/// Answers every request with the next of its answers, and with the last one from then on.
struct Http {
    address: String,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Http {
    fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address").to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut answers = answers.into_iter().peekable();
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let request = request(&stream);
                shared.lock().expect("no panic").push(request);
                let answer = answers.next().expect("an answer");
                if answers.peek().is_none() {
                    answers = vec![answer.clone()].into_iter().peekable();
                }
                if let Some((status, body)) = answer {
                    respond(&stream, status, &body.to_string());
                }
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<(String, Value)> {
        self.heard.lock().expect("no panic").clone()
    }
}

/// The method and path, and the body.
fn request(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_lowercase());
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).expect("a body");
    if head[0].starts_with("post") {
        assert!(head.contains(&"content-type: application/json".to_owned()), "{head:?}");
    }
    let target = head[0].trim_end_matches(" http/1.1").to_owned();
    (target, serde_json::from_slice(&body).unwrap_or_default())
}

fn respond(mut stream: &TcpStream, status: u16, body: &str) {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("written");
}

fn view(leader: Option<u64>, term: u64) -> Value {
    let broker = |id: u64| {
        let state = if leader.is_some() || id != 1 { "alive" } else { "dead" };
        json!({ "id": id, "address": format!("broker{id}:7000"), "peer": format!("broker{id}:7090"),
                "http": format!("broker{id}:7070"), "state": state, "voter": true, "fault": null })
    };
    let replicas: Vec<_> =
        (1..=3).map(|id| json!({ "broker": id, "last": 90 + id, "behind": 3 - id })).collect();
    json!({
        "cluster": "c-1", "answered_by": 1, "version": "0.1.0",
        "brokers": [broker(1), broker(2), broker(3)],
        "groups": [{ "group": "metadata", "leader": leader, "term": term, "voters": [1, 2, 3],
                     "learners": [], "committed": 93, "start": 0, "end": 0, "replicas": replicas }],
    })
}

fn ok(body: Value) -> Answer {
    Some((200, body))
}

/// Nobody listens there.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address").to_string()
}

fn failed(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = run(args);
    assert_eq!(status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&stdout));
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn the_status_is_shown_as_tables_and_as_the_broker_tells_it() {
    let http = Http::start(vec![ok(view(Some(3), 7))]);
    let flag = format!("--http={}", http.address);
    for words in [&["cluster"][..], &["cluster", "status"]] {
        let shown = stdout_of(&[words, &[&flag]].concat());
        let lines: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["1", "broker1:7000", "alive", "voter", "-"], "{shown}");
        assert_eq!(lines[5], ["metadata", "3", "7", "93", "2", "1", "leads"], "{shown}");
        let told = stdout_of(&[words, &[&flag, "--output=json"]].concat());
        assert_eq!(serde_json::from_str::<Value>(&told).expect("json"), view(Some(3), 7));
    }
    assert!(http.heard().iter().all(|(target, _)| target == "get /cluster"));
}

#[test]
fn a_question_goes_on_to_a_broker_that_answers() {
    let unformed = Some((503, json!({ "error": "not formed yet: broker 3 is missing" })));
    let first = Http::start(vec![unformed]);
    let second = Http::start(vec![ok(view(Some(1), 1))]);
    let gone = nowhere();
    let all = format!("--http={gone},{},{}", first.address, second.address);
    assert!(stdout_of(&["cluster", &all]).contains("broker2:7000"));
    let some = format!("--http={gone},{}", first.address);
    let text = failed(&["cluster", &some]);
    assert!(text.contains("refuses: not formed yet: broker 3 is missing"), "{text}");
    let text = failed(&["cluster", &format!("--http={gone}")]);
    assert!(text.contains("no broker answers") && text.contains("connection refused"), "{text}");
}

#[test]
fn orders_are_posted_as_they_are_meant() {
    let http = Http::start(vec![ok(json!({ "done": "as you wish" }))]);
    let flag = format!("--http={}", http.address);
    let check = |words: &[&str], path: &str, body: Value| {
        assert_eq!(stdout_of(&[words, &[&flag]].concat()), "as you wish\n");
        let (target, heard) = http.heard().pop().expect("a request");
        assert_eq!((target, heard), (format!("post {path}"), body), "{words:?}");
    };
    let member = json!({ "id": 4, "peer": "broker4:7090" });
    check(&["cluster", "add", "4@broker4:7090"], "/cluster/add", member);
    check(&["cluster", "remove", "broker2"], "/cluster/remove", json!({ "id": 2 }));
    let instead = json!({ "dead": 2, "id": 4, "peer": "broker4:7090" });
    check(&["cluster", "replace", "2", "4@broker4:7090"], "/cluster/replace", instead);
    for (group, name) in
        [("metadata", "metadata"), ("1", "partition 1"), ("partition 1", "partition 1")]
    {
        let order = json!({ "group": name, "to": 3 });
        check(&["cluster", "transfer-leader", group, "3"], "/cluster/transfer-leader", order);
    }
    for fault in ["dead", "alive", "isolate"] {
        check(&["fault", "broker2", fault], "/fault", json!({ "broker": 2, "fault": fault }));
    }
    let slow = json!({ "broker": 2, "fault": "slow", "ms": 100 });
    check(&["fault", "2", "slow", "100"], "/fault", slow);
}

#[test]
fn what_a_broker_refuses_is_told_in_its_words() {
    let refusal = json!({ "error": "start broker 2 with --allow-faults" });
    let http = Http::start(vec![Some((403, refusal)), Some((404, json!("what?")))]);
    let flag = format!("--http={}", http.address);
    let text = failed(&["fault", "2", "dead", &flag]);
    assert!(text.contains("refuses: start broker 2 with --allow-faults"), "{text}");
    let text = failed(&["fault", "2", "dead", &flag]);
    assert!(text.contains("is this the HTTP port of a broker?"), "{text}");
}

#[test]
fn an_order_that_may_have_arrived_is_given_to_nobody_else() {
    let first = Http::start(vec![None]);
    let second = Http::start(vec![ok(json!({ "done": "twice" }))]);
    let flag = format!("--http={},{}", first.address, second.address);
    let text = failed(&["cluster", "remove", "2", &flag]);
    assert!(text.contains("took the order and did not answer"), "{text}");
    assert_eq!((first.heard().len(), second.heard().len()), (1, 0));
    let flag = format!("--http={},{}", nowhere(), second.address);
    assert_eq!(stdout_of(&["cluster", "remove", "2", &flag]), "twice\n", "that one heard nothing");
}

#[test]
fn a_watcher_sees_the_election() {
    let nobody = Some((503, json!({ "error": "not now" })));
    let http =
        Http::start(vec![ok(view(Some(1), 7)), nobody, ok(view(None, 8)), ok(view(Some(2), 9))]);
    let flag = format!("--http={}", http.address);
    let mut watch = Running::start(aklight(&["cluster", "status", "--watch", &flag]));
    watch.wait_for(&["metadata", "1", "7"]);
    watch.wait_for(&["* broker 1 is dead"]);
    watch.wait_for(&["* metadata: no leader, after broker 1"]);
    watch.wait_for(&["* broker 1 is alive"]);
    watch.wait_for(&["* metadata: broker 2 was elected in term 9"]);
    watch.wait_for(&["metadata", "leads"]);
}
