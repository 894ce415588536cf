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
//! What is left out: waiting for anybody. [`super::containers`] is told and decides.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use nix::unistd::getuid;
use tokio::sync::mpsc::Sender;
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

/// So many questions about containers in a row without an answer: it is the engine that hangs, and
/// not one container of it.
const SLOW_MAX: u32 = 3;

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
    /// Questions about containers that had no answer, since one had.
    slow: u32,
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
            slow: 0,
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
        let engine = Engine::connect(address).await?;
        let mut events = engine.events(FILTERS, self.newest_event).await?;
        if self.newest_event.is_some() {
            self.catch_up(&engine, &mut events).await?;
        }
        self.described.clear();
        self.slow = 0;
        self.list(&engine).await?;
        info!("watching {} containers of {}", self.described.len(), engine.words());
        self.said = Said::Connected;
        let mut lists = interval(LIST_EVERY);
        let mut measurements = interval(self.measure_every);
        measurements.set_missed_tick_behavior(MissedTickBehavior::Skip);
        lists.tick().await;
        loop {
            tokio::select! {
                event = events.next() => self.happened(&engine, &event?).await?,
                _ = lists.tick() => self.list(&engine).await?,
                _ = measurements.tick() => self.measure(&engine).await?,
            }
        }
    }

    async fn catch_up(&mut self, engine: &Engine, events: &mut Events) -> Result<(), EngineError> {
        let told = self.newest_event;
        for _ in 0..CATCH_UP_MAX {
            let Ok(event) = timeout(CATCH_UP_QUIET, events.next()).await else { break };
            let event = event?;
            // The stream begins with the one that it was asked to follow. Only here: an engine
            // tells events that happen at once in any order, and its clock may be set back.
            if Some(event.nanos()) > told {
                self.happened(engine, &event).await?;
            }
        }
        Ok(())
    }

    async fn happened(&mut self, engine: &Engine, event: &Event) -> Result<(), EngineError> {
        self.newest_event = self.newest_event.max(Some(event.nanos()));
        let happening = Happening::new(event);
        let id = &event.actor.id;
        if happening.action != Action::Destroy
            && let Some(details) = self.describe(engine, id).await?
        {
            self.pass_on(News::Seen(Box::new(details), Some(happening))).await;
        } else {
            self.described.remove(id);
            self.pass_on(News::Happened(id.clone(), happening)).await;
        }
        Ok(())
    }

    async fn describe(
        &mut self,
        engine: &Engine,
        id: &str,
    ) -> Result<Option<Details>, EngineError> {
        let inspected = engine.get::<Inspected>(&format!("/containers/{id}/json")).await;
        let inspected = self.unless_broken(id, inspected)?;
        let details = inspected.map(Details::new);
        if let Some(details) = &details {
            self.described.insert(id.to_owned(), details.state.clone());
        }
        Ok(details)
    }

    /// What the engine says of one container. Nothing, where that is all that is wrong with it.
    fn unless_broken<T>(
        &mut self,
        id: &str,
        answer: Result<Option<T>, EngineError>,
    ) -> Result<Option<T>, EngineError> {
        let error = match answer {
            Err(EngineError::Slow(_)) if self.slow + 1 >= SLOW_MAX => return answer,
            Err(error @ EngineError::Slow(_)) => {
                self.slow += 1;
                error
            }
            Err(error @ (EngineError::Refused { .. } | EngineError::Nonsense { .. })) => error,
            Err(_) => return answer,
            Ok(_) => {
                self.slow = 0;
                return answer;
            }
        };
        if self.passed_over.insert(id.to_owned()) {
            warn!("a container is passed over until the engine can tell of it: {error}");
        }
        Ok(None)
    }

    /// Asks who is there, and about each of whom that is news.
    async fn list(&mut self, engine: &Engine) -> Result<(), EngineError> {
        let mut listed: Vec<Listed> = present(LIST, engine.get(LIST).await?)?;
        let ids: HashSet<String> = listed.iter().map(|one| one.id.clone()).collect();
        self.described.retain(|id, _| ids.contains(id));
        self.passed_over.retain(|id| ids.contains(id));
        // First, because another may have taken the name of one that is gone.
        self.pass_on(News::Listed(ids)).await;
        listed
            .retain(|one| self.described.contains_key(&one.id) || one.may_fit(&self.watch.filter));
        for one in listed.iter().take(CONTAINERS_MAX + 1) {
            if self.described.get(&one.id) == Some(&one.state) {
                continue;
            }
            if let Some(details) = self.describe(engine, &one.id).await? {
                self.pass_on(News::Seen(Box::new(details), None)).await;
            }
        }
        Ok(())
    }

    /// Asks for the numbers of those whose files cannot be seen.
    async fn measure(&mut self, engine: &Engine) -> Result<(), EngineError> {
        let asked = self.asked.borrow().clone();
        for id in asked {
            let path = format!("/containers/{id}/stats?stream=false&one-shot=true");
            let stats = engine.get::<Stats>(&path).await;
            if let Some(stats) = self.unless_broken(&id, stats)? {
                let wall_ms = self.clock.wall_ms();
                let now = Moment { wall_ms, monotonic_us: self.clock.monotonic_us() };
                self.pass_on(News::Measured(id, Box::new(stats), now)).await;
            }
        }
        Ok(())
    }

    async fn pass_on(&self, news: News) {
        // Nobody listens only when this process ends.
        let _ = self.news.send(news).await;
    }
}
