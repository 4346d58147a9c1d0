//! What a process does not take, and what it gives back: its memory is the product.

use super::check;
use crate::drivers::mappings;
use std::{io, sync::Once, time::Duration};

/// Call it first thing in `main`.
///
/// No transparent huge pages: where the kernel gives them unasked (Debian's does), the first byte of an aligned 2 MiB range, a
/// thread's stack by chance, costs all of it. Programs that are started get the kernel's own setting back.
///
/// And glibc keeps what it once had unless told otherwise: one arena, small free lists, big blocks straight from the kernel.
pub fn tune_memory() {
    set_huge_pages(false);
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers; called before other threads allocate.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// `PR_SET_THP_DISABLE`, prctl(2): inherited by children, and kept by exec. A kernel that has no such pages may refuse it.
pub(super) fn set_huge_pages(allowed: bool) {
    let (disable, none) = (libc::c_ulong::from(!allowed), 0 as libc::c_ulong);
    // SAFETY: numbers only: async-signal-safe.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disable, none, none, none) };
}

/// Gives free pages back to the kernel; worth it after a burst. Nothing to do on musl.
pub fn trim_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only touches the allocator's own free memory, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the functions that let go of the stack stand on themselves, far more than they need.
const STACK_KEPT_BYTES: usize = 16 * 1024;

/// Gives back the pages of the main thread's stack that a deep call once needed; nothing on another thread.
///
/// # Errors
/// As reading /proc/self/maps, and madvise(2)'s.
#[inline(never)]
pub fn release_stack() -> io::Result<()> {
    let here = 0_u8;
    let here = &raw const here as usize;
    let Some(stack) = mappings::of_stack()?.filter(|stack| stack.contains(&here)) else { return Ok(()) };
    // SAFETY: it takes a number and answers with one.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)?;
    let end = here.saturating_sub(STACK_KEPT_BYTES) / page * page;
    if end <= stack.start {
        return Ok(());
    }
    // SAFETY: the stack grows down, so nothing lives this far below a local variable of the running function but frames
    // that have returned; a call or signal that comes this deep again finds zeroed pages, which it writes before it reads.
    check(unsafe { libc::madvise(stack.start as *mut libc::c_void, end - stack.start, libc::MADV_DONTNEED) }).map(drop)
}

/// Neighbouring code pages that come back together, see below.
const CODE_CHUNK_BYTES: usize = 16 * 1024;

/// While there is work, code that did not run within this long is unmapped; what runs comes back by some hundred faults.
pub const CODE_KEPT: Duration = Duration::from_secs(1);

/// Unmaps the pages of our own binary: code and constants that ran once and may not run again for long. They stay in
/// the kernel's page cache and come back by a page fault each, so this costs microseconds and loses nothing.
///
/// A fault on a file maps the 64 KiB around it (`fault_around_bytes`), so code that is used here and there would bring
/// nearly all the rest back. The kernel does not look past the mapping's end: every other chunk gets another access
/// hint, which makes each a mapping of its own (about 200 bytes of kernel memory).
///
/// # Errors
/// As reading /proc/self/smaps.
pub fn release_code_pages() -> io::Result<()> {
    static CUT: Once = Once::new();
    let ranges = mappings::of_own_binary()?;
    let advise = |start: usize, length: usize, advice| {
        // SAFETY: the range is our own binary's, not writable, without private copies, and nothing ever unmaps
        // it: whoever touches it next gets the same bytes from the file (no one can write it now: ETXTBSY).
        check(unsafe { libc::madvise(start as *mut libc::c_void, length, advice) }).map(drop)
    };
    CUT.call_once(|| {
        for range in ranges {
            for (number, start) in range.clone().step_by(CODE_CHUNK_BYTES).enumerate() {
                let hint = if number % 2 == 0 { libc::MADV_RANDOM } else { libc::MADV_NORMAL };
                // Best effort: uncut, more comes back at a time.
                let _ = advise(start, CODE_CHUNK_BYTES.min(range.end - start), hint);
            }
        }
    });
    ranges.iter().try_for_each(|range| advise(range.start, range.len(), libc::MADV_DONTNEED))
}
