//! Lanes: where threads that ask and record single events do not wait for each other.
//!
//! A limit asks a series and records the event in one step (`Engine::stage_if`), most of which is work on the group
//! of gathered events. Where threads do so at the same time, and nobody records but so, they join the group through
//! lanes: each has a lock, columns, and an area of the stage of its own, and what threads share is the shard that they
//! ask. When the group is brought in the lanes are closed, and their events put together by their times, those of each
//! lane in its order; from there on they are gathered events like others.
//!
//! Invariants
//! 1. Lanes are opened to a group that has no events, inside of the gate and under the lock of the gathered events,
//!    and closed under it, one after the other: whose lane is closed waits for that lock until all are.
//! 2. While they are open events join through them alone. Who is to be told the position of one closes them first: so
//!    each thread's events are in its own order, and what anybody was told does not change (invariant 3 of
//!    `log/stage.rs`).
//! 3. All lanes together have room for no more than the group may have.
//!
//! Next: `log/stage.rs`.

use super::{
    AtOnce, Decider, GROUP_EVENTS_MAX, GROUP_SPAN, Gathered, Group, Joining, Live, Parts, Staging,
    going_on,
};
use crate::db::Engine;
use crate::db::batch::Builder;
use crate::dictionary::{Dictionary, Sym};
use crate::error::Result;
use crate::event::{Event, Limits};
use crate::log::stage::Area;
use crate::options::Durability;
use crate::record::{self, FRAME_COLUMNS_MAX};
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{LOOKS_MAX, STRIPES, lock_soon, stripe};
use crate::tier::apply::{Decided, Scratch, apply_row};
use crate::time::Timestamp;
use crate::versions::Versions;
use std::sync::Arc;

/// Columns of a kind that the events of a lane have at most: with those of the others no more than a frame takes, in
/// whatever order they come into one.
const COLUMNS_MAX: usize = FRAME_COLUMNS_MAX / STRIPES;
/// With so many from the last time there are enough for any event.
const COLUMNS_KEPT_MAX: usize = COLUMNS_MAX / 2;
const _: () = assert!(Limits::DIMENSIONS + COLUMNS_KEPT_MAX <= COLUMNS_MAX);
const _: () = assert!(Limits::MEASURES + COLUMNS_KEPT_MAX <= COLUMNS_MAX);

/// Gathered events, one behind the other, and where they are staged.
pub(super) struct Lane {
    /// 0: the one of the gathered events themselves, which is all there is while no lanes are open.
    pub(super) number: usize,
    pub(super) builder: Builder,
    pub(super) area: Option<Area>,
    /// The position behind which the group began.
    behind: u64,
    /// When it did.
    pub(super) begun: Timestamp,
    /// An upper bound of what a frame of them takes.
    bytes_max: u64,
    /// What the log has room for (invariant 5 of `db/staging.rs`).
    room: u64,
}

/// A lane, and what an event is asked and recorded with there.
pub(super) struct Joinable {
    is_open: bool,
    pub(super) lane: Lane,
    views: AtOnce,
    scratch: Scratch,
}

impl Lane {
    pub(super) fn new(number: usize, dictionary: &Dictionary) -> Self {
        Lane {
            number,
            builder: Builder::new(dictionary),
            area: None,
            behind: 0,
            begun: Timestamp::MIN,
            bytes_max: 0,
            room: 0,
        }
    }

    /// Whether it is the one of the gathered events themselves.
    #[inline]
    pub(super) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Begins with a group behind a position, whose frame has so much room.
    pub(super) fn begin(&mut self, behind: u64, begun: Timestamp, room: u64) {
        (self.behind, self.begun, self.room, self.bytes_max) = (behind, begun, room, 0);
    }

    /// Whether the event must wait for the next group.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "calls for each event, from few places")]
    pub(super) fn is_due(&self, event: &Event<'_>, event_bytes: u64, now: Timestamp) -> bool {
        let apart = self.begun.max(now).micros() - self.begun.min(now).micros();
        self.builder.len() >= GROUP_EVENTS_MAX
            || !self.builder.has_room() && self.builder.is_full_for(event)
            || !self.is_first() && !self.builder.has_columns_for(event, COLUMNS_MAX)
            || apart as u64 > GROUP_SPAN.as_micros() as u64
            || self.bytes_max + event_bytes > self.room
            || self.area.as_ref().is_some_and(|area| !area.has_room(event_bytes))
    }

    #[inline]
    fn area_mut(&mut self) -> &mut Area {
        self.area.as_mut().expect("whoever begins a group makes it")
    }

    /// Drafts the record of an event that is not due for the next group.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "calls for each event, from few places")]
    pub(super) fn draft(&mut self, event: &Event<'_>, time: Timestamp) {
        let (behind, place) = (self.behind, self.builder.len() as u16 + 1);
        self.area_mut().draft(behind, place, |out| record::put_event(out, event, time));
    }

    /// Adds the event whose record is drafted, and gives its position. On an error it is not in.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "calls for each event, from few places")]
    pub(super) fn add(
        &mut self,
        engine: &Engine,
        event: &Event<'_>,
        time: Timestamp,
        event_bytes: u64,
        known: Option<(&str, Sym)>,
    ) -> Result<u64> {
        self.area_mut().put()?;
        let position = self.behind + self.builder.len() as u64 + 1;
        if self.is_first() {
            engine.staging.last.store(position, Release);
        }
        self.builder.add_with(&engine.dictionary, event, time, known);
        self.bytes_max += event_bytes;
        Ok(position)
    }
}

/// What [`Staging`] knows of lanes without a lock: nobody is to come through them,
pub(super) const CLOSED: u8 = 0;
/// or who comes finds them open,
const OPEN: u8 = 1;
/// or will in a moment: somebody brings a group in to open lanes to the next one;
const TURNING: u8 = 2;
/// or some are being opened or closed, and who wants to know how many events there are waits for that.
const CHANGING: u8 = 3;

/// Says that lanes will be opened, until that is done or given up.
pub(super) struct Turning<'a>(&'a Staging);

impl Turning<'_> {
    /// It is known now whether there are lanes, under the lock of the gathered events.
    pub(super) fn end(self, has_lanes: bool) {
        let are = if has_lanes { OPEN } else { CLOSED };
        self.0.lanes_are.store(are, Release);
        std::mem::forget(self);
    }
}

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        let _ = self.0.lanes_are.compare_exchange(TURNING, CHANGING, AcqRel, Relaxed);
    }
}

impl Staging {
    /// Whether there are lanes to the group, roughly. Where somebody is about to open some it waits for that, for a
    /// moment: it takes as long as a lock, and less than to be woken.
    #[inline]
    pub(super) fn has_lanes(&self) -> bool {
        match self.lanes_are.load(Acquire) {
            TURNING => self.wait_for_lanes(),
            are => are == OPEN,
        }
    }

    #[cold]
    fn wait_for_lanes(&self) -> bool {
        for _ in 0..LOOKS_MAX {
            std::hint::spin_loop();
            match self.lanes_are.load(Acquire) {
                TURNING => {}
                are => return are == OPEN,
            }
        }
        false
    }

    /// The lane of this thread. It is counted from the thread that made this, so that one that does everything does it in
    /// the same way each time.
    #[inline]
    pub(super) fn lane_of_mine(&self) -> usize {
        (stripe() + STRIPES - self.made_by) % STRIPES
    }

    /// Notes where somebody is in the way of a thread that asks and records.
    #[inline]
    pub(super) fn note_crowd(&self) {
        if self.gathered.is_locked() {
            self.is_crowded.store(true, Relaxed);
        }
    }

    /// Whether there are lanes to the group, or may be in a moment.
    pub(super) fn may_have_lanes(&self) -> bool {
        self.lanes_are.load(Acquire) != CLOSED
    }

    /// Nobody opens or closes lanes now, for who asks has the lock of the gathered events, among which there is none.
    pub(super) fn settle_lanes(&self) {
        let _ = self.lanes_are.compare_exchange(CHANGING, CLOSED, AcqRel, Relaxed);
    }

    /// How many events there are in lanes.
    pub(super) fn in_lanes(&self, _gathered: &Gathered) -> u64 {
        self.lanes.iter().map(|lane| lane.lock().lane.builder.len() as u64).sum()
    }

    /// Says that open lanes are closed to be opened to the next group; under the lock of the gathered events.
    pub(super) fn turn_lanes(&self) -> Turning<'_> {
        let _ = self.lanes_are.compare_exchange(OPEN, TURNING, AcqRel, Relaxed);
        Turning(self)
    }
}

impl Joinable {
    pub(super) fn new(number: usize, dictionary: &Dictionary) -> Self {
        Joinable {
            is_open: false,
            lane: Lane::new(number, dictionary),
            views: AtOnce::default(),
            scratch: Scratch::default(),
        }
    }

    #[inline]
    pub(super) fn parts(&mut self) -> Parts<'_> {
        (self.is_open, &self.views, &mut self.lane, &mut self.scratch)
    }

    /// Asks and records an event where the lane is open and goes on with it.
    pub(super) fn join<D: Decider>(
        &mut self,
        versions: &Arc<Versions>,
        joining: &mut Joining<'_, D>,
    ) -> Option<Result<Decided>> {
        let (is_open, views, lane, scratch) = self.parts();
        let asked = going_on(lane, views, versions, joining).filter(|_| is_open)?;
        Some(joining.decide(&views.views, asked, lane, scratch))
    }
}

impl Engine {
    /// Records an event that was checked and happened at `time`, of which nobody is told the position: through a lane
    /// where there are some.
    pub(in crate::db) fn stage_untold(
        &self,
        event: &Event<'_>,
        time: Timestamp,
        event_bytes: u64,
        now: Timestamp,
        durability: Durability,
    ) -> Result<()> {
        let live = self.enter()?;
        let (staging, mine) = (&self.staging, self.staging.lane_of_mine());
        let lane = &staging.lanes[mine];
        let join = || self.join_lane(&live, &mut lock_soon(lane), event, (time, now), event_bytes);
        let mut joined = if staging.has_lanes() { join() } else { None };
        if joined.is_none() {
            staging.note_crowd();
            let mut gathered = lock_soon(&staging.gathered);
            // Somebody else may have begun a group.
            joined = if gathered.group.has_lanes { join() } else { None };
            if joined.is_none() {
                let turning = staging.turn_lanes();
                gathered = self.gather(&live, event, event_bytes, now, (gathered, true))?;
                let is_plain = !self.may_be_late(live.reach, time);
                if gathered.group.wide > 0 && gathered.group.is_none() && is_plain {
                    self.open_lanes(&live, &mut gathered.group, (mine, event_bytes));
                }
                let has_lanes = gathered.group.has_lanes;
                turning.end(has_lanes);
                joined = if has_lanes { join() } else { None };
            }
            if joined.is_none() {
                let others = (gathered, false);
                gathered = self.gather(&live, event, event_bytes, now, others)?;
                self.join_group(&live, &mut gathered, event, time, event_bytes)?;
            }
        }
        joined.unwrap_or(Ok(()))?;
        drop(live);
        self.note_staged(durability);
        Ok(())
    }

    /// Adds an event to a lane, and to the views that limits ask, where the lane is open and goes on with it.
    fn join_lane(
        &self,
        live: &Live,
        joinable: &mut Joinable,
        event: &Event<'_>,
        (time, now): (Timestamp, Timestamp),
        event_bytes: u64,
    ) -> Option<Result<()>> {
        let (is_open, _, lane, scratch) = joinable.parts();
        let goes_on = is_open
            && !lane.is_due(event, event_bytes, now)
            && !self.may_be_late(live.reach, time)
            && !self.log.is_poisoned();
        if !goes_on {
            return None;
        }
        lane.draft(event, time);
        if let Err(error) = lane.add(self, event, time, event_bytes, None) {
            return Some(Err(error));
        }
        let columns = lane.builder.only_chunk(&self.dictionary);
        let is_late = apply_row(&live.at_once, columns, columns.len() - 1, scratch);
        self.tallies.late.add(u64::from(is_late));
        Some(Ok(()))
    }

    /// Opens lanes to a group that was begun and has no events; there is room for one of at most so many bytes in this
    /// one.
    #[cold]
    pub(super) fn open_lanes(
        &self,
        live: &Live,
        group: &mut Group,
        (mine, event_bytes): (usize, u64),
    ) {
        let staging = &self.staging;
        let Lane { behind, begun, room, .. } = group.lane;
        staging.last.store(behind, Release);
        // Before the first of them is open: somebody may have waited for that one.
        staging.note_joined(1);
        let _ = staging.lanes_are.compare_exchange(CLOSED, CHANGING, AcqRel, Relaxed);
        let each = room.saturating_sub(event_bytes) / STRIPES as u64;
        for (n, lane) in staging.lanes.iter().enumerate() {
            let Joinable { is_open, lane, views, .. } = &mut *lane.lock();
            lane.begin(behind, begun, if n == mine { each + event_bytes } else { each });
            if let Some(area) = &mut lane.area {
                area.clear();
            }
            *views = AtOnce::of(live);
            *is_open = true;
        }
        group.has_lanes = true;
        staging.lanes_are.store(OPEN, Release);
    }

    /// Closes the lanes of a group, and puts their events together.
    #[cold]
    pub(super) fn close_lanes(&self, group: &mut Group) {
        let staging = &self.staging;
        group.has_lanes = false;
        let _ = staging.lanes_are.compare_exchange(OPEN, CHANGING, AcqRel, Relaxed);
        let mut used = Vec::new();
        for (lane, spare) in staging.lanes.iter().zip(&mut group.spares) {
            let Joinable { is_open, lane, views, .. } = &mut *lock_soon(lane);
            *is_open = false;
            // One that is dropped is held by nobody, then.
            *views = AtOnce::default();
            if !lane.builder.is_empty() {
                std::mem::swap(&mut lane.builder, spare);
                used.push(spare);
            }
        }
        let have_met = used.len() > 1 || self.options.always_lanes;
        if let [lane] = &mut *used {
            std::mem::swap(*lane, &mut group.lane.builder);
        } else {
            group.lane.builder.put_together(&self.dictionary, &mut used);
        }
        for lane in used {
            lane.clear_within(COLUMNS_KEPT_MAX);
        }
        group.wide = group.wider(have_met);
        let columns = group.lane.builder.only_chunk(&self.dictionary);
        let events = columns.len() as u64;
        if events > 0 {
            self.newest.raise(columns.newest());
        }
        staging.last.store(group.lane.behind + events, Release);
        // What joined is counted before the lanes are not any more: who sees as many applied sees none of either.
        staging.note_joined(events);
        staging.applied.fetch_add(1, AcqRel);
        let _ = staging.lanes_are.compare_exchange(CHANGING, CLOSED, AcqRel, Relaxed);
        debug_assert!(staging.joined.load(Acquire) >= staging.applied.load(Acquire));
    }
}
