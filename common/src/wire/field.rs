//! What commands and replies are made of: fields between pipes, numbers in plain digits.

use super::error::{ErrorCode, WireError};
use super::escape::escape_into;

/// A whole number in plain digits: no sign, no blanks.
pub(super) fn number(field: &[u8], what: &str) -> Result<u64, WireError> {
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(field)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            ErrorCode::BadNumber.with(&format!(
                "'{}' is not {what}: write a whole number from 0 to {}",
                printable(field),
                u64::MAX
            ))
        })
}

/// Digits of the longest number.
pub(super) const DIGITS: usize = 20;

/// A number in digits, which begin at the place given back: without the detour of a format string.
pub(super) fn digits(mut value: u64) -> ([u8; DIGITS], usize) {
    let mut digits = [0; DIGITS];
    let mut at = DIGITS;
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return (digits, at);
        }
    }
}

/// A field as an error may quote it: short, printable, without pipes.
pub(super) fn printable(field: &[u8]) -> String {
    const QUOTED_BYTES_MAX: usize = 40;
    let cut = &field[..field.len().min(QUOTED_BYTES_MAX)];
    let more = if cut.len() < field.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_ascii())
}

/// Appends fields, with a pipe between each two.
pub(super) fn fields(out: &mut Vec<u8>, fields: &[&[u8]]) {
    for (n, field) in fields.iter().enumerate() {
        if n > 0 {
            out.push(b'|');
        }
        out.extend_from_slice(field);
    }
}

/// Appends a pipe and a field, escaped.
pub(super) fn escaped(out: &mut Vec<u8>, field: &[u8]) {
    out.push(b'|');
    escape_into(field, out);
}
