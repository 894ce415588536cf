//! Escapes of keys and payloads: `\\` backslash, `\n` newline, `\r` carriage return, `\p` pipe.

use std::borrow::Cow;

use memchr::{memchr, memchr3};

use crate::together::has_none;

/// A backslash that is followed by none of `\`, `n`, `r`, `p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("after a backslash stands one of \\ n r p: write \\\\ for a backslash itself")]
pub struct EscapeError;

/// Appends `raw` to `out`, escaped.
pub fn escape_into(raw: &[u8], out: &mut Vec<u8>) {
    if has_none(raw, is_special) {
        // Most fields: they are looked at once and copied once.
        return out.extend_from_slice(raw);
    }
    let mut rest = raw;
    while let Some(at) = next_special(rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\\');
        out.push(match rest[at] {
            b'\n' => b'n',
            b'\r' => b'r',
            b'|' => b'p',
            _ => b'\\',
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Whether it needs an escape.
const fn is_special(byte: u8) -> bool {
    // The bit in which a backslash and a pipe differ.
    const DIFFERENCE: u8 = b'\\' ^ b'|';
    (byte | DIFFERENCE == b'|') | (byte == b'\n') | (byte == b'\r')
}

fn next_special(bytes: &[u8]) -> Option<usize> {
    let first = memchr3(b'\\', b'\n', b'|', bytes);
    let bound = first.unwrap_or(bytes.len());
    memchr(b'\r', &bytes[..bound]).or(first)
}

/// The bytes that an escaped field stands for; borrowed when it holds no escape.
///
/// # Errors
/// When a backslash is followed by anything that is no escape.
pub fn unescape(field: &[u8]) -> Result<Cow<'_, [u8]>, EscapeError> {
    if has_none(field, |byte| byte == b'\\') {
        return Ok(Cow::Borrowed(field));
    }
    let mut at = memchr(b'\\', field).unwrap_or(field.len());
    let mut raw = Vec::with_capacity(field.len());
    let mut rest = field;
    loop {
        raw.extend_from_slice(&rest[..at]);
        raw.push(match rest.get(at + 1) {
            Some(b'\\') => b'\\',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'p') => b'|',
            _ => return Err(EscapeError),
        });
        rest = &rest[at + 2..];
        match memchr(b'\\', rest) {
            Some(next) => at = next,
            None => {
                raw.extend_from_slice(rest);
                return Ok(Cow::Owned(raw));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &[u8], escaped: &[u8]) {
        let mut out = Vec::new();
        escape_into(raw, &mut out);
        assert_eq!(out, escaped);
        assert_eq!(unescape(escaped).as_deref(), Ok(raw));
    }

    #[test]
    fn four_bytes_are_escaped_and_no_other() {
        check(b"plain \x00\xff", b"plain \x00\xff");
        check(b"a|b\nc\rd\\e", b"a\\pb\\nc\\rd\\\\e");
        check(b"|", b"\\p");
        check(b"\r\n", b"\\r\\n");
        check(b"", b"");
    }

    #[test]
    fn any_other_escape_is_an_error() {
        for bad in [&b"\\x"[..], b"end\\", b"\\\\\\", b"\\P"] {
            assert_eq!(unescape(bad), Err(EscapeError), "{}", bad.escape_ascii());
        }
    }
}
