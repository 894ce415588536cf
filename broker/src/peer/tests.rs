//! Brokers that talk over real sockets, on ports of the system's choosing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, iter};

use aklight_common::BrokerId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::links::Links;
use super::server::serve_with;
use super::{GrpcTransport, STREAM_WINDOW, serve, wire};
use crate::replication::{
    Answers, Envelope, Kind, Lane, MESSAGE_BYTES_MAX, Peer, PeerError, PeerHandler, PeerTransport,
};

/// Longer than anything here takes: whoever waits so long waits for ever.
const FOR_EVER: Duration = Duration::from_secs(30);

const MIB: usize = 1 << 20;

/// Does as a message's body says, and counts what it does.
#[derive(Default)]
struct Handler {
    heard: AtomicUsize,
    answered: AtomicUsize,
    /// Calls and streams that are being answered.
    at_work: Arc<AtomicUsize>,
}

struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler {
    async fn answer(&self, message: Envelope) -> Result<Bytes, PeerError> {
        self.heard.fetch_add(1, Ordering::SeqCst);
        let answer = match &message.body[..] {
            b"refuse" => Err(PeerError::Refused("I do not lead it".to_owned())),
            b"fail" => Err(PeerError::Unreachable("who leads it is gone".to_owned())),
            b"wait" => std::future::pending().await,
            b"panic" => panic!("as was asked for"),
            b"a MiB" => Ok(Bytes::from(vec![1; MIB])),
            b"who" => Ok(format!("{message:?}").into()),
            _ => Ok(message.body),
        };
        self.answered.fetch_add(1, Ordering::SeqCst);
        answer
    }

    fn answer_all(self: Arc<Self>, messages: BoxStream<'static, Envelope>) -> Answers {
        let at_work = AtWork::new(&self.at_work);
        messages
            .then(move |message| {
                let _ = &at_work;
                let handler = self.clone();
                async move { handler.answer(message).await }
            })
            .boxed()
    }

    fn count(&self) -> usize {
        self.at_work.load(Ordering::SeqCst)
    }
}

struct Door(Arc<Handler>);

impl PeerHandler for Door {
    fn call(&self, message: Envelope) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (handler, at_work) = (self.0.clone(), AtWork::new(&self.0.at_work));
        async move {
            let _at_work = at_work;
            handler.answer(message).await
        }
        .boxed()
    }

    fn stream(&self, messages: BoxStream<'static, Envelope>) -> Answers {
        self.0.clone().answer_all(messages)
    }
}

/// A broker, as far as others see it.
struct Broker {
    handler: Arc<Handler>,
    address: SocketAddr,
    stopping: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl Broker {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address")).await
    }

    async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let (handler, stopping) = (Arc::new(Handler::default()), CancellationToken::new());
        let address = listener.local_addr().expect("bound");
        let door = Arc::new(Door(handler.clone()));
        let serving = tokio::spawn(serve(listener, door, stopping.clone()));
        Self { handler, address, stopping, serving }
    }

    fn peer(&self) -> Peer {
        Peer { id: BrokerId(1), address: self.address.to_string() }
    }

    /// As `kill -9` would: the kernel closes what is open.
    async fn kill(self) -> SocketAddr {
        self.serving.abort();
        assert!(self.serving.await.expect_err("killed").is_cancelled());
        self.address
    }
}

fn envelope(kind: Kind, body: impl Into<Bytes>) -> Envelope {
    Envelope {
        version: 1,
        cluster: "c".to_owned(),
        from: 2,
        to: 1,
        group: 3,
        kind: kind as u32,
        body: body.into(),
    }
}

fn say(body: &'static str) -> Envelope {
    envelope(Kind::Command, body)
}

async fn ask(from: &GrpcTransport, to: &Peer, message: Envelope) -> Result<Bytes, PeerError> {
    from.call(to, message, FOR_EVER).await
}

async fn open(
    from: &GrpcTransport,
    to: &Peer,
    messages: impl futures_util::Stream<Item = Envelope> + Send + 'static,
) -> Answers {
    from.stream(to, Kind::Produce, messages.boxed(), FOR_EVER).await.expect("opened")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(FOR_EVER, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn unreachable(answer: Result<Bytes, PeerError>) -> String {
    match answer {
        Err(PeerError::Unreachable(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: Result<Bytes, PeerError>) -> String {
    match answer {
        Err(PeerError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn brokers_ask_one_another() {
    let (one, two) = (Broker::start().await, Broker::start().await);
    let (at_one, at_two) = (GrpcTransport::new(), GrpcTransport::new());
    let message = say("who");
    let told = Bytes::from(format!("{message:?}"));
    assert_eq!(ask(&at_one, &two.peer(), message.clone()).await, Ok(told.clone()));
    assert_eq!(ask(&at_two, &one.peer(), message).await, Ok(told));
    assert_eq!(ask(&at_two, &one.peer(), say("")).await, Ok(Bytes::new()));
}

#[tokio::test]
async fn a_name_is_an_address_too() {
    let broker = Broker::start().await;
    let address = format!("localhost:{}", broker.address.port());
    let peer = Peer { id: BrokerId(1), address };
    assert!(ask(&GrpcTransport::new(), &peer, say("hello")).await.is_ok());
}

#[tokio::test]
async fn a_refusal_and_an_open_outcome_are_told_apart() {
    let broker = Broker::start().await;
    let transport = GrpcTransport::new();
    let answer = ask(&transport, &broker.peer(), say("refuse")).await;
    assert_eq!(refused(answer), "I do not lead it");
    let answer = ask(&transport, &broker.peer(), say("fail")).await;
    assert_eq!(unreachable(answer), "who leads it is gone");
}

#[tokio::test]
async fn messages_of_a_stream_are_answered_in_their_order() {
    let broker = Broker::start().await;
    let body = |n: usize| Bytes::from(n.to_string());
    let messages = stream::iter(0..100).map(move |n| envelope(Kind::Produce, body(n)));
    let answers = open(&GrpcTransport::new(), &broker.peer(), messages).await;
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers, (0..100).map(|n| Ok(body(n))).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_comes_before_the_next_message_is_sent() {
    let broker = Broker::start().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = stream::unfold(receiver, async |mut queue| Some((queue.recv().await?, queue)));
    let mut answers = open(&GrpcTransport::new(), &broker.peer(), messages).await;
    for body in ["one", "two", "three"] {
        sender.send(say(body)).await.expect("taken");
        let answer = timeout(FOR_EVER, answers.next()).await.expect("in time");
        assert_eq!(answer, Some(Ok(Bytes::from(body))));
    }
    drop(sender);
    assert_eq!(answers.next().await, None);
    until("the handler ends", || broker.handler.count() == 0).await;
}

#[tokio::test]
async fn an_error_is_the_last_answer() {
    let broker = Broker::start().await;
    let messages = stream::iter(["one", "refuse", "never"].map(say)).chain(stream::pending());
    let mut answers = open(&GrpcTransport::new(), &broker.peer(), messages).await;
    assert_eq!(answers.next().await, Some(Ok(Bytes::from("one"))));
    assert_eq!(refused(answers.next().await.expect("an answer")), "I do not lead it");
    assert_eq!(answers.next().await, None);
    until("the handler ends", || broker.handler.count() == 0).await;
    assert_eq!(broker.handler.heard.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_lane_that_stands_still_holds_up_no_other() {
    let broker = Broker::start().await;
    let transport = GrpcTransport::new();
    // Enough streams that nobody reads to fill the window of their connection.
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let parts = iter::once("wait".into()).chain(iter::repeat(Bytes::from(vec![0; MIB])));
        let messages = stream::iter(parts).map(|body| envelope(Kind::Snapshot, body));
        let opened = transport.stream(&broker.peer(), Kind::Snapshot, messages.boxed(), FOR_EVER);
        stalled.push(opened.await.expect("opened"));
    }
    let body = Bytes::from(vec![0; 1000]);
    let same = envelope(Kind::Snapshot, body.clone());
    // Their lane is full sooner or later, …
    let ttl = Duration::from_millis(100);
    let ask = || transport.call(&broker.peer(), same.clone(), ttl);
    let filled = async { while ask().await.is_ok() {} };
    timeout(FOR_EVER, filled).await.expect("it fills");
    // … and the others are not.
    for kind in [Kind::Heartbeat, Kind::Append, Kind::Produce] {
        let message = envelope(kind, body.clone());
        let answer = transport.call(&broker.peer(), message, FOR_EVER).await;
        assert_eq!(answer, Ok(body.clone()), "{kind:?}");
    }
}

#[tokio::test]
async fn a_handler_that_does_not_read_makes_the_sender_wait() {
    let broker = Broker::start().await;
    let transport = GrpcTransport::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    let parts = iter::once("wait".into()).chain(iter::repeat(Bytes::from(vec![0; MIB])));
    let messages = stream::iter(parts).map(move |body| {
        counting.fetch_add(1, Ordering::SeqCst);
        envelope(Kind::Produce, body)
    });
    let answers = open(&transport, &broker.peer(), messages).await;
    let window = STREAM_WINDOW as usize / MIB;
    until("the window fills", || sent.load(Ordering::SeqCst) >= window).await;
    for _ in 0..100 {
        ask(&transport, &broker.peer(), say("is there room?")).await.expect("answered");
    }
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent <= 2 * window + 2, "{sent} messages of 1 MiB");
    drop(answers);
    until("the handler ends", || broker.handler.count() == 0).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_make_the_handler_wait() {
    let broker = Broker::start().await;
    let transport = GrpcTransport::new();
    let messages = stream::repeat_with(|| say("a MiB"));
    let answers = open(&transport, &broker.peer(), messages).await;
    let answered = || broker.handler.answered.load(Ordering::SeqCst);
    let window = STREAM_WINDOW as usize / MIB;
    until("the window fills", || answered() >= window).await;
    let before = answered();
    for _ in 0..100 {
        ask(&transport, &broker.peer(), say("is there room?")).await.expect("answered");
    }
    let more = answered() - before - 100;
    assert!(before + more <= 2 * window + 2, "{before} and {more} answers of 1 MiB");
    // They were not lost.
    assert_eq!(answers.take(20).filter(|a| std::future::ready(a.is_ok())).count().await, 20);
}

#[tokio::test]
async fn dropped_answers_end_the_messages_and_the_handler() {
    let broker = Broker::start().await;
    let alive = Arc::new(AtomicUsize::new(0));
    let guard = AtWork::new(&alive);
    let messages = stream::iter(["one"].map(say)).chain(stream::pending()).map(move |message| {
        let _ = &guard;
        message
    });
    let mut answers = open(&GrpcTransport::new(), &broker.peer(), messages).await;
    assert!(answers.next().await.expect("an answer").is_ok());
    assert_eq!((alive.load(Ordering::SeqCst), broker.handler.count()), (1, 1));
    drop(answers);
    until("messages are dropped", || alive.load(Ordering::SeqCst) == 0).await;
    until("the handler ends", || broker.handler.count() == 0).await;
}

#[tokio::test]
async fn who_waits_no_longer_ends_the_handler() {
    let broker = Broker::start().await;
    let ttl = Duration::from_millis(50);
    let answer = GrpcTransport::new().call(&broker.peer(), say("wait"), ttl).await;
    assert!(unreachable(answer).contains("within 50 ms"));
    until("the handler ends", || broker.handler.count() == 0).await;
}

#[tokio::test]
async fn a_dead_broker_is_told_at_once_and_a_new_one_is_found_at_once() {
    let transport = GrpcTransport::new();
    let mut broker = Broker::start().await;
    let peer = broker.peer();
    for _ in 0..5 {
        assert!(ask(&transport, &peer, say("hello")).await.is_ok());
        let address = broker.kill().await;
        let gone = async {
            // The first may still go out on the old connection; none may wait for the whole ttl.
            let mut why = String::new();
            for _ in 0..10 {
                why = unreachable(ask(&transport, &peer, say("hello")).await);
            }
            why
        };
        let why = timeout(FOR_EVER / 2, gone).await.expect("told before the ttl is over");
        assert!(why.contains("refused") && why.contains(&peer.address), "{why}");
        broker = Broker::start_at(address).await;
        let answer = ask(&transport, &peer, say("are you back?")).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_stream_tells_that_its_broker_died() {
    let transport = GrpcTransport::new();
    let broker = Broker::start().await;
    let peer = broker.peer();
    let messages = || stream::iter(["one"].map(say)).chain(stream::pending());
    let mut answers = open(&transport, &peer, messages()).await;
    assert!(answers.next().await.expect("an answer").is_ok());
    let address = broker.kill().await;
    unreachable(timeout(FOR_EVER, answers.next()).await.expect("in time").expect("an answer"));
    assert_eq!(answers.next().await, None);
    let opened = transport.stream(&peer, Kind::Produce, messages().boxed(), FOR_EVER).await;
    assert!(matches!(opened, Err(PeerError::Unreachable(_))));
    let _broker = Broker::start_at(address).await;
    assert!(open(&transport, &peer, messages()).await.next().await.expect("an answer").is_ok());
}

#[tokio::test]
async fn who_takes_all_and_answers_nothing_is_connected_to_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (peer, transport) = (Peer { id: BrokerId(1), address }, GrpcTransport::new());
    let thrice = async {
        // Kept open: it is the silence that gives them away.
        let mut connections = Vec::new();
        while connections.len() < 3 {
            let ttl = Duration::from_millis(20);
            unreachable(transport.call(&peer, say("hello"), ttl).await);
            connections.extend(listener.accept().now_or_never());
        }
    };
    timeout(FOR_EVER, thrice).await.expect("connected to anew");
}

#[tokio::test]
async fn long_bodies_pass_and_too_long_ones_are_refused() {
    let broker = Broker::start().await;
    let transport = GrpcTransport::new();
    for length in [8 * MIB, MESSAGE_BYTES_MAX] {
        let body = Bytes::from(vec![5; length]);
        let message = envelope(Kind::Append, body.clone());
        assert!(ask(&transport, &broker.peer(), message).await == Ok(body), "{length}");
    }
    let too_long = envelope(Kind::Append, vec![5; MESSAGE_BYTES_MAX + 1]);
    let why = refused(ask(&transport, &broker.peer(), too_long.clone()).await);
    assert!(why.contains(&MESSAGE_BYTES_MAX.to_string()), "{why}");

    let messages = stream::iter([say("one"), too_long.clone(), say("never")]);
    let mut answers = open(&transport, &broker.peer(), messages).await;
    assert_eq!(answers.next().await, Some(Ok(Bytes::from("one"))));
    assert_eq!(refused(answers.next().await.expect("an answer")), why);
    assert_eq!(answers.next().await, None);
    assert_eq!(broker.handler.heard.load(Ordering::SeqCst), 3);

    // Who does not hold himself back is held back.
    let link = Links::default().get(&broker.peer().address, Lane::Append).expect("an address");
    let mut careless = link.client();
    let too_long = envelope(Kind::Append, vec![5; MESSAGE_BYTES_MAX + MIB]);
    let message = wire::Envelope::from(too_long);
    let status = careless.call(message.clone()).await.expect_err("too large");
    assert!(status.message().contains("too large"), "{status:?}");
    let messages = stream::iter([wire::Envelope::from(say("one")), message]);
    let mut replies = careless.stream(messages).await.expect("opened").into_inner();
    assert!(replies.message().await.expect("answered").is_some());
    let status = replies.message().await.expect_err("too large");
    assert!(status.message().contains("too large"), "{status:?}");
    assert_eq!(broker.handler.heard.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_handler_that_panics_harms_only_its_own_message() {
    let broker = Broker::start().await;
    let transport = GrpcTransport::new();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = stream::unfold(receiver, async |mut queue| Some((queue.recv().await?, queue)));
    let mut answers = open(&transport, &broker.peer(), messages).await;
    unreachable(ask(&transport, &broker.peer(), say("panic")).await);
    sender.send(say("still there?")).await.expect("taken");
    assert!(answers.next().await.expect("an answer").is_ok());
    assert!(ask(&transport, &broker.peer(), say("hello")).await.is_ok());
}

#[tokio::test]
async fn rubbish_is_cut_off_and_harms_nobody() {
    let broker = Broker::start().await;
    let transport = GrpcTransport::new();
    assert!(ask(&transport, &broker.peer(), say("before")).await.is_ok());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let rubbish: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRODUCE|a|b|c\nPRODUCE|a|b|c\n",
        &[0xFF; 100],
        &[&preface[..], &[0xEE; 100]].concat(),
    ];
    for bytes in rubbish {
        let mut socket = TcpStream::connect(broker.address).await.expect("connected");
        socket.write_all(bytes).await.expect("sent");
        let mut rest = Vec::new();
        // Ended or reset: both are cut off.
        let _ = timeout(FOR_EVER, socket.read_to_end(&mut rest)).await.expect("cut off");
    }
    assert!(ask(&transport, &broker.peer(), say("after")).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_cut_off_and_a_quiet_one_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let door = Arc::new(Door(Arc::default()));
    let patience = Duration::from_millis(300);
    tokio::spawn(serve_with(listener, door, CancellationToken::new(), patience));

    let peer = Peer { id: BrokerId(1), address: address.to_string() };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = stream::unfold(receiver, async |mut queue| Some((queue.recv().await?, queue)));
    let mut quiet = open(&GrpcTransport::new(), &peer, messages).await;

    let mut silent = TcpStream::connect(address).await.expect("connected");
    let _ = timeout(FOR_EVER, silent.read_to_end(&mut Vec::new())).await.expect("cut off");
    // The quiet one connected before the silent one, so its time was up before.
    sender.send(say("still there?")).await.expect("taken");
    assert!(quiet.next().await.expect("an answer").is_ok());
}

#[tokio::test]
async fn the_end_waits_for_no_stream_call_or_silent_connection() {
    let broker = Broker::start().await;
    let (transport, peer) = (GrpcTransport::new(), broker.peer());
    let messages = stream::iter(["one"].map(say)).chain(stream::pending());
    let mut answers = open(&transport, &peer, messages).await;
    assert!(answers.next().await.expect("an answer").is_ok());
    let _silent = TcpStream::connect(broker.address).await.expect("connected");
    let endless = transport.call(&peer, say("wait"), FOR_EVER);
    let endless = tokio::spawn(endless);
    until("both are at work", || broker.handler.count() == 2).await;

    broker.stopping.cancel();
    let why =
        unreachable(timeout(FOR_EVER, answers.next()).await.expect("in time").expect("an answer"));
    assert!(why.contains("stopping"), "{why}");
    timeout(FOR_EVER, broker.serving)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("no failure");
    unreachable(endless.await.expect("no panic"));
    until("handlers end", || broker.handler.at_work.load(Ordering::SeqCst) == 0).await;
    let why = unreachable(ask(&transport, &peer, say("hello")).await);
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn what_is_being_answered_at_the_end_is_answered() {
    let broker = Broker::start().await;
    let (transport, peer) = (GrpcTransport::new(), broker.peer());
    let call = tokio::spawn(transport.call(&peer, say("a MiB"), FOR_EVER));
    until("it is heard", || broker.handler.heard.load(Ordering::SeqCst) == 1).await;
    broker.stopping.cancel();
    assert_eq!(call.await.expect("no panic").map(|body| body.len()), Ok(MIB));
    broker.serving.await.expect("no panic").expect("no failure");
}

#[tokio::test]
async fn a_listener_that_breaks_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    SockRef::from(&listener).shutdown(std::net::Shutdown::Both).expect("shut");
    let stopping = CancellationToken::new();
    let door = Arc::new(Door(Arc::default()));
    let served = timeout(FOR_EVER, serve(listener, door, stopping.clone())).await.expect("told");
    assert_eq!(served.expect_err("broken").kind(), io::ErrorKind::InvalidInput);
    assert!(!stopping.is_cancelled(), "it is not for us to end the broker");
}
