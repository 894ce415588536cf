//! The records of a stretch of time, found through the log's indexes of times and topics.
//!
//! A walk begins at the first record that came in at the span's start, jumps over blocks without a
//! wanted topic, and ends with the span, or when its budget of bytes is used up: whoever asks for
//! more than a broker should read for one question gets a part, and knows it.

use std::collections::HashSet;
use std::ops::Range;

use aklight_common::Pattern;
use aklight_common::wire::WireError;
use aklight_log::Batch;
use memchr::memmem::Finder;

use super::reader::{self, Sink, Stride};
use crate::partition::Partition;

/// What a read costs beside its bytes, in bytes: looking into indexes.
const READ_COST_BYTES: usize = 4 << 10;

/// Topics of a partition, by name: looked up for every record that is passed over, which a pattern
/// takes several times as long for.
pub struct Names {
    names: HashSet<Box<[u8]>>,
    /// What all of them begin with: looking for it takes a tenth of the time of going through a
    /// batch's records, and of looking a name up.
    beginning: Finder<'static>,
}

impl Names {
    /// The topics that one of the patterns matches, of which there was a record since (microseconds
    /// since the Unix epoch), and which pass the test.
    #[must_use]
    pub fn of(
        partition: &Partition,
        patterns: &[Pattern],
        since_us: u64,
        test: &dyn Fn(&str) -> bool,
    ) -> Self {
        let matching = patterns.iter().flat_map(|pattern| partition.topics.matching(pattern));
        let wanted =
            matching.filter(|(topic, stats)| stats.last_time_us >= since_us && test(topic));
        let names: HashSet<_> =
            wanted.map(|(topic, _)| topic.into_bytes().into_boxed_slice()).collect();
        let beginning = Finder::new(&beginning(&names)).into_owned();
        Self { names, beginning }
    }

    fn has(&self, name: &[u8]) -> bool {
        name.starts_with(self.beginning.needle()) && self.names.contains(name)
    }

    /// Whether a batch may have a record on one of them: it spells out each of its topics, and
    /// one that does not decode has none that anybody could show.
    fn may_be_in(&self, batch: &Batch) -> bool {
        self.beginning.find(&batch.body).is_some()
    }
}

/// The longest text that all names begin with.
fn beginning(names: &HashSet<Box<[u8]>>) -> Vec<u8> {
    let mut names = names.iter();
    let mut all = names.next().map(|name| name.to_vec()).unwrap_or_default();
    for name in names {
        let same = all.iter().zip(name).take_while(|(a, b)| a == b).count();
        all.truncate(same);
    }
    all
}

/// Hands the records on these topics that came in within the span (microseconds since the Unix
/// epoch) to `sink`, in order, and takes the bytes read from `budget`. Says whether the span was
/// read to its end.
///
/// # Errors
/// When the disk does not answer.
pub fn walk(
    partition: &Partition,
    names: &Names,
    span: Range<u64>,
    budget: &mut usize,
    sink: Sink<'_>,
) -> Result<bool, WireError> {
    if names.names.is_empty() {
        return Ok(true);
    }
    let wanted = |topic: &str| names.has(topic.as_bytes());
    let end = partition.end();
    let mut next = partition.log.offset_at_time(span.start).max(partition.start());
    let mut stride = Stride::new();
    let mut search = partition.log.topic_search(&wanted);
    while next < end {
        let from = search.next(next, end);
        let batches = match reader::read_up_to(partition, from, end, stride.next(next, from))? {
            Ok(batches) => batches,
            // What is lost cannot be shown; what lies behind it can.
            Err(gap) => {
                next = gap.resume.max(from.next());
                continue;
            }
        };
        if batches.is_empty() {
            return Ok(true);
        }
        let mut read = READ_COST_BYTES;
        for batch in &batches {
            if batch.header.first_time_us >= span.end {
                return Ok(true);
            }
            read += batch.body.len();
            next = batch.header.end_offset().max(next);
            if !names.may_be_in(batch) {
                continue;
            }
            for record in reader::records_on(batch, from, |name| names.has(name)) {
                let (offset, record) = record?;
                if span.contains(&record.time_us) && offset < end {
                    sink(partition.id, offset, &record);
                }
            }
        }
        if *budget < read {
            *budget = 0;
            return Ok(false);
        }
        *budget -= read;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_beginning_that_all_of_them_have() {
        let of = |names: &[&str]| {
            let names = names.iter().map(|name| name.as_bytes().into()).collect();
            String::from_utf8(beginning(&names)).expect("ASCII")
        };
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["a/b/cpu"]), "a/b/cpu");
        assert_eq!(of(&["a/b/cpu", "a/b/cpus", "a/b/memory"]), "a/b/");
        assert_eq!(of(&["a/b", "b/a"]), "");
    }
}
