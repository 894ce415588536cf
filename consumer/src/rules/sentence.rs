//! A rule as a sentence, which is how it stands in a label: `> 90 for 2m clear < 80 repeat 30m`.
//!
//! It begins with a comparison or a word; after that come pairs of a word and what belongs to
//! it, in any order: `for`, `clear`, `in`, `repeat`. Pure: a text in, its parts or one mistake out.

use std::collections::BTreeSet;

use super::condition::{Condition, Measured, Test};
use super::mistake::instead;
use super::values::{at_once, milliseconds, test};

/// The words that something belongs to, each with an example.
const WORDS: [(&str, &str); 4] =
    [("for", "for 2m"), ("clear", "clear < 80"), ("in", "in 10m"), ("repeat", "repeat 30m")];

const SIGNS: &[char] = &['<', '>', '=', '!'];

/// The parts of a sentence.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sentence {
    /// The comparison that it begins with.
    pub fire: Option<Test>,
    /// Or the word that it begins with.
    pub word: Option<String>,
    pub clear: Option<Test>,
    pub for_ms: u64,
    pub window_ms: Option<u64>,
    pub repeat_ms: Option<u64>,
}

impl Sentence {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace().peekable();
        let mut sentence = Self::default();
        match words.peek() {
            Some(word) if word.starts_with(SIGNS) => {
                sentence.fire = Some(test(&comparison(&mut words))?);
            }
            Some(word) if known(word) => {}
            Some(word) if word.starts_with(char::is_alphabetic) => {
                sentence.word = words.next().map(str::to_owned);
            }
            _ => return Err("begin with a comparison, as in \"> 90 for 2m clear < 80\"".to_owned()),
        }
        let mut said = BTreeSet::new();
        while let Some(word) = words.next() {
            let Some((_, example)) = WORDS.iter().find(|(name, _)| *name == word) else {
                let names = WORDS.map(|(name, _)| name);
                return Err(format!("unknown word '{word}': {}", instead(word, &names)));
            };
            if !said.insert(word) {
                return Err(format!("'{word}' stands there twice: write it once"));
            }
            if words.peek().is_none() {
                return Err(format!("'{word}' needs what comes after it: write {example}"));
            }
            match word {
                "clear" => sentence.clear = Some(test(&comparison(&mut words))?),
                "for" => sentence.for_ms = duration(&mut words)?,
                "in" => sentence.window_ms = Some(duration(&mut words)?),
                _ => sentence.repeat_ms = Some(duration(&mut words)?),
            }
        }
        Ok(sentence)
    }

    /// As a condition on a number.
    pub(super) fn measured(&self, field: &str) -> Result<Measured, String> {
        let Some(fire) = self.fire.clone() else {
            return Err("begin with a comparison, as in \"> 90 for 2m clear < 80\"".to_owned());
        };
        let clear = self.clear.clone().unwrap_or_else(|| fire.opposite());
        if let Some(mistake) = at_once(&fire, &clear) {
            return Err(mistake);
        }
        let (for_ms, clear_for_ms, increase_ms) = (self.for_ms, 0, self.window_ms);
        let field = field.to_owned();
        Ok(Measured { field, fire, clear, for_ms, clear_for_ms, increase_ms })
    }

    /// As a condition of silence.
    pub(super) fn absent(&self, example: &str) -> Result<Condition, String> {
        match self {
            Self { for_ms: after_ms @ 1.., clear: None, window_ms: None, .. } => {
                Ok(Condition::Absent { after_ms: *after_ms })
            }
            _ => Err(format!("write for how long, as in {example}")),
        }
    }
}

fn known(word: &str) -> bool {
    WORDS.iter().any(|(name, _)| *name == word)
}

/// `> 90` or `>90`: what stands before the next of the known words.
fn comparison<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let first = words.next().unwrap_or_default();
    let alone = first.chars().all(|c| SIGNS.contains(&c));
    let second = if alone { words.next().unwrap_or_default() } else { "" };
    format!("{first} {second}").trim_end().to_owned()
}

/// A duration may be of several words: `1h 30m`.
fn duration<'a>(
    words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
) -> Result<u64, String> {
    let mut text = words.next().unwrap_or_default().to_owned();
    while let Some(more) = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        text = format!("{text} {more}");
    }
    milliseconds(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pairs_come_in_any_order_and_blanks_do_not_matter() {
        let one = Sentence::read("> 90 for 1h 30m clear < 80 repeat 30m").expect("right");
        let two = Sentence::read("  >90  repeat 30m clear <80 for 90m").expect("right");
        assert_eq!(one, two);
        assert_eq!((one.for_ms, one.repeat_ms), (5_400_000, Some(1_800_000)));
    }

    #[test]
    fn a_word_may_stand_for_a_comparison() {
        let sentence = Sentence::read("unhealthy for 1m").expect("right");
        assert_eq!((sentence.word.as_deref(), sentence.for_ms), (Some("unhealthy"), 60_000));
        for bad in ["", "90", "> ninety%", "unhealthy 1m"] {
            assert!(Sentence::read(bad).is_err(), "{bad}");
        }
    }
}
