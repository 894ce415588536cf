//! A Twilio of our own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use wiremock::matchers::{method, path, path_regex};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// A Twilio that keeps what it took, and answers after a while.
#[derive(Clone, Default)]
pub struct Bodies(Arc<Mutex<Vec<String>>>);

impl Bodies {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("a lock").clone()
    }

    pub fn with(&self, mark: &str) -> usize {
        self.0.lock().expect("a lock").iter().filter(|body| body.contains(mark)).count()
    }
}

struct Take(Bodies, Duration, Duration);

impl Respond for Take {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let url = reqwest::Url::parse(&format!("http://x/?{form}")).expect("a form");
        let body = url.query_pairs().find(|(key, _)| key == "Body").expect("a body").1.into_owned();
        let mut kept = self.0.0.lock().expect("a lock");
        kept.push(body);
        let sid = format!("SM{}", kept.len());
        let delay = if kept.len() == 1 { self.1 } else { self.2 };
        ResponseTemplate::new(201)
            .set_body_json(json!({"sid": sid, "status": "queued"}))
            .set_delay(delay)
    }
}

struct List(Bodies);

impl Respond for List {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let bodies = self.0.0.lock().expect("a lock").clone();
        let messages: Vec<_> = bodies
            .iter()
            .map(|body| json!({"sid": "SM1", "status": "sent", "body": body}))
            .collect();
        ResponseTemplate::new(200).set_body_json(json!({ "messages": messages }))
    }
}

pub async fn twilio(first_answer_after: Duration, others_after: Duration) -> (MockServer, Bodies) {
    let (server, bodies) = (MockServer::start().await, Bodies::default());
    let messages = "/2010-04-01/Accounts/AC1/Messages.json";
    let take = Take(bodies.clone(), first_answer_after, others_after);
    Mock::given(method("POST")).and(path(messages)).respond_with(take).mount(&server).await;
    Mock::given(method("GET"))
        .and(path(messages))
        .respond_with(List(bodies.clone()))
        .mount(&server)
        .await;
    let delivered =
        ResponseTemplate::new(200).set_body_json(json!({"sid": "SM1", "status": "delivered"}));
    Mock::given(method("GET"))
        .and(path_regex("Messages/SM"))
        .respond_with(delivered)
        .mount(&server)
        .await;
    (server, bodies)
}
