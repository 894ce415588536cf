//! The consumer's core: records, ticks and reports in; the memory, and what is told, out.
//!
//! One owner, no lock, and no waiting but for the disk and the console: the queues towards
//! carriers and the broker are filled without waiting. The shell around it (module `run`) brings
//! the events and the time.
//!
//! What is told and when follows the order that module `alerts` lays down.

pub mod adopting;
pub(crate) mod context;
mod fallback;
mod outdated;
mod people;
mod telling;
mod untold;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use aklight_common::client::Message;
use aklight_common::{Offset, PartitionId, Topic};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::alerts::dead::DeadLetters;
use crate::alerts::memory::{ANNOUNCEMENTS_MAX, Announcement, Standing};
use crate::alerts::store::Store;
use crate::alerts::{Destination, Memory, actions};
use crate::notify::console::Console;
use crate::notify::message::moment;
use crate::notify::sender::{Event, Order};
use crate::rules::book::{Judged, Labels};
use crate::rules::machine::State;
use crate::rules::{About, Book, Channel, Container, Quiet, Rule, Rules, Verdict, labels};
use crate::sample::Sample;
use context::Context;

/// Broken payloads are reported once a topic, for so many topics: whoever sends made-up topics
/// must not fill the memory with them.
const BROKEN_TOPICS_MAX: usize = 10_000;

/// How far the clock must be from where it should be to have been set, in milliseconds: a second is
/// more than what drift and its correction come to between two looks, and hardly a duration in a
/// rule.
pub const CLOCK_SET_MS_MIN: u64 = 1_000;

/// What the engine works with.
pub struct Parts {
    /// The rules, with the state of every topic as it was remembered.
    pub book: Book,
    /// What was remembered.
    pub memory: Memory,
    /// Where it is kept; `None` for a consumer who keeps nothing.
    pub store: Option<Store>,
    /// Where goes what cannot be told.
    pub dead: DeadLetters,
    /// The output.
    pub console: Console,
    /// When alerts wait, where they do.
    pub quiet: Option<Quiet>,
    /// How long an alert waits for others that go the same way, in milliseconds.
    pub group_wait_ms: u64,
    /// The channels that are set up.
    pub outlets: Vec<Outlet>,
    /// The way to the announcer: room for [`memory::ANNOUNCEMENTS_MAX`](crate::alerts::memory::ANNOUNCEMENTS_MAX).
    pub announcements: mpsc::Sender<Announcement>,
}

/// A channel that is set up.
#[derive(Debug)]
pub struct Outlet {
    /// Which.
    pub channel: Channel,
    /// The recipients: a message each.
    pub destinations: Vec<Destination>,
    /// The way to the sender: room for [`memory::NOTICES_MAX`](crate::alerts::memory::NOTICES_MAX).
    pub orders: mpsc::Sender<Order>,
}

/// A record that the broker may be told is processed.
pub type Processed = (Topic, Offset, PartitionId);

/// The newest record of each partition.
type Newest = BTreeMap<PartitionId, (Topic, Offset)>;

/// See the module.
pub struct Engine {
    parts: Parts,
    context: Context,
    units: HashMap<Topic, String>,
    broken: HashMap<Topic, u64>,
    /// Processed, but not yet in the file.
    unacknowledged: Newest,
    /// Processed and in the file, and the sequence before which all that follows from it is
    /// recorded: only then may a successor begin behind it.
    unrecorded: Option<(u64, Newest)>,
    /// Notices that the sender has.
    handed: HashSet<u64>,
    /// Notices that an earlier run, or another consumer of this name, may have told.
    doubtful: HashSet<u64>,
    /// The last announcement that the announcer has.
    announced: u64,
    /// Whether it is not its turn yet to tell anything.
    waits: bool,
    /// Since when silence is silence; `None` while cut off from the brokers.
    watching_since_ms: Option<u64>,
    dirty: bool,
    urgent: bool,
    full: bool,
    said_too_many_topics: bool,
    write_fails: bool,
    console_fails: bool,
    repeats: u64,
}

impl Engine {
    /// Starts with what was remembered. Nothing is told before [`Self::begin`].
    #[must_use]
    pub fn new(mut parts: Parts, now_ms: u64) -> Self {
        for labels in std::mem::take(&mut parts.memory.labels) {
            // Its mistakes were said when they were new.
            parts.book.label(labels, now_ms);
        }
        for Standing { rule, topic, state } in std::mem::take(&mut parts.memory.standings) {
            if let Ok(topic) = Topic::new(&topic) {
                parts.book.restore(&rule, &topic, state);
            }
        }
        let mails = parts.outlets.iter().find(|outlet| outlet.channel == Channel::Email);
        let recipients = mails.map(|outlet| outlet.destinations.clone()).unwrap_or_default();
        parts.memory.spread_mails(&recipients);
        let restored: HashSet<_> = parts.memory.notices.iter().map(|notice| notice.id).collect();
        let full = parts.memory.announcements.len() >= ANNOUNCEMENTS_MAX;
        let announced = parts.memory.announcements.front().map_or(0, |first| first.sequence - 1);
        let mut engine = Self {
            parts,
            context: Context::default(),
            units: HashMap::new(),
            broken: HashMap::new(),
            unacknowledged: BTreeMap::new(),
            unrecorded: None,
            handed: HashSet::new(),
            doubtful: HashSet::new(),
            announced,
            waits: true,
            watching_since_ms: None,
            dirty: false,
            urgent: false,
            full,
            said_too_many_topics: false,
            write_fails: false,
            console_fails: false,
            repeats: 0,
        };
        // What was written by a clock that was ahead: at the latest, it was now.
        let ahead_ms = engine.parts.book.newest_ms().saturating_sub(now_ms);
        if ahead_ms >= CLOCK_SET_MS_MIN {
            engine.clock_set(i64::try_from(ahead_ms).map_or(i64::MIN, |ms| -ms), now_ms);
        }
        engine.doubtful = restored;
        engine
    }

    /// Processes a record, unless it was processed before.
    pub fn on_message(&mut self, message: &Message, now_ms: u64) {
        let Message { topic, offset, partition, payload, .. } = message;
        if self.parts.memory.has_processed(*partition, *offset) {
            self.repeats += 1;
            return;
        }
        let sample = Sample::parse(payload);
        let printed = self.parts.console.record(message, sample.as_ref().ok());
        self.printed(printed);
        let mut gone = None;
        match (sample, About::of(topic)) {
            _ if topic.as_str() == actions::TOPIC => self.act(payload, now_ms),
            (Ok(sample), Some(About::Info(container))) => {
                gone = (sample.value == 0.0).then(|| container.clone());
                self.on_info(container, &sample, now_ms);
            }
            (Ok(sample), Some(About::Event(container))) => {
                self.context.event(container, &sample, now_ms);
            }
            (Ok(sample), about) => {
                if let Some(About::Sample(container, metric)) = about {
                    self.context.sample(container, metric, &sample);
                }
                self.judge(topic, &sample, now_ms);
            }
            (Err(error), _) if self.expects_samples(topic) => self.report_broken(topic, &error),
            (Err(_), _) => {}
        }
        self.parts.memory.process(topic, *partition, *offset);
        if let Some(container) = gone {
            self.parts.memory.forget(&container);
        }
        self.unacknowledged.insert(*partition, (topic.clone(), *offset));
        self.dirty = true;
    }

    /// Lets time pass. Silence is judged only while a broker is connected.
    pub fn on_tick(&mut self, now_ms: u64) {
        self.end_mutes(now_ms);
        let Some(since_ms) = self.watching_since_ms else { return };
        let verdicts = self.parts.book.tick(now_ms, since_ms);
        self.follow_all(&verdicts, now_ms);
    }

    /// The clock of this machine was set, by so many milliseconds: how long everything lasts already
    /// is the same as before.
    pub fn clock_set(&mut self, by_ms: i64, now_ms: u64) {
        warn!(by_ms, "the clock was set: what waits and lasts goes on as before");
        self.parts.book.clock_set(by_ms, now_ms);
        let since_ms = &mut self.watching_since_ms;
        *since_ms = since_ms.map(|since_ms| since_ms.saturating_add_signed(by_ms));
        self.dirty = true;
    }

    /// A broker is there, or is gone.
    pub fn watch(&mut self, since_ms: Option<u64>) {
        self.watching_since_ms = since_ms;
    }

    /// Where the broker stands behind this consumer: partitions with the offset that it would
    /// begin with and the one that comes next here.
    #[must_use]
    pub fn behind(
        &self,
        positions: &[(PartitionId, Offset)],
    ) -> Vec<(PartitionId, Offset, Offset)> {
        let next = |partition| self.parts.memory.next.get(partition).copied();
        positions
            .iter()
            .filter_map(|(p, position)| Some((*p, *position, next(p).filter(|n| position < n)?)))
            .collect()
    }

    /// A partition's log is shorter than what was processed of it: it is another log.
    pub fn restart_partition(&mut self, partition: PartitionId, position: Offset) {
        self.parts.memory.restart(partition, position);
        self.unacknowledged.remove(&partition);
        if let Some((_, processed)) = &mut self.unrecorded {
            processed.remove(&partition);
        }
        self.dirty = true;
    }

    /// The last record processed of a partition, where the file and the broker know what follows
    /// from it. Nothing while they do not: what is acknowledged must survive this machine.
    #[must_use]
    pub fn last_processed(&self, partition: PartitionId) -> Option<Processed> {
        let known = !self.dirty && self.parts.memory.announcements.is_empty();
        if !known || self.parts.store.is_none() {
            return None;
        }
        let of_partition = self.parts.memory.processed.iter().filter(|((_, p), _)| *p == partition);
        let ((topic, _), offset) = of_partition.max_by_key(|(_, offset)| **offset)?;
        Some((topic.clone(), *offset, partition))
    }

    /// Takes other rules.
    pub fn replace_rules(&mut self, rules: Rules) {
        self.parts.quiet = rules.quiet;
        self.parts.book.replace(rules.list);
        self.dirty = true;
    }

    /// The rules that are in force.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        self.parts.book.rules()
    }

    /// Takes the sender's report.
    pub fn on_event(&mut self, event: Event, now_ms: u64) {
        self.urgent = true;
        match event {
            Event::Accepted { id, sid } => {
                let mut notices = self.parts.memory.notices.iter_mut();
                if let Some(notice) = notices.find(|notice| notice.id == id) {
                    notice.sid = Some(sid);
                }
                self.report(id, "sent", json!({}), now_ms);
            }
            Event::HeldUp { id, reason } => self.hold_up(id, &reason, now_ms),
            Event::Delivered { id, arrived } => {
                self.handed.remove(&id);
                let known = self.parts.memory.notices.iter().find(|notice| notice.id == id);
                // What was taken before and has not arrived since is no more than that.
                if arrived || known.is_some_and(|notice| notice.sid.is_none()) {
                    let status = if arrived { "delivered" } else { "sent" };
                    self.report(id, status, json!({}), now_ms);
                }
                if let Some(notice) = self.parts.memory.strike(id) {
                    info!(
                        channel = notice.destination.channel().as_str(),
                        to = notice.destination.shown(),
                        alerts = notice.alerts().count(),
                        rule = notice.alert.rule,
                        topic = notice.alert.topic,
                        "told"
                    );
                }
            }
            Event::Dead { id, reason } => {
                self.handed.remove(&id);
                self.bury(id, &reason, now_ms);
            }
        }
    }

    /// The announcer is done with a sequence.
    pub fn on_announced(&mut self, sequence: u64) {
        let waiting = &mut self.parts.memory.announcements;
        while waiting.front().is_some_and(|first| first.sequence <= sequence) {
            waiting.pop_front();
        }
        self.full &= waiting.len() > ANNOUNCEMENTS_MAX / 2;
        // Not urgent: a repeat is stored once.
        self.dirty = true;
    }

    /// Whether so many records wait for a broker that nothing more may be judged: every change is
    /// to be a record, and what is not judged yet the broker keeps.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether something happened that must be told without delay.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether a notice has waited for others for long enough.
    #[must_use]
    pub fn has_due(&self, now_ms: u64) -> bool {
        let waits = |id: &u64| !self.handed.contains(id);
        self.parts.memory.notices.iter().any(|n| n.due_ms <= now_ms && waits(&n.id))
    }

    /// Whether a carrier or the broker has something that is not answered for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let has_work = !self.handed.is_empty() || !self.parts.memory.announcements.is_empty();
        has_work && !self.waits
    }

    /// Writes the memory where something changed, then tells, and gives back what the broker may
    /// now be told is processed.
    pub fn commit(&mut self, now_ms: u64) -> Vec<Processed> {
        self.bring_forward(now_ms);
        self.commit_if(|engine| engine.dirty || engine.urgent, now_ms);
        self.tell(now_ms);
        // What was told by the console is struck: a second write, for alerts only.
        self.commit_if(|engine| engine.urgent, now_ms);
        if self.write_fails {
            return Vec::new();
        }
        let processed = std::mem::take(&mut self.unacknowledged);
        if self.parts.store.is_none() {
            // A consumer who keeps nothing does not let the broker keep anything either.
            return Vec::new();
        }
        match self.unrecorded {
            None => self.unrecorded = Some((self.parts.memory.next_sequence, processed)),
            Some(_) => self.unacknowledged = processed,
        }
        self.recorded()
    }

    /// What the broker may be told is processed, now that it has stored what follows from it.
    pub fn recorded(&mut self) -> Vec<Processed> {
        let first = self.parts.memory.announcements.front().map(|first| first.sequence);
        let is_recorded = |(before, _): &mut (u64, Newest)| first.is_none_or(|at| at >= *before);
        let recorded = self.unrecorded.take_if(is_recorded).into_iter();
        let recorded = recorded.flat_map(|(_, processed)| processed);
        recorded.map(|(p, (topic, offset))| (topic, offset, p)).collect()
    }

    /// What is worth saying at the end.
    pub fn say_totals(&self) {
        let broken: u64 = self.broken.values().sum();
        info!(
            repeats_skipped = self.repeats,
            broken_payloads = broken,
            untold = self.parts.memory.notices.len(),
            "the consumer ends"
        );
    }

    pub(super) fn commit_if(&mut self, wanted: impl FnOnce(&Self) -> bool, now_ms: u64) {
        if !wanted(self) {
            return;
        }
        let standing = |(rule, topic, state): (&Arc<Rule>, &Topic, &State)| Standing {
            rule: rule.name.clone(),
            topic: topic.to_string(),
            state: state.clone(),
        };
        self.parts.memory.standings = self.parts.book.states().map(standing).collect();
        self.parts.memory.labels = self.parts.book.labels().collect();
        let Some(store) = &self.parts.store else {
            (self.dirty, self.urgent) = (false, false);
            return;
        };
        match store.write(&self.parts.memory) {
            Ok(()) => {
                if std::mem::take(&mut self.write_fails) {
                    info!("the state can be written again");
                }
                (self.dirty, self.urgent) = (false, false);
            }
            // Said once; tried again with every tick. Alerts go on: that of a full disk above all.
            Err(cause) => {
                if !std::mem::replace(&mut self.write_fails, true) {
                    let source = std::error::Error::source(&cause).map(ToString::to_string);
                    error!(at = moment(now_ms), error = %cause, cause = source, "the state cannot be kept; it is tried again every second, and alerts go on");
                }
                (self.dirty, self.urgent) = (true, false);
            }
        }
    }

    fn judge(&mut self, topic: &Topic, sample: &Sample, now_ms: u64) {
        match self.parts.book.judge(topic, sample, now_ms) {
            Judged::NoRule => {}
            Judged::TooManyTopics => {
                if !std::mem::replace(&mut self.said_too_many_topics, true) {
                    warn!(%topic, "too many topics: rules judge only those seen so far");
                }
            }
            Judged::Changes(verdicts) => {
                if self.units.get(topic).is_none_or(|unit| *unit != sample.unit) {
                    self.units.insert(topic.clone(), sample.unit.clone());
                }
                self.follow_all(&verdicts, now_ms);
            }
        }
    }

    /// What a container is: its labels, which may be rules; or that it is gone.
    fn on_info(&mut self, container: Container, info: &Sample, now_ms: u64) {
        if info.value == 0.0 {
            let verdicts = self.parts.book.remove(&container, now_ms);
            self.context.forget(&container);
            self.units.retain(|topic, _| !container.owns(topic));
            self.follow_all(&verdicts, now_ms);
            return;
        }
        let words = info.words().filter(|(name, _)| name.starts_with(labels::PREFIX));
        let labels = words.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let (verdicts, mistakes) = self.parts.book.label(Labels { container, labels }, now_ms);
        for mistake in mistakes {
            warn!("{mistake}");
        }
        self.follow_all(&verdicts, now_ms);
    }

    fn follow_all(&mut self, verdicts: &[Verdict], now_ms: u64) {
        for verdict in verdicts {
            self.follow(verdict, now_ms);
        }
    }

    fn unit(&self, topic: &Topic) -> &str {
        self.units.get(topic).map_or("", String::as_str)
    }

    fn expects_samples(&self, topic: &Topic) -> bool {
        topic.as_str().starts_with("metrics/") || self.parts.book.matches(topic)
    }

    fn report_broken(&mut self, topic: &Topic, error: &crate::sample::SampleError) {
        if let Some(count) = self.broken.get_mut(topic) {
            *count += 1;
        } else if self.broken.len() < BROKEN_TOPICS_MAX {
            self.broken.insert(topic.clone(), 1);
            warn!(%topic, %error, "this topic has payloads that cannot be judged (said once)");
        }
    }

    /// A console that is gone is said once and changes nothing else: telephones still ring.
    fn printed(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.console_fails, true)
        {
            warn!(%error, "the output takes no more lines");
        }
    }
}
