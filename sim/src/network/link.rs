//! One direction of the way between two brokers.

use crate::dice::Dice;

/// How a link is. [`Default`] is a quiet local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Nothing passes.
    pub is_cut: bool,
    /// The shortest delay.
    pub delay_us_min: u64,
    /// The longest one of usual.
    pub delay_us_max: u64,
    /// Once in so many messages the delay is up to [`Self::late_us_max`] instead: who sent later
    /// arrives sooner. 0 for never.
    pub late_once_in: u64,
    /// See there.
    pub late_us_max: u64,
    /// Once in so many calls, the call or its answer is lost. 0 for never.
    pub lost_once_in: u64,
    /// Once in so many calls, the call arrives twice. 0 for never.
    pub doubled_once_in: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            is_cut: false,
            delay_us_min: 1000,
            delay_us_max: 3000,
            late_once_in: 0,
            late_us_max: 0,
            lost_once_in: 0,
            doubled_once_in: 0,
        }
    }
}

impl Link {
    /// The delay of the next message.
    pub fn delay_us(&self, dice: &mut Dice) -> u64 {
        if happens(self.late_once_in, dice) {
            return dice.between(self.delay_us_min, self.late_us_max);
        }
        dice.between(self.delay_us_min, self.delay_us_max)
    }

    /// Whether the next call is lost.
    pub fn loses(&self, dice: &mut Dice) -> bool {
        happens(self.lost_once_in, dice)
    }

    /// Whether the next call arrives twice.
    pub fn doubles(&self, dice: &mut Dice) -> bool {
        happens(self.doubled_once_in, dice)
    }
}

fn happens(once_in: u64, dice: &mut Dice) -> bool {
    once_in > 0 && dice.once_in(once_in)
}
