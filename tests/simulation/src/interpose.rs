//! The C library's entropy and clocks, for the thread that simulates.
//!
//! Owns: what hash maps, tokio's generators and `std::time::Instant` see. Never: acts on another thread, or in another
//! binary. Our own code takes its seams and needs none of this; the libraries under it do.
#![allow(unsafe_code, reason = "replacing two functions of the C library cannot be said in safe Rust")]
use std::cell::Cell;

thread_local! {
    static ENTROPY: Cell<Option<u64>> = const { Cell::new(None) };
    static NOW_NS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Virtual time begins here; any date will do, as long as it is always the same.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// From here on this thread's entropy comes from the seed, and its clocks stand until [`set_now_ms`].
pub(crate) fn begin(seed: u64) {
    ENTROPY.with(|entropy| entropy.set(Some(seed)));
    set_now_ms(0);
}

/// Sets this thread's clocks.
pub(crate) fn set_now_ms(ms: u64) {
    NOW_NS.with(|now| now.set(Some(EPOCH_NS + ms * 1_000_000)));
}

/// This thread's virtual time of day, in milliseconds.
pub(crate) fn now_ms() -> u64 {
    NOW_NS.with(Cell::get).unwrap_or(EPOCH_NS) / 1_000_000
}

/// SplitMix64.
pub(crate) fn mix(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// # Safety
/// As the C library's: `buf` points to `len` bytes that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buf: *mut libc::c_void, len: usize, flags: libc::c_uint) -> isize {
    // No thread-local is left when a thread ends.
    let Ok(Some(mut state)) = ENTROPY.try_with(Cell::get) else {
        // SAFETY: the arguments are passed on as they are.
        return unsafe { libc::syscall(libc::SYS_getrandom, buf, len, flags) as isize };
    };
    if len > 0 {
        // SAFETY: the caller gives `len` bytes that may be written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
        for chunk in bytes.chunks_mut(8) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
        }
        ENTROPY.with(|entropy| entropy.set(Some(state)));
    }
    len as isize
}

/// # Safety
/// As the C library's: `into` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(id: libc::clockid_t, into: *mut libc::timespec) -> libc::c_int {
    match (NOW_NS.try_with(Cell::get), id) {
        (Ok(Some(ns)), libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME | libc::CLOCK_BOOTTIME) => {
            let (secs, nanos) = (ns / 1_000_000_000, ns % 1_000_000_000);
            // SAFETY: the caller gives a timespec that may be written.
            unsafe { *into = libc::timespec { tv_sec: secs as i64, tv_nsec: nanos as i64 } };
            0
        }
        // SAFETY: the arguments are passed on as they are.
        (Ok(_) | Err(_), _) => unsafe { libc::syscall(libc::SYS_clock_gettime, id, into) as libc::c_int },
    }
}
