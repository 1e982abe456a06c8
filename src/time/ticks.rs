//! The system's clock, read by the processor's counter of ticks in between.
//!
//! Reading the clock takes as long as all else that a look at a limit does, for the processor finishes what it has
//! begun before. The counter is read in a third of that. So a thread that asks for the time often looks at the clock
//! once in a millisecond, and adds what the counter has gone on since.
//!
//! Invariants
//! 1. What a thread saw is good for [`SPAN_NANOS`] by the counter, and is seen anew then: a clock that is set is
//!    followed by then, and an error of the rate is an error of so short a time.
//! 2. The rate is measured between two looks [`MEASURED_NANOS`] apart or more, and anew where what it foretold is not what
//!    the clock says.
//! 3. A look counts only if nothing came between the clock and the counter ([`LOOK_TICKS_MAX`]).
//! 4. Where the kernel does not go by the counter itself, or the processor does not say that it goes on evenly, it is not
//!    asked: it may go on differently on each processor then.

use super::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::time::ClockId;
use std::arch::x86_64::{__cpuid, _rdtsc};
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Invariant 1.
const SPAN_NANOS: u64 = 1_000_000;
/// Invariant 2.
const MEASURED_NANOS: u64 = 20_000_000;
/// Invariant 3: a microsecond or less, but for processors that are slower than any of now.
const LOOK_TICKS_MAX: u64 = 2_000;
/// What was foretold is the same as what the clock says as long as it is not further away.
const APART_NANOS: u64 = 20_000;
/// A rate is in units of 2^-32 nanoseconds a tick.
const RATE_BITS: u32 = 32;

/// What a thread saw of the clock.
#[derive(Clone, Copy)]
struct Seen {
    nanos: i64,
    ticks: u64,
    /// For how many ticks it is good; 0: for none.
    span: u64,
    rate: u64,
}

/// The rate, or 0: it is not known yet.
static RATE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SEEN: Cell<Seen> = const { Cell::new(Seen { nanos: 0, ticks: 0, span: 0, rate: 0 }) };
    /// The look that the rate is measured from: by the steady clock, and ticks.
    static FIRST: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

#[inline]
fn ticks() -> u64 {
    // SAFETY: every x86_64 processor has the instruction, and reading it changes nothing. (A process that may not read
    // it cannot ask for the time either: the system does that by the same counter, of which invariant 4 makes sure.)
    unsafe { _rdtsc() }
}

/// The present.
#[inline]
pub(super) fn now() -> Timestamp {
    let seen = SEEN.get();
    let passed = ticks().wrapping_sub(seen.ticks);
    if passed < seen.span { micros(seen.at(passed)) } else { look() }
}

#[inline]
fn micros(nanos: i64) -> Timestamp {
    Timestamp::from_micros(nanos.div_euclid(1_000))
}

impl Seen {
    #[inline]
    fn at(&self, passed: u64) -> i64 {
        self.nanos.wrapping_add((passed.wrapping_mul(self.rate) >> RATE_BITS) as i64)
    }
}

/// Looks at the clock.
#[cold]
fn look() -> Timestamp {
    let (before, nanos, after) = (ticks(), nanos_of(ClockId::Realtime), ticks());
    let now = micros(nanos);
    if !can_be_asked() || after.wrapping_sub(before) > LOOK_TICKS_MAX {
        return now;
    }
    let seen = SEEN.get();
    let mut rate = RATE.load(Relaxed);
    let passed = before.wrapping_sub(seen.ticks);
    // Further than some spans away an error of the rate would be seen that does not matter.
    if seen.span > 0 && passed < 16 * seen.span && seen.at(passed).abs_diff(nanos) > APART_NANOS {
        FIRST.set(None);
        RATE.store(0, Relaxed);
        rate = 0;
    }
    if rate == 0 {
        rate = measure();
    }
    let span = if rate == 0 { 0 } else { (SPAN_NANOS << RATE_BITS) / rate };
    SEEN.set(Seen { nanos, ticks: after, span, rate });
    now
}

/// Measures the rate, if the first look for that was long enough ago; 0 if it was not.
fn measure() -> u64 {
    let (before, nanos, after) = (ticks(), nanos_of(ClockId::Monotonic) as u64, ticks());
    if after.wrapping_sub(before) > LOOK_TICKS_MAX {
        return 0;
    }
    let Some((first_nanos, first_ticks)) = FIRST.get() else {
        FIRST.set(Some((nanos, after)));
        return 0;
    };
    let (nanos, ticks) = (nanos.wrapping_sub(first_nanos), after.wrapping_sub(first_ticks));
    if nanos < MEASURED_NANOS {
        return 0;
    }
    let rate = (u128::from(nanos) << RATE_BITS) / u128::from(ticks.max(1));
    // From 256 MHz to 64 GHz: of others there are none, and products with a span stay in their bits.
    let rate = u64::try_from(rate).ok().filter(|rate| (1 << 26..1 << 34).contains(rate));
    let Some(rate) = rate else {
        FIRST.set(None);
        return 0;
    };
    RATE.store(rate, Relaxed);
    rate
}

/// Invariant 4.
fn can_be_asked() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        const POWER: u32 = 0x8000_0007;
        const IS_EVEN: u32 = 1 << 8;
        let is_even = __cpuid(0x8000_0000).eax >= POWER && __cpuid(POWER).edx & IS_EVEN != 0;
        is_even && clock_source().is_ok_and(|source| source.trim_ascii() == b"tsc")
    })
}

/// What the kernel goes by.
fn clock_source() -> rustix::io::Result<Vec<u8>> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut source = vec![0; 64];
    let len = rustix::io::read(&file, &mut source)?;
    source.truncate(len);
    Ok(source)
}

/// What one of the kernel's clocks shows; beyond the year 2262 that.
fn nanos_of(clock: ClockId) -> i64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For some hundred of spans, with and without pauses.
    #[test]
    fn what_the_counter_says_is_what_the_clock_says() {
        let clock = || micros(nanos_of(ClockId::Realtime)).micros();
        let until = clock() + 300_000;
        let (mut before, mut looks) = (clock(), 0_u64);
        while before < until {
            let now = now().micros();
            let after = clock();
            // The rate is good to a few millionths; the clock may be slewed by some more.
            assert!(before - 5 <= now && now <= after + 5, "{before} {now} {after}");
            looks += 1;
            if looks % 10_000 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
            before = after;
        }
        if can_be_asked() {
            assert!(RATE.load(Relaxed) > 0, "it is measured");
            now();
            assert!(SEEN.get().span > 0);
        }
    }

    #[test]
    fn a_rate_that_foretells_what_is_not_is_measured_anew() {
        if !can_be_asked() {
            return;
        }
        let wait = || std::thread::sleep(std::time::Duration::from_millis(2));
        // A thread of its own, whose look is spoiled.
        let deadline = nanos_of(ClockId::Monotonic) + 20_000_000_000;
        let is_good = || nanos_of(ClockId::Monotonic) < deadline;
        while SEEN.get().span == 0 && is_good() {
            wait();
            now();
        }
        let seen = SEEN.get();
        SEEN.set(Seen { nanos: seen.nanos + 3_000_000, ..seen });
        while SEEN.get().nanos.abs_diff(nanos_of(ClockId::Realtime)) > 2_900_000 && is_good() {
            wait();
            now();
        }
        while SEEN.get().span == 0 && is_good() {
            wait();
            now();
        }
        let (before, now, after) =
            (nanos_of(ClockId::Realtime), now().micros() * 1_000, nanos_of(ClockId::Realtime));
        assert!(before - 5_000 <= now && now <= after + 5_000, "{before} {now} {after}");
    }
}
