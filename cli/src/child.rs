//! This program once more, as a child that does not outlive us: for `up` and `chaos`.
//!
//! The child is in a process group of its own, so that the terminal's Ctrl-C reaches the parent
//! alone, and the kernel signals it when the parent dies without a word. That death is the death
//! of the *thread* that started the child: start children from the main thread.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getpid, getppid};

/// A command line of this program, to be started; `on_our_death` is what the kernel sends it.
pub fn command(args: &[String], on_our_death: Signal) -> Command {
    let parent = getpid();
    // What was started, even when the file has been replaced by a newer build since.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("aklight")
        .args(args)
        // Our own settings file is none of theirs.
        .env_remove("AKLIGHT_CONFIG")
        .stdin(Stdio::null())
        .process_group(0);
    let before_exec = move || {
        set_pdeathsig(on_our_death)?;
        // The parent may have died before the line above; then no signal would ever come.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        // The parent may take its signals through a descriptor; the child wants them as
        // everybody does.
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only: it takes no lock and
    // allocates nothing, so it is safe whatever the process did before.
    #[expect(unsafe_code, reason = "the death signal can be set only there")]
    unsafe {
        command.pre_exec(before_exec);
    }
    command
}
