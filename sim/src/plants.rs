//! Bugs that are planted on purpose: a simulation that does not find them finds nothing.
//!
//! None is in the broker's own code. Each lies in what the simulation puts under it: a disk that
//! lies, a network that means too well. To the broker's clients the difference does not show.

use std::fmt;
use std::str::FromStr;

use aklight_oracle::Rule;

/// Which bugs are planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plants {
    /// The disk says that the log's segments are synced, and the note of what was acknowledged, and
    /// begins only when the next write comes: ACK before sync. (Where the note is honest, the broker
    /// finds the loss by itself and does not go on.)
    pub early_sync: bool,
    /// The disk forgets the vote at a crash: a broker votes twice in one term.
    pub forgotten_vote: bool,
    /// A crashed broker comes back with its disk as it was a while ago: a backup, restored with
    /// the best of intentions.
    pub restored_backup: bool,
    /// Two messages of a stream of records change places.
    pub swapped_messages: bool,
    /// A command is answered with the answer to another one, and never carried out: acknowledged
    /// offsets that nobody keeps.
    pub replayed_answers: bool,
}

impl Plants {
    /// Whether any is planted.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// One of them, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// See [`Plants::early_sync`].
    EarlySync,
    /// See [`Plants::forgotten_vote`].
    ForgottenVote,
    /// See [`Plants::restored_backup`].
    RestoredBackup,
    /// See [`Plants::swapped_messages`].
    SwappedMessages,
    /// See [`Plants::replayed_answers`].
    ReplayedAnswers,
}

impl Plant {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::EarlySync,
        Self::ForgottenVote,
        Self::RestoredBackup,
        Self::SwappedMessages,
        Self::ReplayedAnswers,
    ];

    /// The promises that it breaks: a plant is found when one of them is.
    #[must_use]
    pub const fn breaks(self) -> &'static [Rule] {
        match self {
            Self::EarlySync => &[Rule::Durable, Rule::Unchanging],
            Self::ForgottenVote => &[Rule::Leaders],
            Self::RestoredBackup => &[Rule::Durable, Rule::Unchanging, Rule::Leaders],
            Self::SwappedMessages => &[Rule::Unchanging, Rule::KeyOrder],
            Self::ReplayedAnswers => &[Rule::Positions],
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::EarlySync => "early-sync",
            Self::ForgottenVote => "forgotten-vote",
            Self::RestoredBackup => "restored-backup",
            Self::SwappedMessages => "swapped-messages",
            Self::ReplayedAnswers => "replayed-answers",
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|plant| plant.as_str() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("no plant is called so: there are {}", names.join(", "))
        })
    }
}

impl From<Option<Plant>> for Plants {
    fn from(plant: Option<Plant>) -> Self {
        let is = |other| plant == Some(other);
        Self {
            early_sync: is(Plant::EarlySync),
            forgotten_vote: is(Plant::ForgottenVote),
            restored_backup: is(Plant::RestoredBackup),
            swapped_messages: is(Plant::SwappedMessages),
            replayed_answers: is(Plant::ReplayedAnswers),
        }
    }
}
