//! Chance, taken from the program and given back by seed.
//!
//! The standard library's hash maps, tokio's `select!` and openraft's election times all ask the
//! system for randomness, and all do so by the C function `getrandom`. A program may define that
//! function itself; then the libraries in it use that one. So one seed gives one order of every
//! hash map and one length of every election time, and a run can be seen again.
//!
//! It is exported from the program (`build.rs`), because some libraries look it up at run time.
//! `tests/runs.rs` holds that it works: one seed twice, with one trace.

use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// From now on chance follows from this seed.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// The system's source of randomness, made predictable.
///
/// # Safety
/// As C has it: `buffer` points to `length` bytes that may be written.
#[expect(unsafe_code, reason = "it takes the place of a C function, which is how chance is tamed")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    if buffer.is_null() {
        return 0;
    }
    // SAFETY: the caller promises so many writable bytes, as for the function that this replaces.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for part in bytes.chunks_mut(8) {
        let word = next().to_le_bytes();
        part.copy_from_slice(&word[..part.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

fn next() -> u64 {
    crate::dice::mixed(STATE.fetch_add(crate::dice::STEP, Ordering::Relaxed))
}
