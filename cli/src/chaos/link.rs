//! One connection of the load: commands out, replies in, and a limit to its patience.
//!
//! The forms of client in `common` mend themselves and hide how; here every reply must be told to
//! the oracle as it was, and every loss as a loss, so this speaks the protocol plainly.

use std::time::Duration;

use aklight_common::client::PartitionInfo;
use aklight_common::clock::SharedClock;
use aklight_common::limits::LINE_BYTES_MAX;
use aklight_common::wire::{Command, Line, LineCutter, Reply};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take: on loopback and in a container's network it comes at once or
/// not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Read from the socket at one go.
const CHUNK_BYTES: usize = 64 << 10;

/// A connection, and what is on its way.
pub struct Link {
    stream: TcpStream,
    cutter: LineCutter,
    out: BytesMut,
    clock: SharedClock,
    patience_ms: u64,
    /// When something was last heard, or first asked.
    heard_ms: u64,
}

impl Link {
    /// Connects. After `patience` without a word while something is asked, it is given up.
    ///
    /// # Errors
    /// Why there is no connection, for people.
    pub async fn open(
        address: &str,
        patience: Duration,
        clock: &SharedClock,
    ) -> Result<Self, String> {
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("{address}: {error}")),
            Err(_) => return Err(format!("{address}: no connection within {CONNECT_TIMEOUT:?}")),
        };
        stream.set_nodelay(true).map_err(|error| format!("{address}: {error}"))?;
        Ok(Self {
            stream,
            cutter: LineCutter::new(2 * LINE_BYTES_MAX),
            out: BytesMut::new(),
            patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX / 2),
            heard_ms: clock.monotonic_ms(),
            clock: clock.clone(),
        })
    }

    /// Puts a command into the output; [`Link::step`] sends it.
    pub fn say(&mut self, command: &Command<'_>) {
        let mut line = Vec::new();
        command.encode(&mut line);
        self.out.extend_from_slice(&line);
    }

    /// Whoever asks after a silence begins to wait now.
    pub fn begins_to_wait(&mut self) {
        self.heard_ms = self.clock.monotonic_ms();
    }

    /// The next line that has arrived, if one has.
    ///
    /// # Errors
    /// A line without end is no reply.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, String> {
        match self.cutter.next_line() {
            None => Ok(None),
            Some(Line::Whole(line)) => Ok(Some(line)),
            Some(Line::TooLong) => Err("a line without an end".to_owned()),
        }
    }

    /// Reads or writes once. Safe to be cancelled.
    ///
    /// # Errors
    /// The connection is lost: why.
    pub async fn step(&mut self) -> Result<(), String> {
        self.cutter.buffer().reserve(CHUNK_BYTES);
        let (mut reader, mut writer) = self.stream.split();
        tokio::select! {
            read = reader.read_buf(self.cutter.buffer()) => match read {
                Ok(0) => return Err("the broker closed it".to_owned()),
                Ok(_) => self.heard_ms = self.clock.monotonic_ms(),
                Err(error) => return Err(error.to_string()),
            },
            written = writer.write_buf(&mut self.out), if self.out.has_remaining() => {
                written.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Checks the patience of whoever waits for an answer; to be called now and then.
    ///
    /// # Errors
    /// It is at its end.
    pub fn check_patience(&self) -> Result<(), String> {
        let waited_ms = self.clock.monotonic_ms().saturating_sub(self.heard_ms);
        if waited_ms >= self.patience_ms {
            return Err(format!("silent for {waited_ms} ms"));
        }
        Ok(())
    }

    /// Asks one question whose answer ends with a line that `last` knows; shows it every line.
    ///
    /// # Errors
    /// The connection is lost, silent, or does not speak the protocol.
    pub async fn ask(
        &mut self,
        command: &Command<'_>,
        mut last: impl FnMut(Reply<'_>) -> Result<bool, String>,
    ) -> Result<(), String> {
        self.say(command);
        self.begins_to_wait();
        let patience = Duration::from_millis(self.patience_ms);
        loop {
            while let Some(line) = self.next_line()? {
                let reply = Reply::decode(&line).map_err(|error| error.to_string())?;
                if last(reply)? {
                    return Ok(());
                }
            }
            match timeout(patience, self.step()).await {
                Ok(done) => done?,
                Err(_) => return Err(format!("silent for {patience:?}")),
            }
        }
    }

    /// Asks where each partition begins and ends, and who leads it.
    ///
    /// # Errors
    /// As [`Link::ask`], or the broker refuses.
    pub async fn partitions(&mut self) -> Result<Vec<PartitionInfo>, String> {
        let mut found = Vec::new();
        self.ask(&Command::Cluster, |reply| match reply {
            Reply::Broker { .. } => Ok(false),
            Reply::Partition { id, leader, start, end } => {
                found.push(PartitionInfo { id, leader, start, end });
                Ok(false)
            }
            Reply::End { .. } => Ok(true),
            other => Err(format!("it answers CLUSTER with {other:?}")),
        })
        .await?;
        Ok(found)
    }
}
