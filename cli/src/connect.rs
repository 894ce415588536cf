//! How commands reach a broker: the flag that names it, a runtime, a connection.

use std::future::Future;
use std::process;

use aklight_common::client::{Client, ClientConfig, parse_brokers};
use anyhow::Context;
use clap::Args;

/// The flag that every client has.
#[derive(Debug, Clone, Args)]
pub struct BrokerListArgs {
    /// The brokers to try: host:port, several with commas
    #[arg(long, env = "AKLIGHT_BROKERS", default_value = "127.0.0.1:7000",
          value_name = "HOST:PORT,…", value_parser = brokers)]
    brokers: Brokers,
}

/// A checked list of brokers.
#[derive(Debug, Clone)]
struct Brokers(Vec<String>);

fn brokers(list: &str) -> Result<Brokers, String> {
    parse_brokers(list).map(Brokers).map_err(|error| error.to_string())
}

impl BrokerListArgs {
    /// How to reach the brokers, under a name that no other command bears.
    pub fn config(&self) -> ClientConfig {
        ClientConfig::new(self.brokers.0.clone(), &format!("cli-{}", process::id()))
    }

    /// Connects to the first broker that answers.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(self.config()).await?)
    }
}

/// Runs a command that waits for others: one thread is enough for all of them.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for the network could be started")?
        .block_on(command)
}
