//! `aklight tail`: records as they come, with what is stored already first, if wanted.
//!
//! History and presence are sewn together without a gap and without doubles: the subscription is
//! opened first and says with which offset of each partition it begins; what lies before that is
//! fetched and printed; only then are the waiting live records taken. The broker keeps no
//! offsets for this consumer, and the client itself bridges a lost connection.

use std::process::ExitCode;
use std::time::Duration;

use aklight_common::client::{Client, FetchRequest, Subscription, SubscriptionEvent};
use aklight_common::limits::FETCH_RECORDS_DEFAULT;
use aklight_common::settings::{EXIT_DONE, EXIT_INTERRUPTED};
use aklight_common::{Offset, PartitionId, Pattern};
use anyhow::{Context, bail};
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::connect::{BrokerListArgs, block_on};
use crate::output::{Output, OutputArgs};

/// How often it is asked whether anybody still reads, while no record comes that would tell.
const READER_CHECK: Duration = Duration::from_millis(500);

/// What to watch.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Which topics: + stands for one level, # for all below
    #[arg(value_parser = Pattern::new)]
    pattern: Pattern,
    /// Begin with everything that is stored
    #[arg(long, conflicts_with = "offset")]
    from_start: bool,
    /// Begin with this offset, in each partition
    #[arg(long)]
    offset: Option<u64>,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints records until somebody ends it.
pub fn run(args: &TailArgs) -> anyhow::Result<ExitCode> {
    let end = block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = watch(args) => ended,
            () = received(&mut interrupt) => Ok(EXIT_INTERRUPTED),
            () = received(&mut terminate) => Ok(EXIT_DONE),
            () = reader_gone() => Ok(EXIT_DONE),
        }
    })?;
    Ok(ExitCode::from(end))
}

/// Never ends by itself, but for errors.
async fn watch(args: &TailArgs) -> anyhow::Result<u8> {
    // Somebody who mistyped the address wants to hear it now, not be reconnected for ever.
    let mut client = args.brokers.connect().await?;
    let mut output = Output::new(&args.output);
    let patterns = vec![args.pattern.clone()];
    let mut live = Subscription::open(args.brokers.config(), false, patterns);
    let history = match (args.from_start, args.offset) {
        (true, _) => Some(Offset(0)),
        (false, offset) => offset.map(Offset),
    };
    if let Some(first) = history {
        let until = positions(&mut live).await?;
        print_history(&mut client, &args.pattern, first, &until, &mut output).await?;
    }
    client.quit().await?;
    while let Some(event) = live.next().await {
        match event {
            SubscriptionEvent::Message(message) => {
                if message.offset >= history.unwrap_or_default() {
                    output.message(&message)?;
                }
            }
            SubscriptionEvent::Disconnected { reason, retry_in } => {
                tracing::debug!(%reason, ?retry_in, "the broker is gone; trying again");
            }
            SubscriptionEvent::Connected { broker, .. } => {
                tracing::debug!(broker, "connected");
            }
            SubscriptionEvent::Refused(error) => bail!("refused: {error}"),
        }
    }
    Ok(EXIT_DONE)
}

/// Where the subscription begins, in each partition.
async fn positions(live: &mut Subscription) -> anyhow::Result<Vec<(PartitionId, Offset)>> {
    while let Some(event) = live.next().await {
        match event {
            SubscriptionEvent::Connected { positions, .. } => return Ok(positions),
            SubscriptionEvent::Refused(error) => bail!("refused: {error}"),
            SubscriptionEvent::Message(_) | SubscriptionEvent::Disconnected { .. } => {}
        }
    }
    bail!("the subscription ended before it began")
}

/// Prints what is stored from `first` on, but only what lies before the subscription.
async fn print_history(
    client: &mut Client,
    pattern: &Pattern,
    first: Offset,
    until: &[(PartitionId, Offset)],
    output: &mut Output,
) -> anyhow::Result<()> {
    let kept = client.cluster().await?.partitions;
    for (partition, end) in until {
        let start = kept.iter().find(|p| p.id == *partition).map_or(Offset(0), |p| p.start);
        let mut offset = first.max(start);
        while offset < *end {
            let request = FetchRequest {
                pattern: pattern.clone(),
                offset,
                partition: Some(*partition),
                max: FETCH_RECORDS_DEFAULT,
                wait_ms: 0,
            };
            let fetched = client.fetch(&request).await?;
            for message in fetched.messages.iter().filter(|m| m.offset < *end) {
                output.message(message)?;
            }
            let next = fetched.next.iter().find(|(p, _)| p == partition).map(|(_, next)| *next);
            offset = next
                .filter(|next| *next > offset)
                .context("the broker does not say where its listing goes on")?;
        }
    }
    Ok(())
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Ends when nobody can read our output any more.
async fn reader_gone() {
    let stdout = std::io::stdout();
    let mut check = tokio::time::interval(READER_CHECK);
    loop {
        check.tick().await;
        // Nothing is asked for: an error is told anyway, and a pipe without a reader is one.
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let told = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|told| told > 0);
        if told && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
            return;
        }
    }
}
