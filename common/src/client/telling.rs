//! What a client says about its brokers: little, and each thing once.
//!
//! A pure state between the dialer and the log. While connections come and go it gives out one
//! line for the first connection, one when the broker is another than before, one when none
//! serves, and one when one serves again; the attempts between them are for the debug level.
//!
//! A connection may be let in by a broker that can do nothing, because it has no leader. So
//! after an outage was told, only a broker that *serves* (it answered for a record, took a
//! subscription) ends it; being let in does not. Invariant: between two brokers that served, at
//! most two lines are given out, however many attempts there were.

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// All is well.
    Good(String),
    /// Somebody may want to look.
    Bad(String),
}

/// What was told last, and what happened since.
#[derive(Debug)]
pub(crate) struct Telling {
    brokers: usize,
    /// The broker that was told of last.
    at: Option<String>,
    /// The newest reason of each broker that failed since one served; at most one a broker.
    failed: Vec<(String, String)>,
    failures: usize,
    /// Whether a change was told since a broker served.
    change_told: bool,
    /// Whether it was told that no broker serves.
    outage_told: bool,
}

impl Telling {
    /// Nothing happened yet, and there are so many brokers.
    pub(crate) fn new(brokers: usize) -> Self {
        Self {
            brokers,
            at: None,
            failed: Vec::new(),
            failures: 0,
            change_told: false,
            outage_told: false,
        }
    }

    /// A broker let this client in.
    pub(crate) fn connected(&mut self, broker: &str) -> Option<Word> {
        // The broker of before may still be as bad as it was: that is told when it serves.
        if self.outage_told || self.change_told || self.at.as_deref() == Some(broker) {
            return None;
        }
        let word = self.arrival(broker)?;
        self.change_told = true;
        Some(word)
    }

    /// A broker does what it was asked.
    pub(crate) fn serves(&mut self, broker: &str) -> Option<Word> {
        let word = if self.outage_told {
            let before = self.at.replace(broker.to_owned());
            let how = if before.is_some() { "back at" } else { "connected to" };
            Some(Word::Good(format!("{how} {broker}")))
        } else if self.change_told && self.at.as_deref() == Some(broker) {
            None
        } else {
            self.arrival(broker)
        };
        self.failed.clear();
        self.failures = 0;
        self.change_told = false;
        self.outage_told = false;
        word
    }

    /// A connection was lost, or an attempt failed.
    pub(crate) fn failed(&mut self, broker: &str, reason: &str) -> Option<Word> {
        match self.failed.iter_mut().find(|(failed, _)| failed == broker) {
            Some((_, kept)) => reason.clone_into(kept),
            None => self.failed.push((broker.to_owned(), reason.to_owned())),
        }
        self.failures += 1;
        // The loss of a connection is no attempt yet: after it every broker has its turn.
        let enough = self.brokers + usize::from(self.at.is_some());
        if self.outage_told || self.failures < enough {
            return None;
        }
        self.outage_told = true;
        let reasons: Vec<_> =
            self.failed.iter().map(|(broker, reason)| format!("{broker}: {reason}")).collect();
        Some(Word::Bad(format!("no broker serves ({}); trying on", reasons.join("; "))))
    }

    fn arrival(&mut self, broker: &str) -> Option<Word> {
        let before = self.at.replace(broker.to_owned());
        let failed = match &before {
            Some(before) => self.failed.iter().find(|(failed, _)| failed == before),
            None => self.failed.first(),
        };
        let because = failed.map(|(failed, reason)| format!("{failed} failed: {reason}"));
        match (before, because) {
            (None, None) => Some(Word::Good(format!("connected to {broker}"))),
            (Some(before), None) if before == broker => None,
            (_, None) => Some(Word::Bad(format!("now at {broker}"))),
            (Some(before), Some(because)) if before == broker => {
                Some(Word::Bad(format!("again at {broker}, because {because}")))
            }
            (_, Some(because)) => Some(Word::Bad(format!("now at {broker}, because {because}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> Option<Word> {
        Some(Word::Good(text.to_owned()))
    }

    fn bad(text: &str) -> Option<Word> {
        Some(Word::Bad(text.to_owned()))
    }

    /// At `a`, which served, among three.
    fn at_a() -> Telling {
        let mut telling = Telling::new(3);
        assert_eq!(telling.connected("a"), good("connected to a"));
        assert_eq!(telling.serves("a"), None);
        telling
    }

    #[test]
    fn a_change_of_brokers_is_one_line() {
        let mut telling = at_a();
        assert_eq!(telling.failed("a", "closed"), None);
        assert_eq!(telling.failed("b", "refused"), None);
        assert_eq!(telling.connected("c"), bad("now at c, because a failed: closed"));
        assert_eq!((telling.serves("c"), telling.serves("c")), (None, None));
    }

    #[test]
    fn an_outage_is_two_lines_however_long_it_lasts() {
        let mut telling = at_a();
        for _ in 0..3 {
            assert_eq!(telling.failed("a", "closed"), None);
        }
        let all = telling.failed("b", "refused");
        assert_eq!(all, bad("no broker serves (a: closed; b: refused); trying on"));
        for broker in ["c", "a", "b", "c", "a"] {
            assert_eq!(
                (telling.connected(broker), telling.failed(broker, "no leader")),
                (None, None)
            );
        }
        assert_eq!((telling.connected("b"), telling.serves("b")), (None, good("back at b")));
        assert_eq!(telling.failed("b", "closed"), None);
        assert_eq!(telling.connected("c"), bad("now at c, because b failed: closed"));
    }

    #[test]
    fn brokers_that_let_in_and_do_nothing_are_not_told_one_by_one() {
        let mut telling = at_a();
        telling.failed("a", "no leader");
        assert_eq!(telling.connected("b"), bad("now at b, because a failed: no leader"));
        assert_eq!((telling.failed("b", "no leader"), telling.connected("c")), (None, None));
        // One of them serves after all, and it is not the one that was told of.
        assert_eq!(telling.serves("c"), bad("now at c, because b failed: no leader"));
    }

    #[test]
    fn the_first_connection_says_who_was_passed_over() {
        let mut telling = Telling::new(2);
        assert_eq!(telling.failed("a", "refused"), None);
        assert_eq!(telling.connected("b"), bad("now at b, because a failed: refused"));
        let mut telling = Telling::new(1);
        assert_eq!(telling.failed("a", "refused"), bad("no broker serves (a: refused); trying on"));
        assert_eq!((telling.connected("a"), telling.serves("a")), (None, good("connected to a")));
    }

    #[test]
    fn the_same_broker_again_is_told_with_the_reason() {
        let mut telling = Telling::new(1);
        telling.connected("a");
        telling.serves("a");
        telling.failed("a", "reset");
        assert_eq!(telling.connected("a"), None);
        assert_eq!(telling.serves("a"), bad("again at a, because a failed: reset"));
        assert_eq!(telling.serves("a"), None);
    }
}
