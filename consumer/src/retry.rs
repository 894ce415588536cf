//! `aklight alerts retry`: sends dead letters again.
//!
//! Each is looked up at its carrier before it is sent, where that can be asked: a letter may have
//! died of a timeout behind which the message went through.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::{SharedClock, SystemClock};
use anyhow::{Context as _, anyhow, bail};
use tokio::sync::mpsc;

use crate::RetryArgs;
use crate::alerts::Notice;
use crate::alerts::dead::{DeadLetter, DeadLetters};
use crate::notify::carrier::Carrier;
use crate::notify::message::{moment, what};
use crate::notify::sender::{Event, Order, Patience, Sender};
use crate::rules::Channel;

/// Somebody waits in front of the terminal: a few attempts, and one look at what became of it.
fn patience() -> Patience {
    Patience {
        age_max: Duration::from_secs(10),
        backoff_max: Duration::from_secs(5),
        follow_up: vec![Duration::from_secs(3)],
        ..Patience::default()
    }
}

/// Sends every dead letter of a consumer's folder again; those that fail stay. Exit code 1 when
/// any stays.
///
/// # Errors
/// When the letters cannot be read, or no channel is set up.
pub fn alerts_retry(args: &RetryArgs) -> anyhow::Result<ExitCode> {
    let (patience, clock) = (patience(), SystemClock::shared());
    let carriers =
        args.channels.resolve(&patience, &clock).map_err(|wrong| anyhow!(wrong.join("\n")))?;
    if carriers.is_empty() {
        bail!(
            "no channel is set up: set the variables that the consumer has (TWILIO_…, AKLIGHT_WEBHOOK_URL, AKLIGHT_SMTP_…)"
        );
    }
    let dead = DeadLetters::of(&args.offsets_dir);
    let mails = carriers.iter().find(|carrier| carrier.channel() == Channel::Email);
    let recipients = mails.map(Carrier::destinations).unwrap_or_default();
    let letters: Vec<_> =
        dead.take()?.into_iter().flat_map(|letter| letter.spread(&recipients)).collect();
    if letters.is_empty() {
        anstream::println!("no dead letters in {}", dead.path().display());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let failed = runtime.block_on(send_again(&letters, &carriers, patience, &dead, clock))?;
    dead.forget_taken()?;
    anstream::println!("{} sent, {failed} kept", letters.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends letters, appends those that fail to `dead`, and gives back how many those are.
///
/// # Errors
/// When a letter that failed cannot be kept; nothing was removed then.
pub async fn send_again(
    letters: &[DeadLetter],
    carriers: &[Carrier],
    patience: Patience,
    dead: &DeadLetters,
    clock: SharedClock,
) -> anyhow::Result<usize> {
    let mut failed = 0;
    // One at a time: letters of several consumers may carry the same number, and each consumer's
    // name is part of the reference by which a message is looked up.
    for letter in letters {
        let to = letter.notice.destination.shown();
        let shown = what(&letter.notice.alert);
        let channel = letter.notice.destination.channel();
        let Some(carrier) = carriers.iter().find(|carrier| carrier.channel() == channel) else {
            failed += 1;
            anstream::println!("kept, {to}: {shown}: {} is not set up", channel.as_str());
            dead.append(letter)?;
            continue;
        };
        let (orders, queue) = mpsc::channel(1);
        let (events_in, mut events) = mpsc::channel(1);
        let sender =
            Sender::new(&letter.consumer, carrier.clone(), patience.clone(), Arc::clone(&clock));
        let notice = Notice { sid: None, ..letter.notice.clone() };
        orders.send(Order { notice, maybe_sent: true }).await.context("the queue is closed")?;
        drop(orders);
        let working = tokio::spawn(sender.run(queue, events_in));
        let mut reason = None;
        while let Some(event) = events.recv().await {
            if let Event::Dead { reason: why, .. } = event {
                reason = Some(why);
            }
        }
        working.await.context("the sender broke off")?;
        match reason {
            None => anstream::println!("sent to {to}: {shown}"),
            Some(reason) => {
                failed += 1;
                anstream::println!("kept, {to}: {shown}: {reason}");
                dead.append(&DeadLetter { at: moment(clock.wall_ms()), reason, ..letter.clone() })?;
            }
        }
    }
    Ok(failed)
}
