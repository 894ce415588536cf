//! What running brokers serve, held against each other offset by offset, over what all hold.
//!
//! Each broker is read with FETCH on a connection of its own, a page at a time, all at the same
//! pace, so that memory stays small. The range of a partition begins at the highest first offset
//! of all brokers and ends at the lowest end: what one of them has not got yet, or has forgotten
//! already, is no difference. Records side by side must be equal in topic, key and payload; an
//! offset that one broker serves and another does not is a finding.
//!
//! Left out: what no broker shows to readers (votes, blank entries: that is for folders), and
//! topics that begin with `$`, which no pattern for all covers.

use std::collections::VecDeque;

use aklight_common::client::{
    Client, ClientConfig, ClientError, ClusterInfo, FetchRequest, Message, PartitionInfo,
};
use aklight_common::limits::FETCH_RECORDS_DEFAULT;
use aklight_common::wire::ErrorCode;
use aklight_common::{Offset, PartitionId, Pattern};
use anyhow::Context;

use super::findings::Findings;

/// What was compared.
#[derive(Debug, Default, Clone, Copy)]
pub struct Compared {
    /// Partitions that all brokers have.
    pub partitions: u64,
    /// Offsets looked at.
    pub records: u64,
    /// Bytes of keys and payloads, of one copy.
    pub bytes: u64,
}

/// Compares what these brokers serve. `config` is one of a client that knows them all.
///
/// # Errors
/// A broker cannot be asked: then nothing is known.
pub async fn compare(config: &ClientConfig, findings: &mut Findings) -> anyhow::Result<Compared> {
    let mut clients = Vec::new();
    for broker in &config.brokers {
        let config = ClientConfig { brokers: vec![broker.clone()], ..config.clone() };
        let mut client = Client::connect(config).await?;
        let cluster = client.cluster().await.with_context(|| broker.clone())?;
        clients.push((client, cluster));
    }
    let mut compared = Compared::default();
    let mut all: Vec<PartitionId> =
        clients.iter().flat_map(|(_, cluster)| &cluster.partitions).map(|p| p.id).collect();
    all.sort_unstable();
    all.dedup();
    for partition in all {
        let mut readers = Vec::new();
        for (client, cluster) in &mut clients {
            match of(cluster, partition) {
                Some(info) => readers.push((info, Reader::new(client, partition))),
                None => {
                    findings.add(format!("{} has no partition {partition}", client.broker()));
                }
            }
        }
        compared.partitions += 1;
        compare_partition(readers, findings, &mut compared).await?;
    }
    for (client, _) in clients {
        // It has served its turn; if it is gone by now, nothing is owed to it.
        let _ = client.quit().await;
    }
    Ok(compared)
}

fn of(cluster: &ClusterInfo, partition: PartitionId) -> Option<PartitionInfo> {
    cluster.partitions.iter().find(|found| found.id == partition).copied()
}

async fn compare_partition(
    readers: Vec<(PartitionInfo, Reader<'_>)>,
    findings: &mut Findings,
    compared: &mut Compared,
) -> anyhow::Result<()> {
    let Some(mut from) = readers.iter().map(|(info, _)| info.start).max() else { return Ok(()) };
    let until = readers.iter().map(|(info, _)| info.end).min().unwrap_or(from);
    let mut readers: Vec<_> = readers.into_iter().map(|(_, reader)| reader).collect();
    while from < until {
        let before = from;
        for reader in &mut readers {
            from = from.max(reader.advance_to(from, until, findings).await?);
        }
        if from > before {
            // Retention took records while they were compared: everybody goes on behind them.
            continue;
        }
        let at = readers.iter().filter_map(Reader::first).map(|message| message.offset).min();
        let at = at.unwrap_or(until);
        if at < until {
            compare_at(at, &readers, findings, compared);
        }
        from = at.next();
    }
    Ok(())
}

/// Holds what all brokers have at one offset against each other.
fn compare_at(
    at: Offset,
    readers: &[Reader<'_>],
    findings: &mut Findings,
    compared: &mut Compared,
) {
    let here: Vec<_> = readers.iter().map(|r| (r, r.first().filter(|m| m.offset == at))).collect();
    let Some((one, first)) = here.iter().find_map(|(r, message)| Some((r, (*message)?))) else {
        return;
    };
    compared.records += 1;
    compared.bytes += (first.key.len() + first.payload.len()) as u64;
    for (other, message) in &here {
        let place = format!("offset {at} of partition {}", first.partition);
        match message {
            None if other.is_damaged_at(at) => {}
            None => {
                findings.add(format!(
                    "{place}: {} has a record, {} none",
                    one.name(),
                    other.name()
                ));
            }
            Some(message) if *message != first => {
                let (one, other) = (one.name(), other.name());
                findings.add(format!(
                    "{place}: {one} and {other} hold different records: {} and {}",
                    brief(first),
                    brief(message)
                ));
            }
            Some(_) => {}
        }
    }
}

/// A record in a line: which topic, and how much.
fn brief(message: &Message) -> String {
    let (topic, bytes) = (message.topic.as_str(), message.payload.len());
    let digest = crc32c::crc32c(&message.payload);
    format!("'{topic}' with {bytes} bytes (crc32c {digest:08x})")
}

/// Reads one partition of one broker.
struct Reader<'a> {
    client: &'a mut Client,
    partition: PartitionId,
    page: VecDeque<Message>,
    /// Up to where the broker has been asked.
    asked: Offset,
    /// Offsets that the broker says are damaged, the last such range.
    damaged: Option<(Offset, Offset)>,
}

impl<'a> Reader<'a> {
    fn new(client: &'a mut Client, partition: PartitionId) -> Self {
        Self { client, partition, page: VecDeque::new(), asked: Offset(0), damaged: None }
    }

    fn name(&self) -> &str {
        self.client.broker()
    }

    fn first(&self) -> Option<&Message> {
        self.page.front()
    }

    fn is_damaged_at(&self, at: Offset) -> bool {
        self.damaged.is_some_and(|(from, resume)| (from..resume).contains(&at))
    }

    /// Forgets what is before `from` and reads on, until there is a record or `until` is reached.
    /// Gives where the comparison goes on: `from`, or behind what retention took meanwhile.
    async fn advance_to(
        &mut self,
        from: Offset,
        until: Offset,
        findings: &mut Findings,
    ) -> anyhow::Result<Offset> {
        while self.first().is_some_and(|message| message.offset < from) {
            self.page.pop_front();
        }
        self.asked = self.asked.max(from);
        while self.page.is_empty() && self.asked < until {
            let request = FetchRequest {
                pattern: Pattern::all(),
                offset: self.asked,
                partition: Some(self.partition),
                max: FETCH_RECORDS_DEFAULT,
                wait_ms: 0,
            };
            let fetched = match self.client.fetch(&request).await {
                Ok(fetched) => fetched,
                Err(ClientError::Refused(error)) if error.code == ErrorCode::OffsetOutOfRange => {
                    let start = self.start().await?;
                    if start > self.asked {
                        self.asked = start;
                        return Ok(start);
                    }
                    self.skip_damage(&error.text, until, findings);
                    continue;
                }
                Err(error) => return Err(error).context(self.name().to_owned()),
            };
            self.page.extend(fetched.messages);
            let next = fetched.next.iter().find(|(partition, _)| *partition == self.partition);
            self.asked = next
                .map(|(_, next)| *next)
                .filter(|next| *next > self.asked)
                .with_context(|| format!("{} does not say where it goes on", self.name()))?;
        }
        Ok(from)
    }

    async fn start(&mut self) -> anyhow::Result<Offset> {
        let cluster = self.client.cluster().await.context(self.client.broker().to_owned())?;
        Ok(of(&cluster, self.partition).map_or(Offset(0), |info| info.start))
    }

    /// Goes on behind what the broker says is damaged: the protocol promises that the text holds
    /// the first offset that is kept, and ours ends with it.
    fn skip_damage(&mut self, text: &str, until: Offset, findings: &mut Findings) {
        findings.add(format!("{}: partition {}: {text}", self.name(), self.partition));
        let last = text.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let resume = last.parse().map(Offset).ok().filter(|resume| *resume > self.asked);
        let resume = resume.unwrap_or(until);
        self.damaged = Some((self.asked, resume));
        self.asked = resume;
    }
}
