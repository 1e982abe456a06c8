//! What threads share: locks, atomics, the gate.
//!
//! They are `parking_lot`'s, `crossbeam`'s and the standard library's. Under `--cfg shuttle` they
//! are those of a scheduler that runs one thread at a time and chooses at each of them who goes on:
//! the tests in `simulation/interleavings.rs` try orders that a machine would show once in years. What is
//! never held across another of these may be taken from elsewhere.

#[cfg(not(shuttle))]
mod system {
    use crossbeam::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
    use std::sync::PoisonError;

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread_local;

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

#[cfg(shuttle)]
mod scheduled {
    use shuttle::sync as s;
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    pub(crate) use shuttle::sync::atomic;
    pub(crate) use shuttle::thread_local;

    const WHOLE: &str = "a thread that panics ends the run";

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

#[cfg(shuttle)]
pub(crate) use scheduled::*;
#[cfg(not(shuttle))]
pub(crate) use system::*;
