//! Reading a directory beside the process that owns it: the last snapshot and the log behind it.
//!
//! Invariants
//! 1. Nothing in the directory is made, written or removed, and no lock is taken that its owner would
//!    find taken. For as long as the snapshot is copied the owner's next checkpoint waits; recording
//!    does not.
//! 2. Between two refreshes everything is as of one position: all records up to it, and no other; and what limits
//!    have let through that is not in the log yet, which may come there in another order.
//! 3. The snapshot is copied, and the segments that are needed are opened, under one hold of the
//!    store. Segments are retired only behind a commit, which waits for that hold; so every one that
//!    this snapshot needs is there.
//!
//! The log alone is enough to go on, as long as it is there. The snapshot is copied anew where the
//! owner has retired what comes next, where it has completed a backfill (what that brought is not behind
//! the snapshot; where there is no newer snapshot, because it died before, the view is filled from the log
//! as in a recovery), where a repair has written the segment anew that is read, and where what came since
//! needs more memory than the budget.
//!
//! It is an engine without background threads whose log is not written to; series are read and
//! loaded as in any other (`db/load.rs`).

use super::batch::Builder;
use super::catalog::Catalog;
use super::open::{self, Ground, Recovery, staged_event};
use super::{Engine, Statistics, ViewStatus, statistics, store};
use crate::dictionary::Dictionary;
use crate::disk::{Disk, Filling, OsDisk};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::log::follow::Follower;
use crate::log::reader::Entry;
use crate::log::stage::{AREAS, Record, Staged};
use crate::log::writer::Writer;
use crate::log::{Home, Position};
use crate::manifest::Manifest;
use crate::options::Options;
use crate::policy::Policy;
use crate::query::Query;
use crate::record::{self, Columns, Control};
use crate::snapshot::{RedbStorage, Storage as _, Store, StoreHold};
use crate::sync::{Mutex, MutexGuard, RwLock};
use crate::time::TimeZone;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// A directory opened for reading only, also while another process owns and changes it. Clones are
/// handles of the same opening.
///
/// It shows the state of one position: all that was recorded up to it. [`refresh`](Self::refresh) goes
/// on to what was recorded since. Nothing in the directory is changed, and its owner is not disturbed;
/// a checkpoint of the owner waits while this copies the snapshot.
///
/// ```
/// # let root = tempfile::tempdir().unwrap();
/// # let dir = root.path().join("shop");
/// use quipu::{Db, Event, ReadOnlyDb, View};
///
/// let owner = Db::open(&dir)?; // most often in another process
/// owner.define(View::new("by_user").by(["user"]))?;
/// owner.record(&Event::new("visit").dim("user", "alice"))?;
///
/// let reader = ReadOnlyDb::open(&dir)?;
/// assert_eq!(reader.query("by_user")?.totals()?.count, 1);
/// owner.record(&Event::new("visit").dim("user", "bob"))?;
/// assert_eq!(reader.query("by_user")?.totals()?.count, 1); // as of its position
/// assert_eq!(reader.refresh()?, owner.position());
/// assert_eq!(reader.query("by_user")?.totals()?.count, 2);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
pub struct ReadOnlyDb(Arc<Shared>);

struct Shared {
    disk: Arc<dyn Disk>,
    options: Options,
    /// Another one after the snapshot was copied anew.
    engine: RwLock<Arc<Engine>>,
    following: Mutex<Following>,
}

/// So often the stage is read anew where events go from there into the log meanwhile.
const LOOKS_MAX: usize = 8;

/// How far the log was read, and what is to be remembered to read on.
pub(super) struct Following {
    follower: Follower,
    /// Its views are those of the engine.
    pub(super) recovery: Recovery,
    pub(super) catalog: Catalog,
    /// Of the snapshot that was copied.
    stamp: Option<u64>,
    /// What is shown of the stage, and the log will bring once more.
    shown: Shown,
    /// Nobody has been shown anything yet.
    opening: bool,
    /// What is shown is not what the next record builds on, which was not applied: a view has another definition, or
    /// what was staged has not come into the log.
    outdated: bool,
}

/// The events of a stage that are shown, of those behind a position.
#[derive(Default)]
struct Shown {
    behind: u64,
    /// The bytes of each, by area.
    each: [Vec<Box<[u8]>>; AREAS],
    /// A stage of those of the first area, which have their positions.
    image: Vec<u8>,
}

impl Shown {
    fn events(&self) -> u64 {
        self.each.iter().map(Vec::len).sum::<usize>() as u64
    }

    /// Whether they are the first ones of their areas.
    fn is_in(&self, areas: &[Vec<Record<'_>>; AREAS]) -> bool {
        self.each.iter().zip(areas).all(|(shown, records)| {
            shown.len() <= records.len()
                && shown.iter().zip(records).all(|(shown, record)| **shown == *record.event)
        })
    }

    /// Which of the events that the log has behind the same position are none of them, each of which is there once;
    /// nothing where one of them is not among those.
    fn others(&self, columns: &Columns, dictionary: &Dictionary) -> Option<Vec<bool>> {
        let mut shown = HashMap::<Vec<u8>, usize>::new();
        for event in self.each.iter().flatten() {
            *shown.entry(bytes_of(record::take_event(event).ok()?)).or_default() += 1;
        }
        let mut is_other = |row: usize| -> Option<bool> {
            let event = columns.event(row, &|sym| dictionary.text(sym)).ok()?;
            let Some(left) = shown.get_mut(&bytes_of(event)) else { return Some(true) };
            let is_other = *left == 0;
            *left = left.saturating_sub(1);
            Some(is_other)
        };
        let others = (0..columns.len()).map(&mut is_other).collect::<Option<Vec<_>>>()?;
        shown.values().all(|left| *left == 0).then_some(others)
    }
}

/// The bytes of an event, whatever the order of its dimensions and measures.
fn bytes_of(mut event: Event<'_>) -> Vec<u8> {
    let (dims, measures) = (std::mem::take(&mut event.dims), std::mem::take(&mut event.measures));
    let (mut dims, mut measures) = (dims.to_vec(), measures.to_vec());
    dims.sort_unstable();
    measures.sort_unstable_by_key(|(name, _)| *name);
    let event = dims.into_iter().fold(event, |event, (name, value)| event.dim(name, value));
    let event = measures.into_iter().fold(event, |event, (name, value)| event.measure(name, value));
    let mut bytes = Vec::new();
    record::put_event(&mut bytes, &event, event.time.unwrap_or_default());
    bytes
}

impl Options {
    /// Opens `dir` for reading only, also while another process owns it: see [`ReadOnlyDb`].
    ///
    /// Only [`memory_budget`](Options::memory_budget), [`expected_keys`](Options::expected_keys) and the
    /// [`clock`](Options::clock), by which it is asked, matter here.
    ///
    /// # Errors
    /// `NotFound` where there is no directory or nothing in it yet; `NotQuipu`, `NewerFormat`,
    /// `MissingSegment`, `Corruption`, `Io`, `NoSpace` (the snapshot is copied to the system's
    /// directory for temporary files); `StorageConflict` where the snapshot is in a
    /// [store](Options::storage) that its owner brings along.
    pub fn open_read_only(self, dir: impl AsRef<Path>) -> Result<ReadOnlyDb> {
        ReadOnlyDb::open_on(Arc::new(OsDisk), dir.as_ref(), self)
    }
}

impl ReadOnlyDb {
    /// Opens `dir` for reading only, with default options.
    ///
    /// Takes the time to copy the snapshot and to apply the log behind it, and for as long as it is
    /// open as much space as the snapshot has among the system's temporary files (`TMPDIR`).
    ///
    /// # Errors
    /// See [`Options::open_read_only`].
    pub fn open(dir: impl AsRef<Path>) -> Result<ReadOnlyDb> {
        Options::new().open_read_only(dir)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<ReadOnlyDb> {
        let options = options.must_exist();
        let (engine, following) = begin(&disk, dir, &options)?;
        let (engine, following) = (RwLock::new(Arc::new(engine)), Mutex::new(following));
        Ok(ReadOnlyDb(Arc::new(Shared { disk, options, engine, following })))
    }

    /// Brings in what was recorded since the opening or the last refresh; gives the position that is
    /// shown from now on. Costs what there is new, most often; where the snapshot has to be copied
    /// anew, as much as an opening.
    ///
    /// A [`Query`] made before may stay where it was; ask for another one. One that is asked while this
    /// runs can see a part of what is brought in.
    ///
    /// # Errors
    /// As [`Options::open_read_only`]. What was there before can still be asked for, and a later
    /// refresh tries again.
    pub fn refresh(&self) -> Result<Position> {
        let mut following = self.0.following.lock();
        let engine = self.engine();
        let caught_up = catch_up(&engine, &mut following);
        if std::mem::take(&mut following.outdated) {
            // What the successor holds may not be behind our snapshot; until all of it is in, the view
            // answers as it did.
            self.begin_anew(&mut following)?;
            return Ok(self.position());
        }
        let behind = match &caught_up {
            // Retired, or lost: the snapshot that says so is newer than ours, or it was not retired.
            Err(error) if error.kind() == ErrorKind::MissingSegment => true,
            Err(_) => false,
            Ok(()) => {
                engine.evict(&following.recovery.live.views);
                following.recovery.owes() || engine.over_budget(&following.recovery.live.views)
            }
        };
        // Before an error is believed: it may be that file's, which nobody writes to any more.
        let is_replaced = following.follower.is_replaced()?;
        let is_newer = |following: &Following| {
            let stamp = stamp(&self.0.disk, engine.dir.as_path())?;
            Ok::<bool, Error>(stamp != following.stamp)
        };
        if is_replaced || behind && is_newer(&following)? {
            self.begin_anew(&mut following)?;
            return Ok(self.position());
        }
        caught_up?;
        match settle(&engine, &mut following) {
            // Retired since: the next snapshot has what it says.
            Err(error) if error.kind() == ErrorKind::MissingSegment && is_newer(&following)? => {
                self.begin_anew(&mut following)?;
            }
            settled => settled?,
        }
        Ok(self.position())
    }

    /// Copies the snapshot as it is now and goes on behind it.
    pub(super) fn begin_anew(&self, following: &mut Following) -> Result<()> {
        let dir = self.engine().dir.clone();
        let (engine, anew) = begin(&self.0.disk, &dir, &self.0.options)?;
        *following = anew;
        *self.0.engine.write() = Arc::new(engine);
        Ok(())
    }

    pub(super) fn engine(&self) -> Arc<Engine> {
        self.0.engine.read().clone()
    }

    pub(super) fn following(&self) -> MutexGuard<'_, Following> {
        self.0.following.lock()
    }

    /// The position whose state is shown.
    pub fn position(&self) -> Position {
        Position(self.engine().last_position())
    }

    /// A view, to be asked.
    ///
    /// # Errors
    /// `UnknownView`, naming those there are; `Backfilling` while its backfill is not complete.
    pub fn query(&self, view: &str) -> Result<Query> {
        let engine = self.engine();
        let views = engine.enter()?.views.clone();
        engine.evict(&views);
        engine.query(view)
    }

    /// The views, in the order of their definition.
    ///
    /// # Errors
    /// Those of reading the snapshot, which counting keys may need.
    pub fn views(&self) -> Result<Vec<ViewStatus>> {
        self.engine().views()
    }

    /// The policies that are set, by name. What came of them its owner knows.
    ///
    /// # Errors
    /// `Closed` when the engine is closed.
    pub fn policies(&self) -> Result<Vec<Policy>> {
        Ok(self.engine().enter()?.policies.all())
    }

    /// What is known of the directory and of this opening. What only its owner knows (series not yet
    /// checkpointed, refused events, failures) is not in it.
    pub fn statistics(&self) -> Statistics {
        statistics::collect(&self.engine())
    }

    /// The time zone of the directory ([`Options::time_zone`]).
    pub fn time_zone(&self) -> TimeZone {
        self.engine().zone()
    }

    /// The directory.
    pub fn directory(&self) -> std::path::PathBuf {
        self.engine().dir.clone()
    }
}

impl std::fmt::Debug for ReadOnlyDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOnlyDb")
            .field("directory", &self.directory())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl Following {
    /// The segment in which the next frame goes and its place there; 0 in one that is not there yet.
    pub(super) fn end(&self) -> (u64, u64) {
        self.follower.end()
    }

    /// The stage, if there is anything in it that is shown and that the log has not.
    pub(super) fn stage_behind_the_log(&self) -> &[u8] {
        if self.in_order() > 0 { &self.shown.image } else { &[] }
    }

    /// So many events there are in it.
    fn in_order(&self) -> u64 {
        let is_behind = self.shown.behind == self.follower.position();
        if is_behind { self.shown.each[0].len() as u64 } else { 0 }
    }

    /// The last position that was given to an event that is shown.
    pub(super) fn last_position(&self) -> u64 {
        self.follower.position() + self.in_order()
    }
}

/// Copies the snapshot, opens the log behind it (invariant 3), and applies that.
fn begin(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<(Engine, Following)> {
    open::look(disk, dir, options)?;
    let path = dir.join(open::STORE);
    loop {
        let manifest = Manifest::open(disk.clone(), dir)?.ok_or_else(|| nothing_yet(dir))?;
        store::only_redb(manifest.store(), dir, "a reader beside it copies redb's file")?;
        let identity = manifest.identity;
        let log = dir.join(open::LOG);
        let home = Home { disk: disk.clone(), dir: log, identity, filling: Filling::Reserved };
        let (storage, hold) = RedbStorage::open_copy(disk, &path)?;
        let catalog = Catalog::read(&*storage.snapshot()?, &path, identity)?;
        let dictionary = Arc::new(Dictionary::new(options.expected_keys));
        let resume = catalog.resume(manifest.segments_made());
        let follower = match Follower::open(&home, resume, &dictionary) {
            // Its first checkpoint came in between.
            Err(error)
                if error.kind() == ErrorKind::MissingSegment
                    && hold.is_none()
                    && disk.exists(&path).unwrap_or(false) =>
            {
                continue;
            }
            follower => follower?,
        };
        let stamp = hold.as_ref().map(StoreHold::stamp).transpose();
        let stamp = stamp.map_err(|e| Error::io("read the snapshot", &path, e))?;
        drop(hold);
        let recovery = Recovery::new(&catalog, identity, options, dictionary.clone());
        let recovery = recovery.sharing_views();
        let log = Writer::start(
            home.clone(),
            Arc::new(manifest),
            dictionary.clone(),
            options.segment_bytes,
            resume.segment,
            catalog.position + 1,
        );
        let ground = Ground {
            dir: dir.to_owned(),
            disk: disk.clone(),
            home,
            options: options.clone(),
            dictionary,
            log,
            storage: Store::Redb(storage),
            lock: None,
        };
        let engine = recovery.sharing_views().engine(ground, catalog.clone());
        let mut following = Following {
            follower,
            recovery,
            catalog,
            stamp,
            shown: Shown::default(),
            opening: true,
            outdated: false,
        };
        let caught_up = catch_up(&engine, &mut following);
        if following.recovery.lacks_converted() && self::stamp(disk, dir)? != following.stamp {
            // Another definition came into the snapshot when this one was copied already.
            continue;
        }
        let caught_up = caught_up.and_then(|()| settle(&engine, &mut following));
        following.opening = false;
        let is_late = matches!(&caught_up, Err(e) if e.kind() == ErrorKind::MissingSegment);
        if is_late && following.recovery.owes() && self::stamp(disk, dir)? != following.stamp {
            // What a view is to be filled with was retired: a newer snapshot has it.
            continue;
        }
        let given_up = following.follower.given_up();
        open::check_says_all(&path, &following.catalog, given_up, "missing")?;
        return match caught_up {
            // All were there when they were opened; what came later was retired since, and what is
            // applied is whole without it.
            Err(error) if error.kind() != ErrorKind::MissingSegment => Err(error),
            Err(_) | Ok(()) => Ok((engine, following)),
        };
    }
}

/// Applies what the log and the stage have that was not applied yet.
fn catch_up(engine: &Engine, following: &mut Following) -> Result<()> {
    catch_up_log(engine, following)?;
    for _ in 0..LOOKS_MAX {
        let position = following.follower.position();
        let staged = Staged::read(&*engine.disk, &engine.dir, engine.home.identity)?;
        // What was staged when the stage was read may have gone into the log before, and other events have come.
        catch_up_log(engine, following)?;
        if following.follower.position() == position {
            return apply_staged(engine, following, &staged);
        }
        // What had been acknowledged before the first look is in the log by now.
    }
    Ok(())
}

/// Applies the events that are staged behind the log and not shown yet.
fn apply_staged(engine: &Engine, following: &mut Following, staged: &Staged) -> Result<()> {
    let Following { follower, recovery, shown, outdated, .. } = following;
    let position = follower.position();
    let areas = staged.areas_behind(position);
    if shown.behind != position {
        *shown = Shown { behind: position, ..Shown::default() };
    } else if !shown.is_in(&areas) {
        if !areas.iter().all(Vec::is_empty) {
            // Somebody put another stage there.
            *outdated = true;
            return Err(Error::new(ErrorKind::Stopped, "what was staged is not any more"));
        }
        // It is gone with its owner, who has brought it in, or lost it.
        return catch_up_log(engine, following);
    }
    let mut builder = Builder::new(&engine.dictionary);
    let mut fresh = Vec::new();
    for (area, records) in areas.iter().enumerate() {
        for record in &records[shown.each[area].len()..] {
            builder.add(&engine.dictionary, &staged_event(record, &engine.dir)?);
            fresh.push((area, record));
        }
    }
    let (events, now) = (builder.len() as u64, engine.now().micros());
    if events > 0 {
        let next = position + shown.events() + 1;
        for columns in builder.chunks(&engine.dictionary) {
            recovery.apply(Entry::Events(columns), next, now)?;
        }
        for (area, record) in fresh {
            shown.each[area].push(record.event.into());
        }
        // What is in lanes may come into the log at other positions, by which others know it.
        shown.image = staged.image(&areas[0]);
        engine.staging.follow(position + shown.events());
        engine.tallies.events.set(recovery.events.get());
        engine.tallies.late.set(recovery.late.get());
        engine.tallies.replayed.add(events);
    }
    Ok(())
}

/// Applies what the log has that was not applied yet.
fn catch_up_log(engine: &Engine, following: &mut Following) -> Result<()> {
    let Following { follower, recovery, shown, opening, outdated, .. } = following;
    let before = follower.position();
    let mut redefined = false;
    let caught_up = follower.catch_up(&mut |mut entry, header| {
        // What is shown of the stage comes first, and with it others maybe.
        if shown.events() > 0 && header.position > shown.behind {
            let others = match &entry {
                Entry::Events(columns) if header.position == shown.behind + 1 => {
                    shown.others(columns, &engine.dictionary)
                }
                _ => None,
            };
            let (Some(others), Entry::Events(columns)) = (others, &mut entry) else {
                *outdated = true;
                return Err(Error::new(ErrorKind::Stopped, "the log has not what was staged"));
            };
            *shown = Shown::default();
            columns.retain(&others);
            if columns.is_empty() {
                return Ok(());
            }
        }
        match &entry {
            Entry::Control(Control::DedupRule(_)) => return Ok(()),
            Entry::Control(Control::SuccessorDone { .. }) if !*opening => {
                *outdated = true;
                return Err(Error::new(ErrorKind::Stopped, "a view has another definition"));
            }
            Entry::Control(_) => redefined = true,
            Entry::Events(_) => {}
        }
        recovery.apply(entry, header.position, header.written_at)
    });
    if redefined {
        let mut live = engine.close_gate()?;
        let mut names = HashSet::new();
        for tier in recovery.live.answering() {
            names.insert(tier.view.name());
            engine.by_name.insert(tier.view.name().into(), tier.clone());
        }
        engine.by_name.retain(|name, _| names.contains(&**name));
        *live = recovery.live.clone();
    }
    engine.tallies.events.set(recovery.events.get());
    engine.tallies.late.set(recovery.late.get());
    engine.tallies.replayed.add(follower.position() - before);
    engine.log.follow(follower.position(), follower.durable());
    caught_up
}

/// Fills the views of which the log says that they are filled, and the snapshot does not have it: its
/// owner may have died between the two.
fn settle(engine: &Engine, following: &mut Following) -> Result<()> {
    let Following { follower, recovery, catalog, .. } = following;
    let oldest = catalog.first_segment.max(1);
    recovery.settle(&engine.home, oldest, follower.end(), &engine.dictionary)
}

/// The stamp of the snapshot as it is now.
fn stamp(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<u64>> {
    let store = dir.join(open::STORE);
    let Some(hold) = StoreHold::take(disk, &store)? else { return Ok(None) };
    hold.stamp().map(Some).map_err(|e| Error::io("read the snapshot", &store, e))
}

fn nothing_yet(dir: &Path) -> Error {
    Error::new(ErrorKind::NotFound, "the directory holds no data yet").at(dir, None)
}
