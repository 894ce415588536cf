//! The terminal: taken, given back, and given to the shell for a while.
//!
//! Invariant: however the process ends, but for `kill -9`, the terminal is as it was. An end in
//! order and an error drop [`Screen`]; a panic anywhere runs the hook that ratatui installs; signals
//! are events like keys. Ctrl-Z comes as a key, `kill -TSTP` as a signal that is held back: the
//! terminal is given back first, and only then does the signal do its work. That also leaves it to
//! the kernel whether there is a shell that could wake us again.

use std::io::{self, stdout};
use std::sync::Arc;
use std::thread;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{DefaultTerminal, Frame, Terminal};
use tokio::sync::Notify;

/// The terminal, for as long as this stands.
pub struct Screen {
    terminal: Option<DefaultTerminal>,
}

impl Screen {
    /// Takes the terminal.
    pub fn take() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| give_back())?;
        Ok(Self { terminal: Some(terminal) })
    }

    /// Draws a frame: what is other than in the one before is written.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        match &mut self.terminal {
            Some(terminal) => terminal.draw(render).map(drop),
            None => Ok(()),
        }
    }

    /// Gives the terminal back, stops until somebody says to go on, and takes it again.
    pub fn suspend(&mut self, stops: &Stops) -> io::Result<()> {
        give_back();
        stops.stop()?;
        self.take_again()
    }

    /// Takes the terminal as if for the first time: somebody else may have written on it.
    pub fn take_again(&mut self) -> io::Result<()> {
        // The shell may have changed the modes behind our back: off first, so that on is not
        // taken for what is so already.
        disable_raw_mode()?;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        // `Terminal::clear` would ask the terminal where the cursor is, and the answer would be
        // read by the thread that reads keys: a new one knows that nothing is drawn.
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        self.terminal = Some(terminal);
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The hook was here before, and what the panic said stands on the screen by now.
        if thread::panicking() {
            show_cursor();
        } else {
            give_back();
        }
        // It would say on standard error that its cursor cannot be shown, where its other end is
        // closed, and that would be a panic.
        std::mem::forget(self.terminal.take());
    }
}

/// Gives the terminal back; where nobody is at its other end, there is nothing to give.
fn give_back() {
    let _ = ratatui::try_restore();
    show_cursor();
}

fn show_cursor() {
    let _ = execute!(stdout(), Show);
}

/// The signal that asks to make place, held back until it is read by a thread of its own.
pub struct Stops {
    signals: SigSet,
    asked: Arc<Notify>,
}

/// Holds SIGTSTP back, in this thread and those that it will start: to be called before any.
pub fn hold_back_stops() -> io::Result<()> {
    SigSet::from(Signal::SIGTSTP).thread_block().map_err(io::Error::from)
}

impl Stops {
    /// Listens for what is held back. The thread ends with the process.
    pub fn new() -> io::Result<Self> {
        let signals = SigSet::from(Signal::SIGTSTP);
        let held_back = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
        let asked = Arc::new(Notify::new());
        let telling = Arc::clone(&asked);
        thread::Builder::new().name("stops".to_owned()).spawn(move || {
            while held_back.read_signal().is_ok() {
                telling.notify_one();
            }
        })?;
        Ok(Self { signals, asked })
    }

    /// Waits until we are asked to make place.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Stops, with all that the shell started together with us, until we are woken. Does nothing
    /// where no shell could wake us: the kernel then drops the signal.
    fn stop(&self) -> io::Result<()> {
        self.signals.thread_unblock()?;
        let stopped = kill(Pid::from_raw(0), Signal::SIGTSTP);
        self.signals.thread_block()?;
        Ok(stopped?)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Run by the test below on a terminal of its own.
    #[test]
    #[ignore = "panics on purpose"]
    fn panics() {
        let mut screen = Screen::take().expect("a terminal");
        screen.draw(|frame| frame.render_widget("drawn", frame.area())).expect("drawn");
        panic!("on purpose");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_says_why() {
        let program = std::env::current_exe().expect("this test");
        let output = Command::new("script")
            .args(["-q", "-c"])
            .arg(format!(
                "stty rows 30 cols 100; stty -g; {} --exact top::screen::tests::panics --ignored --nocapture; stty -g",
                program.display()
            ))
            .arg("/dev/null")
            .output()
            .expect("script is part of util-linux");
        let text = String::from_utf8_lossy(&output.stdout);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text:?}"));
        assert!(at("\x1b[?1049h") < at("drawn") && at("drawn") < at("\x1b[?1049l"), "{text}");
        assert!(at("\x1b[?1049l") < at("on purpose"), "{text}");
        assert!(at("\x1b[?1049l") < text.rfind("\x1b[?25h").expect("shown"), "{text}");
        assert_eq!(text.matches("\x1b[?1049l").count(), 1, "{text}");
        let modes: Vec<&str> = text.lines().filter(|line| line.matches(':').count() > 20).collect();
        assert!(modes.len() == 2 && modes[0] == modes[1], "{modes:?}");
    }
}
