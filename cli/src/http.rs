//! How commands ask a broker over HTTP: the flag that says where, questions, and orders.
//!
//! Several addresses may be given, one for each broker. A question goes round them until one
//! answers; an order is given to the next only when nothing can have reached the one before, so
//! that nothing is done twice. What a broker refuses is told in its own words.

use std::time::Duration;

use aklight_common::client::parse_brokers;
use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

/// Longest time for a connection: brokers are near, and the next one may be healthy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time to wait for an answer that a healthy broker gives at once.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for an order: a broker itself waits less than that for what it is told to do, so one
/// that says nothing until then is paused or cut off.
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

/// The flag that every command has which speaks HTTP.
#[derive(Debug, Clone, Args)]
pub struct HttpArgs {
    /// Where brokers serve HTTP: host:port, several with commas; the first that answers is used
    #[arg(long, env = "AKLIGHT_HTTP", value_name = "HOST:PORT,…", value_parser = addresses,
          default_value = "127.0.0.1:7070,127.0.0.1:7071,127.0.0.1:7072")]
    http: Addresses,
}

#[derive(Debug, Clone)]
struct Addresses(Vec<String>);

fn addresses(list: &str) -> Result<Addresses, String> {
    if list.split(',').any(|place| !place.contains(':')) {
        return Err("write host:port, as in 127.0.0.1:7070".to_owned());
    }
    parse_brokers(list).map(Addresses).map_err(|error| error.to_string())
}

/// Asks brokers, the one that answered last first.
pub struct Http {
    client: Client,
    addresses: Vec<String>,
}

impl HttpArgs {
    /// Any of the brokers will do.
    pub fn any(&self) -> anyhow::Result<Http> {
        Http::new(self.http.0.clone())
    }

    /// Only the first broker is meant: its answer is about itself.
    pub fn first(&self) -> anyhow::Result<Http> {
        Http::new(self.http.0.iter().take(1).cloned().collect())
    }
}

impl Http {
    fn new(addresses: Vec<String>) -> anyhow::Result<Self> {
        // A broker is asked directly, whatever proxy the environment has for the wide world.
        let client = Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build()?;
        Ok(Self { client, addresses })
    }

    /// Asks a question.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let mut trouble = Vec::new();
        let mut refusal = None;
        for n in 0..self.addresses.len() {
            let url = format!("http://{}{path}", self.addresses[n]);
            match self.client.get(&url).timeout(QUESTION_TIMEOUT).send().await {
                Ok(response) if response.status().is_success() => {
                    let answer = response.json().await;
                    // The next question goes there first: one that is silent costs time.
                    self.addresses[..=n].rotate_right(1);
                    return answer.with_context(|| {
                        format!("{url} answers no JSON: is this the HTTP port of a broker?")
                    });
                }
                Ok(response) => refusal = refusal.or(Some(refused(&url, response).await)),
                Err(error) => trouble.push(format!("{url} ({})", reason(&error))),
            }
        }
        Err(refusal.unwrap_or_else(|| nobody(&trouble)))
    }

    /// Gives an order, and tells what was done.
    pub async fn post(&self, path: &str, order: &Value) -> anyhow::Result<String> {
        let mut trouble = Vec::new();
        for address in &self.addresses {
            let url = format!("http://{address}{path}");
            match self.client.post(&url).timeout(ORDER_TIMEOUT).json(order).send().await {
                Ok(response) if response.status().is_success() => {
                    return done(&url, response).await;
                }
                Ok(response) => return Err(refused(&url, response).await),
                Err(error) if error.is_connect() => {
                    trouble.push(format!("{url} ({})", reason(&error)));
                }
                Err(error) => bail!(
                    "{url} took the order and did not answer ({}): whether it was done, \
                     `aklight cluster status` shows",
                    reason(&error)
                ),
            }
        }
        Err(nobody(&trouble))
    }
}

async fn done(url: &str, response: Response) -> anyhow::Result<String> {
    let answer: Value = response.json().await.unwrap_or_default();
    match answer.get("done").and_then(Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => bail!("{url} does not say what it did: is this the HTTP port of a broker?"),
    }
}

async fn refused(url: &str, response: Response) -> anyhow::Error {
    let status = response.status();
    let answer: Value = response.json().await.unwrap_or_default();
    match (answer.get("error").and_then(Value::as_str), status) {
        (Some(text), _) => anyhow::anyhow!("{url} refuses: {text}"),
        (None, StatusCode::NOT_FOUND) => {
            anyhow::anyhow!("{url} is not known there: is this the HTTP port of a broker?")
        }
        (None, status) => {
            anyhow::anyhow!("{url} answers {status}: is this the HTTP port of a broker?")
        }
    }
}

fn nobody(trouble: &[String]) -> anyhow::Error {
    anyhow::anyhow!(
        "no broker answers at {}: is one running, and is this its HTTP port?",
        trouble.join(", ")
    )
}

/// The last cause of an error is the one that a user can do something about.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
