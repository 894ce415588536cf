//! What the user said, checked: all mistakes are told at once, before anything is begun.

use aklight_common::client::{ClientConfig, parse_brokers};
use aklight_common::clock::{SharedClock, SystemClock};
use aklight_common::wire::command::check_client_id;
use anyhow::anyhow;
use tracing::warn;

use crate::ConsumerArgs;
use crate::load::load_rules;
use crate::notify::carrier::Carrier;
use crate::notify::sender::Patience;
use crate::rules::{Channel, Rule, Rules, defaults};

/// The arguments, resolved.
pub(crate) struct Setup {
    pub(crate) args: ConsumerArgs,
    pub(crate) config: ClientConfig,
    pub(crate) rules: Rules,
    pub(crate) carriers: Vec<Carrier>,
    pub(crate) patience: Patience,
    pub(crate) clock: SharedClock,
}

impl Setup {
    /// Checks everything that can be checked before anything is begun; all mistakes at once.
    pub(crate) fn resolve(args: ConsumerArgs) -> anyhow::Result<Self> {
        let clock = SystemClock::shared();
        let patience = Patience::default();
        let mut mistakes = Vec::new();
        let mut note = |mistake: String| mistakes.push(mistake);
        let brokers = parse_brokers(&args.brokers).map_err(|e| note(format!("--brokers: {e}")));
        if let Err(rule) = check_client_id(args.id.as_bytes()) {
            note(format!("--id: {rule}"));
        }
        if args.patterns.is_empty() {
            note("--patterns: name at least one, as in metrics/docker/#".to_owned());
        }
        let rules = match args.rules_file() {
            Some(file) => load_rules(file).map_err(|error| note(with_causes(&error))),
            None => Ok(defaults()),
        };
        let carriers = args
            .channels
            .resolve(&patience, &clock)
            .map_err(|wrong| wrong.into_iter().for_each(&mut note));
        match (brokers, rules, carriers) {
            (Ok(brokers), Ok(rules), Ok(carriers)) if mistakes.is_empty() => {
                let config = ClientConfig::new(brokers, &args.id);
                Ok(Self { args, config, rules, carriers, patience, clock })
            }
            _ => Err(anyhow!(mistakes.join("\n"))),
        }
    }
}

/// An error with all its causes, for a log's one line or a message's end.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// Says once what rules ask for that nobody has set up.
pub(crate) fn warn_of_channels_not_set_up(rules: &[Rule], set_up: &[Channel]) {
    let how = [
        (Channel::WhatsApp, "set the TWILIO_ variables"),
        (Channel::Webhook, "set AKLIGHT_WEBHOOK_URL"),
        (Channel::Email, "set the AKLIGHT_SMTP_ variables"),
    ];
    for (channel, how) in how.into_iter().filter(|(channel, _)| !set_up.contains(channel)) {
        let asks = |rule: &&Rule| {
            let notify = rule.notify.iter().flatten();
            notify.chain(&rule.fallback).any(|asked| *asked == channel)
        };
        if let Some(rule) = rules.iter().find(asks) {
            let channel = channel.as_str();
            warn!(rule = rule.name, channel, "rules name a channel that is not set up: {how}");
        }
    }
}
