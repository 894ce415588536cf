//! One connection of a subscription: what was asked on it, and what each line answers.
//!
//! The broker answers in the order of the questions, and pushes records between the answers, so
//! a line is either a record or the answer to the oldest question. An ACK is answered only when
//! it is refused; the PING behind each batch of them says where its refusals end.
//!
//! A line that has long been silent is asked for a sign of life, and the question is CLUSTER: a
//! broker names a partition's leader only when it has heard from it. One that is alive but cut off
//! from its peers, or was removed, answers every PING, and would be waited at for records that can
//! never come.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::acks::Batch;
use crate::client::values::Message;
use crate::wire::{Command, Line, LineCutter, Reply, WireError};
use crate::{Offset, PartitionId};

/// Read from the socket at one go; what one reading brings is delivered before the next.
const CHUNK_BYTES: usize = 64 << 10;

/// The token of every PING here: their order tells them apart.
const TOKEN: &[u8] = b"acks";

/// A question that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Register,
    Subscribe,
    /// The PING behind a batch of ACKs.
    Barrier,
    /// A CLUSTER, of which only the end counts.
    Life,
    Quit,
}

/// What a line means.
#[derive(Debug)]
pub(super) enum Said {
    Registered(Vec<(PartitionId, Offset)>),
    RegistrationRefused(WireError),
    Subscribed,
    SubscriptionRefused(WireError),
    Message(Message),
    AckRefused(WireError),
    /// Every ACK sent before is durable, but for those refused.
    Barrier,
    /// The broker is there, and so is its cluster.
    Alive,
    Bye,
}

/// A socket with its questions.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    cutter: LineCutter,
    out: BytesMut,
    questions: VecDeque<Question>,
    patience: Duration,
}

impl Connection {
    /// A connection whose answers may take so long.
    pub(super) fn new(stream: TcpStream, reply_bytes_max: usize, patience: Duration) -> Self {
        let cutter = LineCutter::new(reply_bytes_max);
        Self { stream, cutter, out: BytesMut::new(), questions: VecDeque::new(), patience }
    }

    /// From now on answers may take so long, and so long may the line be silent.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub(super) fn register(&mut self, id: &str, persistent: bool) {
        self.ask(&Command::RegisterConsumer { id, persistent }, Some(Question::Register));
    }

    pub(super) fn subscribe(&mut self, pattern: &str) {
        self.ask(&Command::Subscribe { pattern }, Some(Question::Subscribe));
    }

    /// Sends a batch, and a PING behind it.
    pub(super) fn acknowledge(&mut self, batch: &Batch) {
        for (partition, (topic, offset)) in batch {
            let (topic, offset, partition) = (topic.as_str(), *offset, *partition);
            self.ask(&Command::Ack { topic, offset, partition }, None);
        }
        self.ask(&Command::Ping { token: TOKEN }, Some(Question::Barrier));
    }

    pub(super) fn quit(&mut self) {
        self.ask(&Command::Quit, Some(Question::Quit));
    }

    fn ask(&mut self, command: &Command<'_>, question: Option<Question>) {
        let mut line = Vec::new();
        command.encode(&mut line);
        self.out.extend_from_slice(&line);
        self.questions.extend(question);
    }

    /// Whether a batch of ACKs is still unanswered.
    pub(super) fn awaits_barrier(&self) -> bool {
        self.questions.contains(&Question::Barrier)
    }

    /// Whether leave was taken.
    pub(super) fn is_leaving(&self) -> bool {
        self.questions.contains(&Question::Quit)
    }

    /// The next line that has arrived, if one has. An error ends the connection.
    pub(super) fn next_said(&mut self) -> Result<Option<Said>, String> {
        while let Some(line) = self.cutter.next_line() {
            let Line::Whole(line) = line else {
                return Err("the broker sent a line that is too long to be a record".to_owned());
            };
            let reply = Reply::decode(&line).map_err(|error| error.to_string())?;
            match (self.questions.front(), &reply) {
                (Some(Question::Life), Reply::Partition { id, leader: None, .. }) => {
                    return Err(format!("the broker hears of no leader of partition {id}"));
                }
                (Some(Question::Life), Reply::Broker { .. } | Reply::Partition { .. }) => {}
                _ => return self.understand(reply).map(Some),
            }
        }
        Ok(None)
    }

    fn understand(&mut self, reply: Reply<'_>) -> Result<Said, String> {
        let oldest = self.questions.front().copied();
        let said = match (oldest, reply) {
            (_, reply @ Reply::Message { .. }) => {
                return Message::from_reply(reply)
                    .map(Said::Message)
                    .ok_or_else(|| "the broker sent a record that cannot be read".to_owned());
            }
            // The PING that follows the refused ACK is still to be answered.
            (Some(Question::Barrier), Reply::Err(error)) => return Ok(Said::AckRefused(error)),
            (Some(Question::Register), Reply::OkPositions(positions)) => {
                Said::Registered(positions)
            }
            (Some(Question::Register), Reply::Err(error)) => Said::RegistrationRefused(error),
            (Some(Question::Subscribe), Reply::Ok) => Said::Subscribed,
            (Some(Question::Subscribe), Reply::Err(error)) => Said::SubscriptionRefused(error),
            (Some(Question::Barrier), Reply::Pong(token)) if token == TOKEN => Said::Barrier,
            (Some(Question::Life), Reply::End { .. }) => Said::Alive,
            (Some(Question::Life), Reply::Err(error)) => {
                return Err(format!("the broker has lost its cluster: {error}"));
            }
            (Some(Question::Quit), Reply::Bye) => Said::Bye,
            (_, Reply::Err(error)) => {
                return Err(format!("the broker ended the connection: {error}"));
            }
            (_, reply) => return Err(format!("the broker said what nobody asked: {reply:?}")),
        };
        self.questions.pop_front();
        Ok(said)
    }

    /// Waits until something was written or, if it `reads`, something has arrived. Silence is
    /// then answered with a question, and silence after that is an error. Safe to be cancelled.
    pub(super) async fn step(&mut self, reads: bool) -> Result<(), String> {
        if !reads && self.out.is_empty() {
            return std::future::pending().await;
        }
        let (mut reader, mut writer) = self.stream.split();
        let buffer = self.cutter.buffer();
        buffer.reserve(CHUNK_BYTES);
        let io = async {
            tokio::select! {
                read = reader.read_buf(buffer), if reads => match read? {
                    0 => Err(io::Error::other("the broker closed the connection")),
                    _ => Ok(()),
                },
                written = writer.write_buf(&mut self.out), if self.out.has_remaining() => {
                    written.map(|_| ())
                }
            }
        };
        match timeout(self.patience, io).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            // A caller who takes his time is no fault of the broker's.
            Err(_) if !reads => Ok(()),
            Err(_) if self.questions.is_empty() => {
                self.ask(&Command::Cluster, Some(Question::Life));
                Ok(())
            }
            Err(_) => Err(format!("the broker did not answer within {:?}", self.patience)),
        }
    }
}
