//! Single events on their way: staged, gathered, and brought into the log and the views together.
//!
//! What a frame of the log and a round through the views cost is mostly paid once, for one event or for
//! a hundred. So an event that comes by itself is written to the stage (`log/stage.rs`), where the
//! death of the process does not reach it, joins the columns of those that came before, and has its
//! position; with that it is acknowledged. A group is *brought in* (appended to the log as one frame,
//! and applied to every view) when it is full, when an event comes that is a tenth of a second behind its
//! first, and before anything that could tell: a question, a batch, a change of views, a cut, a sync.
//!
//! Invariants
//! 1. Gathered events have the positions behind the log's last one. Whoever appends records to the log
//!    holds the lock of the gathered events, or has closed the gate, and there are none; so that one stays where it
//!    was when their group was begun.
//! 2. Every gathered event is in the stage. The stage is written over when they are in the log.
//! 3. At a cut nothing is gathered: who closes the gate to append, to cut, or to change the views that are asked
//!    brings in before anything else.
//! 4. Who asks sees every event that was acknowledged before: nothing is counted as applied before every
//!    view has it.
//! 5. The log has room for what is gathered ([`Writer::make_room`]). A full disk shows when an event
//!    comes that needs the next segment, which is not accepted then.
//! 6. A view that limits ask has every event when its call returns, gathered or not
//!    ([`Live::at_once`]); the group is applied to the others.
//! 7. An event that may be late, because it is so far behind the newest one that some view may not keep
//!    its bucket, is applied when it comes, behind all that were gathered before it, for its caller is
//!    told; so are those that join its group. Only the log waits then.
//! 8. Who records a single event is inside of the gate, or holds the lock of the gathered events, or of a lane, and
//!    joins a group that somebody began inside of the gate. So once a group is brought in with the gate closed there
//!    is none to join (invariant 3). Which view such an event asks is known from when the gate was opened last.
//! 9. Who joins a group through a lane is told no position (`db/staging/lanes.rs`).
//!
//! Next: `db/staging/lanes.rs`, then `record.rs`.

mod lanes;

use super::batch::{Builder, check_single};
use super::{Engine, Live, Recorded};
use crate::dictionary::{Dictionary, Sym};
use crate::error::Result;
use crate::event::Event;
use crate::log::Position;
use crate::log::stage::{self, Area};
use crate::log::writer::Draft;
#[cfg(doc)]
use crate::log::writer::Writer;
use crate::options::Durability;
use crate::record::Columns;
use crate::series::SeriesRef;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use crate::sync::{Closed, Mutex, MutexGuard, RwLock, STRIPES, lock_soon, stripe};
use crate::tier::ViewTier;
use crate::tier::apply::{Answer, Decided, Recorder, Scratch, apply_all, apply_row};
use crate::time::Timestamp;
use crate::versions::Versions;
use crossbeam::utils::CachePadded;
use lanes::{Joinable, Lane};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// Events of one group at most.
const GROUP_EVENTS_MAX: usize = 128;
/// Larger events are recorded by themselves.
const EVENT_BYTES_MAX: usize = 2_048;
/// How far apart the events of a group may have come: their frame has one time of recording.
const GROUP_SPAN: Duration = Duration::from_millis(100);

/// So many groups have lanes behind one at which threads met.
const GROUPS_WIDE: u8 = 32;

pub(super) struct Staging {
    /// Events are gathered of which a frame takes at most so many bytes.
    event_bytes_max: usize,
    gathered: Mutex<Gathered>,
    /// For who asks and records a single event at once, by the stripe of its thread.
    lanes: Box<[CachePadded<Mutex<Joinable>>]>,
    /// The stripe of the thread that made this.
    made_by: usize,
    /// Whether there are lanes to the group, roughly; who has the lock of one knows.
    lanes_are: CachePadded<AtomicU8>,
    /// Whether somebody waited for the gathered events, to ask and record one at once.
    is_crowded: AtomicBool,
    /// Held together by who applies groups that are not among the gathered events any more.
    applying: RwLock<()>,
    /// Events that joined a group, of those that are applied with it; each group with lanes counts as one more, for
    /// what comes through them is counted when they are closed.
    joined: AtomicU64,
    /// Those of them that are applied.
    applied: AtomicU64,
    /// The position that was given last, to a gathered event; those in lanes have none.
    last: CachePadded<AtomicU64>,
}

/// The gathered events, under their lock.
struct Gathered {
    group: Group,
    /// The views that who joins without the gate may ask.
    views: AtOnce,
    /// What views that are not gathered for are applied with.
    scratch: Scratch,
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Group {
    /// Its events; while it has lanes there are none.
    lane: Lane,
    draft: Draft,
    scratch: Scratch,
    /// Whether lanes are open to it.
    has_lanes: bool,
    /// For lanes that are closed; empty.
    spares: Box<[Builder]>,
    /// Somebody was told the position of one of its events.
    has_told: bool,
    /// So many next ones are worth lanes, if they have none of those.
    wide: u8,
    /// Invariant 7, of this group.
    applied_singly: bool,
    /// The group was applied; bringing it in failed.
    applied: bool,
    /// For the next group.
    spare: Option<(Builder, Scratch)>,
}

impl Staging {
    pub(super) fn new(dictionary: &Dictionary, stage_bytes: u64) -> Self {
        let staged_bytes_max = stage::area_bytes(stage_bytes) as usize - stage::record_bytes(0);
        Staging {
            event_bytes_max: EVENT_BYTES_MAX.min(staged_bytes_max),
            gathered: Mutex::new(Gathered {
                group: Group {
                    lane: Lane::new(0, dictionary),
                    draft: Draft::default(),
                    scratch: Scratch::default(),
                    has_lanes: false,
                    spares: (0..STRIPES).map(|_| Builder::new(dictionary)).collect(),
                    has_told: false,
                    wide: 0,
                    applied_singly: false,
                    applied: false,
                    spare: None,
                },
                views: AtOnce::default(),
                scratch: Scratch::default(),
            }),
            lanes: (1..=STRIPES)
                .map(|n| CachePadded::new(Mutex::new(Joinable::new(n, dictionary))))
                .collect(),
            made_by: stripe(),
            lanes_are: CachePadded::new(AtomicU8::new(lanes::CLOSED)),
            is_crowded: AtomicBool::new(false),
            applying: RwLock::new(()),
            joined: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            last: CachePadded::default(),
        }
    }

    /// Notes that so many more are among the gathered events, under their lock, so that nobody else does.
    #[inline]
    fn note_joined(&self, events: u64) {
        self.joined.store(self.joined.load(Acquire) + events, Release);
    }

    /// Notes the last position of what another process has staged.
    pub(super) fn follow(&self, last: u64) {
        self.last.store(last, Release);
    }
}

/// An upper bound of what an event adds to a frame (its texts, defined anew, and a column for each of
/// its parts), and of its record in the stage.
fn bytes_max(event: &Event<'_>) -> usize {
    /// A column's name, form and bitmap, a value in it, and what defines a text, the text aside. (A group of lanes has
    /// longer bitmaps, one for all of its events; each of those brings five parts at least.)
    const PART_BYTES: usize = 5 + 1 + GROUP_EVENTS_MAX / 8 + 10 + 2 * (5 + 2);
    let mut bytes = 5 * PART_BYTES + event.name.len();
    for (name, value) in event.dims.iter() {
        bytes += PART_BYTES + name.len() + value.len();
    }
    for (name, _) in event.measures.iter() {
        bytes += PART_BYTES + name.len();
    }
    if !event.is_plain() {
        let extras = usize::from(event.count() != 1) + usize::from(event.half_width > 0);
        let texts = [event.entity, event.id].map(|text| text.map_or(0, str::len));
        bytes += extras * PART_BYTES
            + texts.iter().sum::<usize>()
            + event.payload.map_or(0, <[u8]>::len);
    }
    bytes
}

impl Group {
    /// Whether nothing is gathered, and nothing can be joined to it.
    fn is_none(&self) -> bool {
        self.lane.builder.is_empty() && !self.has_lanes
    }

    /// How many groups behind this one are worth lanes, where threads met or did not.
    fn wider(&self, have_met: bool) -> u8 {
        if have_met { GROUPS_WIDE } else { self.wide.saturating_sub(1) }
    }

    /// Whether an event must wait for the next group.
    fn is_due(&self, event: &Event<'_>, event_bytes: u64, now: Timestamp) -> bool {
        self.applied || self.has_lanes || self.lane.is_due(event, event_bytes, now)
    }
}

/// An event that joins the group if it may.
struct Joining<'a, D> {
    engine: &'a Engine,
    event: &'a Event<'a>,
    time: Timestamp,
    event_bytes: u64,
    key: &'a [Sym],
    /// The event's text that the first part of the key stands for, if that is at hand.
    text: Option<&'a str>,
    decider: &'a mut D,
}

impl<D: Decider> Joining<'_, D> {
    /// Has the series of the view that is asked decide, and the event in it, in the group, and in the other views.
    #[inline]
    fn decide(
        &mut self,
        views: &[Arc<ViewTier>],
        asked: usize,
        lane: &mut Lane,
        scratch: &mut Scratch,
    ) -> Result<Decided> {
        let (engine, time) = (self.engine, (self.time, self.event.count()));
        let (key, view) = (self.key, &views[asked]);
        let known = self.text.zip(key.first().copied());
        let mut joined = Joined { joining: self, lane, known };
        let decided = view.observe_if(key, time, scratch, &mut joined)?;
        if let Decided::Recorded { is_late } = decided {
            let mut is_late = is_late && !view.is_succeeding();
            if views.len() > 1 {
                let columns = joined.lane.builder.only_chunk(&engine.dictionary);
                for others in
                    [&views[..asked], &views[asked + 1..]].iter().filter(|o| !o.is_empty())
                {
                    is_late |= apply_row(others, columns, columns.len() - 1, scratch);
                }
            }
            if joined.lane.is_first() {
                // Before the next one can be late because of it.
                engine.newest.raise(time.0);
                engine.staging.note_joined(1);
            }
            if is_late {
                engine.tallies.late.add(1);
            }
        }
        Ok(decided)
    }
}

/// The same, and what it joins.
struct Joined<'a, 'j, D> {
    joining: &'a mut Joining<'j, D>,
    lane: &'a mut Lane,
    /// One of its texts, and the sym of that.
    known: Option<(&'a str, Sym)>,
}

/// Who asks a series before an event is recorded in it.
pub(super) trait Decider {
    /// Asks it, if there is one.
    fn ask(&mut self, series: Option<SeriesRef<'_>>) -> Answer;
    /// Notes that the event is recorded, under the lock of the lane of this number.
    fn note_recorded(&mut self, lane: usize);
}

impl<D: Decider> Recorder for Joined<'_, '_, D> {
    #[inline]
    fn is_among_others(&self) -> bool {
        !self.lane.is_first()
    }

    #[inline]
    fn ask(&mut self, series: Option<SeriesRef<'_>>) -> Answer {
        self.joining.decider.ask(series)
    }

    #[inline]
    fn prepare(&mut self) {
        let Joining { event, time, .. } = *self.joining;
        self.lane.draft(event, time);
    }

    #[inline]
    fn record(&mut self) -> Result<()> {
        let Joining { engine, event, time, event_bytes, .. } = *self.joining;
        self.lane.add(engine, event, time, event_bytes, self.known)?;
        self.joining.decider.note_recorded(self.lane.number);
        Ok(())
    }

    fn columns(&mut self) -> &Columns {
        self.lane.builder.only_chunk(&self.joining.engine.dictionary)
    }
}

/// How many events joined a group without the gate, and through lanes.
#[cfg(shuttle)]
pub(crate) static JOINED: [std::sync::atomic::AtomicU64; 2] =
    [const { std::sync::atomic::AtomicU64::new(0) }; 2];

/// The views that limits ask.
#[derive(Default)]
struct AtOnce {
    views: Vec<Arc<ViewTier>>,
    /// As of [`Live`].
    reach: Option<Duration>,
}

impl AtOnce {
    fn of(live: &Live) -> Self {
        AtOnce { views: live.at_once.clone(), reach: live.reach }
    }
}

/// The place of the view of these versions, if it takes the event.
#[inline]
fn asked(views: &[Arc<ViewTier>], versions: &Arc<Versions>, event: &Event<'_>) -> Option<usize> {
    let at = views.iter().position(|view| Arc::ptr_eq(view.versions(), versions))?;
    views[at].takes(event).then_some(at)
}

/// Whether events may join, the views that they may ask, and what one is joined to and asked with.
type Parts<'a> = (bool, &'a AtOnce, &'a mut Lane, &'a mut Scratch);

impl Gathered {
    #[inline]
    fn parts(&mut self) -> Parts<'_> {
        let Gathered { group, views, scratch } = self;
        let is_open = !(group.lane.builder.is_empty() || group.applied || group.applied_singly);
        (is_open, views, &mut group.lane, scratch)
    }
}

/// What an event that asks a view of these versions is joined to without entering the gate, if the lane goes on with
/// it (invariant 8): the place of that view.
#[inline]
fn going_on<D>(
    lane: &Lane,
    at_once: &AtOnce,
    versions: &Arc<Versions>,
    Joining { engine, event, time, event_bytes, .. }: &Joining<'_, D>,
) -> Option<usize> {
    let asked = asked(&at_once.views, versions, event)?;
    let goes_on = !lane.is_due(event, *event_bytes, *time)
        && !engine.may_be_late(at_once.reach, *time)
        && !engine.log.is_poisoned();
    #[cfg(shuttle)]
    JOINED[usize::from(!lane.is_first())].fetch_add(u64::from(goes_on), Relaxed);
    goes_on.then_some(asked)
}

/// The gate, closed.
pub(super) struct ClosedGate<'a> {
    engine: &'a Engine,
    live: Closed<'a, Live>,
}

impl Deref for ClosedGate<'_> {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl DerefMut for ClosedGate<'_> {
    fn deref_mut(&mut self) -> &mut Live {
        &mut self.live
    }
}

impl Drop for ClosedGate<'_> {
    fn drop(&mut self) {
        self.engine.staging.gathered.lock().views = AtOnce::of(&self.live);
    }
}

impl Engine {
    /// Closes the gate, and waits until nobody is inside. What is gathered still is.
    pub(super) fn shut(&self) -> ClosedGate<'_> {
        ClosedGate { engine: self, live: self.gate.close() }
    }

    /// Whether an event that comes by itself waits for others: then an upper bound of its bytes.
    #[inline]
    pub(super) fn is_staged(&self, event: &Event<'_>, durability: Durability) -> Option<u64> {
        // One that waits for the disk has nothing to wait for besides; and whether an id is new must be
        // known at once.
        let bytes = bytes_max(event);
        let is_staged = durability != Durability::Sync
            && (self.window.is_none() || event.id.is_none())
            && bytes <= self.staging.event_bytes_max;
        is_staged.then_some(bytes as u64)
    }

    /// Records an event: into the stage, and into the group.
    pub(super) fn stage(
        &self,
        event: &Event<'_>,
        event_bytes: u64,
        durability: Durability,
    ) -> Result<Recorded> {
        // The clock is the user's: no lock is held while it is asked.
        let clock = &self.options.clock;
        let now = if event.time.is_none() { clock.now() } else { clock.now_roughly() };
        let time = check_single(self, event, now)?;
        self.limits.note_recording(now);
        self.stage_at(event, time, event_bytes, now, durability)
    }

    /// Records an event that was checked and happened at `time`.
    pub(super) fn stage_at(
        &self,
        event: &Event<'_>,
        time: Timestamp,
        event_bytes: u64,
        now: Timestamp,
        durability: Durability,
    ) -> Result<Recorded> {
        let live = self.enter()?;
        let gathered = self.staging.gathered.lock();
        let mut gathered = self.gather(&live, event, event_bytes, now, (gathered, false))?;
        gathered.group.has_told = true;
        let recorded = self.join_group(&live, &mut gathered, event, time, event_bytes)?;
        drop(gathered);
        drop(live);
        self.note_staged(durability);
        Ok(recorded)
    }

    /// Adds an event to the group, which has no lanes.
    #[inline]
    fn join_group(
        &self,
        live: &Live,
        gathered: &mut Gathered,
        event: &Event<'_>,
        time: Timestamp,
        event_bytes: u64,
    ) -> Result<Recorded> {
        let may_be_late = self.may_be_late(live.reach, time);
        self.newest.raise(time);
        if may_be_late && !gathered.group.applied_singly {
            self.apply_gathered(live, &mut gathered.group);
        }
        let Gathered { group, scratch: at_once, .. } = gathered;
        let Group { lane, scratch, applied_singly, .. } = group;
        lane.draft(event, time);
        let position = lane.add(self, event, time, event_bytes, None)?;
        let builder = &mut lane.builder;
        let late = if *applied_singly {
            let columns = builder.only_chunk(&self.dictionary);
            apply_row(&live.views, columns, columns.len() - 1, scratch)
        } else {
            self.staging.note_joined(1);
            !live.at_once.is_empty() && {
                let columns = builder.only_chunk(&self.dictionary);
                apply_row(&live.at_once, columns, columns.len() - 1, at_once)
            }
        };
        self.tallies.late.add(u64::from(late));
        Ok(Recorded { position: Position(position), duplicate: false, late })
    }

    /// Records an event that was checked and happens now if its series in the view of `versions`, under `key`, says
    /// that it may: that is asked, and the event is in it, under one hold of the locks. Where it is not certain that
    /// it could be done so the event is not recorded, and that is said.
    #[inline]
    pub(super) fn stage_if(
        &self,
        event: &Event<'_>,
        (now, durability): (Timestamp, Durability),
        versions: &Arc<Versions>,
        (key, text): (&[Sym], Option<&str>),
        decider: &mut impl Decider,
    ) -> Result<Decided> {
        let Some(event_bytes) = self.is_staged(event, durability) else {
            return Ok(Decided::Unknown);
        };
        let mut joining =
            Joining { engine: self, event, time: now, event_bytes, key, text, decider };
        let staging = &self.staging;
        let joined = {
            let (mut through, mut gathered);
            let (is_open, views, lane, scratch) = if staging.has_lanes() {
                through = lock_soon(&staging.lanes[staging.lane_of_mine()]);
                through.parts()
            } else {
                staging.note_crowd();
                gathered = staging.gathered.lock();
                gathered.parts()
            };
            match going_on(lane, views, versions, &joining).filter(|_| is_open) {
                Some(asked) => Some(joining.decide(&views.views, asked, lane, scratch)?),
                None => None,
            }
        };
        let decided = match joined {
            Some(decided) => decided,
            None => self.begin_with(versions, &mut joining)?,
        };
        if matches!(decided, Decided::Recorded { .. }) {
            self.note_staged(durability);
        }
        Ok(decided)
    }

    /// The same inside of the gate, where a group may have to be brought in and another one begun.
    #[inline(never)]
    fn begin_with<D: Decider>(
        &self,
        versions: &Arc<Versions>,
        joining: &mut Joining<'_, D>,
    ) -> Result<Decided> {
        let &mut Joining { event, time, event_bytes, .. } = joining;
        let live = self.enter()?;
        let Some(asked) = asked(&live.at_once, versions, event) else {
            return Ok(Decided::Unknown);
        };
        let mine = self.staging.lane_of_mine();
        let lane = &self.staging.lanes[mine];
        let mut gathered = lock_soon(&self.staging.gathered);
        // Somebody else may have begun one.
        if gathered.group.has_lanes
            && let Some(decided) = lane.lock().join(versions, joining)
        {
            return decided;
        }
        let turning = self.staging.turn_lanes();
        // Where there is no room, say, whoever is denied is to be told that.
        let room = self.gather(&live, event, event_bytes, time, (gathered, true));
        gathered = if let Ok(gathered) = room { gathered } else { return Ok(Decided::Unknown) };
        if gathered.group.applied_singly || self.may_be_late(live.reach, time) {
            turning.end(gathered.group.has_lanes);
            return Ok(Decided::Unknown);
        }
        if gathered.group.wide > 0 && gathered.group.is_none() {
            self.open_lanes(&live, &mut gathered.group, (mine, event_bytes));
        }
        turning.end(gathered.group.has_lanes);
        if gathered.group.has_lanes {
            let mut lane = lane.lock();
            drop(gathered);
            return lane.join(versions, joining).unwrap_or(Ok(Decided::Unknown));
        }
        let Gathered { group, scratch, .. } = &mut *gathered;
        joining.decide(&live.at_once, asked, &mut group.lane, scratch)
    }

    /// The gathered events, among which there is room for one of at most so many bytes; or, for one that may come
    /// through a lane, a group that somebody else has opened lanes to meanwhile.
    #[inline]
    fn gather<'a>(
        &'a self,
        live: &Live,
        event: &Event<'_>,
        event_bytes: u64,
        now: Timestamp,
        (mut gathered, has_lane): (MutexGuard<'a, Gathered>, bool),
    ) -> Result<MutexGuard<'a, Gathered>> {
        let now = now.clamp(Timestamp::MIN, Timestamp::MAX);
        self.log.check_poison()?;
        if gathered.group.lane.area.is_none() {
            self.make_stage(&mut gathered.group)?;
        }
        while !gathered.group.is_none() && gathered.group.is_due(event, event_bytes, now) {
            gathered = self.none_gathered_of(live, gathered)?;
            if has_lane && gathered.group.has_lanes {
                return Ok(gathered);
            }
        }
        if gathered.group.is_none() {
            let room = self.log.make_room(event_bytes, now)?;
            let group = &mut gathered.group;
            group.lane.begin(self.log.appended(), now, room);
            group.applied_singly = false;
            group.has_told = false;
        }
        Ok(gathered)
    }

    #[cold]
    fn make_stage(&self, group: &mut Group) -> Result<()> {
        let bytes = self.options.stage_bytes;
        let areas = Area::create_all(&*self.disk, &self.dir, self.home.identity, bytes)?;
        let mut areas = areas.into_iter();
        group.lane.area = areas.next();
        for lane in &*self.staging.lanes {
            lane.lock().lane.area = areas.next();
        }
        Ok(())
    }

    /// Whether an event of this time is so far behind the newest one that it may be late in a view (invariant 7).
    #[inline]
    fn may_be_late(&self, reach: Option<Duration>, time: Timestamp) -> bool {
        reach.is_some_and(|reach| self.newest.get().saturating_sub(reach) > time)
    }

    #[inline]
    fn note_staged(&self, durability: Durability) {
        if let Durability::Interval(within) = durability {
            self.signals.want_sync(within);
        }
    }

    /// Brings in what is gathered; gives the lock under which nothing is.
    pub(super) fn none_gathered(&self, live: &Live) -> Result<MutexGuard<'_, impl Sized>> {
        let mut gathered = self.staging.gathered.lock();
        while !gathered.group.is_none() {
            gathered = self.none_gathered_of(live, gathered)?;
        }
        Ok(gathered)
    }

    /// Brings a group in; there may be another one when this returns.
    fn none_gathered_of<'a>(
        &'a self,
        live: &Live,
        mut gathered: MutexGuard<'a, Gathered>,
    ) -> Result<MutexGuard<'a, Gathered>> {
        let staging = &self.staging;
        let group = &mut gathered.group;
        if group.has_lanes {
            self.close_lanes(group);
            if group.is_none() {
                return Ok(gathered);
            }
        } else {
            let is_crowded = staging.is_crowded.load(Relaxed);
            if is_crowded {
                staging.is_crowded.store(false, Relaxed);
            }
            group.wide = group.wider(is_crowded || self.options.always_lanes);
        }
        if group.has_told {
            group.wide = 0;
        }
        let Lane { builder, begun, .. } = &mut group.lane;
        let columns = builder.only_chunk(&self.dictionary);
        let events = columns.len() as u64;
        group.draft.events(columns, &self.log, *begun);
        let appended = match self.log.append_events(&mut group.draft, columns) {
            Ok(appended) => appended,
            Err(error) => {
                // Acknowledged and in the stage: the answers have it, the next opening logs it.
                if !group.applied_singly {
                    self.apply_gathered(live, group);
                }
                group.applied = true;
                return Err(error);
            }
        };
        if let Some(area) = &mut group.lane.area {
            area.clear();
        }
        // Before the gate is left, so that a cut counts whole records only.
        self.tallies.events.add(events);
        self.note_appended(&appended);
        let fresh = || (Builder::new(&self.dictionary), Scratch::default());
        let (next, scratch) = group.spare.take().unwrap_or_else(fresh);
        let mut builder = std::mem::replace(&mut group.lane.builder, next);
        let mut scratch = std::mem::replace(&mut group.scratch, scratch);
        let is_applied = std::mem::take(&mut group.applied) || group.applied_singly;
        if live.gathering.is_empty() {
            staging.applied.fetch_add(if is_applied { 0 } else { events }, AcqRel);
        } else if !is_applied {
            let applying = staging.applying.read();
            drop(gathered);
            self.apply_group(live, builder.only_chunk(&self.dictionary), &mut scratch);
            drop(applying);
            staging.applied.fetch_add(events, AcqRel);
            gathered = staging.gathered.lock();
        }
        builder.clear();
        gathered.group.spare = Some((builder, scratch));
        Ok(gathered)
    }

    /// Applies what is gathered before it is in the log, and from now on what joins it.
    fn apply_gathered(&self, live: &Live, group: &mut Group) {
        group.applied_singly = true;
        if !group.lane.builder.is_empty() {
            let columns = group.lane.builder.only_chunk(&self.dictionary);
            self.apply_group(live, columns, &mut group.scratch);
            self.staging.applied.fetch_add(columns.len() as u64, AcqRel);
        }
    }

    fn apply_group(&self, live: &Live, columns: &Columns, scratch: &mut Scratch) {
        apply_all(&live.gathering, columns, scratch);
        // Late are those that a batch of another thread overtook since.
        self.tallies.late.add(scratch.late());
    }

    /// Brings in what is gathered, with the gate closed.
    pub(super) fn bring_in_at(&self, live: &Live) -> Result<()> {
        self.none_gathered(live).map(|_| ())
    }

    /// Brings in what is gathered.
    pub(super) fn bring_in(&self) -> Result<()> {
        // Under the lock: whoever was acknowledged before, or saw a promise of a sync that this one
        // keeps, is counted for certain.
        if self.staging.gathered.lock().group.is_none() {
            return Ok(());
        }
        let live = self.gate.enter();
        self.bring_in_at(&live)
    }

    /// Waits until every event that was acknowledged is in every view: what a question begins with.
    #[inline]
    pub(super) fn settle(&self) {
        // The later one first: what is applied by then had joined before.
        let applied = self.staging.applied.load(Acquire);
        if applied != self.staging.joined.load(Acquire) {
            self.settle_all();
        }
    }

    #[cold]
    fn settle_all(&self) {
        // Under the lock of the gathered events, also if the log has all of them: a group that was
        // appended just now may not be in the hands of who applies it yet. On an error they are applied
        // all the same; who records or syncs is told.
        let live = self.gate.enter();
        if let Err(error) = self.bring_in_at(&live) {
            tracing::debug!(%error, "gathered events are not in the log");
        }
        drop(live);
        // Whoever applies a group took this lock before the group left the gathered ones.
        drop(self.staging.applying.write());
    }

    /// Makes everything recorded durable; gives the last position.
    pub(super) fn sync(&self) -> Result<u64> {
        self.bring_in()?;
        self.log.sync()
    }

    /// Events recorded, in the log or gathered.
    pub(super) fn events(&self) -> u64 {
        let gathered = self.staging.gathered.lock();
        let waiting = gathered.group.lane.builder.len() as u64;
        self.tallies.events.get() + waiting + self.staging.in_lanes(&gathered)
    }

    /// The last position of all that was acknowledged before: what is in lanes gets one first.
    pub(super) fn settled_position(&self) -> u64 {
        if !self.staging.may_have_lanes() {
            return self.given_position();
        }
        let live = self.gate.enter();
        match self.none_gathered(&live) {
            Ok(_none) => {
                self.staging.settle_lanes();
                self.given_position()
            }
            Err(error) => {
                tracing::debug!(%error, "gathered events are not in the log");
                self.given_position()
            }
        }
    }

    /// The last position that was given.
    pub(super) fn given_position(&self) -> u64 {
        self.staging.last.load(Acquire).max(self.log.appended())
    }

    /// The last position that was given, or will be to what is in lanes.
    pub(super) fn last_position(&self) -> u64 {
        let staging = &self.staging;
        if !staging.may_have_lanes() {
            return self.given_position();
        }
        // What is in lanes has the next ones, in an order that is not known yet.
        let gathered = staging.gathered.lock();
        self.given_position() + staging.in_lanes(&gathered)
    }

    /// Takes the stage away, at the end of the opening; all of its records are durable in the log.
    pub(super) fn leave_stage(&self) -> Result<()> {
        let mut gathered = self.staging.gathered.lock();
        for lane in &*self.staging.lanes {
            lane.lock().lane.area = None;
        }
        match gathered.group.lane.area.take() {
            Some(_) => stage::remove(&*self.disk, &self.dir),
            None => Ok(()),
        }
    }
}
