//! Versions: whether what was read under a lock is still so, found out without the lock.
//!
//! The values under some locks have places, several of them one each. Who reads a value under its lock takes
//! along the version of its place; who finds the place at that version later need not read again.
//!
//! Invariants
//! 1. A version is odd if somebody took it along. One that is is raised under the lock of the place's values, in
//!    the same hold as each change of one of them that can change an answer, and when a value comes to be
//!    another one's. It is never lowered. (What nobody took along need not be raised: who changes values
//!    that nobody is told about writes nothing.)
//! 2. So who finds a version that was taken along finds what who takes the lock would find, or a change is under
//!    way, or was made, of which nothing that this thread knows tells it: the look is as if it came just before.
//!    (A change that happened before the look happened behind the hold that the version was taken in. It was
//!    raised in the hold of the change, and no load gives a value older than one that happened before it.)
//! 3. Versions are stored with `Release` and loaded with `Acquire`: who finds one raised finds those raised
//!    that were raised before it, of whatever locks.
//! 4. There are versions when the first one is taken, and who changes values finds them from the next hold of
//!    that lock on.
//! 5. When nobody is to ask the values any more, no version is current from then on.

use crate::sync::OnceLock;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicU64};

/// The versions of some places.
pub(crate) struct Versions {
    /// Invariant 5.
    is_over: AtomicBool,
    places: usize,
    numbers: OnceLock<Box<[AtomicU64]>>,
}

/// The version of a place when a value of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) place: u32,
    pub(crate) number: u64,
}

impl Versions {
    /// Of so many places.
    pub(crate) fn new(places: usize) -> Self {
        Versions { is_over: AtomicBool::new(false), places, numbers: OnceLock::new() }
    }

    /// From now on no version is current.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Release);
    }

    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Acquire)
    }

    /// The version of a place, under its lock.
    pub(crate) fn take(&self, place: u32) -> Version {
        let make = || std::iter::repeat_with(AtomicU64::default).take(self.places).collect();
        let number = &self.numbers.get_or_init(make)[place as usize];
        // Nobody else writes it while the lock is held.
        let now = number.load(Relaxed);
        let taken = now | 1;
        if now != taken {
            number.store(taken, Release);
        }
        Version { place, number: taken }
    }

    /// Raises the version of a place, under its lock.
    #[inline]
    pub(crate) fn raise(&self, place: u32) {
        if let Some(number) = self.numbers.get().and_then(|numbers| numbers.get(place as usize)) {
            let now = number.load(Relaxed);
            if now & 1 == 1 {
                number.store(now + 1, Release);
            }
        }
    }

    /// Whether what was read at this version is still so (invariant 2).
    #[inline]
    pub(crate) fn is_current(&self, version: Version) -> bool {
        let number = self.numbers.get().and_then(|numbers| numbers.get(version.place as usize));
        !self.is_over() && number.is_some_and(|number| number.load(Acquire) == version.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_current_until_its_place_is_changed_or_all_is_over() {
        let versions = Versions::new(2);
        // Nobody took any yet.
        versions.raise(0);
        let (first, second) = (versions.take(0), versions.take(1));
        assert!(versions.is_current(first) && versions.is_current(second));
        versions.raise(0);
        assert!(!versions.is_current(first) && versions.is_current(second));
        let again = versions.take(0);
        assert_eq!(versions.take(0), again, "nothing was changed");
        assert!(versions.is_current(again) && !versions.is_current(first));
        versions.end();
        assert!(!versions.is_current(second) && !versions.is_current(versions.take(0)));
    }
}
