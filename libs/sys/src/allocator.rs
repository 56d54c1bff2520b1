//! A memory allocator for short-lived programs with one thread.
//!
//! The C library's allocator asks the kernel for memory in small pieces and returns it at once,
//! which made a quarter of the system calls of a container's start. This one takes memory in large
//! pieces, whose pages cost nothing until they are touched, and keeps freed blocks in lists by
//! size. Large blocks are separate mappings, because a long-lived process must return them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

/// Smallest block, and the alignment of all.
const SMALLEST: usize = 16;
/// Largest block in a list.
const LARGEST: usize = 32 * 1024;
/// How many bytes are taken from the kernel at once.
const CHUNK: usize = 128 * 1024;
const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;

/// A free block holds the address of the next one.
struct Free {
    next: *mut Free,
}

struct State {
    free: [*mut Free; CLASSES],
    next: *mut u8,
    left: usize,
}

/// The allocator, for `#[global_allocator]`.
pub struct Arena {
    locked: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: the state is reached only while the lock is held.
unsafe impl Sync for Arena {}

impl Arena {
    /// An allocator that has no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            locked: AtomicBool::new(false),
            state: UnsafeCell::new(State {
                free: [null_mut(); CLASSES],
                next: null_mut(),
                left: 0,
            }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Only test programs have more than one thread.
        while self.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        // SAFETY: the lock is held, and `work` does not come back here.
        let result = work(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

/// The source of blocks of a layout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The list of this number.
    List(usize),
    /// A separate mapping.
    Mapping,
    /// The C library's allocator: for small blocks with a large alignment, which are rare.
    System,
}

/// Smallest page size. Mappings begin at a page.
const PAGE: usize = 4096;

fn source(layout: Layout) -> Source {
    if layout.align() > PAGE || (layout.align() > SMALLEST && layout.size() <= LARGEST) {
        return Source::System;
    }
    if layout.size() > LARGEST {
        return Source::Mapping;
    }
    let size = layout.size().max(SMALLEST).next_power_of_two();
    Source::List((size / SMALLEST).ilog2() as usize)
}

/// New memory from the kernel, filled with zeros. Null if there is none.
fn map(size: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping of the kernel's choice touches nothing that exists.
    let memory = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    match memory {
        libc::MAP_FAILED => null_mut(),
        memory => memory.cast(),
    }
}

impl State {
    /// A block, and whether it was never used and so holds nothing but zeros.
    fn take(&mut self, class: usize) -> (*mut u8, bool) {
        let Some(head) = self.free.get_mut(class) else {
            return (null_mut(), false);
        };
        if !head.is_null() {
            let block = *head;
            // SAFETY: a listed block is free and was written by `give`.
            *head = unsafe { (*block).next };
            return (block.cast(), false);
        }
        let size = SMALLEST << class;
        if self.left < size {
            // The rest of the old piece stays unused: it is smaller than the largest block.
            let chunk = map(CHUNK);
            if chunk.is_null() {
                return (null_mut(), false);
            }
            (self.next, self.left) = (chunk, CHUNK);
        }
        let block = self.next;
        // SAFETY: the piece has at least `size` bytes left.
        self.next = unsafe { block.add(size) };
        self.left -= size;
        (block, true)
    }

    fn give(&mut self, class: usize, block: *mut u8) {
        if let Some(head) = self.free.get_mut(class) {
            let block = block.cast::<Free>();
            // SAFETY: the block has at least 16 bytes, is aligned to 16, and is the caller's to
            // give.
            unsafe { (*block).next = *head };
            *head = block;
        }
    }
}

// SAFETY: blocks are disjoint, at least as large as their class, aligned to 16 or to pages, and the
// source of a layout never changes, so that a block returns to where it came from.
unsafe impl GlobalAlloc for Arena {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match source(layout) {
            Source::List(class) => self.with(|state| state.take(class)).0,
            Source::Mapping => map(layout.size()),
            // SAFETY: the caller's promise.
            Source::System => unsafe { System.alloc(layout) },
        }
    }

    /// New memory from the kernel, and large blocks of the system's allocator, are zero already and
    /// not touched.
    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let class = match source(layout) {
            Source::List(class) => class,
            Source::Mapping => return map(layout.size()),
            // SAFETY: the caller's promise.
            Source::System => return unsafe { System.alloc_zeroed(layout) },
        };
        let (block, unused) = self.with(|state| state.take(class));
        if !block.is_null() && !unused {
            // SAFETY: the block has at least as many bytes as the layout asks for.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match source(layout) {
            Source::List(class) => self.with(|state| state.give(class, block)),
            Source::Mapping => {
                // SAFETY: the caller's promise; the mapping is of this size.
                unsafe { libc::munmap(block.cast(), layout.size()) };
            }
            // SAFETY: the caller's promise; the block came from there.
            Source::System => unsafe { System.dealloc(block, layout) },
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size, rounded up to the alignment, is valid.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (source(layout), source(new)) {
            (Source::List(old), Source::List(new)) if old == new => block,
            (Source::Mapping, Source::Mapping) => {
                let (old, flags) = (layout.size(), libc::MREMAP_MAYMOVE);
                // SAFETY: the caller's promise; the mapping is of the old size.
                let moved = unsafe { libc::mremap(block.cast(), old, size, flags) };
                match moved {
                    libc::MAP_FAILED => null_mut(),
                    moved => moved.cast(),
                }
            }
            // SAFETY: the caller's promise; both are the system's.
            (Source::System, Source::System) => unsafe { System.realloc(block, layout, size) },
            _ => {
                // SAFETY: the old block has `layout.size()` bytes, the new one `size`.
                unsafe {
                    let moved = self.alloc(new);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_disjoint_and_come_back() {
        let arena = Arena::new();
        let mut blocks = Vec::new();
        for round in 0..3u8 {
            for size in (1..70_000).step_by(777) {
                let layout = Layout::from_size_align(size, 8).unwrap();
                // SAFETY: the size is not zero, and the block is filled as far as it reaches.
                unsafe {
                    let block = arena.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(8));
                    block.write_bytes(round ^ size as u8, size);
                    blocks.push((block, layout, round ^ size as u8));
                }
            }
            // Every other block changes its size and keeps its content.
            for (block, layout, value) in blocks.iter_mut().step_by(2) {
                let size = layout.size() * 2;
                // SAFETY: the block is of this layout.
                unsafe {
                    let moved = arena.realloc(*block, *layout, size);
                    let old = std::slice::from_raw_parts(moved, layout.size());
                    assert!(old.iter().all(|byte| byte == value));
                    moved.write_bytes(*value, size);
                    *block = moved;
                }
                *layout = Layout::from_size_align(size, 8).unwrap();
            }
            for (block, layout, value) in blocks.drain(..) {
                // SAFETY: the block is of this layout and is not used any more.
                unsafe {
                    let content = std::slice::from_raw_parts(block, layout.size());
                    assert!(content.iter().all(|byte| *byte == value));
                    arena.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn zeroed_blocks_are_zero_and_large_ones_are_not_touched() {
        let arena = Arena::new();
        for size in [1, 16, 1000, 32 * 1024, 100_000] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            for _ in 0..3 {
                // SAFETY: the size is not zero, and the block is read and filled as far as it
                // reaches.
                unsafe {
                    let block = arena.alloc_zeroed(layout);
                    let content = std::slice::from_raw_parts(block, size);
                    assert!(content.iter().all(|byte| *byte == 0), "{size}");
                    block.write_bytes(0xff, size);
                    arena.dealloc(block, layout);
                }
            }
        }
        let resident = || -> usize {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse().unwrap()
        };
        let layout = Layout::from_size_align(256 << 20, 8).unwrap();
        let before = resident();
        // SAFETY: the size is not zero; nothing is read.
        unsafe {
            let block = arena.alloc_zeroed(layout);
            assert!(!block.is_null());
            let pages = resident().saturating_sub(before);
            assert!(pages * 4096 < 64 << 20, "{pages} pages");
            arena.dealloc(block, layout);
        }
    }

    #[test]
    fn a_freed_block_serves_the_next_request() {
        let arena = Arena::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: sizes are not zero; nothing is read.
        unsafe {
            let first = arena.alloc(layout);
            arena.dealloc(first, layout);
            assert_eq!(arena.alloc(layout), first);
        }
    }
}
