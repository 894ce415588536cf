//! What is asked of a broker beside the subscription: what is stored already, how the cluster is,
//! and to store what somebody did about an alert.
//!
//! Each question has a connection of its own, so that a slow one holds up no other; when the broker
//! is gone it fails, and is asked again by whoever still wants to know.

use aklight_common::Pattern;
use aklight_common::client::{
    Client, ClientConfig, ClientError, ClusterInfo, FetchRequest, Message,
};
use aklight_common::limits::FETCH_RECORDS_DEFAULT;

use super::alert::Deed;
use super::record::{Key, Payload, ROLLUP};
use crate::cluster::View;
use crate::http::HttpArgs;

/// Most records that are fetched of a partition for one question: where there are more, a chart has
/// a gap between them and what comes live.
const RECORDS_MAX: usize = 20_000;

/// How far the small charts of the list go back.
const LIST_MS: u64 = 120_000;

/// How far the charts of a container go back, and those of its rollups.
const MINUTES_MS: u64 = 300_000;
const DAY_MS: u64 = 86_400_000;

/// A question.
#[derive(Debug, Clone)]
pub enum Ask {
    /// The newest record of everything that is shown.
    Newest,
    /// The last minutes of every CPU.
    LastMinutes,
    /// Everything of a container.
    Everything(Key),
    /// Who is in the cluster, and who leads.
    Cluster,
    /// Store a record: what is done, to which alert, and the record.
    Act(Deed, String, String),
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// Records.
    Stored(Vec<Message>),
    /// Records of a container, and its rollups.
    Everything(Key, Vec<Message>, Vec<Message>),
    /// The cluster.
    Cluster(Box<Members>),
    /// It is stored.
    Acted(Deed, String),
    /// There is none.
    Failed(Ask, String),
}

/// The cluster, as clients see it and as brokers see each other.
#[derive(Debug, Default)]
pub struct Members {
    /// What every broker tells over the line protocol.
    pub info: ClusterInfo,
    /// What one tells over HTTP, where that was reached and is of the same cluster.
    pub view: Option<View>,
    /// When it was told, in milliseconds.
    pub at_ms: u64,
}

/// Where questions go.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The brokers.
    pub config: ClientConfig,
    /// Where they serve HTTP.
    pub http: HttpArgs,
}

impl Asker {
    /// Asks.
    pub async fn ask(self, ask: Ask, now_ms: u64) -> Answer {
        match self.answer(&ask, now_ms).await {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(ask, error.to_string()),
        }
    }

    async fn answer(&self, ask: &Ask, now_ms: u64) -> Result<Answer, ClientError> {
        let mut client = Client::connect(self.config.clone()).await?;
        let answer = match ask {
            Ask::Newest => Answer::Stored(newest(&mut client).await?),
            Ask::LastMinutes => {
                let mut found = Vec::new();
                for pattern in ["metrics/docker/+/cpu", "metrics/docker/+/+/cpu"] {
                    found.extend(since(&mut client, pattern, now_ms - LIST_MS.min(now_ms)).await?);
                }
                Answer::Stored(found)
            }
            Ask::Everything(key) => everything(&mut client, key, now_ms).await?,
            Ask::Cluster => {
                let info = client.cluster().await?;
                let view = self.view(&info).await;
                Answer::Cluster(Box::new(Members { info, view, at_ms: now_ms }))
            }
            Ask::Act(deed, about, record) => {
                client.produce("actions/alerts", b"alerts", record.as_bytes()).await?;
                Answer::Acted(*deed, about.clone())
            }
        };
        // The answer is there: whether the leave-taking was heard changes nothing.
        let _ = client.quit().await;
        Ok(answer)
    }

    /// What a broker tells over HTTP, if it is one of these: the flags may name two clusters.
    async fn view(&self, info: &ClusterInfo) -> Option<View> {
        let view: View =
            serde_json::from_value(self.http.any().ok()?.get("/cluster").await.ok()?).ok()?;
        let of_cluster = |(id, address): (u64, &str)| {
            info.brokers.iter().any(|known| known.id.get() == id && known.address == address)
        };
        let same = view.members().all(of_cluster);
        same.then_some(view)
    }
}

/// The newest record of each topic that is shown.
pub async fn newest(client: &mut Client) -> Result<Vec<Message>, ClientError> {
    let mut found = Vec::new();
    // What a container is comes first: of one that is removed the samples are then passed over.
    for pattern in ["info/docker/#", "metrics/docker/#", "alerts/#"] {
        if let Ok(pattern) = Pattern::new(pattern) {
            found.extend(client.last(&pattern).await?);
        }
    }
    Ok(found)
}

async fn everything(client: &mut Client, key: &Key, now_ms: u64) -> Result<Answer, ClientError> {
    let Key { producer, container } = key;
    let minutes = now_ms.saturating_sub(MINUTES_MS);
    let day = now_ms.saturating_sub(DAY_MS);
    let samples = format!("metrics/docker/{producer}/{container}/#");
    let mut stored = since(client, &samples, minutes).await?;
    let events = format!("events/docker/{producer}/{container}");
    stored.extend(since(client, &events, day).await?);
    let rollups = since(client, &format!("{ROLLUP}{samples}"), day).await?;
    Ok(Answer::Everything(key.clone(), stored, rollups))
}

/// What was measured from a time on. Of what is longer than a topic can be there is nothing.
async fn since(
    client: &mut Client,
    pattern: &str,
    from_ms: u64,
) -> Result<Vec<Message>, ClientError> {
    let mut found = Vec::new();
    let Ok(pattern) = Pattern::new(pattern) else { return Ok(found) };
    for partition in client.cluster().await?.partitions {
        let ts = |message: &Message| Payload::of(message).map(|payload| payload.ts());
        let mut offset = client.first_since(&pattern, &partition, from_ms, ts).await?;
        let full = found.len() + RECORDS_MAX;
        while offset < partition.end && found.len() < full {
            let (pattern, partition) = (pattern.clone(), Some(partition.id));
            let max = FETCH_RECORDS_DEFAULT;
            let request = FetchRequest { pattern, offset, partition, max, wait_ms: 0 };
            let fetched = client.fetch(&request).await?;
            let next = fetched.next.iter().map(|(_, next)| *next).find(|next| *next > offset);
            found.extend(fetched.messages);
            match next {
                Some(next) => offset = next,
                None => break,
            }
        }
    }
    Ok(found)
}
