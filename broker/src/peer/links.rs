//! The connections to other brokers: one a (address, lane), made when it is first needed.
//!
//! What is known of a broker is only good as long as its connection works. So a link that fails is
//! forgotten, and whoever has something to say next starts afresh: the name is resolved anew and
//! nobody pauses before trying. A connection that takes what is sent and answers nothing (the
//! machine is gone, the network is cut) is forgotten after [`TIMEOUTS_MAX`] messages.
//!
//! Invariant: no more than [`LINKS_MAX`] links are kept. Forgetting one breaks nothing: what is
//! under way on it goes on, and the connection closes with the last of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tonic::codegen::http::Uri;

use super::WIRE_BYTES_MAX;
use super::connection::{Caller, Connection};
use super::wire::peer_client::PeerClient;
use crate::replication::{Lane, PeerError};

/// Most links at once: four lanes to each of sixteen brokers. One more takes the place of the one
/// that was not used for longest, as those of a removed broker are.
const LINKS_MAX: usize = 64;

/// So many messages without an answer in time, and none with one in between: about a second of
/// heartbeats. A broker that is only slow answers some.
const TIMEOUTS_MAX: u32 = 4;

/// A way to one broker, for one lane.
pub(super) struct Link {
    pub(super) address: String,
    lane: Lane,
    client: PeerClient<Caller>,
    connection: Arc<Connection>,
    timeouts: AtomicU32,
}

/// All of them.
#[derive(Default)]
pub(super) struct Links {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    links: HashMap<(String, Lane), Used>,
    /// Counts uses: a clock that only tells which came later.
    now: u64,
}

struct Used {
    link: Arc<Link>,
    last: u64,
}

impl Links {
    /// The link to this address for this lane; a new one begins to connect.
    pub(super) fn get(&self, address: &str, lane: Lane) -> Result<Arc<Link>, PeerError> {
        let key = (address.to_owned(), lane);
        let mut open = self.open.lock();
        open.now += 1;
        let now = open.now;
        if let Some(used) = open.links.get_mut(&key)
            && !used.link.connection.is_broken()
        {
            used.last = now;
            return Ok(used.link.clone());
        }
        let link = Arc::new(Link::new(address, lane)?);
        open.links.insert(key, Used { link: link.clone(), last: now });
        if open.links.len() > LINKS_MAX {
            let oldest = open.links.iter().min_by_key(|(_, used)| used.last);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                open.links.remove(&key);
            }
        }
        Ok(link)
    }

    /// Lets go of a link that failed, unless another already stands in its place.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        let key = (link.address.clone(), link.lane);
        let mut open = self.open.lock();
        if open.links.get(&key).is_some_and(|used| Arc::ptr_eq(&used.link, link)) {
            open.links.remove(&key);
        }
    }

    /// Notes that a message got no answer in time.
    pub(super) fn note_timeout(&self, link: &Arc<Link>) {
        if link.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
            self.forget(link);
        }
    }
}

impl Link {
    fn new(address: &str, lane: Lane) -> Result<Self, PeerError> {
        let origin: Uri = format!("http://{address}").parse().map_err(|error| {
            PeerError::Unreachable(format!("{address:?} is no host:port: {error}"))
        })?;
        let connection = Arc::new(Connection::new(address));
        let client = PeerClient::with_origin(Caller::new(connection.clone()), origin)
            .max_decoding_message_size(WIRE_BYTES_MAX);
        let (address, timeouts) = (address.to_owned(), AtomicU32::new(0));
        Ok(Self { address, lane, client, connection, timeouts })
    }

    /// Something to send with.
    pub(super) fn client(&self) -> PeerClient<Caller> {
        self.client.clone()
    }

    /// Notes that the broker answered, whatever it was.
    pub(super) fn note_answer(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const FOR_EVER: Duration = Duration::from_secs(30);

    /// Something to connect to, under as many addresses as are asked for.
    async fn listener() -> (TcpListener, impl Fn(usize) -> String) {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        (listener, move |n| format!("127.0.0.{}:{port}", n + 1))
    }

    #[tokio::test]
    async fn a_link_is_kept_for_each_address_and_lane() {
        let (_listener, address) = listener().await;
        let links = Links::default();
        let first = links.get(&address(0), Lane::Control).expect("an address");
        assert!(Arc::ptr_eq(&first, &links.get(&address(0), Lane::Control).expect("an address")));
        assert!(!Arc::ptr_eq(&first, &links.get(&address(0), Lane::Bulk).expect("an address")));
        assert!(!Arc::ptr_eq(&first, &links.get(&address(1), Lane::Control).expect("an address")));
    }

    #[tokio::test]
    async fn the_longest_unused_link_makes_room() {
        let (_listener, address) = listener().await;
        let links = Links::default();
        let get = |n| links.get(&address(n), Lane::Append).expect("an address");
        let all: Vec<_> = (0..LINKS_MAX).map(get).collect();
        get(0);
        get(LINKS_MAX);
        assert_eq!(links.open.lock().links.len(), LINKS_MAX);
        assert!(Arc::ptr_eq(&all[0], &get(0)));
        assert!(!Arc::ptr_eq(&all[1], &get(1)));
    }

    #[tokio::test]
    async fn who_never_answers_in_time_is_forgotten_and_who_is_slow_is_not() {
        let (_listener, address) = listener().await;
        let links = Links::default();
        let get = || links.get(&address(0), Lane::Control).expect("an address");
        let link = get();
        for _ in 0..3 {
            (1..TIMEOUTS_MAX).for_each(|_| links.note_timeout(&link));
            link.note_answer();
        }
        assert!(Arc::ptr_eq(&link, &get()));
        (0..TIMEOUTS_MAX).for_each(|_| links.note_timeout(&link));
        let new = get();
        assert!(!Arc::ptr_eq(&link, &new));
        // It is late news that the old link fails: the new one stays.
        links.forget(&link);
        assert!(Arc::ptr_eq(&new, &get()));
    }

    #[tokio::test]
    async fn a_broken_link_is_replaced_before_anything_is_sent_on_it() {
        let (listener, address) = listener().await;
        let links = Links::default();
        let link = links.get(&address(0), Lane::Control).expect("an address");
        drop(listener.accept().await.expect("connected"));
        timeout(FOR_EVER, link.connection.until_broken()).await.expect("it breaks");
        let new = links.get(&address(0), Lane::Control).expect("an address");
        assert!(!Arc::ptr_eq(&link, &new));
    }

    #[tokio::test]
    async fn what_is_no_address_is_told() {
        let error =
            Links::default().get("not an address", Lane::Control).map(drop).expect_err("an error");
        assert!(error.to_string().contains("host:port"), "{error}");
    }
}
