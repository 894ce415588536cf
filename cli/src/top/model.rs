//! Everything that is known: records in, state out. Pure; the time is handed in.
//!
//! Invariant: memory is bounded, by how many hosts, containers and alerts are kept. Beyond that,
//! what is not shown any more makes place; where nothing is, the newcomer is counted and left out.

use std::collections::BTreeMap;

use aklight_common::client::Message;

use super::alert::Alert;
use super::container::{Container, Host};
use super::record::{Key, Payload, Subject};

/// Most hosts: a cluster that one person looks after.
const HOSTS_MAX: usize = 256;

/// Most containers: with five minutes of all their numbers some 30 KiB each.
const CONTAINERS_MAX: usize = 2000;

/// Most alerts.
const ALERTS_MAX: usize = 1000;

/// How a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It was stored just now.
    Live,
    /// It was stored some time ago.
    Stored,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Model {
    /// Hosts, by their producers.
    pub hosts: BTreeMap<String, Host>,
    /// Containers.
    pub containers: BTreeMap<Key, Container>,
    /// Alerts, by their topics.
    pub alerts: BTreeMap<String, Alert>,
    /// Records for which there was no place.
    pub left_out: u64,
}

impl Model {
    /// Takes a record in; whether anything is shown of such.
    pub fn take(&mut self, message: &Message, way: Way, now_ms: u64) -> bool {
        let Some(subject) = Subject::of(message.topic.as_str()) else { return false };
        let Some(payload) = Payload::of(message) else { return false };
        let seen_ms = match way {
            Way::Live => now_ms,
            Way::Stored => payload.ts().min(now_ms),
        };
        match subject {
            Subject::Host { producer, metric } => {
                if let Some(host) = self.host(producer) {
                    host.take(metric, &payload, seen_ms);
                }
            }
            Subject::Container { key, metric } => {
                if let Some(container) = self.container(key, now_ms) {
                    container.take(metric, &payload, seen_ms);
                }
            }
            Subject::Info(key) => {
                if let Some(container) = self.container(key, now_ms) {
                    container.take_info(&payload);
                }
            }
            Subject::Event(key) => {
                if let Some(container) = self.container(key, now_ms) {
                    container.take_event(&payload);
                }
            }
            Subject::Alert => self.take_alert(message.topic.as_str(), &payload),
        }
        true
    }

    /// The containers that are shown.
    pub fn shown(&self, now_ms: u64) -> impl Iterator<Item = (&Key, &Container)> {
        self.containers.iter().filter(move |(_, container)| container.is_shown(now_ms))
    }

    /// How many alerts fire over each container's topics, where any do.
    pub fn firing(&self) -> BTreeMap<Key, usize> {
        let mut firing = BTreeMap::new();
        for alert in self.alerts.values().filter(|alert| alert.is_firing()) {
            if let Some(Subject::Container { key, .. }) = Subject::of(&alert.topic) {
                *firing.entry(key).or_default() += 1;
            }
        }
        firing
    }

    fn host(&mut self, producer: &str) -> Option<&mut Host> {
        if !self.hosts.contains_key(producer) && self.hosts.len() >= HOSTS_MAX {
            self.left_out += 1;
            return None;
        }
        Some(self.hosts.entry(producer.to_owned()).or_default())
    }

    fn container(&mut self, key: Key, now_ms: u64) -> Option<&mut Container> {
        if !self.containers.contains_key(&key) && self.containers.len() >= CONTAINERS_MAX {
            self.containers.retain(|_, container| container.is_shown(now_ms));
            if self.containers.len() >= CONTAINERS_MAX {
                self.left_out += 1;
                return None;
            }
        }
        Some(self.containers.entry(key).or_default())
    }

    fn take_alert(&mut self, topic: &str, payload: &Payload) {
        let alert = Alert::of(topic, payload);
        if self.alerts.get(topic).is_some_and(|known| known.ts_ms > alert.ts_ms) {
            return;
        }
        self.alerts.insert(topic.to_owned(), alert);
        if self.alerts.len() > ALERTS_MAX {
            // What is over goes before what still fires, and the oldest first.
            let least = self.alerts.iter().min_by_key(|(_, a)| (!a.is_over(), a.ts_ms));
            if let Some(topic) = least.map(|(topic, _)| topic.clone()) {
                self.alerts.remove(&topic);
            }
        }
    }
}
