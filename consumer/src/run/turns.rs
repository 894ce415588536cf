//! When this consumer may judge: it is its turn, and not too many records wait for a broker.

use std::time::Duration;

use aklight_common::client::Subscription;
use anyhow::bail;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::Shell;
use crate::ConsumerArgs;
use crate::lease::{TAKEN_OVER_AFTER, Turns};
use crate::takeover;

/// The task that takes this consumer's turns.
pub(super) struct Turn {
    pub(super) turns: watch::Receiver<Turns>,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) keeper: JoinHandle<()>,
}

impl Shell {
    fn turns(&self) -> Turns {
        match &self.turn {
            Some(turn) => *turn.turns.borrow(),
            None => Turns::Ours { until_ms: u64::MAX, others: 0 },
        }
    }

    /// Whether anything may be judged in this moment.
    pub(super) fn holds(&self) -> bool {
        self.has_turn() && !self.engine.is_full()
    }

    fn has_turn(&self) -> bool {
        match self.turns() {
            Turns::Ours { until_ms, .. } => self.clock.monotonic_ms() < until_ms,
            Turns::Unknown | Turns::Others => false,
        }
    }

    fn runs_for(&self) -> Duration {
        Duration::from_millis(self.clock.monotonic_ms().saturating_sub(self.started_ms))
    }

    /// Whether records may be taken now; opens the subscription with the first turn.
    pub(super) async fn look_at_turn(&mut self) -> anyhow::Result<()> {
        let turns = self.turns();
        let working = self.subscription.is_some();
        let taken_over = match turns {
            Turns::Unknown => false,
            Turns::Others => true,
            Turns::Ours { others, .. } => others > self.others,
        };
        if taken_over && working {
            bail!(
                "another consumer '{}' took over while this one was stopped or cut off: start it again, and it will wait for its turn; for two that work side by side give each its own --id",
                self.args.id
            );
        }
        match turns {
            // Nobody can say whose turn it is. What waits may be urgent, and whoever was at work has
            // lost its turn by now.
            Turns::Unknown if self.runs_for() > TAKEN_OVER_AFTER => {
                let now_ms = self.now_ms();
                self.engine.begin(now_ms);
            }
            Turns::Others if !std::mem::replace(&mut self.said_waiting, true) => {
                let id = &self.args.id;
                info!(id, "another consumer of this name is at work: waiting for its end");
            }
            Turns::Ours { others, .. } if !working => {
                if others > 0 && !self.adopt().await {
                    return Ok(());
                }
                self.others = others;
                let now_ms = self.now_ms();
                self.engine.begin(now_ms);
                let (config, args) = (self.config.clone(), &self.args);
                let patterns = args.patterns.clone();
                self.subscription = Some(Subscription::open(config, args.persistent, patterns));
            }
            _ => {}
        }
        let holds = self.holds();
        if holds != std::mem::replace(&mut self.holding, holds) && working {
            // What came in meanwhile is taken before silence is judged.
            let watching = (holds && self.connected).then(|| self.now_ms());
            self.engine.watch(watching);
            if holds {
                info!("judging again");
            } else if !self.has_turn() {
                error!(
                    "nothing is judged until the brokers take this consumer's turn again (a record under consumers/{}): is one there, may this consumer write, is their disk full?",
                    self.args.id
                );
            }
        }
        Ok(())
    }

    /// Takes over what another one left; false where that cannot be read yet.
    async fn adopt(&mut self) -> bool {
        let awaited = self.engine.awaited();
        let ConsumerArgs { id, patterns, .. } = &self.args;
        match takeover::read(&self.config, id, awaited, patterns).await {
            Ok(left) => {
                let now_ms = self.now_ms();
                self.engine.adopt(&left, now_ms);
                true
            }
            Err(error) => {
                warn!(%error, "cannot read how alerts stand: trying again");
                false
            }
        }
    }
}

/// Waits until something is known of whose turn it is.
pub(super) async fn turned(turn: &mut Option<Turn>) {
    let changed = match turn {
        Some(turn) => turn.turns.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}
