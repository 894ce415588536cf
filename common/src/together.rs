//! Questions about many bytes at a time.
//!
//! Without branches, and in bytes only: so the compiler makes one step of sixteen. The last ones are looked
//! at together with some before them, a second time: one by one they would take as long as all others.

/// Bytes that are looked at together: what every processor of this kind compares in one step.
const TOGETHER: usize = 16;

/// Whether none of the bytes is one of these.
#[inline]
pub(crate) fn has_none(bytes: &[u8], is_one: impl Fn(u8) -> bool + Copy) -> bool {
    let any = |bytes: &[u8]| bytes.iter().fold(0, |any, byte| any | u8::from(is_one(*byte)));
    if let Some(last) = bytes.last_chunk::<TOGETHER>() {
        let (whole, _) = bytes.as_chunks::<TOGETHER>();
        return any(whole.as_flattened()) | any(last) == 0;
    }
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => any(first) | any(last) == 0,
        _ => any(bytes) == 0,
    }
}

/// Whether no two bytes that follow each other are such a pair.
#[inline]
pub(crate) fn has_no_pair(bytes: &[u8], is_one: impl Fn(u8, u8) -> bool + Copy) -> bool {
    let any = |firsts: &[u8], seconds: &[u8]| {
        let pairs = firsts.iter().zip(seconds);
        pairs.fold(0, |any, (first, second)| any | u8::from(is_one(*first, *second)))
    };
    let (Some((_, seconds)), Some((_, firsts))) = (bytes.split_first(), bytes.split_last()) else {
        return true;
    };
    let (whole, rest) = firsts.as_chunks::<TOGETHER>();
    let (seconds_whole, seconds_rest) = seconds.as_chunks::<TOGETHER>();
    let any_of_whole = any(whole.as_flattened(), seconds_whole.as_flattened());
    let any_of_last = match (firsts.last_chunk::<TOGETHER>(), seconds.last_chunk::<TOGETHER>()) {
        (Some(firsts), Some(seconds)) => any(firsts, seconds),
        _ => any(rest, seconds_rest),
    };
    any_of_whole | any_of_last == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_looked_at() {
        for len in 0..70 {
            let mut bytes = vec![b'a'; len];
            assert!(has_none(&bytes, |byte| byte == b'/'));
            for at in 0..len {
                bytes[at] = b'/';
                assert!(!has_none(&bytes, |byte| byte == b'/'), "{at} of {len}");
                assert!(has_no_pair(&bytes, |one, other| one == b'/' && other == b'/'));
                if at > 0 {
                    bytes[at - 1] = b'/';
                    assert!(!has_no_pair(&bytes, |one, other| one == b'/' && other == b'/'));
                    bytes[at - 1] = b'a';
                }
                bytes[at] = b'a';
            }
        }
    }
}
