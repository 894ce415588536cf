//! `aklight produce`: one record from the command line, or one for each line of standard input.
//!
//! Lines are sent in the batches in which they come: typed ones at once, piped ones by hundreds.
//! A refused line is told with its number and does not hold up the others. Left out: resending
//! over a lost connection; whoever needs that runs a producer with a name and a memory.

use std::io::{BufRead, Read};
use std::process::ExitCode;
use std::thread;

use aklight_common::Topic;
use aklight_common::client::Client;
use aklight_common::limits::LINE_BYTES_MAX;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;

use crate::connect::{BrokerListArgs, block_on};
use crate::output::{Format, Output, OutputArgs};

/// Most lines in one batch: enough to hide a round trip, few enough to answer while more come.
const BATCH_LINES_MAX: usize = 500;

/// What to append.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// Where the record belongs, as in metrics/docker/web/cpu
    #[arg(value_parser = Topic::new)]
    topic: Topic,
    /// What the partition is chosen by; empty: each in turn
    #[arg(default_value = "")]
    key: String,
    /// What the record says; - or nothing: a record for each line of standard input
    value: Option<String>,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Appends and prints where.
pub fn run(args: &ProduceArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let mut client = args.brokers.connect().await?;
        let mut sender = Sender { args, output: Output::new(&args.output), sent: 0, refused: 0 };
        match args.value.as_deref() {
            None | Some("-") => {
                let mut lines = stdin_lines()?;
                let mut batch = Vec::new();
                while lines.recv_many(&mut batch, BATCH_LINES_MAX).await > 0 {
                    let batch: Vec<Vec<u8>> = batch.drain(..).collect::<Result<_, _>>()?;
                    sender.send(&mut client, &batch).await?;
                }
            }
            Some(value) => sender.send(&mut client, &[value.as_bytes().to_vec()]).await?,
        }
        client.quit().await?;
        if sender.refused > 0 {
            bail!("{} of {} records were refused", sender.refused, sender.sent);
        }
        Ok(ExitCode::SUCCESS)
    })
}

struct Sender<'a> {
    args: &'a ProduceArgs,
    output: Output,
    sent: u64,
    refused: u64,
}

impl Sender<'_> {
    async fn send(&mut self, client: &mut Client, values: &[Vec<u8>]) -> anyhow::Result<()> {
        let topic = self.args.topic.as_str();
        let key = self.args.key.as_bytes();
        let records: Vec<(&str, &[u8], &[u8])> =
            values.iter().map(|value| (topic, key, value.as_slice())).collect();
        let answers = client.produce_all(&records).await.with_context(|| {
            format!(
                "{} records are stored; whether the next {} are is not known",
                self.sent - self.refused,
                records.len()
            )
        })?;
        for answer in answers {
            self.sent += 1;
            match answer {
                Ok(stored) if self.output.format() == Format::Json => {
                    let (partition, offset) = (stored.partition.get(), stored.offset.get());
                    let told = json!({ "topic": topic, "partition": partition, "offset": offset });
                    self.output.line(&told.to_string())?;
                }
                Ok(stored) => {
                    self.output
                        .line(&format!("p{}@{}  {topic}", stored.partition, stored.offset))?;
                }
                Err(error) => {
                    self.refused += 1;
                    anstream::eprintln!("record {}: {error}", self.sent);
                }
            }
        }
        Ok(())
    }
}

/// The lines of standard input, read by a thread, because reading it blocks. The thread ends
/// with the process.
fn stdin_lines() -> anyhow::Result<mpsc::Receiver<anyhow::Result<Vec<u8>>>> {
    let (sender, lines) = mpsc::channel(BATCH_LINES_MAX);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut number = 0;
        loop {
            number += 1;
            let line = match read_line(&mut input, number) {
                Ok(None) => return,
                Ok(Some(line)) => Ok(line),
                Err(error) => Err(error),
            };
            let last = line.is_err();
            if sender.blocking_send(line).is_err() || last {
                return;
            }
        }
    })?;
    Ok(lines)
}

/// Reads a line without its end, never more than a broker would take.
fn read_line(input: &mut impl BufRead, number: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let longest = LINE_BYTES_MAX as u64 + 1;
    let read = input
        .take(longest)
        .read_until(b'\n', &mut line)
        .context("standard input cannot be read")?;
    if read == 0 {
        return Ok(None);
    }
    match line.pop() {
        Some(b'\n') => {}
        _ if read as u64 == longest => {
            bail!("line {number} is longer than {LINE_BYTES_MAX} bytes: a broker takes no more")
        }
        // The last line of a file that ends without one.
        Some(last) => line.push(last),
        None => {}
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Vec<u8>> {
        let mut input = input;
        std::iter::from_fn(|| read_line(&mut input, 1).expect("reads")).collect()
    }

    #[test]
    fn each_line_is_a_record_and_the_last_needs_no_end() {
        assert_eq!(lines(b"a\n\nb|c\xff"), [&b"a"[..], b"", b"b|c\xff"]);
        assert_eq!(lines(b"a\n"), [b"a"]);
    }

    #[test]
    fn a_line_that_no_broker_would_take_is_an_error() {
        let long = vec![b'x'; LINE_BYTES_MAX + 2];
        let error = read_line(&mut long.as_slice(), 7).expect_err("too long");
        assert!(error.to_string().contains("line 7 is longer"), "{error}");
    }
}
