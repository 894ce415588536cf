//! NATS 2.9, two ways: `JetStream` with a file store, and core, which stores nothing.
//!
//! One stream takes all topics, a subject each, as NATS means it. JetStream acknowledges from the
//! page cache, with one server and with three; it has no other way before 2.10. A stored record is
//! read by a push consumer without acknowledgements, the fastest there is here.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use memchr::{memchr, memmem};

use super::{Feed, Found, Publisher, Setup, Share, Taken, Wanted, Way};
use crate::load::Load;
use crate::programs::on_path;
use crate::wire::Wire;

/// The one stream.
const STREAM: &str = "BENCH";

/// What a client says first. Headers are on, so that a missing stream is said and not silent.
const HELLO: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n";

/// How JetStream begins to say that it stored a record.
const STORED: &[u8] = b"{\"stream\":";

/// How often a cluster without a leader is asked again, and how often at most.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const ASKS_MAX: usize = 300;

/// How long it may take to answer, in milliseconds, before it is asked again.
const PATIENCE_MS: u16 = 500;

/// How long a stream may take to be made, its leader's election included.
const CREATE_MS: u16 = 20_000;

/// How the name of a stream's leader begins, in what it tells of itself.
const LEADER: &[u8] = b"\"leader\":\"bench-";

/// How often in turns a new stream must name its leader and take a record before it is measured.
const STEADY: usize = 20;

/// What NATS is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nats {
    /// Publish to a stream, acknowledged.
    JetStream,
    /// Publish to whoever listens.
    Core,
}

impl Way for Nats {
    fn name(&self) -> &'static str {
        match self {
            Self::JetStream => "nats jetstream",
            Self::Core => "nats core",
        }
    }

    fn is_stored(&self) -> bool {
        *self == Self::JetStream
    }

    fn program(&self) -> Option<PathBuf> {
        on_path("nats-server")
    }

    fn command(&self, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Command> {
        let mut command = Command::new(program);
        command.arg("--addr").arg(setup.listen.ip().to_string());
        command.arg("--port").arg(setup.listen.port().to_string());
        command.arg("--jetstream").arg("--store_dir").arg(setup.dir);
        if let Some(own) = setup.members.get(setup.number) {
            let routes = setup.members.iter().map(|m| format!("nats://{}", m.peers));
            command.arg("--server_name").arg(format!("bench-{}", setup.number));
            command.args(["--cluster_name", "bench", "--cluster"]);
            command.arg(format!("nats://{}", own.peers));
            command.arg("--routes").arg(routes.collect::<Vec<_>>().join(","));
        }
        Ok(command)
    }

    fn greet(&self, wire: &mut Wire) -> anyhow::Result<()> {
        // The server's INFO comes first, and PONG ends its answer.
        wire.ask(HELLO, |bytes| Ok(memmem::find(bytes, b"PONG\r\n").map(|at| at + 6)))
    }

    fn prepare(&self, server: SocketAddr, replicas: usize) -> anyhow::Result<()> {
        if *self == Self::Core {
            return Ok(());
        }
        // Who leads JetStream answers this; a new cluster has nobody for a while, and says nothing.
        self.until(server, "$JS.API.STREAM.NAMES", |answer| !is_refused(answer))
            .context("JetStream finds no leader")?;
        let config = format!(
            "{{\"name\":\"{STREAM}\",\"subjects\":[\"metrics.>\"],\"retention\":\"limits\",\
             \"storage\":\"file\",\"num_replicas\":{replicas},\"max_consumers\":-1,\"max_msgs\":-1,\
             \"max_bytes\":-1,\"max_age\":0,\"discard\":\"old\"}}"
        );
        // Asked once and waited for: when it was asked for again every half second, some streams had
        // no leader later. Whether that was why is not proven.
        let mut wire = self.connect(server, CREATE_MS)?;
        let made = request(&mut wire, &format!("$JS.API.STREAM.CREATE.{STREAM}"), &config)?;
        ensure!(!is_refused(&made), "it makes no stream: {}", made.escape_ascii());
        if replicas == 1 {
            return Ok(());
        }
        for _ in 0..STEADY {
            self.until(server, &format!("$JS.API.STREAM.INFO.{STREAM}"), |answer| {
                memmem::find(answer, LEADER).is_some()
            })
            .context("its stream finds no leader")?;
            self.until(server, "metrics.ready", |answer| answer.starts_with(STORED))
                .context("its stream takes nothing")?;
        }
        Ok(())
    }

    fn leader(&self, server: SocketAddr) -> anyhow::Result<Option<usize>> {
        let mut wire = self.connect(server, PATIENCE_MS)?;
        let answer = request(&mut wire, &format!("$JS.API.STREAM.INFO.{STREAM}"), "")?;
        let at = memmem::find(&answer, LEADER).map(|at| at + LEADER.len());
        Ok(at.and_then(|at| answer.get(at)).map(|digit| usize::from(digit.wrapping_sub(b'0'))))
    }

    fn publisher(&self, load: &Arc<Load>, share: Share) -> Box<dyn Publisher> {
        Box::new(NatsPublisher::new(load, share, *self))
    }

    fn feed(&self, load: &Arc<Load>, wanted: Wanted) -> Option<Box<dyn Feed>> {
        let filter = match wanted {
            Wanted::All | Wanted::Live => "metrics.>".to_owned(),
            Wanted::Quarter => "metrics.docker.*.cpu".to_owned(),
            Wanted::Topic(topic) => subject(load.topic(topic)),
        };
        let is_live = wanted == Wanted::Live;
        (is_live || self.is_stored())
            .then(|| Box::new(NatsFeed { way: *self, filter, is_live, ready: false }) as _)
    }
}

impl Nats {
    fn connect(self, server: SocketAddr, patience_ms: u16) -> anyhow::Result<Wire> {
        let mut wire = Wire::connect(server)?;
        wire.patience_ms = patience_ms;
        self.greet(&mut wire)?;
        Ok(wire)
    }

    /// Asks again and again until the answer is right. Each asks on a connection of its own: an
    /// answer that comes late is then nobody else's.
    fn until(
        self,
        server: SocketAddr,
        subject: &str,
        is_right: impl Fn(&[u8]) -> bool,
    ) -> anyhow::Result<()> {
        let mut last = Ok(Vec::new());
        for _ in 0..ASKS_MAX {
            let mut wire = self.connect(server, PATIENCE_MS)?;
            last = request(&mut wire, subject, "");
            if last.as_ref().is_ok_and(|answer| is_right(answer)) {
                return Ok(());
            }
            sleep(ASK_AGAIN);
        }
        let last = last?;
        bail!("{subject} is answered '{}'", last.escape_ascii())
    }
}

fn is_refused(answer: &[u8]) -> bool {
    memmem::find(answer, b"\"error\"").is_some()
}

/// A topic as a subject.
fn subject(topic: &[u8]) -> String {
    String::from_utf8_lossy(topic).replace('/', ".")
}

/// Asks JetStream for something; its answer.
fn request(wire: &mut Wire, subject: &str, body: &str) -> anyhow::Result<Vec<u8>> {
    let asked = format!("SUB _INBOX.q 9\r\nPUB {subject} _INBOX.q {}\r\n{body}\r\n", body.len());
    let mut answer = Vec::new();
    wire.ask(asked.as_bytes(), |bytes| {
        let mut consumed = 0;
        while let Some((said, length)) = said(&bytes[consumed..])? {
            consumed += length;
            if let Said::Message { body, .. } = said {
                answer.extend_from_slice(body);
                return Ok(Some(consumed));
            }
        }
        Ok(None)
    })?;
    Ok(answer)
}

/// Something that a server says.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    /// A message, on a subscription of ours.
    Message { subscription: &'a [u8], body: &'a [u8] },
    /// It wants to be told that we are here.
    Ping,
    /// It has done all that came before our PING.
    Pong,
    /// INFO or +OK: nothing to do.
    Nothing,
}

/// The first thing that it says, and its length in bytes; `None` until it is whole.
///
/// # Errors
/// When it reports an error, or says that nobody answers.
#[inline]
fn said(bytes: &[u8]) -> anyhow::Result<Option<(Said<'_>, usize)>> {
    let Some(end) = memchr(b'\n', bytes) else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").context("a line without \\r\\n")?;
    let head = end + 1;
    if let Some(rest) = line.strip_prefix(b"MSG ") {
        return message(rest, 0, bytes, head);
    }
    if let Some(rest) = line.strip_prefix(b"HMSG ") {
        let (before, _) = last_word(rest)?;
        let (_, headers) = last_word(before)?;
        let found = message(rest, number(headers)?, bytes, head)?;
        ensure!(
            found.is_none() || !bytes[head..].starts_with(b"NATS/1.0 503"),
            "nobody takes what was sent"
        );
        return Ok(found);
    }
    let found = match line {
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        _ if line.starts_with(b"-ERR") => bail!("the server says: {}", line.escape_ascii()),
        _ => Said::Nothing,
    };
    Ok(Some((found, head)))
}

// `<subject> <sid> [reply] <bytes>`, and the body behind the line.
fn message<'a>(
    line: &'a [u8],
    skip: usize,
    bytes: &'a [u8],
    head: usize,
) -> anyhow::Result<Option<(Said<'a>, usize)>> {
    let (_, total) = last_word(line)?;
    let total = number(total)?;
    let Some(whole) = bytes.get(head..head + total + 2) else { return Ok(None) };
    let subscription = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let body = whole.get(skip..total).context("headers longer than their message")?;
    Ok(Some((Said::Message { subscription, body }, head + total + 2)))
}

fn last_word(line: &[u8]) -> anyhow::Result<(&[u8], &[u8])> {
    let at = memchr::memrchr(b' ', line).context("a message without a length")?;
    Ok((&line[..at], &line[at + 1..]))
}

fn number(digits: &[u8]) -> anyhow::Result<usize> {
    ensure!(!digits.is_empty() && digits.len() < 12, "not a length");
    digits.iter().try_fold(0, |value, digit| {
        ensure!(digit.is_ascii_digit(), "not a length: {}", digits.escape_ascii());
        Ok(value * 10 + usize::from(digit - b'0'))
    })
}

struct NatsPublisher {
    load: Arc<Load>,
    share: Share,
    way: Nats,
    // `PUB subject reply bytes` of all topics, and where each ends.
    heads: Vec<u8>,
    ends: Vec<usize>,
    sent: u64,
    ready: bool,
}

impl NatsPublisher {
    fn new(load: &Arc<Load>, share: Share, way: Nats) -> Self {
        let (mut heads, mut ends) = (String::new(), Vec::with_capacity(load.topics()));
        for number in 0..load.topics() {
            let subject = subject(load.topic(number));
            let reply = if way == Nats::JetStream {
                format!(" _INBOX.p{}", share.first)
            } else {
                String::new()
            };
            // Writing to a String cannot fail.
            let _ = write!(heads, "PUB {subject}{reply} {}\r\n", load.payload_bytes());
            ends.push(heads.len());
        }
        let (load, heads) = (Arc::clone(load), heads.into_bytes());
        Self { load, share, way, heads, ends, sent: 0, ready: false }
    }
}

impl Publisher for NatsPublisher {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.way == Nats::JetStream {
            out.extend_from_slice(format!("SUB _INBOX.p{} 1\r\n", self.share.first).as_bytes());
        }
        out.extend_from_slice(HELLO);
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn publish(&mut self, out: &mut Vec<u8>) {
        let n = self.share.first + self.sent * self.share.step;
        let topic = self.load.topic_of(n);
        let begin = if topic == 0 { 0 } else { self.ends[topic - 1] };
        out.extend_from_slice(&self.heads[begin..self.ends[topic]]);
        self.load.payload(n, out);
        out.extend_from_slice(b"\r\n");
        self.sent += 1;
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> anyhow::Result<Taken> {
        let mut taken = Taken::default();
        while let Some((said, length)) = said(&bytes[taken.consumed..])? {
            match said {
                Said::Message { body, .. } => {
                    let is_ack = body.starts_with(STORED);
                    ensure!(is_ack, "not stored: {}", body.escape_ascii());
                    taken.acknowledged += 1;
                }
                Said::Ping => out.extend_from_slice(b"PONG\r\n"),
                Said::Pong => self.ready = true,
                Said::Nothing => {}
            }
            taken.consumed += length;
        }
        Ok(taken)
    }

    fn is_acknowledged(&self) -> bool {
        self.way == Nats::JetStream
    }
}

struct NatsFeed {
    way: Nats,
    filter: String,
    is_live: bool,
    ready: bool,
}

impl Feed for NatsFeed {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(HELLO);
        if self.way == Nats::Core {
            out.extend_from_slice(format!("SUB {} 1\r\nPING\r\n", self.filter).as_bytes());
            return;
        }
        // Inboxes are of the whole server: this connection's is drawn from where it lies.
        let own = std::ptr::from_ref(self).addr();
        let policy = if self.is_live { "new" } else { "all" };
        let config = format!(
            "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"deliver_subject\":\"_INBOX.f{own}\",\
             \"deliver_policy\":\"{policy}\",\"ack_policy\":\"none\",\
             \"replay_policy\":\"instant\",\"filter_subject\":\"{}\"}}}}",
            self.filter
        );
        let asked = format!(
            "SUB _INBOX.f{own} 1\r\nSUB _INBOX.r{own} 2\r\n\
             PUB $JS.API.CONSUMER.CREATE.{STREAM} _INBOX.r{own} {}\r\n{config}\r\n",
            config.len()
        );
        out.extend_from_slice(asked.as_bytes());
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(Found<'_>),
    ) -> anyhow::Result<usize> {
        let mut consumed = 0;
        while let Some((said, length)) = said(&bytes[consumed..])? {
            match said {
                Said::Message { subscription: b"1", body } => sink(Found::bare(body)),
                Said::Message { body, .. } => {
                    ensure!(!is_refused(body), "no consumer: {}", body.escape_ascii());
                    self.ready = true;
                }
                Said::Ping => out.extend_from_slice(b"PONG\r\n"),
                Said::Pong => self.ready |= self.way == Nats::Core,
                Said::Nothing => {}
            }
            consumed += length;
        }
        Ok(consumed)
    }
}
