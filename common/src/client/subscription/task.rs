//! The task behind a subscription: dials, registers, catches up, and hands on what is pushed.
//!
//! One round of the loop is one connection:
//!
//! ```text
//!  dial ─► REGISTER_CONSUMER ─┬─ persistent ─► ACKs of before ─► SUBSCRIBE ─► Connected ─┐
//!                             └─ live, again ─► fetch ─► SUBSCRIBE ─► fetch ─► Connected ┴─► stream
//! ```
//!
//! How a live subscription fetches what it missed is told in `catch_up`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::connection::{Connection, Said};
use super::progress::{Positions, Progress, Seen};
use super::{Shared, SubscriptionEvent};
use crate::client::config::ClientConfig;
use crate::client::dial::dial;
use crate::client::dialer::Dialer;
use crate::client::values::Message;
use crate::wire::WireError;
use crate::wire::command::check_client_id;
use crate::{Offset, PartitionId, Pattern};

/// The end of one connection.
enum End {
    /// It is to be mended: the reason.
    Lost(String),
    /// The caller closes; whether everything acknowledged is durable.
    Closed(bool),
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::Lost(reason)
    }
}

pub(super) struct Task {
    pub(super) config: ClientConfig,
    persistent: bool,
    pub(super) patterns: Vec<Pattern>,
    shared: Arc<Shared>,
    events: mpsc::Sender<SubscriptionEvent>,
    closing: watch::Receiver<bool>,
    dialer: Dialer,
    pub(super) progress: Progress,
    pub(super) connected_before: bool,
    /// SUBSCRIBEs of a persistent consumer that are not answered yet.
    unanswered_subscribes: usize,
    /// What has arrived and waits for room: at most what one reading of the socket brought.
    pub(super) pending: VecDeque<SubscriptionEvent>,
}

impl Task {
    pub(super) fn new(
        config: ClientConfig,
        persistent: bool,
        patterns: Vec<Pattern>,
        shared: Arc<Shared>,
        events: mpsc::Sender<SubscriptionEvent>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let progress = if persistent {
            Progress::Persistent(Seen::default())
        } else {
            Progress::Live(Positions::new(&patterns))
        };
        Self {
            dialer: Dialer::new(config.brokers.clone(), config.backoff),
            config,
            persistent,
            patterns,
            shared,
            events,
            closing,
            progress,
            connected_before: false,
            unanswered_subscribes: 0,
            pending: VecDeque::new(),
        }
    }

    /// Runs until the caller closes; tells whether everything acknowledged is durable.
    pub(super) async fn run(mut self) -> bool {
        loop {
            let reason = match self.one_connection().await {
                End::Closed(settled) => return settled,
                End::Lost(reason) => reason,
            };
            self.shared.acks.lock().lost();
            let retry_in = Duration::from_millis(self.dialer.failed(&reason));
            self.pending.push_back(SubscriptionEvent::Disconnected { reason, retry_in });
            let mut closing = self.closing.clone();
            let delivered_and_waited = async {
                self.deliver_pending().await;
                tokio::time::sleep(retry_in).await;
            };
            tokio::select! {
                () = delivered_and_waited => {}
                _ = closing.wait_for(|closing| *closing) => {
                    return self.shared.acks.lock().is_settled();
                }
            }
        }
    }

    async fn one_connection(&mut self) -> End {
        let mut closing = self.closing.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            _ = closing.wait_for(|closing| *closing) => {
                return End::Closed(self.shared.acks.lock().is_settled());
            }
        };
        match opened {
            Ok(mut connection) => match self.stream(&mut connection).await {
                Ok(settled) => End::Closed(settled),
                Err(reason) => End::Lost(reason),
            },
            Err(reason) => End::Lost(reason),
        }
    }

    /// From nothing to a connection on which records flow.
    async fn open(&mut self) -> Result<Connection, String> {
        let id = check_client_id(self.config.id.as_bytes())?.to_owned();
        let broker = self.dialer.broker().ok_or("no broker was given")?.to_owned();
        let stream = dial(&self.config, &broker).await?;
        let (reply_bytes_max, patience) =
            (self.config.reply_bytes_max(), self.config.greeting_timeout);
        let mut connection = Connection::new(stream, reply_bytes_max, patience);
        connection.register(&id, self.persistent);
        let positions = self.await_registration(&mut connection).await?;
        connection.set_patience(self.config.request_timeout);
        self.dialer.connected();
        let connected = SubscriptionEvent::Connected { broker: broker.clone(), positions };
        if self.persistent {
            self.begin_persistent(&mut connection).await?;
            self.pending.push_back(connected);
        } else {
            self.begin_live(&mut connection, &broker, connected).await?;
            self.dialer.serves();
        }
        self.connected_before = true;
        Ok(connection)
    }

    async fn await_registration(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Vec<(PartitionId, Offset)>, String> {
        match next_said(connection).await? {
            Said::Registered(positions) => {
                if let Progress::Live(live) = &mut self.progress {
                    live.registered(&positions);
                }
                Ok(positions)
            }
            Said::RegistrationRefused(error) => {
                let reason = format!("the broker did not take the registration: {error}");
                self.tell_refusal(error);
                Err(reason)
            }
            other => Err(format!("the broker answered the registration with {other:?}")),
        }
    }

    async fn begin_persistent(&mut self, connection: &mut Connection) -> Result<(), String> {
        // What the last connection may have lost comes before the SUBSCRIBE, so that the broker
        // does not send again what it covers.
        let batch = self.next_batch();
        if !batch.is_empty() {
            connection.acknowledge(&batch);
            while connection.awaits_barrier() {
                let said = next_said(connection).await?;
                self.take_said(said)?;
            }
        }
        // In one packet, so that the broker usually knows of all before it pushes anything.
        for pattern in &self.patterns {
            connection.subscribe(pattern.as_str());
        }
        self.unanswered_subscribes = self.patterns.len();
        Ok(())
    }

    /// Hands on what is pushed, until the connection breaks or the caller closes.
    async fn stream(&mut self, connection: &mut Connection) -> Result<bool, String> {
        let mut closing = self.closing.clone();
        let mut is_closing = false;
        loop {
            while let Some(said) = connection.next_said()? {
                if matches!(said, Said::Bye) {
                    return Ok(self.shared.acks.lock().is_settled());
                }
                self.take_said(said)?;
            }
            if !connection.awaits_barrier() {
                let batch = self.next_batch();
                if !batch.is_empty() {
                    connection.acknowledge(&batch);
                } else if is_closing && !connection.is_leaving() {
                    connection.quit();
                }
            }
            let may_acknowledge = !connection.awaits_barrier() && !is_closing;
            if is_closing {
                // Nobody listens any more; only the answers to the last questions count.
                self.pending.clear();
            }
            self.deliver_what_fits();
            let reads = self.pending.is_empty();
            tokio::select! {
                room = self.events.reserve(), if !reads => match room {
                    Ok(room) => hand_on(&mut self.pending, room),
                    // The handle is closing, or gone.
                    Err(_) => self.pending.clear(),
                },
                done = connection.step(reads) => done?,
                () = self.shared.acked.notified(), if may_acknowledge => {}
                _ = closing.wait_for(|closing| *closing), if !is_closing => is_closing = true,
            }
        }
    }

    /// The ACKs that are due; what they cover need not be remembered.
    fn next_batch(&mut self) -> super::acks::Batch {
        let batch = self.shared.acks.lock().take();
        if let Progress::Persistent(seen) = &mut self.progress {
            for (partition, (_, offset)) in &batch {
                seen.acknowledged(*partition, *offset);
            }
        }
        batch
    }

    fn take_said(&mut self, said: Said) -> Result<(), String> {
        match said {
            Said::Message(message) => {
                self.dialer.proved();
                if self.unanswered_subscribes > 0 {
                    self.shared.acks.lock().ran_ahead(message.offset, message.partition);
                }
                self.take_message(message);
            }
            Said::Barrier => {
                self.dialer.proved();
                self.shared.acks.lock().confirmed();
            }
            Said::Alive => self.dialer.proved(),
            // The next connection, after a wait, sends them again.
            Said::AckRefused(error) if error.code.is_passing() => {
                return Err(format!("the broker could not store what was acknowledged: {error}"));
            }
            Said::AckRefused(error) => {
                self.shared.acks.lock().refused();
                self.tell_refusal(error);
            }
            Said::SubscriptionRefused(error) if error.code.is_passing() => {
                return Err(format!("the broker did not take the subscription: {error}"));
            }
            Said::SubscriptionRefused(error) => {
                self.unanswered_subscribes -= 1;
                self.tell_refusal(error);
            }
            Said::Subscribed => {
                self.unanswered_subscribes -= 1;
                if self.unanswered_subscribes == 0 {
                    self.dialer.serves();
                }
            }
            Said::Bye => {}
            Said::Registered(_) | Said::RegistrationRefused(_) => {
                return Err("the broker answered a registration twice".to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn take_message(&mut self, message: Message) {
        let fresh = match &mut self.progress {
            Progress::Persistent(seen) => seen.note(&message),
            Progress::Live(live) => live.note_pushed(&message),
        };
        if fresh {
            self.pending.push_back(SubscriptionEvent::Message(message));
        }
    }

    pub(super) fn tell_refusal(&mut self, error: WireError) {
        if !error.code.is_passing() {
            self.pending.push_back(SubscriptionEvent::Refused(error));
        }
    }

    /// Hands on as much as the queue has room for.
    fn deliver_what_fits(&mut self) {
        while !self.pending.is_empty() {
            let Ok(room) = self.events.try_reserve() else { return };
            hand_on(&mut self.pending, room);
        }
    }

    /// Hands on everything, however long the caller takes.
    pub(super) async fn deliver_pending(&mut self) {
        while !self.pending.is_empty() {
            match self.events.reserve().await {
                Ok(room) => hand_on(&mut self.pending, room),
                Err(_) => self.pending.clear(),
            }
        }
    }
}

fn hand_on(pending: &mut VecDeque<SubscriptionEvent>, room: mpsc::Permit<'_, SubscriptionEvent>) {
    if let Some(event) = pending.pop_front() {
        room.send(event);
    }
}

/// The next line, waited for.
pub(super) async fn next_said(connection: &mut Connection) -> Result<Said, String> {
    loop {
        if let Some(said) = connection.next_said()? {
            return Ok(said);
        }
        connection.step(true).await?;
    }
}
