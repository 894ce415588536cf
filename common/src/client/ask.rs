//! The client that asks and is answered: one connection to one broker, one question at a time.
//!
//! For commands that people type and for tests. It does not reconnect: after an error other than
//! [`ClientError::Refused`] the connection is in an unknown place and is best dropped.
//! [`super::Producer`] and [`super::Subscription`] are the forms that mend themselves.
//!
//! No question here asks for pushed records, so every line that arrives answers the question
//! that was asked.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::timeout;

use super::config::ClientConfig;
use super::dial::dial;
use super::error::ClientError;
use super::values::{
    BrokerInfo, ClusterInfo, FetchRequest, Fetched, Message, PartitionInfo, Stored, TopicCount,
};
use crate::limits::FETCH_RECORDS_MAX;
use crate::topic::check_topic;
use crate::wire::{Command, ErrorCode, Line, LineCutter, Reply, WireError};
use crate::{Offset, PartitionId, Pattern, Topic};

/// Read from the socket at one go.
const CHUNK_BYTES: usize = 64 << 10;

/// One connection to one broker.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    broker: String,
    stream: TcpStream,
    cutter: LineCutter,
    out: Vec<u8>,
}

impl Client {
    /// Connects to the first broker of the list that answers a PING.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] names each broker with its reason.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let mut tried = Vec::new();
        for broker in &config.brokers {
            match Self::greet(&config, broker).await {
                Ok(client) => return Ok(client),
                Err(reason) => tried.push(format!("{broker} ({reason})")),
            }
        }
        Err(ClientError::NoBroker { tried: tried.join(", ") })
    }

    async fn greet(config: &ClientConfig, broker: &str) -> Result<Self, String> {
        let stream = dial(config, broker).await?;
        let cutter = LineCutter::new(config.reply_bytes_max());
        let (config, broker) = (config.clone(), broker.to_owned());
        let patience = config.request_timeout;
        let mut client = Self { config, broker, stream, cutter, out: Vec::new() };
        client.config.request_timeout = client.config.greeting_timeout;
        client.ping().await.map_err(|error| error.to_string())?;
        client.config.request_timeout = patience;
        Ok(client)
    }

    /// The broker that answers, as it was given.
    #[must_use]
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// Stores a record; answered when it is durable.
    ///
    /// # Errors
    /// After any error but a refusal it is not known whether the record was stored.
    pub async fn produce(
        &mut self,
        topic: &str,
        key: &[u8],
        payload: &[u8],
    ) -> Result<Stored, ClientError> {
        let answers = self.produce_all(&[(topic, key, payload)]).await?;
        let answer = answers.into_iter().next();
        answer.ok_or_else(|| self.unexpected("no answer at all"))?.map_err(ClientError::Refused)
    }

    /// Stores records, (topic, key, payload) each, pipelined: all are sent without waiting, and
    /// the answers come in the order of the records.
    ///
    /// # Errors
    /// When the connection broke: it is then not known which records were stored. A record that
    /// is refused fails alone, inside the answer.
    pub async fn produce_all(
        &mut self,
        records: &[(&str, &[u8], &[u8])],
    ) -> Result<Vec<Result<Stored, WireError>>, ClientError> {
        // All before any: half a batch must not be left in the output.
        for (topic, _, _) in records {
            check_topic(topic.as_bytes())
                .map_err(|error| ErrorCode::BadTopic.with(&error.to_string()))?;
        }
        for (topic, key, payload) in records {
            let (key, payload) = ((*key).into(), (*payload).into());
            Command::Produce { topic, key, payload }.encode(&mut self.out);
        }
        let mut answers = Vec::with_capacity(records.len());
        let mut unexpected = None;
        self.exchange(&mut |reply| {
            match reply {
                Reply::Ack { offset, partition, .. } => {
                    answers.push(Ok(Stored { offset, partition }));
                }
                Reply::Err(error) => answers.push(Err(error)),
                other => unexpected = Some(format!("{other:?}")),
            }
            answers.len() < records.len() && unexpected.is_none()
        })
        .await?;
        match unexpected {
            Some(what) => Err(self.unexpected(what)),
            None => Ok(answers),
        }
    }

    /// Reads stored records.
    ///
    /// # Errors
    /// What the broker refused, or why there is no answer.
    pub async fn fetch(&mut self, request: &FetchRequest) -> Result<Fetched, ClientError> {
        let FetchRequest { pattern, offset, partition, max, wait_ms } = request;
        let (offset, partition, max, wait_ms) = (*offset, *partition, *max, *wait_ms);
        let pattern = pattern.as_str();
        let mut messages = Vec::new();
        // The time that the broker may wait comes on top of the time to answer.
        let patience = self.config.request_timeout;
        self.config.request_timeout += std::time::Duration::from_millis(wait_ms);
        let listed = self
            .listing(&Command::Fetch { pattern, offset, partition, max, wait_ms }, &mut |reply| {
                take_message(reply, &mut messages)
            })
            .await;
        self.config.request_timeout = patience;
        Ok(Fetched { next: listed?.unwrap_or_default(), messages })
    }

    /// Every record of a pattern that is kept, up to where the log ends now: for topics of which
    /// there are few.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn fetch_all(&mut self, pattern: &Pattern) -> Result<Vec<Message>, ClientError> {
        let mut messages = Vec::new();
        for partition in self.cluster().await?.partitions {
            let mut offset = partition.start;
            while offset < partition.end {
                let (pattern, partition) = (pattern.clone(), Some(partition.id));
                let max = FETCH_RECORDS_MAX;
                let request = FetchRequest { pattern, offset, partition, max, wait_ms: 0 };
                let fetched = self.fetch(&request).await?;
                messages.extend(fetched.messages);
                match fetched.next.first() {
                    Some((_, next)) if *next > offset => offset = *next,
                    // An answer without progress is the end of what this broker knows.
                    _ => break,
                }
            }
        }
        Ok(messages)
    }

    /// Reads the newest record of each matching topic.
    ///
    /// # Errors
    /// What the broker refused, or why there is no answer.
    pub async fn last(&mut self, pattern: &Pattern) -> Result<Vec<Message>, ClientError> {
        let mut messages = Vec::new();
        self.listing(&Command::Last { pattern: pattern.as_str() }, &mut |reply| {
            take_message(reply, &mut messages)
        })
        .await?;
        Ok(messages)
    }

    /// Reads which topics there are.
    ///
    /// # Errors
    /// What the broker refused, or why there is no answer.
    pub async fn topics(&mut self, pattern: &Pattern) -> Result<Vec<TopicCount>, ClientError> {
        let mut topics = Vec::new();
        self.listing(&Command::Topics { pattern: pattern.as_str() }, &mut |reply| match reply {
            Reply::Topic { name, records } => {
                topics.extend(Topic::new(name).map(|topic| TopicCount { topic, records }));
                true
            }
            _ => false,
        })
        .await?;
        Ok(topics)
    }

    /// Reads who is there and who leads what.
    ///
    /// # Errors
    /// What the broker refused, or why there is no answer.
    pub async fn cluster(&mut self) -> Result<ClusterInfo, ClientError> {
        let mut cluster = ClusterInfo::default();
        self.listing(&Command::Cluster, &mut |reply| {
            match reply {
                Reply::Broker { id, address, state } => {
                    let (address, state) = (address.to_owned(), state.to_owned());
                    cluster.brokers.push(BrokerInfo { id, address, state });
                }
                Reply::Partition { id, leader, start, end } => {
                    cluster.partitions.push(PartitionInfo { id, leader, start, end });
                }
                _ => return false,
            }
            true
        })
        .await?;
        Ok(cluster)
    }

    /// Asks whether the broker is there.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        const TOKEN: &[u8] = b"client";
        self.question(
            &Command::Ping { token: TOKEN },
            |reply| matches!(reply, Reply::Pong(token) if *token == TOKEN),
        )
        .await
    }

    /// Takes leave; the broker then closes.
    ///
    /// # Errors
    /// When the broker was gone before.
    pub async fn quit(mut self) -> Result<(), ClientError> {
        self.question(&Command::Quit, |reply| matches!(reply, Reply::Bye)).await
    }

    /// Asks what has a one-line answer.
    async fn question(
        &mut self,
        command: &Command<'_>,
        expect: impl Fn(&Reply<'_>) -> bool + Sync,
    ) -> Result<(), ClientError> {
        command.encode(&mut self.out);
        let mut outcome = Ok(());
        let broker = self.broker.clone();
        self.exchange(&mut |reply| {
            outcome = match reply {
                reply if expect(&reply) => Ok(()),
                Reply::Err(error) => Err(ClientError::Refused(error)),
                other => Err(ClientError::unexpected(&broker, format!("{other:?}"))),
            };
            false
        })
        .await?;
        outcome
    }

    /// Asks what has several lines and an END for an answer. `line` says whether it took one.
    async fn listing(
        &mut self,
        command: &Command<'_>,
        line: &mut (dyn FnMut(Reply<'_>) -> bool + Send),
    ) -> Result<Option<Vec<(PartitionId, Offset)>>, ClientError> {
        command.encode(&mut self.out);
        let mut outcome = Ok(None);
        let mut count = 0;
        let broker = self.broker.clone();
        let unexpected = |what: String| Err(ClientError::unexpected(&broker, what));
        self.exchange(&mut |reply| {
            outcome = match reply {
                Reply::End { count: told, next } if told == count => Ok(next),
                Reply::End { count: told, .. } => {
                    unexpected(format!("a listing of {count} lines that claims {told}"))
                }
                Reply::Err(error) => Err(ClientError::Refused(error)),
                reply => {
                    count += 1;
                    let shown = format!("a {} in a listing", kind(&reply));
                    if line(reply) {
                        return true;
                    }
                    unexpected(shown)
                }
            };
            false
        })
        .await?;
        outcome
    }

    /// Writes what was encoded and shows replies to `take` until it says that they are enough.
    /// Reads while it writes: with enough questions under way, both sides would else wait for
    /// the other to read.
    async fn exchange(
        &mut self,
        take: &mut (dyn FnMut(Reply<'_>) -> bool + Send),
    ) -> Result<(), ClientError> {
        let out = std::mem::take(&mut self.out);
        if out.is_empty() {
            return Ok(());
        }
        let mut out = Bytes::from(out);
        let waited = self.config.request_timeout;
        let Self { stream, cutter, broker, .. } = self;
        let lost = |source| ClientError::Lost { broker: broker.clone(), source };
        let (mut reader, mut writer) = stream.split();
        loop {
            while let Some(line) = cutter.next_line() {
                let Line::Whole(line) = line else {
                    return Err(ClientError::unexpected(broker, "a line without an end"));
                };
                let reply =
                    Reply::decode(&line).map_err(|error| ClientError::no_reply(broker, &error))?;
                if !take(reply) {
                    return Ok(());
                }
            }
            let step = async {
                tokio::select! {
                    read = read_some(&mut reader, cutter.buffer()) => read,
                    written = writer.write_buf(&mut out), if out.has_remaining() => {
                        written.map(|_| ())
                    }
                }
            };
            match timeout(waited, step).await {
                Ok(done) => done.map_err(lost)?,
                Err(_) => return Err(ClientError::TimedOut { broker: broker.clone(), waited }),
            }
        }
    }

    fn unexpected(&self, what: impl Into<String>) -> ClientError {
        ClientError::unexpected(&self.broker, what)
    }
}

async fn read_some(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(CHUNK_BYTES);
    match reader.read_buf(buffer).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed it")),
        _ => Ok(()),
    }
}

fn take_message(reply: Reply<'_>, messages: &mut Vec<Message>) -> bool {
    let message = Message::from_reply(reply);
    let taken = message.is_some();
    messages.extend(message);
    taken
}

fn kind(reply: &Reply<'_>) -> &'static str {
    match reply {
        Reply::Message { .. } => "MESSAGE",
        Reply::Topic { .. } => "TOPIC",
        Reply::Broker { .. } => "BROKER",
        Reply::Partition { .. } => "PARTITION",
        Reply::Ok | Reply::OkPositions(_) => "OK",
        _ => "line that belongs elsewhere",
    }
}
