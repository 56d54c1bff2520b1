//! Waits for a long time with as little memory as possible.
//!
//! A program that waits for hours needs only one page of its code. All other pages can be read from
//! its file again. But a page fault also maps the sixteen pages around it, so if the memory were
//! just returned, the way into the next system call would bring a quarter megabyte back. Therefore
//! one function, in separate pages, returns the memory and waits.

use std::arch::asm;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

const PAGE: usize = 4096;
/// More segments than any linker makes.
const MOST: usize = 16;
/// More than the stack may ever have grown to.
const STACK: usize = 512 * 1024;

/// Parts of the address space: start and length.
#[derive(Clone, Copy)]
struct Ranges {
    list: [(usize, usize); MOST],
    count: usize,
}

impl Ranges {
    /// The program's read-only segments.
    fn of_program() -> Self {
        let mut ranges = Self {
            list: [(0, 0); MOST],
            count: 0,
        };
        // SAFETY: the function does what the C library expects, and `ranges` outlives
        // it.
        unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut ranges).cast()) };
        ranges
    }
}

/// Returns the memory of the program's code and constants, in all threads. Pages that are used
/// again are read again. For a program whose start needs much code that its service does not.
pub fn release_code() {
    let ranges = Ranges::of_program();
    for (start, length) in ranges.list.into_iter().take(ranges.count) {
        // SAFETY: a segment that the program may not write holds what its file holds (what
        // relocation writes to lies in writable ones), and is read from there again.
        unsafe { madvise(start, length, libc::MADV_DONTNEED) };
    }
}

/// Waits until a descriptor is readable, or for some milliseconds (-1: forever). Meanwhile the
/// program's code, its constants and the unused part of its stack use no memory. If memory can't be
/// returned, it only stays in use. The caller must check itself why the wait ended.
pub fn wait_readable(descriptor: BorrowedFd<'_>, milliseconds: i32) {
    let ranges = Ranges::of_program();
    // With an attribute that differs from the surrounding code, the function's pages (two at most)
    // become a separate mapping.
    let function = give_up_and_poll as *const () as usize & !(PAGE - 1);
    // SAFETY: only decides what is in a core dump.
    unsafe {
        libc::madvise(
            std::ptr::with_exposed_provenance_mut(function),
            2 * PAGE,
            libc::MADV_DONTDUMP,
        );
    }
    let mut poll = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    give_up_and_poll(&ranges, &mut poll, milliseconds);
}

/// Records the program's read-only segments.
unsafe extern "C" fn collect(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library passes a valid object, and on to here what was passed to it.
    let (base, headers, ranges) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
        (
            object.dlpi_addr as usize,
            headers,
            &mut *data.cast::<Ranges>(),
        )
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (base + header.p_vaddr as usize) & !(PAGE - 1);
        let end = base + header.p_vaddr as usize + header.p_memsz as usize;
        if let Some(place) = ranges.list.get_mut(ranges.count) {
            *place = (start, end - start);
            ranges.count += 1;
        }
    }
    // The first object is the program itself; no others.
    1
}

#[inline(never)]
fn give_up_and_poll(ranges: &Ranges, poll: &mut libc::pollfd, milliseconds: i32) {
    let stack: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    // Below what a function may use without moving the register.
    let stack_end = (stack - 256) & !(PAGE - 1);
    let mut index = 0;
    while index < ranges.count && index < MOST {
        let (start, length) = ranges.list[index];
        // SAFETY: a segment that the program may not write holds what its file holds (what
        // relocation writes to lies in writable ones), and is read from there again.
        unsafe { madvise(start, length, libc::MADV_DONTNEED) };
        index += 1;
    }
    // SAFETY: nothing is on the stack below the pages in use. The part of the range that does not
    // belong to the stack is not mapped (the kernel keeps a gap).
    unsafe { madvise(stack_end - STACK, STACK, libc::MADV_DONTNEED) };
    // SAFETY: one valid element.
    unsafe {
        syscall(
            libc::SYS_poll as usize,
            std::ptr::from_mut(poll) as usize,
            1,
            milliseconds as usize,
        );
    }
}

/// # Safety
/// The contents of the range must not be needed any more.
#[inline(always)]
unsafe fn madvise(start: usize, length: usize, advice: i32) {
    // SAFETY: the caller's promise.
    unsafe { syscall(libc::SYS_madvise as usize, start, length, advice as usize) };
}

/// A system call without the C library's function, which would be on another page.
///
/// # Safety
/// As the system call says.
#[inline(always)]
unsafe fn syscall(number: usize, first: usize, second: usize, third: usize) {
    // SAFETY: the kernel's calling convention; the caller's promise for the rest.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => _,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    /// Kilobytes of the program's files that are mapped.
    fn resident_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }

    #[test]
    fn returned_code_is_read_again() {
        let before = resident_files();
        release_code();
        assert!(resident_files() < before);
        // Other threads also continue.
        let sum: u64 = std::thread::spawn(|| (0..1000).sum()).join().unwrap();
        assert_eq!(sum, 499_500);
    }

    #[test]
    fn waiting_ends_when_there_is_something_to_read_or_time_is_up() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let begin = Instant::now();
        wait_readable(reader.as_fd(), 20);
        assert!(begin.elapsed() >= Duration::from_millis(20));
        writer.write_all(b".").unwrap();
        wait_readable(reader.as_fd(), -1);
    }
}
