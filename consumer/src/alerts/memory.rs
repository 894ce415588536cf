//! What a consumer remembers from one run to the next.
//!
//! Invariant: `next` of a partition is more than every `processed` offset of its topics; announcements are in the order of their sequences, without a gap
//! below `next_sequence`.

use std::collections::{BTreeMap, VecDeque};

use aklight_common::{Offset, PartitionId, Topic};
use serde::{Deserialize, Serialize};

use super::Alert;
use super::actions::{Acknowledged, Mute};
use crate::notify::message::moment;
use crate::notify::whatsapp::masked;
use crate::rules::book::Labels;
use crate::rules::machine::State;
use crate::rules::{About, Channel, Container};

/// Most notices that wait for people at once, for each channel, so that one that is out of reach
/// takes no room from another: beyond it nobody would read them, and they go to the dead letters
/// instead.
pub const NOTICES_MAX: usize = 256;

/// Most alerts in one message: with the longest topics still a text that a telephone shows.
pub const GROUP_MAX: usize = 50;

/// How many announcements may wait for a broker before nothing more is judged, until half of them
/// are stored: some megabytes of the file. What one step adds comes on top: at most a change of
/// each topic under each rule. With as many again they still fit into the window of sequences in
/// which the broker tells repeats after a crash.
pub const ANNOUNCEMENTS_MAX: usize = 4_096;

/// Most stand-ins that are remembered. Those of alerts that never fire again stay until then: the oldest
/// gives way.
pub const STAND_INS_MAX: usize = 1_000;

/// Most topics whose offsets are listed, for people who look: the file is written once a second, and
/// names that come and go would fill it. Those that were silent for longest give way.
pub const TOPICS_MAX: usize = 10_000;

/// Where a notice goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "channel")]
pub enum Destination {
    /// The consumer's own output.
    Console,
    /// A telephone.
    WhatsApp {
        /// As Twilio writes it: `whatsapp:+34600000000`.
        to: String,
    },
    /// The webhook.
    Webhook,
    /// A recipient of mails.
    Email {
        /// As in the settings: `anna@example.org`, `Anna <anna@example.org>`. Empty in what was
        /// written when a mail was for all recipients: [`Notice::spread`].
        #[serde(default)]
        to: String,
    },
}

impl Destination {
    /// The channel that leads there.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Console => Channel::Console,
            Self::WhatsApp { .. } => Channel::WhatsApp,
            Self::Webhook => Channel::Webhook,
            Self::Email { .. } => Channel::Email,
        }
    }

    /// Who it is, as logs and records may show it; `None` where the channel says it all.
    #[must_use]
    pub fn recipient(&self) -> Option<String> {
        match self {
            Self::WhatsApp { to } => Some(masked(to)),
            Self::Email { to } => Some(to.clone()).filter(|to| !to.is_empty()),
            Self::Console | Self::Webhook => None,
        }
    }

    /// As logs may show it.
    #[must_use]
    pub fn shown(&self) -> String {
        self.recipient().unwrap_or_else(|| self.channel().as_str().to_owned())
    }
}

/// Something to be told to somebody, until it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Unique within the memory.
    pub id: u64,
    /// To whom.
    pub destination: Destination,
    /// What.
    pub alert: Alert,
    /// What else is told in the same message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Alert>,
    /// Not before this moment, Unix milliseconds: until then more may join it.
    #[serde(default)]
    pub due_ms: u64,
    /// The channels to be tried where this one fails for good, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Channel>,
    /// Whether the next channel has told it, or the console, while this one goes on trying.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fell_back: bool,
    /// What tells the message from every other, where an earlier consumer had begun to tell it;
    /// else it follows from the rest. See [`Self::reference`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// What Twilio called the message when it took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
}

impl Notice {
    /// One alert for one destination, to be told at once.
    #[must_use]
    pub fn new(id: u64, destination: Destination, alert: Alert) -> Self {
        Self {
            id,
            destination,
            alert,
            more: Vec::new(),
            due_ms: 0,
            fallback: Vec::new(),
            fell_back: false,
            reference: String::new(),
            sid: None,
        }
    }

    /// What tells this message of `consumer` from every other: by it a message is found at Twilio
    /// again, and receivers tell repeats.
    #[must_use]
    pub fn reference(&self, consumer: &str) -> String {
        match self.reference.as_str() {
            "" => format!("[{consumer}-{} {}]", self.id, moment(self.alert.at_ms)),
            known => known.to_owned(),
        }
    }

    /// One for each of `recipients` where it is a mail to all of them, as there were once; else
    /// itself.
    #[must_use]
    pub fn spread(self, recipients: &[Destination]) -> Vec<Self> {
        let for_all = matches!(&self.destination, Destination::Email { to } if to.is_empty());
        if !for_all || recipients.is_empty() {
            return vec![self];
        }
        let to =
            |destination: &Destination| Self { destination: destination.clone(), ..self.clone() };
        recipients.iter().map(to).collect()
    }

    /// All that it tells.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        std::iter::once(&self.alert).chain(&self.more)
    }
}

/// A record of an alert's change, until the broker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The producer's number for it.
    pub sequence: u64,
    /// Where it belongs.
    pub topic: String,
    /// What it says: JSON text.
    pub payload: String,
}

/// The state of a topic under a rule, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The rule's name.
    pub rule: String,
    /// The topic.
    pub topic: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
}

/// A channel that told an alert in place of one that reached nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// The rule's name.
    pub rule: String,
    /// The topic of the samples.
    pub topic: String,
    /// By which it was told.
    pub channel: Channel,
    /// Whether it has told the end as well.
    #[serde(default)]
    pub ended: bool,
}

impl StandIn {
    /// Whether it told this alert.
    #[must_use]
    pub fn is_of(&self, alert: &Alert) -> bool {
        (&self.rule, &self.topic) == (&alert.rule, &alert.topic)
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Whose it is.
    pub consumer: String,
    /// The producer's id under which alerts are announced: a new one for each new file, so that
    /// sequences counted from 1 again are not taken for repeats.
    pub producer: String,
    /// The sequence of the next announcement.
    pub next_sequence: u64,
    /// The id of the next notice.
    pub next_notice: u64,
    /// The next offset to be processed, for each partition.
    pub next: BTreeMap<PartitionId, Offset>,
    /// The last offset that was processed, for each topic and partition.
    pub processed: BTreeMap<(Topic, PartitionId), Offset>,
    /// The containers' labels that are rules.
    pub labels: Vec<Labels>,
    /// The states of topics under rules.
    pub standings: Vec<Standing>,
    /// What nobody is to be told of.
    pub mutes: Vec<Mute>,
    /// What somebody has seen to.
    pub acknowledged: Vec<Acknowledged>,
    /// Who was told in place of others.
    pub stand_ins: VecDeque<StandIn>,
    /// What must still be told.
    pub notices: Vec<Notice>,
    /// What must still be recorded.
    pub announcements: VecDeque<Announcement>,
}

impl Memory {
    /// That of a consumer who has seen nothing; `now_ms` makes its producer's id a new one.
    #[must_use]
    pub fn new(consumer: &str, now_ms: u64) -> Self {
        // An id is at most 128 bytes: the head of a long one is enough beside the time.
        let head: String = consumer.chars().take(24).collect();
        Self {
            consumer: consumer.to_owned(),
            producer: format!("{head}.alerts.{now_ms}"),
            next_sequence: 1,
            next_notice: 1,
            next: BTreeMap::new(),
            processed: BTreeMap::new(),
            labels: Vec::new(),
            standings: Vec::new(),
            mutes: Vec::new(),
            acknowledged: Vec::new(),
            stand_ins: VecDeque::new(),
            notices: Vec::new(),
            announcements: VecDeque::new(),
        }
    }

    /// Whether a record was processed before.
    #[must_use]
    pub fn has_processed(&self, partition: PartitionId, offset: Offset) -> bool {
        self.next.get(&partition).is_some_and(|next| offset < *next)
    }

    /// Notes that a record is processed.
    pub fn process(&mut self, topic: &Topic, partition: PartitionId, offset: Offset) {
        debug_assert!(!self.has_processed(partition, offset), "p{partition}@{offset} twice");
        self.next.insert(partition, offset.next());
        self.processed.insert((topic.clone(), partition), offset);
        if self.processed.len() > TOPICS_MAX {
            self.forget_stale();
        }
    }

    /// Takes the tenth of the listed topics off that is furthest behind in its partition.
    fn forget_stale(&mut self) {
        let behind = |partition: &PartitionId, offset: &Offset| {
            self.next.get(partition).map_or(u64::MAX, |next| next.0 - offset.0)
        };
        let mut all: Vec<_> = self.processed.iter().map(|((_, p), at)| behind(p, at)).collect();
        let (_, most, _) = all.select_nth_unstable(TOPICS_MAX / 10 * 9);
        self.processed.retain(|(_, partition), offset| behind(partition, offset) < *most);
    }

    /// A container is gone: so are the topics about it from the list.
    pub fn forget(&mut self, container: &Container) {
        let is_its = |topic: &Topic| match About::of(topic) {
            Some(About::Sample(of, _) | About::Info(of) | About::Event(of)) => of == *container,
            None => false,
        };
        self.processed.retain(|(topic, _), _| !is_its(topic));
    }

    /// Starts a partition again at `offset`: its log is not the one that was processed.
    pub fn restart(&mut self, partition: PartitionId, offset: Offset) {
        self.next.insert(partition, offset);
        self.processed.retain(|(_, of), _| *of != partition);
    }

    /// Adds a notice, under an id of its own, which is given back.
    pub fn notify(&mut self, notice: Notice) -> u64 {
        let id = self.next_notice;
        self.next_notice += 1;
        self.notices.push(Notice { id, ..notice });
        id
    }

    /// Remembers a stand-in.
    pub fn stand_in(&mut self, stand_in: StandIn) {
        self.stand_ins.push_back(stand_in);
        if self.stand_ins.len() > STAND_INS_MAX {
            self.stand_ins.pop_front();
        }
    }

    /// Puts a notice back under the id that it has, which is given back.
    pub fn restore(&mut self, notice: Notice) -> u64 {
        let id = notice.id;
        self.notices.push(notice);
        id
    }

    /// A file of before has mails that are for all recipients: each gets its own.
    pub fn spread_mails(&mut self, recipients: &[Destination]) {
        for notice in std::mem::take(&mut self.notices) {
            let mut spread = notice.spread(recipients).into_iter();
            self.notices.extend(spread.next());
            for notice in spread {
                self.notify(notice);
            }
        }
    }

    /// Takes a notice out.
    pub fn strike(&mut self, id: u64) -> Option<Notice> {
        let at = self.notices.iter().position(|notice| notice.id == id)?;
        Some(self.notices.remove(at))
    }

    /// How many notices wait for people by a channel.
    #[must_use]
    pub fn waiting(&self, channel: Channel) -> usize {
        self.notices.iter().filter(|notice| notice.destination.channel() == channel).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequences begin with 1 again in a new file: under the old name the broker would take them
    /// for repeats and store nothing.
    #[test]
    fn a_new_memory_has_a_producer_of_its_own_whose_id_fits() {
        let (one, two) = (Memory::new("c", 5), Memory::new("c", 6));
        assert_ne!(one.producer, two.producer);
        let long = Memory::new(&"é".repeat(64), u64::MAX).producer;
        aklight_common::wire::command::check_client_id(long.as_bytes()).expect("an id");
    }

    #[test]
    fn topics_that_come_and_go_do_not_fill_the_file() {
        let mut memory = Memory::new("c", 5);
        let topic = |n: u64| Topic::new(&format!("metrics/docker/run{n}/cpu")).expect("a topic");
        for n in 0..25_000 {
            memory.process(&topic(n), PartitionId(0), Offset(2 * n));
            // One that stays.
            memory.process(&topic(0), PartitionId(0), Offset(2 * n + 1));
        }
        assert!((9_000..=TOPICS_MAX).contains(&memory.processed.len()));
        let listed = |n: u64| memory.processed.contains_key(&(topic(n), PartitionId(0)));
        assert!(listed(0) && listed(24_999) && listed(20_000) && !listed(1) && !listed(10_000));
        assert!(memory.has_processed(PartitionId(0), Offset(20_001)), "listed or not");
    }

    #[test]
    fn a_container_that_is_gone_is_listed_no_more() {
        let mut memory = Memory::new("c", 5);
        let kept = ["metrics/docker/p/db/cpu", "metrics/docker/p/cpu", "info/docker/p/db"];
        let gone = ["metrics/docker/p/web/cpu", "info/docker/p/web", "events/docker/p/web"];
        for (n, topic) in (0..).zip(kept.iter().chain(&gone)) {
            memory.process(&Topic::new(topic).expect("a topic"), PartitionId(0), Offset(n));
        }
        memory.forget(&Container { producer: "p".to_owned(), name: "web".to_owned() });
        let mut listed: Vec<_> = memory.processed.keys().map(|(topic, _)| topic.as_str()).collect();
        listed.sort_unstable_by_key(|topic| kept.iter().position(|kept| kept == topic));
        assert_eq!(listed, kept);
        assert_eq!(memory.next[&PartitionId(0)], Offset(6));
    }

    #[test]
    fn a_partition_that_begins_again_forgets_its_topics() {
        let mut memory = Memory::new("c", 5);
        let topic = Topic::new("a/b").expect("a topic");
        for partition in [PartitionId(0), PartitionId(1)] {
            memory.process(&topic, partition, Offset(9));
            assert!(memory.has_processed(partition, Offset(9)));
            assert!(!memory.has_processed(partition, Offset(10)));
        }
        memory.restart(PartitionId(0), Offset(2));
        assert!(!memory.has_processed(PartitionId(0), Offset(2)));
        assert_eq!(memory.processed.keys().map(|(_, p)| p.0).collect::<Vec<_>>(), [1]);
    }
}
