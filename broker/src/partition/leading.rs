//! A partition's batches where this broker leads it: let in, proposed, answered.
//!
//! ```text
//! parcel ──admit──▶ body ──propose──▶ the group   (at most PROPOSALS_MAX on their way)
//!                                        │ in the order of the proposals
//! everyone in the parcel ◀──place───── settled
//! ```
//!
//! One of these lasts for one term. As soon as a proposal is refused or in doubt nothing more is
//! proposed; when all are settled, what was refused may go elsewhere, unless something behind it
//! was taken all the same (a leader whose lease runs out refuses one and takes the next): then it
//! would change places, and is answered as not stored.

use std::collections::VecDeque;
use std::sync::Arc;

use aklight_common::record::Body;
use aklight_common::{Offset, Term};
use aklight_log::{Log, NoRoom};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::FuturesOrdered;
use tokio::time::Instant;

use super::admission::{self, Admitted, Each, LetIn};
use super::machine::Learnt;
use super::parcel::Parcel;
use super::placed::{Placed, ProduceError};
use crate::replication::{Applied, Group, Proposal, ProposeError};

/// Proposals on their way at once. Two keep the disk busy; a few more let openraft and the writer
/// thread work side by side. More would only make the batches smaller.
const PROPOSALS_MAX: usize = 4;

/// What becomes of a proposal.
pub(super) type Settled = BoxFuture<'static, Result<Applied, ProposeError>>;

/// The replicated log, as its leader writes to it.
pub(super) trait Sequencer: Send + Sync + 'static {
    /// Whether there is room on the disk.
    fn check_room(&self, bytes: usize) -> Result<(), NoRoom>;

    /// Why this broker's copy takes no more writes, if so.
    fn failure(&self) -> Option<String>;

    /// Hands in an entry, to be appended only if this broker still leads in that very term, and
    /// behind all that were handed in before.
    fn propose(
        &self,
        proposal: Proposal,
        term: Term,
    ) -> BoxFuture<'_, Result<Settled, ProposeError>>;
}

/// A group and its log.
pub(super) struct GroupSequencer {
    pub(super) group: Group,
    pub(super) log: Log,
}

impl Sequencer for GroupSequencer {
    fn check_room(&self, bytes: usize) -> Result<(), NoRoom> {
        self.log.check_room(bytes as u64)
    }

    fn failure(&self) -> Option<String> {
        self.group.status().failed
    }

    fn propose(
        &self,
        proposal: Proposal,
        term: Term,
    ) -> BoxFuture<'_, Result<Settled, ProposeError>> {
        Box::pin(async move {
            let proposed = self.group.propose(proposal, term).await?;
            let group = self.group.clone();
            let settled: Settled = Box::pin(async move { group.committed(proposed).await });
            Ok(settled)
        })
    }
}

/// A parcel on its way.
struct Flight {
    number: u64,
    parcel: Parcel,
    let_in: LetIn,
    each: Option<Vec<Each>>,
}

/// Leads a partition in one term.
pub(super) struct Leading {
    term: Term,
    sequencer: Arc<dyn Sequencer>,
    learnt: Arc<Learnt>,
    /// The number of the next proposal.
    number: u64,
    flights: VecDeque<Flight>,
    settling: FuturesOrdered<Settled>,
    /// Where the last proposals begin: one on its way may hold repeats of one that is settled.
    bases: VecDeque<(u64, Offset)>,
    /// What was not appended, and nothing behind it either as far as is known.
    refused: Vec<Parcel>,
    /// Nothing more is proposed.
    is_over: bool,
    /// Time of the newest record proposed.
    newest_us: u64,
}

impl Leading {
    pub(super) fn new(term: Term, sequencer: Arc<dyn Sequencer>, learnt: Arc<Learnt>) -> Self {
        Self {
            term,
            sequencer,
            number: 0,
            flights: VecDeque::new(),
            settling: FuturesOrdered::new(),
            bases: VecDeque::new(),
            refused: Vec::new(),
            is_over: false,
            newest_us: learnt.newest_us(),
            learnt,
        }
    }

    pub(super) const fn term(&self) -> Term {
        self.term
    }

    /// Proposes nothing more.
    pub(super) fn leave(&mut self) {
        self.is_over = true;
    }

    pub(super) fn has_room(&self) -> bool {
        !self.is_over && self.flights.len() < PROPOSALS_MAX
    }

    /// Whether nothing is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether nobody waits for what is on its way.
    pub(super) fn is_answered(&self) -> bool {
        self.flights.iter().all(|flight| flight.parcel.is_answered()) && self.refused.is_empty()
    }

    /// Whether it has come to its end, and nothing is on its way any more.
    pub(super) fn has_ended(&self) -> bool {
        self.is_over && self.is_settled()
    }

    /// What was refused and may go elsewhere, once it has ended.
    pub(super) fn into_refused(self) -> Vec<Parcel> {
        self.refused
    }

    /// Lets a parcel in and proposes it.
    pub(super) async fn send(&mut self, parcel: Parcel) {
        if let Err(full) = self.sequencer.check_room(parcel.len()) {
            parcel.refuse(&ProduceError::NoRoom(full.to_string()));
            return;
        }
        let admitted = self.admit(&parcel);
        let known = admitted.each.as_ref().filter(|_| !admitted.waits());
        if let Some(placed) = known.and_then(|each| admission::place(each, |_| None)) {
            return parcel.placed(&placed);
        }
        let Admitted { body, let_in, each } = admitted;
        let settled = match body {
            // Repeats of what is on its way: they are settled behind it.
            None => Box::pin(ready(Ok(Applied { base_offset: Offset(0) }))),
            Some(body) => {
                let proposal = Proposal::records(self.raise(body));
                self.sequencer.propose(proposal, self.term).await.unwrap_or_else(|error| {
                    self.is_over = true;
                    Box::pin(ready(Err(error)))
                })
            }
        };
        self.flights.push_back(Flight { number: self.number, parcel, let_in, each });
        self.settling.push_back(settled);
        self.number += 1;
    }

    fn admit(&self, parcel: &Parcel) -> Admitted {
        if parcel.once == 0 {
            return Admitted::all(parcel.body.clone());
        }
        let on_their_way = self.flights.iter().map(|flight| (flight.number, &flight.let_in));
        let on_their_way: Vec<_> = on_their_way.collect();
        let stored = &self.learnt.sequences;
        stored.read(|table| admission::admit(&parcel.body, self.number, table, &on_their_way))
    }

    /// Sees that times rise within the partition, whatever the clocks of those who took the
    /// records say: searches by time rely on it. Times in a body are counted from its first one.
    fn raise(&mut self, body: Body) -> Body {
        let first_time_us = body.first_time_us.max(self.newest_us.saturating_add(1));
        let lasts_us = body.last_time_us - body.first_time_us;
        self.newest_us = first_time_us.saturating_add(lasts_us);
        Body { first_time_us, last_time_us: self.newest_us, ..body }
    }

    /// Waits until the next proposal is settled, and tells those who wait for it. Never ends when
    /// none is on its way. Losing the wait loses nothing.
    pub(super) async fn next(&mut self) {
        let Some(settled) = self.settling.next().await else {
            return std::future::pending().await;
        };
        let Some(flight) = self.flights.pop_front() else { return };
        let error = match settled {
            Ok(applied) => {
                self.bases.push_back((flight.number, applied.base_offset));
                if self.bases.len() > PROPOSALS_MAX {
                    self.bases.pop_front();
                }
                return self.settle(flight);
            }
            Err(ProposeError::NoLeader | ProposeError::NoRoom(_)) => {
                self.is_over = true;
                return self.refused.push(flight.parcel);
            }
            Err(ProposeError::Unknown(_)) => in_doubt("the leader of the partition changed"),
            Err(error @ ProposeError::Stopped(_)) => in_doubt(&error.to_string()),
        };
        self.is_over = true;
        self.refuse_overtaken();
        flight.parcel.refuse(&error);
    }

    fn settle(&mut self, flight: Flight) {
        let Flight { number, parcel, each, .. } = flight;
        let base = |wanted| self.bases.iter().find(|(n, _)| *n == wanted).map(|(_, base)| *base);
        let placed = match each {
            None => base(number).map(Placed::From),
            Some(each) => admission::place(&each, base),
        };
        match placed {
            Some(placed) => parcel.placed(&placed),
            // It holds a repeat, and what that repeats has failed.
            None => parcel.refuse(&in_doubt("the leader of the partition changed")),
        }
        self.refuse_overtaken();
    }

    /// Something behind them is stored, or may be: they cannot be stored any more in their order.
    fn refuse_overtaken(&mut self) {
        for parcel in self.refused.drain(..) {
            parcel.refuse(&ProduceError::NotStored("the leader of the partition changed".into()));
        }
    }

    /// When the next one in a parcel has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let flights = self.flights.iter().map(|flight| &flight.parcel);
        flights.chain(&self.refused).filter_map(Parcel::deadline).min()
    }

    /// Tells those whose time is up.
    pub(super) fn tell_late(&mut self, now: Instant) {
        let doubt = in_doubt("it is not durable on a majority of brokers within the time limit");
        for flight in &mut self.flights {
            flight.parcel.tell_late(now, &doubt);
        }
        let refused = std::mem::take(&mut self.refused).into_iter();
        self.refused = refused
            .filter_map(|parcel| {
                parcel.keep(|waiting| waiting.deadline > now, |_| nobody_leads(&*self.sequencer))
            })
            .collect();
    }
}

/// They were on their way.
pub(super) fn in_doubt(why: &str) -> ProduceError {
    ProduceError::Unknown(why.to_owned())
}

/// They never were on their way.
pub(super) fn nobody_leads(sequencer: &dyn Sequencer) -> ProduceError {
    ProduceError::NotStored(match sequencer.failure() {
        None => "no broker leads this partition at the moment".to_owned(),
        Some(why) => format!(
            "no other broker leads this partition, and this one takes no more writes until it is restarted ({why})"
        ),
    })
}
