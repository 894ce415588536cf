//! Reads what `aklight_common::record::put_varint` wrote: the numbers of a sidecar.
//!
//! Every answer is `None` once the bytes break off or hold nonsense; the caller throws the whole
//! file away then.

/// Numbers and sized texts, one after another.
pub(crate) struct Varints<'a> {
    bytes: &'a [u8],
}

impl<'a> Varints<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The next bytes with their length in front.
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.next()?).ok()?;
        let (sized, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(sized)
    }

    /// The next text with its length in front.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }

    /// How many bytes are left.
    pub(crate) const fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::record::put_varint;

    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let mut bytes = Vec::new();
        for number in numbers {
            put_varint(&mut bytes, number);
        }
        let mut read = Varints::new(&bytes);
        for number in numbers {
            assert_eq!(read.next(), Some(number));
        }
        assert!(read.is_empty() && read.next().is_none());
    }
}
