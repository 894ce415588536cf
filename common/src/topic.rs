//! Topics: where a record belongs, as levels joined by `/`.
//!
//! Invariant of every [`Topic`]: 1 to 32 levels, none empty, at most 255 bytes of UTF-8, without
//! `+`, `#`, `|`, NUL or another control character.

use std::fmt;
use std::sync::Arc;

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use crate::together;

/// Why a name is no topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// More than [`TOPIC_LEVELS_MAX`] levels.
    #[error("a topic has at most {TOPIC_LEVELS_MAX} levels, this one has {0}")]
    TooDeep(usize),
    /// Nothing at all, or nothing between two slashes.
    #[error("a topic has no empty level: write metrics/docker/web/cpu")]
    EmptyLevel,
    /// Bytes that are no UTF-8.
    #[error("a topic is UTF-8 text")]
    NotUtf8,
    /// A character that a topic must not hold.
    #[error("a topic holds no '+', '#', '|', NUL or control character")]
    Forbidden,
}

/// A checked topic name. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks a name.
    ///
    /// # Errors
    /// What makes the name no topic.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        check_topic(name.as_bytes()).map(|name| Self(Arc::from(name)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, from the root on.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.0)
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Topic {
    type Err = TopicError;

    fn from_str(name: &str) -> Result<Self, TopicError> {
        Self::new(name)
    }
}

/// Checks bytes that came from outside and gives them back as a topic's text, not copied.
///
/// # Errors
/// What makes the bytes no topic.
pub fn check_topic(name: &[u8]) -> Result<&str, TopicError> {
    if is_plain(name) {
        // SAFETY: what is plain holds nothing rare, so it is ASCII. To ask again would take as long as all the rest.
        return Ok(unsafe { std::str::from_utf8_unchecked(name) });
    }
    check_rare(name)
}

/// Checks what is no topic of plain ASCII.
#[cold]
fn check_rare(name: &[u8]) -> Result<&str, TopicError> {
    let text = check_levels(name)?;
    // Every forbidden character is a single byte in UTF-8 but for the C1 controls (U+0080 to
    // U+009F), which are two bytes, the first of them 0xC2.
    if name.iter().any(|byte| is_forbidden(*byte)) || has_c1(name) {
        return Err(TopicError::Forbidden);
    }
    Ok(text)
}

const fn is_forbidden(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, 0x7f | b'+' | b'#' | b'|')
}

/// Whether it is a topic of ASCII: nearly every one is, and many bytes at a time tell. What is not may be a
/// topic all the same.
fn is_plain(name: &[u8]) -> bool {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return false };
    let is_short = name.len() < 2 * TOPIC_LEVELS_MAX
        || name.len() <= TOPIC_BYTES_MAX && levels(name) <= TOPIC_LEVELS_MAX;
    is_short
        && *first != b'/'
        && *last != b'/'
        && together::has_none(name, is_rare)
        && together::has_no_pair(name, |before, byte| (before == b'/') & (byte == b'/'))
}

/// What no topic holds, and what few do: `}`, `~` and all that is not ASCII.
const fn is_rare(byte: u8) -> bool {
    // The bit in which a plus and a hash differ.
    const DIFFERENCE: u8 = b'+' ^ b'#';
    (byte < 0x20) | (byte >= b'|') | (byte | DIFFERENCE == b'+' | DIFFERENCE)
}

fn levels(name: &[u8]) -> usize {
    1 + name.iter().filter(|byte| **byte == b'/').count()
}

/// What topics and patterns have in common: length, UTF-8, depth, no empty level.
pub(crate) fn check_levels(name: &[u8]) -> Result<&str, TopicError> {
    if name.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong(name.len()));
    }
    let text = std::str::from_utf8(name).map_err(|_| TopicError::NotUtf8)?;
    let mut levels = 0;
    let mut level_bytes = 0;
    for byte in name.iter().chain(std::iter::once(&b'/')) {
        if *byte == b'/' {
            if level_bytes == 0 {
                return Err(TopicError::EmptyLevel);
            }
            levels += 1;
            level_bytes = 0;
        } else {
            level_bytes += 1;
        }
    }
    if levels > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooDeep(levels));
    }
    Ok(text)
}

pub(crate) fn has_c1(name: &[u8]) -> bool {
    name.windows(2).any(|pair| pair[0] == 0xc2 && (0x80..=0x9f).contains(&pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &[u8], expect: Result<(), TopicError>) {
        assert_eq!(check_topic(name).map(|_| ()), expect, "{}", name.escape_ascii());
    }

    #[test]
    fn a_topic_is_one_to_32_levels_of_plain_text() {
        check(b"metrics/docker/web/cpu", Ok(()));
        check(b"a", Ok(()));
        check("métricas/中".as_bytes(), Ok(()));
        check(b"$SYS/x", Ok(()));
        check(b"with space/ok", Ok(()));
        check("a/".repeat(31).as_bytes(), Err(TopicError::EmptyLevel));
        check(["a"; 32].join("/").as_bytes(), Ok(()));
        check(["a"; 33].join("/").as_bytes(), Err(TopicError::TooDeep(33)));
        check(&[b'x'; 255], Ok(()));
        check(&[b'x'; 256], Err(TopicError::TooLong(256)));
    }

    /// The quick way says yes only where the slow one does.
    #[test]
    fn a_plain_name_is_a_topic() {
        let slow = |name: &[u8]| {
            check_levels(name).is_ok() && !name.iter().any(|b| is_forbidden(*b)) && !has_c1(name)
        };
        let mut plain = 0;
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for at in [0, 1, 5, 6, 7, 8, 14, 15] {
                    let mut name = [b'a'; 16];
                    name[at] = first;
                    *name.get_mut(at + 1).unwrap_or(&mut 0) = second;
                    for name in [&name[..], &name[..(at + 2).min(16)]] {
                        plain += usize::from(is_plain(name));
                        assert!(!is_plain(name) || slow(name), "{}", name.escape_ascii());
                        let is_rare = name.iter().any(|byte| matches!(byte, b'}' | b'~'));
                        assert!(!slow(name) || !name.is_ascii() || is_rare || is_plain(name));
                    }
                }
            }
        }
        assert!(plain > 20_000, "{plain}");
    }

    #[test]
    fn what_a_topic_must_not_hold_is_refused() {
        check(b"", Err(TopicError::EmptyLevel));
        check(b"/a", Err(TopicError::EmptyLevel));
        check(b"a//b", Err(TopicError::EmptyLevel));
        check(b"a/+", Err(TopicError::Forbidden));
        check(b"a/#", Err(TopicError::Forbidden));
        check(b"a|b", Err(TopicError::Forbidden));
        check(b"a\0b", Err(TopicError::Forbidden));
        check(b"a\x1bb", Err(TopicError::Forbidden));
        check(b"a\x7fb", Err(TopicError::Forbidden));
        check("a\u{85}b".as_bytes(), Err(TopicError::Forbidden));
        check(b"a\xffb", Err(TopicError::NotUtf8));
    }
}
