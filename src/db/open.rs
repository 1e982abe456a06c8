//! Opening: checks first, then the lock, then the snapshot, then the log behind it.
//!
//! Invariants
//! 1. A directory that is not ours, is locked, or has another format is left exactly as it was:
//!    nothing is made in it before its names and its manifest were looked at.
//! 2. Things are made in this order: `LOCK`, `log/`, `MANIFEST`; with the first record a segment,
//!    with the first checkpoint `state.redb`. So a directory without a manifest holds nothing of
//!    worth and may be begun again, if it holds nothing else.
//! 3. Recovery is: newest snapshot, then every record behind it through the same `apply` as live.
//! 4. The next position is behind both the log's end and the snapshot's position.

use super::catalog::{Catalog, StoredView};
use super::checkpoint::{Checkpointer, Figures};
use super::dedup::Window;
use super::{Engine, Live, Tallies, background};
use crate::codec;
use crate::dictionary::Dictionary;
use crate::disk::{Disk, Filling};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Home;
use crate::log::reader::{self, Entry, Resume};
use crate::log::segment;
use crate::log::writer::Writer;
use crate::manifest::{self, Manifest};
use crate::options::{Dedup, Durability, Options};
use crate::record::Control;
use crate::snapshot::{RedbStorage, Storage as _};
use crate::tier::apply::{Scratch, apply_all};
use crate::tier::{Backfill, Tally, ViewTier};
use crate::time::Timestamp;
use crossbeam::sync::ShardedLock;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

pub(super) const LOCK: &str = "LOCK";
pub(super) const LOG: &str = "log";
pub(super) const STORE: &str = "state.redb";

pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Engine> {
    let now = options.clock.now();
    let fresh = !look(&disk, dir, &options)?;
    if fresh {
        disk.create_dir(dir).map_err(|e| Error::io("make the directory", dir, e))?;
    }
    let lock_path = dir.join(LOCK);
    let lock = disk.lock(&lock_path).map_err(|e| Error::io("take the lock", &lock_path, e))?;
    let lock = lock.ok_or_else(|| {
        Error::new(
            ErrorKind::Locked,
            "another process, or another Db of this one, has the directory open; close that first",
        )
        .at(dir, None)
    })?;
    // Another process may have made it between the look and the lock.
    let manifest = match Manifest::open(disk.clone(), dir)? {
        Some(manifest) => {
            // After a kill the names of manifest and snapshot may be in the page cache only, and
            // what is built on them must not be there without them.
            disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))?;
            manifest
        }
        None => create(&disk, dir, now)?,
    };
    let manifest = Arc::new(manifest);
    let identity = manifest.identity;
    let filling = match options.durability {
        Durability::Sync => Filling::Written,
        Durability::Interval(_) | Durability::Memory => Filling::Reserved,
    };
    let home = Home { disk: disk.clone(), dir: dir.join(LOG), identity, filling };
    let storage = RedbStorage::open(&disk, &dir.join(STORE))?;
    let catalog = Catalog::read(&*storage.snapshot()?, &dir.join(STORE), identity)?;

    let dictionary = Arc::new(Dictionary::new(options.expected_keys));
    let mut recovery = Recovery::new(&catalog, &options, dictionary.clone());
    let oldest = catalog.first_segment.max(1);
    let resume = Resume {
        oldest,
        segment: catalog.segment.max(oldest),
        offset: catalog.offset,
        position: catalog.position,
        made: manifest.segments_made(),
    };
    let recovered = reader::recover(&home, resume, &dictionary, now, &mut |entry, header| {
        recovery.apply(entry, header.position, header.written_at)
    })?;
    if recovered.cut_bytes > 0 {
        tracing::info!(
            dir = %dir.display(),
            bytes = recovered.cut_bytes,
            "the unsynced tail of the log was cut"
        );
    }
    let next_position = recovered.last.max(catalog.position) + 1;
    let log = Writer::start(
        home.clone(),
        manifest.clone(),
        dictionary.clone(),
        options.segment_bytes,
        recovered.last_segment,
        next_position,
    );
    if let Some(rule) = options.dedup.filter(|rule| *rule != recovery.rule) {
        // In the log, so that a later opening knows it whatever becomes of this one.
        let control = Control::DedupRule(rule);
        let appended = log.append_control(&codec::encode(&control), now)?;
        log.sync_to(appended.last)?;
        recovery.set_rule(rule);
    }
    let tallies = Tallies {
        events: recovery.events,
        late: recovery.late,
        duplicates: Tally::default(),
        ..Tallies::default()
    };
    tallies.duplicates.set(catalog.duplicates);
    tallies.replayed.set(recovered.replayed);
    let by_name = DashMap::new();
    for tier in &recovery.live.views {
        by_name.insert(tier.view.name().into(), tier.clone());
    }
    Ok(Engine {
        dir: dir.to_owned(),
        disk,
        home,
        options,
        dictionary,
        log,
        storage: Arc::new(storage),
        gate: ShardedLock::new(recovery.live),
        by_name,
        commits: AtomicU64::new(0),
        figures: Mutex::new(Figures {
            position: catalog.position,
            made_at: catalog.checkpointed_at,
            ..Figures::default()
        }),
        checkpointer: Mutex::new(Checkpointer::new(catalog, recovery.stale_ids)),
        window: recovery.window.map(Mutex::new),
        signals: background::Signals::default(),
        tallies,
        closed: AtomicBool::new(false),
        lock: Mutex::new(Some(lock)),
    })
}

/// Looks at the directory without changing anything: whether it is there and one of ours.
fn look(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<bool> {
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
    let lost = |error: Error| {
        let rest = [STORE, LOG].iter().any(|name| names.iter().any(|other| other == name));
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
    if names.iter().any(|name| name == STORE) {
        return Err(lost(Error::new(ErrorKind::NotQuipu, "")));
    }
    let ours = [LOCK, LOG, manifest::UNFINISHED];
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

fn create(disk: &Arc<dyn Disk>, dir: &Path, now: Timestamp) -> Result<Manifest> {
    let log = dir.join(LOG);
    disk.create_dir(&log).map_err(|e| Error::io("make the directory of the log", &log, e))?;
    Manifest::create(disk.clone(), dir, now)
}

/// What grows while the log is replayed.
struct Recovery {
    live: Live,
    /// The rule as the directory has it.
    rule: Dedup,
    window: Option<Window>,
    /// The store has rows of ids that no rule wants any more.
    stale_ids: bool,
    events: Tally,
    late: Tally,
    scratch: Scratch,
    dictionary: Arc<Dictionary>,
    expected_keys: usize,
}

impl Recovery {
    fn new(catalog: &Catalog, options: &Options, dictionary: Arc<Dictionary>) -> Self {
        let tier = |stored: &StoredView| {
            Arc::new(ViewTier::new(
                stored.id,
                stored.view.clone(),
                stored.defined_at,
                stored.backfill,
                &dictionary,
                stored.rows,
                options.expected_keys,
            ))
        };
        let views = catalog.views.iter().map(tier).collect();
        let rule = catalog.dedup;
        let (events, late) = (Tally::default(), Tally::default());
        events.set(catalog.events);
        late.set(catalog.late);
        Recovery {
            live: Live { views, next_view: catalog.next_view, purge: catalog.purge.clone() },
            rule,
            window: (rule != Dedup::Off).then(|| Window::new(rule, catalog.position == 0)),
            stale_ids: false,
            events,
            late,
            scratch: Scratch::default(),
            dictionary,
            expected_keys: options.expected_keys,
        }
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

    /// An id that was given is not given again.
    fn note_id(&mut self, id: u32) -> Result<()> {
        let next = id.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Corruption, format!("no view can have the id {id}"))
        })?;
        self.live.next_view = self.live.next_view.max(next);
        Ok(())
    }

    fn apply(&mut self, entry: Entry<'_>, position: u64, written_at: i64) -> Result<()> {
        match entry {
            Entry::Events(columns) => {
                apply_all(&self.live.views, columns, &mut self.scratch);
                self.events.add(columns.len() as u64);
                self.late.add(self.scratch.late());
                if let Some(window) = &mut self.window
                    && !columns.ids.is_empty()
                {
                    window.place(columns.len(), &columns.ids, position, written_at);
                }
            }
            Entry::Control(Control::ViewDefined { id, view }) => {
                let cannot_be = |why| Error::new(ErrorKind::Corruption, why);
                if id < self.live.next_view {
                    return Err(cannot_be(format!("the id {id} is given to a second view")));
                }
                let view = view.checked().map_err(|error| {
                    cannot_be(format!("a view is defined that cannot be: {error}"))
                })?;
                self.note_id(id)?;
                // The record of its drop is missing: what it was is over all the same.
                let same_name = |tier: &Arc<ViewTier>| tier.view.name() == view.name();
                let replaced = self.live.views.iter().position(same_name);
                self.live.purge.extend(replaced.map(|at| self.live.views.remove(at).id));
                let keys = self.expected_keys;
                let tier = ViewTier::new(
                    id,
                    view,
                    position,
                    Backfill::NotAsked,
                    &self.dictionary,
                    0,
                    keys,
                );
                self.live.views.push(Arc::new(tier));
            }
            Entry::Control(Control::ViewDropped { id }) => {
                self.note_id(id)?;
                self.live.views.retain(|tier| tier.id != id);
                self.live.purge.push(id);
            }
            Entry::Control(Control::DedupRule(rule)) => self.set_rule(rule),
            Entry::Control(Control::BackfillAsked { id }) => {
                if let Some(tier) = self.live.views.iter().find(|tier| tier.id == id) {
                    *tier.backfill.lock() = Backfill::Unfinished { done: 0 };
                }
            }
        }
        Ok(())
    }
}
