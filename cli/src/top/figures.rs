//! Numbers as people read them: short, and of one width as long as they can be. Pure.

/// Where a unit's number gets so long that the next unit is shorter.
const BYTES_A_STEP: f64 = 1024.0;

/// `0.4`, `12.5`, `250`: three digits of a percentage.
pub fn percent(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// `0`, `2.5`, `100`: a number without what says nothing.
pub fn whole(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// `512B`, `1.5K`, `384M`, `15.6G`: binary units, as `docker stats` counts memory.
pub fn bytes(value: f64) -> String {
    let mut value = value.max(0.0);
    let mut unit = 'B';
    for next in ['K', 'M', 'G', 'T', 'P'] {
        if value < 999.5 {
            break;
        }
        value /= BYTES_A_STEP;
        unit = next;
    }
    if unit == 'B' || value >= 99.95 {
        format!("{value:.0}{unit}")
    } else {
        format!("{value:.1}{unit}")
    }
}

/// How long something lasts, by its two biggest units where they fit: `45s`, `12m`, `3h05m`, `12d`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if minutes == 0 => format!("{seconds}s"),
        () if hours == 0 => format!("{minutes}m"),
        () if days == 0 => format!("{hours}h{:02}m", minutes % 60),
        () if days < 100 => format!("{days}d{:02}h", hours % 24),
        () => format!("{days}d"),
    }
}

/// How many CPUs, as in `0.5` or `4`.
pub fn cpus(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let of = |values: &[f64], show: fn(f64) -> String| {
            values.iter().map(|value| show(*value)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(&[0.0, 0.44, 12.5, 99.97, 250.4], percent), "0.0 0.4 12.5 100 250");
        assert_eq!(
            of(&[0.0, 999.0, 1000.0, 1536.0, 402_653_184.0, 16_750_372_454.0], bytes),
            "0B 999B 1.0K 1.5K 384M 15.6G"
        );
        assert_eq!(of(&[0.5, 4.0, 0.25, 10.0], cpus), "0.5 4 0.25 10");
        let times = [900, 45_000, 720_000, 11_100_000, 1_040_000_000, 9_000_000_000];
        let times: Vec<String> = times.into_iter().map(duration).collect();
        assert_eq!(times, ["0s", "45s", "12m", "3h05m", "12d00h", "104d"]);
    }
}
