//! The name that `ps` shows for a process.
//!
//! There are two: the short name of 15 bytes (`ps`, `top`; prctl(2) sets it) and the command line
//! (`ps aux`; the kernel reads it out of the process's own memory, where the arguments were put
//! at its start). For the second the arguments are overwritten in place: the name, then NUL
//! bytes up to the end. The kernel says where they are, in `/proc/self/stat`; a name that does
//! not fit is cut, and nothing beyond the arguments is touched.

use std::ffi::CStr;
use std::io;

use nix::sys::prctl;

/// `arg_start` is the 48th field of `/proc/self/stat` and `arg_end` the 49th (proc(5)); the
/// fields behind the name in parentheses, which may hold blanks, begin with the third.
const ARG_START_BEHIND_NAME: usize = 48 - 3;

/// Gives this process a name in `ps` and in `ps aux`.
///
/// # Errors
/// When the kernel does not tell where the arguments are. The short name is then set already.
pub fn set(name: &CStr) -> io::Result<()> {
    prctl::set_name(name)?;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (start, end) = arguments(&stat).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat has no place of the arguments")
    })?;
    overwrite(start, end, name.to_bytes());
    Ok(())
}

/// Where the arguments begin and end; `None` when hidden (zero) or empty.
fn arguments(stat: &str) -> Option<(usize, usize)> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(ARG_START_BEHIND_NAME);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    (start != 0 && start < end).then_some((start, end))
}

fn overwrite(start: usize, end: usize, name: &[u8]) {
    // One NUL must remain at the end: the kernel takes its absence for a title that goes on
    // into the environment.
    let kept = name.len().min(end - start - 1);
    let arguments: *mut u8 = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the kernel put the arguments into [start, end) of our stack, which is writable and
    // stays mapped for as long as the process lives; no Rust object lies there. Others who know
    // the place are libc and `std::env::args`, which copy from it at each call and find
    // terminated strings, now shorter ones, at every address they know. We are the only thread
    // (checked before each fork), so nobody reads while we write.
    unsafe {
        std::ptr::copy_nonoverlapping(name.as_ptr(), arguments, kept);
        std::ptr::write_bytes(arguments.add(kept), 0, end - start - kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_arguments_is_read_behind_any_name() {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
        let (start, end) = arguments(&stat).expect("a place");
        let cmdline = std::fs::read("/proc/self/cmdline").expect("cmdline");
        assert_eq!(end - start, cmdline.len());
        let tail = stat.rsplit_once(')').expect("a name").1;
        assert_eq!(arguments(&format!("1 (a) b (c)) {tail}")), Some((start, end)));
    }

    #[test]
    fn a_place_that_the_kernel_hides_is_none() {
        assert_eq!(arguments(&format!("1 (a){}", " 0".repeat(60))), None);
        assert_eq!(arguments("1 (a) S 1"), None);
        assert_eq!(arguments(""), None);
    }

    #[test]
    fn a_name_fills_the_place_and_never_leaves_it() {
        for (room, expect) in [
            (20, &b"cpu_collector\0\0\0\0\0\0\0"[..]),
            (14, b"cpu_collector\0"),
            (5, b"cpu_\0"),
            (1, b"\0"),
        ] {
            let mut memory = vec![b'x'; room + 1];
            let start = memory.as_mut_ptr().expose_provenance();
            overwrite(start, start + room, b"cpu_collector");
            assert_eq!(&memory[..room], expect);
            assert_eq!(memory[room], b'x', "one past the end");
        }
    }
}
