//! The engine: open a directory, record, ask, close. The life of an event from top to bottom.
//!
//! An event is checked and put into columns ([`Batch`]; a single one together with others that come
//! about the same time, `db/staging.rs`); the columns are encoded, appended to the
//! log (`record.rs`, `log/writer.rs`) and thereby given positions; then they are applied to every
//! view (`tier/apply.rs`, `tier/shard.rs`). A checkpoint writes what changed into the snapshot
//! store (`db/checkpoint.rs`, `snapshot/redb.rs`). Opening reads the same backwards: the snapshot,
//! then the log behind it through the same `apply` (`db/open.rs`).
//!
//! Invariants
//! 1. The gate: who records holds it shared from before the append until the last view is applied, or joins a
//!    group of somebody who does (`db/staging.rs`). A cut holds it alone; so at a cut every appended record is in every view, and none is in
//!    some only.
//! 2. Definitions of views change only at a cut of the gate, with a control record at that place
//!    of the log.
//! 3. Nothing is read from disk while the gate is held.
//! 4. Locks are taken in the order keys of limits, gate, window of ids, replicas, gathered events, log, shards.
//!
//! Next: `record.rs`.

mod backfill;
pub(crate) mod background;
mod backup;
mod batch;
mod catalog;
mod checkpoint;
mod convert;
mod counter;
mod dedup;
mod exchange;
mod http;
mod limit;
mod live;
mod load;
mod open;
mod read_only;
mod redefine;
mod refold;
pub(crate) mod repair;
pub(crate) mod restore;
mod site;
mod staging;
mod statistics;
mod store;
pub(crate) mod verify;

pub use backfill::Progress;
pub use backup::BackupOutcome;
pub use batch::Batch;
use batch::Builder;
pub use counter::Counter;
pub use exchange::{ImportOptions, ImportOutcome};
pub use limit::{Limit, Limiter, PolicyStatus, Reservation};
pub use read_only::ReadOnlyDb;
pub use repair::{Action, Repair, RepairReport, RepairStep, repair};
pub use restore::{RestoreOutcome, Upto, restore};
#[cfg(shuttle)]
pub(crate) use staging::JOINED;
pub use statistics::{BackgroundError, LastCheckpoint, Statistics};
pub use verify::{Depth, Finding, Meaning, Positions, VerifiedView, VerifyReport, verify};

use live::Live;
use load::ViewSource;

use crate::codec;
use crate::dictionary::Dictionary;
use crate::disk::{Disk, Lock};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Limits};
use crate::exchange::Replicas;
use crate::log::writer::{Appended, Draft, Writer};
use crate::log::{Home, Position};
use crate::options::{Durability, OnInvalid, Options};
use crate::query::Query;
use crate::record::{Columns, Control};
use crate::series::ALWAYS;
use crate::snapshot::{Start, Storage, Store, Table};
use crate::sync::atomic::Ordering::{Acquire, Release};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{Entered, Gate, Mutex, thread_local};
use crate::tier::apply::{Scratch, apply_all};
use crate::tier::{Newest, Tally, ViewTier};
use crate::time::{Grain, TimeZone, Timestamp};
use crate::view::View;
use dashmap::DashMap;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open engine. Clones are handles of the same one; it is closed when the last is dropped, or
/// by [`Db::close`], which reports errors.
///
/// By default a record survives the death of the process as soon as the call returns, and a power
/// cut at most 100 ms later ([`Durability::Interval`]); [`Durability::Sync`] makes the call wait
/// for the disk.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Component, Db, Event, View};
///
/// let db = Db::open(dir.path().join("shop"))?;
/// db.define(View::new("by_user").by(["user"]).stats("value"))?;
/// db.record(&Event::new("sale").dim("user", "alice").value(12.5))?;
/// db.record(&Event::new("sale").dim("user", "bob").value(3.0))?;
///
/// let by_user = db.query("by_user")?;
/// let alice = by_user.get(&["alice"])?.expect("alice bought something");
/// assert_eq!((alice.count, alice.summary().unwrap().sum), (1, 12.5));
/// assert_eq!(by_user.top(1, Component::Sum)?[0].key, ["alice"]);
/// db.close()?;
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
pub struct Db(Arc<Handle>);

/// Owned by the handles together: its end is the engine's end.
struct Handle {
    engine: Arc<Engine>,
    background: Mutex<Option<background::Threads>>,
}

pub(crate) struct Engine {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    home: Home,
    pub(crate) options: Options,
    pub(crate) dictionary: Arc<Dictionary>,
    log: Writer,
    storage: Store,
    /// The gate (invariant 1), and what only changes while it is closed.
    gate: Gate<Live>,
    /// Views by name, for looks without the gate.
    by_name: DashMap<Box<str>, Arc<ViewTier>>,
    /// How many checkpoints have become visible in the store (`db/load.rs`).
    commits: AtomicU64,
    checkpointer: Mutex<checkpoint::Checkpointer>,
    /// Backups under way; no segment is retired meanwhile. Raised under the checkpointer's lock.
    backups: AtomicUsize,
    figures: Mutex<checkpoint::Figures>,
    window: Option<Mutex<dedup::Window>>,
    /// To be locked by [`Engine::replicas`].
    replicas: Mutex<Replicas>,
    /// The replica of what is recorded next, where that is a change.
    becomes: Option<u128>,
    staging: staging::Staging,
    limits: limit::keys::Keys,
    signals: background::Signals,
    /// The last one.
    background_error: Mutex<Option<BackgroundError>>,
    tallies: Tallies,
    closed: AtomicBool,
    /// Of all views (`db/staging.rs`).
    newest: Newest,
    /// Given back when the engine is closed.
    lock: Mutex<Option<Lock>>,
}

/// Counters for statistics.
#[derive(Default)]
struct Tallies {
    /// Events recorded since the directory was made.
    events: Tally,
    late: Tally,
    refused: Tally,
    duplicates: Tally,
    /// Records applied when the directory was opened.
    replayed: Tally,
    /// Snapshots that were damaged when the directory was opened.
    rebuilt: Tally,
    background_failures: Tally,
    /// Bytes of log since the last checkpoint.
    log_bytes: Tally,
}

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its position; for a duplicate the last position so far.
    pub position: Position,
    /// Its id was in the deduplication window: nothing was recorded.
    pub duplicate: bool,
    /// It was older than the buckets kept by some view, and counts in the totals there. Of a series
    /// that is not in memory only what came since is known: one that is older than buckets which are
    /// stored is not told until the series was asked for. Of a definition that is to take a view's place
    /// ([`Db::redefine`]) nothing is told.
    pub late: bool,
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchOutcome {
    /// Events recorded.
    pub recorded: u64,
    /// Events passed over because their id was in the deduplication window.
    pub duplicates: u64,
    /// Recorded events that were older than the buckets kept by some view, as far as is known of series that
    /// are not in memory ([`Recorded::late`]).
    pub late: u64,
    /// Refused events by their place in the input, with the reason ([`OnInvalid::Skip`]).
    pub refused: Vec<(usize, Error)>,
    /// The position of the last event recorded.
    pub position: Position,
}

/// A view as it stands.
#[derive(Clone, Debug)]
pub struct ViewStatus {
    /// Its definition.
    pub view: View,
    /// The number of its keys.
    pub keys: u64,
    /// How far its backfill is; `None` when none was asked for or it is complete.
    pub backfill: Option<Progress>,
    /// The position behind which it counts by itself.
    pub defined_at: Position,
    /// The definition that is to take the place of this one, where that is not complete
    /// ([`Db::redefine`]).
    pub successor: Option<Successor>,
    /// Where its buckets were converted from those of another definition ([`Db::redefine`]): from when on
    /// those of each grain are exact, whatever the key; `None`: always. Empty where they were not.
    pub exact_from: Vec<(Grain, Option<Timestamp>)>,
}

/// A definition that is to take the place of a view's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The definition.
    pub view: View,
    /// How much of what the view holds it holds, too.
    pub progress: Progress,
}

/// What recording one chunk needs, kept from one call to the next.
#[derive(Default)]
struct Workbench {
    draft: Draft,
    scratch: Scratch,
    keep: Vec<bool>,
}

thread_local! {
    static WORKBENCH: RefCell<Workbench> = RefCell::default();
}

impl Db {
    /// Opens `dir` with default options, made if it is missing.
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(dir)
    }

    pub(crate) fn open_with(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Db> {
        let engine = Arc::new(open::open(disk, dir, options)?);
        let threads = background::Threads::start(&engine)?;
        Db::start(engine, threads)
    }

    /// Without threads: [`Engine::run`] does their work.
    #[cfg(feature = "simulation")]
    pub(crate) fn open_stepped(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Db> {
        let engine = Arc::new(open::open(disk, dir, options)?);
        Db::start(engine, background::Threads::none())
    }

    /// Puts an opened engine to work.
    fn start(engine: Arc<Engine>, threads: background::Threads) -> Result<Db> {
        let db = Db(Arc::new(Handle { engine, background: Mutex::new(Some(threads)) }));
        for view in db.engine().options.views.clone() {
            db.define(view)?;
        }
        Ok(db)
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    /// Records one event, at the engine's durability.
    ///
    /// # Errors
    /// `Invalid` when the event cannot be accepted (nothing of it is recorded then); `NoSpace`
    /// when the log cannot grow; `Io`, `Poisoned` when writing failed; `Closed`.
    pub fn record(&self, event: &Event<'_>) -> Result<Recorded> {
        self.record_with(event, self.engine().options.durability)
    }

    /// Records one event, at a durability of its own.
    ///
    /// # Errors
    /// As [`Db::record`].
    pub fn record_with(&self, event: &Event<'_>, durability: Durability) -> Result<Recorded> {
        let engine = self.engine();
        if let Some(bytes) = engine.is_staged(event, durability) {
            return engine.stage(event, bytes, durability);
        }
        let mut builder = Builder::new(&engine.dictionary);
        builder.push(engine, event)?;
        engine.limits.note_recording(engine.options.clock.now_roughly());
        engine.record_single(&mut builder, durability)
    }

    /// Records a batch, at the engine's durability, and empties it.
    ///
    /// Every event in it has passed its checks already. A batch of up to 8,192 events (and 4 MiB)
    /// is one frame of the log: after a crash all of an unacknowledged one is there or nothing. A
    /// larger one becomes several.
    ///
    /// # Errors
    /// `NoSpace`, `Io`, `Poisoned`, `Closed`; the batch keeps the events that are not recorded.
    pub fn record_batch(&self, batch: &mut Batch) -> Result<BatchOutcome> {
        self.record_batch_with(batch, self.engine().options.durability)
    }

    /// Records a batch, at a durability of its own, and empties it.
    ///
    /// # Errors
    /// As [`Db::record_batch`].
    pub fn record_batch_with(
        &self,
        batch: &mut Batch,
        durability: Durability,
    ) -> Result<BatchOutcome> {
        let engine = self.engine();
        engine.limits.note_recording(engine.options.clock.now_roughly());
        let builder = batch.builder_of(engine)?;
        let outcome = engine.record_chunks(builder, durability)?;
        builder.clear();
        Ok(outcome)
    }

    /// Records events from an iterator as one batch; `on_invalid` says what a refused one does to
    /// the others.
    ///
    /// # Errors
    /// With [`OnInvalid::Refuse`] the error of the first event that is refused, nothing being
    /// recorded; otherwise as [`Db::record_batch`].
    pub fn record_all<'a>(
        &self,
        events: impl IntoIterator<Item = Event<'a>>,
        on_invalid: OnInvalid,
    ) -> Result<BatchOutcome> {
        let mut batch = self.batch();
        let mut refused = Vec::new();
        for (i, event) in events.into_iter().enumerate() {
            if let Err(error) = batch.push(&event) {
                match on_invalid {
                    OnInvalid::Refuse => {
                        return Err(Error::new(
                            error.kind(),
                            format!("{error} (event {i} of the batch; nothing was recorded)"),
                        ));
                    }
                    OnInvalid::Skip => refused.push((i, error)),
                }
            }
        }
        let outcome = self.record_batch(&mut batch)?;
        Ok(BatchOutcome { refused, ..outcome })
    }

    /// Makes everything recorded so far durable; gives the last position.
    ///
    /// # Errors
    /// `Io`, `Poisoned`: the sync failed, now or earlier.
    pub fn sync(&self) -> Result<Position> {
        self.engine().check_open()?;
        self.engine().sync().map(Position)
    }

    /// Waits until `position` is durable, syncing if nobody else does. Threads that record
    /// without waiting and call this later share their syncs.
    ///
    /// # Errors
    /// `Invalid` for a position that was not recorded yet; `Io`, `Poisoned`.
    pub fn wait_durable(&self, position: Position) -> Result<()> {
        self.engine().check_open()?;
        if position > self.position() {
            return Err(Error::invalid(format!(
                "position {position} was not recorded yet; the last one is {}",
                self.position()
            )));
        }
        self.engine().bring_in()?;
        self.engine().log.sync_to(position.get())
    }

    /// The last position recorded: all that was acknowledged is at it or before, and stays there.
    pub fn position(&self) -> Position {
        Position(self.engine().settled_position())
    }

    /// The last position that survives a power cut for certain.
    pub fn durable_position(&self) -> Position {
        Position(self.engine().log.durable())
    }

    /// Defines a view, which counts every event recorded from now on; what came before can be
    /// folded in by [`Db::backfill`]. `false`: it was defined already, in the same way.
    ///
    /// # Errors
    /// `Invalid` for a definition that cannot be; `ViewConflict`, showing both, when the name has
    /// another definition ([`Db::redefine`] puts this one in its place); those of recording.
    pub fn define(&self, view: View) -> Result<bool> {
        let view = view.checked()?;
        let engine = self.engine();
        let mut live = engine.close_gate()?;
        if let Some(tier) = live.named(view.name()) {
            return if tier.view == view { Ok(false) } else { Err(tier.view.conflict(&view)) };
        }
        if live.answering().count() >= Limits::VIEWS {
            return Err(Error::invalid(format!("a directory has at most {} views", Limits::VIEWS)));
        }
        let id = live.next_view;
        let control = Control::ViewDefined { id, view: view.clone() };
        let position = engine.append_control(&control)?;
        live.define(id, view, position, engine);
        drop(live);
        engine.acknowledge(position, engine.options.durability)?;
        Ok(true)
    }

    /// Gives a view another definition, under the same name: other numbers of buckets or other grains
    /// most often, but key, conditions and measures can be others, too. It holds the same events
    /// afterwards, as if it had been defined in this way where it was: those in front of its
    /// definition, if it was [backfilled](Db::backfill), and those behind it. Buckets that the old
    /// definition no longer had are there again; nothing is taken from the old buckets. `false`: it had
    /// this definition already.
    ///
    /// What it holds is read from the log, while recording goes on. Until that is complete the view
    /// answers by its old definition, and `views` tells how far it is ([`ViewStatus::successor`]).
    /// What was stopped, or died, is gone on with by the same call; one with another definition begins
    /// anew, one with the old definition gives it up. A [`Query`] that was made before goes on with the
    /// new definition; rows that are being read are those of the old one to the end.
    ///
    /// **Where the log no longer reaches back** to where the view begins, the grains alone can be changed:
    /// which there are, and how many buckets of each. The buckets that are kept are converted. Totals,
    /// first and last time stay; a grain that is kept on has the buckets that it had, however often their
    /// number is changed; another one is made of the finest ones that say what was then. What lies in one
    /// new bucket for certain goes there, as hours do in their day; else, as a day among hours, it goes as a
    /// whole to the middle of the time in which it can have been. What the new buckets do not say is not
    /// answered ([`ErrorKind::NotKept`], or a partial answer where [kept](crate::RangeQuery::kept) is
    /// asked for), key by key, and [`ViewStatus::exact_from`] has from when on they do for all. It takes
    /// the time to read and write every series of the view; no checkpoint is made meanwhile. When that
    /// dies or is stopped nothing is left of it.
    ///
    /// `progress` is called after every frame of the log, in records, control records included, or
    /// during a conversion, in series; `Break` stops, to be gone on with later, or begun anew. It must not
    /// wait, and so not make a checkpoint or close the engine.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, Grain, Keep, Timestamp, View};
    /// use std::ops::ControlFlow;
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("visits").grain(Grain::Day, Keep::Last(7)))?;
    /// for day in 1..=30 {
    ///     db.record(&Event::new("visit").at(Timestamp::from_secs(day * 86_400)))?;
    /// }
    /// assert_eq!(db.query("visits")?.buckets(&[], Grain::Day)?.len(), 7);
    ///
    /// let longer = View::new("visits").grain(Grain::Day, Keep::Last(28)).grain(Grain::Month, Keep::All);
    /// assert!(db.redefine(longer.clone(), |_| ControlFlow::Continue(()))?);
    /// assert_eq!(db.query("visits")?.buckets(&[], Grain::Day)?.len(), 28);
    /// assert!(!db.redefine(longer, |_| ControlFlow::Continue(()))?, "it is so already");
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `UnknownView`; `Invalid` for a definition that cannot be, or that a [policy](crate::Policy) could not
    /// ask; `LogRetired` when the log no longer
    /// reaches back to where the view begins, and more than its grains is to be changed (nothing is changed
    /// then); `Stopped` by `progress`; `Backfilling` when another call does the same, or the view's backfill
    /// is not complete and its buckets would have to be converted; `ViewConflict` when another call gave
    /// the view another definition meanwhile; `Corruption`, `Io`; those of recording.
    pub fn redefine(
        &self,
        view: View,
        progress: impl FnMut(Progress) -> std::ops::ControlFlow<()>,
    ) -> Result<bool> {
        redefine::run(self.engine(), &view.checked()?, progress)
    }

    /// Drops a view, and what was to take its place; its series are gone, the events stay in the log.
    ///
    /// # Errors
    /// `UnknownView`; `Invalid` where a [policy](crate::Policy) asks it; those of recording.
    pub fn drop_view(&self, name: &str) -> Result<()> {
        let engine = self.engine();
        let mut live = engine.close_gate()?;
        let id = live.named(name).map(|tier| tier.id);
        let id = id.ok_or_else(|| engine.unknown_view(name))?;
        if let Some(policy) = live.policies.asking(name) {
            return Err(Error::invalid(format!(
                "the policy {policy:?} asks the view {name:?}; remove or change the policy first"
            )));
        }
        let position = engine.append_control(&Control::ViewDropped { id })?;
        engine.by_name.remove(name);
        live.drop_view(id);
        drop(live);
        engine.acknowledge(position, engine.options.durability)
    }

    /// The views, in the order of their definition.
    ///
    /// # Errors
    /// `Closed`; those of reading the snapshot, which counting keys may need.
    pub fn views(&self) -> Result<Vec<ViewStatus>> {
        self.engine().views()
    }

    /// Folds the records from before the definition of a view into it, reading them from the log,
    /// while recording goes on. Goes on where an earlier call was stopped or died. Gives the number
    /// of events read. Until it is complete the view has no answers ([`ErrorKind::Backfilling`]).
    /// Records that a [repair](crate::repair()) gave up are not in it.
    ///
    /// `progress` is called after every frame of the log, in records, control records included; `Break`
    /// stops, to be gone on with later. It must not wait.
    ///
    /// # Errors
    /// `UnknownView`; `LogRetired` when the log no longer reaches back to the beginning; `Backfilling`
    /// when another call fills it already, or it is getting another definition ([`Db::redefine`]) and
    /// nobody has asked for its backfill before; `Corruption`, `Io`.
    pub fn backfill(
        &self,
        name: &str,
        progress: impl FnMut(Progress) -> std::ops::ControlFlow<()>,
    ) -> Result<u64> {
        let tier = self.engine().tier(name)?;
        backfill::run(self.engine(), &tier, progress).map(backfill::Ended::read)
    }

    /// A view, to be asked.
    ///
    /// # Errors
    /// `UnknownView`, naming those there are; `Backfilling` while its backfill is not complete.
    pub fn query(&self, view: &str) -> Result<Query> {
        self.engine().query(view)
    }

    /// Writes everything that changed since the last checkpoint into the snapshot store. Recording
    /// goes on meanwhile. Done in the background, too ([`Options::checkpoint_every`]), and by
    /// [`close`](Db::close).
    ///
    /// No record waits for it to be safe, which the log sees to ([`Durability`]); it makes the next
    /// opening short, and lets go of memory and of the log.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("shop");
    /// use quipu::{Db, Event, View};
    ///
    /// let db = Db::open(&dir)?;
    /// db.define(View::new("by_user").by(["user"]))?;
    /// db.record(&Event::new("visit").dim("user", "alice"))?;
    /// assert_eq!((db.is_dirty(), db.dirty_series()), (true, 1));
    /// db.checkpoint()?;
    /// assert_eq!((db.is_dirty(), db.dirty_series()), (false, 0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Corruption` of the snapshot store, `Poisoned`. What was to be written
    /// stays to be written: in memory, and in the log.
    #[doc(alias = "persist")]
    #[doc(alias = "flush")]
    pub fn checkpoint(&self) -> Result<()> {
        self.engine().check_open()?;
        self.engine().checkpoint()
    }

    /// What the engine knows of itself. Takes each shard's lock for a moment.
    pub fn statistics(&self) -> Statistics {
        statistics::collect(self.engine())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.engine().dir
    }

    /// The time zone of the directory ([`Options::time_zone`]), whose calendar the buckets of days,
    /// weeks, months and years follow.
    pub fn time_zone(&self) -> TimeZone {
        self.engine().zone()
    }

    /// Checkpoints, seals the log and gives the directory back. Later calls on any clone give
    /// [`ErrorKind::Closed`]; closing again does nothing.
    ///
    /// An engine whose last handle is dropped closes, too, and writes an error into the log output.
    ///
    /// # Errors
    /// What prevented the checkpoint, the last sync, or the end of the snapshot store. The directory is
    /// given back all the same, and the next opening recovers as after a crash.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }
}

/// From when on the buckets of each grain are exact, where they were converted.
fn exact_from(tier: &ViewTier) -> Vec<(Grain, Option<Timestamp>)> {
    let zone = tier.plan.shape.calendar.zone;
    let known = tier.converted().unwrap_or_default();
    let exact = |((grain, _), known): (&(Grain, _), &i64)| {
        (*grain, (*known != ALWAYS).then(|| zone.start(*grain, *known)))
    };
    tier.view.grains().iter().zip(known).map(exact).collect()
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("directory", &self.directory())
            .field("position", &self.engine().last_position())
            .finish_non_exhaustive()
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        let Some(threads) = self.background.lock().take() else { return Ok(()) };
        threads.stop(&self.engine);
        self.engine.close()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the engine failed; it recovers at the next opening");
        }
    }
}

impl Engine {
    /// The present, by the store's clock, inside of the times that are accepted.
    fn now(&self) -> Timestamp {
        self.options.clock.now().clamp(Timestamp::MIN, Timestamp::MAX)
    }

    fn zone(&self) -> TimeZone {
        self.gate.enter().zone.unwrap_or_default()
    }

    /// Where the store has its rows, for errors.
    fn store_place(&self) -> PathBuf {
        store::place(&self.storage, &self.dir)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// Enters the gate (invariant 1).
    fn enter(&self) -> Result<Entered<'_, Live>> {
        let live = self.gate.enter();
        // Inside: whoever waited while the engine was closed must not record behind its last cut.
        self.check_open()?;
        Ok(live)
    }

    /// Closes the gate and waits until nobody is inside.
    fn close_gate(&self) -> Result<staging::ClosedGate<'_>> {
        let live = self.shut();
        self.check_open()?;
        self.bring_in_at(&live)?;
        Ok(live)
    }

    fn tier(&self, name: &str) -> Result<Arc<ViewTier>> {
        self.check_open()?;
        let found = self.by_name.get(name).map(|entry| entry.value().clone());
        found.ok_or_else(|| self.unknown_view(name))
    }

    fn views(self: &Arc<Self>) -> Result<Vec<ViewStatus>> {
        let views = self.enter()?.clone();
        let status = |tier: &Arc<ViewTier>| {
            let successor = views.successor(tier.view.name()).map(|successor| Successor {
                view: successor.view.clone(),
                progress: successor.progress().unwrap_or(Progress {
                    done: successor.defined_at(),
                    total: successor.defined_at(),
                }),
            });
            Ok(ViewStatus {
                view: tier.view.clone(),
                keys: ViewSource::new(self.clone(), tier.clone()).key_count()?,
                backfill: tier.progress(),
                defined_at: Position(tier.defined_at()),
                successor,
                exact_from: exact_from(tier),
            })
        };
        views.answering().map(status).collect()
    }

    fn query(self: &Arc<Self>, view: &str) -> Result<Query> {
        Ok(Query::new(Arc::new(self.source(view)?)))
    }

    fn source(self: &Arc<Self>, view: &str) -> Result<ViewSource> {
        let tier = self.tier(view)?;
        if let Some(Progress { done, total }) = tier.progress() {
            return Err(Error::new(
                ErrorKind::Backfilling,
                format!(
                    "the view {view:?} is being filled from the log, {done} of {total} records; its \
                     answers come when that is complete (if nobody is doing it, call backfill \
                     again)"
                ),
            ));
        }
        Ok(ViewSource::new(self.clone(), tier))
    }

    fn unknown_view(&self, name: &str) -> Error {
        let mut names: Vec<String> =
            self.by_name.iter().map(|entry| format!("{:?}", entry.key())).collect();
        names.sort();
        let there = if names.is_empty() {
            "no view is defined yet".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        Error::new(ErrorKind::UnknownView, format!("no view is called {name:?}; {there}"))
    }

    fn record_single(&self, batch: &mut Builder, durability: Durability) -> Result<Recorded> {
        let outcome = self.record_chunks(batch, durability)?;
        Ok(Recorded {
            position: outcome.position,
            duplicate: outcome.duplicates > 0,
            late: outcome.late > 0,
        })
    }

    fn record_chunks(&self, batch: &mut Builder, durability: Durability) -> Result<BatchOutcome> {
        let mut outcome =
            BatchOutcome { position: Position(self.given_position()), ..Default::default() };
        if batch.is_empty() {
            self.check_open()?;
            self.acknowledge(outcome.position.get(), durability)?;
            return Ok(outcome);
        }
        // A batch may have been begun long ago; a single event was just now.
        let now = match batch.begun() {
            Some(begun) if batch.len() == 1 => begun.clamp(Timestamp::MIN, Timestamp::MAX),
            _ => self.now(),
        };
        WORKBENCH.with(|bench| {
            let bench = &mut *bench.borrow_mut();
            let chunks = batch.chunks(&self.dictionary);
            for columns in chunks.iter_mut().filter(|columns| !columns.is_empty()) {
                self.record_columns(columns, now, bench, &mut outcome)?;
                // Should a later chunk fail, a second try must not record this one again.
                columns.clear();
            }
            Ok(())
        })?;
        self.tallies.duplicates.add(outcome.duplicates);
        self.acknowledge(outcome.position.get(), durability)?;
        Ok(outcome)
    }

    /// The life of a chunk of events: into the log, then into every view.
    fn record_columns(
        &self,
        columns: &mut Columns,
        now: Timestamp,
        bench: &mut Workbench,
        outcome: &mut BatchOutcome,
    ) -> Result<()> {
        let window = self.window.as_ref().filter(|_| !columns.ids.is_empty());
        window.map_or(Ok(()), |window| self.load_window(window))?;
        let live = self.enter()?;
        let mut window = window.map(Mutex::lock);
        if let Some(window) = &mut window {
            window.sift(columns.len(), &columns.ids, now, &mut bench.keep);
            let fresh = bench.keep.iter().filter(|keep| **keep).count();
            if fresh < columns.len() {
                outcome.duplicates += (columns.len() - fresh) as u64;
                // The first of them may have been recorded just now, behind the position above.
                outcome.position = outcome.position.max(Position(self.given_position()));
                columns.retain(&bench.keep);
                if columns.is_empty() {
                    return Ok(());
                }
            }
        }
        bench.draft.events(columns, &self.log, now);
        // Before anybody can be late because of them.
        self.newest.raise(columns.newest());
        let appended = self.none_gathered(&live).and_then(|_none| {
            // Behind the events that were gathered before.
            self.log.append_events(&mut bench.draft, columns)
        });
        if let Some(window) = &mut window {
            match &appended {
                Ok(at) => window.place(columns.len(), &columns.ids, at.first, now.micros()),
                Err(_) => window.give_back(columns.len(), &columns.ids),
            }
        }
        drop(window);
        let appended = appended?;
        apply_all(&live.views, columns, &mut bench.scratch);
        let late = bench.scratch.late();
        // Before the gate is left, so that a cut counts whole records only.
        self.tallies.events.add(columns.len() as u64);
        self.tallies.late.add(late);
        drop(live);
        outcome.recorded += columns.len() as u64;
        outcome.late += late;
        outcome.position = Position(appended.last);
        self.note_appended(&appended);
        Ok(())
    }

    /// The log has grown: what that makes due.
    fn note_appended(&self, appended: &Appended) {
        self.tallies.log_bytes.add(appended.frame_bytes);
        if appended.wants_spare {
            self.signals.want_spare();
        }
        if self.tallies.log_bytes.get() > self.options.checkpoint_log_bytes {
            self.signals.want_checkpoint();
        }
    }

    /// Reads the stored part of the deduplication window, when it is first needed.
    fn load_window(&self, window: &Mutex<dedup::Window>) -> Result<()> {
        const PAGE: usize = 4_096;
        let mut window = window.lock();
        if window.loaded {
            return Ok(());
        }
        let snapshot = self.storage.snapshot()?;
        let mut rows = snapshot.range(Table::Ids, Start::At(&[]), None, PAGE)?;
        while let Some((last, _)) = rows.last().filter(|_| rows.len() % PAGE == 0) {
            let page = snapshot.range(Table::Ids, Start::Behind(last), None, PAGE)?;
            if page.is_empty() {
                break;
            }
            rows.extend(page);
        }
        window.restore(&rows).map_err(|malformed| {
            let message = format!("an id of the deduplication window is damaged: {malformed}");
            Error::corruption(&self.store_place(), 0, message)
        })
    }

    fn append_control(&self, control: &Control) -> Result<u64> {
        self.log.append_control(&codec::encode(control), self.now()).map(|appended| appended.last)
    }

    /// Gives `position` the durability that was asked for.
    fn acknowledge(&self, position: u64, durability: Durability) -> Result<()> {
        match durability {
            Durability::Memory => self.log.check_poison(),
            Durability::Interval(within) => {
                self.signals.want_sync(within);
                self.log.check_poison()
            }
            Durability::Sync => {
                self.signals.want_sync(std::time::Duration::from_millis(100));
                // Of a duplicate it may be the position of an event that is gathered.
                self.bring_in()?;
                self.log.sync_to(position)
            }
        }
    }

    /// Whether something was recorded since the last checkpoint.
    fn has_news(&self) -> bool {
        let state = self.checkpointer.lock();
        self.last_position() > state.catalog.position || state.failed
    }

    fn close(&self) -> Result<()> {
        let brought_in = {
            let live = self.shut();
            self.closed.store(true, Release);
            self.bring_in_at(&live)
        };
        // An opening that only asked leaves everything as it was.
        let checkpointed = if self.has_news() { self.checkpoint() } else { Ok(()) };
        let sealed = self.log.close(self.now());
        // Its records are durable in the log.
        let cleared =
            if brought_in.is_ok() && sealed.is_ok() { self.leave_stage() } else { Ok(()) };
        let closed = self.storage.close();
        drop(self.lock.lock().take());
        brought_in.and(checkpointed).and(sealed).and(cleared).and(closed)
    }
}
