//! The system's clocks, stopped: a seed's run must not depend on how fast the machine is.
//!
//! Brokers ask the runtime that they run on for the time, and that one's time moves when the
//! simulation moves it. But a runtime begins its time from the system's, whoever asks outside of any
//! runtime is told the system's, and a library may ask for it by itself. All of them do so by the C function
//! `clock_gettime`. A program may define that function itself, as with chance ([`crate::entropy`]);
//! here it says the same for ever once the clocks are stopped.
//!
//! `tests/standstill.rs` holds that it works. Sleeping and waiting are not changed by it.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

/// What stopped clocks show: the second at which every simulation begins.
pub const BEGIN_S: u32 = 1_767_225_600;

static STOPPED: AtomicBool = AtomicBool::new(false);

/// From now on the system's clocks stand still, for the whole program.
pub fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// The system's clocks, which can be stopped.
///
/// # Safety
/// As C has it: `time` points to a `timespec` that may be written.
#[expect(unsafe_code, reason = "it takes the place of a C function, which is how time is tamed")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if STOPPED.load(Ordering::Relaxed) && !time.is_null() {
        // SAFETY: the caller promises a `timespec` that may be written.
        unsafe { time.write(libc::timespec { tv_sec: BEGIN_S.into(), tv_nsec: 0 }) };
        return 0;
    }
    // SAFETY: what the caller promises is what the kernel asks for.
    let outcome = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    c_int::try_from(outcome).unwrap_or(-1)
}
