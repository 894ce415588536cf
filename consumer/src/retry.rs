//! `aklight alerts retry`: sends dead letters again.
//!
//! Each is looked up at Twilio before it is sent, for a letter may have died of a timeout behind
//! which the message went through.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::{SharedClock, SystemClock};
use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

use crate::RetryArgs;
use crate::alerts::Notice;
use crate::alerts::dead::{DeadLetter, DeadLetters};
use crate::notify::message::{moment, what};
use crate::notify::whatsapp::{Event, Order, Patience, Sender, Settings, Twilio, masked};

/// Somebody waits in front of the terminal: three attempts, and one look at what became of it.
fn patience() -> Patience {
    Patience {
        attempts_max: 3,
        backoff_max: Duration::from_secs(5),
        follow_up: vec![Duration::from_secs(3)],
        ..Patience::default()
    }
}

/// Sends every dead letter of a consumer's folder again; those that fail stay. Exit code 1 when
/// any stays.
///
/// # Errors
/// When the letters cannot be read, or WhatsApp is not set up.
pub fn alerts_retry(args: &RetryArgs) -> anyhow::Result<ExitCode> {
    let Some(settings) = args.twilio.resolve()? else {
        bail!(
            "WhatsApp is not set up: set TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, TWILIO_FROM_NUMBER and TWILIO_TO_NUMBER"
        );
    };
    let dead = DeadLetters::of(&args.offsets_dir);
    let letters = dead.take()?;
    if letters.is_empty() {
        anstream::println!("no dead letters in {}", dead.path().display());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let clock = SystemClock::shared();
    let failed = runtime.block_on(send_again(&letters, settings, patience(), &dead, clock))?;
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
    settings: Settings,
    patience: Patience,
    dead: &DeadLetters,
    clock: SharedClock,
) -> anyhow::Result<usize> {
    let mut failed = 0;
    let twilio = Twilio::new(settings, &patience, Arc::clone(&clock))?;
    // One at a time: letters of several consumers may carry the same number, and each consumer's
    // name is part of the reference by which a message is looked up.
    for letter in letters {
        let (orders, queue) = mpsc::channel(1);
        let (events_in, mut events) = mpsc::channel(1);
        let sender =
            Sender::new(&letter.consumer, twilio.clone(), patience.clone(), Arc::clone(&clock));
        let notice = Notice { sid: None, ..letter.notice.clone() };
        let shown = what(&notice.alert);
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
        let to = recipient(letter);
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

fn recipient(letter: &DeadLetter) -> String {
    match &letter.notice.destination {
        crate::alerts::Destination::WhatsApp { to } => masked(to),
        crate::alerts::Destination::Console => "the console".to_owned(),
    }
}
