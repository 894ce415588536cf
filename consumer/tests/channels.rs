//! Webhook and e-mail against a server of our own on loopback, in good and in bad temper.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aklight_common::clock::SystemClock;
use aklight_consumer::alerts::{Alert, Destination, Notice};
use aklight_consumer::notify::carrier::Carrier;
use aklight_consumer::notify::email::EmailArgs;
use aklight_consumer::notify::sender::{Event, Order, Patience, Sender};
use aklight_consumer::notify::webhook::WebhookArgs;
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
        attempts_max: 4,
        breaker_failures: 100,
        breaker_open: Duration::from_millis(400),
        breaker_open_max: Duration::from_secs(2),
        follow_up: vec![Duration::from_millis(20); 2],
        age_max: Duration::from_secs(60),
    }
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

/// Hands a notice to a sender and gives back what became of it.
async fn send(carrier: Carrier, notice: Notice, maybe_sent: bool) -> Vec<Event> {
    let (orders, queue) = mpsc::channel(16);
    let (events_in, mut events) = mpsc::channel(16);
    tokio::spawn(
        Sender::new("c1", carrier, patience(), SystemClock::shared()).run(queue, events_in),
    );
    orders.send(Order { notice, maybe_sent }).await.expect("taken");
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
    for status in [500, 503, 429, 408] {
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
async fn an_address_that_holds_a_token_is_shown_to_nobody() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it");
    let carrier = webhook(&format!("http://{gone}/geheim"), None);
    let events = send(carrier, notice(7, Destination::Webhook), false).await;
    let [Event::Dead { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("several attempts") && !reason.contains("geheim"), "{reason}");
}

/// A mail server: what it answers to DATA's end, one each, then 250; and the mails it got.
#[derive(Clone)]
struct MailServer {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server =
            Self { address: listener.local_addr().expect("an address"), mails: Arc::default() };
        let answers: Arc<Mutex<Vec<String>>> =
            Arc::new(Mutex::new(answers.iter().rev().map(|&answer| answer.to_owned()).collect()));
        let mails = Arc::clone(&server.mails);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, mails) = (Arc::clone(&answers), Arc::clone(&mails));
                std::thread::spawn(move || converse(&stream, &answers, &mails));
            }
        });
        server
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().expect("a lock").clone()
    }
}

/// As much of RFC 5321 as a mail needs. Ends when the client does.
fn converse(
    stream: &TcpStream,
    answers: &Mutex<Vec<String>>,
    mails: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut out = stream;
    let mut say = |line: &str| out.write_all(format!("{line}\r\n").as_bytes()).ok();
    say("220 mail.test ESMTP")?;
    let mut lines = BufReader::new(stream).lines();
    let mut envelope = String::new();
    while let Some(Ok(line)) = lines.next() {
        match line.get(..4).unwrap_or_default().to_uppercase().as_str() {
            "EHLO" | "HELO" => say("250 mail.test")?,
            "MAIL" | "RCPT" => {
                envelope = format!("{envelope}{line}\n");
                say("250 ok")?;
            }
            "DATA" => {
                say("354 go on")?;
                let mut mail = std::mem::take(&mut envelope);
                for line in lines.by_ref().map_while(Result::ok).take_while(|line| line != ".") {
                    mail = format!("{mail}{line}\n");
                }
                mails.lock().expect("a lock").push(mail);
                let answer = answers.lock().expect("a lock").pop();
                say(answer.as_deref().unwrap_or("250 taken"))?;
            }
            "QUIT" => say("221 bye")?,
            _ => say("250 ok")?,
        }
    }
    Some(())
}

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let line = mail.lines().find(|line| line.starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {mail}"))
}

#[tokio::test]
async fn a_mail_goes_to_all_with_a_subject_and_an_id_of_its_own() {
    let server = MailServer::start(&[]);
    let events = send(email(server.address), notice(7, Destination::Email), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: false }], "sent, not delivered");
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    for part in ["<anna@example.org>", "<ben@example.org>", "From: AKLight", "other:"] {
        assert!(mails[0].contains(part), "{part}: {}", mails[0]);
    }
    assert_eq!(header(&mails[0], "Message-ID"), "Message-ID: <c1-7-2026-11-21T02-52-12Z@aklight>");
    let subject = header(&mails[0], "Subject");
    assert_eq!(subject, "Subject: FIRING: 2 alerts (critical): container-memory, other");
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it_and_one_that_refuses_is_believed() {
    let server = MailServer::start(&["451 later"]);
    let events = send(email(server.address), notice(7, Destination::Email), false).await;
    assert_eq!(events, [Event::Delivered { id: 7, arrived: false }]);
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(header(&mails[0], "Message-ID"), header(&mails[1], "Message-ID"));
    let server = MailServer::start(&["550 no such user"]);
    let events = send(email(server.address), notice(7, Destination::Email), false).await;
    let [Event::Dead { id: 7, reason }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("no such user"), "{reason}");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_mail_server_that_is_not_there_is_given_up_in_the_end() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it");
    let events = send(email(gone), notice(7, Destination::Email), false).await;
    let [Event::Dead { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("several attempts"), "{reason}");
}
