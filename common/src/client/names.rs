//! Where brokers were found: what a link that has no thread to wait for a resolver goes by.
//!
//! A name that is gone, because its container is stopped, may take a resolver five seconds to deny, and
//! whoever asks measures nothing meanwhile. So an address that was found is used again, until it has failed
//! for [`TRUSTED_MS`]; only then the name is asked for anew, and not more often than that.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

/// How long an address that fails is tried on: restarts are over by then, and a broker that has moved is
/// found soon enough.
const TRUSTED_MS: u64 = 30_000;

/// What is known of brokers, by their names.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    addresses: VecDeque<SocketAddr>,
    failing_since_ms: Option<u64>,
}

impl Names {
    /// The addresses of a broker; `resolve` may take its time, and is asked where that is due.
    pub(crate) fn addresses(
        &mut self,
        broker: &str,
        now_ms: u64,
        resolve: impl FnOnce(&str) -> Result<VecDeque<SocketAddr>, String>,
    ) -> Result<VecDeque<SocketAddr>, String> {
        let is_due = |since: u64| now_ms.saturating_sub(since) >= TRUSTED_MS;
        if let Some(known) = self.0.get(broker)
            && !known.failing_since_ms.is_some_and(is_due)
        {
            return Ok(known.addresses.clone());
        }
        match (resolve(broker), self.0.get_mut(broker)) {
            (Ok(addresses), _) => {
                let known = Known { addresses: addresses.clone(), failing_since_ms: None };
                self.0.insert(broker.to_owned(), known);
                Ok(addresses)
            }
            (Err(_), Some(known)) => {
                known.failing_since_ms = Some(now_ms);
                Ok(known.addresses.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Nobody answered at a broker's addresses, or not as it should.
    pub(crate) fn failed(&mut self, broker: &str, now_ms: u64) {
        if let Some(known) = self.0.get_mut(broker) {
            known.failing_since_ms.get_or_insert(now_ms);
        }
    }

    /// A broker answered.
    pub(crate) fn answered(&mut self, broker: &str) {
        if let Some(known) = self.0.get_mut(broker) {
            known.failing_since_ms = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> VecDeque<SocketAddr> {
        [SocketAddr::from(([127, 0, 0, 1], port))].into()
    }

    fn nobody_asks(_: &str) -> Result<VecDeque<SocketAddr>, String> {
        panic!("a resolver that takes five seconds")
    }

    #[test]
    fn a_name_is_asked_for_again_only_when_its_address_has_failed_for_long() {
        let mut names = Names::default();
        assert_eq!(names.addresses("b:1", 0, |_| Err("gone".to_owned())), Err("gone".to_owned()));
        assert_eq!(names.addresses("b:1", 0, |_| Ok(at(1))), Ok(at(1)));
        assert_eq!(names.addresses("b:1", 1_000_000, nobody_asks), Ok(at(1)));
        names.failed("b:1", 1_000_000);
        names.failed("b:1", 1_020_000);
        assert_eq!(names.addresses("b:1", 1_029_999, nobody_asks), Ok(at(1)));
        // It is denied: what was known is tried on, for as long again.
        assert_eq!(names.addresses("b:1", 1_030_000, |_| Err("gone".to_owned())), Ok(at(1)));
        assert_eq!(names.addresses("b:1", 1_059_999, nobody_asks), Ok(at(1)));
        assert_eq!(names.addresses("b:1", 1_060_000, |_| Ok(at(2))), Ok(at(2)));
        names.failed("b:1", 1_060_000);
        names.answered("b:1");
        assert_eq!(names.addresses("b:1", 9_000_000, nobody_asks), Ok(at(2)));
    }
}
