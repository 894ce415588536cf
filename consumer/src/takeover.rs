//! What another consumer of this name left, read from a broker: see [`Left`].

use aklight_common::client::{Client, ClientConfig, ClientError, FetchRequest, Message};
use aklight_common::limits::FETCH_RECORDS_MAX;
use aklight_common::{Pattern, PatternError};

use crate::alerts::actions;
use crate::engine::adopting::Left;

/// Why it cannot be read: tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// Where the labels of a container look for silence.
const STATES: &str = "metrics/docker/+/+/state";

/// Reads it, for rules that look for silence under `awaited` and a consumer that hears what is
/// under `followed`.
pub(crate) async fn read(
    config: &ClientConfig,
    mut awaited: Vec<Pattern>,
    followed: &[Pattern],
) -> Result<Left, TakeoverError> {
    let mut client = Client::connect(config.clone()).await?;
    let infos = client.last(&Pattern::new("info/docker/#")?).await?;
    let mut heard = Vec::new();
    awaited.push(Pattern::new(STATES)?);
    for pattern in awaited {
        heard.extend(client.last(&pattern).await?.into_iter().map(|message| message.topic));
    }
    heard.retain(|topic| followed.iter().any(|pattern| pattern.matches(topic.as_str())));
    let alerts = client.last(&Pattern::new("alerts/#")?).await?;
    let actions = actions(&mut client).await?;
    Ok(Left { infos, heard, alerts, actions })
}

/// Every action that is kept: people's, so that there are few.
async fn actions(client: &mut Client) -> Result<Vec<Message>, TakeoverError> {
    let pattern = Pattern::new(actions::TOPIC)?;
    let mut found = Vec::new();
    for partition in client.cluster().await?.partitions {
        let mut offset = partition.start;
        while offset < partition.end {
            let (pattern, partition) = (pattern.clone(), Some(partition.id));
            let max = FETCH_RECORDS_MAX;
            let request = FetchRequest { pattern, offset, partition, max, wait_ms: 0 };
            let fetched = client.fetch(&request).await?;
            found.extend(fetched.messages);
            match fetched.next.first() {
                Some((_, next)) if *next > offset => offset = *next,
                _ => break,
            }
        }
    }
    Ok(found)
}
