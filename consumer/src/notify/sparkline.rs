//! A series as a line of text: `▁▂▃▅▇`.

/// The steps, from the lowest to the highest.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Most characters: beside a sentence, on a telephone.
const WIDTH_MAX: usize = 20;

/// A series drawn between 0 and `top`, or its own highest where that is higher; the newest value
/// is the last. Where it is long, a character stands for the highest of several values.
#[must_use]
pub fn sparkline(values: &[f64], top: f64) -> String {
    let chunk = values.len().div_ceil(WIDTH_MAX).max(1);
    let highest = values.iter().copied().fold(top, f64::max);
    // From the newest backwards, so that the last character is a whole one.
    let mut line: Vec<char> = values
        .rchunks(chunk)
        .map(|part| step(part.iter().copied().fold(0.0, f64::max), highest))
        .collect();
    line.reverse();
    line.into_iter().collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
fn step(value: f64, highest: f64) -> char {
    let last = (STEPS.len() - 1) as f64;
    let at = if highest > 0.0 { (value / highest * last).round().clamp(0.0, last) } else { 0.0 };
    STEPS[at as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_drawn_from_nothing_to_the_top() {
        assert_eq!(sparkline(&[0.0, 50.0, 100.0], 100.0), "▁▅█");
        assert_eq!(sparkline(&[0.0, 100.0, 200.0], 100.0), "▁▅█", "its own highest is the top");
        assert_eq!(sparkline(&[], 100.0), "");
        assert_eq!(sparkline(&[0.0, f64::NAN], 0.0), "▁▁");
        let minute: Vec<f64> = (0..60).map(f64::from).collect();
        let line = sparkline(&minute, 59.0);
        assert_eq!((line.chars().count(), line.chars().last()), (20, Some('█')));
    }
}
