//! Clocks: the system's, and one that tests turn by hand.

use super::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

/// Where an engine takes "now" from: the time of events that carry none, and the bound on how far
/// in the future an event may be.
pub trait Clock: Send + Sync {
    /// The present moment. It may step back; nothing in the engine depends on its going forward.
    fn now(&self) -> Timestamp;

    /// The present moment to within some milliseconds, where that is cheaper to have: for what
    /// needs no more, such as the bound on times that events bring along.
    fn now_roughly(&self) -> Timestamp {
        self.now()
    }
}

/// A clock that is shared: `Options::clock` takes one, and the program goes on asking it.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Clock, Options, TestClock, Timestamp, View};
/// use std::sync::Arc;
///
/// let clock: Arc<dyn Clock> = Arc::new(TestClock::at(Timestamp::from_secs(1_700_000_000)));
/// let options = Options::new().clock(clock.clone());
/// let db = options.view(View::counters()).open(dir.path().join("app"))?;
/// db.counter("app_launch")?.record()?;
/// assert_eq!(db.counter("app_launch")?.last_seen()?.unwrap().time, clock.now());
/// # Ok::<(), quipu::Error>(())
/// ```
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn now_roughly(&self) -> Timestamp {
        (**self).now_roughly()
    }
}

/// The operating system's clock (UTC).
///
/// On Linux, on x86-64 processors whose counter of ticks the kernel goes by itself, a thread that asks often looks
/// at the clock once in a millisecond, and adds what the counter has gone on since, to the microsecond: when the clock
/// is set it is followed within that time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
    fn now(&self) -> Timestamp {
        super::ticks::now()
    }

    #[cfg(all(target_os = "linux", any(not(target_arch = "x86_64"), miri)))]
    fn now(&self) -> Timestamp {
        micros_of(rustix::time::ClockId::Realtime)
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::disallowed_methods, reason = "the one place where the system is asked")]
    fn now(&self) -> Timestamp {
        let now = std::time::SystemTime::now();
        match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Timestamp::default().saturating_add(since),
            Err(before) => Timestamp::default().saturating_sub(before.duration()),
        }
    }

    /// As of the last tick of the kernel: 1 to 10 ms old, in a fifth of the time.
    #[cfg(target_os = "linux")]
    fn now_roughly(&self) -> Timestamp {
        micros_of(rustix::time::ClockId::RealtimeCoarse)
    }
}

/// What one of the kernel's clocks shows, without the detour over durations.
#[cfg(target_os = "linux")]
#[inline]
pub(super) fn micros_of(clock: rustix::time::ClockId) -> Timestamp {
    micros(rustix::time::clock_gettime(clock))
}

/// What it shows, in microseconds.
#[cfg(target_os = "linux")]
#[inline]
pub(super) fn micros(now: rustix::time::Timespec) -> Timestamp {
    Timestamp::from_micros(now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000))
}

/// A clock that stands still until it is told otherwise. Clones share the same hands.
///
/// ```
/// use quipu::{Clock, TestClock, Timestamp};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::from_secs(1_000));
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), Timestamp::from_secs(1_005));
/// ```
#[derive(Clone, Debug, Default)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// A clock that shows `moment`.
    pub fn at(moment: Timestamp) -> Self {
        TestClock(Arc::new(AtomicI64::new(moment.micros())))
    }

    /// Turns the clock forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }

    /// Turns the clock to `moment`, which may be earlier.
    pub fn set(&self, moment: Timestamp) {
        self.0.store(moment.micros(), SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(SeqCst))
    }
}

/// Measures how long something of ours took: for statistics, and for waiting. No record's time comes
/// from it.
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "durations, not event time")]
    pub(crate) fn start() -> Self {
        Stopwatch(std::time::Instant::now())
    }

    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
