//! The network against a handler that gives back what it gets.

use std::time::Duration;

use aklight_broker::replication::{
    Answers, Envelope, Kind, Peer, PeerError, PeerHandler, PeerTransport, WIRE_VERSION,
};
use aklight_common::BrokerId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use tokio::runtime::Runtime;

use super::{Link, Net};
use crate::plants::Plants;
use crate::trace::Trace;

struct Echo;

impl PeerHandler for Echo {
    fn call(&self, message: Envelope) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        async move { Ok(message.body) }.boxed()
    }

    fn stream(&self, messages: BoxStream<'static, Envelope>) -> Answers {
        messages.map(|message| Ok(message.body)).boxed()
    }
}

struct Two {
    net: Net,
    trace: Trace,
    runtimes: [Runtime; 2],
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

impl Two {
    fn new(seed: u64) -> Self {
        let trace = Trace::new(false);
        let net = Net::new(seed, trace.clone(), Plants::default());
        let runtimes = [runtime(), runtime()];
        for (broker, runtime) in (1..).zip(&runtimes) {
            net.join(broker, runtime.handle().clone(), Arc::new(Echo));
        }
        Self { net, trace, runtimes }
    }

    fn message(body: &str) -> Envelope {
        let (from, to, kind) = (1, 2, Kind::Produce as u32);
        let (version, body) = (WIRE_VERSION, Bytes::copy_from_slice(body.as_bytes()));
        Envelope { version, cluster: String::new(), from, to, group: 1, kind, body }
    }

    fn to() -> Peer {
        Peer { id: BrokerId(2), address: "two:1".to_owned() }
    }

    fn pass_ms(&self, ms: u64) {
        for _ in 0..ms {
            self.trace.set_now_us(self.trace.now_us() + 1000);
            self.net.step();
            for runtime in &self.runtimes {
                runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            }
        }
    }

    fn call(&self, body: &str) -> tokio::task::JoinHandle<Result<Bytes, PeerError>> {
        let call =
            self.net.transport(1).call(&Self::to(), Self::message(body), Duration::from_secs(1));
        self.runtimes[0].spawn(call)
    }

    fn result<T>(&self, task: tokio::task::JoinHandle<T>) -> T {
        assert!(task.is_finished());
        self.runtimes[0].block_on(task).expect("did not panic")
    }

    /// Sends numbers as a stream, one a millisecond; gives the answers that came.
    fn stream(&self, count: u64) -> tokio::task::JoinHandle<(Vec<Bytes>, bool)> {
        let transport = self.net.transport(1);
        let messages = stream::iter(0..count)
            .then(|number| async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Self::message(&number.to_string())
            })
            .boxed();
        self.runtimes[0].spawn(async move {
            let ttl = Duration::from_secs(1);
            let opened = transport.stream(&Self::to(), Kind::Produce, messages, ttl).await;
            let Ok(mut answers) = opened else { return (Vec::new(), true) };
            let mut got = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(bytes) => got.push(bytes),
                    Err(_) => return (got, true),
                }
            }
            (got, false)
        })
    }
}

fn numbers(count: u64) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(number.to_string())).collect()
}

#[test]
fn a_call_is_answered_and_a_dead_broker_refuses() {
    let two = Two::new(1);
    let call = two.call("hello");
    two.pass_ms(20);
    assert_eq!(two.result(call), Ok(Bytes::from("hello")));
    two.net.leave(2);
    let call = two.call("hello");
    two.pass_ms(20);
    assert!(matches!(two.result(call), Err(PeerError::Unreachable(_))));
}

#[test]
fn a_call_over_a_cut_link_ends_with_patience_only() {
    for (from, to) in [(1, 2), (2, 1)] {
        let two = Two::new(1);
        two.net.set_link(from, to, Link { is_cut: true, ..Link::default() });
        let call = two.call("hello");
        two.pass_ms(500);
        assert!(!call.is_finished());
        two.pass_ms(600);
        assert!(matches!(two.result(call), Err(PeerError::Unreachable(_))));
    }
}

#[test]
fn a_stream_keeps_its_order_whatever_is_late() {
    let two = Two::new(3);
    let link = Link { late_once_in: 3, late_us_max: 50_000, ..Link::default() };
    two.net.set_link(1, 2, link.clone());
    two.net.set_link(2, 1, link);
    let stream = two.stream(200);
    two.pass_ms(5000);
    assert_eq!(two.result(stream), (numbers(200), false));
}

#[test]
fn a_stopped_broker_gets_everything_later() {
    let two = Two::new(3);
    two.net.stop(2, true);
    let (call, stream) = (two.call("hello"), two.stream(10));
    two.pass_ms(500);
    assert!(!call.is_finished() && !stream.is_finished());
    two.net.stop(2, false);
    two.pass_ms(100);
    assert_eq!(two.result(call), Ok(Bytes::from("hello")));
    assert_eq!(two.result(stream), (numbers(10), false));
}

#[test]
fn a_short_cut_holds_a_stream_up_and_a_long_one_breaks_it() {
    let cut = |ms| {
        let two = Two::new(4);
        let stream = two.stream(100);
        two.pass_ms(50);
        two.net.set_link(2, 1, Link { is_cut: true, ..Link::default() });
        two.pass_ms(ms);
        two.net.set_link(2, 1, Link::default());
        two.pass_ms(2000);
        two.result(stream)
    };
    assert_eq!(cut(200), (numbers(100), false));
    let (some, is_broken) = cut(20_000);
    assert!(is_broken && some.len() < 100);
    assert_eq!(some, numbers(some.len() as u64), "a prefix");
}

#[test]
fn a_stream_to_a_dying_broker_breaks() {
    let two = Two::new(5);
    let stream = two.stream(1000);
    two.pass_ms(50);
    two.net.leave(2);
    two.pass_ms(50);
    let (some, is_broken) = two.result(stream);
    assert!(is_broken && !some.is_empty());
}

#[test]
fn one_seed_has_one_trace() {
    let digest = |seed| {
        let two = Two::new(seed);
        let link = Link { lost_once_in: 3, doubled_once_in: 3, ..Link::default() };
        two.net.set_link(1, 2, link);
        let calls: Vec<_> = (0..50).map(|n| two.call(&n.to_string())).collect();
        two.pass_ms(3000);
        assert!(calls.iter().all(tokio::task::JoinHandle::is_finished));
        let carried = two.net.carried();
        assert!(carried.lost > 0 && carried.doubled > 0, "{carried:?}");
        two.trace.digest()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}
