//! Mosquitto 2.0 over MQTT 3.1.1, with QoS 0 and QoS 1. It keeps no log: a record that nobody
//! subscribes to is acknowledged and gone.
//!
//! Its limits on what is queued and in flight are lifted, as in `design/limits.md`. Where latency
//! counts it is told not to wait for company (`set_tcp_nodelay`); where rate counts that would
//! make each PUBACK a segment of its own, and halve it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

use super::{Feed, Found, Publisher, Setup, Share, Taken, Wanted, Way};
use crate::load::Load;
use crate::programs::on_path;
use crate::wire::Wire;

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;
/// The bit of a PUBLISH's first byte that says QoS 1.
const QOS_1: u8 = 0x02;

/// Whether deliveries are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mosquitto {
    /// No.
    Qos0,
    /// Yes.
    Qos1,
}

impl Way for Mosquitto {
    fn name(&self) -> &'static str {
        match self {
            Self::Qos0 => "mosquitto qos 0",
            Self::Qos1 => "mosquitto qos 1",
        }
    }

    fn is_stored(&self) -> bool {
        false
    }

    fn program(&self) -> Option<PathBuf> {
        on_path("mosquitto")
    }

    fn command(&self, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Command> {
        let config = format!(
            "listener {} {}\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay {}\n\
             log_type error\n{}",
            setup.listen.port(),
            setup.listen.ip(),
            setup.dir.display(),
            setup.is_prompt,
            // Started by root it would become a user who may not write to this folder.
            if nix::unistd::geteuid().is_root() { "user root\n" } else { "" },
        );
        let path = setup.dir.join("mosquitto.conf");
        fs::write(&path, config).with_context(|| format!("writing {}", path.display()))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(path);
        Ok(command)
    }

    fn greet(&self, wire: &mut Wire) -> anyhow::Result<()> {
        wire.ask(&connect(""), |bytes| {
            let Some(packet) = packet(bytes)? else { return Ok(None) };
            accepted(&packet)?;
            Ok(Some(packet.length))
        })
    }

    fn publisher(&self, load: &Arc<Load>, share: Share) -> Box<dyn Publisher> {
        let load = Arc::clone(load);
        Box::new(MqttPublisher { load, share, qos: *self, sent: 0, ready: false })
    }

    fn feed(&self, _load: &Arc<Load>, wanted: Wanted) -> Option<Box<dyn Feed>> {
        (wanted == Wanted::Live).then(|| Box::new(MqttFeed { qos: *self, ready: false }) as _)
    }
}

/// CONNECT with a clean session and no keep-alive; the server gives a client without a name one.
fn connect(client: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
    put_text(&mut body, client.as_bytes());
    let mut out = vec![0x10];
    put_length(&mut out, body.len());
    out.extend_from_slice(&body);
    out
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    // Topics and names of ours are shorter than 64 KiB.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 127 {
        out.push(u8::try_from(length & 127).unwrap_or(0) | 128);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or(0));
}

/// A packet: its first byte, what stands behind its length, and how long it is in all.
struct Packet<'a> {
    head: u8,
    body: &'a [u8],
    length: usize,
}

/// The first packet, once it is whole.
#[inline]
fn packet(bytes: &[u8]) -> anyhow::Result<Option<Packet<'_>>> {
    let Some(head) = bytes.first() else { return Ok(None) };
    let mut length = 0;
    for at in 1..=4 {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 127) << (7 * (at - 1));
        if byte & 128 == 0 {
            let whole = at + 1 + length;
            let body = bytes.get(at + 1..whole);
            return Ok(body.map(|body| Packet { head: *head, body, length: whole }));
        }
    }
    bail!("not MQTT: a length of more than four bytes")
}

fn accepted(packet: &Packet<'_>) -> anyhow::Result<()> {
    ensure!(packet.head == CONNACK && packet.body.get(1) == Some(&0), "the server refuses us");
    Ok(())
}

struct MqttPublisher {
    load: Arc<Load>,
    share: Share,
    qos: Mosquitto,
    sent: u64,
    ready: bool,
}

impl MqttPublisher {
    // Packet ids are 1 to 65,535, far more than a window.
    fn id(&self) -> u16 {
        u16::try_from(self.sent % 65_535).unwrap_or(0) + 1
    }
}

impl Publisher for MqttPublisher {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&connect(""));
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn publish(&mut self, out: &mut Vec<u8>) {
        let n = self.share.first + self.sent * self.share.step;
        let topic = self.load.topic(self.load.topic_of(n));
        let asks = self.qos == Mosquitto::Qos1;
        out.push(if asks { PUBLISH | QOS_1 } else { PUBLISH });
        put_length(out, 2 + topic.len() + 2 * usize::from(asks) + self.load.payload_bytes());
        put_text(out, topic);
        if asks {
            out.extend_from_slice(&self.id().to_be_bytes());
        }
        self.load.payload(n, out);
        self.sent += 1;
    }

    fn take(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> anyhow::Result<Taken> {
        let mut taken = Taken::default();
        while let Some(packet) = packet(&bytes[taken.consumed..])? {
            match packet.head {
                PUBACK => taken.acknowledged += 1,
                _ => {
                    accepted(&packet)?;
                    self.ready = true;
                }
            }
            taken.consumed += packet.length;
        }
        Ok(taken)
    }

    fn is_acknowledged(&self) -> bool {
        self.qos == Mosquitto::Qos1
    }
}

struct MqttFeed {
    qos: Mosquitto,
    ready: bool,
}

impl Feed for MqttFeed {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&connect(""));
        let mut body = vec![0, 1];
        put_text(&mut body, b"metrics/#");
        body.push(u8::from(self.qos == Mosquitto::Qos1));
        out.push(0x82);
        put_length(out, body.len());
        out.extend_from_slice(&body);
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
        while let Some(packet) = packet(&bytes[consumed..])? {
            match packet.head & 0xf0 {
                PUBLISH => {
                    let topic = packet.body.get(..2).context("a PUBLISH without a topic")?;
                    let behind = 2 + usize::from(u16::from_be_bytes([topic[0], topic[1]]));
                    let asks = packet.head & QOS_1 != 0;
                    let payload = packet.body.get(behind + 2 * usize::from(asks)..);
                    sink(Found::bare(payload.context("a PUBLISH that ends too soon")?));
                    if asks {
                        out.extend_from_slice(&[PUBACK, 2]);
                        out.extend_from_slice(&packet.body[behind..behind + 2]);
                    }
                }
                SUBACK => self.ready = true,
                _ => accepted(&packet)?,
            }
            consumed += packet.length;
        }
        Ok(consumed)
    }
}
