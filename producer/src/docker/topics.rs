//! The topics of a container.
//!
//! A container's name is one level of its topics. Docker and Podman take letters, digits, `_`, `.`
//! and `-` for names, which a level holds as they are; any other byte, from an engine that takes
//! more, is written as `%` and two hexadecimal digits. A name that is too long for a topic is cut
//! and ends in the id, so that two long names stay two.

use std::fmt::Write as _;

use aklight_common::limits::TOPIC_BYTES_MAX;

use crate::sample::Metric;

/// What stands around a producer's and a container's name in the longest topic of all.
const AROUND_BYTES: usize = "rollup/1m/metrics/docker///throttling".len();

/// Digits of the id behind a name that was cut.
const ID_DIGITS: usize = 12;

/// Where a container's records belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    source: String,
}

impl Topics {
    /// Of the container `name` of `producer`.
    #[must_use]
    pub fn new(producer: &str, name: &str, id: &str) -> Self {
        let mut level = String::with_capacity(name.len());
        let room = TOPIC_BYTES_MAX.saturating_sub(AROUND_BYTES + producer.len());
        let cut_at = room.saturating_sub(1 + ID_DIGITS);
        let mut kept = 0;
        for byte in name.bytes() {
            if is_plain(byte) {
                level.push(char::from(byte));
            } else {
                // Writing into a String cannot fail.
                let _ = write!(level, "%{byte:02X}");
            }
            if level.len() <= cut_at {
                kept = level.len();
            }
        }
        if level.len() > room || level.is_empty() {
            level.truncate(kept);
            let _ = write!(level, "-{}", id.get(..ID_DIGITS).unwrap_or(id));
        }
        Self { source: format!("docker/{producer}/{level}") }
    }

    /// Of a metric.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> String {
        format!("metrics/{}/{}", self.source, metric.name())
    }

    /// Of what it is.
    #[must_use]
    pub fn info(&self) -> String {
        format!("info/{}", self.source)
    }

    /// Of what happens to it.
    #[must_use]
    pub fn events(&self) -> String {
        format!("events/{}", self.source)
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'/' | b'+' | b'#' | b'|' | b'%' | b'\\')
}

#[cfg(test)]
mod tests {
    use aklight_common::topic::check_topic;

    use super::*;

    fn level(name: &str) -> String {
        let info = Topics::new("p", name, "0123456789abcdef").info();
        info.strip_prefix("info/docker/p/").expect("a level").to_owned()
    }

    #[test]
    fn usual_names_stay_and_other_bytes_are_escaped() {
        assert_eq!(level("shop_web-1.x"), "shop_web-1.x");
        assert_eq!(level("a/b c"), "a%2Fb%20c");
        assert_eq!(level("100%+#|"), "100%25%2B%23%7C");
        assert_eq!(level("é"), "%C3%A9");
        assert_eq!(level(""), "-0123456789ab");
    }

    #[test]
    fn every_name_of_every_producer_fits_and_long_ones_stay_apart() {
        for producer in ["p".to_owned(), "p".repeat(128)] {
            for name in ["x".repeat(60), "x".repeat(400), "é".repeat(200)] {
                let one = Topics::new(&producer, &name, "0123456789abcdef");
                let longest = format!("rollup/1m/{}", one.metric(Metric::Throttling));
                check_topic(longest.as_bytes()).expect("a topic");
                let other = Topics::new(&producer, &name, "f123456789abcdef");
                assert_eq!(one == other, name.len() == 60);
            }
        }
    }
}
