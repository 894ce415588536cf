//! Those who only look: where partitions end by each broker's word, and who leads in which term.
//!
//! Ends come over the line protocol, on a connection that lives as long as its broker: what a
//! broker says never goes back within one, and covers what was acknowledged before the question.
//! Leaders and terms come over HTTP, [`HTTP_ABOVE`] ports above the lines, from brokers that serve
//! `/cluster`.

use std::time::Duration;

use aklight_common::client::PartitionInfo;
use aklight_common::{BrokerId, Term};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::course::Course;
use super::link::Link;
use super::story::Story;

/// HTTP stands this far above the line protocol: 7000 and 7070.
const HTTP_ABOVE: u16 = 70;

/// How often everybody is asked.
const ASK_EVERY: Duration = Duration::from_millis(700);

/// How long a broker may take to answer a look; it may wait for its peers.
const PATIENCE: Duration = Duration::from_secs(7);

/// How long HTTP may take: longer means that the broker is stopped or dead.
const HTTP_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks one broker for ends, for as long as it is let.
pub async fn ends(course: Course, number: usize) {
    let broker = BrokerId(number as u64 + 1);
    loop {
        if let Err(reason) = ends_of_one_life(&course, number, broker).await {
            tracing::debug!(%broker, %reason, "its ends are not known for now");
        }
        sleep(ASK_EVERY).await;
    }
}

async fn ends_of_one_life(course: &Course, number: usize, broker: BrokerId) -> Result<(), String> {
    let mut link = Link::open(&course.addresses[number], PATIENCE, &course.clock).await?;
    let life = course.witness.connection();
    loop {
        let question = course.witness.asks_ends();
        // Without a leader to ask, a broker says where its own copy ends, and that it does so.
        let sure = |partition: &PartitionInfo| partition.leader.is_some();
        for partition in link.partitions().await?.into_iter().filter(sure) {
            course.witness.end_seen(broker, life, (partition.id, partition.end), question);
        }
        sleep(ASK_EVERY).await;
    }
}

/// Asks all brokers in turn who leads what, and tells what is new.
pub async fn leaders(course: Course, story: Story, http: Http) {
    let addresses: Vec<String> =
        course.addresses.iter().filter_map(|address| http_beside(address)).collect();
    loop {
        for address in &addresses {
            for seen in http.leaders(address).await {
                if course.witness.led(seen.number, seen.term, seen.leader) {
                    let Leader { group, leader, term, .. } = seen;
                    story.tell(&format!("           broker{leader} leads {group} in term {term}"));
                }
            }
        }
        sleep(ASK_EVERY).await;
    }
}

fn http_beside(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(HTTP_ABOVE)?;
    Some(format!("{host}:{port}"))
}

/// Who leads a group.
struct Leader {
    group: String,
    number: u32,
    leader: BrokerId,
    term: Term,
}

/// Asks brokers over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
}

impl Http {
    /// # Errors
    /// The client cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        // Brokers are asked directly, whatever proxy the environment has for the wide world.
        Ok(Self { client: reqwest::Client::builder().no_proxy().timeout(HTTP_TIMEOUT).build()? })
    }

    /// The leaders that a broker knows; none where it does not answer.
    async fn leaders(&self, address: &str) -> Vec<Leader> {
        let Ok(answer) = self.client.get(format!("http://{address}/cluster")).send().await else {
            return Vec::new();
        };
        let cluster: Value = answer.json().await.unwrap_or_default();
        let groups = cluster["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().filter_map(leader).collect()
    }

    /// Lets a broker feign a failure, or end it (`alive`).
    ///
    /// # Errors
    /// What it answers, or that it does not.
    pub async fn fault(
        &self,
        broker: BrokerId,
        address: &str,
        fault: &str,
        ms: Option<u64>,
    ) -> Result<(), String> {
        let mut order = json!({ "broker": broker.get(), "fault": fault });
        if let Some(ms) = ms {
            order["ms"] = json!(ms);
        }
        let sent = self.client.post(format!("http://{address}/fault")).json(&order).send().await;
        let answer = sent.map_err(|error| format!("POST /fault: {error}"))?;
        let status = answer.status();
        if !status.is_success() {
            let text = answer.text().await.unwrap_or_default();
            return Err(format!("POST /fault is answered with {status}: {text}"));
        }
        Ok(())
    }
}

fn leader(group: &Value) -> Option<Leader> {
    let name = group["group"].as_str()?;
    let number = match name.strip_prefix("partition ") {
        Some(partition) => partition.parse::<u32>().ok()? + 1,
        None => 0,
    };
    let leader = BrokerId(group["leader"].as_u64()?);
    Some(Leader { group: name.to_owned(), number, leader, term: Term(group["term"].as_u64()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_are_read_from_what_a_broker_tells() {
        let read = |group: &Value| leader(group).map(|seen| (seen.number, seen.leader, seen.term));
        let partition = json!({"group": "partition 1", "leader": 3, "term": 7});
        assert_eq!(read(&partition), Some((2, BrokerId(3), Term(7))));
        let metadata = json!({"group": "metadata", "leader": 1, "term": 2});
        assert_eq!(read(&metadata), Some((0, BrokerId(1), Term(2))));
        assert_eq!(read(&json!({"group": "metadata", "leader": null, "term": 2})), None);
    }

    #[test]
    fn http_stands_seventy_above() {
        assert_eq!(http_beside("localhost:7001").as_deref(), Some("localhost:7071"));
        assert_eq!(http_beside("[::1]:65500"), None);
    }
}
