//! The watcher: keeps in touch with the engine and passes on what it says.
//!
//! ```text
//!  look for a socket ──► ask who it is ──► events ──► list all ──► events, a list now and then
//!        ▲                                                             │
//!        └─────────────── a pause that grows ◄─────── gone, restarted ─┘
//! ```
//!
//! The stream of events is opened before the list is asked for, so that nothing falls between the
//! two. After a break it goes on where it broke, as far as the engine remembers, and what it says
//! at once is passed on before the list, which would tell the same with less. The list is asked
//! for again every half minute, to be sure: what is not in it is gone, what appeared without an
//! event is described. Which of them are watched is decided by the description: a list has other
//! names for the same.
//!
//! A container that the engine cannot tell of is passed over, and said so once: one that is broken
//! must not hide all others. At the next list it is asked about again.
//!
//! Questions are asked one after the other, so that what is told has the order in which it happened.
//! One that has no answer soon is set aside and waited for while others are asked; what happens to
//! its container meanwhile waits with it, and a list does not call it gone.
//!
//! What is left out: waiting for anybody. [`super::containers`] is told and decides.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use nix::unistd::getuid;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::Watch;
use super::containers::{CONTAINERS_MAX, News};
use super::details::Details;
use super::engine::{Address, Engine, EngineError, Events};
use super::events::{Action, FILTERS, Happening};
use super::shapes::{Event, Inspected, Listed, Stats, present};
use crate::readings::Moment;

/// How often the list is asked for though nothing happened.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// How often an engine is looked for where there is none: a machine may get one.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The first pause after an engine was lost; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// After this long without another event all that was missed has been told.
const CATCH_UP_QUIET: Duration = Duration::from_millis(200);

/// Most events to catch up with: Docker remembers 256.
const CATCH_UP_MAX: usize = 1024;

/// So many questions about containers without an answer, and none with one meanwhile: it is the
/// engine that hangs, and not one container of it.
const SLOW_MAX: u32 = 3;

/// After so long without an answer others are asked: an engine takes some milliseconds, and the
/// numbers of other containers are due every second.
const PATIENCE: Duration = Duration::from_millis(500);

/// Most questions that are set aside: an engine with much to do is not to be asked more and more.
const ASIDE_MAX: usize = 8;

const LIST: &str = "/containers/json?all=1";

/// The ids of containers that the engine is asked to measure.
pub type Asked = std::rc::Rc<std::cell::RefCell<Vec<String>>>;

/// Keeps in touch.
pub struct Watcher<'a> {
    watch: &'a Watch,
    clock: &'a SharedClock,
    measure_every: Duration,
    news: Sender<News>,
    asked: Asked,
    /// Containers and the state in which they were described last.
    described: HashMap<String, String>,
    /// Containers that the engine could not tell of, as the log said.
    passed_over: HashSet<String>,
    /// Questions that were set aside.
    asking: JoinSet<Answer>,
    /// The containers that they are about, and what happened to each meanwhile.
    aside: HashMap<String, Vec<Happening>>,
    /// Questions about containers that had no answer, since one had.
    slow: u32,
    /// Questions about containers that had one.
    heard: u64,
    /// When the newest event happened, in Unix nanoseconds of the engine's clock.
    newest_event: Option<u64>,
    said: Said,
}

/// What the log said last, so that it is said once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    NoSocket,
    Connected,
    Lost,
}

/// What is asked about a container.
#[derive(Debug, Clone)]
enum Question {
    /// What it is, and what happened to it, where that is why we ask.
    Describe(Option<Happening>),
    /// Its numbers.
    Measure,
}

/// What the engine says of a container; nothing where there is no such container any more.
#[derive(Debug)]
enum Tale {
    Details(Option<Box<Details>>),
    Stats(Option<Box<Stats>>),
}

/// The answer to a question, when there is one.
#[derive(Debug)]
struct Answer {
    id: String,
    question: Question,
    tale: Result<Tale, EngineError>,
    /// How many questions had been answered when it was asked.
    heard: u64,
}

impl Question {
    async fn ask(self, engine: Arc<Engine>, id: String, heard: u64) -> Answer {
        let tale = match &self {
            Self::Describe(_) => {
                let inspected = engine.get::<Inspected>(&format!("/containers/{id}/json")).await;
                inspected.map(|inspected| {
                    Tale::Details(inspected.map(|one| Box::new(Details::new(one))))
                })
            }
            Self::Measure => {
                let path = format!("/containers/{id}/stats?stream=false&one-shot=true");
                let stats = engine.get::<Stats>(&path).await;
                stats.map(|stats| Tale::Stats(stats.map(Box::new)))
            }
        };
        Answer { id, question: self, tale, heard }
    }
}

impl<'a> Watcher<'a> {
    /// A watcher that knows nobody yet.
    #[must_use]
    pub fn new(
        watch: &'a Watch,
        clock: &'a SharedClock,
        measure_every: Duration,
        news: Sender<News>,
        asked: Asked,
    ) -> Self {
        Self {
            watch,
            clock,
            measure_every,
            news,
            asked,
            described: HashMap::new(),
            passed_over: HashSet::new(),
            asking: JoinSet::new(),
            aside: HashMap::new(),
            slow: 0,
            heard: 0,
            newest_event: None,
            said: Said::Nothing,
        }
    }

    /// Goes on for ever.
    pub async fn run(mut self) -> Infallible {
        let mut pause = PAUSE_MIN;
        loop {
            let Some(address) = self.address() else {
                if self.said != Said::NoSocket {
                    info!(
                        "no Docker or Podman socket was found: containers are not watched until \
                         there is one (name it with DOCKER_HOST, or say --docker=off)"
                    );
                    self.said = Said::NoSocket;
                }
                sleep(LOOK_EVERY).await;
                continue;
            };
            let Err(error) = self.attend(&address).await;
            self.asking = JoinSet::new();
            for (id, happened) in std::mem::take(&mut self.aside) {
                for happening in happened {
                    self.pass_on(News::Happened(id.clone(), happening)).await;
                }
            }
            self.pass_on(News::Lost).await;
            if self.said == Said::Connected {
                pause = PAUSE_MIN;
            }
            if self.said != Said::Lost {
                warn!("the engine cannot be asked: {error}; trying again, less and less often");
                self.said = Said::Lost;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Where the engine is: as it was said, else the first socket of the usual ones.
    fn address(&self) -> Option<Address> {
        if let Some(address) = &self.watch.address {
            return Some(address.clone());
        }
        let own = PathBuf::from(format!("/run/user/{}", getuid()));
        let sockets = [
            PathBuf::from("/var/run/docker.sock"),
            own.join("docker.sock"),
            own.join("podman/podman.sock"),
            PathBuf::from("/run/podman/podman.sock"),
        ];
        sockets.into_iter().find(|socket| socket.exists()).map(Address::Unix)
    }

    /// Attends to one engine until it is lost.
    async fn attend(&mut self, address: &Address) -> Result<Infallible, EngineError> {
        let engine = Arc::new(Engine::connect(address).await?);
        let mut events = engine.events(FILTERS, self.newest_event).await?;
        if self.newest_event.is_some() {
            self.catch_up(&engine, &mut events).await?;
        }
        self.described.clear();
        self.slow = 0;
        let listed = self.list(&engine).await?;
        info!("watching {listed} containers of {}", engine.words());
        self.said = Said::Connected;
        let mut lists = interval(LIST_EVERY);
        let mut measurements = interval(self.measure_every);
        measurements.set_missed_tick_behavior(MissedTickBehavior::Skip);
        lists.tick().await;
        loop {
            tokio::select! {
                event = events.next() => self.heard_of(&engine, &event?).await?,
                Some(Ok(answer)) = self.asking.join_next() => self.late(&engine, answer).await?,
                _ = lists.tick() => {
                    self.list(&engine).await?;
                }
                _ = measurements.tick() => self.measure(&engine).await?,
            }
        }
    }

    async fn catch_up(
        &mut self,
        engine: &Arc<Engine>,
        events: &mut Events,
    ) -> Result<(), EngineError> {
        let told = self.newest_event;
        for _ in 0..CATCH_UP_MAX {
            let Ok(event) = timeout(CATCH_UP_QUIET, events.next()).await else { break };
            let event = event?;
            // The stream begins with the one that it was asked to follow. Only here: an engine
            // tells events that happen at once in any order, and its clock may be set back.
            if Some(event.nanos()) > told {
                self.heard_of(engine, &event).await?;
            }
        }
        Ok(())
    }

    async fn heard_of(&mut self, engine: &Arc<Engine>, event: &Event) -> Result<(), EngineError> {
        self.newest_event = self.newest_event.max(Some(event.nanos()));
        self.happened(engine, &event.actor.id, Happening::new(event)).await
    }

    async fn happened(
        &mut self,
        engine: &Arc<Engine>,
        id: &str,
        happening: Happening,
    ) -> Result<(), EngineError> {
        if let Some(waiting) = self.aside.get_mut(id) {
            waiting.push(happening);
            return Ok(());
        }
        if happening.action == Action::Destroy {
            self.untold(id, happening).await;
            return Ok(());
        }
        self.ask(engine, id, Question::Describe(Some(happening))).await
    }

    /// Passes on what happened to a container that the engine does not tell of.
    async fn untold(&mut self, id: &str, happening: Happening) {
        self.described.remove(id);
        self.pass_on(News::Happened(id.to_owned(), happening)).await;
    }

    /// Asks about a container, unless it is asked about already.
    async fn ask(
        &mut self,
        engine: &Arc<Engine>,
        id: &str,
        question: Question,
    ) -> Result<(), EngineError> {
        if self.aside.contains_key(id) {
            return Ok(());
        }
        let patience = match self.passed_over.contains(id) {
            _ if self.aside.len() >= ASIDE_MAX => Duration::MAX,
            // It has been waited for before.
            true => Duration::ZERO,
            false => PATIENCE,
        };
        let mut asking = Box::pin(question.ask(engine.clone(), id.to_owned(), self.heard));
        match timeout(patience, &mut asking).await {
            Ok(answer) => self.answered(answer).await,
            Err(_) => {
                self.aside.insert(id.to_owned(), Vec::new());
                self.asking.spawn(asking);
                Ok(())
            }
        }
    }

    /// Takes the answer to a question that was set aside, and what happened meanwhile.
    async fn late(&mut self, engine: &Arc<Engine>, answer: Answer) -> Result<(), EngineError> {
        let id = answer.id.clone();
        let waiting = self.aside.remove(&id).unwrap_or_default();
        let hangs = matches!(answer.tale, Err(EngineError::Slow(_)));
        self.answered(answer).await?;
        for happening in waiting {
            if hangs {
                self.untold(&id, happening).await;
            } else {
                self.happened(engine, &id, happening).await?;
            }
        }
        Ok(())
    }

    async fn answered(&mut self, answer: Answer) -> Result<(), EngineError> {
        let Answer { id, question, tale, heard } = answer;
        match (self.unless_broken(&id, tale, heard)?, question) {
            (Some(Tale::Details(Some(details))), Question::Describe(cause)) => {
                self.described.insert(id, details.state.clone());
                self.pass_on(News::Seen(details, cause)).await;
            }
            (Some(Tale::Stats(Some(stats))), _) => {
                let wall_ms = self.clock.wall_ms();
                let now = Moment { wall_ms, monotonic_us: self.clock.monotonic_us() };
                self.pass_on(News::Measured(id, stats, now)).await;
            }
            (_, Question::Describe(Some(happening))) => self.untold(&id, happening).await,
            _ => {}
        }
        Ok(())
    }

    /// What the engine says of one container. Nothing, where that is all that is wrong with it.
    fn unless_broken(
        &mut self,
        id: &str,
        tale: Result<Tale, EngineError>,
        heard: u64,
    ) -> Result<Option<Tale>, EngineError> {
        let error = match tale {
            Err(error @ EngineError::Slow(_)) => {
                self.slow += u32::from(heard == self.heard);
                if self.slow >= SLOW_MAX {
                    return Err(error);
                }
                error
            }
            Err(error @ (EngineError::Refused { .. } | EngineError::Nonsense { .. })) => error,
            Err(error) => return Err(error),
            Ok(tale) => {
                (self.slow, self.heard) = (0, self.heard + 1);
                return Ok(Some(tale));
            }
        };
        if self.passed_over.insert(id.to_owned()) {
            warn!("a container is passed over until the engine can tell of it: {error}");
        }
        Ok(None)
    }

    /// Asks who is there, and about each of whom that is news; how many there are to be watched.
    async fn list(&mut self, engine: &Arc<Engine>) -> Result<usize, EngineError> {
        let mut listed: Vec<Listed> = present(LIST, engine.get(LIST).await?)?;
        let mut ids: HashSet<String> = listed.iter().map(|one| one.id.clone()).collect();
        self.described.retain(|id, _| ids.contains(id));
        self.passed_over.retain(|id| ids.contains(id));
        // What is known of these is on its way.
        ids.extend(self.aside.keys().cloned());
        // First, because another may have taken the name of one that is gone.
        self.pass_on(News::Listed(ids)).await;
        listed
            .retain(|one| self.described.contains_key(&one.id) || one.may_fit(&self.watch.filter));
        listed.truncate(CONTAINERS_MAX + 1);
        for one in &listed {
            if self.described.get(&one.id) != Some(&one.state) {
                self.ask(engine, &one.id, Question::Describe(None)).await?;
            }
        }
        Ok(listed.len())
    }

    /// Asks for the numbers of those whose files cannot be seen.
    async fn measure(&mut self, engine: &Arc<Engine>) -> Result<(), EngineError> {
        let asked = self.asked.borrow().clone();
        for id in asked {
            self.ask(engine, &id, Question::Measure).await?;
        }
        Ok(())
    }

    async fn pass_on(&self, news: News) {
        // Nobody listens only when this process ends.
        let _ = self.news.send(news).await;
    }
}
