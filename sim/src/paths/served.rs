//! What clients of a broker are served, from their lines to their answers.

use aklight_broker::converse;
use anyhow::ensure;
use tokio::io::AsyncWriteExt as _;

use super::broker::Broker;
use super::load::{self, QUARTER};
use super::stream::{Again, Heard};

/// Records that are stored to be read.
const STORED: u64 = 10_000;

/// Records of a round of those that are sent.
const SENT: u64 = 5_000;

/// Keeps all that is stored in memory.
const WHOLE_TAIL: usize = 64 << 20;

/// Records in, each acknowledged by a line of its own.
pub fn ingest(rounds: u64) -> anyhow::Result<u64> {
    let broker = Broker::start(WHOLE_TAIL)?;
    send(&broker, SENT, rounds)?;
    Ok(rounds * SENT)
}

/// What is stored, all of it, from segments.
pub fn deliver(rounds: u64) -> anyhow::Result<u64> {
    fetch("metrics/#", STORED, rounds)
}

/// What is stored, a quarter of it, from segments.
pub fn filter(rounds: u64) -> anyhow::Result<u64> {
    fetch(QUARTER, STORED / 4, rounds)
}

fn fetch(pattern: &str, matching: u64, rounds: u64) -> anyhow::Result<u64> {
    let broker = Broker::start(0)?;
    send(&broker, STORED, 1)?;
    let ask = Again::new(format!("FETCH|{pattern}|0|*|{STORED}|0\n"), rounds);
    let heard = say(&broker, ask)?;
    let is_all = heard.last_line().starts_with(&format!("END|{matching}|"));
    ensure!(is_all, "the last answer is {}", heard.last_line());
    Ok(rounds * STORED)
}

/// What is new, all of it, as one who comes back to it is sent it: from memory.
pub fn push(rounds: u64) -> anyhow::Result<u64> {
    let broker = Broker::start(WHOLE_TAIL)?;
    const REGISTER: &str = "REGISTER_CONSUMER|reader|1\n";
    say(&broker, Again::new(REGISTER, 1))?;
    send(&broker, STORED, 1)?;
    let pushed = &broker.services.stats.records_pushed;
    for round in 1..=rounds {
        broker.runtime.block_on(async {
            let (mut client, here) = tokio::io::duplex(1024);
            let talk =
                converse(Box::new(here), Box::new(Heard::default()), broker.services.clone());
            let talk = tokio::spawn(talk);
            client.write_all(format!("{REGISTER}SUBSCRIBE|metrics/#\n").as_bytes()).await?;
            while pushed.get() < round * STORED {
                tokio::task::yield_now().await;
            }
            drop(client);
            talk.await?
        })?;
    }
    ensure!(pushed.get() == rounds * STORED, "{} records were pushed", pushed.get());
    Ok(rounds * STORED)
}

fn send(broker: &Broker, records: u64, times: u64) -> anyhow::Result<()> {
    say(broker, Again::new(load::lines(records), times))?;
    let stored = broker.services.stats.records_stored.get();
    ensure!(stored == records * times, "{stored} records were stored");
    Ok(())
}

fn say(broker: &Broker, lines: Again) -> anyhow::Result<Heard> {
    let heard = Heard::default();
    let talk = converse(Box::new(lines), Box::new(heard.clone()), broker.services.clone());
    broker.runtime.block_on(talk)?;
    let refused = broker.services.stats.commands_refused.get();
    ensure!(refused == 0, "{refused} lines were refused: {}", heard.last_line());
    Ok(heard)
}
