//! Memory that is really there: asked for in blocks, written page by page, and written again so
//! that it stays.
//!
//! Invariant: `touched_mib` ≤ what was asked for, and all of it is resident unless the kernel
//! swaps; it is freed when the value is dropped.

use std::time::Duration;

use parking_lot::Mutex;

use crate::machine::MIB;
use crate::switch::Switch;

/// Blocks are small, so that the end of the run is seen soon while memory fills.
const BLOCK_MIB: u64 = 8;

/// The kernel hands memory out in pages of at least this size: one write in each makes it real.
const PAGE_BYTES: usize = 4096;

/// How often all pages are written again, so that none grows cold enough to be swapped out.
const REFRESH: Duration = Duration::from_secs(1);

/// Why memory could not be held.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no more than {got} of {wanted} MiB: ask for less, or raise `ulimit -v`")]
pub(crate) struct NoMemory {
    got: u64,
    wanted: u64,
}

pub(crate) struct Memory {
    wanted_mib: u64,
    blocks: Mutex<Vec<Vec<u8>>>,
}

impl Memory {
    pub(crate) fn new(wanted_mib: u64) -> Self {
        Self { wanted_mib, blocks: Mutex::new(Vec::new()) }
    }

    pub(crate) fn touched_mib(&self) -> u64 {
        self.blocks.lock().iter().map(|block| block.len() as u64 / MIB).sum()
    }

    /// Fills memory and keeps it warm until the run ends.
    pub(crate) fn hold(&self, switch: &Switch) -> Result<(), NoMemory> {
        let mut got = 0;
        while got < self.wanted_mib {
            if switch.ended() {
                return Ok(());
            }
            let mib = BLOCK_MIB.min(self.wanted_mib - got);
            let block = fresh_block(mib).ok_or(NoMemory { got, wanted: self.wanted_mib })?;
            self.blocks.lock().push(block);
            got += mib;
        }
        let mut round = 0_u8;
        while self.wanted_mib > 0 && switch.wait_for_end(REFRESH).is_none() {
            round = round.wrapping_add(1);
            self.blocks.lock().iter_mut().for_each(|block| touch(block, round));
        }
        Ok(())
    }
}

fn fresh_block(mib: u64) -> Option<Vec<u8>> {
    let bytes = usize::try_from(mib * MIB).ok()?;
    let mut block = Vec::new();
    block.try_reserve_exact(bytes).ok()?;
    // Zeroed pages that nobody wrote may be one page of the kernel: `touch` makes them ours.
    block.resize(bytes, 0);
    touch(&mut block, u8::MAX);
    Some(block)
}

/// Writes to every page, something else in each, so that no two can be merged into one.
fn touch(block: &mut [u8], round: u8) {
    for (n, page) in block.chunks_mut(PAGE_BYTES).enumerate() {
        page[0] = round;
        if let Some(number) = page.get_mut(1..9) {
            number.copy_from_slice(&(n as u64).to_le_bytes());
        }
    }
    std::hint::black_box(block);
}
