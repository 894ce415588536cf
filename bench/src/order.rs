//! Whether one subscriber is brought each record once, in order, under its own topic.
//!
//! ```text
//! offset = last offset + 1        in each partition, from the first that came
//! number > last number            in each partition: the producer's order
//! ```

use anyhow::{Context, ensure};

use crate::load::Load;
use crate::peers::{Found, Way};

/// Most partitions that a server here has.
const PARTITIONS_MAX: usize = 1 << 10;

/// What one subscriber was brought last, of each partition: offset and number.
#[derive(Debug, Default)]
pub struct Order {
    last: Vec<Option<(u64, u64)>>,
}

impl Order {
    /// Looks at the next record.
    ///
    /// # Errors
    /// When it is not the one that was due.
    pub fn check(
        &mut self,
        way: &dyn Way,
        load: &Load,
        number: u64,
        record: Found<'_>,
    ) -> anyhow::Result<()> {
        let (place, topic) = way.place(record.head).context("a record without its place")?;
        let due = load.topic(load.topic_of(number));
        ensure!(topic == due, "record {number} came under {}", topic.escape_ascii());
        let partition = usize::try_from(place.partition)?;
        ensure!(partition < PARTITIONS_MAX, "partition {partition} is none");
        if self.last.len() <= partition {
            self.last.resize(partition + 1, None);
        }
        if let Some((offset, before)) = self.last[partition] {
            let is_next = place.offset == offset + 1 && number > before;
            ensure!(is_next, "{place:?} with record {number} came after offset {offset}");
        }
        self.last[partition] = Some((place.offset, number));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::peers::aklight::Aklight;

    fn check(came: &[(u64, &str)]) -> anyhow::Result<()> {
        let (way, load) = (Aklight::new(Path::new("aklight")), Load::new(4, 16)?);
        let mut order = Order::default();
        came.iter().try_for_each(|(number, head)| {
            let record = Found { payload: b"", head: head.as_bytes() };
            order.check(&way, &load, *number, record)
        })
    }

    const FIRST: (u64, &str) = (0, "MESSAGE|metrics/docker/web0/cpu|7|0|");
    const SECOND: (u64, &str) = (2, "MESSAGE|metrics/docker/web0/net|8|0|");

    #[test]
    fn partitions_go_on_one_by_one() {
        check(&[FIRST, (1, "MESSAGE|metrics/docker/web0/mem|3|1|k"), SECOND]).expect("in order");
    }

    #[test]
    fn what_comes_twice_or_late_or_under_another_name_is_refused() {
        assert!(check(&[FIRST, FIRST]).is_err());
        assert!(check(&[SECOND, FIRST]).is_err());
        assert!(check(&[FIRST, (2, "MESSAGE|metrics/docker/web0/net|9|0|")]).is_err());
        assert!(check(&[SECOND, (0, "MESSAGE|metrics/docker/web0/cpu|9|0|")]).is_err());
        assert!(check(&[(1, "MESSAGE|metrics/docker/web0/cpu|7|0|")]).is_err());
        assert!(check(&[(0, "MESSAGE|metrics/docker/web0/cpu|7")]).is_err());
    }
}
