//! A burner: one thread that computes for nothing but warmth.

use std::hint::black_box;

use crate::switch::Switch;

/// Steps between two looks at the switch: some tenths of a millisecond, so that the end comes at
/// once and the lock costs nothing.
const STEPS: u32 = 200_000;

/// Computes whenever there is work, until the run ends.
pub(crate) fn burn(switch: &Switch) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while switch.may_work() {
        for _ in 0..STEPS {
            // Marsaglia's xorshift: each step needs the last one, so nothing can be skipped.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        black_box(state);
    }
}
