//! Redis 7.0, three ways: a stream a topic, one stream for all, and pub/sub, which stores nothing.
//!
//! Streams are kept by the append-only file, synced always or each second, and no snapshot. A
//! stream a topic takes records fastest and finds one topic at once; one stream is what a reader
//! of everything can wait on (`XREAD BLOCK`), with the topic as a field of the entry.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{bail, ensure};

use super::resp::{Token, bulk, command, token};
use super::{Feed, Found, Publisher, Safety, Setup, Share, Taken, Wanted, Way};
use crate::load::Load;
use crate::programs::on_path;
use crate::wire::Wire;

/// The one stream that holds all topics.
const STREAM: &[u8] = b"metrics";

/// Entries that a read asks for at most: the figure of `design/limits.md`.
const READ_ENTRIES: &[u8] = b"1000";

/// Reads of different streams on the way at once.
const READS: usize = 16;

/// What Redis is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redis {
    /// `XADD` to a stream a topic.
    Streams,
    /// `XADD` to one stream, the topic being a field.
    Stream,
    /// `PUBLISH`.
    PubSub,
}

impl Way for Redis {
    fn name(&self) -> &'static str {
        match self {
            Self::Streams => "redis streams",
            Self::Stream => "redis stream",
            Self::PubSub => "redis pub/sub",
        }
    }

    fn is_stored(&self) -> bool {
        *self != Self::PubSub
    }

    fn program(&self) -> Option<PathBuf> {
        on_path("redis-server")
    }

    fn command(&self, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Command> {
        let mut command = Command::new(program);
        command.arg("--bind").arg(setup.listen.ip().to_string());
        command.arg("--port").arg(setup.listen.port().to_string());
        command.arg("--dir").arg(setup.dir);
        command.args(["--daemonize", "no", "--save", "", "--appendonly", "yes", "--appendfsync"]);
        command.arg(match setup.safety {
            Safety::Synced => "always",
            Safety::Cached => "everysec",
        });
        Ok(command)
    }

    fn greet(&self, wire: &mut Wire) -> anyhow::Result<()> {
        wire.ask(b"PING\r\n", |bytes| Ok(token(bytes)?.map(|(_, length)| length)))
    }

    fn publisher(&self, load: &Arc<Load>, share: Share) -> Box<dyn Publisher> {
        Box::new(RedisPublisher::new(load, share, *self))
    }

    fn feed(&self, load: &Arc<Load>, wanted: Wanted) -> Option<Box<dyn Feed>> {
        let topics = match wanted {
            Wanted::All => (0..load.topics()).collect(),
            Wanted::Topic(topic) => VecDeque::from([topic]),
            Wanted::Quarter | Wanted::Live => VecDeque::new(),
        };
        Some(match (self, wanted) {
            (Self::Streams, Wanted::All | Wanted::Topic(_)) => Box::new(Ranges {
                load: Arc::clone(load),
                begun: VecDeque::new(),
                topics,
                entries: Entries::new(1),
            }),
            (Self::Stream, Wanted::Live | Wanted::All) => {
                Box::new(Blocking { entries: Entries::new(2), heads: 0 })
            }
            (Self::PubSub, Wanted::Live) => Box::new(Pushed { at: 0, ready: false }),
            // No stream is found by a pattern, and no reader waits on a thousand at once.
            _ => return None,
        })
    }
}

struct RedisPublisher {
    load: Arc<Load>,
    share: Share,
    way: Redis,
    // All that stands before a payload, by topic, and where each ends.
    heads: Vec<u8>,
    ends: Vec<usize>,
    sent: u64,
}

impl RedisPublisher {
    fn new(load: &Arc<Load>, share: Share, way: Redis) -> Self {
        let (mut heads, mut ends) = (Vec::new(), Vec::with_capacity(load.topics()));
        for number in 0..load.topics() {
            let topic = load.topic(number);
            let words: &[&[u8]] = match way {
                Redis::Streams => &[b"XADD", topic, b"*", b"p"],
                Redis::Stream => &[b"XADD", STREAM, b"*", b"t", topic, b"p"],
                Redis::PubSub => &[b"PUBLISH", topic],
            };
            heads.extend_from_slice(format!("*{}\r\n", words.len() + 1).as_bytes());
            for word in words {
                bulk(&mut heads, word);
            }
            heads.extend_from_slice(format!("${}\r\n", load.payload_bytes()).as_bytes());
            ends.push(heads.len());
        }
        Self { load: Arc::clone(load), share, way, heads, ends, sent: 0 }
    }
}

impl Publisher for RedisPublisher {
    fn begin(&mut self, _out: &mut Vec<u8>) {}

    fn is_ready(&self) -> bool {
        true
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

    fn take(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> anyhow::Result<Taken> {
        let mut taken = Taken::default();
        while let Some((answer, length)) = token(&bytes[taken.consumed..])? {
            let right = match answer {
                Token::Bulk(_) => self.way != Redis::PubSub,
                Token::Number(_) => self.way == Redis::PubSub,
                _ => false,
            };
            ensure!(right, "not an answer to what was sent: {answer:?}");
            taken.consumed += length;
            taken.acknowledged += 1;
        }
        Ok(taken)
    }
}

/// Entries of a stream as they come, token by token: `*2 $id *2f ($name $value)…`, the payload
/// being the last value.
struct Entries {
    // Entries that are still to come of the array that was begun.
    left: u64,
    at: usize,
    tokens: usize,
    last_id: Vec<u8>,
}

impl Entries {
    fn new(fields: usize) -> Self {
        Self { left: 0, at: 0, tokens: 3 + 2 * fields, last_id: b"0-0".to_vec() }
    }

    fn begin(&mut self, count: u64) {
        (self.left, self.at) = (count, 0);
    }

    fn take(&mut self, found: Token<'_>, sink: &mut dyn FnMut(Found<'_>)) -> anyhow::Result<()> {
        match (self.at, found) {
            (0 | 2, Token::Array(_)) => {}
            (1, Token::Bulk(id)) => {
                self.last_id.clear();
                self.last_id.extend_from_slice(id);
            }
            (at, Token::Bulk(value)) if at + 1 == self.tokens => {
                sink(Found::bare(value));
                self.left -= 1;
                self.at = 0;
                return Ok(());
            }
            (3.., Token::Bulk(_)) => {}
            _ => bail!("not an entry of a stream: {found:?}"),
        }
        self.at += 1;
        Ok(())
    }
}

/// What is stored in the streams of some topics, by `XRANGE`, several on the way at once.
struct Ranges {
    load: Arc<Load>,
    // Topics that were asked, in the order of the answers, and those to come.
    begun: VecDeque<usize>,
    topics: VecDeque<usize>,
    entries: Entries,
}

impl Ranges {
    fn ask(&mut self, topic: usize, from: &[u8], out: &mut Vec<u8>) {
        command(out, &[b"XRANGE", self.load.topic(topic), from, b"+", b"COUNT", READ_ENTRIES]);
        self.begun.push_back(topic);
    }

    // A whole answer has come: on with this topic, or with the next.
    fn answered(&mut self, empty: bool, out: &mut Vec<u8>) {
        let Some(topic) = self.begun.pop_front() else { return };
        if !empty {
            let from = [b"(", self.entries.last_id.as_slice()].concat();
            self.ask(topic, &from, out);
        } else if let Some(next) = self.topics.pop_front() {
            self.ask(next, b"-", out);
        }
    }
}

impl Feed for Ranges {
    fn begin(&mut self, out: &mut Vec<u8>) {
        for _ in 0..READS {
            let Some(topic) = self.topics.pop_front() else { return };
            self.ask(topic, b"-", out);
        }
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn is_over(&self) -> bool {
        self.begun.is_empty()
    }

    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(Found<'_>),
    ) -> anyhow::Result<usize> {
        let mut consumed = 0;
        while let Some((found, length)) = token(&bytes[consumed..])? {
            consumed += length;
            match found {
                Token::Array(count) if self.entries.left == 0 => {
                    self.entries.begin(count);
                    if count == 0 {
                        self.answered(true, out);
                    }
                }
                _ => {
                    self.entries.take(found, sink)?;
                    if self.entries.left == 0 {
                        self.answered(false, out);
                    }
                }
            }
        }
        Ok(consumed)
    }
}

/// What comes to the one stream, by `XREAD BLOCK` from its beginning on.
struct Blocking {
    entries: Entries,
    // Tokens of the answer before its entries: `*1 *2 $stream *n`.
    heads: usize,
}

impl Blocking {
    fn ask(&self, out: &mut Vec<u8>) {
        let id = &self.entries.last_id;
        let words: [&[u8]; 8] =
            [b"XREAD", b"BLOCK", b"0", b"COUNT", READ_ENTRIES, b"STREAMS", STREAM, id];
        command(out, &words);
    }
}

impl Feed for Blocking {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.ask(out);
    }

    // It begins with the stream's first entry, whenever the server comes to it.
    fn is_ready(&self) -> bool {
        true
    }

    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(Found<'_>),
    ) -> anyhow::Result<usize> {
        let mut consumed = 0;
        while let Some((found, length)) = token(&bytes[consumed..])? {
            consumed += length;
            match (self.heads, found) {
                (0 | 1, Token::Array(_)) | (2, Token::Bulk(_)) => self.heads += 1,
                (3, Token::Array(count)) => {
                    self.heads += 1;
                    self.entries.begin(count);
                }
                (4, _) => {
                    self.entries.take(found, sink)?;
                    if self.entries.left == 0 {
                        self.heads = 0;
                        self.ask(out);
                    }
                }
                _ => bail!("not an answer to XREAD: {found:?}"),
            }
        }
        Ok(consumed)
    }
}

/// What is published on any channel: `*4 $pmessage $pattern $channel $payload`.
struct Pushed {
    at: usize,
    ready: bool,
}

impl Feed for Pushed {
    fn begin(&mut self, out: &mut Vec<u8>) {
        command(out, &[b"PSUBSCRIBE", b"*"]);
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn take(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        sink: &mut dyn FnMut(Found<'_>),
    ) -> anyhow::Result<usize> {
        let mut consumed = 0;
        while let Some((found, length)) = token(&bytes[consumed..])? {
            consumed += length;
            self.at = match (self.at, found) {
                // `*3 $psubscribe $* :1`
                (_, Token::Number(_)) => {
                    self.ready = true;
                    0
                }
                (4, Token::Bulk(payload)) => {
                    sink(Found::bare(payload));
                    0
                }
                (at @ 0..=3, Token::Array(_) | Token::Bulk(_)) => at + 1,
                _ => bail!("not a message: {found:?}"),
            };
        }
        Ok(consumed)
    }
}
