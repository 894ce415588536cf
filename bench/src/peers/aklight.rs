//! AKLight: lines over TCP, as PROTOCOL.md says.

mod feed;
mod publisher;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{bail, ensure};
use memchr::{memchr, memmem};

pub use feed::{Fetching, Subscription};
pub use publisher::AklightPublisher;

use super::{Feed, Place, Publisher, Safety, Setup, Share, Wanted, Way};
use crate::load::Load;
use crate::wire::Wire;

/// How records are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// `ACK|topic|offset|partition` for each.
    Own,
    /// `ACKS|n` for the next n.
    Cumulative,
}

/// How often a cluster that has no leaders yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// How often at most: a cluster begins within seconds.
const ASKS_MAX: usize = 1_500;

/// What AKLight is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answer each record with an ACK of its own.
    Own,
    /// Acknowledge many at once.
    Cumulative,
    /// The same as the first with a single partition, so that a cluster has a single leader.
    OnePartition,
    /// The same as the first, and stay awake between records.
    Spinning,
}

/// How long it stays awake after a record, in microseconds: longer than a client takes to send the next
/// one when it has its answer.
const SPIN_US: &str = "300";

/// AKLight with one broker or several.
#[derive(Debug, Clone)]
pub struct Aklight {
    /// What it is asked to do.
    pub kind: Kind,
    /// The `aklight` command.
    pub program: PathBuf,
    /// What its brokers are told besides.
    pub flags: Vec<String>,
}

impl Aklight {
    /// One broker that answers each record, started by that program.
    pub fn new(program: &Path) -> Self {
        Self { kind: Kind::Own, program: program.to_owned(), flags: Vec::new() }
    }
}

/// Keeps from one of ours what users tell their own.
pub fn without_own_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"AKLIGHT_") {
            command.env_remove(name);
        }
    }
}

impl Way for Aklight {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Own => "aklight",
            Kind::Cumulative => "aklight cumulative",
            Kind::OnePartition => "aklight one partition",
            Kind::Spinning => "aklight spinning",
        }
    }

    fn is_stored(&self) -> bool {
        true
    }

    fn program(&self) -> Option<PathBuf> {
        Some(self.program.clone())
    }

    fn command(&self, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Command> {
        let mut command = Command::new(program);
        without_own_settings(&mut command);
        command.arg("broker").arg("--data-dir").arg(setup.dir);
        command.arg("--listen").arg(setup.listen.to_string());
        command.args(["--listen-http", "127.0.0.1:0", "--log-level", "warn", "--fsync"]);
        command.arg(match setup.safety {
            Safety::Synced => "always",
            Safety::Cached => "interval",
        });
        command.args(&self.flags);
        if self.kind == Kind::OnePartition {
            command.args(["--partitions", "1"]);
        }
        if self.kind == Kind::Spinning {
            command.args(["--spin-us", SPIN_US]);
        }
        if let Some(own) = setup.members.get(setup.number) {
            let peers = (1..).zip(setup.members).map(|(id, m)| format!("{id}@{}", m.peers));
            command.arg("--node-id").arg((setup.number + 1).to_string());
            command.arg("--listen-peer").arg(own.peers.to_string());
            command.arg("--peers").arg(peers.collect::<Vec<_>>().join(","));
        }
        Ok(command)
    }

    fn greet(&self, wire: &mut Wire) -> anyhow::Result<()> {
        wire.ask(b"PING|bench\n", |bytes| {
            let Some(end) = memchr(b'\n', bytes) else { return Ok(None) };
            ensure!(bytes.starts_with(b"PONG|bench\n"), "it says {}", shown(&bytes[..end]));
            Ok(Some(end + 1))
        })
    }

    /// Waits until every partition has a leader that takes records: one in each, of a topic that
    /// nobody reads.
    fn prepare(&self, server: SocketAddr, _replicas: usize) -> anyhow::Result<()> {
        let mut wire = Wire::connect(server)?;
        for _ in 0..ASKS_MAX {
            let mut all = false;
            wire.ask(b"PRODUCE|bench/ready||\nPRODUCE|bench/ready||\n", |bytes| {
                let Some(first) = memchr(b'\n', bytes) else { return Ok(None) };
                let Some(second) = memchr(b'\n', &bytes[first + 1..]) else { return Ok(None) };
                all = [&bytes[..first], &bytes[first + 1..]].iter().all(|a| a.starts_with(b"ACK|"));
                Ok(Some(first + second + 2))
            })?;
            if all {
                return Ok(());
            }
            sleep(ASK_AGAIN);
        }
        bail!("its partitions find no leader")
    }

    fn leader(&self, server: SocketAddr) -> anyhow::Result<Option<usize>> {
        let mut leader = None;
        Wire::connect(server)?.ask(b"CLUSTER\n", |bytes| {
            let Some(end) = memmem::find(bytes, b"\nEND|") else { return Ok(None) };
            let mut lines = bytes[..end].split(|byte| *byte == b'\n');
            if let Some(line) = lines.find_map(|line| line.strip_prefix(b"PARTITION|0|")) {
                // `-` where nobody leads.
                leader =
                    number(line).ok().and_then(|(id, _)| usize::try_from(id).ok()?.checked_sub(1));
            }
            Ok(memchr(b'\n', &bytes[end + 1..]).map(|length| end + length + 2))
        })?;
        Ok(leader)
    }

    fn publisher(&self, load: &Arc<Load>, share: Share) -> Box<dyn Publisher> {
        let acks = if self.kind == Kind::Cumulative { Acks::Cumulative } else { Acks::Own };
        Box::new(AklightPublisher::new(load, share, acks))
    }

    fn place<'a>(&self, head: &'a [u8]) -> Option<(Place, &'a [u8])> {
        feed::place(head)
    }

    fn feed(&self, load: &Arc<Load>, wanted: Wanted) -> Option<Box<dyn Feed>> {
        let pattern = match wanted {
            Wanted::All => b"metrics/#".to_vec(),
            Wanted::Quarter => b"metrics/docker/+/cpu".to_vec(),
            Wanted::Topic(topic) => load.topic(topic).to_vec(),
            Wanted::Live => return Some(Box::new(feed::Subscription::default())),
        };
        Some(Box::new(feed::Fetching::new(pattern)))
    }
}

/// The number that a slice begins with, and what stands behind it and its `|`.
#[inline]
fn number(bytes: &[u8]) -> anyhow::Result<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.wrapping_mul(10) + u64::from(byte - b'0'),
            b'|' if at > 0 => return Ok((value, &bytes[at + 1..])),
            _ => bail!("not a number"),
        }
    }
    ensure!(!bytes.is_empty(), "a number is missing");
    Ok((value, &[]))
}

fn shown(line: &[u8]) -> String {
    line[..line.len().min(160)].escape_ascii().to_string()
}
