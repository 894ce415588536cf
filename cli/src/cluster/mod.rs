//! `aklight cluster`: who is in the cluster and how it fares, and changes to its members.
//!
//! All of it goes over a broker's HTTP, and any broker will do: one that cannot do a thing itself
//! passes it to the one that can. [`view`] is what a broker tells, [`status`] shows it.

mod status;
mod view;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::connect::block_on;
use crate::http::HttpArgs;

use status::StatusArgs;

pub use view::View;

/// What to do; without a word: show how it fares.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ClusterArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    status: StatusArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show brokers, leaders, and how far each copy is behind
    Status(StatusArgs),
    /// Take in a broker; then start it: --node-id ID, an empty folder, --peers with a member and itself
    Add {
        /// Its number and where other brokers reach it, as in 4@broker4:7090
        #[arg(value_name = "ID@HOST:PORT", value_parser = new_member)]
        broker: NewMember,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let a broker go for good: its number is not used again
    Remove {
        /// Its number
        #[arg(value_name = "ID", value_parser = broker_id)]
        broker: u64,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let a new broker, with a new number and an empty folder, take the place of a dead one
    Replace {
        /// The number of the dead one
        #[arg(value_name = "DEAD_ID", value_parser = broker_id)]
        dead: u64,
        /// The new one's number and where other brokers reach it, as in 4@broker4:7090
        #[arg(value_name = "ID@HOST:PORT", value_parser = new_member)]
        broker: NewMember,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let another broker lead
    TransferLeader {
        /// What it is to lead: metadata, or the number of a partition (0, or 'partition 0')
        #[arg(value_parser = group)]
        group: String,
        /// The number of the broker that is to lead
        #[arg(value_name = "ID", value_parser = broker_id)]
        to: u64,
        #[command(flatten)]
        http: HttpArgs,
    },
}

/// A broker that is to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NewMember {
    id: u64,
    peer: String,
}

/// Does it.
pub fn run(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let (path, order, http) = match &args.what {
        None => return status::run(&args.status),
        Some(What::Status(args)) => return status::run(args),
        Some(What::Add { broker, http }) => {
            ("/cluster/add", json!({ "id": broker.id, "peer": broker.peer }), http)
        }
        Some(What::Remove { broker, http }) => ("/cluster/remove", json!({ "id": broker }), http),
        Some(What::Replace { dead, broker, http }) => {
            let order = json!({ "dead": dead, "id": broker.id, "peer": broker.peer });
            ("/cluster/replace", order, http)
        }
        Some(What::TransferLeader { group, to, http }) => {
            ("/cluster/transfer-leader", json!({ "group": group, "to": to }), http)
        }
    };
    let done = block_on(async { http.any()?.post(path, &order).await })?;
    anstream::println!("{done}");
    Ok(ExitCode::SUCCESS)
}

/// The number of a broker: `2`, or `broker2` as it is called in containers and by `up`.
pub fn broker_id(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("broker").unwrap_or(text);
    match digits.parse() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err("a broker has a number from 1: write 2 or broker2".to_owned()),
    }
}

fn new_member(text: &str) -> Result<NewMember, String> {
    let wrong =
        || "write the number and where other brokers reach it, as in 4@broker4:7090".to_owned();
    let (id, peer) = text.split_once('@').ok_or_else(wrong)?;
    let (host, port) = peer.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(NewMember { id: broker_id(id)?, peer: peer.to_owned() })
}

fn group(text: &str) -> Result<String, String> {
    let number = text.strip_prefix("partition").map_or(text, |rest| rest.trim_matches([' ', '-']));
    match (text, number.parse::<u32>()) {
        ("metadata", _) => Ok("metadata".to_owned()),
        (_, Ok(number)) => Ok(format!("partition {number}")),
        (_, Err(_)) => Err("write metadata, or the number of a partition".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_number_with_or_without_its_word() {
        assert_eq!((broker_id("2"), broker_id("broker12")), (Ok(2), Ok(12)));
        assert!(["0", "", "broker", "two", "-1"].iter().all(|text| broker_id(text).is_err()));
    }

    #[test]
    fn a_new_member_is_a_number_and_an_address() {
        let member = |id, peer: &str| Ok(NewMember { id, peer: peer.to_owned() });
        assert_eq!(new_member("4@broker4:7090"), member(4, "broker4:7090"));
        assert_eq!(new_member("broker4@[::1]:7090"), member(4, "[::1]:7090"));
        for wrong in ["4", "4@", "4@host", "4@host:0", "4@host:x", "4@:7090", "0@host:7090"] {
            assert!(new_member(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_group_is_the_metadata_or_a_partition() {
        for text in ["0", "partition 0", "partition-0", "partition0"] {
            assert_eq!(group(text).as_deref(), Ok("partition 0"));
        }
        assert_eq!(group("metadata").as_deref(), Ok("metadata"));
        assert!(group("partition").is_err() && group("meta").is_err() && group("").is_err());
    }
}
