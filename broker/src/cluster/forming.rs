//! How a cluster begins, and how a broker becomes part of one that is there.
//!
//! A new cluster is formed when every broker that `--peers` names is up, each with an empty disk
//! and the same list: then none can be one that has forgotten what it once promised. The one with
//! the lowest number draws the cluster's id, tells it to the others, and begins. A broker with an
//! empty disk that meets a cluster joins it if it is expected (`aklight cluster add`); if it was a
//! member before, it has lost its disk, and is refused: others may rely on votes and records that
//! were on it.
//!
//! ```text
//! empty disk ── Hello to all ──▶ all empty, all there ──▶ form: id kept here, Form to the others
//!                            └─▶ a cluster is there ──▶ expected: join · a member: refused
//! ```
//!
//! Each step is on disk before the next, so that a crash at any point is gone through again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::BrokerId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::door::{Door, from_json, to_json};
use crate::data_dir::{DataDir, DataDirError};
use crate::events::Events;
use crate::replication::{Begin, GroupId, Kind, Peer, PeerError, Peers};
use crate::sessions::{BrokerInfo, MetaCommand, Standing};

/// Longest wait for one answer while joining.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(300);

/// How often a broker that waits says what for.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Why a broker does not become part of the cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It had another disk.
    #[error(
        "broker {broker} is a member of cluster {cluster} with another disk than this one, which is empty: votes and records that the others rely on were there. Bring that --data-dir back, or let this broker take its place under a new number: aklight cluster replace {broker} NEW@HOST:7090, and start it with --node-id NEW"
    )]
    Forgotten {
        /// The broker.
        broker: BrokerId,
        /// The cluster.
        cluster: String,
    },
    /// It was removed.
    #[error(
        "broker {broker} was removed from cluster {cluster}, and numbers are not used again: add this broker under a new one (aklight cluster add NEW@HOST:7090), and start it with --node-id NEW and an empty --data-dir"
    )]
    Retired {
        /// The broker.
        broker: BrokerId,
        /// The cluster.
        cluster: String,
    },
    /// The folder cannot be written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    incarnation: String,
    founders: Vec<(u64, String)>,
    /// The sender would like to join now.
    join: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HelloAnswer {
    cluster: String,
    incarnation: String,
    founders: Vec<(u64, String)>,
    standing: Standing,
    /// Whether the one who asks still votes in a group, as far as is known here.
    #[serde(default = "yes")]
    counted_on: bool,
    brokers: Vec<(u64, String)>,
}

/// A release that does not say is believed to count on everybody: nobody goes too early.
const fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Form {
    cluster: String,
    founders: Vec<(u64, String)>,
}

/// A wish to form a cluster, and who waits for the answer.
type Wish = (Form, oneshot::Sender<Result<(), String>>);

/// What this broker answers to others that are joining.
pub struct Joining {
    incarnation: String,
    founders: Vec<(u64, String)>,
    wishes: mpsc::Sender<Wish>,
}

impl Joining {
    /// Answers Hello and Form.
    pub(super) async fn answer(
        &self,
        door: &Door,
        kind: Kind,
        from: BrokerId,
        body: &[u8],
    ) -> Result<Bytes, PeerError> {
        if kind == Kind::Form {
            let (answer, told) = oneshot::channel();
            let closed = || PeerError::Refused("this broker is of a cluster already".to_owned());
            self.wishes.send((from_json(body)?, answer)).await.map_err(|_| closed())?;
            told.await.map_err(|_| closed())?.map_err(PeerError::Refused)?;
            return Ok(Bytes::new());
        }
        let hello: Hello = from_json(body)?;
        let mut standing = door.standing(from, &hello.incarnation);
        let sessions = door.sessions();
        if let (Standing::Expected, true, Some(sessions)) = (standing, hello.join, &sessions) {
            let known = sessions.metadata().brokers().remove(&from).unwrap_or_default();
            let info = BrokerInfo { incarnation: hello.incarnation.clone(), ..known };
            let announce = MetaCommand::Announce { broker: from.0, info };
            let told = sessions.write(&announce).await;
            told.map_err(|error| PeerError::Refused(error.to_string()))?;
            standing = door.standing(from, &hello.incarnation);
        }
        let brokers = sessions.map(|sessions| sessions.metadata().brokers()).unwrap_or_default();
        to_json(&HelloAnswer {
            cluster: door.cluster(),
            incarnation: self.incarnation.clone(),
            founders: self.founders.clone(),
            standing,
            counted_on: standing != Standing::Retired || door.counts_on(from),
            brokers: brokers.into_iter().map(|(id, info)| (id.0, info.peer)).collect(),
        })
    }
}

/// What came of asking all the others.
#[derive(Default)]
struct Asked {
    answers: Vec<(BrokerId, HelloAnswer)>,
    silent: Vec<(BrokerId, PeerError)>,
}

/// What a broker that joins works with.
struct Joiner<'a> {
    door: &'a Arc<Door>,
    dir: &'a DataDir,
    peers: &'a Peers,
    events: &'a Events,
    /// As `--peers` says, by number; empty in a cluster of one.
    founders: Vec<(u64, String)>,
    wishes: mpsc::Receiver<Wish>,
    told_at: Option<Instant>,
}

/// Makes this broker part of its cluster: at once when it was before, else when the others are
/// there. `named` is what `--peers` says; `has_begun` is whether the metadata's log holds anything.
///
/// # Errors
/// When the cluster does not take it, or the folder cannot be written.
pub async fn join(
    door: &Arc<Door>,
    dir: &DataDir,
    peers: &Peers,
    named: &[Peer],
    has_begun: bool,
    events: &Events,
) -> Result<Begin, JoinError> {
    let founders: Vec<_> = named.iter().map(|peer| (peer.id.0, peer.address.clone())).collect();
    for peer in named {
        peers.set_address(peer.id, &peer.address);
    }
    // One that is alone notes it with its cluster, which nobody hears of before.
    if founders.len() > 1 || !dir.identity().cluster.is_empty() {
        dir.claim()?;
    }
    let (tell, wishes) = mpsc::channel(1);
    let incarnation = dir.identity().incarnation;
    door.set_cluster(&dir.identity().cluster);
    door.set_joining(Arc::new(Joining { incarnation, founders: founders.clone(), wishes: tell }));
    let mut joiner = Joiner { door, dir, peers, events, founders, wishes, told_at: None };
    let begin = joiner.join(has_begun).await?;
    let own = joiner.dir.identity().cluster;
    peers.set_cluster(&own);
    door.set_cluster(&own);
    // Whoever forms the cluster may ask again, after a crash of its own.
    let Joiner { mut wishes, .. } = joiner;
    tokio::spawn(async move {
        while let Some((form, answer)) = wishes.recv().await {
            let _ = answer.send(same_cluster(&own, &form.cluster));
        }
    });
    Ok(begin)
}

/// With these brokers, number and address.
fn with(members: &[(u64, String)]) -> Begin {
    let peer = |(id, address): &(u64, String)| Peer { id: BrokerId(*id), address: address.clone() };
    Begin::With(members.iter().map(peer).collect())
}

fn same_cluster(own: &str, asked: &str) -> Result<(), String> {
    if own == asked { Ok(()) } else { Err(format!("this broker is of cluster {own}")) }
}

impl Joiner<'_> {
    async fn join(&mut self, has_begun: bool) -> Result<Begin, JoinError> {
        let identity = self.dir.identity();
        let me = self.peers.me().0;
        if !identity.cluster.is_empty() {
            self.is_wanted_still(&identity.cluster).await?;
            return Ok(match identity.founders.first() {
                // It was about to begin the cluster, and may have got there or not.
                Some((first, _)) if *first == me && !has_begun => {
                    self.found(identity.founders).await
                }
                Some(_) => with(&identity.founders),
                // A cluster of one that was stopped before it had begun everything, or whose metadata
                // was set aside.
                None if self.peers.others().is_empty() && !(has_begun && identity.is_complete) => {
                    self.alone()
                }
                None => Begin::Join,
            });
        }
        if has_begun || self.founders.len() <= 1 {
            // Alone, or of the first version, which knew nothing else.
            self.dir.set_cluster(&draw(), Vec::new())?;
            return Ok(self.alone());
        }
        loop {
            let Asked { answers, silent } = self.ask_all().await;
            if let Some((from, answer)) = answers.iter().find(|(_, a)| !a.cluster.is_empty()) {
                if let Some(joined) = self.meet(*from, answer.clone()).await? {
                    return Ok(joined);
                }
            } else if answers.len() + 1 == self.founders.len()
                && let Some(joined) = self.form(&answers).await?
            {
                return Ok(joined);
            } else if answers.len() + 1 < self.founders.len() {
                self.tell_missing(&silent);
            }
            if let Some(joined) = self.wait_for_wish().await? {
                return Ok(joined);
            }
        }
    }

    /// Whoever was removed while it was away is told so by the others, if they answer, and notes it for
    /// the next time. Without their word it goes on: they would refuse it all the same.
    async fn is_wanted_still(&self, cluster: &str) -> Result<(), JoinError> {
        let Asked { answers, .. } = self.ask_all().await;
        if answers.iter().any(|(_, answer)| answer.lets_go(cluster)) {
            self.dir.set_removed();
            let (broker, cluster) = (self.peers.me(), cluster.to_owned());
            return Err(JoinError::Retired { broker, cluster });
        }
        Ok(())
    }

    fn alone(&self) -> Begin {
        let address = self.founders.first().map_or_else(String::new, |(_, peer)| peer.clone());
        with(&[(self.peers.me().0, address)])
    }

    /// A cluster is there.
    async fn meet(
        &mut self,
        from: BrokerId,
        answer: HelloAnswer,
    ) -> Result<Option<Begin>, JoinError> {
        let (broker, cluster) = (self.peers.me(), answer.cluster.clone());
        match answer.standing {
            Standing::OtherDisk => Err(JoinError::Forgotten { broker, cluster }),
            Standing::Retired => Err(JoinError::Retired { broker, cluster }),
            Standing::Expected => {
                let asked = self.ask(from, true).await;
                let taken = asked.is_ok_and(|answer| answer.standing == Standing::Member);
                if !taken {
                    return Ok(None);
                }
                self.dir.set_cluster(&cluster, Vec::new())?;
                for (id, address) in &answer.brokers {
                    self.peers.set_address(BrokerId(*id), address);
                }
                self.events.info("join", format!("joined cluster {cluster} as broker {broker}"));
                Ok(Some(Begin::Join))
            }
            // Taken a moment ago, and the answer was lost.
            Standing::Member => {
                self.dir.set_cluster(&cluster, Vec::new())?;
                Ok(Some(Begin::Join))
            }
            Standing::Unknown => {
                self.tell(&format!(
                    "cluster {cluster} does not expect broker {broker}: aklight cluster add {broker}@HOST:PORT"
                ));
                Ok(None)
            }
            Standing::Undecided => {
                self.tell(&format!("cluster {cluster} is being formed or cannot say who is of it"));
                Ok(None)
            }
        }
    }

    /// All are there, and all are empty.
    async fn form(
        &mut self,
        answers: &[(BrokerId, HelloAnswer)],
    ) -> Result<Option<Begin>, JoinError> {
        if let Some((other, _)) = answers.iter().find(|(_, a)| a.founders != self.founders) {
            self.tell(&format!("broker {other} was started with other --peers than this one"));
            return Ok(None);
        }
        if self.founders.first().is_none_or(|(first, _)| *first != self.peers.me().0) {
            return Ok(None);
        }
        let cluster = draw();
        self.dir.set_cluster(&cluster, self.founders.clone())?;
        self.door.set_cluster(&cluster);
        Ok(Some(self.found(self.founders.clone()).await))
    }

    /// Tells the others which cluster they are of, until all know.
    async fn found(&mut self, founders: Vec<(u64, String)>) -> Begin {
        let cluster = self.dir.identity().cluster;
        self.peers.set_cluster(&cluster);
        let me = self.peers.me();
        let form = Form { cluster: cluster.clone(), founders };
        let ids = form.founders.iter().map(|(id, _)| BrokerId(*id));
        for id in ids.filter(|id| *id != me) {
            let body = to_json(&form).unwrap_or_default();
            while let Err(error) =
                self.peers.call(id, GroupId::Metadata, Kind::Form, body.clone(), ANSWER_WAIT).await
            {
                // Whoever made this broker a member heard from all of them that they were told.
                let asked = self.ask_all().await;
                if asked.answers.iter().any(|(_, answer)| answer.has_member(&cluster)) {
                    return with(&form.founders);
                }
                self.tell(&format!("broker {id} does not form the cluster yet: {error}"));
                sleep(PAUSE).await;
            }
        }
        self.events.info("form", format!("cluster {cluster} of {} brokers", form.founders.len()));
        with(&form.founders)
    }

    async fn ask(&self, to: BrokerId, join: bool) -> Result<HelloAnswer, PeerError> {
        let incarnation = self.dir.identity().incarnation;
        let hello = Hello { incarnation, founders: self.founders.clone(), join };
        ask(self.peers, to, &hello).await
    }

    async fn ask_all(&self) -> Asked {
        let others = self.peers.others();
        let answers = others.iter().map(|peer| self.ask(peer.id, false));
        let mut asked = Asked::default();
        for (peer, answer) in others.iter().zip(futures_util::future::join_all(answers).await) {
            match answer {
                Ok(answer) => asked.answers.push((peer.id, answer)),
                Err(error) => {
                    tracing::debug!(peer = %peer.id, %error, "no answer");
                    asked.silent.push((peer.id, error));
                }
            }
        }
        asked
    }

    /// Waits a moment, or until somebody forms the cluster.
    async fn wait_for_wish(&mut self) -> Result<Option<Begin>, JoinError> {
        let wish = tokio::select! {
            biased;
            wish = self.wishes.recv() => wish,
            () = sleep(PAUSE) => None,
        };
        let Some((form, answer)) = wish else { return Ok(None) };
        if form.founders != self.founders {
            let _ = answer.send(Err("this broker was started with other --peers".to_owned()));
            return Ok(None);
        }
        self.dir.set_cluster(&form.cluster, form.founders)?;
        self.door.set_cluster(&form.cluster);
        // On disk: from now on this broker is of that cluster, whatever comes.
        let _ = answer.send(Ok(()));
        Ok(Some(with(&self.founders)))
    }

    fn tell_missing(&mut self, silent: &[(BrokerId, PeerError)]) {
        let address = |id: &BrokerId| self.founders.iter().find(|(founder, _)| *founder == id.0);
        let missing: Vec<_> = silent
            .iter()
            .filter_map(|(id, why)| {
                address(id).map(|(_, address)| format!("broker {id} at {address} ({why})"))
            })
            .collect();
        self.tell(&format!("waiting for {} to form a new cluster", missing.join(", ")));
    }

    fn tell(&mut self, text: &str) {
        let now = Instant::now();
        if self.told_at.is_none_or(|at| now.duration_since(at) >= TELL_EVERY) {
            self.told_at = Some(now);
            self.events.warn("join", text);
        }
    }
}

impl HelloAnswer {
    /// Whether the one who asked is a member of the cluster, which has begun.
    fn has_member(&self, cluster: &str) -> bool {
        self.cluster == cluster && self.standing == Standing::Member
    }

    /// Whether the one who asked was removed from the cluster, and no group needs it any more to go
    /// on without it.
    fn lets_go(&self, cluster: &str) -> bool {
        self.cluster == cluster && self.standing == Standing::Retired && !self.counted_on
    }
}

/// Whether another broker says that this one was removed and is needed no more.
pub async fn was_let_go(peers: &Peers, incarnation: &str) -> bool {
    let incarnation = incarnation.to_owned();
    let hello = Hello { incarnation, founders: Vec::new(), join: false };
    let others = peers.others();
    let asked = others.iter().map(|peer| ask(peers, peer.id, &hello));
    let answers = futures_util::future::join_all(asked).await;
    answers.into_iter().flatten().any(|answer| answer.lets_go(&peers.cluster()))
}

/// Who the members of a cluster are that has not begun yet, told by themselves; none while one of
/// them does not answer.
pub async fn founders(
    peers: &Peers,
    own: BrokerInfo,
    members: &[BrokerId],
) -> Option<BTreeMap<u64, BrokerInfo>> {
    let mut infos = BTreeMap::from([(peers.me().0, own)]);
    let hello = Hello { incarnation: String::new(), founders: Vec::new(), join: false };
    for peer in peers.others().into_iter().filter(|peer| members.contains(&peer.id)) {
        let answer = ask(peers, peer.id, &hello).await.ok()?;
        if answer.cluster != peers.cluster() {
            // Its disk was emptied since it formed the cluster: what it voted for is forgotten.
            return None;
        }
        let Peer { id, address } = peer;
        let incarnation = answer.incarnation;
        infos.insert(id.0, BrokerInfo { incarnation, peer: address, ..BrokerInfo::default() });
    }
    Some(infos)
}

async fn ask(peers: &Peers, to: BrokerId, hello: &Hello) -> Result<HelloAnswer, PeerError> {
    let body = to_json(hello)?;
    let wait = if hello.join { 4 * ANSWER_WAIT } else { ANSWER_WAIT };
    let answer = peers.call(to, GroupId::Metadata, Kind::Hello, body, wait).await?;
    from_json(&answer)
}

/// A new id: 128 bits, which never meet by chance.
#[must_use]
pub fn draw() -> String {
    format!("{:032x}", rand::random::<u128>())
}
