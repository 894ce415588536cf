//! What is wrong, in the order in which it was found, and in bounded memory.

use serde_json::{Value, json};

/// Most findings that are told one by one: who has a thousand needs no list, but a number.
const TOLD_MAX: usize = 1_000;

/// See the module's lesson.
#[derive(Debug, Default)]
pub struct Findings {
    told: Vec<String>,
    more: u64,
}

impl Findings {
    /// Something is wrong.
    pub fn add(&mut self, text: String) {
        if self.told.len() < TOLD_MAX {
            self.told.push(text);
        } else {
            self.more += 1;
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.told.len() as u64 + self.more
    }

    /// Each as a line.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.told.iter().cloned().chain(more)
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({ "findings": self.told, "more": self.more })
    }
}
