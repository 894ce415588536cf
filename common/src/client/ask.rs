//! (in the making) The async client that asks and is answered, on one connection.
#![allow(unused, missing_docs, clippy::unused_async, reason = "signatures first")]

use super::values::{ClusterInfo, FetchRequest, Fetched, Message, Stored, TopicCount};
use super::{ClientConfig, ClientError};
use crate::Pattern;
use crate::wire::WireError;

/// One connection to one broker.
pub struct Client(());

impl Client {
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        panic!("in the making")
    }
    /// The broker that answers, as `host:port`.
    pub fn broker(&self) -> &str {
        panic!("in the making")
    }
    pub async fn produce(
        &mut self,
        topic: &str,
        key: &[u8],
        payload: &[u8],
    ) -> Result<Stored, ClientError> {
        panic!("in the making")
    }
    /// Pipelined: all at once, the answers in order.
    pub async fn produce_all(
        &mut self,
        records: &[(&str, &[u8], &[u8])],
    ) -> Result<Vec<Result<Stored, WireError>>, ClientError> {
        panic!("in the making")
    }
    pub async fn fetch(&mut self, request: &FetchRequest) -> Result<Fetched, ClientError> {
        panic!("in the making")
    }
    pub async fn last(&mut self, pattern: &Pattern) -> Result<Vec<Message>, ClientError> {
        panic!("in the making")
    }
    pub async fn topics(&mut self, pattern: &Pattern) -> Result<Vec<TopicCount>, ClientError> {
        panic!("in the making")
    }
    pub async fn cluster(&mut self) -> Result<ClusterInfo, ClientError> {
        panic!("in the making")
    }
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        panic!("in the making")
    }
    pub async fn quit(self) -> Result<(), ClientError> {
        panic!("in the making")
    }
}
