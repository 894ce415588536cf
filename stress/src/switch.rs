//! The switch that all threads of a run hang on: work, rest, or the end and its reason.
//!
//! A mutex guards the state, a condition variable wakes who waits for a change of it. The end is
//! final: the first reason stands, and no phase turns it back on.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use parking_lot::{Condvar, Mutex};

/// What the burners do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Work,
    Rest,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The time was over.
    Time,
    /// SIGINT, which is Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// A part of the run could not go on.
    Failed,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    end: Option<End>,
}

#[derive(Debug)]
pub(crate) struct Switch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Switch {
    pub(crate) fn shared() -> Arc<Self> {
        let state = Mutex::new(State { phase: Phase::Work, end: None });
        Arc::new(Self { state, changed: Condvar::new() })
    }

    /// Turns to a phase.
    pub(crate) fn turn(&self, phase: Phase) {
        let mut state = self.state.lock();
        if state.phase != phase {
            state.phase = phase;
            self.changed.notify_all();
        }
    }

    /// Ends the run, unless it is ended already.
    pub(crate) fn end(&self, why: End) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(why);
            self.changed.notify_all();
        }
    }

    pub(crate) fn ended(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Waits while the phase is rest. False when the run has ended.
    pub(crate) fn may_work(&self) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |s| s.end.is_none() && s.phase == Phase::Rest);
        state.end.is_none()
    }

    /// Waits for the end, but no longer than that.
    pub(crate) fn wait_for_end(&self, longest: Duration) -> Option<End> {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |s| s.end.is_none(), longest);
        state.end
    }
}

/// Lets SIGINT and SIGTERM end the run. To be called before other threads are started: they
/// inherit that these two are for the waiting thread alone.
pub(crate) fn end_on_signals(switch: &Arc<Switch>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let switch = Arc::clone(switch);
    // Never joined: it ends with the process, which the run outlives by a few lines only.
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let why = match signals.wait() {
            Ok(Signal::SIGINT) => End::Interrupted,
            Ok(_) => End::Terminated,
            Err(_) => End::Failed,
        };
        switch.end(why);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_stands() {
        let switch = Switch::shared();
        assert!(switch.may_work());
        switch.end(End::Interrupted);
        switch.end(End::Time);
        switch.turn(Phase::Rest);
        assert!(!switch.may_work() && switch.ended());
        assert_eq!(switch.wait_for_end(Duration::ZERO), Some(End::Interrupted));
    }

    #[test]
    fn a_resting_thread_wakes_for_work_and_for_the_end() {
        let switch = Switch::shared();
        for wake in [|s: &Switch| s.turn(Phase::Work), |s: &Switch| s.end(End::Time)] {
            switch.turn(Phase::Rest);
            let woken = thread::scope(|scope| {
                let sleeper = scope.spawn(|| switch.may_work());
                wake(&switch);
                sleeper.join().expect("no panic")
            });
            assert_eq!(woken, !switch.ended());
        }
    }
}
