//! How often this program asks for memory.

#![allow(dead_code, reason = "each test uses its own part of it")]
#![allow(
    unsafe_code,
    reason = "only an allocator sees what lists ask for; it counts, and hands on what it was asked to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// By all threads but the first, which is the harness's.
static OF_ALL: AtomicU64 = AtomicU64::new(0);
static HAS_FIRST: AtomicBool = AtomicBool::new(false);

thread_local! {
    static OF_THIS: Cell<u64> = const { Cell::new(0) };
    static IS_FIRST: Cell<bool> = const { Cell::new(false) };
}

/// Memory that the calling thread has asked for so far.
pub fn of_this_thread() -> u64 {
    OF_THIS.get()
}

/// Memory that all threads together have asked for so far, but for the first of the program.
pub fn of_all_threads() -> u64 {
    OF_ALL.load(Ordering::SeqCst)
}

fn count() {
    if OF_THIS.get() == 0 && !HAS_FIRST.swap(true, Ordering::SeqCst) {
        IS_FIRST.set(true);
    }
    OF_THIS.set(OF_THIS.get() + 1);
    if !IS_FIRST.get() {
        OF_ALL.fetch_add(1, Ordering::SeqCst);
    }
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: everything is the system's allocator's answer to the same question.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller promises what the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) };
    }
}
