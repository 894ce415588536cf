//! WhatsApp against a Twilio of our own on loopback, in good and in bad temper.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use aklight_common::clock::SystemClock;
use aklight_consumer::alerts::dead::{DeadLetter, DeadLetters};
use aklight_consumer::alerts::{Alert, Destination, Notice};
use aklight_consumer::notify::carrier::Carrier;
use aklight_consumer::notify::sender::{Event, Order, Patience, Sender};
use aklight_consumer::notify::whatsapp::{Settings, Twilio, TwilioArgs};
use aklight_consumer::retry::send_again;
use serde_json::json;
use tokio::sync::mpsc;
use wiremock::matchers::{method, path, path_regex, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const MESSAGES: &str = "/2010-04-01/Accounts/AC1/Messages.json";
const ANNA: &str = "whatsapp:+34600000089";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than everything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn patience() -> Patience {
    Patience {
        connect_timeout: Duration::from_secs(2),
        request_timeout: REQUEST_TIMEOUT,
        backoff_first: Duration::from_millis(10),
        backoff_max: Duration::from_millis(40),

        breaker_failures: 3,
        breaker_open: Duration::from_millis(400),
        breaker_open_max: Duration::from_secs(2),
        follow_up: vec![Duration::from_millis(20); 2],
        fallback_after: Duration::from_secs(60),
        age_max: Duration::from_secs(60),
    }
}

fn settings(base_url: &str, content_sid: Option<&str>) -> Settings {
    TwilioArgs {
        twilio_account_sid: Some("AC1".to_owned()),
        twilio_auth_token: "geheim".parse().ok(),
        twilio_from_number: Some("+14155238886".to_owned()),
        twilio_to_number: Some("+34600000089".to_owned()),
        twilio_content_sid: content_sid.map(str::to_owned),
        twilio_base_url: Some(base_url.to_owned()),
        whatsapp_per_minute: 4800,
        ..TwilioArgs::default()
    }
    .resolve()
    .expect("right")
    .expect("set")
}

fn notice(id: u64) -> Notice {
    let alert = Alert {
        rule: "cpu-high".to_owned(),
        topic: "metrics/docker/web/cpu".to_owned(),
        value: 93.14,
        limit: "> 80".to_owned(),
        since_ms: Some(1_795_229_527_000),
        at_ms: 1_795_229_532_900,
        ..Alert::example()
    };
    Notice::new(id, Destination::WhatsApp { to: ANNA.to_owned() }, alert)
}

/// Hands all notices to a sender and gives back what became of each, in order.
async fn send(
    settings: Settings,
    patience: Patience,
    notices: Vec<Notice>,
    maybe_sent: bool,
) -> Vec<Event> {
    let clock = SystemClock::shared();
    let twilio =
        Carrier::Twilio(Twilio::new(settings, &patience, clock.clone()).expect("a client"));
    let (orders, queue) = mpsc::channel(16);
    let (events_in, mut events) = mpsc::channel(16);
    tokio::spawn(Sender::new("c1", twilio, patience, clock).run(queue, events_in));
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

fn taken() -> ResponseTemplate {
    ResponseTemplate::new(201)
        .set_body_json(json!({"sid": "SM1", "status": "queued", "error_code": null}))
}

fn refused(status: u16, code: u32) -> ResponseTemplate {
    ResponseTemplate::new(status)
        .set_body_json(json!({"code": code, "message": "no", "status": status}))
}

/// A Twilio that gives `answers` to POSTs, one each, and then takes everything; messages it took
/// are delivered at once, and none is found in its list.
async fn twilio(answers: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    for (n, answer) in answers.into_iter().enumerate() {
        let priority = u8::try_from(n + 1).expect("few");
        let post = Mock::given(method("POST")).and(path(MESSAGES)).respond_with(answer);
        post.up_to_n_times(1).with_priority(priority).mount(&server).await;
    }
    Mock::given(method("POST"))
        .and(path(MESSAGES))
        .respond_with(taken())
        .with_priority(100)
        .mount(&server)
        .await;
    let delivered = json!({"sid": "SM1", "status": "delivered", "error_code": null});
    Mock::given(method("GET"))
        .and(path_regex("/Messages/SM.*[.]json$"))
        .respond_with(ResponseTemplate::new(200).set_body_json(delivered))
        .with_priority(100)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path(MESSAGES))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"messages": []})))
        .with_priority(100)
        .mount(&server)
        .await;
    server
}

async fn posts(server: &MockServer) -> Vec<Request> {
    let requests = server.received_requests().await.expect("recorded");
    requests.into_iter().filter(|request| request.method.as_str() == "POST").collect()
}

async fn asked(server: &MockServer) -> Vec<Request> {
    let requests = server.received_requests().await.expect("recorded");
    requests
        .into_iter()
        .filter(|r| r.method.as_str() == "GET" && r.url.path() == MESSAGES)
        .collect()
}

fn form(request: &Request) -> std::collections::BTreeMap<String, String> {
    let body = String::from_utf8(request.body.clone()).expect("text");
    reqwest::Url::parse(&format!("http://x/?{body}"))
        .expect("a form")
        .query_pairs()
        .into_owned()
        .collect()
}

fn went(sid: &str, id: u64) -> Vec<Event> {
    vec![Event::Accepted { id, sid: sid.to_owned() }, Event::Delivered { id, arrived: true }]
}

#[tokio::test]
async fn an_alert_is_one_post_with_the_right_fields() {
    let server = twilio(vec![]).await;
    let events = send(settings(&server.uri(), None), patience(), vec![notice(7)], false).await;
    assert_eq!(events, went("SM1", 7));
    let posts = posts(&server).await;
    assert_eq!(posts.len(), 1);
    let fields = form(&posts[0]);
    assert_eq!(fields.len(), 3);
    assert_eq!(fields["To"], ANNA);
    assert_eq!(fields["From"], "whatsapp:+14155238886");
    assert!(fields["Body"].starts_with("*** THRESHOLD EXCEEDED ***\ncpu-high (critical)\n"));
    assert!(fields["Body"].contains("metrics/docker/web/cpu is 93.1 %, limit > 80"));
    assert!(fields["Body"].ends_with("[c1-7 2026-11-21T02:52:12Z]"));
    // AC1:geheim
    assert_eq!(posts[0].headers["authorization"], "Basic QUMxOmdlaGVpbQ==");
    assert_eq!(posts[0].headers["content-type"], "application/x-www-form-urlencoded");
}

#[tokio::test]
async fn too_many_requests_waits_as_long_as_twilio_asks() {
    let answer = refused(429, 20429).insert_header("Retry-After", "1");
    let server = twilio(vec![answer]).await;
    let began = Instant::now();
    let events = send(settings(&server.uri(), None), patience(), vec![notice(1)], false).await;
    assert_eq!(events, went("SM1", 1));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(posts(&server).await.len(), 2);
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    for answer in [refused(500, 20500), refused(503, 0), refused(400, 63018), refused(429, 20429)] {
        let server = twilio(vec![answer]).await;
        let events = send(settings(&server.uri(), None), patience(), vec![notice(1)], false).await;
        assert_eq!(events, went("SM1", 1));
        assert_eq!(posts(&server).await.len(), 2);
        assert_eq!(asked(&server).await.len(), 0, "nothing was in doubt");
    }
}

/// Whoever stands between Twilio and us gave up waiting: Twilio may have the message.
#[tokio::test]
async fn an_answer_of_who_stands_between_leaves_doubt_which_is_asked_about() {
    for status in [408, 504] {
        let server = twilio(vec![refused(status, 0)]).await;
        let events = send(settings(&server.uri(), None), patience(), vec![notice(1)], false).await;
        assert_eq!(events, went("SM1", 1), "{status}");
        assert_eq!((asked(&server).await.len(), posts(&server).await.len()), (1, 2), "{status}");
    }
}

#[tokio::test]
async fn a_refusal_that_will_not_pass_is_not_tried_again() {
    for (status, code) in [(400, 21211), (401, 20003), (400, 63007), (418, 12345)] {
        let server = twilio(vec![refused(status, code)]).await;
        let events = send(settings(&server.uri(), None), patience(), vec![notice(1)], false).await;
        let [Event::Dead { id: 1, reason }] = &events[..] else { panic!("{events:?}") };
        assert!(reason.contains(&code.to_string()), "{reason}");
        assert_eq!(posts(&server).await.len(), 1);
    }
}

#[tokio::test]
async fn outside_the_window_the_template_goes_instead_and_at_once_the_next_time() {
    let server = twilio(vec![refused(400, 63016)]).await;
    let settings = settings(&server.uri(), Some("HX1"));
    let events = send(settings, patience(), vec![notice(1), notice(2)], false).await;
    let delivered = events.iter().filter(|e| matches!(e, Event::Delivered { .. })).count();
    assert_eq!(delivered, 2, "{events:?}");
    let posts = posts(&server).await;
    assert_eq!(posts.len(), 3);
    assert!(form(&posts[0]).contains_key("Body"));
    for post in &posts[1..] {
        let fields = form(post);
        assert!(!fields.contains_key("Body"), "{fields:?}");
        assert_eq!(fields["ContentSid"], "HX1");
        let variables: serde_json::Value =
            serde_json::from_str(&fields["ContentVariables"]).expect("JSON");
        assert_eq!((&variables["1"], &variables["2"]), (&json!("FIRING"), &json!("cpu-high")));
    }
}

#[tokio::test]
async fn outside_the_window_without_a_template_it_is_given_up_and_says_what_to_set() {
    let server = twilio(vec![refused(400, 63016)]).await;
    let events = send(settings(&server.uri(), None), patience(), vec![notice(1)], false).await;
    let [Event::Dead { id: 1, reason }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("63016") && reason.contains("TWILIO_CONTENT_SID"), "{reason}");
    assert_eq!(posts(&server).await.len(), 1);
}

#[tokio::test]
async fn taken_is_not_yet_delivered() {
    let server = twilio(vec![]).await;
    let failed = json!({"sid": "SM1", "status": "undelivered", "error_code": 63016});
    Mock::given(method("GET"))
        .and(path("/2010-04-01/Accounts/AC1/Messages/SM1.json"))
        .respond_with(ResponseTemplate::new(200).set_body_json(failed))
        .up_to_n_times(1)
        .with_priority(1)
        .mount(&server)
        .await;
    let settings = settings(&server.uri(), Some("HX1"));
    let events = send(settings, patience(), vec![notice(1)], false).await;
    assert_eq!(events.last(), Some(&Event::Delivered { id: 1, arrived: true }));
    let posts = posts(&server).await;
    assert_eq!(posts.len(), 2);
    assert!(form(&posts[1]).contains_key("ContentSid"));
}

#[tokio::test]
async fn after_a_hang_a_message_that_went_through_is_not_sent_again() {
    let server = twilio(vec![taken().set_delay(REQUEST_TIMEOUT * 3)]).await;
    let found = json!({"messages": [
        {"sid": "SM8", "status": "sent", "error_code": null, "body": "other [c1-77 2026-11-21T02:52:12Z]"},
        {"sid": "SM9", "status": "sent", "error_code": null, "body": "x\n[c1-7 2026-11-21T02:52:12Z]"},
    ]});
    Mock::given(method("GET"))
        .and(path(MESSAGES))
        .and(query_param("To", ANNA))
        .and(query_param("From", "whatsapp:+14155238886"))
        .and(query_param("DateSent>", "2026-11-21"))
        .respond_with(ResponseTemplate::new(200).set_body_json(found))
        .with_priority(1)
        .mount(&server)
        .await;
    let events = send(settings(&server.uri(), None), patience(), vec![notice(7)], false).await;
    assert_eq!(events, went("SM9", 7));
    assert_eq!(posts(&server).await.len(), 1);
}

#[tokio::test]
async fn after_a_hang_a_message_that_was_lost_is_sent_again() {
    let server = twilio(vec![taken().set_delay(REQUEST_TIMEOUT * 3)]).await;
    let events = send(settings(&server.uri(), None), patience(), vec![notice(7)], false).await;
    assert_eq!(events, went("SM1", 7));
    assert_eq!(asked(&server).await.len(), 1);
    assert_eq!(posts(&server).await.len(), 2);
}

#[tokio::test]
async fn what_an_earlier_run_may_have_sent_is_looked_up_first() {
    let server = twilio(vec![]).await;
    let events = send(settings(&server.uri(), None), patience(), vec![notice(7)], true).await;
    assert_eq!(events, went("SM1", 7));
    let order: Vec<_> = server.received_requests().await.expect("recorded");
    let methods: Vec<_> = order.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST", "GET"]);
    // One whose name at Twilio is known is only asked after.
    let known = Notice { sid: Some("SM5".to_owned()), ..notice(8) };
    let events = send(settings(&server.uri(), None), patience(), vec![known], true).await;
    assert_eq!(events, [Event::Delivered { id: 8, arrived: true }]);
    assert_eq!(posts(&server).await.len(), 1);
}

#[tokio::test]
async fn the_circuit_opens_leaves_twilio_alone_and_closes_again() {
    let server = twilio(vec![refused(500, 0), refused(500, 0), refused(500, 0)]).await;
    let notices = vec![notice(1), notice(2), notice(3)];
    let began = Instant::now();
    let events = send(settings(&server.uri(), None), patience(), notices, false).await;
    let delivered = events.iter().filter(|e| matches!(e, Event::Delivered { .. })).count();
    assert_eq!(delivered, 3, "{events:?}");
    assert!(began.elapsed() >= Duration::from_millis(400), "open for {:?}", began.elapsed());
    // Three that failed, three that went through: nothing was asked in between.
    assert_eq!(posts(&server).await.len(), 6);
}

#[tokio::test]
async fn a_twilio_that_stays_away_is_given_up_in_the_end() {
    // Nobody listens there any more.
    let address =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it");
    let base_url = format!("http://{address}");
    let age_max = Duration::from_millis(200);
    let patience = Patience { age_max, breaker_failures: 100, ..patience() };
    let events = send(settings(&base_url, None), patience, vec![notice(1)], false).await;
    let [Event::Dead { id: 1, reason }] = &events[..] else { panic!("{events:?}") };
    assert!(reason.contains("given up after") && reason.contains("refused"), "{reason}");
}

/// Whoever answers in Twilio's place cannot fill the memory; what it took it has.
#[tokio::test]
async fn an_answer_without_end_is_not_read_to_it() {
    let long = json!({"sid": "SM1", "status": "queued", "filler": "x".repeat(5 << 20)});
    let server = twilio(vec![ResponseTemplate::new(201).set_body_json(long)]).await;
    let events = send(settings(&server.uri(), None), patience(), vec![notice(1)], false).await;
    assert_eq!(events, [Event::Delivered { id: 1, arrived: false }]);
}

#[tokio::test]
async fn the_rate_limit_spaces_messages_after_the_first_few() {
    let server = twilio(vec![]).await;
    let mut settings = settings(&server.uri(), None);
    // One in half a second, five at once at first.
    settings.per_minute = 120;
    let began = Instant::now();
    let events = send(settings, patience(), (1..=7).map(notice).collect(), false).await;
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Delivered { .. })).count(), 7);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn dead_letters_are_sent_again_and_those_that_fail_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead = DeadLetters::of(folder.path());
    for id in [1, 2] {
        let letter = DeadLetter {
            at: "2026-11-21T02:52:07Z".to_owned(),
            consumer: "c1".to_owned(),
            reason: "63016".to_owned(),
            notice: notice(id),
        };
        dead.append(&letter).expect("kept");
    }
    let server = twilio(vec![taken(), refused(400, 21211)]).await;
    let letters = dead.take().expect("taken");
    let clock = SystemClock::shared();
    let settings = settings(&server.uri(), None);
    let twilio = Twilio::new(settings, &patience(), clock.clone()).expect("a client");
    let carriers = [Carrier::Twilio(twilio)];
    let failed = send_again(&letters, &carriers, patience(), &dead, clock.clone()).await;
    assert_eq!(failed.expect("kept"), 1);
    dead.forget_taken().expect("forgotten");
    // The second one stayed, with its new reason; Twilio has mended, and it goes.
    let letters = dead.take().expect("taken");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].notice.id, 2);
    assert!(letters[0].reason.contains("21211"), "{}", letters[0].reason);
    assert_eq!(send_again(&letters, &carriers, patience(), &dead, clock).await.expect("sent"), 0);
    dead.forget_taken().expect("forgotten");
    assert_eq!(dead.take().expect("taken"), []);
    assert_eq!(posts(&server).await.len(), 3);
}
