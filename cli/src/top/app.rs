//! What somebody looks at, and what keys do: a key in, new state and an effect out. Pure.
//!
//! What is selected is a container or an alert, not a line: the list may be sorted anew under it.

use aklight_common::client::{Message, SubscriptionEvent};
use aklight_common::settings::{EXIT_DONE, EXIT_INTERRUPTED};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;

use super::alert::{Alert, Deed};
use super::ask::{Answer, Ask, Members};
use super::detail::Detail;
use super::model::{Model, Way};
use super::record::{Key, ROLLUP};
use super::rows::{Column, Filter, Row, Sort, rows};

/// How long a notice stands.
const NOTICE_MS: u64 = 6_000;

/// How often the cluster is looked at while it is shown.
const CLUSTER_EVERY_MS: u64 = 2_000;

/// How many lines a page is: about a screen.
const PAGE: isize = 15;

/// Longest filter: as long as a pattern can be.
const FILTER_CHARS_MAX: usize = 255;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Hosts and containers.
    Containers,
    /// Alerts.
    Alerts,
    /// Brokers.
    Cluster,
}

/// The pages, in the order of their numbers.
pub const PAGES: [Page; 3] = [Page::Containers, Page::Alerts, Page::Cluster];

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It comes about.
    Connecting,
    /// Records come.
    Connected(String),
    /// It is lost, why, and when it is tried again.
    Lost(String, u64),
}

/// Something to be done outside.
#[derive(Debug)]
pub enum Effect {
    /// End, with this exit code.
    End(u8),
    /// Make place for the shell, until it says to go on.
    Suspend,
    /// Ask a broker.
    Ask(Ask),
}

/// What was last said.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The text.
    pub text: String,
    /// Whether it is bad news.
    pub bad: bool,
    until_ms: u64,
}

/// All of the state.
pub struct App {
    /// What is known.
    pub model: Model,
    /// How the connection is.
    pub link: Link,
    /// Whether what is stored has been read: before that, nothing is not yet empty.
    pub loaded: bool,
    /// What is shown.
    pub page: Page,
    /// Whether help lies over it.
    pub help: bool,
    /// The order of the list.
    pub sort: Sort,
    /// What is listed.
    pub filter: Filter,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// The container that is looked at closely.
    pub detail: Option<Detail>,
    /// The container that is selected.
    pub selected: Option<Key>,
    /// The topic of the alert that is selected.
    pub selected_alert: Option<String>,
    /// How far the tables are scrolled, kept from one frame to the next.
    pub scroll: TableState,
    /// The cluster, and what it was the time before.
    pub members: Option<(Box<Members>, Option<Box<Members>>)>,
    /// What was last said.
    pub notice: Option<Notice>,
    /// Who does things.
    pub by: String,
    /// The time.
    pub now_ms: u64,
    cluster_asked_ms: u64,
    /// What is to be asked at the next tick: at first what there is, later what was not answered.
    due: Option<Ask>,
}

impl App {
    /// Nothing known yet.
    pub fn new(filter: Filter, by: String, now_ms: u64) -> Self {
        Self {
            model: Model::default(),
            link: Link::Connecting,
            loaded: false,
            page: Page::Containers,
            help: false,
            sort: Sort { column: Column::Cpu, reversed: false },
            filter,
            typing: false,
            detail: None,
            selected: None,
            selected_alert: None,
            scroll: TableState::new(),
            members: None,
            notice: None,
            by,
            now_ms,
            cluster_asked_ms: 0,
            due: Some(Ask::Newest),
        }
    }

    /// The containers as they are listed.
    pub fn rows(&self) -> Vec<Row<'_>> {
        rows(&self.model, &self.filter, self.sort, self.now_ms)
    }

    /// The alerts as they are listed.
    pub fn alerts(&self) -> Vec<(&String, &Alert)> {
        let shown = |(_, alert): &(&String, &Alert)| alert.is_shown(self.now_ms);
        let mut alerts: Vec<_> = self.model.alerts.iter().filter(shown).collect();
        alerts.sort_by_key(|(topic, alert)| (alert.rank(), u64::MAX - alert.ts_ms, *topic));
        alerts
    }

    /// Takes in what the subscription tells; whether anything shown may be other now.
    pub fn hear(&mut self, event: SubscriptionEvent) -> bool {
        match event {
            SubscriptionEvent::Message(message) => return self.take(&message, Way::Live),
            SubscriptionEvent::Connected { broker, .. } => {
                if matches!(self.link, Link::Lost(..)) {
                    self.say(format!("connected to {broker} again"), false);
                }
                self.link = Link::Connected(broker);
            }
            SubscriptionEvent::Disconnected { reason, retry_in } => {
                let retry_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
                self.link = Link::Lost(reason, self.now_ms.saturating_add(retry_ms));
            }
            SubscriptionEvent::Refused(error) => self.say(format!("refused: {error}"), true),
        }
        true
    }

    /// Takes in an answer, and says what is to be asked next.
    pub fn answered(&mut self, answer: Answer) -> Option<Ask> {
        match answer {
            Answer::Stored(messages) => {
                self.take_all(&messages);
                let first = !self.loaded;
                self.loaded = true;
                return first.then_some(Ask::LastMinutes);
            }
            Answer::Everything(key, stored, rollups) => {
                self.take_all(&stored);
                if let Some(detail) = self.detail.as_mut().filter(|detail| detail.key == key) {
                    detail.loaded = true;
                    rollups.iter().for_each(|message| detail.take_rollup(message));
                }
            }
            Answer::Cluster(members) => {
                let before = self.members.take().map(|(members, _)| members);
                self.members = Some((members, before));
            }
            Answer::Acted(deed, about) => self.say(format!("{} {about}", deed.done()), false),
            Answer::Failed(Ask::Act(deed, about, _), error) => {
                self.say(format!("not {} {about}: {error}", deed.done()), true);
            }
            // The header tells that the connection is lost, and what is asked is asked again.
            Answer::Failed(Ask::Cluster, _) => {}
            Answer::Failed(ask, error) => {
                self.say(error, true);
                self.due = Some(ask);
            }
        }
        None
    }

    /// Time goes on; what is to be asked by now.
    pub fn tick(&mut self, now_ms: u64) -> Option<Ask> {
        self.now_ms = now_ms;
        self.notice.take_if(|notice| notice.until_ms <= now_ms);
        let due = now_ms.saturating_sub(self.cluster_asked_ms) >= CLUSTER_EVERY_MS;
        if self.page == Page::Cluster && due {
            self.cluster_asked_ms = now_ms;
            return Some(Ask::Cluster);
        }
        self.due.take()
    }

    /// Says something for a while.
    pub fn say(&mut self, text: String, bad: bool) {
        self.notice = Some(Notice { text, bad, until_ms: self.now_ms + NOTICE_MS });
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Option<Effect> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Some(Effect::End(EXIT_INTERRUPTED)),
            KeyCode::Char('z') if control => return Some(Effect::Suspend),
            KeyCode::Char(_) if control => return None,
            _ if self.typing => {
                self.type_filter(key.code);
                return None;
            }
            KeyCode::Char('q') => return Some(Effect::End(EXIT_DONE)),
            // Whatever else is pressed, it was to see what lies below.
            _ if self.help => {
                self.help = false;
                return None;
            }
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('1') => return self.turn_to(Page::Containers),
            KeyCode::Char('2') => return self.turn_to(Page::Alerts),
            KeyCode::Char('3') => return self.turn_to(Page::Cluster),
            KeyCode::Tab => return self.turn(1),
            KeyCode::BackTab => return self.turn(PAGES.len() - 1),
            code => return self.press_on_page(code),
        }
        None
    }

    fn press_on_page(&mut self, code: KeyCode) -> Option<Effect> {
        if let Some(steps) = steps(code) {
            self.step(steps);
            return None;
        }
        match (self.page, &mut self.detail) {
            (Page::Containers, Some(detail)) => match code {
                KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.detail = None,
                code => detail.press(code),
            },
            (Page::Containers, None) => return self.press_on_list(code),
            (Page::Alerts, _) => match code {
                KeyCode::Char('a') => return self.act(Deed::Acknowledge),
                KeyCode::Char('m') => return self.act(Deed::Mute),
                KeyCode::Char('u') => return self.act(Deed::Unmute),
                KeyCode::Esc => return self.turn_to(Page::Containers),
                _ => {}
            },
            (Page::Cluster, _) => {
                if code == KeyCode::Esc {
                    return self.turn_to(Page::Containers);
                }
            }
        }
        None
    }

    fn press_on_list(&mut self, code: KeyCode) -> Option<Effect> {
        match code {
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s') => self.sort = self.sort.step(false),
            KeyCode::Char('S') => self.sort = self.sort.step(true),
            KeyCode::Char('r') => self.sort.reversed = !self.sort.reversed,
            KeyCode::Char('n') => self.sort = self.sort.choose(Column::Name),
            KeyCode::Char('c') => self.sort = self.sort.choose(Column::Cpu),
            KeyCode::Char('m') => self.sort = self.sort.choose(Column::Memory),
            KeyCode::Char('u') => self.sort = self.sort.choose(Column::Uptime),
            KeyCode::Esc => self.filter = Filter::default(),
            KeyCode::Enter | KeyCode::Right => {
                let key = self.selected_row()?;
                self.selected = Some(key.clone());
                self.detail = Some(Detail::new(key.clone()));
                return Some(Effect::Ask(Ask::Everything(key)));
            }
            _ => {}
        }
        None
    }

    fn type_filter(&mut self, code: KeyCode) {
        let mut text = self.filter.text().to_owned();
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                text.clear();
            }
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(c) if text.chars().count() < FILTER_CHARS_MAX => text.push(c),
            _ => {}
        }
        self.filter = Filter::new(&text);
    }

    fn turn(&mut self, by: usize) -> Option<Effect> {
        let at = PAGES.iter().position(|page| *page == self.page).unwrap_or(0);
        self.turn_to(PAGES[(at + by) % PAGES.len()])
    }

    fn turn_to(&mut self, page: Page) -> Option<Effect> {
        if self.page == page {
            self.detail = None;
        }
        self.page = page;
        self.scroll = TableState::new();
        self.cluster_asked_ms = 0;
        self.tick(self.now_ms).map(Effect::Ask)
    }

    /// The selected container: the first one, as long as nobody has chosen.
    fn selected_row(&self) -> Option<Key> {
        let rows = self.rows();
        let chosen = rows.iter().find(|row| Some(row.key) == self.selected.as_ref());
        chosen.or(rows.first()).map(|row| row.key.clone())
    }

    /// Goes up or down.
    fn step(&mut self, steps: isize) {
        match (self.page, &mut self.detail) {
            (Page::Containers, Some(detail)) => {
                let container = self.model.containers.get(&detail.key);
                let events = container.map_or(&[][..], |container| &container.events);
                let chosen = detail.chosen_event(events);
                detail.choose_event(moved(Some(chosen), events.len(), steps));
            }
            (Page::Containers, None) => {
                let rows = self.rows();
                let at = rows.iter().position(|row| Some(row.key) == self.selected.as_ref());
                self.selected = moved(at, rows.len(), steps).map(|at| rows[at].key.clone());
            }
            (Page::Alerts, _) => {
                let alerts = self.alerts();
                let chosen = self.selected_alert.as_ref();
                let at = alerts.iter().position(|(topic, _)| Some(*topic) == chosen);
                let to = moved(at, alerts.len(), steps).map(|at| alerts[at].0.clone());
                self.selected_alert = to;
            }
            (Page::Cluster, _) => {}
        }
    }

    fn act(&mut self, deed: Deed) -> Option<Effect> {
        let alerts = self.alerts();
        let chosen = self.selected_alert.as_ref();
        let found = alerts.iter().find(|(topic, _)| Some(*topic) == chosen).or(alerts.first());
        let Some((topic, alert)) = found else {
            self.say("there is no alert to do that to".to_owned(), true);
            return None;
        };
        let about = format!("{} of {}", alert.rule, alert.about());
        let ask = Ask::Act(deed, about, deed.record(alert, &self.by, self.now_ms));
        self.selected_alert = Some((*topic).clone());
        Some(Effect::Ask(ask))
    }

    fn take_all(&mut self, messages: &[Message]) {
        for message in messages {
            self.take(message, Way::Stored);
        }
    }

    fn take(&mut self, message: &Message, way: Way) -> bool {
        if message.topic.as_str().starts_with(ROLLUP) {
            if let Some(detail) = &mut self.detail {
                detail.take_rollup(message);
            }
            return false;
        }
        self.model.take(message, way, self.now_ms)
    }
}

/// How far a key goes up or down.
fn steps(code: KeyCode) -> Option<isize> {
    match code {
        KeyCode::Down | KeyCode::Char('j') => Some(1),
        KeyCode::Up | KeyCode::Char('k') => Some(-1),
        KeyCode::PageDown => Some(PAGE),
        KeyCode::PageUp => Some(-PAGE),
        KeyCode::Home | KeyCode::Char('g') => Some(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => Some(isize::MAX),
        _ => None,
    }
}

/// The place so many steps away; from nowhere one begins at the first.
fn moved(at: Option<usize>, count: usize, steps: isize) -> Option<usize> {
    let last = count.checked_sub(1)?;
    Some(at.unwrap_or(0).saturating_add_signed(steps).min(last))
}
