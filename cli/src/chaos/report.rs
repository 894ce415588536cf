//! The last lines of the story: what was done, what was counted, and what is wrong.

use aklight_oracle::Rule;

use super::nemesis::Broken;
use super::story::Story;
use super::witness::{Silence, Witness};

/// What others than the witness have counted.
pub struct Report {
    /// What was broken, where we broke it.
    pub broken: Option<Broken>,
    /// The records of each broker's copy.
    pub copies: Vec<u64>,
    /// The bytes of each broker's data on the disk.
    pub disk_bytes: Vec<u64>,
}

impl Report {
    /// Tells everything; true when nothing is wrong.
    pub fn tell(&self, story: &Story, witness: &Witness, seed: u64) -> bool {
        let elections = witness.elections();
        let (counts, silence) = witness.counts();
        let (others, violations, left_out) = witness.finish();
        story.line("");
        let sent = counts.sent;
        story.line(&format!(
            "records      {sent} sent, {} acknowledged, {} answers unknown, {} refused",
            counts.acked, counts.unknown, counts.refused
        ));
        story
            .line(&format!("consumers    {} records delivered, repeats counted", counts.delivered));
        let copies: Vec<_> = self.copies.iter().map(u64::to_string).collect();
        story.line(&format!("copies       {} records, read in the end", copies.join(", ")));
        if let Some(broken) = &self.broken {
            story.line(&format!(
                "broken       {} kills, {} kills of all at once, {} restarts, {} pauses, \
                 {} isolations, {} slow, {} full disks",
                broken.kills,
                broken.kills_of_all,
                broken.restarts,
                broken.pauses,
                broken.isolations,
                broken.slows,
                broken.full_disks
            ));
        }
        story.line(&format!("elections    {elections} seen to be won after the first"));
        let Silence { longest_us, ended_us } = silence;
        let seconds = |us: u64| us as f64 / 1e6;
        story.line(&format!(
            "silence      {:.2} s the longest between two ACKs, until {:.1} s",
            seconds(longest_us),
            seconds(ended_us)
        ));
        let disk_bytes: u64 = self.disk_bytes.iter().sum();
        if disk_bytes > 0 && sent > 0 {
            story.line(&format!(
                "disk         {} MiB on all brokers, {} bytes a record and copy",
                disk_bytes >> 20,
                disk_bytes / sent / self.disk_bytes.len().max(1) as u64
            ));
        }
        // Of very many violations only the first are told apart.
        let at_least = if left_out > 0 { "at least " } else { "" };
        let of = |rules: &[Rule]| violations.iter().filter(|v| rules.contains(&v.rule)).count();
        story.line(&format!("lost         {at_least}{}", of(&[Rule::Durable, Rule::Delivered])));
        story.line(&format!("doubled      {at_least}{}", of(&[Rule::Once])));
        for text in &others {
            story.line(&format!("WRONG        {text}"));
        }
        for violation in &violations {
            story.line(&format!("VIOLATION    {violation}"));
        }
        if left_out > 0 {
            story.line(&format!("VIOLATION    and {left_out} more"));
        }
        let wrong = (others.len() + violations.len()) as u64 + left_out;
        match wrong {
            0 => story.line("every promise was kept"),
            _ => story.line(&format!("{wrong} findings with seed {seed}")),
        }
        wrong == 0
    }
}
