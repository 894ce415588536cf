//! Webhook and e-mail against a server of our own on loopback, in good and in bad temper.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/mail.rs"]
mod mail;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use aklight_common::clock::SystemClock;
use aklight_consumer::alerts::{Alert, Destination, Notice};
use aklight_consumer::notify::carrier::Carrier;
use aklight_consumer::notify::email::EmailArgs;
use aklight_consumer::notify::sender::{Event, Order, Patience, Sender};
use aklight_consumer::notify::webhook::WebhookArgs;
use aklight_consumer::rules::Kind;
use mail::{MailServer, Manners};
use serde_json::Value;
use tokio::sync::mpsc;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// Longer than everything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn patience() -> Patience {
    Patience {
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_millis(500),
        backoff_first: Duration::from_millis(10),
        backoff_max: Duration::from_millis(40),

        breaker_failures: 100,
        breaker_open: Duration::from_millis(400),
        breaker_open_max: Duration::from_secs(2),
        follow_up: vec![Duration::from_millis(20); 2],
        fallback_after: Duration::from_secs(60),
        age_max: Duration::from_secs(60),
    }
}

/// For those who are not there at all.
fn hasty() -> Patience {
    Patience { age_max: Duration::from_millis(200), ..patience() }
}

fn webhook(url: &str, template: Option<&str>) -> Carrier {
    let args = WebhookArgs {
        webhook_url: url.parse().ok(),
        webhook_url_file: None,
        webhook_template: template.map(str::to_owned),
    };
    let webhook = args.resolve(&patience(), SystemClock::shared()).expect("right");
    Carrier::Webhook(webhook.expect("set"))
}

fn email(address: SocketAddr) -> Carrier {
    let args = EmailArgs {
        smtp_url: format!("smtp://{address}").parse().ok(),
        smtp_url_file: None,
        smtp_from: Some("AKLight <alerts@example.org>".to_owned()),
        smtp_to: Some("anna@example.org, ben@example.org".to_owned()),
    };
    Carrier::Email(args.resolve(&patience()).expect("right").expect("set"))
}

fn notice(id: u64, destination: Destination) -> Notice {
    let alert = Alert { at_ms: 1_795_229_532_900, ..Alert::example() };
    let more = vec![Alert { rule: "other".to_owned(), ..alert.clone() }];
    Notice { more, ..Notice::new(id, destination, alert) }
}

fn anna() -> Destination {
    Destination::Email { to: "anna@example.org".to_owned() }
}

/// Hands a notice to a sender and gives back what became of it.
async fn send(carrier: Carrier, notice: Notice, maybe_sent: bool) -> Vec<Event> {
    send_all(carrier, patience(), vec![notice], maybe_sent).await
}

async fn send_all(
    carrier: Carrier,
    patience: Patience,
    notices: Vec<Notice>,
    maybe_sent: bool,
) -> Vec<Event> {
    let (orders, queue) = mpsc::channel(16);
    let (events_in, mut events) = mpsc::channel(16);
    tokio::spawn(Sender::new("c1", carrier, patience, SystemClock::shared()).run(queue, events_in));
    for notice in notices {
        orders.send(Order { notice, maybe_sent }).await.expect("taken");
    }
    drop(orders);
    let mut seen = Vec::new();
    let all = async {
        while let Some(event) = events.recv().await {
            seen.push(event);
        }
    };
    tokio::time::timeout(LONG, all).await.expect("the sender finishes");
    seen
}

/// A webhook that gives these answers, one each, and then takes everything.
async fn hook(answers: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    for (n, answer) in answers.into_iter().enumerate() {
        let priority = u8::try_from(n + 1).expect("few");
        let post = Mock::given(method("POST")).respond_with(answer);
        post.up_to_n_times(1).with_priority(priority).mount(&server).await;
    }
    let taken = Mock::given(method("POST")).respond_with(ResponseTemplate::new(204));
    taken.with_priority(100).mount(&server).await;
    server
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.expect("recorded")
}

#[tokio::test]
async fn a_message_is_one_post_with_all_its_alerts_and_a_key() {
    let server = hook(vec![]).await;
    let events = send(webhook(&server.uri(), None), notice(7, Destination::Webhook), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: true }]);
    let requests = requests(&server).await;
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].headers["idempotency-key"], "c1-7 2026-11-21T02:52:12Z");
    assert_eq!(requests[0].headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&requests[0].body).expect("JSON");
    assert_eq!(body["alerts"].as_array().map(Vec::len), Some(2));
    assert_eq!((&body["state"], &body["consumer"]), (&"firing".into(), &"c1".into()));
}

#[tokio::test]
async fn ntfy_is_text_with_a_title() {
    let server = hook(vec![]).await;
    let carrier = webhook(&server.uri(), Some("ntfy"));
    send(carrier, notice(7, Destination::Webhook), false).await;
    let request = requests(&server).await.remove(0);
    assert_eq!(request.headers["priority"], "urgent");
    assert_eq!(request.headers["content-type"], "text/plain; charset=utf-8");
    assert!(String::from_utf8(request.body).expect("text").starts_with("FIRING [critical]"));
}

#[tokio::test]
async fn what_may_pass_is_tried_again_with_the_same_key_and_what_will_not_is_final() {
    for status in [500, 503, 504, 429, 408] {
        let server = hook(vec![ResponseTemplate::new(status)]).await;
        let carrier = webhook(&server.uri(), None);
        let events = send(carrier, notice(7, Destination::Webhook), false).await;
        assert_eq!(events, [Event::Delivered { id: 7, arrived: true }], "{status}");
        let requests = requests(&server).await;
        assert_eq!(requests.len(), 2, "{status}");
        assert_eq!(requests[0].headers["idempotency-key"], requests[1].headers["idempotency-key"]);
    }
    let server = hook(vec![ResponseTemplate::new(404)]).await;
    let events = send(webhook(&server.uri(), None), notice(7, Destination::Webhook), false).await;
    let [Event::Dead { id: 7, reason }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("404"), "{reason}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_and_a_crash_send_again_under_the_same_key() {
    let slow = ResponseTemplate::new(200).set_delay(Duration::from_secs(3));
    let server = hook(vec![slow]).await;
    let events = send(webhook(&server.uri(), None), notice(7, Destination::Webhook), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: true }]);
    send(webhook(&server.uri(), None), notice(7, Destination::Webhook), true).await;
    let requests = requests(&server).await;
    let keys: Vec<_> = requests.iter().map(|request| &request.headers["idempotency-key"]).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn an_outage_ends_when_it_ends_and_not_with_the_attempts() {
    let server = hook(vec![ResponseTemplate::new(503); 9]).await;
    let events = send(webhook(&server.uri(), None), notice(7, Destination::Webhook), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: true }]);
    assert_eq!(requests(&server).await.len(), 10);
}

#[tokio::test]
async fn what_is_held_up_is_said_once_and_tried_on() {
    let server = hook(vec![ResponseTemplate::new(503); 8]).await;
    let patience = Patience { fallback_after: Duration::from_millis(50), ..patience() };
    let notices = vec![notice(7, Destination::Webhook)];
    let events = send_all(webhook(&server.uri(), None), patience, notices, false).await;
    let reason = "the webhook answers 503".to_owned();
    assert_eq!(
        events,
        [Event::HeldUp { id: 7, reason }, Event::Delivered { id: 7, arrived: true }]
    );
}

/// Nobody asks the webhook, for it was just seen to be out: what waits behind that is told by
/// another channel all the same, and is given up when it is too old, not when somebody asks again.
#[tokio::test]
async fn what_waits_for_the_circuit_is_held_up_too_and_grows_too_old() {
    let server = hook(vec![ResponseTemplate::new(503)]).await;
    let patience = Patience {
        breaker_failures: 1,
        breaker_open: LONG * 2,
        breaker_open_max: LONG * 2,
        fallback_after: Duration::from_millis(50),
        age_max: Duration::from_millis(400),
        ..patience()
    };
    let other = Notice { more: vec![], ..notice(8, Destination::Webhook) };
    let other =
        Notice { alert: Alert { rule: "third".to_owned(), ..other.alert.clone() }, ..other };
    let notices = vec![notice(7, Destination::Webhook), other];
    let events = send_all(webhook(&server.uri(), None), patience, notices, false).await;
    let held_up = |id| Event::HeldUp { id, reason: "the webhook answers 503".to_owned() };
    let reason = "given up after 400ms: the webhook answers 503";
    let dead = |id| Event::Dead { id, reason: reason.to_owned() };
    assert_eq!(events.len(), 4, "{events:?}");
    for event in [held_up(7), held_up(8), dead(7), dead(8)] {
        assert!(events.contains(&event), "{event:?}: {events:?}");
    }
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn an_alerts_end_is_not_told_before_its_beginning() {
    let server = hook(vec![ResponseTemplate::new(503)]).await;
    let patience = Patience { backoff_first: Duration::from_millis(300), ..patience() };
    let fired = notice(7, Destination::Webhook);
    let over = Alert { kind: Kind::Resolved, ..fired.more[0].clone() };
    let third = Alert { rule: "third".to_owned(), ..fired.alert.clone() };
    let notices = vec![
        fired,
        Notice::new(8, Destination::Webhook, over),
        Notice::new(9, Destination::Webhook, third),
    ];
    send_all(webhook(&server.uri(), None), patience, notices, false).await;
    let requests = requests(&server).await;
    let keys = requests.iter().map(|request| request.headers["idempotency-key"].to_str());
    let ids: Vec<_> = keys.map(|key| key.expect("text")[..4].to_owned()).collect();
    assert_eq!(ids, ["c1-7", "c1-9", "c1-7", "c1-8"], "the third waits for nobody");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_says_what_to_set() {
    let elsewhere = hook(vec![]).await;
    let leads = ResponseTemplate::new(308).insert_header("location", elsewhere.uri());
    let server = hook(vec![leads]).await;
    let events = send(webhook(&server.uri(), None), notice(7, Destination::Webhook), false).await;
    let [Event::Dead { id: 7, reason }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("308") && reason.contains("AKLIGHT_WEBHOOK_URL"), "{reason}");
    assert!(requests(&elsewhere).await.is_empty());
}

#[tokio::test]
async fn an_address_that_holds_a_token_is_shown_to_nobody() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it");
    let carrier = webhook(&format!("http://{gone}/geheim"), None);
    let notices = vec![notice(7, Destination::Webhook)];
    let events = send_all(carrier, hasty(), notices, false).await;
    let [Event::Dead { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("given up after") && !reason.contains("geheim"), "{reason}");
}

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let line = mail.lines().find(|line| line.starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {mail}"))
}

#[tokio::test]
async fn a_mail_has_one_recipient_a_subject_and_an_id_of_its_own() {
    let server = MailServer::start(Manners::default());
    let events = send(email(server.address), notice(7, anna()), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: false }], "sent, not delivered");
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    for part in ["RCPT TO:<anna@example.org>", "To: anna@example.org", "From: AKLight", "other:"] {
        assert!(mails[0].contains(part), "{part}: {}", mails[0]);
    }
    assert!(!mails[0].contains("ben"), "{}", mails[0]);
    assert_eq!(header(&mails[0], "Message-ID"), "Message-ID: <c1-7-2026-11-21T02-52-12Z@aklight>");
    let subject = header(&mails[0], "Subject");
    assert_eq!(subject, "Subject: FIRING: 2 alerts (critical): container-memory, other");
}

#[tokio::test]
async fn one_refused_address_stops_nobody_elses_mail() {
    let server = MailServer::start(Manners { refused: "ben@", ..Manners::default() });
    let carrier = email(server.address);
    let notices = (7..).zip(carrier.destinations()).map(|(id, to)| notice(id, to)).collect();
    let events = send_all(carrier, patience(), notices, false).await;
    let [Event::Delivered { id: 7, arrived: false }, Event::Dead { id: 8, reason }] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(reason.contains("550 5.1.1 no such user"), "{reason}");
    let mails = server.mails();
    assert!(mails.len() == 1 && mails[0].contains("RCPT TO:<anna@example.org>"), "{mails:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it_and_one_that_refuses_is_believed() {
    let server = MailServer::start(Manners { answers: vec!["451 later"], ..Manners::default() });
    let events = send(email(server.address), notice(7, anna()), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: false }]);
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(header(&mails[0], "Message-ID"), header(&mails[1], "Message-ID"));
    let server =
        MailServer::start(Manners { answers: vec!["550 like spam"], ..Manners::default() });
    let events = send(email(server.address), notice(7, anna()), false).await;
    let [Event::Dead { id: 7, reason }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("like spam"), "{reason}");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_mail_server_that_takes_connections_and_says_nothing_is_left_in_the_end() {
    let server = MailServer::start(Manners { silent: 1, ..Manners::default() });
    let events = send(email(server.address), notice(7, anna()), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: false }]);
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_mail_server_that_is_not_there_is_given_up_in_the_end() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it");
    let events = send_all(email(gone), hasty(), vec![notice(7, anna())], false).await;
    let [Event::Dead { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("given up after") && reason.contains("refused"), "{reason}");
}
