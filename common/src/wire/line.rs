//! Cuts a stream of bytes into lines, and keeps a line that is too long from filling memory.
//!
//! Bytes are pushed in as they arrive, at any cut. A line longer than the limit comes out once,
//! as [`Line::TooLong`], at its newline; what it held is forgotten as it comes in. Invariant: the
//! cutter never keeps more than `line_bytes_max` + 2 bytes of an unfinished line beyond what the
//! caller pushed last.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// What stands between two newlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line, without its newline and without a carriage return before it.
    Whole(Bytes),
    /// A line longer than the limit.
    TooLong,
}

/// Cuts pushed bytes into lines.
#[derive(Debug)]
pub struct LineCutter {
    line_bytes_max: usize,
    pending: BytesMut,
    // Bytes of `pending` already searched for a newline.
    searched: usize,
    skipping: bool,
}

impl LineCutter {
    /// A cutter for lines of at most `line_bytes_max` bytes.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, pending: BytesMut::new(), searched: 0, skipping: false }
    }

    /// Where a reader puts the next bytes of the stream, behind what is there already.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.pending
    }

    /// The next line that is complete, or `None` until more bytes are pushed.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(at) = memchr(b'\n', &self.pending[self.searched..]) else {
                self.searched = self.pending.len();
                // One more than the limit may yet be a `\r` that is dropped.
                if self.skipping || self.pending.len() > self.line_bytes_max + 1 {
                    self.skipping = true;
                    self.pending.clear();
                    self.searched = 0;
                }
                return None;
            };
            let end = self.searched + at;
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                self.pending.advance(end + 1);
                return Some(Line::TooLong);
            }
            let mut line = self.pending.split_to(end + 1);
            line.truncate(end);
            if line.last() == Some(&b'\r') {
                line.truncate(end - 1);
            }
            if line.len() > self.line_bytes_max {
                return Some(Line::TooLong);
            }
            if line.is_empty() {
                continue;
            }
            return Some(Line::Whole(line.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], max: usize, expect: &[Option<&str>]) {
        for step in 1..=input.len() {
            let mut cutter = LineCutter::new(max);
            let mut lines = Vec::new();
            for part in input.chunks(step) {
                cutter.buffer().extend_from_slice(part);
                while let Some(line) = cutter.next_line() {
                    lines.push(match line {
                        Line::Whole(bytes) => {
                            Some(String::from_utf8(bytes.to_vec()).expect("text"))
                        }
                        Line::TooLong => None,
                    });
                }
                assert!(cutter.pending.len() <= max + 2, "kept {}", cutter.pending.len());
            }
            let expect: Vec<_> = expect.iter().map(|l| l.map(str::to_owned)).collect();
            assert_eq!(lines, expect, "pushed {step} bytes at a time");
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
