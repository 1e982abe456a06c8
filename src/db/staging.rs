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
//!    holds the lock of the gathered events, or has closed the gate, and there are none.
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
//! 8. Who records a single event is inside of the gate, or holds the lock of the gathered events and joins a
//!    group that somebody began inside of the gate. So once a group is brought in with the gate closed there is
//!    none to join (invariant 3). Which view such an event asks is known from when the gate was opened last.
//!
//! Next: `record.rs`.

use super::batch::{Builder, check_single};
use super::{Engine, Live, Recorded};
use crate::dictionary::{Dictionary, Sym};
use crate::error::Result;
use crate::event::Event;
use crate::log::Position;
use crate::log::stage::{self, Stage};
use crate::log::writer::Draft;
#[cfg(doc)]
use crate::log::writer::Writer;
use crate::options::Durability;
use crate::record::{self, Columns};
use crate::series::SeriesRef;
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use crate::sync::{Closed, Mutex, MutexGuard, RwLock};
use crate::tier::ViewTier;
use crate::tier::apply::{Answer, Decided, Recorder, Scratch, apply_all, apply_row};
use crate::time::Timestamp;
use crate::versions::Versions;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// Events of one group at most.
const GROUP_EVENTS_MAX: usize = 128;
/// Larger events are recorded by themselves.
const EVENT_BYTES_MAX: usize = 2_048;
/// How far apart the events of a group may have come: their frame has one time of recording.
const GROUP_SPAN: Duration = Duration::from_millis(100);

pub(super) struct Staging {
    gathered: Mutex<Gathered>,
    /// Held together by who applies groups that are not among the gathered events any more.
    applying: RwLock<()>,
    /// Events that joined a group, of those that are applied with it.
    joined: AtomicU64,
    /// Those of them that are applied.
    applied: AtomicU64,
    /// The position that was given last, to a gathered event.
    last: AtomicU64,
}

/// The gathered events, under their lock.
struct Gathered {
    group: Group,
    /// For views that are not gathered for.
    scratch: Scratch,
    /// Those, as they were when the gate was opened last.
    at_once: AtOnce,
}

struct Group {
    builder: Builder,
    draft: Draft,
    scratch: Scratch,
    stage: Option<Stage>,
    /// When the first of them came.
    begun: Timestamp,
    /// Invariant 7, of this group.
    applied_singly: bool,
    /// The group was applied; bringing it in failed.
    applied: bool,
    /// An upper bound of what a frame of them takes.
    bytes_max: u64,
    /// What the log has room for (invariant 5).
    room: u64,
    /// For the next group.
    spare: Option<(Builder, Scratch)>,
}

impl Staging {
    pub(super) fn new(dictionary: &Dictionary) -> Self {
        Staging {
            gathered: Mutex::new(Gathered {
                group: Group {
                    builder: Builder::new(dictionary),
                    draft: Draft::default(),
                    scratch: Scratch::default(),
                    stage: None,
                    begun: Timestamp::MIN,
                    applied_singly: false,
                    applied: false,
                    bytes_max: 0,
                    room: 0,
                    spare: None,
                },
                scratch: Scratch::default(),
                at_once: AtOnce::default(),
            }),
            applying: RwLock::new(()),
            joined: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Notes that one more is among the gathered events, under their lock, so that nobody else does.
    #[inline]
    fn note_joined(&self) {
        self.joined.store(self.joined.load(Acquire) + 1, Release);
    }

    /// Notes the last position of what another process has staged.
    pub(super) fn follow(&self, last: u64) {
        self.last.store(last, Release);
    }
}

/// An upper bound of what an event adds to a frame (its texts, defined anew, and a column for each of
/// its parts), and of its record in the stage.
fn bytes_max(event: &Event<'_>) -> usize {
    /// A column's name, form and bitmap, a value in it, and what defines a text, the text aside.
    const PART_BYTES: usize = 5 + 1 + GROUP_EVENTS_MAX / 8 + 10 + 2 * (5 + 2);
    let extras = usize::from(event.count() != 1) + usize::from(event.half_width > 0);
    let parts = event.dims.len() + event.measures.len() + 5 + extras;
    let dims = event.dims.iter().map(|(name, value)| name.len() + value.len());
    let measures = event.measures.iter().map(|(name, _)| name.len());
    let rest = [event.name, event.entity.unwrap_or_default(), event.id.unwrap_or_default()];
    parts * PART_BYTES
        + dims.chain(measures).sum::<usize>()
        + rest.map(str::len).iter().sum::<usize>()
        + event.payload.map_or(0, <[u8]>::len)
}

impl Group {
    /// Whether the event must wait for the next group.
    fn is_due(&self, event: &Event<'_>, event_bytes: u64, now: Timestamp) -> bool {
        let apart = self.begun.max(now).micros() - self.begun.min(now).micros();
        self.applied
            || self.builder.len() >= GROUP_EVENTS_MAX
            || !self.builder.has_room() && self.builder.is_full_for(event)
            || apart as u64 > GROUP_SPAN.as_micros() as u64
            || self.bytes_max + event_bytes > self.room
            || self.stage.as_ref().is_some_and(|stage| !stage.has_room(event_bytes))
    }

    /// Drafts the record of an event that is not due for the next group; gives its position.
    #[inline]
    fn draft(&mut self, engine: &Engine, event: &Event<'_>, time: Timestamp) -> u64 {
        let position = engine.log.appended() + self.builder.len() as u64 + 1;
        self.stage_mut().draft(position, |out| record::put_event(out, event, time));
        position
    }

    #[inline]
    fn stage_mut(&mut self) -> &mut Stage {
        self.stage.as_mut().expect("whoever begins a group makes it")
    }

    /// Adds the event whose record is drafted. On an error it is not in.
    #[inline]
    fn add(
        &mut self,
        engine: &Engine,
        event: &Event<'_>,
        (position, time): (u64, Timestamp),
        event_bytes: u64,
        known: Option<(&str, Sym)>,
    ) -> Result<()> {
        self.stage_mut().put()?;
        self.builder.add_with(&engine.dictionary, event, time, known);
        self.bytes_max += event_bytes;
        engine.staging.last.store(position, Release);
        Ok(())
    }
}

/// An event that joins the group if it may.
struct Joining<'a, D> {
    engine: &'a Engine,
    event: &'a Event<'a>,
    time: Timestamp,
    event_bytes: u64,
    key: &'a [Sym],
    decider: &'a mut D,
}

impl<D: Decider> Joining<'_, D> {
    /// Has the series of the view that is asked decide, and the event in it, in the group, and in the other views.
    #[inline]
    fn decide(
        &mut self,
        views: &[Arc<ViewTier>],
        asked: usize,
        group: &mut Group,
        scratch: &mut Scratch,
    ) -> Result<Decided> {
        let (engine, time) = (self.engine, (self.time, self.event.count()));
        let (key, view) = (self.key, &views[asked]);
        let text = view.view.key().first().and_then(|part| self.event.part(part));
        let known = text.zip(key.first().copied());
        let mut joined = Joined { joining: self, group, position: 0, known };
        let decided = view.observe_if(key, time, scratch, &mut joined)?;
        if let Decided::Recorded { is_late } = decided {
            let mut is_late = is_late && !view.is_succeeding();
            for others in [&views[..asked], &views[asked + 1..]].iter().filter(|o| !o.is_empty()) {
                let columns = joined.group.builder.only_chunk(&engine.dictionary);
                is_late |= apply_row(others, columns, columns.len() - 1, scratch);
            }
            // Before the next one can be late because of it.
            engine.newest.raise(time.0);
            engine.staging.note_joined();
            engine.tallies.late.add(u64::from(is_late));
        }
        Ok(decided)
    }
}

/// The same, and what it joins.
struct Joined<'a, 'j, D> {
    joining: &'a mut Joining<'j, D>,
    group: &'a mut Group,
    position: u64,
    /// One of its texts, and the sym of that.
    known: Option<(&'a str, Sym)>,
}

/// Who asks a series before an event is recorded in it.
pub(super) trait Decider {
    /// Asks it, if there is one.
    fn ask(&mut self, series: Option<SeriesRef<'_>>) -> Answer;
    /// Notes that the event is recorded, under the lock of the gathered events.
    fn note_recorded(&mut self);
}

impl<D: Decider> Recorder for Joined<'_, '_, D> {
    #[inline]
    fn ask(&mut self, series: Option<SeriesRef<'_>>) -> Answer {
        self.joining.decider.ask(series)
    }

    #[inline]
    fn prepare(&mut self) {
        let Joining { engine, event, time, .. } = *self.joining;
        self.position = self.group.draft(engine, event, time);
    }

    #[inline]
    fn record(&mut self) -> Result<()> {
        let Joining { engine, event, time, event_bytes, .. } = *self.joining;
        self.group.add(engine, event, (self.position, time), event_bytes, self.known)?;
        self.joining.decider.note_recorded();
        Ok(())
    }

    fn columns(&mut self) -> &Columns {
        self.group.builder.only_chunk(&self.joining.engine.dictionary)
    }
}

/// How many events joined a group without the gate.
#[cfg(shuttle)]
pub(crate) static JOINED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

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

impl Gathered {
    /// The views, the place of the one of these versions, the group, and what it is applied with, where the group goes
    /// on with an event that asks that view: then the gate need not be entered for it (invariant 8).
    #[inline]
    fn going_on<D>(
        &mut self,
        engine: &Engine,
        versions: &Arc<Versions>,
        Joining { event, time, event_bytes, .. }: &Joining<'_, D>,
    ) -> Option<(&[Arc<ViewTier>], usize, &mut Group, &mut Scratch)> {
        let Gathered { group, scratch, at_once } = self;
        let asked = asked(&at_once.views, versions, event)?;
        let goes_on = !group.builder.is_empty()
            && !group.is_due(event, *event_bytes, *time)
            && !group.applied_singly
            && !engine.may_be_late(at_once.reach, *time)
            && engine.log.check_poison().is_ok();
        #[cfg(shuttle)]
        JOINED.fetch_add(u64::from(goes_on), std::sync::atomic::Ordering::Relaxed);
        goes_on.then_some((&at_once.views, asked, group, scratch))
    }
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
        self.engine.staging.gathered.lock().at_once = AtOnce::of(&self.live);
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
        let staged_bytes_max =
            self.options.stage_bytes as usize - stage::HEADER_BYTES - stage::record_bytes(0);
        let bytes = bytes_max(event);
        let is_staged = durability != Durability::Sync
            && (self.window.is_none() || event.id.is_none())
            && bytes <= EVENT_BYTES_MAX.min(staged_bytes_max);
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
        let mut gathered = self.gather(&live, event, event_bytes, now)?;
        let may_be_late = self.may_be_late(live.reach, time);
        self.newest.raise(time);
        if may_be_late && !gathered.group.applied_singly {
            self.apply_gathered(&live, &mut gathered.group);
        }
        let position = gathered.group.draft(self, event, time);
        gathered.group.add(self, event, (position, time), event_bytes, None)?;
        let Gathered { group, scratch: at_once, .. } = &mut *gathered;
        let Group { builder, scratch, applied_singly, .. } = group;
        let late = if *applied_singly {
            let columns = builder.only_chunk(&self.dictionary);
            apply_row(&live.views, columns, columns.len() - 1, scratch)
        } else {
            self.staging.note_joined();
            !live.at_once.is_empty() && {
                let columns = builder.only_chunk(&self.dictionary);
                apply_row(&live.at_once, columns, columns.len() - 1, at_once)
            }
        };
        self.tallies.late.add(u64::from(late));
        drop(gathered);
        drop(live);
        self.note_staged(durability);
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
        key: &[Sym],
        decider: &mut impl Decider,
    ) -> Result<Decided> {
        let Some(event_bytes) = self.is_staged(event, durability) else {
            return Ok(Decided::Unknown);
        };
        let mut joining = Joining { engine: self, event, time: now, event_bytes, key, decider };
        let mut gathered = self.staging.gathered.lock();
        let going_on = gathered.going_on(self, versions, &joining);
        let decided = if let Some((views, asked, group, scratch)) = going_on {
            joining.decide(views, asked, group, scratch)?
        } else {
            drop(gathered);
            let live = self.enter()?;
            let asked = asked(&live.at_once, versions, event);
            let Some(asked) = asked else { return Ok(Decided::Unknown) };
            // Where there is no room, say, whoever is denied is to be told that.
            let room = self.gather(&live, event, event_bytes, now);
            gathered =
                if let Ok(gathered) = room { gathered } else { return Ok(Decided::Unknown) };
            let Gathered { group, scratch, .. } = &mut *gathered;
            if group.applied_singly || self.may_be_late(live.reach, now) {
                return Ok(Decided::Unknown);
            }
            joining.decide(&live.at_once, asked, group, scratch)?
        };
        drop(gathered);
        if matches!(decided, Decided::Recorded { .. }) {
            self.note_staged(durability);
        }
        Ok(decided)
    }

    /// Locks the gathered events, among which there is room for one of at most so many bytes.
    #[inline]
    fn gather<'a>(
        &'a self,
        live: &Live,
        event: &Event<'_>,
        event_bytes: u64,
        now: Timestamp,
    ) -> Result<MutexGuard<'a, Gathered>> {
        let now = now.clamp(Timestamp::MIN, Timestamp::MAX);
        let mut gathered = self.staging.gathered.lock();
        self.log.check_poison()?;
        if gathered.group.stage.is_none() {
            gathered.group.stage = Some(self.make_stage()?);
        }
        while !gathered.group.builder.is_empty() && gathered.group.is_due(event, event_bytes, now) {
            gathered = self.none_gathered_of(live, gathered)?;
        }
        if gathered.group.builder.is_empty() {
            gathered.group.room = self.log.make_room(event_bytes, now)?;
            gathered.group.bytes_max = 0;
            gathered.group.begun = now;
            gathered.group.applied_singly = false;
        }
        Ok(gathered)
    }

    #[cold]
    fn make_stage(&self) -> Result<Stage> {
        Stage::create(&*self.disk, &self.dir, self.home.identity, self.options.stage_bytes)
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
        while !gathered.group.builder.is_empty() {
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
        let columns = group.builder.only_chunk(&self.dictionary);
        let events = columns.len() as u64;
        group.draft.events(columns, &self.log, group.begun);
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
        if let Some(stage) = &mut group.stage {
            stage.clear();
        }
        // Before the gate is left, so that a cut counts whole records only.
        self.tallies.events.add(events);
        self.note_appended(&appended);
        let fresh = || (Builder::new(&self.dictionary), Scratch::default());
        let (next, scratch) = group.spare.take().unwrap_or_else(fresh);
        let mut builder = std::mem::replace(&mut group.builder, next);
        let mut scratch = std::mem::replace(&mut group.scratch, scratch);
        let is_applied = std::mem::take(&mut group.applied) || group.applied_singly;
        if !is_applied {
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
        if !group.builder.is_empty() {
            let columns = group.builder.only_chunk(&self.dictionary);
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
        if self.staging.gathered.lock().group.builder.is_empty() {
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
        self.tallies.events.get() + gathered.group.builder.len() as u64
    }

    /// The last position that was given.
    pub(super) fn last_position(&self) -> u64 {
        self.staging.last.load(Acquire).max(self.log.appended())
    }

    /// Takes the stage away, at the end of the opening; all of its records are durable in the log.
    pub(super) fn leave_stage(&self) -> Result<()> {
        match self.staging.gathered.lock().group.stage.take() {
            Some(_) => stage::remove(&*self.disk, &self.dir),
            None => Ok(()),
        }
    }
}
