//! Redis's protocol, version 2: what its answers are made of.
//!
//! An answer is read token by token, so that one of any length needs no room of its own.

use anyhow::{Context, bail};
use memchr::memchr;

/// A piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// An array of so many tokens begins.
    Array(u64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// A number.
    Number(i64),
    /// A word such as `OK`.
    Word(&'a [u8]),
    /// No array, no bytes.
    Nil,
}

/// The first token, and its length in bytes; `None` until it is whole.
///
/// # Errors
/// When the server reports an error, or speaks another protocol.
#[inline]
pub fn token(bytes: &[u8]) -> anyhow::Result<Option<(Token<'_>, usize)>> {
    let Some(end) = memchr(b'\n', bytes) else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").context("a line without \\r\\n")?;
    let Some((kind, rest)) = line.split_first() else { bail!("an empty line") };
    let head = end + 1;
    let found = match kind {
        b'+' => Token::Word(rest),
        b':' => Token::Number(number(rest)?),
        b'*' | b'$' if rest == b"-1" => Token::Nil,
        b'*' => Token::Array(number(rest)?.try_into()?),
        b'$' => {
            let length = usize::try_from(number(rest)?)?;
            let Some(body) = bytes.get(head..head + length + 2) else { return Ok(None) };
            return Ok(Some((Token::Bulk(&body[..length]), head + length + 2)));
        }
        b'-' => bail!("the server says: {}", rest.escape_ascii()),
        _ => bail!("not Redis's protocol: {}", line.escape_ascii()),
    };
    Ok(Some((found, head)))
}

fn number(digits: &[u8]) -> anyhow::Result<i64> {
    let (negative, digits) = match digits.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, digits),
    };
    let mut value = 0_i64;
    for digit in digits {
        anyhow::ensure!(digit.is_ascii_digit(), "not a number: {}", digits.escape_ascii());
        value = value.wrapping_mul(10) + i64::from(digit - b'0');
    }
    Ok(if negative { -value } else { value })
}

/// Appends a command: an array of bulk strings.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        bulk(out, word);
    }
}

/// Appends a bulk string.
pub fn bulk(out: &mut Vec<u8>, word: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}
