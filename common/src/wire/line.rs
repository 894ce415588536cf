//! Cuts a stream of bytes into lines, and keeps a line that is too long from filling memory.
//!
//! Bytes are pushed in as they arrive, at any cut. A line longer than the limit comes out once,
//! as [`Line::TooLong`], at its newline; what it held is forgotten as it comes in. Invariant: the
//! cutter never keeps more than `line_bytes_max` + 2 bytes of an unfinished line beyond what the
//! caller pushed last.
//!
//! Lines come out one at a time, each holding its bytes by itself, or all that are complete at once:
//! a broker is sent hundreds with one read, and keeping count for each would cost as much as
//! understanding it.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memrchr};

/// What stands between two newlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<B = Bytes> {
    /// A line, without its newline and without a carriage return before it.
    Whole(B),
    /// A line longer than the limit.
    TooLong,
}

/// Lines that came one behind the other, all of them complete.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    bytes: Bytes,
    line_bytes_max: usize,
    // What stands before the first newline is the end of a line that was too long.
    is_cut: bool,
}

impl Lines {
    /// The bytes that the lines are in.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Each line; empty ones are passed over.
    pub fn iter(&self) -> impl Iterator<Item = Line<&[u8]>> {
        let (mut rest, mut is_cut) = (&self.bytes[..], self.is_cut);
        std::iter::from_fn(move || {
            loop {
                let end = memchr(b'\n', rest)?;
                let (line, behind) = (&rest[..end], &rest[end + 1..]);
                rest = behind;
                if std::mem::take(&mut is_cut) {
                    return Some(Line::TooLong);
                }
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line.len() > self.line_bytes_max {
                    return Some(Line::TooLong);
                }
                if !line.is_empty() {
                    return Some(Line::Whole(line));
                }
            }
        })
    }
}

/// Cuts pushed bytes into lines.
#[derive(Debug)]
pub struct LineCutter {
    line_bytes_max: usize,
    pending: BytesMut,
    // Bytes of `pending` already searched for a newline.
    searched: usize,
    is_skipping: bool,
}

impl LineCutter {
    /// A cutter for lines of at most `line_bytes_max` bytes.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, pending: BytesMut::new(), searched: 0, is_skipping: false }
    }

    /// Where a reader puts the next bytes of the stream, behind what is there already.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.pending
    }

    /// The next line that is complete, or `None` until more bytes are pushed.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let end =
                memchr(b'\n', &self.pending[self.searched..]).map(|at| self.searched + at + 1);
            let lines = self.take(end)?;
            match lines.iter().next() {
                None => {}
                Some(Line::TooLong) => return Some(Line::TooLong),
                Some(Line::Whole(line)) => return Some(Line::Whole(lines.bytes.slice_ref(line))),
            }
        }
    }

    /// All lines that are complete.
    pub fn lines(&mut self) -> Lines {
        let end = memrchr(b'\n', &self.pending[self.searched..]).map(|at| self.searched + at + 1);
        let lines = self.take(end).unwrap_or_default();
        // What is behind the last newline holds none.
        self.take(None);
        lines
    }

    /// Takes what stands before `end`, which is behind a newline; without one, nothing, and forgets
    /// of an unfinished line what is too long.
    fn take(&mut self, end: Option<usize>) -> Option<Lines> {
        let Some(end) = end else {
            self.searched = self.pending.len();
            // One more than the limit may yet be a `\r` that is dropped.
            if self.is_skipping || self.pending.len() > self.line_bytes_max + 1 {
                self.is_skipping = true;
                self.pending.clear();
                self.searched = 0;
            }
            return None;
        };
        self.searched = 0;
        let is_cut = std::mem::take(&mut self.is_skipping);
        let bytes = self.pending.split_to(end).freeze();
        Some(Lines { bytes, line_bytes_max: self.line_bytes_max, is_cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &[u8]) -> String {
        String::from_utf8(line.to_vec()).expect("text")
    }

    fn check(input: &[u8], max: usize, expect: &[Option<&str>]) {
        for step in 1..=input.len() {
            let (mut single, mut whole) = (LineCutter::new(max), LineCutter::new(max));
            let (mut singly, mut at_once) = (Vec::new(), Vec::new());
            for part in input.chunks(step) {
                single.buffer().extend_from_slice(part);
                while let Some(line) = single.next_line() {
                    singly.push(match line {
                        Line::Whole(bytes) => Some(text(&bytes)),
                        Line::TooLong => None,
                    });
                }
                whole.buffer().extend_from_slice(part);
                at_once.extend(whole.lines().iter().map(|line| match line {
                    Line::Whole(bytes) => Some(text(bytes)),
                    Line::TooLong => None,
                }));
                for cutter in [&single, &whole] {
                    assert!(cutter.pending.len() <= max + 2, "kept {}", cutter.pending.len());
                }
            }
            let expect: Vec<_> = expect.iter().map(|l| l.map(str::to_owned)).collect();
            assert_eq!(singly, expect, "pushed {step} bytes at a time");
            assert_eq!(at_once, expect, "pushed {step} bytes at a time");
        }
    }

    #[test]
    fn lines_come_out_whatever_the_cut() {
        check(b"PING|1\r\n\n\r\nQUIT\nrest", 100, &[Some("PING|1"), Some("QUIT")]);
    }

    #[test]
    fn a_line_over_the_limit_comes_out_once_and_the_next_is_whole() {
        check(b"12345\n123456\n1234567890\nok\n", 5, &[Some("12345"), None, None, Some("ok")]);
        check(b"12345\r\n123456\r\n", 5, &[Some("12345"), None]);
    }
}
