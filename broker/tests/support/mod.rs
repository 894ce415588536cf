//! A broker as a process of its own, and a client that speaks lines as a person with `nc` would.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub mod cluster;
pub mod load;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for anything that must come: far above what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `aklight-broker`. Killed when dropped.
pub struct BrokerProcess {
    child: Child,
    pub address: SocketAddr,
    pub http: SocketAddr,
    log: mpsc::Receiver<String>,
}

impl BrokerProcess {
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    pub fn start_with(data_dir: &Path, flags: &[&str]) -> Self {
        let mut broker = Self::spawn(data_dir, flags);
        let line = broker.wait_for_log("serves clients on ");
        (broker.address, broker.http) = addresses(&line).expect("both addresses");
        broker
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(data_dir: &Path, flags: &[&str]) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut child = command(data_dir, flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary is built");
        let stderr = child.stderr.take().expect("piped");
        let (tell, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // When nobody listens any more the pipe must be drained all the same.
                let _ = tell.send(line);
            }
        });
        Self { child, address: nowhere, http: nowhere, log }
    }

    pub fn connect(&self) -> Nc {
        Nc::connect(self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of its log that holds `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.first_of(&[text])
    }

    /// Waits until it has ended by itself; how, and what it said since it was last listened to.
    pub fn wait_for_end(&mut self) -> (ExitStatus, String) {
        let status = wait_until("the broker ends", || self.child.try_wait().expect("a child"));
        // The pipe ends with the process.
        (status, self.log.iter().collect::<Vec<_>>().join("\n"))
    }

    /// Its first line that holds one of the texts; it may have ended before.
    pub fn first_of(&self, texts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.log.recv_timeout(left) else {
                panic!("none of {texts:?} in the broker's log: {said:#?}");
            };
            if texts.iter().any(|text| line.contains(text)) {
                return line;
            }
            said.push(line);
        }
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill is there").success());
    }

    pub fn terminate(mut self) -> ExitStatus {
        self.signal("-TERM");
        wait_until("the broker ends on SIGTERM", || self.child.try_wait().expect("a child"))
    }
}

/// Looks again and again until there is something to see.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same for a condition.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until(what, || holds().then_some(()));
}

/// Whether a file holds a text.
pub fn holds(path: &Path, text: &[u8]) -> bool {
    place_of(&std::fs::read(path).expect("there"), text).is_some()
}

/// Flips a bit of the first place in a file that holds `text`.
pub fn damage(path: &Path, text: &[u8]) {
    let mut bytes = std::fs::read(path).expect("there");
    let at = place_of(&bytes, text).expect("stored");
    bytes[at] ^= 0x10;
    std::fs::write(path, &bytes).expect("written");
}

fn place_of(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in &self.log {
                eprintln!("broker of pid {}: {line}", self.pid());
            }
        }
    }
}

/// The command of a broker on ports of the system's choice.
pub fn command(data_dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aklight-broker"));
    command.arg("--data-dir").arg(data_dir);
    if !flags.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(flags).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, rest) = line.split_once("serves clients on ")?;
    let (address, rest) = rest.split_once(" and HTTP on ")?;
    let (http, _) = rest.split_once(',')?;
    Some((address.parse().ok()?, http.parse().ok()?))
}

/// A connection that speaks lines.
pub struct Nc {
    pub socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Nc {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the broker listens")
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let reader = BufReader::new(socket.try_clone()?);
        Ok(Self { socket, reader })
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(format!("{text}\n").as_bytes());
    }

    /// The same to a broker that may be killed meanwhile.
    pub fn try_send(&mut self, text: &str) -> io::Result<()> {
        self.socket.write_all(format!("{text}\n").as_bytes())
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the broker reads");
    }

    /// The next line, without its newline; `None` at the end of the connection.
    pub fn line(&mut self) -> Option<String> {
        self.try_line().unwrap_or_else(|error| panic!("no line came: {error}"))
    }

    /// The same from a broker that may be killed meanwhile.
    pub fn try_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(io::Error::other("half a line, and the end of the connection"));
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.line().as_deref(), Some(line));
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.line().expect("an answer")
    }

    /// All lines up to and including the END.
    pub fn listing(&mut self, command: &str) -> Vec<String> {
        self.send(command);
        let mut lines = Vec::new();
        loop {
            let line = self.line().expect("an answer");
            let ends = line.starts_with("END|") || line.starts_with("ERR|");
            lines.push(line);
            if ends {
                return lines;
            }
        }
    }

    /// An answer `ERR|code|…`; gives its text.
    pub fn refused(&mut self, command: &str, code: &str) -> String {
        let answer = self.ask(command);
        let text = answer.strip_prefix(&format!("ERR|{code}|"));
        text.unwrap_or_else(|| panic!("{command}: wanted {code}, got {answer}")).to_owned()
    }
}

/// GET over HTTP: the status and the body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    try_http(address, &format!("GET {path} HTTP/1.1\r\n"), "").expect("HTTP is served")
}

/// GET over HTTP: JSON.
pub fn json(address: SocketAddr, path: &str) -> serde_json::Value {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// POST over HTTP with a body of JSON.
pub fn post(address: SocketAddr, path: &str, body: &str) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
    try_http(address, &head, body).expect("HTTP is served")
}

/// Any request; `head` is its first line and the headers that matter.
pub fn try_http(address: SocketAddr, head: &str, body: &str) -> io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let host = if head.contains("\r\nHost: ") { "" } else { "Host: x\r\n" };
    write!(socket, "{head}{host}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok((status, body))
}
