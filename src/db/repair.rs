//! Repairing a directory: what is provably good stays, the rest is put aside and given up by name.
//!
//! Invariants
//! 1. Nothing is deleted and nothing overwritten: a damaged file is copied to `quarantine/`, synced,
//!    before another takes its name; a snapshot that the log can say is moved there.
//! 2. Each step replaces one file by a whole one. After a crash between two steps the directory is
//!    reported damaged, with fewer damages, and a repair goes on.
//! 3. The order is: manifest, segments, snapshot. So a snapshot is judged by the log as it stays.
//! 4. No position is given twice: those that are lost are said by lost frames (`log/salvage.rs`).
//! 5. Of what is recorded behind it the directory is another replica: where the end of the log is lost,
//!    others may know events of positions that this one does not know of.
//!
//! Next: `db/verify.rs`, whose findings these are.

use super::catalog::Catalog;
use super::open::{LOG, REPAIRED, STORE, put_aside, quarantine};
use super::site::{Site, StageDamage, Stay};
use super::verify::{Depth, Finding, Positions, Verification};
use super::{backfill::Progress, load};
use crate::codec;
use crate::disk::{self, Access, Disk, OsDisk};
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::Replicas;
use crate::key;
use crate::log::salvage;
use crate::log::segment;
use crate::log::stage::{self, Flipped};
use crate::log::survey::{Beginning, PieceState, Survey, Surveyed};
use crate::manifest::{self, StoreName};
use crate::options::Options;
use crate::record::Seen;
use crate::snapshot::{self, Changes, RedbStorage, Storage as _, Store, Table};
use crate::time::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether a repair says what it would do, or does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing is written.
    #[default]
    DryRun,
    /// The directory is changed.
    Apply,
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// Written anew without any loss; the damaged one is put aside.
    Mend,
    /// Written anew with what is good in it, and what is not is given up; the damaged one is put
    /// aside.
    GiveUp,
    /// Put aside; the next opening makes it again from the log, without any loss.
    Rebuild,
    /// Put aside; it has no place in the directory.
    PutAside,
}

/// One file of a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairStep {
    /// What becomes of it.
    pub action: Action,
    /// The file.
    pub path: PathBuf,
    /// The positions of the records that are given up.
    pub given_up: Vec<Positions>,
    /// Records given up: the number of those positions.
    pub records: u64,
    /// Bytes of the file that are given up.
    pub bytes: u64,
    /// Views of which stored series are given up: they are to be dropped and defined anew, if their
    /// answers are to be right.
    pub views: Vec<String>,
    /// What is done, and what it costs.
    pub what: String,
}

/// What [`repair`] did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// Whether the steps were done.
    pub applied: bool,
    /// The steps, in their order; none where nothing is damaged.
    pub steps: Vec<RepairStep>,
    /// Where the damaged files are.
    pub quarantine: Option<PathBuf>,
    /// What was found, as [`verify`](super::verify()) reports it.
    pub findings: Vec<Finding>,
}

impl RepairReport {
    /// Records given up in all.
    pub fn records_given_up(&self) -> u64 {
        self.steps.iter().map(|step| step.records).sum()
    }
}

/// Brings a damaged directory in order: damaged files are put aside into `quarantine/`, what is
/// provably good is kept, and the rest is given up and said. After it the directory opens, and
/// [`verify`](super::verify()) finds it intact. Without damage it changes nothing.
///
/// A dry run says what would be done; look at it, and copy the directory if it is dear to you.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("shop");
/// use quipu::{Action, Db, Event, Repair, View};
///
/// let db = Db::open(&dir)?;
/// db.define(View::new("all"))?;
/// db.record(&Event::new("sale"))?;
/// db.close()?;
/// std::fs::write(dir.join("state.redb"), "not what it was").unwrap();
///
/// let plan = quipu::repair(&dir, Repair::DryRun, |_| {})?;
/// assert_eq!(plan.steps[0].action, Action::Rebuild);
/// quipu::repair(&dir, Repair::Apply, |_| {})?;
/// assert_eq!(Db::open(&dir)?.query("all")?.totals()?.count, 1);
/// # Ok::<(), quipu::Error>(())
/// ```
///
/// # Errors
/// As [`verify`](super::verify()), and `NoSpace`: the copies in `quarantine/` need room. `Corruption`
/// where nothing can be kept, or where a file only lies in the wrong place: the error says which.
pub fn repair(
    dir: impl AsRef<Path>,
    mode: Repair,
    progress: impl FnMut(Progress),
) -> Result<RepairReport> {
    Options::new().repair(dir, mode, progress)
}

impl Options {
    /// [`repair`](super::repair()) of a directory whose snapshot is in a
    /// [store](Options::storage) that the program brings along; nothing else of the options matters.
    /// A store that is damaged is not repaired here: it is to be mended by its own means, or emptied, and
    /// then the log says what it can.
    ///
    /// # Errors
    /// As there; `StorageConflict` where the directory has another store; `Corruption` where what is in
    /// the store is damaged; those of the store.
    pub fn repair(
        &self,
        dir: impl AsRef<Path>,
        mode: Repair,
        mut progress: impl FnMut(Progress),
    ) -> Result<RepairReport> {
        let now = SystemClock.now();
        repair_on(Arc::new(OsDisk), dir.as_ref(), self, mode, now, &mut progress)
    }
}

pub(crate) fn repair_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    mode: Repair,
    now: Timestamp,
    progress: &mut dyn FnMut(Progress),
) -> Result<RepairReport> {
    let stay = if mode == Repair::Apply { Stay::Changing } else { Stay::Reading };
    let site = Site::enter(disk, dir, stay, options)?;
    let verified = Verification::run(&site, Depth::Refold, progress)?;
    let plan = Plan::new(&site, &verified)?;
    let mut report = RepairReport {
        applied: false,
        steps: plan.steps.iter().map(|(_, step)| step.clone()).collect(),
        quarantine: None,
        findings: verified.report.findings.clone(),
    };
    if mode == Repair::Apply && !plan.steps.is_empty() {
        report.quarantine = Some(plan.apply(&site, &verified.survey.segments, now)?);
        report.applied = true;
    }
    Ok(report)
}

/// What is to be done with one file.
enum Work {
    Manifest,
    /// The place of the segment among those surveyed.
    Segment(usize),
    /// A file that is not what its name says: among the segments, or the stage.
    Stray,
    /// A flipped bit in the header of the stage.
    Stage(Flipped),
    /// The stage has no event at this offset, where one should be.
    CutStage(u64),
    /// The log says all that is in the store.
    Rebuild,
    /// A new store of these rows.
    Store(Box<Changes>, Begun),
}

/// What a new store goes on from.
enum Begun {
    /// From the catalog that there was.
    Where,
    /// From nothing: the catalog says that what follows is of another replica.
    Anew,
}

struct Plan {
    steps: Vec<(Work, RepairStep)>,
}

impl Plan {
    fn new(site: &Site, verified: &Verification<'_>) -> Result<Self> {
        let mut plan = Plan { steps: Vec::new() };
        if site.manifest_damage.is_some() {
            let path = site.dir.join(manifest::NAME);
            let what = "written anew from what the rest of the directory says";
            plan.steps.push((Work::Manifest, step(Action::Mend, &path, what)));
        }
        let segments = &verified.survey.segments;
        for (at, segment) in segments.iter().enumerate() {
            if !segment.is_sound() {
                plan.steps.push((Work::Segment(at), segment_step(site, segment)?));
            }
        }
        let survey = &verified.survey;
        for stray in &survey.strays {
            let is_there =
                |number| disk_has(&*site.disk, &site.home.dir.join(segment::name(number)));
            if let Some(number) = stray.ours.filter(|number| *number >= site.resume.oldest)
                && !is_there(number)?
            {
                return Err(misplaced(&stray.path, &stray.what, number));
            }
            let what = format!("put aside: {}", stray.what);
            plan.steps.push((Work::Stray, step(Action::PutAside, &stray.path, what)));
        }
        let path = site.dir.join(stage::NAME);
        match site.stage_damage()? {
            Some(StageDamage::Lost(error)) => {
                let what = format!("put aside: {}", error.message());
                plan.steps.push((Work::Stray, step(Action::PutAside, &path, what)));
            }
            Some(StageDamage::Event { error, lost }) => {
                let mut step = step(Action::GiveUp, &path, "");
                let in_log = verified.report.last_position.get();
                let given_up: Vec<u64> = lost.iter().copied().filter(|at| *at > in_log).collect();
                step.records = given_up.len() as u64;
                let ranges = given_up.chunk_by(|a, b| a + 1 == *b);
                step.given_up
                    .extend(ranges.filter_map(|at| Positions::of(&(at[0]..at[at.len() - 1] + 1))));
                step.what = format!(
                    "cut before the event of position {}, which is none; records given up: {}",
                    lost.first().copied().unwrap_or_default(),
                    step.records
                );
                plan.steps.push((Work::CutStage(error.offset().unwrap_or(0)), step));
            }
            Some(StageDamage::Flipped(flipped)) => {
                let step = step(Action::Mend, &path, "flipped bits turned back: 1");
                plan.steps.push((Work::Stage(flipped), step));
            }
            None => {}
        }
        let is_guest = site.manifest.store() != StoreName::REDB;
        if is_guest
            && verified.store_is_damaged
            && (site.catalog.is_some() || site.store_damage.is_some())
        {
            return Err(guest_is_damaged(site, verified));
        }
        let has_holes = survey.lost().next().is_some() || !survey.given_up.is_empty();
        let reaches_back = survey.first() == Some(1);
        if verified.store_is_damaged && reaches_back && !has_holes {
            let what = "put aside; the next opening makes it again from the log, which is whole";
            let path = site.place();
            plan.steps.push((Work::Rebuild, step(Action::Rebuild, &path, what)));
        } else if verified.store_is_damaged || (has_holes && site.catalog.is_none()) {
            plan.steps.push(salvage_store(site, survey, verified.replica)?);
        }
        Ok(plan)
    }

    fn apply(self, site: &Site, segments: &[Surveyed], now: Timestamp) -> Result<PathBuf> {
        let disk = &*site.disk;
        let place = quarantine(disk, &site.dir, now)?;
        // Positions may be given again (invariant 5).
        let works = || self.steps.iter().map(|(work, _)| work);
        let is_begun_anew = works().any(|work| matches!(work, Work::Store(_, Begun::Anew)));
        let loses = |work: &Work| !matches!(work, Work::Rebuild | Work::Stray | Work::Stage(_));
        if works().any(loses) && !is_begun_anew {
            if site.manifest_damage.is_some() {
                copy_aside(disk, &site.dir.join(manifest::NAME), &place)?;
            }
            site.manifest.fork()?;
        }
        // After a kill what is good may be in the page cache only, and is now to be relied upon.
        for segment in segments.iter().filter(|s| !matches!(s.beginning, Beginning::Missing)) {
            let fail = |e| Error::io("sync the log", &segment.path, e);
            disk.open(&segment.path, Access::Write).and_then(|file| file.sync()).map_err(fail)?;
        }
        for (work, step) in &self.steps {
            let is_file = step.path != site.dir;
            if is_file && !matches!(work, Work::Rebuild | Work::Stray) {
                copy_aside(disk, &step.path, &place)?;
            }
            match work {
                Work::Manifest => site.manifest.write()?,
                Work::Segment(at) => {
                    // As recovery does: what lies behind the tail is cut first.
                    let segment = &segments[*at];
                    let later = segments[at + 1..].iter().rev().filter(|later| later.is_sound());
                    for later in later.filter(|_| segment.tail.is_some()) {
                        copy_aside(disk, &later.path, &place)?;
                        let position = segment.tail_position;
                        salvage::cut_tail(&site.home, later.number, position, now)?;
                    }
                    salvage::rewrite(&site.home, segment, now)?;
                }
                Work::Stray => {
                    let name = step.path.file_name().unwrap_or_default();
                    let dir = step.path.parent().unwrap_or(&site.dir);
                    put_aside(disk, dir, &name.to_string_lossy(), &place)?;
                }
                Work::Stage(flipped) => stage::mend(disk, &site.dir, flipped)?,
                Work::CutStage(offset) => {
                    copy_aside(disk, &step.path, &place)?;
                    stage::cut(disk, &site.dir, *offset)?;
                }
                Work::Rebuild => {
                    if disk_has(disk, &step.path)? {
                        put_aside(disk, &site.dir, STORE, &place)?;
                    }
                }
                Work::Store(rows, _) => write_store(site, rows)?,
            }
        }
        Ok(place)
    }
}

fn step(action: Action, path: &Path, what: impl Into<String>) -> RepairStep {
    RepairStep {
        action,
        path: path.to_owned(),
        given_up: Vec::new(),
        records: 0,
        bytes: 0,
        views: Vec::new(),
        what: what.into(),
    }
}

/// A segment of ours under the name of another.
fn misplaced(path: &Path, what: &str, number: u64) -> Error {
    let message = format!(
        "{what}; rename it to {LOG}/{}, and what lies there now to where it belongs, then repair \
         again: nothing of it has to be given up",
        segment::name(number)
    );
    Error::new(ErrorKind::Corruption, message).at(path, None)
}

/// A store that a program brought along, with rows that are not what they should be.
fn guest_is_damaged(site: &Site, verified: &Verification<'_>) -> Error {
    let finding = verified.report.findings.iter().find(|finding| finding.path == site.place());
    let message = format!(
        "the store {:?} is damaged ({}), and is not Quipu's to repair: mend it by its own means, or give \
         the directory an empty one, and repair again",
        site.manifest.store().to_string(),
        finding.map_or("its rows are not what the log says", |finding| &finding.what)
    );
    Error::new(ErrorKind::Corruption, message).at(&site.dir, None)
}

fn disk_has(disk: &dyn Disk, path: &Path) -> Result<bool> {
    disk.exists(path).map_err(|e| Error::io("look at", path, e))
}

fn segment_step(site: &Site, segment: &Surveyed) -> Result<RepairStep> {
    if let Beginning::Foreign { ours: Some(number), what } = &segment.beginning {
        return Err(misplaced(&segment.path, what, *number));
    }
    let mut step = step(Action::Mend, &segment.path, "");
    let (mut mended, mut missing) = (0, false);
    for piece in &segment.pieces {
        let positions = match &piece.state {
            PieceState::Kept => continue,
            PieceState::Mended { .. } => {
                mended += 1;
                continue;
            }
            PieceState::Damaged { positions, .. } | PieceState::Unreadable { positions, .. } => {
                positions
            }
        };
        missing = true;
        step.bytes += piece.bytes.end.saturating_sub(piece.bytes.start);
        step.records += positions.end.saturating_sub(positions.start);
        match (step.given_up.last_mut(), Positions::of(positions)) {
            (Some(last), Some(next)) if last.last.get() + 1 == next.first.get() => {
                last.last = next.last;
            }
            (_, next) => step.given_up.extend(next),
        }
    }
    let mut what = vec!["written anew".to_owned()];
    if mended > 0 {
        what.push(format!("flipped bits turned back: {mended}"));
    }
    if step.records > 0 {
        step.action = Action::GiveUp;
        what.push(format!("records given up: {}", step.records));
        let behind = site.catalog.as_ref().map_or(0, |catalog| catalog.position);
        let from = step.given_up.first().map_or(0, |positions| positions.first.get());
        let to = step.given_up.last().map_or(0, |positions| positions.last.get());
        if to <= behind {
            what.push("the views have them, in the snapshot".to_owned());
        } else if from > behind {
            what.push("no view has them".to_owned());
        } else {
            what.push(format!("the views have those up to {behind}, in the snapshot"));
        }
    } else if !matches!(segment.beginning, Beginning::Intact | Beginning::Damaged { salt: Some(_) })
        && !segment.pieces.is_empty()
    {
        step.action = Action::GiveUp;
        what.push("what records it had is not known".to_owned());
    } else if missing {
        what.push("no record is given up".to_owned());
    }
    step.what = what.join("; ");
    Ok(step)
}

/// A new store with the rows that are good, or with none where the catalog is not: then it says
/// where the log begins, and that this is all there is.
fn salvage_store(
    site: &Site,
    survey: &Survey,
    replica: Option<u128>,
) -> Result<(Work, RepairStep)> {
    let (begins, next) = (survey.first().unwrap_or(survey.next), survey.next);
    let path = site.place();
    let mut changes = Changes::default();
    let mut begun = Begun::Where;
    let mut step = step(Action::GiveUp, &path, "");
    if let (Some(_), Some(catalog)) = (&site.storage, &site.catalog) {
        let mut catalog = catalog.clone();
        // Opened anew: what verifying made of the other one is in memory.
        let storage = RedbStorage::inspect(&site.disk, &path)?;
        let lost = salvage_rows(&storage, &mut catalog, &mut changes)?;
        let name = |id: &u32| {
            let view = catalog.views.iter().find(|view| view.id == *id);
            view.map(|view| view.view.name().to_owned())
        };
        step.views = lost.views.iter().filter_map(name).collect();
        step.what = format!(
            "written anew; good rows kept: {}; damaged ones given up: {}",
            catalog.views.iter().map(|view| view.rows).sum::<u64>() + lost.other_good,
            lost.damaged
        );
        changes.of_mut(Table::Meta).push(catalog.row());
    } else {
        // Everything that the log still has is replayed. It is of the replica that the first change of
        // it speaks of, or else of the manifest's, which is not changed before that is said here: a
        // repair that dies in between is done again.
        let replica = replica.unwrap_or_else(|| site.manifest.replica());
        let mut replicas = Replicas::new(replica);
        replicas.begin(next, replicas.another(site.disk.unique()), replica);
        begun = Begun::Anew;
        let catalog = Catalog {
            identity: site.home.identity,
            position: begins.saturating_sub(1),
            segment: site.resume.oldest,
            first_segment: site.resume.oldest,
            replicas: Some(replicas),
            ..Catalog::default()
        };
        step.what = if begins > 1 {
            format!(
                "begun anew at position {begins}, with which the log begins; every series is given \
                 up, and views, the rule on event ids and the time zone from before are to be set \
                 again{}",
                // Only the manifest could say that it was elsewhere.
                if site.manifest_damage.is_some() && site.storage.is_none() {
                    "; if the snapshot was in a store that a program brings along, repair it with \
                     that program (Options::repair): then nothing of it is lost"
                } else {
                    ""
                }
            )
        } else {
            "begun anew; the next opening makes it again from what the log has".to_owned()
        };
        changes.of_mut(Table::Meta).push(catalog.row());
    }
    Ok((Work::Store(Box::new(changes), begun), step))
}

/// What of the rows cannot be kept.
#[derive(Default)]
struct LostRows {
    damaged: u64,
    other_good: u64,
    /// Views that lost rows, as far as that is known.
    views: BTreeSet<u32>,
}

fn salvage_rows(
    storage: &RedbStorage,
    catalog: &mut Catalog,
    changes: &mut Changes,
) -> Result<LostRows> {
    let mut lost = LostRows::default();
    let mut rows: BTreeMap<u32, u64> = BTreeMap::new();
    let zone = catalog.zone.unwrap_or_default();
    let shapes: BTreeMap<u32, _> =
        catalog.views.iter().map(|view| (view.id, view.view.shape(zone))).collect();
    let id_of = |key: &[u8]| key.first_chunk().map(|id| u32::from_be_bytes(*id));
    // The blocks first: a series row is to name just those that there are.
    let mut blocks: BTreeSet<Vec<u8>> = BTreeSet::new();
    for table in [Table::Buckets, Table::Series, Table::Ids] {
        storage.each_readable(table, &mut |key, value| {
            if table == Table::Ids {
                match Seen::from_row(key, value) {
                    Ok(_) => {
                        changes.of_mut(table).push((key.to_vec(), Some(value.to_vec())));
                        lost.other_good += 1;
                    }
                    Err(_) => lost.damaged += 1,
                }
                return;
            }
            let id = id_of(key);
            let shape = id.and_then(|id| shapes.get(&id));
            let kept = shape.and_then(|shape| {
                if table == Table::Buckets {
                    codec::unseal(key, value).ok().map(|_| (value.to_vec(), false))
                } else {
                    let has = |grain, block| blocks.contains(&key::bucket_row(key, grain, block));
                    load::prune_series_row(key, value, shape, &has)
                }
            });
            match kept {
                Some((value, pruned)) => {
                    changes.of_mut(table).push((key.to_vec(), Some(value)));
                    if table == Table::Buckets {
                        blocks.insert(key.to_vec());
                        lost.other_good += 1;
                    } else if let Some(id) = id {
                        *rows.entry(id).or_default() += 1;
                        if pruned {
                            lost.views.insert(id);
                        }
                    }
                }
                None if shape.is_none() && id.is_some_and(|id| catalog.purge.contains(&id)) => {}
                None => {
                    lost.damaged += 1;
                    lost.views.extend(id.filter(|id| shapes.contains_key(id)));
                }
            }
        })?;
    }
    for view in &mut catalog.views {
        let kept = rows.get(&view.id).copied().unwrap_or(0);
        if kept < view.rows {
            lost.views.insert(view.id);
        }
        view.rows = kept;
    }
    catalog.purge.clear();
    // Blocks of a series that is lost have nobody who names them.
    let named: BTreeSet<Vec<u8>> = changes
        .of_mut(Table::Series)
        .iter()
        .flat_map(|(key, value)| {
            let shape = id_of(key).and_then(|id| shapes.get(&id));
            let value = value.as_deref().unwrap_or_default();
            shape.map(|shape| load::blocks_of(key, value, shape)).unwrap_or_default()
        })
        .collect();
    changes.of_mut(Table::Buckets).retain(|(key, _)| named.contains(key));
    for changes in &mut changes.0 {
        changes.sort();
        changes.dedup_by(|(a, _), (b, _)| a == b);
    }
    Ok(lost)
}

/// Writes a new store under another name, then puts it in the place of the damaged one.
fn write_store(site: &Site, rows: &Changes) -> Result<()> {
    if let Some(Store::Guest(store)) = &site.storage {
        // It has no catalog, and what else it may have is of no use without.
        snapshot::clear(store)?;
        return store.commit(rows);
    }
    let disk = &site.disk;
    let (path, made) = (site.dir.join(STORE), site.dir.join(REPAIRED));
    let fail = |e| Error::io("write the snapshot anew", &path, e);
    if disk.exists(&made).map_err(fail)? {
        disk.remove(&made).map_err(fail)?;
    }
    let storage = RedbStorage::anew(disk, &made)?;
    storage.commit(rows)?;
    storage.close()?;
    disk.rename(&made, &path).and_then(|()| disk.sync_dir(&site.dir)).map_err(fail)
}

/// Copies a file into the quarantine, durable when this returns; one that is missing is nowhere.
fn copy_aside(disk: &dyn Disk, path: &Path, place: &Path) -> Result<()> {
    let fail = |e| Error::io("copy a damaged file", path, e);
    if !disk.exists(path).map_err(fail)? {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default();
    let to = place.join(name);
    if disk.exists(&to).map_err(fail)? {
        return Ok(());
    }
    let from = disk.open(path, Access::Read).map_err(fail)?;
    let len = from.len().map_err(fail)?;
    let file = disk.create(&to).map_err(fail)?;
    disk::each_block(&*from, path, 0..len, "copy a damaged file", &mut |at, block| {
        file.write_at(at, block).map_err(fail)
    })?;
    file.sync().and_then(|()| disk.sync_dir(place)).map_err(fail)
}
