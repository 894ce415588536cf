//! The channels that are set up: all of them checked, every mistake told at once.

use std::sync::Arc;

use aklight_common::clock::SharedClock;

use super::carrier::Carrier;
use super::email::EmailArgs;
use super::sender::Patience;
use super::webhook::WebhookArgs;
use super::whatsapp::{Twilio, TwilioArgs};
use crate::setup::with_causes;

/// How to reach people, as typed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ChannelArgs {
    /// WhatsApp.
    #[command(flatten)]
    pub twilio: TwilioArgs,
    /// A webhook.
    #[command(flatten)]
    pub webhook: WebhookArgs,
    /// E-mail.
    #[command(flatten)]
    pub email: EmailArgs,
}

impl ChannelArgs {
    /// The carriers that are set up.
    ///
    /// # Errors
    /// Every mistake, as a sentence.
    pub fn resolve(
        &self,
        patience: &Patience,
        clock: &SharedClock,
    ) -> Result<Vec<Carrier>, Vec<String>> {
        let twilio = self.twilio.resolve().and_then(|settings| {
            settings.map(|s| Twilio::new(s, patience, Arc::clone(clock))).transpose()
        });
        let webhook = self.webhook.resolve(patience, Arc::clone(clock));
        let email = self.email.resolve(patience);
        let carriers = [
            twilio.map(|it| it.map(Carrier::Twilio)).map_err(|error| with_causes(&error)),
            webhook.map(|it| it.map(Carrier::Webhook)).map_err(|error| with_causes(&error)),
            email.map(|it| it.map(Carrier::Email)).map_err(|error| with_causes(&error)),
        ];
        let mistakes: Vec<String> =
            carriers.iter().filter_map(|carrier| carrier.as_ref().err().cloned()).collect();
        if mistakes.is_empty() {
            Ok(carriers.into_iter().flatten().flatten().collect())
        } else {
            Err(mistakes)
        }
    }
}
