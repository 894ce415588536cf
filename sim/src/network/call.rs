//! Calls: one message, one answer, either of which may get lost on its way.

use std::collections::BTreeMap;

use aklight_broker::replication::{Envelope, Kind, PeerError};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Delivery, Inner, Net, note};
use crate::trace::Trace;

type Answer = Result<Bytes, PeerError>;

/// Calls on their way.
#[derive(Default)]
pub(crate) struct Calls {
    /// By when they are due, then by when they were sent.
    packets: BTreeMap<(u64, u64), Packet>,
    waiting: BTreeMap<u64, Waiting>,
    /// The last answer to a command, for the plant that gives it again.
    last_answer: Option<Bytes>,
}

struct Waiting {
    from: u64,
    from_life: u32,
    to: u64,
    kind: u32,
    answer: oneshot::Sender<Answer>,
}

enum Packet {
    Call { id: u64, message: Envelope },
    Answer { id: u64, answer: Answer },
}

impl Inner {
    /// Sends a call.
    pub(super) fn send_call(
        &mut self,
        message: Envelope,
        now_us: u64,
    ) -> oneshot::Receiver<Answer> {
        let (answer, waiting) = oneshot::channel();
        let (from, to, kind) = (message.from, message.to, message.kind);
        let id = self.new_id();
        let Some(from_life) = self.life(from) else { return waiting };
        self.calls.waiting.insert(id, Waiting { from, from_life, to, kind, answer });
        let link = self.link(from, to);
        if kind == Kind::Command as u32
            && self.plants.replayed_answers
            && self.dice.once_in(4)
            && let Some(answer) = self.calls.last_answer.clone()
        {
            let due_us = now_us + self.delay_us(from, to);
            self.put(due_us, Packet::Answer { id, answer: Ok(answer) });
            return waiting;
        }
        if link.loses(&mut self.dice) {
            self.carried.lost += 1;
            return waiting;
        }
        if link.doubles(&mut self.dice) {
            self.carried.doubled += 1;
            let due_us = now_us + self.delay_us(from, to);
            self.put(due_us, Packet::Call { id, message: message.clone() });
        }
        let due_us = now_us + self.delay_us(from, to);
        self.put(due_us, Packet::Call { id, message });
        waiting
    }

    fn put(&mut self, due_us: u64, packet: Packet) {
        let order = self.new_id();
        self.calls.packets.insert((due_us, order), packet);
    }

    /// What is due now.
    pub(super) fn step_calls(&mut self, now_us: u64, trace: &Trace) -> Vec<Delivery> {
        self.calls.waiting.retain(|_, waiting| !waiting.answer.is_closed());
        let later = self.calls.packets.split_off(&(now_us + 1, 0));
        let due = std::mem::replace(&mut self.calls.packets, later);
        let mut deliveries = Vec::new();
        for ((due_us, order), packet) in due {
            if self.is_stopped(self.receiver(&packet)) {
                // In the kernel's buffer, in its order, until the broker goes on.
                self.calls.packets.insert((due_us, order), packet);
                continue;
            }
            match packet {
                Packet::Call { id, message } => {
                    deliveries.extend(self.arrive(id, message, now_us, trace));
                }
                Packet::Answer { id, answer } => self.arrive_back(id, answer, trace),
            }
        }
        deliveries
    }

    fn receiver(&self, packet: &Packet) -> u64 {
        match packet {
            Packet::Call { message, .. } => message.to,
            Packet::Answer { id, .. } => self.calls.waiting.get(id).map_or(0, |w| w.from),
        }
    }

    fn arrive(
        &mut self,
        id: u64,
        message: Envelope,
        now_us: u64,
        trace: &Trace,
    ) -> Option<Delivery> {
        let (from, to) = (message.from, message.to);
        if self.link(from, to).is_cut {
            self.carried.lost += 1;
            return None;
        }
        if !self.stations.contains_key(&to) {
            // Its port is closed, and says so.
            let refused = PeerError::Unreachable("connection refused".to_owned());
            self.answer_call(id, Err(refused), now_us);
            return None;
        }
        note(trace, "call", &message);
        self.carried.arrived += 1;
        Some(Delivery::Call { id, to, message })
    }

    /// Sends the answer to a call back.
    fn answer_call(&mut self, id: u64, answer: Answer, now_us: u64) {
        let Some(waiting) = self.calls.waiting.get(&id) else { return };
        let (from, to, kind) = (waiting.from, waiting.to, waiting.kind);
        if let Ok(bytes) = &answer
            && kind == Kind::Command as u32
        {
            self.calls.last_answer = Some(bytes.clone());
        }
        if self.link(to, from).loses(&mut self.dice) {
            self.carried.lost += 1;
            return;
        }
        let due_us = now_us + self.delay_us(to, from);
        self.put(due_us, Packet::Answer { id, answer });
    }

    fn arrive_back(&mut self, id: u64, answer: Answer, trace: &Trace) {
        let Some(waiting) = self.calls.waiting.get(&id) else { return };
        if self.link(waiting.to, waiting.from).is_cut {
            self.carried.lost += 1;
            return;
        }
        let Some(waiting) = self.calls.waiting.remove(&id) else { return };
        if self.life(waiting.from) != Some(waiting.from_life) {
            return;
        }
        let digest = match &answer {
            Ok(bytes) => u64::from(crc32c::crc32c(bytes)),
            Err(_) => 1,
        };
        trace.note("answer", &[waiting.from, waiting.to, u64::from(waiting.kind), digest]);
        // Who no longer waits has lost its patience.
        let _ = waiting.answer.send(answer);
    }
}

impl Net {
    /// Lets the receiver open a call.
    pub(super) fn hand_over(&self, id: u64, to: u64, message: Envelope) {
        let Some((runtime, handler)) = self.station(to) else { return };
        let net = self.clone();
        let life = self.inner.lock().life(to);
        runtime.spawn(async move {
            let answer = handler.call(message).await;
            let mut inner = net.inner.lock();
            if inner.life(to) == life {
                let now_us = net.trace.now_us();
                inner.answer_call(id, answer, now_us);
            }
        });
    }
}
