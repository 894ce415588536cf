//! A terminal for tests: a program on a real pty (util-linux's `script` keeps it), keys typed into
//! it, and what would stand on the screen.
//!
//! The screen knows what the programs under test write: text, cursor movements, clearing, and the
//! alternate screen. Colours are passed over.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::support::{children, wait_until};

/// What stands on the screen.
#[derive(Clone)]
pub struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Whether a program has taken the whole of it.
    pub taken: bool,
    /// Whether the cursor is hidden.
    pub hidden: bool,
    /// Everything that was written outside of the alternate screen.
    pub log: String,
    escape: Option<String>,
}

impl Screen {
    fn new(rows: usize, columns: usize) -> Self {
        Self {
            cells: vec![vec![' '; columns]; rows],
            row: 0,
            column: 0,
            taken: false,
            hidden: false,
            log: String::new(),
            escape: None,
        }
    }

    /// The lines, without blanks at their ends.
    pub fn text(&self) -> String {
        let lines = self.cells.iter().map(|line| line.iter().collect::<String>());
        lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    fn write(&mut self, c: char) {
        if let Some(mut escape) = self.escape.take() {
            escape.push(c);
            let whole = escape.len() > 1 && c.is_ascii_alphabetic() || !escape.starts_with('[');
            if whole {
                self.obey(&escape);
            } else {
                self.escape = Some(escape);
            }
            return;
        }
        match c {
            '\x1b' => self.escape = Some(String::new()),
            '\r' => self.column = 0,
            '\n' => {
                self.row = (self.row + 1).min(self.cells.len() - 1);
                self.note(c);
            }
            c if c.is_control() => {}
            c => {
                self.note(c);
                let (row, column) = (self.row, self.column);
                if let Some(cell) = self.cells.get_mut(row).and_then(|line| line.get_mut(column)) {
                    *cell = c;
                }
                self.column += 1;
            }
        }
    }

    fn note(&mut self, c: char) {
        if !self.taken {
            self.log.push(c);
        }
    }

    fn obey(&mut self, escape: &str) {
        let (arguments, command) = escape.split_at(escape.len() - 1);
        let arguments = arguments.trim_start_matches('[');
        let number = |n: usize| {
            let number = arguments.split(';').nth(n).and_then(|text| text.parse().ok());
            number.unwrap_or(1_usize).max(1) - 1
        };
        match (command, arguments) {
            ("H", _) => (self.row, self.column) = (number(0), number(1)),
            ("J", _) => self.cells.iter_mut().for_each(|line| line.fill(' ')),
            ("h" | "l", "?1049") => {
                self.taken = command == "h";
                self.cells.iter_mut().for_each(|line| line.fill(' '));
            }
            ("h" | "l", "?25") => self.hidden = command == "l",
            _ => {}
        }
    }
}

/// A program on a terminal. Killed when dropped.
pub struct Terminal {
    script: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<Screen>>,
}

impl Terminal {
    /// Starts a shell command on a terminal of 30 lines and 120 columns.
    pub fn start(command: &str) -> Self {
        let (rows, columns) = (30, 120);
        let mut script = Command::new("script")
            .args(["-q", "-e", "-f", "-c"])
            .arg(format!("stty rows {rows} cols {columns}; {command}"))
            .arg("/dev/null")
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is part of util-linux");
        let keys = script.stdin.take();
        let mut output = script.stdout.take().expect("piped");
        let screen = Arc::new(Mutex::new(Screen::new(rows, columns)));
        let writing = Arc::clone(&screen);
        std::thread::spawn(move || {
            let (mut chunk, mut rest) = ([0; 4096], Vec::new());
            while let Ok(read @ 1..) = output.read(&mut chunk) {
                rest.extend_from_slice(&chunk[..read]);
                // A letter may be cut by the end of a chunk.
                let valid = match std::str::from_utf8(&rest) {
                    Ok(text) => text.len(),
                    Err(error) => error.valid_up_to(),
                };
                let text: Vec<u8> = rest.drain(..valid).collect();
                let mut screen = writing.lock().expect("whole");
                String::from_utf8_lossy(&text).chars().for_each(|c| screen.write(c));
            }
        });
        Self { script, keys, screen }
    }

    pub fn screen(&self) -> Screen {
        self.screen.lock().expect("whole").clone()
    }

    pub fn press(&mut self, keys: &str) {
        let to = self.keys.as_mut().expect("open");
        to.write_all(keys.as_bytes()).and_then(|()| to.flush()).expect("typed");
    }

    /// Waits until all of this stands on the screen.
    pub fn wait_for(&self, parts: &[&str]) -> String {
        let what = format!("{parts:?} on the screen");
        wait_until_or(&what, &|| self.screen().text(), || {
            let text = self.screen().text();
            parts.iter().all(|part| text.contains(part))
        });
        self.screen().text()
    }

    /// Waits until something has been said outside of the alternate screen.
    pub fn wait_for_log(&self, part: &str) {
        wait_until_or(part, &|| self.screen().log, || self.screen().log.contains(part));
    }

    /// The process of the command that is called so, below the shells.
    pub fn process(&self, name: &str) -> u32 {
        let mut found = None;
        wait_until(name, || {
            found = descendant(self.script.id(), name);
            found.is_some()
        });
        found.expect("found")
    }

    /// Closes the terminal, as one does with its window.
    pub fn close(&mut self) {
        self.keys = None;
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close();
    }
}

fn descendant(pid: u32, name: &str) -> Option<u32> {
    children(pid).into_iter().find_map(|(child, words)| {
        let program = words.split(' ').next().unwrap_or_default();
        if program.ends_with(name) { Some(child) } else { descendant(child, name) }
    })
}

/// The same as `wait_until`, with what there is instead in the failure.
fn wait_until_or(what: &str, instead: &dyn Fn() -> String, mut holds: impl FnMut() -> bool) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(what, &mut holds);
    }));
    assert!(outcome.is_ok(), "never: {what}; instead:\n{}", instead());
}
