//! What all processes say, line by line under their names, as docker-compose shows it.
//!
//! Invariant: a line comes out whole, never mixed with another's. When the reader of our output
//! has gone, lines are dropped and [`Console::is_closed`] says so.

use std::io::Write;

use anstream::AutoStream;
use anstyle::{AnsiColor, Color, Style};

/// A line longer than this is broken: memory stays bounded whatever a process writes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The colours of names, in turn: those that can be read on black and on white.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Red,
];

/// Our standard output, shared by all.
pub struct Console {
    stream: AutoStream<std::io::Stdout>,
    width: usize,
    closed: bool,
}

impl Console {
    /// A console for names no longer than `width`.
    pub fn new(width: usize) -> Self {
        Self { stream: anstream::stdout(), width, closed: false }
    }

    /// Prints a line under a name in the n-th colour.
    pub fn line(&mut self, n: usize, name: &str, line: &[u8]) {
        if self.closed {
            return;
        }
        let colour = Color::Ansi(COLOURS[n % COLOURS.len()]);
        let style = Style::new().fg_color(Some(colour));
        let head = format!("{style}{name:<width$} | {style:#}", width = self.width);
        let whole = [head.as_bytes(), line, b"\n"].concat();
        // A terminal that is gone, a pipe without a reader, a full disk: nobody would see more.
        self.closed = self.stream.write_all(&whole).and_then(|()| self.stream.flush()).is_err();
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Cuts what a process writes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes more bytes and gives out each line that is whole now.
    pub fn push(&mut self, bytes: &[u8], mut whole: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(b"\n") {
                whole(self.rest.trim_ascii_end());
                self.rest.clear();
            } else if self.rest.len() > LINE_BYTES_MAX {
                whole(&self.rest);
                self.rest.clear();
            }
        }
    }

    /// Gives out what has no end, when no more will come.
    pub fn finish(&mut self, whole: impl FnOnce(&[u8])) {
        if !self.rest.is_empty() {
            whole(&self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        let mut take = |line: &[u8]| out.push(String::from_utf8_lossy(line).into_owned());
        for piece in pieces {
            lines.push(piece, &mut take);
        }
        lines.finish(&mut take);
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        assert_eq!(cut(&[b"a\nb", b"c\r\n", b"\n", b"d"]), ["a", "bc", "", "d"]);
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let endless = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(cut(&[&endless, b"y", b"z\n"]).len(), 2);
    }
}
