//! Pictures, written by hand: text, boxes and lines with nothing behind them.
//!
//! The colours are chosen to be read on white and on black alike, because a page of a repository
//! may be either.

use std::fmt::Write as _;

/// Text and axes: 4.5 to 1 against white, and about as much against a dark page.
pub const INK: &str = "#767d86";
/// What is ours.
pub const OWN: &str = "#2f7fd8";
/// What is ours in another way.
pub const OWN_PALE: &str = "#7fb2ea";
/// What is a peer's.
pub const PEER: &str = "#9aa1aa";

/// A picture that grows by what is drawn.
pub struct Picture {
    width: f64,
    height: f64,
    body: String,
}

/// Which way a text runs from its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// To the right.
    Start,
    /// Both ways.
    Middle,
    /// To the left.
    End,
}

impl Picture {
    /// An empty one.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A text of `size` pixels.
    pub fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
             fill=\"{INK}\">{text}</text>"
        );
    }

    /// A filled box.
    pub fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"2\" \
             fill=\"{colour}\"/>",
            width.max(1.0)
        );
    }

    /// A line through points.
    pub fn line(&mut self, points: &[(f64, f64)], width: f64, colour: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
    }

    /// A filled circle.
    pub fn dot(&mut self, x: f64, y: f64, colour: &str) {
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
        );
    }

    /// The file.
    pub fn finish(self) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" \
             height=\"{h}\" font-family=\"system-ui, sans-serif\">\n{}</svg>\n",
            self.body,
            w = self.width,
            h = self.height
        )
    }
}
