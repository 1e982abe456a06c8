//! Opening: checks first, then the lock, then the snapshot, then the log behind it.
//!
//! Invariants
//! 1. A directory that is refused is left exactly as it was, whatever the reason: nothing is made in it
//!    before its names and its manifest were looked at, and nothing of its log and snapshot is changed
//!    before all of it was read that is to be read. (Where the disk fails while that is brought in
//!    order, a later opening goes on with it.)
//! 2. Things are made in this order: `LOCK`, `log/`, `MANIFEST`; with the first record a segment,
//!    with the first checkpoint `state.redb`. A store that the program brings along may have files here,
//!    and makes them behind `MANIFEST`. So a directory without a manifest holds nothing of
//!    worth and may be begun again, if it holds nothing else.
//! 3. Recovery is: newest snapshot, then every record behind it through the same `apply` as live.
//! 4. The next position is behind both the log's end and the snapshot's position.
//! 5. A damaged snapshot is put aside, never overwritten, and only when the log, which goes back to
//!    its beginning, was found in order and replayed.

use super::batch::Builder;
use super::catalog::{Catalog, StoredView, known_zone};
use super::checkpoint::{Checkpointer, Figures};
use super::dedup::Window;
use super::limit::Policies;
use super::staging::Staging;
use super::{Engine, Live, Tallies, background, store};
use crate::codec;
use crate::dictionary::Dictionary;
use crate::disk::{Disk, Filling, Lock, Sharing};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::exchange::Replicas;
use crate::log::Home;
use crate::log::reader::{self, Entry};
use crate::log::segment;
use crate::log::stage::{self, Flipped, Record, Staged};
use crate::log::writer::{Draft, Writer};
use crate::manifest::{self, Manifest, StoreName, backup};
use crate::options::{Dedup, Durability, Options};
use crate::record::{self, Control};
use crate::snapshot::Store;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{Gate, Mutex};
use crate::tier::apply::{Scratch, apply_all};
use crate::tier::{Backfill, Newest, Tally, ViewTier};
use crate::time::{TimeZone, Timestamp};
use crate::view::View;
use dashmap::DashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const LOCK: &str = "LOCK";
pub(super) const LOG: &str = "log";
pub(super) const STORE: &str = "state.redb";
/// A snapshot that a repair is writing.
pub(super) const REPAIRED: &str = "state.repaired";
/// There as long as a restore into the directory is not complete.
pub(super) const RESTORING: &str = "RESTORING";
/// Where damaged files are put aside, in a directory of its own each time.
pub(super) const QUARANTINE: &str = "quarantine";

/// What the sync of something in `quarantine/` says that is no directory of ours.
const NOT_A_PLACE: [std::io::ErrorKind; 3] = [
    std::io::ErrorKind::NotADirectory,
    std::io::ErrorKind::PermissionDenied,
    std::io::ErrorKind::NotFound,
];

pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Engine> {
    store::asked(&options)?;
    if !look(&disk, dir, &options)? {
        disk.create_dir(dir).map_err(|e| Error::io("make the directory", dir, e))?;
    }
    open_without_look(disk, dir, options)
}

/// Opens a directory that is there and ours.
fn open_without_look(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Engine> {
    let path = dir.join(LOCK);
    let there = disk.exists(&path).map_err(|e| Error::io("look at the directory", dir, e))?;
    let lock = lock(&*disk, dir, Sharing::Nobody)?;
    let place = disk.clone();
    let opened = open_locked(disk, dir, options, lock.clone());
    if opened.is_err() && !there {
        // Invariant 1. Should it fail: an empty file is left.
        let _ = place.remove(&path);
    }
    opened
}

/// Opens a directory whose lock is held, be it that only its restorer may.
pub(super) fn open_locked(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: Options,
    lock: Lock,
) -> Result<Engine> {
    let now = options.clock.now();
    // Another process may have made it between the look and the lock.
    let manifest = match Manifest::open(disk.clone(), dir)? {
        Some(manifest) => {
            settle_names(&*disk, dir)?;
            manifest
        }
        None => create(&disk, dir, store::asked(&options)?, now)?,
    };
    let manifest = Arc::new(manifest);
    let identity = manifest.identity;
    let filling = match options.durability {
        Durability::Sync => Filling::Written,
        Durability::Interval(_) | Durability::Memory => Filling::Reserved,
    };
    let home = Home { disk: disk.clone(), dir: dir.join(LOG), identity, filling };
    let mut store = store::open(&disk, dir, &home, &manifest, &options)?;
    let catalog = std::mem::take(&mut store.catalog);

    let dictionary = Arc::new(Dictionary::new(options.expected_keys));
    let mut recovery = Recovery::new(&catalog, identity, &options, dictionary.clone());
    let resume = catalog.resume(manifest.segments_made());
    let recovered = reader::recover(&home, resume, &dictionary, &mut |entry, header| {
        recovery.apply(entry, header.position, header.written_at)
    })?;
    let zone = recovery.zone_to_take(dir, options.time_zone)?;
    recovery.settle(&home, resume.oldest, recovered.end(), &dictionary)?;
    check_says_all(&store.place(dir), &catalog, recovered.given_up, store.lost())?;
    let last = recovered.last.max(catalog.position);
    let mut staged = read_stage(&*disk, dir, identity, last, &dictionary)?;
    // Nothing is refused any more (invariant 1).
    recovered.settle(&home, now)?;
    store.settle(&*disk, dir, &manifest, now)?;
    if recovered.cut_bytes > 0 {
        tracing::info!(
            dir = %dir.display(),
            bytes = recovered.cut_bytes,
            "the unsynced tail of the log was cut"
        );
    }
    let log = Writer::start(
        home.clone(),
        manifest.clone(),
        dictionary.clone(),
        options.segment_bytes,
        recovered.last_segment,
        last + 1,
    );
    let from_stage = staged.len() as u64;
    bring_in(&mut staged, &log, &dictionary, now, &mut |entry, position| {
        recovery.apply(entry, position, now.micros())
    })?;
    stage::remove(&*disk, dir)?;
    let (id, before) = (manifest.replica(), recovery.replicas.last());
    if !recovery.replicas.is_own(id) {
        log.preface(codec::encode(&Control::Replica { id, before }));
        recovery.becomes = Some(id);
    }
    if let Some(rule) = options.dedup.filter(|rule| *rule != recovery.rule) {
        // In the log, so that a later opening knows it whatever becomes of this one.
        let control = Control::DedupRule(rule);
        let appended = log.append_control(&codec::encode(&control), now)?;
        log.sync_to(appended.last)?;
        recovery.set_rule(rule);
    }
    if let Some(zone) = zone {
        // Before any view that has its calendar, and durable before anything is counted by it.
        let control = Control::TimeZone { name: zone.name().to_owned() };
        let appended = log.append_control(&codec::encode(&control), now)?;
        log.sync_to(appended.last)?;
        recovery.live.zone = Some(zone);
    }
    let ground = Ground {
        dir: dir.to_owned(),
        disk,
        home,
        options,
        dictionary,
        log,
        storage: store.storage,
        lock: Some(lock),
    };
    let engine = recovery.engine(ground, catalog);
    engine.tallies.replayed.set(recovered.replayed + from_stage);
    engine.tallies.rebuilt.set(u64::from(store.damaged.is_some()));
    Ok(engine)
}

/// Reads what is only in the stage of the opening before, behind the log's position `last`.
fn read_stage(
    disk: &dyn Disk,
    dir: &Path,
    identity: u128,
    last: u64,
    dictionary: &Dictionary,
) -> Result<Builder> {
    let staged = Staged::read(disk, dir, identity)?;
    if let Some(Flipped { byte, bit, .. }) = staged.flipped() {
        tracing::warn!(dir = %dir.display(), byte, bit, "a flipped bit of the stage was turned back");
    }
    let mut builder = Builder::new(dictionary);
    for event in staged_events(&staged, last, dir) {
        builder.add(dictionary, &event?);
    }
    Ok(builder)
}

/// The events that are staged behind a position. One that is malformed has a right checksum, so nothing but
/// a hostile hand or a later version wrote it.
pub(super) fn staged_events<'a>(
    staged: &'a Staged,
    position: u64,
    dir: &'a Path,
) -> impl Iterator<Item = Result<Event<'a>>> {
    staged.behind(position).into_iter().map(move |record| staged_event(&record, dir))
}

/// A staged event.
pub(super) fn staged_event<'a>(
    &Record { offset, position, event, .. }: &Record<'a>,
    dir: &Path,
) -> Result<Event<'a>> {
    record::take_event(event).map_err(|malformed| {
        let message = format!(
            "the staged event of position {position}: {malformed}; `quipu repair` gives up this one and those \
             behind it"
        );
        Error::corruption(&dir.join(stage::NAME), offset as u64, message)
    })
}

/// Brings staged events into the log, durable when it returns, and applies them.
fn bring_in(
    staged: &mut Builder,
    log: &Writer,
    dictionary: &Dictionary,
    now: Timestamp,
    apply: &mut dyn FnMut(Entry<'_>, u64) -> Result<()>,
) -> Result<()> {
    if staged.is_empty() {
        return Ok(());
    }
    let mut draft = Draft::default();
    for columns in staged.chunks(dictionary) {
        draft.events(columns, log, now);
        let appended = log.append_events(&mut draft, columns)?;
        apply(Entry::Events(columns), appended.first)?;
    }
    log.sync().map(|_| ())
}

/// What an engine stands on.
pub(super) struct Ground {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) home: Home,
    pub(super) options: Options,
    pub(super) dictionary: Arc<Dictionary>,
    pub(super) log: Writer,
    pub(super) storage: Store,
    /// None in an engine that only reads.
    pub(super) lock: Option<Lock>,
}

/// Takes the lock of the directory, or says that somebody has it.
pub(super) fn lock(disk: &dyn Disk, dir: &Path, sharing: Sharing) -> Result<Lock> {
    let path = dir.join(LOCK);
    let lock = disk.lock(&path, sharing).map_err(|e| Error::io("take the lock", &path, e))?;
    lock.ok_or_else(|| {
        Error::new(
            ErrorKind::Locked,
            "another process, or another Db of this one, has the directory open; close that first",
        )
        .at(dir, None)
    })
}

/// Whether the log, which was read, says all that was in the snapshot, if that is not there.
pub(super) fn check_says_all(
    place: &Path,
    catalog: &Catalog,
    given_up: Option<(u64, u64)>,
    why: &str,
) -> Result<()> {
    let Some((from, to)) = given_up.filter(|_| !catalog.is_stored()) else { return Ok(()) };
    let message = format!(
        "the snapshot is lost ({why}), and the log cannot say all that was in it: a repair gave up \
         the positions from {from} to {to}; put it back, or let `quipu repair` begin a new one"
    );
    Err(Error::new(ErrorKind::Corruption, message).at(place, None))
}

/// Moves a file of the directory into a place in `quarantine/`, durable when it returns.
pub(super) fn put_aside(disk: &dyn Disk, dir: &Path, file: &str, place: &Path) -> Result<()> {
    let from = dir.join(file);
    let fail = |e| Error::io("put a damaged file aside", &from, e);
    disk.rename(&from, &place.join(file)).map_err(fail)?;
    // The new name first: in between there may be two, but never none.
    disk.sync_dir(place).and_then(|()| disk.sync_dir(dir)).map_err(fail)
}

/// Makes a new directory in `quarantine/`, named after the time.
pub(super) fn quarantine(disk: &dyn Disk, dir: &Path, now: Timestamp) -> Result<PathBuf> {
    let time = now.to_string().replace(':', "-");
    let mut place = dir.join(QUARANTINE).join(&time);
    let fail = |e| Error::io("make a directory for damaged files", dir, e);
    for n in 2_u32.. {
        if !disk.exists(&place).map_err(fail)? {
            break;
        }
        place = dir.join(QUARANTINE).join(format!("{time}-{n}"));
    }
    disk.create_dir(&place).map_err(fail)?;
    Ok(place)
}

/// Makes the names in the directory durable. After a kill those of manifest, snapshot and damaged files
/// may be in the page cache only, and what is built on them must not be there without them. Those of
/// damaged files first: where such a one has lost its old name it must have its new one.
pub(super) fn settle_names(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let fail = |e| Error::io("sync the directory", dir, e);
    let quarantine = dir.join(QUARANTINE);
    let places = if disk.exists(&quarantine).map_err(fail)? {
        disk.list(&quarantine).unwrap_or_default()
    } else {
        Vec::new()
    };
    for place in places {
        match disk.sync_dir(&quarantine.join(place)) {
            // Something else that somebody has put there, or has taken away meanwhile.
            Err(e) if NOT_A_PLACE.contains(&e.kind()) => {}
            synced => synced.map_err(fail)?,
        }
    }
    disk.sync_dir(dir).map_err(fail)
}

/// A backup, and what a restore that was interrupted has left, are no data directories, whatever in
/// them looks like one.
pub(super) fn refuse_other_kinds(dir: &Path, names: &[String]) -> Result<()> {
    let is_there = |name: &str| names.iter().any(|other| other == name);
    let message = if is_there(RESTORING) {
        "a restore into this directory was interrupted; restore into it again, or delete it"
    } else if is_there(backup::NAME) && !is_there(manifest::NAME) {
        "this is a backup; restore it to another directory and use that"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::NotQuipu, message).at(dir, None))
}

/// Looks at the directory without changing anything: whether it is there and one of ours.
pub(super) fn look(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<bool> {
    let fail = |e| Error::io("look at the directory", dir, e);
    if !disk.exists(dir).map_err(fail)? {
        if options.must_exist {
            return Err(Error::new(
                ErrorKind::NotFound,
                "there is no such directory; it is made by opening it for recording",
            )
            .at(dir, None));
        }
        return Ok(false);
    }
    let names = disk.list(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotADirectory => {
            Error::new(ErrorKind::NotQuipu, "this is a file; a directory is needed").at(dir, None)
        }
        _ => fail(e),
    })?;
    refuse_other_kinds(dir, &names)?;
    let lost = |error: Error| {
        let rest =
            [STORE, LOG, stage::NAME].iter().any(|name| names.iter().any(|other| other == name));
        if error.kind() == ErrorKind::NotQuipu && rest {
            let message = "the manifest is damaged or lost, and the rest of a directory of Quipu's \
                           is there; put the manifest back from a backup";
            return Error::corruption(&dir.join(manifest::NAME), 0, message);
        }
        error
    };
    if Manifest::open(disk.clone(), dir).map_err(lost)?.is_some() {
        return Ok(true);
    }
    if names.iter().any(|name| name == STORE || name == stage::NAME) {
        return Err(lost(Error::new(ErrorKind::NotQuipu, "")));
    }
    let ours = [LOCK, LOG, QUARANTINE, manifest::UNFINISHED];
    if let Some(other) = names.iter().find(|name| !ours.contains(&name.as_str())) {
        return Err(Error::new(
            ErrorKind::NotQuipu,
            format!(
                "the directory holds {other:?} and no {}, so it is not one of Quipu's; use \
                 another, or an empty one",
                manifest::NAME
            ),
        )
        .at(dir, None));
    }
    let log = dir.join(LOG);
    let in_log = if names.iter().any(|name| name == LOG) {
        disk.list(&log).map_err(|e| Error::io("look at the directory", &log, e))?
    } else {
        Vec::new()
    };
    if !segment::numbers(&**disk, &log)?.is_empty() {
        return Err(lost(Error::new(ErrorKind::NotQuipu, "")));
    }
    if let Some(other) = in_log.first() {
        return Err(Error::new(
            ErrorKind::NotQuipu,
            format!(
                "the directory holds {LOG}/{other} and no {}, so it is not one of Quipu's; use \
                 another, or an empty one",
                manifest::NAME
            ),
        )
        .at(dir, None));
    }
    if options.must_exist {
        return Err(
            Error::new(ErrorKind::NotFound, "the directory holds no data yet").at(dir, None)
        );
    }
    Ok(true)
}

fn create(disk: &Arc<dyn Disk>, dir: &Path, store: StoreName, now: Timestamp) -> Result<Manifest> {
    let log = dir.join(LOG);
    disk.create_dir(&log).map_err(|e| Error::io("make the directory of the log", &log, e))?;
    Manifest::create(disk.clone(), dir, store, now)
}

/// What grows while the log is replayed.
pub(super) struct Recovery {
    pub(super) live: Live,
    /// The rule as the directory has it.
    rule: Dedup,
    window: Option<Window>,
    /// The store has rows of ids that no rule wants any more.
    stale_ids: bool,
    pub(super) events: Tally,
    pub(super) late: Tally,
    pub(super) newest: Newest,
    scratch: Scratch,
    dictionary: Arc<Dictionary>,
    expected_keys: usize,
    /// What the log says of backfills and the views are still to be given, in its order.
    owed: Vec<Owed>,
    /// Views that buckets were being converted into, of which the snapshot has nothing (yet).
    converting: Vec<u32>,
    pub(super) replicas: Replicas,
    /// The replica that records next, if it has not recorded yet.
    becomes: Option<u128>,
}

/// What a view is still to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// Its backfill, or what it holds as a successor, was complete.
    Rest(u32),
    /// The backfill of a successor was asked for behind that.
    Asked(u32),
    /// The buckets of the view before it were converted into it. They are in a later snapshot; where
    /// there is none, the one before goes on.
    Converted,
}

impl Recovery {
    pub(super) fn new(
        catalog: &Catalog,
        identity: u128,
        options: &Options,
        dictionary: Arc<Dictionary>,
    ) -> Self {
        let zone = catalog.zone.unwrap_or_default();
        let tier = |stored: &StoredView| {
            let tier = ViewTier::new(
                stored.id,
                stored.view.clone(),
                zone,
                stored.defined_at,
                stored.backfill,
                &dictionary,
                stored.rows,
                options.expected_keys,
            );
            stored.converted.iter().for_each(|known| tier.note_converted(known));
            Arc::new(tier)
        };
        let views = catalog.views.iter().map(tier).collect();
        let rule = catalog.dedup;
        let (events, late) = (Tally::default(), Tally::default());
        events.set(catalog.events);
        late.set(catalog.late);
        Recovery {
            live: Live {
                views,
                next_view: catalog.next_view,
                purge: catalog.purge.clone(),
                leaving: Vec::new(),
                zone: catalog.zone,
                policies: Policies::of(&catalog.policies),
                reach: None,
                at_once: Vec::new(),
                gathering: Vec::new(),
            },
            rule,
            window: (rule != Dedup::Off).then(|| Window::new(rule, catalog.position == 0)),
            stale_ids: false,
            events,
            late,
            newest: Newest::new(catalog.newest),
            scratch: Scratch::default(),
            dictionary,
            expected_keys: options.expected_keys,
            owed: Vec::new(),
            converting: Vec::new(),
            replicas: catalog.replicas(identity),
            becomes: None,
        }
    }

    /// One of the same views, which are applied to by one of the two; no ids are remembered for it.
    pub(super) fn sharing_views(&self) -> Self {
        let (events, late) = (Tally::default(), Tally::default());
        events.set(self.events.get());
        late.set(self.late.get());
        Recovery {
            live: self.live.clone(),
            rule: self.rule,
            window: None,
            stale_ids: self.stale_ids,
            owed: Vec::new(),
            converting: Vec::new(),
            events,
            late,
            newest: Newest::new(self.newest.get()),
            scratch: Scratch::default(),
            dictionary: self.dictionary.clone(),
            expected_keys: self.expected_keys,
            replicas: self.replicas.clone(),
            becomes: None,
        }
    }

    /// The engine that has come this far.
    pub(super) fn engine(self, ground: Ground, catalog: Catalog) -> Engine {
        let Ground { dir, disk, home, options, dictionary, log, storage, lock } = ground;
        let tallies = Tallies { events: self.events, late: self.late, ..Tallies::default() };
        tallies.duplicates.set(catalog.duplicates);
        let (staging, mut live) = (Staging::new(&dictionary, options.stage_bytes), self.live);
        live.views_changed();
        let by_name = DashMap::new();
        for tier in live.answering() {
            by_name.insert(tier.view.name().into(), tier.clone());
        }
        Engine {
            dir,
            disk,
            home,
            options,
            dictionary,
            log,
            storage,
            gate: Gate::new(live),
            by_name,
            commits: AtomicU64::new(0),
            figures: Mutex::new(Figures {
                position: catalog.position,
                made_at: catalog.checkpointed_at,
                ..Figures::default()
            }),
            checkpointer: Mutex::new(Checkpointer::new(catalog, self.stale_ids)),
            backups: AtomicUsize::new(0),
            window: self.window.map(Mutex::new),
            replicas: Mutex::new(self.replicas),
            becomes: self.becomes,
            staging,
            limits: super::limit::keys::Keys::new(),
            newest: self.newest,
            signals: background::Signals::default(),
            background_error: Mutex::default(),
            tallies,
            closed: AtomicBool::new(false),
            lock: Mutex::new(lock),
        }
    }

    /// Fills the views whose backfill was complete and is not in the snapshot, from a log that begins
    /// with the segment `oldest` and ends at `end`.
    pub(super) fn settle(
        &mut self,
        home: &Home,
        oldest: u64,
        end: (u64, u64),
        dictionary: &Arc<Dictionary>,
    ) -> Result<()> {
        while let Some(owed) = self.owed.first().copied() {
            match owed {
                Owed::Rest(id) => {
                    if let Some(tier) = self.view(id) {
                        super::backfill::settle(home, tier, oldest, end, dictionary)?;
                    }
                }
                Owed::Asked(id) => self.ask_for_backfill(id),
                Owed::Converted => {}
            }
            self.owed.remove(0);
        }
        Ok(())
    }

    /// Whether a view is to be filled that is not.
    pub(super) fn owes(&self) -> bool {
        self.owed.iter().any(|owed| match owed {
            Owed::Rest(id) => self.view(*id).is_some_and(|tier| tier.progress().is_some()),
            Owed::Asked(_) | Owed::Converted => true,
        })
    }

    /// Whether a view has a definition by now that is in a later snapshot only.
    pub(super) fn lacks_converted(&self) -> bool {
        self.owed.contains(&Owed::Converted)
    }

    fn view(&self, id: u32) -> Option<&Arc<ViewTier>> {
        self.live.views.iter().find(|tier| tier.id == id)
    }

    fn ask_for_backfill(&self, id: u32) {
        if let Some(tier) = self.view(id) {
            let mut backfill = tier.backfill.lock();
            if *backfill == Backfill::NotAsked {
                *backfill = Backfill::Unfinished { done: 0 };
            }
        }
    }

    /// The zone that the directory is to be given, if it is asked for and has none of its own.
    fn zone_to_take(&self, dir: &Path, asked: Option<TimeZone>) -> Result<Option<TimeZone>> {
        let kept = self.live.zone.unwrap_or_default();
        let Some(asked) = asked.filter(|asked| *asked != kept) else { return Ok(None) };
        if self.live.may_take_zone() {
            return Ok(Some(asked));
        }
        let message = format!(
            "the directory has the time zone {kept}, not {asked}: its views are counted by the \
             calendar of {kept}; open it with that or without one, or load it anew into another \
             directory"
        );
        Err(Error::new(ErrorKind::TimeZoneConflict, message).at(dir, None))
    }

    fn set_rule(&mut self, rule: Dedup) {
        self.rule = rule;
        match (&mut self.window, rule) {
            (Some(window), Dedup::Last(_) | Dedup::For(_)) => window.set_rule(rule),
            (Some(_), Dedup::Off) => {
                self.window = None;
                self.stale_ids = true;
            }
            // What is stored is of an earlier rule, with a gap behind it.
            (None, Dedup::Last(_) | Dedup::For(_)) => self.window = Some(Window::new(rule, true)),
            (None, Dedup::Off) => {}
        }
    }

    /// A definition as it stands in the log.
    fn take_definition(&mut self, id: u32, view: View) -> Result<View> {
        let cannot_be = |why| Error::new(ErrorKind::Corruption, why);
        if id < self.live.next_view {
            return Err(cannot_be(format!("the id {id} is given to a second view")));
        }
        let view = view.checked().map_err(|error| match error.kind() {
            // It can be, but for a program that was built with less.
            ErrorKind::NewerFormat => error,
            _ => cannot_be(format!("a view is defined that cannot be: {error}")),
        })?;
        self.note_id(id)?;
        Ok(view)
    }

    /// An id that was given is not given again.
    fn note_id(&mut self, id: u32) -> Result<()> {
        let next = id.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Corruption, format!("no view can have the id {id}"))
        })?;
        self.live.next_view = self.live.next_view.max(next);
        Ok(())
    }

    pub(super) fn apply(&mut self, entry: Entry<'_>, position: u64, written_at: i64) -> Result<()> {
        match entry {
            Entry::Events(columns) => {
                self.newest.raise(columns.newest());
                apply_all(&self.live.views, columns, &mut self.scratch);
                self.events.add(columns.len() as u64);
                self.late.add(self.scratch.late());
                let origin = columns.extras.origin;
                let is_own = origin.is_none_or(|origin| self.replicas.is_own(origin.replica));
                if let Some(origin) = origin {
                    self.replicas.cover(origin, columns.len());
                }
                if let Some(window) = &mut self.window
                    && !columns.ids.is_empty()
                    && is_own
                {
                    window.place(columns.len(), &columns.ids, position, written_at);
                }
            }
            Entry::Control(control) => self.apply_control(control, position)?,
        }
        Ok(())
    }

    fn apply_control(&mut self, control: Control, position: u64) -> Result<()> {
        match control {
            Control::ViewDefined { id, view } => {
                let view = self.take_definition(id, view)?;
                // The record of its drop is missing: what it was is over all the same.
                self.live.remove(|tier| tier.view.name() == view.name());
                let keys = self.expected_keys;
                let tier = ViewTier::new(
                    id,
                    view,
                    self.live.zone.unwrap_or_default(),
                    position,
                    Backfill::NotAsked,
                    &self.dictionary,
                    0,
                    keys,
                );
                self.live.views.push(Arc::new(tier));
            }
            Control::ViewDropped { id } => {
                self.note_id(id)?;
                if self.view(id).is_none() {
                    self.live.purge.push(id);
                }
                self.live.drop_view(id);
            }
            Control::DedupRule(rule) => self.set_rule(rule),
            Control::BackfillAsked { id } => {
                match self.view(id).filter(|tier| tier.is_succeeding()).cloned() {
                    // Behind what it is still to be given as a successor. Where the record that it has
                    // all of that is missing, this one says so, too.
                    Some(tier) => {
                        if !self.owed.contains(&Owed::Rest(id)) {
                            self.live.succeed(&tier);
                            self.owed.push(Owed::Rest(id));
                        }
                        self.owed.push(Owed::Asked(id));
                    }
                    None => self.ask_for_backfill(id),
                }
            }
            Control::BackfillDone { id } => self.owed.push(Owed::Rest(id)),
            Control::SuccessorDefined { id, view } => {
                let view = self.take_definition(id, view)?;
                let since = self.live.named(view.name()).map_or(0, |tier| {
                    if self.owed.contains(&Owed::Asked(tier.id)) { 0 } else { tier.since() }
                });
                let room = (&self.dictionary, self.expected_keys);
                self.live.define_successor((id, view), position, since, 0, room);
            }
            Control::SuccessorConverted { id, view } => {
                let view = self.take_definition(id, view)?;
                // One from a commit that failed and had happened: whoever made it had given it up.
                let earlier = self.live.successor(view.name()).map(|earlier| earlier.id);
                self.live.remove(|tier| Some(tier.id) == earlier);
                self.converting.push(id);
            }
            Control::SuccessorDone { id } => {
                self.note_id(id)?;
                if self.converting.contains(&id) {
                    self.owed.push(Owed::Converted);
                }
                if let Some(tier) = self.view(id).cloned() {
                    self.live.succeed(&tier);
                    self.owed.push(Owed::Rest(id));
                }
            }
            Control::PolicySet { policy } => {
                let refused =
                    |error: Error| error.told_of(ErrorKind::Corruption, "a policy is none");
                policy.check().map_err(refused)?;
                self.live.policies.set(policy);
            }
            Control::PolicyRemoved { name } => self.live.policies.remove(&name),
            Control::Replica { id, before } => {
                if !self.replicas.may_begin(id, before) {
                    let why = format!("the directory becomes the replica {id:032x} again");
                    return Err(Error::new(ErrorKind::Corruption, why));
                }
                self.replicas.begin(position, id, before);
            }
            Control::TimeZone { name } => {
                if !self.live.may_take_zone() {
                    let why = format!("the time zone is changed to {name} under a view");
                    return Err(Error::new(ErrorKind::Corruption, why));
                }
                self.live.zone = Some(known_zone(&name)?);
            }
        }
        Ok(())
    }
}
