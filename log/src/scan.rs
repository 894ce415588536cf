//! Walks through the batches of a segment, and finds the way again behind a damaged one.
//!
//! A [`Cursor`] reads in chunks, checks every batch (checksum, and that index and offset follow
//! on) and hands it out as a slice of the chunk, not copied. Where no good batch is it says
//! [`Step::Broken`] and stays; whoever uses it decides what that means: the end of a torn write
//! for recovery, damage for a reader.
//!
//! Behind a broken place [`next_good`] looks for the next batch that can be trusted: its
//! checksum is right, it does not go back, and it is not further ahead than the bytes between
//! could have held batches. What is left out: payloads that hold bytes of this very log (a backup
//! sent as a record, say) could be mistaken for batches, if the batch around them is damaged.

use std::io;

use aklight_common::{Offset, RaftIndex};
use bytes::Bytes;

use crate::buffer::{BUFFER_BYTES, Buffer};
use crate::disk::DiskFile;
use crate::format::{Batch, HEADER_BYTES, MAGIC, RawHeader};

/// What a reader of batches reads at once: some blocks; larger batches are read whole. More would be
/// memory that is new each time, which takes longer than the reading.
pub(crate) const READ_CHUNK_BYTES: usize = BUFFER_BYTES;

/// The entry and the offset that must come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub index: RaftIndex,
    pub offset: Offset,
}

impl Next {
    fn after(batch: &Batch) -> Self {
        Self { index: batch.header.index.next(), offset: batch.header.end_offset() }
    }
}

/// What is at the cursor.
pub(crate) enum Step {
    /// A good batch, and where it begins.
    Batch(u64, Batch),
    /// The end of what the cursor was given.
    End,
    /// Anything else.
    Broken,
}

/// A place in a segment, moving forward.
pub(crate) struct Cursor<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    /// What must come next; `None` takes the first batch as it is.
    next: Option<Next>,
    chunk_bytes: usize,
    buffer: Bytes,
    buffer_at: u64,
    vouched: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        position: u64,
        end: u64,
        next: Option<Next>,
        chunk_bytes: usize,
    ) -> Self {
        Self {
            file,
            position,
            end,
            next,
            chunk_bytes,
            buffer: Bytes::new(),
            buffer_at: 0,
            vouched: 0,
        }
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    pub(crate) const fn next(&self) -> Option<Next> {
        self.next
    }

    /// Where the bytes end that the last batch vouches for: they were durable before it.
    pub(crate) const fn vouched(&self) -> u64 {
        self.vouched
    }

    /// Goes on somewhere else: behind damage, or where somebody else has found a good batch meanwhile.
    /// So it is read anew: what was read here before may be what was damaged, or not yet written.
    pub(crate) fn jump(&mut self, position: u64, next: Next) {
        self.buffer = Bytes::new();
        self.position = position;
        self.next = Some(next);
    }

    /// Reads the batch here and moves behind it.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        if self.position >= self.end {
            return Ok(Step::End);
        }
        let Some(head) = self.window(HEADER_BYTES)? else { return Ok(Step::Broken) };
        let Some(raw) = head.first_chunk().and_then(RawHeader::read) else {
            return Ok(Step::Broken);
        };
        let len = HEADER_BYTES + raw.header.body_len as usize;
        let Some(whole) = self.window(len)? else { return Ok(Step::Broken) };
        let body = whole.slice(HEADER_BYTES..);
        let follows = self.next.is_none_or(|next| {
            next == Next { index: raw.header.index, offset: raw.header.base_offset }
        });
        let good = whole.first_chunk().is_some_and(|head| raw.vouches_for(head, &body));
        if !follows || !good {
            return Ok(Step::Broken);
        }
        let batch = Batch { header: raw.header, body };
        let position = self.position;
        self.vouched = position.saturating_sub(u64::from(raw.unsynced));
        self.position += len as u64;
        self.next = Some(Next::after(&batch));
        Ok(Step::Batch(position, batch))
    }

    /// How long the body of the batch here says it is, where that was read already: nothing is checked
    /// yet.
    pub(crate) fn body_len_ahead(&self) -> Option<usize> {
        let raw = RawHeader::read(self.ahead().first_chunk()?)?;
        Some(raw.header.body_len as usize)
    }

    /// The next `len` bytes; `None` where the segment has fewer.
    fn window(&mut self, len: usize) -> io::Result<Option<Bytes>> {
        if self.position + len as u64 > self.end {
            return Ok(None);
        }
        if self.ahead().len() < len {
            self.read(len)?;
        }
        let ahead = self.ahead();
        Ok((ahead.len() >= len).then(|| self.buffer.slice_ref(&ahead[..len])))
    }

    /// What was read already, from here on.
    fn ahead(&self) -> &[u8] {
        let from = self.position.checked_sub(self.buffer_at);
        let from = from.and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.buffer.get(from..)).unwrap_or_default()
    }

    /// Reads at least `len` bytes, or as many as there are.
    fn read(&mut self, len: usize) -> io::Result<()> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let mut buffer = Buffer::new(self.position, len.max(self.chunk_bytes).min(left));
        let bytes = buffer.as_mut();
        // The beginning of a batch may be here already.
        let kept = self.ahead().len();
        bytes[..kept].copy_from_slice(self.ahead());
        let filled = kept + fill(self.file, &mut bytes[kept..], self.position + kept as u64)?;
        (self.buffer, self.buffer_at) = (buffer.share(filled), self.position);
        Ok(())
    }
}

/// Reads as much as there is.
fn fill(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether only zeros follow: space that was taken in advance, up to megabytes of it.
pub(crate) fn is_blank(file: &dyn DiskFile, mut from: u64, end: u64) -> io::Result<bool> {
    let mut chunk = vec![0; READ_CHUNK_BYTES];
    while let Some(data) = file.data_from(from)?.filter(|data| *data < end) {
        from = data;
        let left = usize::try_from(end - from).unwrap_or(usize::MAX);
        let filled = fill(file, &mut chunk[..left.min(READ_CHUNK_BYTES)], from)?;
        if chunk[..filled].iter().fold(0, |all, byte| all | byte) != 0 {
            return Ok(false);
        }
        if filled == 0 {
            break;
        }
        from += filled as u64;
    }
    Ok(true)
}

/// The bytes of a segment from a broken place to its end: bounded by the segment's length.
pub(crate) fn read_rest(file: &dyn DiskFile, position: u64, end: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(end.saturating_sub(position)).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let filled = fill(file, &mut bytes, position)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// A good batch behind a broken place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Bytes from the broken place.
    pub at: usize,
    /// Bytes from the broken place to the batch's end.
    pub end: usize,
    /// What the batch begins with.
    pub next: Next,
    /// What must come behind it.
    pub after: Next,
    /// The stretch before it of which it does not vouch.
    pub unsynced: u32,
}

/// The next good batch in `rest`, from `from` on, where `next` would have had to come.
pub(crate) fn next_good(rest: &[u8], from: usize, next: Next) -> Option<Found> {
    if let Some(found) = good_at(rest, from, from, next) {
        return Some(found);
    }
    // A batch whose header is whole says itself where the next one begins. Trusting that first
    // keeps payloads that look like batches from being taken for some.
    let head = rest.get(from..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>());
    let behind = head
        .and_then(RawHeader::read)
        .filter(|raw| raw.header.index == next.index)
        .map(|raw| from + HEADER_BYTES + raw.header.body_len as usize);
    if let Some(found) = behind.and_then(|at| good_at(rest, at, from, next)) {
        return Some(found);
    }
    let searched = rest.get(from..)?;
    memchr::memmem::find_iter(searched, &MAGIC).find_map(|at| good_at(rest, from + at, from, next))
}

/// Whether any good batch in `rest` vouches that its beginning, a broken place, had been durable.
pub(crate) fn is_vouched_for(rest: &[u8], mut next: Next) -> bool {
    let mut from = 0;
    while let Some(found) = next_good(rest, from, next) {
        if found.at as u64 > u64::from(found.unsynced) {
            return true;
        }
        (from, next) = (found.end, found.after);
    }
    false
}

fn good_at(rest: &[u8], at: usize, broken_at: usize, next: Next) -> Option<Found> {
    let head = rest.get(at..)?.first_chunk::<HEADER_BYTES>()?;
    let raw = RawHeader::read(head)?;
    let end = at + HEADER_BYTES + raw.header.body_len as usize;
    let header = &raw.header;
    let skipped = header.index.0.checked_sub(next.index.0)?;
    // One more than would fit: the first entry of a log may be 1 where 0 was expected.
    let skippable = (at - broken_at) / HEADER_BYTES + 1;
    let plausible = skipped <= skippable as u64 && header.base_offset >= next.offset;
    let good = plausible && raw.vouches_for(head, rest.get(at + HEADER_BYTES..end)?);
    good.then(|| Found {
        at,
        end,
        next: Next { index: header.index, offset: header.base_offset },
        after: Next { index: header.index.next(), offset: header.end_offset() },
        unsynced: raw.unsynced,
    })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use aklight_common::Term;

    use super::*;
    use crate::disk::MemoryDisk;
    use crate::format::{BatchHeader, BatchKind, encode_header};

    /// Whoever looks at a log that is written meanwhile finds a batch where there was none.
    #[test]
    fn behind_a_jump_nothing_is_known_of_what_was_read_before() {
        let header = BatchHeader {
            index: RaftIndex(0),
            term: Term(1),
            kind: BatchKind::Blank,
            base_offset: Offset(0),
            records: 0,
            first_time_us: 0,
            last_time_us: 0,
            body_len: 0,
        };
        let batch = encode_header(&header, 0, &Bytes::new());
        let file = MemoryDisk::new().shared().create(Path::new("/d/a")).expect("created");
        file.preallocate(0, 4096).expect("made longer");
        let mut cursor = Cursor::new(&*file, 0, 4096, None, 4096);
        assert!(matches!(cursor.step(), Ok(Step::Broken)), "there are zeros");
        file.write_at(&[IoSlice::new(&batch)], 0).expect("written");
        cursor.jump(0, Next { index: RaftIndex(0), offset: Offset(0) });
        assert!(matches!(cursor.step(), Ok(Step::Batch(0, _))), "there is a batch now");
    }
}
