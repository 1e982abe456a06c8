//! The system's clock, read by the processor's counter of ticks in between.
//!
//! Reading the clock was a tenth of what a limit costs, for the processor finishes before what it has begun. The counter
//! is read in a third of that. So a thread that asks for the time often looks at the clock
//! once in a millisecond, and adds what the counter has gone on since.
//!
//! Invariants
//! 1. What a thread saw is good for [`SPAN_NANOS`] by the counter, and is seen anew then: a clock that is set is
//!    followed by then, and an error of the rate is an error of so short a time. Two threads are some microseconds apart
//!    at most; when the clock was set, until one of them has seen it.
//! 2. The rate is measured by one thread, between two looks that are [`MEASURED_NANOS`] apart, and not so much more that
//!    the system may have slept; and anew where what it foretold is not what the clock says. All threads look at the
//!    clock then.
//! 3. A look counts only if nothing came between the clock and the counter ([`LOOK_TICKS_MAX`]).
//! 4. Where the kernel does not go by the counter itself, or the processor does not say that it goes on evenly, it is not
//!    asked: it may go on differently on each processor then. (Where the kernel finds that out later, the error is that of
//!    a span.)

use super::Timestamp;
use super::clock::micros_of;
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use std::arch::x86_64::{__cpuid, _rdtsc};
use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Invariant 1.
const SPAN_NANOS: u64 = 1_000_000;
/// Invariant 2.
const MEASURED_NANOS: Range<u64> = 20_000_000..1_000_000_000;
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
    static SEEN: Cell<Seen> = const { Cell::new(Seen::NOTHING) };
    /// The look that the rate is measured from: by the steady clock, and ticks.
    static FIRST: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

#[inline]
fn ticks() -> u64 {
    // SAFETY: every x86_64 processor has the instruction, and reading the counter changes nothing. A process that may not
    // read it is ended by it; one that comes here was told that the kernel answers by the same instruction, in the
    // process itself (invariant 4), and has asked it.
    unsafe { _rdtsc() }
}

/// The present.
#[inline]
pub(super) fn now() -> Timestamp {
    let seen = SEEN.get();
    if seen.span > 0 && seen.rate == RATE.load(Relaxed) {
        let passed = ticks().wrapping_sub(seen.ticks);
        if passed < seen.span {
            return Timestamp::from_micros(seen.at(passed).div_euclid(1_000));
        }
    }
    look()
}

impl Seen {
    const NOTHING: Seen = Seen { nanos: 0, ticks: 0, span: 0, rate: 0 };

    #[inline]
    fn at(&self, passed: u64) -> i64 {
        self.nanos.saturating_add((passed.wrapping_mul(self.rate) >> RATE_BITS) as i64)
    }

    /// Whether something else was foretold than the clock says now. Further than some spans away an error of the rate
    /// would be seen that does not matter.
    fn is_refuted(&self, ticks: u64, nanos: i64) -> bool {
        let passed = ticks.wrapping_sub(self.ticks);
        self.span > 0 && passed < 16 * self.span && self.at(passed).abs_diff(nanos) > APART_NANOS
    }
}

/// Looks at the clock.
#[cold]
fn look() -> Timestamp {
    if !can_be_asked() {
        return micros_of(ClockId::Realtime);
    }
    let (before, clock, after) = (ticks(), clock_gettime(ClockId::Realtime), ticks());
    let now = super::clock::micros(clock);
    // (From 1677 to 2262.)
    let nanos = clock.tv_sec.checked_mul(1_000_000_000);
    let Some(nanos) = nanos.and_then(|nanos| nanos.checked_add(clock.tv_nsec)) else {
        SEEN.set(Seen::NOTHING);
        return now;
    };
    if after.wrapping_sub(before) > LOOK_TICKS_MAX {
        return now;
    }
    if SEEN.get().is_refuted(before, nanos) {
        RATE.store(0, Relaxed);
    }
    let rate = match RATE.load(Relaxed) {
        0 => measure(),
        rate => rate,
    };
    let span = (SPAN_NANOS << RATE_BITS).checked_div(rate).unwrap_or(0);
    SEEN.set(Seen { nanos, ticks: after, span, rate });
    now
}

/// Measures the rate, if the first look for that was long enough ago; 0 if it was not.
fn measure() -> u64 {
    let (before, clock, after) = (ticks(), clock_gettime(ClockId::Monotonic), ticks());
    if after.wrapping_sub(before) > LOOK_TICKS_MAX {
        return 0;
    }
    let nanos = (clock.tv_sec as u64).wrapping_mul(1_000_000_000) + clock.tv_nsec as u64;
    let Some((first_nanos, first_ticks)) = FIRST.get() else {
        FIRST.set(Some((nanos, after)));
        return 0;
    };
    let (nanos, ticks) = (nanos.wrapping_sub(first_nanos), after.wrapping_sub(first_ticks));
    if nanos < MEASURED_NANOS.start {
        return 0;
    }
    FIRST.set(None);
    let rate = rate_of(nanos, ticks);
    RATE.store(rate, Relaxed);
    rate
}

/// The rate of so many ticks in so long; 0: it is none to go by.
fn rate_of(nanos: u64, ticks: u64) -> u64 {
    if !MEASURED_NANOS.contains(&nanos) || ticks == 0 {
        return 0;
    }
    let rate = (u128::from(nanos) << RATE_BITS) / u128::from(ticks);
    // From 10 GHz to 250 MHz: of others there are none, and products with a span stay in their bits.
    u64::try_from(rate).ok().filter(|rate| (429_496_730..1 << 34).contains(rate)).unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: i64 = 20_000_000;

    fn clock() -> i64 {
        micros_of(ClockId::Realtime).micros()
    }

    /// How far what the counter says is from what the clock says before and behind, in microseconds.
    fn apart() -> i64 {
        let (before, now, after) = (clock(), now().micros(), clock());
        (before - now).max(now - after).max(0)
    }

    #[test]
    fn what_the_counter_says_is_what_the_clock_says() {
        let (until, too_long) = (clock() + 300_000, clock() + LONG);
        let (mut looks, mut of_ticks) = (0_u64, 0_u64);
        // For some hundred spans, with and without pauses; longer where nothing was good for one yet.
        while clock() < until || (can_be_asked() && of_ticks == 0 && clock() < too_long) {
            // The rate is good to a few millionths; the clock may be slewed by some more.
            assert!(apart() <= 5, "{:?}", (clock(), now(), clock()));
            looks += 1;
            of_ticks += u64::from(SEEN.get().span > 0);
            if looks.is_multiple_of(10_000) {
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        }
        assert!(of_ticks > 0 || !can_be_asked(), "the counter was never gone by");
        // As if the clock had been set: until the next look it is not known.
        let seen = SEEN.get();
        SEEN.set(Seen { nanos: seen.nanos.saturating_add(3_600_000_000_000), ..seen });
        let too_long = clock() + LONG;
        while apart() > 5 && clock() < too_long {}
        assert!(apart() <= 5);
    }

    #[test]
    fn what_was_foretold_is_held_against_the_clock() {
        // 2 GHz.
        let rate = rate_of(20_000_000, 40_000_000);
        assert_eq!(rate, 1 << (RATE_BITS - 1));
        let seen = Seen { nanos: 7, ticks: u64::MAX - 9, span: 2_000_000, rate };
        assert_eq!(seen.at(0), 7);
        assert_eq!(seen.at(2_000_000), 1_000_007);
        let behind = seen.ticks.wrapping_add(2_000_000);
        for (nanos, is_refuted) in
            [(1_000_007, false), (1_020_007, false), (1_020_008, true), (-3_600, true)]
        {
            assert_eq!(seen.is_refuted(behind, nanos), is_refuted, "{nanos}");
        }
        // Too long ago, and of nothing.
        assert!(!seen.is_refuted(seen.ticks.wrapping_add(32_000_000), -3_600));
        assert!(!Seen::NOTHING.is_refuted(behind, -3_600));
        let last = Seen { nanos: i64::MAX, ..seen };
        assert_eq!(last.at(2_000_000), i64::MAX);
    }

    #[test]
    fn a_rate_is_that_of_a_processor_or_none() {
        // Too short; what may have slept meanwhile; counters that stand still, and that were set.
        for (nanos, ticks) in
            [(19_999_999, 60_000_000), (1_000_000_000, 3_000_000_000), (20_000_000, 0)]
        {
            assert_eq!(rate_of(nanos, ticks), 0);
        }
        assert_eq!(rate_of(20_000_000, u64::MAX), 0);
        assert_eq!(rate_of(20_000_000, 200_000_001), 0);
        assert_eq!(rate_of(20_000_000, 5_000_000), 0);
        for ticks in [5_000_001, 52_000_000, 199_999_999] {
            let rate = rate_of(20_000_000, ticks);
            let nanos = (u128::from(ticks) * u128::from(rate)) >> RATE_BITS;
            assert!((19_999_990..=20_000_000).contains(&nanos), "{ticks}: {nanos}");
            // A span is a number of ticks whose product has room.
            let span = (SPAN_NANOS << RATE_BITS) / rate;
            assert!(span.checked_mul(rate).is_some() && span > 0);
        }
    }
}
