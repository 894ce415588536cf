//! What the actor carries: records, and who waits to hear what becomes of them.
//!
//! Small batches are joined into one parcel: under load a batch, an entry of the Raft log, a
//! message to another broker and a place in the group commit cost as much for a thousand records as
//! for one. Everyone in a parcel is answered once, and what he holds of the memory is released when
//! his records are settled: that may be later than the answer, when the time is up before.

use aklight_common::record::{Body, BodyBuilder, Stored};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::placed::{Placed, ProduceError};
use super::streams::StreamId;

/// Where the answer to a batch goes.
pub(super) type Answer = oneshot::Sender<Result<Placed, ProduceError>>;

/// Who waits for some of a parcel's records.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The first of them, counted from 0, and how many.
    pub(super) first: u32,
    pub(super) records: u32,
    /// When the time is up.
    pub(super) deadline: Instant,
    /// The other broker's stream that brought them, if one did.
    pub(super) from: Option<StreamId>,
    answer: Option<Answer>,
    _permit: OwnedSemaphorePermit,
}

/// Records, and who waits for them.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) body: Body,
    /// How many of the records are of PRODUCE_ONCE.
    pub(super) once: u32,
    waiting: Vec<Waiting>,
}

impl Parcel {
    pub(super) fn new(
        body: Body,
        once: u32,
        deadline: Instant,
        from: Option<StreamId>,
        (answer, permit): (Answer, OwnedSemaphorePermit),
    ) -> Self {
        let records = body.records;
        let waiting =
            Waiting { first: 0, records, deadline, from, answer: Some(answer), _permit: permit };
        Self { body, once, waiting: vec![waiting] }
    }

    /// Bytes of the records.
    pub(super) fn len(&self) -> usize {
        self.body.bytes.len()
    }

    /// When the first of those who are not answered yet has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let unanswered = self.waiting.iter().filter(|waiting| waiting.answer.is_some());
        unanswered.map(|waiting| waiting.deadline).min()
    }

    /// Whether everyone has an answer.
    pub(super) fn is_answered(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.answer.is_none())
    }

    /// Several in one, in their order; none of none.
    pub(super) fn join(mut parcels: Vec<Self>) -> Option<Self> {
        if parcels.len() <= 1 {
            return parcels.pop();
        }
        let mut builder = Builder::default();
        let (mut once, mut waiting) = (0, Vec::with_capacity(parcels.len()));
        for parcel in parcels {
            let first = builder.body.records();
            parcel.records().for_each(|record| builder.push(record));
            once += parcel.once;
            let theirs = parcel.waiting.into_iter();
            waiting.extend(theirs.map(|his| Waiting { first: first + his.first, ..his }));
        }
        Some(Self { body: builder.body.finish(), once, waiting })
    }

    /// Keeps the records of those whom `keep` names, and gives the others an answer: none of their
    /// records is in what is left.
    pub(super) fn keep(
        mut self,
        keep: impl Fn(&Waiting) -> bool,
        error: impl Fn(&Waiting) -> ProduceError,
    ) -> Option<Self> {
        if self.waiting.iter().all(&keep) {
            return Some(self);
        }
        let (kept, refused): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(&keep);
        for mut waiting in refused {
            let error = error(&waiting);
            waiting.tell(Err(error));
        }
        let mut builder = Builder::default();
        let mut waiting = Vec::with_capacity(kept.len());
        for his in kept {
            let first = builder.body.records();
            let records = self.records().skip(his.first as usize).take(his.records as usize);
            records.for_each(|record| builder.push(record));
            waiting.push(Waiting { first, ..his });
        }
        let (body, once) = (builder.body.finish(), builder.once);
        (!waiting.is_empty()).then_some(Self { body, once, waiting })
    }

    /// Tells everyone where his records are.
    pub(super) fn placed(mut self, placed: &Placed) {
        for waiting in &mut self.waiting {
            // Another broker may have answered for fewer records than it was sent.
            let part = placed.part(waiting.first, waiting.records);
            let missing = || ProduceError::Unknown("the leader's answer is not whole".to_owned());
            waiting.tell(part.ok_or_else(missing));
        }
    }

    /// Tells everyone why his records are not stored, or not known to be.
    pub(super) fn refuse(mut self, error: &ProduceError) {
        self.waiting.iter_mut().for_each(|waiting| waiting.tell(Err(error.clone())));
    }

    /// Tells those whose time is up; their records stay where they are, on their way.
    pub(super) fn tell_late(&mut self, now: Instant, error: &ProduceError) {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.deadline <= now) {
            waiting.tell(Err(error.clone()));
        }
    }

    fn records(&self) -> impl Iterator<Item = Stored<'_, &[u8]>> {
        let mut records = self.body.stored_records();
        // The bytes were encoded here, or checked when they came in.
        std::iter::from_fn(move || records.next(Some))
            .map(|record| record.expect("a body that was checked decodes"))
    }
}

impl Waiting {
    fn tell(&mut self, result: Result<Placed, ProduceError>) {
        if let Some(answer) = self.answer.take() {
            // A connection that has gone needs no answer; its records go their way all the same.
            let _ = answer.send(result);
        }
    }
}

/// Joins records so that their times rise.
#[derive(Default)]
struct Builder {
    body: BodyBuilder,
    once: u32,
    last_us: Option<u64>,
}

impl Builder {
    fn push(&mut self, record: Stored<'_, &[u8]>) {
        let after = self.last_us.map_or(0, |last| last.saturating_add(1));
        let time_us = record.time_us.max(after);
        self.last_us = Some(time_us);
        self.once += u32::from(record.once.is_some());
        self.body.push_stored(&Stored { time_us, ..record });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use aklight_common::record::Once;
    use tokio::sync::Semaphore;

    use super::*;
    use aklight_common::Offset;

    type Told = oneshot::Receiver<Result<Placed, ProduceError>>;

    fn parcel(payloads: &[&str], time_us: u64, deadline: Instant) -> (Parcel, Told) {
        let mut builder = Builder::default();
        for payload in payloads {
            let once = payload.parse().ok().map(|sequence| Once { producer: "p", sequence });
            builder.push(Stored {
                time_us,
                topic: b"t",
                key: b"",
                payload: payload.as_bytes(),
                once,
            });
        }
        let (answer, told) = oneshot::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let (body, once) = (builder.body.finish(), builder.once);
        (Parcel::new(body, once, deadline, None, (answer, permit)), told)
    }

    fn payloads(parcel: &Parcel) -> Vec<String> {
        parcel.records().map(|r| String::from_utf8_lossy(r.payload).into_owned()).collect()
    }

    #[test]
    fn what_is_joined_keeps_its_order_its_times_rise_and_everyone_hears_of_his_own() {
        let now = Instant::now();
        let (first, mut told_first) = parcel(&["a", "1"], 100, now);
        let (second, mut told_second) = parcel(&["b", "2", "c"], 50, now);
        let joined = Parcel::join(vec![first, second]).expect("two are one");
        assert_eq!((payloads(&joined).concat(), joined.once), ("a1b2c".to_owned(), 2));
        let times: Vec<_> = joined.records().map(|record| record.time_us).collect();
        assert_eq!(times, [100, 101, 102, 103, 104]);
        joined.placed(&Placed::From(Offset(10)));
        assert_eq!(told_first.try_recv(), Ok(Ok(Placed::From(Offset(10)))));
        assert_eq!(told_second.try_recv(), Ok(Ok(Placed::From(Offset(12)))));
    }

    #[test]
    fn the_records_of_those_who_are_refused_are_gone() {
        let now = Instant::now();
        let late = now + Duration::from_secs(1);
        let (parts, mut told): (Vec<_>, Vec<_>) =
            [parcel(&["a", "1"], 1, now), parcel(&["2"], 1, late), parcel(&["c"], 1, now)]
                .into_iter()
                .unzip();
        let joined = Parcel::join(parts).expect("three are one");
        let left = joined.keep(|waiting| waiting.deadline > now, |_| ProduceError::NotLeader);
        let left = left.expect("one is left");
        assert_eq!((payloads(&left).concat(), left.once), ("2".to_owned(), 1));
        assert_eq!(told[0].try_recv(), Ok(Err(ProduceError::NotLeader)));
        assert_eq!(told[2].try_recv(), Ok(Err(ProduceError::NotLeader)));
        left.placed(&Placed::From(Offset(4)));
        assert_eq!(told[1].try_recv(), Ok(Ok(Placed::From(Offset(4)))));
    }

    #[test]
    fn whose_time_is_up_is_told_once() {
        let now = Instant::now();
        let (mut parcel, mut told) = parcel(&["a"], 1, now);
        parcel.tell_late(now, &ProduceError::Unknown("late".to_owned()));
        assert!(parcel.is_answered() && parcel.deadline().is_none());
        parcel.placed(&Placed::From(Offset(4)));
        assert_eq!(told.try_recv(), Ok(Err(ProduceError::Unknown("late".to_owned()))));
    }
}
