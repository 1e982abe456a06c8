//! Reservations: what may happen is held for a while, until it happens or does not.
//!
//! Invariants
//! 1. A reservation is in memory alone: after a crash it is gone, and what was committed is recorded.
//! 2. It counts against every series that it was made under, until it is committed (then the event counts),
//!    cancelled, or its lease is over. Committing exchanges the one for the other under the keys' locks.

use super::Limit;
use super::asking::{check_of_now, subjects};
use super::keys::{Hold, Locked, Subject};
use crate::db::Recorded;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::limit::{Denial, Verdict};
use crate::options::Durability;
use crate::time::Timestamp;
use smallvec::SmallVec;
use std::fmt;
use std::result;
use std::time::Duration;

/// The longest lease: a year.
const LEASE_MAX: Duration = Duration::from_hours(366 * 24);

/// Room under a limit that is held for something that is about to happen, made by [`Limit::reserve`]:
/// [`commit`](Reservation::commit) records it, [`cancel`](Reservation::cancel) or dropping it gives the room
/// back, and so does the end of its lease, should nobody come to do either.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Event, Grain, Options, TestClock, Timestamp, View, Window};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
/// let db = Options::new().clock(clock.clone()).view(View::counters()).open(dir.path().join("app"))?;
/// let exports = db.counter("export")?;
/// let limit = db.limit().at_most(&exports, 1, Window::fixed(Grain::Hour))?;
///
/// let minute = Duration::from_mins(1);
/// let failed = limit.reserve(1, minute)?.expect("there is room");
/// assert_eq!(limit.check()?.retry_after(), Some(minute), "when its lease is over");
/// drop(failed);
///
/// let reservation = limit.reserve(1, minute)?.expect("there is room again");
/// reservation.commit(&Event::new("export"))?;
/// assert_eq!(exports.last_hours(1).sum()?, Some(1));
/// # Ok::<(), quipu::Error>(())
/// ```
#[must_use = "what is reserved is given back when this is dropped"]
pub struct Reservation {
    limit: Limit,
    subjects: SmallVec<[Subject; 2]>,
    id: u64,
    count: u64,
    is_over: bool,
}

impl Limit {
    /// Holds room for `n` events, if they may happen now, for as long as `lease`. What is held counts
    /// against every "at most" and every cooldown of the limit, and of any other limit that asks the same
    /// series.
    ///
    /// # Errors
    /// `Invalid` for none, or a lease of no time or of more than a year; as [`Limit::check`].
    pub fn reserve(&self, n: u64, lease: Duration) -> Result<result::Result<Reservation, Denial>> {
        if n == 0 {
            return Err(Error::invalid("nothing is reserved by 0; reserve 1 at least"));
        }
        check_lease(lease)?;
        let asking = self.asking();
        let mut locked = match asking.enter(n)? {
            Ok(locked) => Some(locked),
            Err(denial) => return Ok(Err(denial)),
        };
        let now = asking.moment(&mut locked)?;
        let answer = asking.read(n, &mut locked, now)?;
        let verdict = asking.say(&answer, n, now);
        asking.count(&verdict, &answer, n, now);
        if let Verdict::Denied(denial) = verdict
            && !asking.is_shadow()
        {
            return Ok(Err(denial));
        }
        let questions = asking.questions();
        let counting = questions.filter(|asked| asked.constraint.counts_against());
        let mut subjects: SmallVec<[Subject; 2]> =
            counting.filter_map(|asked| asked.series).flat_map(subjects).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let id = self.db.engine().limits.next_id();
        if subjects.is_empty() {
            // Nothing counts it. Its lease is held all the same, under a key of its own.
            subjects.push((0, id));
            drop(locked);
            locked = Some(self.db.engine().limits.lock([id].into_iter()));
        }
        let limits = &self.db.engine().limits;
        let hold = Hold { id, count: n, until: end(limits.steady_at(now), lease) };
        for subject in &subjects {
            if let Some(locked) = &mut locked {
                locked.hold(*subject, hold, now);
            }
        }
        Ok(Ok(Reservation { limit: self.clone(), subjects, id, count: n, is_over: false }))
    }
}

impl Reservation {
    /// So many events are reserved.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Records what it was made for: an event that happens now, and counts for no more than was reserved.
    /// The limit is not asked again.
    ///
    /// # Errors
    /// `Expired` when its lease is over: nothing is recorded. `Invalid` for an event that counts for more,
    /// or has a time of its own; as [`Db::record`](crate::Db::record). After an error nothing is reserved
    /// any more.
    pub fn commit(self, event: &Event<'_>) -> Result<Recorded> {
        let durability = self.limit.db.engine().options.durability;
        self.commit_with(event, durability)
    }

    /// The same at a durability of its own.
    ///
    /// # Errors
    /// As [`Reservation::commit`].
    pub fn commit_with(mut self, event: &Event<'_>, durability: Durability) -> Result<Recorded> {
        check_of_now(event)?;
        if event.count() > self.count {
            return Err(Error::invalid(format!(
                "the event counts for {}, and {} was reserved",
                event.count(),
                self.count
            )));
        }
        let limit = self.limit.clone();
        let engine = limit.db.engine();
        let mut locked = Some(limit.asking().lock_with(self.held_keys()));
        let now = limit.asking().moment(&mut locked)?;
        self.check_held(&mut locked, now)?;
        let present = engine.options.clock.now_roughly();
        let recorded = engine.record_at(event, now, present, durability)?;
        if let Some(locked) = &mut locked {
            self.release(locked);
        }
        drop(locked);
        engine.acknowledge(recorded.position.get(), durability)?;
        Ok(recorded)
    }

    /// Makes it last for `lease` from now on: for something that takes longer than was thought.
    ///
    /// # Errors
    /// `Expired` when it is over already; `Invalid` for a lease as of [`Limit::reserve`].
    pub fn renew(&self, lease: Duration) -> Result<()> {
        check_lease(lease)?;
        let engine = self.limit.db.engine();
        engine.check_open()?;
        let mut locked = Some(self.limit.asking().lock_with(self.held_keys()));
        let now = self.limit.asking().moment(&mut locked)?;
        self.check_held(&mut locked, now)?;
        let until = end(engine.limits.steady_at(now), lease);
        for subject in &self.subjects {
            let locked = locked.iter_mut();
            locked.for_each(|locked| locked.renew(*subject, self.id, until));
        }
        Ok(())
    }

    /// Gives the room back. So does dropping it.
    pub fn cancel(self) {}

    fn held_keys(&self) -> SmallVec<[u64; 2]> {
        self.subjects.iter().map(|(_, key)| *key).collect()
    }

    /// Checks that it is not over.
    fn check_held(&self, locked: &mut Option<Locked<'_>>, now: Timestamp) -> Result<()> {
        let is_held = |locked: &mut Locked<'_>| {
            // Ends what is over.
            locked.reserved(self.subjects.iter().copied(), now);
            self.subjects.iter().all(|subject| locked.has(*subject, self.id))
        };
        if locked.as_mut().is_some_and(is_held) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Expired,
            "the lease of the reservation is over, and its room may be somebody else's: nothing was \
             recorded; reserve again, for longer",
        ))
    }

    fn release(&mut self, locked: &mut Locked<'_>) {
        for subject in &self.subjects {
            locked.release(*subject, |hold| hold.id == self.id);
        }
        self.is_over = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_over {
            let engine = self.limit.db.engine().clone();
            let mut locked = engine.limits.lock(self.held_keys().into_iter());
            self.release(&mut locked);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation of {} under {:?}", self.count, self.limit)
    }
}

fn check_lease(lease: Duration) -> Result<()> {
    if lease < Duration::from_micros(1) || lease > LEASE_MAX {
        return Err(Error::invalid(format!("a lease is 1us to 366 days, not {lease:?}")));
    }
    Ok(())
}

/// When a lease is over that begins then.
fn end(begin: i64, lease: Duration) -> i64 {
    begin.saturating_add(lease.as_nanos().div_ceil(1_000) as i64)
}
