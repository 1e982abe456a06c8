//! What threads share: locks, atomics, the gate.
//!
//! They are `parking_lot`'s, `crossbeam`'s and the standard library's. Under `--cfg shuttle` and
//! `--cfg loom` they are those of a scheduler that runs one thread at a time and chooses at each of
//! them who goes on: the tests in `simulation/interleavings.rs` (shuttle: many orders of large
//! scenarios) and `simulation/models.rs` (loom: all orders of small ones, and all that a weakly
//! ordered memory may show) try orders that a machine would show once in years. What is never held
//! across another of these may be taken from elsewhere.

#[cfg(not(any(shuttle, loom)))]
mod system {
    use crossbeam::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
    use std::sync::PoisonError;

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
    pub(crate) use std::sync::{OnceLock, atomic};
    pub(crate) use std::thread_local;

    /// The part of [`STRIPES`](super::STRIPES) that this thread writes to.
    #[inline]
    pub(crate) fn stripe() -> usize {
        static NEXT: atomic::AtomicUsize = atomic::AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, atomic::Ordering::Relaxed) % super::STRIPES;
        }
        STRIPE.with(|stripe| *stripe)
    }

    /// A lock that many enter together and one closes for itself; entering touches no line that
    /// other threads enter through.
    pub(crate) struct Gate<T>(ShardedLock<T>);
    pub(crate) type Entered<'a, T> = ShardedLockReadGuard<'a, T>;
    pub(crate) type Closed<'a, T> = ShardedLockWriteGuard<'a, T>;

    impl<T> Gate<T> {
        pub(crate) fn new(value: T) -> Self {
            Gate(ShardedLock::new(value))
        }

        /// A panic inside has left whole values: nothing in the gate is changed in steps.
        pub(crate) fn enter(&self) -> Entered<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn close(&self) -> Closed<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(any(shuttle, loom))]
mod scheduled {
    #[cfg(loom)]
    use loom as scheduler;
    #[cfg(shuttle)]
    use shuttle as scheduler;

    use self::scheduler::sync as s;
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    #[cfg(loom)]
    pub(crate) use self::counted as atomic;
    #[cfg(shuttle)]
    pub(crate) use shuttle::sync::atomic;
    #[cfg(shuttle)]
    pub(crate) use shuttle::thread_local;
    #[cfg(shuttle)]
    pub(crate) use std::sync::OnceLock;

    /// loom's own takes no `const` block.
    #[cfg(loom)]
    macro_rules! scheduled_thread_local {
        ($($(#[$attribute:meta])* static $name:ident: $type:ty = $init:expr;)*) => {
            loom::thread_local! { $($(#[$attribute])* static $name: $type = $init;)* }
        };
    }
    #[cfg(loom)]
    pub(crate) use scheduled_thread_local as thread_local;

    const WHOLE: &str = "a thread that panics ends the run";

    /// Of each thread its own, and the same every time, so that it can be tried again.
    #[cfg(shuttle)]
    pub(crate) fn stripe() -> usize {
        usize::from(shuttle::current::me()) % super::STRIPES
    }

    /// Any will do.
    #[cfg(loom)]
    pub(crate) fn stripe() -> usize {
        0
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(s::Mutex<T>);

    /// Empty only inside of [`Condvar::wait`].
    pub(crate) struct MutexGuard<'a, T>(Option<s::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(s::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect(WHOLE)))
        }

        pub(crate) fn is_locked(&self) -> bool {
            self.try_lock().is_none()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("held outside of a wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("held outside of a wait")
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(s::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            RwLock(s::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> s::RwLockReadGuard<'_, T> {
            self.0.read().expect(WHOLE)
        }

        pub(crate) fn write(&self) -> s::RwLockWriteGuard<'_, T> {
            self.0.write().expect(WHOLE)
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(s::Condvar);

    /// Whether a wait came to its end by time.
    pub(crate) struct Waited(bool);

    impl Waited {
        pub(crate) fn timed_out(&self) -> bool {
            self.0
        }
    }

    impl Condvar {
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.0.take().expect("held outside of a wait");
            guard.0 = Some(self.0.wait(held).expect(WHOLE));
        }

        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> Waited {
            self.wait(guard);
            Waited(false)
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    /// loom remembers one access of an atomic, the last, and takes loads for independent of each
    /// other (its issues 166 and 392). So a load of one thread that a load and a store of another
    /// follow would never be tried behind that store. Here each load counts itself before: these
    /// counts depend on each other, and being `Relaxed` they order nothing else.
    #[cfg(loom)]
    pub(crate) mod counted {
        use loom::sync::atomic as a;
        use std::ops::Deref;

        pub(crate) use loom::sync::atomic::Ordering;

        macro_rules! counted {
            ($($name:ident: $type:ty),*) => {$(
                #[derive(Debug)]
                pub(crate) struct $name {
                    loads: a::AtomicUsize,
                    value: a::$name,
                }

                impl $name {
                    pub(crate) fn new(value: $type) -> Self {
                        $name { loads: a::AtomicUsize::new(0), value: a::$name::new(value) }
                    }

                    pub(crate) fn load(&self, order: Ordering) -> $type {
                        self.loads.fetch_add(1, Ordering::Relaxed);
                        self.value.load(order)
                    }
                }

                impl Default for $name {
                    fn default() -> Self {
                        $name::new(<$type>::default())
                    }
                }

                impl Deref for $name {
                    type Target = a::$name;

                    fn deref(&self) -> &a::$name {
                        &self.value
                    }
                }
            )*};
        }
        counted!(AtomicBool: bool, AtomicU8: u8, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
    }

    /// One whose content another thread may not see yet; the standard library's is always seen at
    /// once where one thread runs at a time.
    #[cfg(loom)]
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        is_set: atomic::AtomicBool,
    }

    #[cfg(loom)]
    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            OnceLock { value: std::sync::OnceLock::new(), is_set: atomic::AtomicBool::new(false) }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(atomic::Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, atomic::Ordering::Release);
            Ok(())
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            match self.get() {
                Some(value) => value,
                None => {
                    let value = self.value.get_or_init(init);
                    self.is_set.store(true, atomic::Ordering::Release);
                    value
                }
            }
        }
    }

    #[cfg(loom)]
    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            OnceLock::new()
        }
    }

    pub(crate) struct Gate<T>(s::RwLock<T>);
    pub(crate) type Entered<'a, T> = s::RwLockReadGuard<'a, T>;
    pub(crate) type Closed<'a, T> = s::RwLockWriteGuard<'a, T>;

    impl<T> Gate<T> {
        pub(crate) fn new(value: T) -> Self {
            Gate(s::RwLock::new(value))
        }

        pub(crate) fn enter(&self) -> Entered<'_, T> {
            self.0.read().expect(WHOLE)
        }

        pub(crate) fn close(&self) -> Closed<'_, T> {
            self.0.write().expect(WHOLE)
        }
    }
}

/// So often it is looked whether what takes a moment is over, before being woken is waited for.
pub(crate) const LOOKS_MAX: usize = if cfg!(any(shuttle, loom)) { 1 } else { 500 };

/// Locks what is mostly held for less than it takes to be woken.
#[inline]
pub(crate) fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.try_lock().unwrap_or_else(|| lock_soon_all(mutex))
}

#[cold]
fn lock_soon_all<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 1..LOOKS_MAX {
        std::hint::spin_loop();
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
    }
    mutex.lock()
}

/// Of what many threads write and hardly anybody reads there are so many, each with a line of its own.
pub(crate) const STRIPES: usize = 4;

#[cfg(any(shuttle, loom))]
pub(crate) use scheduled::*;
#[cfg(not(any(shuttle, loom)))]
pub(crate) use system::*;
