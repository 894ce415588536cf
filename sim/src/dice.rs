//! Chance by seed: SplitMix64, which is small, well mixed and the same everywhere.
//!
//! Each part of a simulation has dice of its own ([`Dice::named`]), so that one more throw in one
//! part does not change what happens in the others.

/// Two to the 64th over the golden ratio: the step of SplitMix64.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's mixing function (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
#[must_use]
pub const fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(STEP);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// Numbers by chance.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice for a part of a simulation.
    #[must_use]
    pub fn named(seed: u64, part: &str) -> Self {
        Self(mixed(seed) ^ mixed(u64::from(crc32c::crc32c(part.as_bytes()))))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// A number below `limit`; 0 where there is none.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any().checked_rem(limit).unwrap_or(0)
    }

    /// A number from `low` up to and with `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Once in `many`.
    pub fn once_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(from.len() as u64)).ok()?;
        from.get(at)
    }

    /// Brings them into another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            all.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_seed_throw_apart_and_the_same_again() {
        let throws = |seed, part| {
            let mut dice = Dice::named(seed, part);
            (0..8).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(throws(1, "a"), throws(1, "a"));
        assert_ne!(throws(1, "a"), throws(1, "b"));
        assert_ne!(throws(1, "a"), throws(2, "a"));
    }
}
