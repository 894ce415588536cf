//! What another consumer of this name left, read from a broker: see [`Left`].

use aklight_common::client::{Client, ClientConfig, ClientError};
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

/// Reads what the consumer of that name left, for rules that look for silence under `awaited` and
/// one that hears what is under `followed`.
pub(crate) async fn read(
    config: &ClientConfig,
    consumer: &str,
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
    // People's, or for people, so that there are few.
    let actions = client.fetch_all(&Pattern::new(actions::TOPIC)?).await?;
    let deliveries = Pattern::new(&format!("deliveries/{consumer}/#"))?;
    let deliveries = client.fetch_all(&deliveries).await?;
    Ok(Left { infos, heard, alerts, actions, deliveries })
}
