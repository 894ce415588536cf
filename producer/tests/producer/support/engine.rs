//! An engine on a socket of its own, for shapes that no engine here has: answers what it was told
//! to, streams events, and can be stopped and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::{Value, json};

#[derive(Default)]
struct Memory {
    /// Answers by path, without the version and the query.
    answers: BTreeMap<String, Value>,
    /// Paths that are answered with an error of the engine's.
    refused: BTreeSet<String>,
    /// Paths that are never answered.
    hanging: BTreeSet<String>,
    requests: Vec<String>,
    /// What whoever listens is told at once.
    remembered: Vec<String>,
    streams: Vec<UnixStream>,
}

#[derive(Default)]
struct Shared {
    memory: Mutex<Memory>,
    stopping: AtomicBool,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no test thread panicked")
    }
}

pub struct FakeEngine {
    socket: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// An event as engines write it; those of API 1.52 and later have no `status` and no `id`.
pub fn event(action: &str, id: &str, nanos: u64, attributes: &Value) -> Value {
    json!({"Type": "container", "Action": action, "scope": "local", "time": nanos / 1_000_000_000,
        "timeNano": nanos, "Actor": {"ID": id, "Attributes": attributes}})
}

impl FakeEngine {
    pub fn start(folder: &Path, version: Value) -> Self {
        let shared = Arc::<Shared>::default();
        let socket = folder.join("engine.sock");
        let mut engine = Self { socket, shared, accepting: None };
        engine.answer("/version", version);
        engine.answer("/containers/json", json!([]));
        engine.restart();
        engine
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn answer(&self, path: &str, answer: Value) {
        self.shared.memory().answers.insert(path.to_owned(), answer);
    }

    /// A question fails from now on: something is broken in the engine.
    pub fn refuse(&self, path: &str) {
        self.shared.memory().refused.insert(path.to_owned());
    }

    /// A question has no answer from now on: something in the engine waits for ever.
    pub fn hang(&self, path: &str) {
        self.shared.memory().hanging.insert(path.to_owned());
    }

    /// There is a container; `inspected` is added to what each has.
    pub fn put(&self, id: &str, name: &str, inspected: Value) {
        let mut whole = json!({"Id": id, "Name": format!("/{name}"),
            "Created": "2026-11-26T01:20:36.185443259Z", "RestartCount": 0,
            "State": {"Status": "running", "Running": true, "Pid": 0,
                "StartedAt": "2026-11-26T01:20:36.466780314Z"},
            "Config": {"Image": "nginx:1", "Labels": {}}});
        let more = inspected.as_object().expect("an object").clone();
        whole.as_object_mut().expect("an object").extend(more);
        let listed = json!({"Id": id, "Names": [format!("/{name}")],
            "Image": whole["Config"]["Image"], "State": whole["State"]["Status"],
            "Labels": whole["Config"]["Labels"]});
        self.answer(&format!("/containers/{id}/json"), whole);
        let mut memory = self.shared.memory();
        let list = memory.answers.get_mut("/containers/json").and_then(Value::as_array_mut);
        let list = list.expect("a list");
        list.retain(|one| one["Id"] != id);
        list.push(listed);
    }

    pub fn remove(&self, id: &str) {
        let mut memory = self.shared.memory();
        memory.answers.remove(&format!("/containers/{id}/json"));
        let list = memory.answers.get_mut("/containers/json").and_then(Value::as_array_mut);
        list.expect("a list").retain(|one| one["Id"] != id);
    }

    /// Remembers events, and tells them to whoever listens from now on.
    pub fn replay(&self, events: &[&Value]) {
        self.shared.memory().remembered = events.iter().map(|event| chunk(event)).collect();
    }

    /// Tells all who listen.
    pub fn tell(&self, event: &Value) {
        let chunk = chunk(event);
        for stream in &mut self.shared.memory().streams {
            // One of an earlier connection has nobody at its end.
            let _ = stream.write_all(chunk.as_bytes());
        }
    }

    /// Each request's first line.
    pub fn requests(&self) -> Vec<String> {
        self.shared.memory().requests.clone()
    }

    /// Ends all connections and is there no more.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("accepted");
        }
        let _ = std::fs::remove_file(&self.socket);
        for stream in self.shared.memory().streams.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Is there again, with the answers of before.
    pub fn restart(&mut self) {
        self.shared.stopping.store(false, Ordering::SeqCst);
        let listener = UnixListener::bind(&self.socket).expect("a socket");
        let shared = self.shared.clone();
        self.accepting = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.expect("a connection"), shared.clone());
                std::thread::spawn(move || serve(stream, &shared));
            }
        }));
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn chunk(event: &Value) -> String {
    let line = format!("{event}\n");
    format!("{:x}\r\n{line}\r\n", line.len())
}

fn serve(mut stream: UnixStream, shared: &Shared) {
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        line.clear();
    }
    let first = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let path = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
        Some((_, rest)) => format!("/{rest}"),
        None => path.to_owned(),
    };
    let (answer, refused, hanging) = {
        let mut memory = shared.memory();
        memory.requests.push(first);
        let answer = memory.answers.get(&path).cloned();
        (answer, memory.refused.contains(&path), memory.hanging.contains(&path))
    };
    if hanging {
        // Until the other end goes.
        let _ = reader.read_to_end(&mut Vec::new());
        return;
    }
    if path == "/events" {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("written");
        let mut memory = shared.memory();
        stream.write_all(memory.remembered.concat().as_bytes()).expect("written");
        memory.streams.push(stream);
        drop(memory);
        // Until the other end goes.
        let _ = reader.read_to_end(&mut Vec::new());
        return;
    }
    let (status, body) = match answer {
        _ if refused => ("500 Internal Server Error", json!({"message": "layer does not exist"})),
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", json!({"message": "No such container"})),
    };
    let body = body.to_string();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes());
}
