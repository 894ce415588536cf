//! A pattern made ready to be asked about many names, as they are stored: bytes.
//!
//! Most patterns are everything, a name, all below a name, or a name with one level left open. Those are
//! answered by comparing beginning and end, without looking for levels; any other by the pattern itself.

use crate::Pattern;

/// Answers what [`Pattern::matches`] answers.
#[derive(Debug, Clone)]
pub struct Matcher(Form);

#[derive(Debug, Clone)]
enum Form {
    /// `#`
    All,
    /// `a/b`
    Name(Box<[u8]>),
    /// `a/b/#`: what it begins with, the last slash included.
    Below(Box<[u8]>),
    /// `a/+/b`: what stands before and behind the open level.
    Open {
        before: Box<[u8]>,
        behind: Box<[u8]>,
    },
    Other(Pattern),
}

impl Matcher {
    /// For a pattern.
    #[must_use]
    pub fn new(pattern: &Pattern) -> Self {
        Self(Form::of(pattern))
    }

    /// Whether the topic of this name matches.
    #[inline]
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        match &self.0 {
            // The broker's own topics are none of all.
            Form::All => !name.starts_with(b"$"),
            // Names differ at their ends sooner than at their beginnings.
            Form::Name(wanted) => {
                name.last_chunk::<8>() == wanted.last_chunk() && name == &**wanted
            }
            Form::Below(parent) => {
                name.starts_with(parent) || Some(name) == parent.strip_suffix(b"/")
            }
            Form::Open { before, behind } => {
                name.len() > before.len() + behind.len()
                    && name.ends_with(behind)
                    && name.starts_with(before)
                    && !name[before.len()..name.len() - behind.len()].contains(&b'/')
            }
            Form::Other(pattern) => {
                std::str::from_utf8(name).is_ok_and(|name| pattern.matches(name))
            }
        }
    }
}

impl Form {
    fn of(pattern: &Pattern) -> Self {
        let text = pattern.as_str();
        let bytes = |text: &str| Box::from(text.as_bytes());
        let (plus, hash) = (text.matches('+').count(), text.ends_with('#'));
        match (plus, hash) {
            (0, false) => Self::Name(bytes(text)),
            (0, true) if text == "#" => Self::All,
            (0, true) => Self::Below(bytes(&text[..text.len() - 1])),
            (1, false) if !text.starts_with('+') => match text.split_once('+') {
                Some((before, behind)) => {
                    Self::Open { before: bytes(before), behind: bytes(behind) }
                }
                None => Self::Other(pattern.clone()),
            },
            _ => Self::Other(pattern.clone()),
        }
    }
}
