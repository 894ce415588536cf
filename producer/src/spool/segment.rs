//! One file of the spool: records one after another, each with a checksum.
//!
//! ```text
//! file   = "AKSPOOL1" record*
//! record = length(4) crc(4) sequence(8) topic-length(2) topic key-length(2) key payload
//! ```
//!
//! Numbers are big-endian; `length` counts what follows `crc`, and `crc` (CRC-32C) covers the
//! same bytes. A record is written by one call behind the end of the file. What a crash leaves of
//! the last one fails its checksum; reading stops there and says how many bytes it passed over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::outgoing::Outgoing;

const MAGIC: &[u8] = b"AKSPOOL1";
const FRAME_HEAD_BYTES: usize = 8;

/// A file that records are added to.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    file: File,
    bytes: u64,
}

impl SegmentWriter {
    /// Makes the file; there must be none.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
        if let Err(error) = file.write_all(MAGIC) {
            // On a full disk this would otherwise leave one empty file a sample.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(Self { file, bytes: MAGIC.len() as u64 })
    }

    /// Size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a record. After an error the file is as it was, or ends in half a record, which
    /// [`read`] passes over; the caller must then add nothing more to it.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all(frame).inspect_err(|_| {
            let _ = self.file.set_len(self.bytes);
        })?;
        self.bytes += frame.len() as u64;
        Ok(())
    }
}

/// A record as the file holds it.
pub(super) fn frame(record: &Outgoing) -> Vec<u8> {
    let mut body =
        Vec::with_capacity(12 + record.topic.len() + record.key.len() + record.payload.len());
    body.extend_from_slice(&record.sequence.to_be_bytes());
    for text in [&record.topic, &record.key] {
        // Topics and keys are at most 255 bytes; a longer one would be cut, not misread.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
    body.extend_from_slice(&record.payload);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// What a file held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The records that are whole.
    pub(super) records: Vec<Outgoing>,
    /// Bytes behind them that are no record.
    pub(super) damaged_bytes: usize,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> io::Result<Content> {
    let bytes = std::fs::read(path)?;
    let mut records = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Ok(Content { records, damaged_bytes: bytes.len() });
    };
    while let Some((record, behind)) = take_record(rest) {
        records.push(record);
        rest = behind;
    }
    Ok(Content { records, damaged_bytes: rest.len() })
}

fn take_record(bytes: &[u8]) -> Option<(Outgoing, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (body, behind) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (sequence, rest) = body.split_first_chunk::<8>()?;
    let (topic, rest) = take_text(rest)?;
    let (key, payload) = take_text(rest)?;
    let sequence = u64::from_be_bytes(*sequence);
    Some((Outgoing { sequence, topic, key, payload: payload.to_vec() }, behind))
}

fn take_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, behind) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((String::from_utf8(text.to_vec()).ok()?, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(sequence: u64, payload: &[u8]) -> Outgoing {
        Outgoing {
            sequence,
            topic: "metrics/docker/p/cpu".to_owned(),
            key: "p".to_owned(),
            payload: payload.to_vec(),
        }
    }

    fn written(records: &[Outgoing]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.spool");
        let mut writer = SegmentWriter::create(&path).expect("created");
        for record in records {
            writer.append(&frame(record)).expect("written");
        }
        assert_eq!(writer.bytes(), std::fs::metadata(&path).expect("there").len());
        (folder, path)
    }

    #[test]
    fn a_file_that_is_there_is_never_written_over() {
        let (_folder, path) = written(&[]);
        let error = SegmentWriter::create(&path).expect_err("exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_is_no_segment_has_no_records_and_all_of_it_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, b"something else").expect("written");
        let content = read(&path).expect("read");
        assert_eq!(content, Content { records: Vec::new(), damaged_bytes: 14 });
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)
        ) {
            let records: Vec<_> =
                (1..).zip(&payloads).map(|(n, payload)| record(n, payload)).collect();
            let (_folder, path) = written(&records);
            prop_assert_eq!(read(&path).expect("read"), Content { records, damaged_bytes: 0 });
        }

        #[test]
        fn a_torn_tail_or_a_flipped_bit_costs_no_record_before_it(
            cut in 0_usize..1000, flip in any::<bool>()
        ) {
            let records: Vec<_> = (1..=5).map(|n| record(n, b"{\"ts\":1}")).collect();
            let (_folder, path) = written(&records);
            let mut bytes = std::fs::read(&path).expect("read");
            let frame_bytes = frame(&records[0]).len();
            let at = cut % bytes.len();
            if flip { bytes[at] ^= 1 } else { bytes.truncate(at) }
            std::fs::write(&path, &bytes).expect("written");
            let content = read(&path).expect("read");
            let whole = at.saturating_sub(MAGIC.len()) / frame_bytes;
            let expect = if at < MAGIC.len() { 0 } else { whole };
            prop_assert_eq!(&content.records[..], &records[..expect]);
        }
    }
}
