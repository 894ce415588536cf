//! Bars, curves of one line, and texts that fit: as spans, to stand in a cell of a table. Pure.

use ratatui::style::Style;
use ratatui::text::Span;

use super::theme::Theme;

/// From nothing to all.
const STEPS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];

/// How much is used of what there is: a line, thick as far as it is used.
pub fn bar(theme: Theme, share: f64, width: u16) -> Vec<Span<'static>> {
    let width = usize::from(width);
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    // Whatever is used at all shows.
    let halves = (share * width as f64 * 2.0).round().max(f64::from(u8::from(share > 0.0)));
    let halves = halves as usize;
    let (full, half) = (halves / 2, halves % 2);
    let used = "━".repeat(full) + if half == 1 { "╸" } else { "" };
    let free = "─".repeat(width - full - half);
    vec![Span::styled(used, theme.share(share)), Span::styled(free, theme.track())]
}

/// A curve of one line: the highest value, but at least `least`, is as high as it gets. That is an
/// eighth less than the line, so that curves below each other do not run into one another.
pub fn sparkline(peaks: &[Option<f64>], least: f64, style: Style) -> Span<'static> {
    let top = peaks.iter().flatten().copied().fold(least, f64::max);
    let glyph = |peak: &Option<f64>| match peak {
        None => ' ',
        Some(value) => {
            let steps = STEPS.len();
            let step = (value / top * steps as f64).ceil().max(1.0) as usize - 1;
            STEPS[step.min(steps - 1)]
        }
    };
    Span::styled(peaks.iter().map(glyph).collect::<String>(), style)
}

/// As much of a text as has room, with a sign where something is missing.
pub fn fit(text: &str, width: usize) -> String {
    let span = Span::raw(text);
    if span.width() <= width {
        return text.to_owned();
    }
    let mut fitting = String::new();
    let mut taken = 0;
    for grapheme in span.styled_graphemes(Style::default()) {
        taken += Span::raw(grapheme.symbol).width();
        if taken >= width {
            break;
        }
        fitting.push_str(grapheme.symbol);
    }
    if width > 0 {
        fitting.push('…');
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spans: &[Span<'_>]) -> String {
        spans.iter().map(|span| span.content.as_ref()).collect()
    }

    #[test]
    fn a_bar_is_as_long_as_it_is_told_and_shows_the_least_use() {
        let of = |share| text(&bar(Theme::new(false), share, 4));
        let shares = [0.0, 0.01, 0.5, 0.6, 1.0, 7.0, f64::NAN];
        let bars = shares.map(of);
        assert_eq!(bars, ["────", "╸───", "━━──", "━━╸─", "━━━━", "━━━━", "────"]);
    }

    #[test]
    fn a_curve_has_gaps_where_nothing_was_measured() {
        let curve = sparkline(&[None, Some(0.0), Some(50.0), Some(100.0)], 1.0, Style::new());
        assert_eq!(curve.content, " ▁▄▇");
        let idle = sparkline(&[Some(0.1), Some(0.2)], 5.0, Style::new());
        assert_eq!(idle.content, "▁▁");
    }

    #[test]
    fn what_does_not_fit_ends_with_a_sign_wide_letters_too() {
        assert_eq!(fit("nginx", 5), "nginx");
        assert_eq!(fit("nginx-proxy", 5), "ngin…");
        assert_eq!(fit("数据库", 6), "数据库");
        assert_eq!(fit("数据库", 5), "数据…");
        assert_eq!(fit("数据库", 4), "数…");
        assert_eq!(fit("ab", 0), "");
    }
}
