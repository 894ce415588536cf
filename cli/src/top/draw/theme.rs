//! Colours: few, calm, and of the 256 that terminals agree on. Without colours the same is said by
//! words, glyphs and bold letters, so that nothing is lost with `NO_COLOR`.
//!
//! No background is painted but under what is selected: a terminal may be light or dark.

use ratatui::style::{Color, Modifier, Style};

use crate::top::rows::Tone;

const ACCENT: Color = Color::Indexed(75);
const GOOD: Color = Color::Indexed(114);
const WARN: Color = Color::Indexed(179);
const BAD: Color = Color::Indexed(203);
const QUIET: Color = Color::Indexed(245);
const TRACK: Color = Color::Indexed(239);
const SECOND: Color = Color::Indexed(139);
const CURVE: Color = Color::Indexed(73);
const BLOCKS: Color = Color::Indexed(67);
const SELECTED: (Color, Color) = (Color::Indexed(255), Color::Indexed(237));

/// From which share on something is drawn as getting tight, and as tight.
const SHARE_WARN: f64 = 0.7;
const SHARE_BAD: f64 = 0.9;

/// Which styles there are.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colours: bool,
}

impl Theme {
    /// With colours, or without.
    pub fn new(colours: bool) -> Self {
        Self { colours }
    }

    fn fg(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// What names something.
    pub fn accent(self) -> Style {
        self.fg(ACCENT).add_modifier(Modifier::BOLD)
    }

    /// What is less important.
    pub fn quiet(self) -> Style {
        if self.colours { self.fg(QUIET) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// Lines, and the empty part of a bar.
    pub fn track(self) -> Style {
        if self.colours { self.fg(TRACK) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// Curves: what comes in, what is read.
    pub fn curve(self) -> Style {
        self.fg(CURVE)
    }

    /// Curves of one line, which are filled: too much of a bright colour is loud.
    pub fn blocks(self) -> Style {
        self.fg(BLOCKS)
    }

    /// Curves: what goes out, what is written.
    pub fn second(self) -> Style {
        self.fg(SECOND)
    }

    /// A word with a meaning.
    pub fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Good => self.fg(GOOD),
            Tone::Warn => self.fg(WARN),
            Tone::Bad => self.fg(BAD).add_modifier(Modifier::BOLD),
            Tone::Quiet => self.quiet(),
        }
    }

    /// How much is used of what there is.
    pub fn share(self, share: f64) -> Style {
        match share {
            share if share >= SHARE_BAD => self.fg(BAD),
            share if share >= SHARE_WARN => self.fg(WARN),
            _ => self.fg(GOOD),
        }
    }

    /// What is under the line that is selected: colours of what stands there show through.
    pub fn under_selected(self) -> Style {
        if self.colours { Style::new().bg(SELECTED.1) } else { self.selected() }
    }

    /// What is selected, where it has no colour of its own.
    pub fn selected(self) -> Style {
        if self.colours {
            Style::new().fg(SELECTED.0).bg(SELECTED.1)
        } else {
            Style::new().add_modifier(Modifier::REVERSED)
        }
    }
}
