//! Which records of PRODUCE_ONCE the leader of a partition lets in, and what the others wait for.
//!
//! A sequence is *stored* once its record is applied, and *on its way* from the moment it is let in
//! until then. A repeat of a stored one is answered with its offset; a repeat of one on its way
//! waits for the same outcome, in whatever batch or connection that is.
//!
//! Why the leader can tell: a proposal is appended only if nobody else has led since this broker
//! took over, so what is applied and what is on its way here is all there is.

use std::collections::{BTreeMap, HashMap};

use aklight_common::Offset;
use aklight_common::record::{Body, BodyBuilder, Once};

use super::placed::{Outcome, Placed};
use super::sequences::{Known, Table, is_too_old};

/// The sequences that one proposal brings, each with its place among the proposal's records.
#[derive(Debug, Default)]
pub(super) struct LetIn(HashMap<Box<str>, BTreeMap<u64, u32>>);

impl LetIn {
    fn place(&self, once: Once<'_>) -> Option<u32> {
        self.0.get(once.producer)?.get(&once.sequence).copied()
    }

    fn highest(&self, producer: &str) -> u64 {
        self.0.get(producer).and_then(|sequences| sequences.keys().next_back()).map_or(0, |s| *s)
    }

    fn add(&mut self, once: Once<'_>, nth: u32) {
        match self.0.get_mut(once.producer) {
            Some(sequences) => {
                sequences.insert(once.sequence, nth);
            }
            None => {
                self.0.insert(once.producer.into(), BTreeMap::from([(once.sequence, nth)]));
            }
        }
    }
}

/// What becomes of one record of a batch that is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Each {
    /// It is this record of proposal `number`: new when that is the batch's own, else a repeat.
    In { number: u64, nth: u32 },
    /// What becomes of it is known already.
    Known(Outcome),
}

/// A batch as its partition's leader lets it in.
#[derive(Debug)]
pub(super) struct Admitted {
    /// What is to be proposed, when anything is new.
    pub(super) body: Option<Body>,
    /// The sequences that it brings.
    pub(super) let_in: LetIn,
    /// What becomes of each record; none when all of them are new, in their order.
    pub(super) each: Option<Vec<Each>>,
}

impl Admitted {
    /// A batch without PRODUCE_ONCE: all of it is new.
    pub(super) fn all(body: Body) -> Self {
        Self { body: Some(body), let_in: LetIn::default(), each: None }
    }

    /// Whether any of it waits for a proposal.
    pub(super) fn waits(&self) -> bool {
        self.each.as_ref().is_none_or(|each| each.iter().any(|e| matches!(e, Each::In { .. })))
    }
}

/// Lets a batch in as proposal `number`; `on_their_way` are those before it.
pub(super) fn admit(
    body: &Body,
    number: u64,
    stored: &Table,
    on_their_way: &[(u64, &LetIn)],
) -> Admitted {
    let mut let_in = LetIn::default();
    let mut each = Vec::with_capacity(body.records as usize);
    let mut new = 0;
    for record in body.records() {
        // The bytes were encoded here, or checked when they came in.
        let record = record.expect("a body that was checked decodes");
        let known =
            record.once.and_then(|once| decide(once, number, stored, &let_in, on_their_way));
        each.push(known.unwrap_or_else(|| {
            if let Some(once) = record.once {
                let_in.add(once, new);
            }
            new += 1;
            Each::In { number, nth: new - 1 }
        }));
    }
    if new == body.records {
        return Admitted { body: Some(body.clone()), let_in, each: None };
    }
    Admitted { body: pick(body, number, &each), let_in, each: Some(each) }
}

/// Why a record need not or must not be appended; none when it is new.
fn decide(
    once: Once<'_>,
    number: u64,
    stored: &Table,
    let_in: &LetIn,
    on_their_way: &[(u64, &LetIn)],
) -> Option<Each> {
    let mut highest = match stored.look(once.producer, once.sequence) {
        Known::Stored(offset) => return Some(Each::Known(Outcome::Stored(offset))),
        Known::Not { highest } => highest,
    };
    for (number, let_in) in on_their_way.iter().copied().chain([(number, let_in)]) {
        if let Some(nth) = let_in.place(once) {
            return Some(Each::In { number, nth });
        }
        highest = highest.max(let_in.highest(once.producer));
    }
    is_too_old(once.sequence, highest).then_some(Each::Known(Outcome::TooOld(highest)))
}

/// The new ones among a batch's records, without repeats within it.
fn pick(body: &Body, number: u64, each: &[Each]) -> Option<Body> {
    let mut builder = BodyBuilder::new();
    for (record, each) in body.records().zip(each) {
        let is_new = *each == Each::In { number, nth: builder.records() };
        if is_new && let Ok(record) = record {
            builder.push(&record);
        }
    }
    (!builder.is_empty()).then(|| builder.finish())
}

/// Where the records of a batch are, once its proposal is; `base` tells where a proposal begins.
/// None when a proposal is not known, because it was not stored.
pub(super) fn place(each: &[Each], base: impl Fn(u64) -> Option<Offset>) -> Option<Placed> {
    let outcomes = each.iter().map(|each| match each {
        Each::Known(outcome) => Some(*outcome),
        Each::In { number, nth } => {
            Some(Outcome::Stored(Offset(base(*number)?.0 + u64::from(*nth))))
        }
    });
    outcomes.collect::<Option<_>>().map(Placed::Each)
}

#[cfg(test)]
mod tests {
    use aklight_common::record::Record;

    use super::super::sequences::Sequences;
    use super::*;

    fn body(sequences: &[Option<u64>]) -> Body {
        let mut builder = BodyBuilder::new();
        for (n, sequence) in sequences.iter().enumerate() {
            let once = sequence.map(|sequence| Once { producer: "p", sequence });
            let payload = format!("{n}");
            let time_us = 100 + n as u64;
            builder.push(&Record {
                time_us,
                topic: "t",
                key: b"",
                payload: payload.as_bytes(),
                once,
            });
        }
        builder.finish()
    }

    fn check(stored: &[(u64, u64)], earlier: &[&[u64]], sequences: &[Option<u64>]) -> Admitted {
        let table = Sequences::default();
        table.store(stored.iter().map(|(sequence, at)| ("p", *sequence, Offset(*at))));
        let mut flights: Vec<(u64, LetIn)> = Vec::new();
        for (number, sequences) in (0..).zip(earlier) {
            let body = body(&sequences.iter().map(|s| Some(*s)).collect::<Vec<_>>());
            let before: Vec<_> = flights.iter().map(|(number, let_in)| (*number, let_in)).collect();
            let admitted = table.read(|table| admit(&body, number, table, &before));
            flights.push((number, admitted.let_in));
        }
        let before: Vec<_> = flights.iter().map(|(number, let_in)| (*number, let_in)).collect();
        let number = flights.len() as u64;
        table.read(|table| admit(&body(sequences), number, table, &before))
    }

    fn payloads(admitted: &Admitted) -> Vec<u8> {
        let body = admitted.body.iter().flat_map(Body::records);
        body.flat_map(|record| record.expect("decodes").payload.to_vec()).collect()
    }

    #[test]
    fn what_is_new_goes_as_it_is() {
        let admitted = check(&[(1, 10)], &[&[2, 3]], &[Some(4), None, Some(5)]);
        assert_eq!(payloads(&admitted), b"012");
        assert_eq!(admitted.each, None);
    }

    #[test]
    fn repeats_are_told_by_what_is_stored_what_is_on_its_way_and_the_batch_itself() {
        let sequences = [Some(1), Some(3), Some(4), Some(4), None, Some(5)];
        let admitted = check(&[(1, 10)], &[&[9], &[2, 3]], &sequences);
        assert_eq!(payloads(&admitted), b"245");
        let each = [
            Each::Known(Outcome::Stored(Offset(10))),
            Each::In { number: 1, nth: 1 },
            Each::In { number: 2, nth: 0 },
            Each::In { number: 2, nth: 0 },
            Each::In { number: 2, nth: 1 },
            Each::In { number: 2, nth: 2 },
        ];
        assert_eq!(admitted.each.as_deref(), Some(&each[..]));
        let base = |number| [None, Some(Offset(20)), Some(Offset(30))][number as usize];
        let stored = [10, 21, 30, 30, 31, 32].map(|at| Outcome::Stored(Offset(at)));
        assert_eq!(place(&each, base), Some(Placed::Each(stored.to_vec())));
        assert_eq!(place(&each, |_| None), None);
    }

    #[test]
    fn repeats_alone_propose_nothing() {
        let admitted = check(&[(1, 10)], &[], &[Some(1), Some(1)]);
        assert!(admitted.body.is_none() && !admitted.waits());
        let admitted = check(&[], &[&[1]], &[Some(1)]);
        assert!(admitted.body.is_none() && admitted.waits());
    }

    #[test]
    fn what_is_too_old_is_refused_by_the_highest_stored_or_on_its_way() {
        let too_old = |highest| Some(vec![Each::Known(Outcome::TooOld(highest))]);
        assert_eq!(check(&[(10_000, 0)], &[], &[Some(1807)]).each, too_old(10_000));
        assert_eq!(check(&[(1, 0)], &[&[10_000]], &[Some(1807)]).each, too_old(10_000));
        assert_eq!(check(&[(1, 0)], &[&[10_000]], &[Some(1808)]).each, None);
    }
}
