//! Quiet hours: a time of day in which alerts wait, by a zone's own clock.
//!
//! Pure. What would have been told in quiet hours is told when they end, if it still is so; see
//! the engine. The span may pass midnight, and follows the zone through its changes of the clock.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::Severity;

/// When alerts wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Quiet {
    /// From this time of day on.
    pub from: Time,
    /// Until this one.
    pub to: Time,
    /// By the clocks of this zone.
    pub zone: TimeZone,
    /// Alerts so bad do not wait.
    pub except: Vec<Severity>,
}

impl Quiet {
    /// Until when an alert of this severity waits, Unix milliseconds; `None` where it does not.
    #[must_use]
    pub fn until_ms(&self, severity: Severity, now_ms: u64) -> Option<u64> {
        if !self.holds(severity, now_ms) {
            return None;
        }
        let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
        let today = now.to_zoned(self.zone.clone()).date();
        let end = |date: Date| date.to_datetime(self.to).to_zoned(self.zone.clone()).ok();
        let end = end(today).filter(|end| end.timestamp() > now).or_else(|| {
            let tomorrow = today.tomorrow().ok()?;
            end(tomorrow)
        })?;
        u64::try_from(end.timestamp().as_millisecond()).ok()
    }

    /// Whether an alert of this severity waits now.
    #[must_use]
    pub fn holds(&self, severity: Severity, now_ms: u64) -> bool {
        if self.except.contains(&severity) {
            return false;
        }
        let ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let Ok(now) = Timestamp::from_millisecond(ms) else { return false };
        let time = now.to_zoned(self.zone.clone()).time();
        if self.from <= self.to {
            self.from <= time && time < self.to
        } else {
            self.from <= time || time < self.to
        }
    }
}

/// A time of day, as in `22:00`.
pub(super) fn time(text: &str) -> Result<Time, String> {
    Time::strptime("%H:%M", text).map_err(|_| {
        format!("'{text}' is no time of day: write hours and minutes, as in \"22:00\"")
    })
}

/// A zone by its name.
pub(super) fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| {
        format!("'{text}' is no time zone that this machine knows: write \"UTC\", or a name as \"Europe/Berlin\" (from tzdata)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(from: &str, to: &str, zone_name: &str) -> Quiet {
        let except = vec![Severity::Critical];
        Quiet {
            from: time(from).expect(from),
            to: time(to).expect(to),
            zone: zone(zone_name).expect(zone_name),
            except,
        }
    }

    fn at(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().expect(text).as_millisecond()).expect("after 1970")
    }

    #[test]
    fn a_night_passes_midnight_and_follows_the_zone() {
        let night = quiet("22:00", "07:00", "Europe/Berlin");
        let waits = |text| night.holds(Severity::Warning, at(text));
        // Winter: an hour ahead of UTC.
        assert!(!waits("2026-11-26T20:59:59Z") && waits("2026-11-26T21:00:00Z"));
        assert!(waits("2026-11-27T05:59:59Z") && !waits("2026-11-27T06:00:00Z"));
        // Summer: two hours.
        assert!(waits("2026-07-01T20:00:00Z") && !waits("2026-07-02T05:00:00Z"));
        for evening in ["2026-11-26T21:00:00Z", "2026-11-27T05:59:59Z"] {
            let morning = at("2026-11-27T06:00:00Z");
            assert_eq!(night.until_ms(Severity::Warning, at(evening)), Some(morning));
        }
        assert_eq!(night.until_ms(Severity::Warning, at("2026-11-26T20:00:00Z")), None);
        assert!(!night.holds(Severity::Critical, at("2026-11-26T23:00:00Z")));
    }

    #[test]
    fn a_span_within_a_day_is_only_that() {
        let noon = quiet("12:00", "13:00", "UTC");
        let waits = |text| noon.holds(Severity::Info, at(text));
        assert!(waits("2026-11-26T12:30:00Z"));
        assert!(!waits("2026-11-26T11:59:00Z") && !waits("2026-11-26T13:00:00Z"));
    }
}
