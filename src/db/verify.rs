//! Verifying a directory: every checksum, every order, and the series against the log.
//!
//! Invariants
//! 1. Nothing is written to the directory: the store is opened held back, and nothing releases it.
//! 2. It does not stop at the first damage. What cannot be looked at because of a damage is said.
//! 3. The unsynced tail of a crash is no damage: the next opening cuts it.
//!
//! Next: `verify/rows.rs` (rows by themselves), `db/site.rs` (the directory), `db/refold.rs` (series against the log), `log/survey.rs` (the log past its damages).

mod rows;

use super::backfill::Progress;
use super::catalog::StoredView;
use super::open::{LOCK, LOG, QUARANTINE, REPAIRED, STORE};
use super::refold::{self, Refold};
use super::site::{Site, Stay};
use crate::dictionary::Dictionary;
use crate::disk::{Access, Disk, OsDisk};
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::Replicas;
use crate::log::Position;
use crate::log::reader;
use crate::log::segment;
use crate::log::stage;
use crate::log::survey::{Beginning, PieceState, Survey, Surveyed, survey};
use crate::manifest;
use crate::options::Options;
use crate::record::Control;
use crate::snapshot::{Storage as _, Store, Table};
use rows::{Counted, Rows};
use serde::Serialize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How thoroughly a directory is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Every checksum and every order, as fast as the disk reads.
    Checksums,
    /// That, every record and every row read, and every series folded again from the log, where the log still has
    /// what is in it, and compared with the stored one to the byte. Needs memory for the series of
    /// the views and their buckets, in groups of views of some 1 GiB (a larger view is a group of its
    /// own), and for the dictionary.
    #[default]
    Refold,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Meaning {
    /// Bytes that had been written and synced are not what was written, or are not there.
    Corruption,
    /// The end of the log that nobody was told is safe from a power cut; the next opening cuts it.
    UnsyncedTail,
    /// Records that an earlier repair gave up. Nothing is wrong beyond that.
    GivenUp,
    /// A file that a crash left; it is replaced when its name is needed.
    Leftover,
    /// A file that is not ours. It is left alone.
    Foreign,
}

/// Positions from the first to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Positions {
    /// The first.
    pub first: Position,
    /// The last, included.
    pub last: Position,
}

/// Something that is not as a clean close leaves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it means.
    pub meaning: Meaning,
    /// The file.
    pub path: PathBuf,
    /// Where in the file it begins, if that is known.
    pub offset: Option<u64>,
    /// How many bytes of the file it takes; 0 where that is not known.
    pub bytes: u64,
    /// The positions of the records that cannot be read because of it.
    pub positions: Option<Positions>,
    /// What is wrong.
    pub what: String,
}

/// A view of the snapshot, as it was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedView {
    /// Its name.
    pub name: String,
    /// It is to take the place of the view of this name ([`Db::redefine`](crate::Db::redefine)).
    pub is_successor: bool,
    /// Its stored series.
    pub series: u64,
    /// Whether its series were folded again from the log and compared.
    pub refolded: bool,
    /// Why not: the rows were checked by their checksums only.
    pub why_not: Option<String>,
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What is not as a clean close leaves it; damages are those of [`Meaning::Corruption`].
    pub findings: Vec<Finding>,
    /// The views of the snapshot.
    pub views: Vec<VerifiedView>,
    /// Segments of the log.
    pub segments: u64,
    /// Valid frames in them.
    pub frames: u64,
    /// Records in those.
    pub records: u64,
    /// The position with which the log begins; `None` where it holds nothing.
    pub first_position: Option<Position>,
    /// The last position of the log.
    pub last_position: Position,
    /// The position of the snapshot; `None` where there is none, or it cannot be read.
    pub snapshot_position: Option<Position>,
    /// Rows of the snapshot.
    pub rows: u64,
    /// Bytes that were looked at, a byte that was read twice counted twice.
    pub bytes: u64,
}

impl VerifyReport {
    pub(super) fn new() -> Self {
        VerifyReport {
            findings: Vec::new(),
            views: Vec::new(),
            segments: 0,
            frames: 0,
            records: 0,
            first_position: None,
            last_position: Position(0),
            snapshot_position: None,
            rows: 0,
            bytes: 0,
        }
    }

    /// The damages among the findings.
    pub fn damages(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.meaning == Meaning::Corruption)
    }

    /// Whether there are none.
    pub fn is_intact(&self) -> bool {
        self.damages().next().is_none()
    }
}

impl Positions {
    /// Those of a range, if it holds any.
    pub(super) fn of(range: &Range<u64>) -> Option<Self> {
        let (first, last) = (Position(range.start), Position(range.end.saturating_sub(1)));
        (range.start < range.end).then_some(Positions { first, last })
    }
}

impl Finding {
    pub(super) fn new(path: &Path, meaning: Meaning, what: impl Into<String>) -> Self {
        let what = what.into();
        Finding { meaning, path: path.to_owned(), offset: None, bytes: 0, positions: None, what }
    }

    pub(super) fn at(mut self, bytes: Range<u64>) -> Self {
        self.offset = Some(bytes.start);
        self.bytes = bytes.end.saturating_sub(bytes.start);
        self
    }

    pub(super) fn of(error: &Error, path: &Path) -> Self {
        let mut finding = Finding::new(path, Meaning::Corruption, error.message());
        finding.offset = error.offset();
        finding
    }
}

/// Checks a directory: every checksum, every order, and, if asked, the stored series against the
/// log. It writes nothing, and goes on behind a damage. The directory must not be open; that it, or the
/// medium it is on, can be read is enough. Several may verify it at the same time.
///
/// Of a [backup](crate::Db::backup) every file is compared with the hash in its list, whatever the depth.
///
/// `progress` is told how many bytes of how many were looked at.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("shop");
/// use quipu::{Db, Depth, Event, View};
///
/// let db = Db::open(&dir)?;
/// db.define(View::new("by_user").by(["user"]).stats("value"))?;
/// db.record(&Event::new("sale").dim("user", "alice").value(12.5))?;
/// db.close()?;
///
/// let report = quipu::verify(&dir, Depth::Refold, |_| {})?;
/// assert!(report.is_intact());
/// assert!(report.views[0].refolded);
/// # Ok::<(), quipu::Error>(())
/// ```
///
/// # Errors
/// `Locked` while the directory is open, or a backup into it is under way; `NotFound`, `NotQuipu`, `NewerFormat`; `Io`;
/// `StorageConflict` where the snapshot is in a store that a program brings along ([`Options::verify`]).
/// Damage is not an error: it is in the report.
pub fn verify(
    dir: impl AsRef<Path>,
    depth: Depth,
    mut progress: impl FnMut(Progress),
) -> Result<VerifyReport> {
    verify_on(Arc::new(OsDisk), dir.as_ref(), &Options::new(), depth, &mut progress)
}

impl Options {
    /// [`verify`](super::verify()) of a directory whose snapshot is in a
    /// [store](Options::storage) that the program brings along; nothing else of the options matters. The
    /// rows in it are checked and compared with the log as redb's are; what the store is made of is its
    /// own to check.
    ///
    /// # Errors
    /// As there; `StorageConflict` where the directory has another store; those of the store.
    pub fn verify(
        &self,
        dir: impl AsRef<Path>,
        depth: Depth,
        mut progress: impl FnMut(Progress),
    ) -> Result<VerifyReport> {
        verify_on(Arc::new(OsDisk), dir.as_ref(), self, depth, &mut progress)
    }
}

pub(crate) fn verify_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    depth: Depth,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport> {
    if let Some(report) = super::restore::verify_backup(&disk, dir, progress)? {
        return Ok(report);
    }
    let site = Site::enter(disk, dir, Stay::Reading, options)?;
    Verification::run(&site, depth, progress).map(|verified| verified.report)
}

/// A directory that was verified, with what a repair needs to know of it.
pub(super) struct Verification<'a> {
    site: &'a Site,
    depth: Depth,
    progress: &'a mut dyn FnMut(Progress),
    done: Progress,
    pub(super) report: VerifyReport,
    pub(super) survey: Survey,
    /// Something in the store is damaged: its file, its catalog or one of its rows.
    pub(super) store_is_damaged: bool,
    /// The replica of the first records of the log, if a change of it is in there.
    pub(super) replica: Option<u128>,
}

impl<'a> Verification<'a> {
    fn begin(site: &'a Site, depth: Depth, progress: &'a mut dyn FnMut(Progress)) -> Self {
        Verification {
            site,
            depth,
            progress,
            done: Progress { done: 0, total: 0 },
            report: VerifyReport {
                snapshot_position: site.catalog.as_ref().map(|c| Position(c.position)),
                ..VerifyReport::new()
            },
            survey: Survey::default(),
            store_is_damaged: false,
            replica: None,
        }
    }

    pub(super) fn run(
        site: &'a Site,
        depth: Depth,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let mut this = Verification::begin(site, depth, progress);
        this.names()?;
        // The store first: what is in it says what a group of views will take. What is found there is
        // told behind what is found in the log.
        let of_names = this.report.findings.len();
        let rows = this.store()?;
        let of_store = this.report.findings.split_off(of_names);
        let views = site.catalog.as_ref().map(|catalog| catalog.views.clone()).unwrap_or_default();
        let refold = depth == Depth::Refold;
        let groups = if refold {
            let heap_bytes = |id| rows.of(id).heap_bytes;
            refold::groups(views.clone(), &heap_bytes, refold::GROUP_BYTES)
        } else {
            Vec::new()
        };
        let log_bytes = this.log_bytes();
        let store_bytes = this.bytes_of(&site.dir.join(STORE));
        this.done.total = log_bytes * groups.len().max(1) as u64 + store_bytes;
        this.step(store_bytes);
        let dictionary = Arc::new(Dictionary::new(0));
        let mut folded: Vec<Refold> = Vec::new();
        let as_of = site.catalog.as_ref().map_or(0, |catalog| catalog.position);
        let zone = site.catalog.as_ref().and_then(|catalog| catalog.zone).unwrap_or_default();
        let mut first =
            Refold::new(groups.first().map_or(&[], Vec::as_slice), zone, as_of, &dictionary);
        let (mut events, mut replica) = (0, None);
        let mut replicas = Replicas::new(site.home.identity);
        this.log(refold.then_some(&dictionary), &mut |entry, position| {
            let is_held = position <= as_of;
            match entry {
                reader::Entry::Events(columns) if is_held => {
                    events += columns.len() as u64;
                    let origin = columns.extras.origin;
                    if let Some(origin) = origin {
                        replicas.cover(origin, columns.len());
                    }
                }
                reader::Entry::Control(Control::Replica { id, before }) => {
                    replica.get_or_insert(*before);
                    if is_held {
                        replicas.begin(position, *id, *before);
                    }
                }
                _ => {}
            }
            first.apply(entry, position);
        })?;
        this.replica = replica;
        this.count_events(events, as_of);
        this.check_replicas(&replicas, as_of);
        this.report.findings.extend(of_store);
        folded.push(first);
        for group in groups.iter().skip(1) {
            // One after the other: that is what bounds the memory.
            if let Some(folded) = folded.pop() {
                this.compare(&folded, &rows)?;
            }
            let mut next = Refold::new(group, zone, as_of, &dictionary);
            this.fold_again(&dictionary, &mut next)?;
            folded.push(next);
        }
        for folded in folded {
            this.compare(&folded, &rows)?;
        }
        this.views(&views, &rows);
        this.integrity()?;
        this.step(0);
        Ok(this)
    }

    fn found(&mut self, finding: Finding) {
        self.report.findings.push(finding);
    }

    fn step(&mut self, bytes: u64) {
        self.report.bytes += bytes;
        self.done.done = (self.done.done + bytes).min(self.done.total);
        (self.progress)(self.done);
    }

    fn bytes_of(&self, path: &Path) -> u64 {
        self.site.disk.open(path, Access::Read).and_then(|file| file.len()).unwrap_or(0)
    }

    fn log_bytes(&self) -> u64 {
        let log = &self.site.home.dir;
        let numbers = segment::numbers(&*self.site.disk, log).unwrap_or_default();
        numbers.iter().map(|number| self.bytes_of(&log.join(segment::name(*number)))).sum()
    }

    /// Looks at the names in the directory and at the manifest.
    fn names(&mut self) -> Result<()> {
        let site = self.site;
        if let Some(what) = &site.manifest_damage {
            let path = site.dir.join(manifest::NAME);
            self.found(Finding::new(&path, Meaning::Corruption, what));
        }
        if let Some(error) = &site.store_damage {
            self.store_is_damaged = true;
            self.found(Finding::of(error, &site.place()));
        }
        let missed = site.catalog.is_none() && site.store_damage.is_none();
        if missed && site.resume.oldest > 1 {
            let what = format!(
                "the snapshot is missing, and the log begins with segment {}: what was recorded \
                 before is lost, unless the snapshot is put back",
                site.resume.oldest
            );
            self.store_is_damaged = true;
            self.found(Finding::new(&site.place(), Meaning::Corruption, what));
        }
        let list = |dir: &Path| {
            let names = site.disk.list(dir);
            names.map_err(|e| Error::io("look at the directory", dir, e))
        };
        let left = "left by a crash; it is replaced when its name is needed";
        let ours = [LOCK, LOG, QUARANTINE, manifest::NAME, stage::NAME];
        let is_ours = |name: &String| {
            ours.contains(&name.as_str()) || (name == STORE && site.place().ends_with(STORE))
        };
        for name in list(&site.dir)?.iter().filter(|name| !is_ours(name)) {
            let path = site.dir.join(name);
            let unfinished = [manifest::UNFINISHED, "state.redb.new", REPAIRED, stage::UNFINISHED]
                .contains(&name.as_str());
            let (meaning, what) = if unfinished {
                (Meaning::Leftover, left)
            } else if name == STORE {
                let what = "the snapshot from before it went to another store; the next opening puts \
                            it aside";
                (Meaning::Leftover, what)
            } else {
                (Meaning::Foreign, "not a file of Quipu's; it is left alone")
            };
            self.found(Finding::new(&path, meaning, what));
        }
        let numbers = segment::numbers(&*site.disk, &site.home.dir)?;
        for name in list(&site.home.dir)? {
            let path = site.home.dir.join(&name);
            if numbers.iter().any(|number| segment::name(*number) == name) {
                continue;
            }
            let (meaning, what) = if path.extension().is_some_and(|end| end == "new") {
                (Meaning::Leftover, left)
            } else {
                (Meaning::Foreign, "not a segment of the log; it is left alone")
            };
            self.found(Finding::new(&path, meaning, what));
        }
        let strays = segment::strays(&site.home, site.resume.oldest, site.resume.made)?;
        let is_stray = |number: &u64| strays.iter().any(|stray| stray.number == *number);
        let retired = numbers.iter().filter(|number| **number < site.resume.oldest);
        for number in retired.filter(|number| !is_stray(number)) {
            let path = site.home.dir.join(segment::name(*number));
            let what = "a retired segment; the next opening removes it";
            self.found(Finding::new(&path, Meaning::Leftover, what));
        }
        Ok(())
    }

    fn log(
        &mut self,
        dictionary: Option<&Arc<Dictionary>>,
        see: &mut dyn FnMut(&reader::Entry<'_>, u64),
    ) -> Result<()> {
        let site = self.site;
        let mut apply = |entry: reader::Entry<'_>, header: &crate::log::frame::Header| {
            see(&entry, header.position);
            Ok(())
        };
        let progress = &mut |bytes| self.step(bytes);
        let survey = survey(&site.home, site.resume, dictionary, &mut apply, progress)?;
        if let Some(damage) = site.stage_damage()? {
            self.found(damage.finding(&site.dir.join(stage::NAME)));
        }
        for stray in &survey.strays {
            self.found(Finding::new(&stray.path, Meaning::Corruption, &*stray.what));
        }
        for segment in &survey.segments {
            self.report.segments += u64::from(!matches!(segment.beginning, Beginning::Missing));
            self.report.frames += segment.frames;
            self.report.records += segment.records;
            findings_of(segment, &mut self.report.findings);
        }
        if site.catalog.is_none()
            && site.store_damage.is_none()
            && let Some(positions) = survey.given_up.first()
        {
            let what = "the snapshot is missing, and an earlier repair gave up records that may \
                        have been in it";
            let mut finding = Finding::new(&site.place(), Meaning::Corruption, what);
            finding.positions = Positions::of(positions);
            self.store_is_damaged = true;
            self.found(finding);
        }
        for positions in &survey.given_up {
            let what = "records that an earlier repair gave up";
            let mut finding = Finding::new(&site.home.dir, Meaning::GivenUp, what);
            finding.positions = Positions::of(positions);
            self.found(finding);
        }
        self.report.first_position = survey.first().map(Position);
        self.report.last_position = Position(survey.next.saturating_sub(1));
        self.survey = survey;
        Ok(())
    }

    /// Whether the log has every record of these positions.
    fn has(&self, positions: &Range<u64>) -> bool {
        if positions.is_empty() {
            return true;
        }
        let begins = self.survey.first().unwrap_or(u64::MAX);
        let mut missing = self.survey.lost().chain(self.survey.given_up.iter().cloned());
        begins <= positions.start
            && !missing.any(|lost| lost.start < positions.end && positions.start < lost.end)
    }

    fn count_events(&mut self, events: u64, as_of: u64) {
        let Some(catalog) = &self.site.catalog else { return };
        if self.depth == Depth::Refold && self.has(&(1..as_of + 1)) && catalog.events != events {
            let what = format!(
                "the catalog counts {} events up to position {as_of}, the log has {events}",
                catalog.events
            );
            self.store_is_damaged = true;
            self.found(Finding::new(&self.site.place(), Meaning::Corruption, what));
        }
    }

    fn check_replicas(&mut self, replicas: &Replicas, as_of: u64) {
        let Some(catalog) = &self.site.catalog else { return };
        let stored = catalog.replicas(self.site.home.identity);
        let is_known = as_of > 0 && self.has(&(1..as_of + 1));
        if self.depth == Depth::Refold && is_known && stored != *replicas {
            let what = "the catalog says otherwise than the log which events of other replicas are \
                        here";
            self.store_is_damaged = true;
            self.found(Finding::new(&self.site.dir.join(STORE), Meaning::Corruption, what));
        }
    }

    fn fold_again(&mut self, dictionary: &Arc<Dictionary>, next: &mut Refold) -> Result<()> {
        let site = self.site;
        let mut apply = |entry: reader::Entry<'_>, header: &crate::log::frame::Header| {
            next.apply(&entry, header.position);
            Ok(())
        };
        let progress = &mut |bytes| self.step(bytes);
        survey(&site.home, site.resume, Some(dictionary), &mut apply, progress)?;
        Ok(())
    }

    /// Checks every row of the store by itself.
    fn store(&mut self) -> Result<Rows<'a>> {
        let site = self.site;
        let mut rows = Rows::new(site.catalog.as_ref(), self.depth);
        let path = site.place();
        let Some(storage) = &site.storage else { return Ok(rows) };
        for table in Table::ALL {
            let mut found = Vec::new();
            // For each its own: what goes wrong with one may end the one that was made before.
            let snapshot = storage.snapshot()?;
            let read = storage.each(table, &mut |key, value| {
                self.report.rows += 1;
                found.extend(rows.check(&*snapshot, table, key, value).err());
            });
            match read {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Corruption => found.push(format!(
                    "{}; what follows in the table {:?} was not looked at",
                    error.message(),
                    format!("{table:?}").to_lowercase()
                )),
                Err(error) => return Err(error),
            }
            self.store_is_damaged |= !found.is_empty();
            for what in found {
                self.found(Finding::new(&path, Meaning::Corruption, what));
            }
        }
        Ok(rows)
    }

    fn compare(&mut self, folded: &Refold, rows: &Rows<'_>) -> Result<()> {
        let site = self.site;
        let (Some(storage), Some(catalog)) = (&site.storage, &site.catalog) else {
            return Ok(());
        };
        let path = site.place();
        let snapshot = storage.snapshot()?;
        for id in folded.ids() {
            let Some(view) = catalog.views.iter().find(|view| view.id == id) else { continue };
            if self.why_not(view).is_some() {
                continue;
            }
            let stored = rows.of(id).series;
            let before = self.report.findings.len();
            let findings = &mut self.report.findings;
            match folded.compare(id, &*snapshot, stored, &path, findings) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Corruption => {
                    findings.push(Finding::of(&error, &path));
                }
                Err(error) => return Err(error),
            }
            self.store_is_damaged |= self.report.findings.len() > before;
        }
        Ok(())
    }

    /// Why a view cannot be folded again.
    fn why_not(&self, view: &StoredView) -> Option<String> {
        let as_of = self.site.catalog.as_ref().map_or(0, |catalog| catalog.position);
        let missing = refold::holds(view, as_of).into_iter().find(|range| !self.has(range));
        if self.depth == Depth::Checksums {
            return Some("it was not asked for".to_owned());
        }
        if view.converted.is_some() {
            return Some("its buckets were converted from those of another definition".to_owned());
        }
        missing.map(|range| {
            let begins = self.survey.first();
            if begins.is_none_or(|begins| begins > range.start) {
                format!("the log does not reach back to position {}", range.start)
            } else {
                "the log has not all of its records".to_owned()
            }
        })
    }

    fn views(&mut self, views: &[StoredView], rows: &Rows<'_>) {
        let path = self.site.place();
        for view in views {
            let Counted { series, blocks: there, named_blocks: named, .. } = rows.of(view.id);
            let name = view.view.name();
            // Damaged rows are not counted; where there are some, the difference is known.
            if !self.store_is_damaged && series != view.rows {
                let what = format!(
                    "view {name:?} has {series} stored series, its catalog says {}",
                    view.rows
                );
                self.store_is_damaged = true;
                self.found(Finding::new(&path, Meaning::Corruption, what));
            }
            if !self.store_is_damaged && named != there {
                let what = format!(
                    "view {name:?} has {there} stored blocks of buckets, its series name {named}"
                );
                self.store_is_damaged = true;
                self.found(Finding::new(&path, Meaning::Corruption, what));
            }
            let why_not = self.why_not(view);
            self.report.views.push(VerifiedView {
                name: name.to_owned(),
                is_successor: view.backfill.is_succeeding(),
                series,
                refolded: why_not.is_none(),
                why_not,
            });
        }
    }

    /// Lets the store check its pages. Last, because what it finds it mends, in memory.
    fn integrity(&mut self) -> Result<()> {
        let Some(Store::Redb(storage)) = &self.site.storage else { return Ok(()) };
        let what = match storage.check_integrity() {
            Ok(true) => return Ok(()),
            Ok(false) => "pages of the store are not what its own checksums say".to_owned(),
            Err(error) if error.kind() == ErrorKind::Corruption => error.message().to_owned(),
            Err(error) => return Err(error),
        };
        self.store_is_damaged = true;
        self.found(Finding::new(&self.site.place(), Meaning::Corruption, what));
        Ok(())
    }
}

pub(super) fn turned_back(bit: u8) -> String {
    format!("bit {bit} of this byte is flipped; it can be turned back")
}

/// What is wrong with a segment. Stretches that lie side by side are one finding.
fn findings_of(segment: &Surveyed, findings: &mut Vec<Finding>) {
    let new = |what: String| Finding::new(&segment.path, Meaning::Corruption, what);
    match &segment.beginning {
        Beginning::Intact | Beginning::Missing => {}
        Beginning::Damaged { salt } => {
            let what = match salt {
                Some(_) => "the segment's header is damaged; its frames can be read all the same",
                None => "the segment's header is damaged",
            };
            findings.push(new(what.to_owned()).at(0..segment::HEADER_BYTES as u64));
        }
        Beginning::Foreign { what, .. } => findings.push(new(what.clone()).at(0..0)),
    }
    let mut open: Option<Stretch> = None;
    for piece in &segment.pieces {
        let (positions, why, intact) = match &piece.state {
            PieceState::Kept => (None, "", false),
            PieceState::Mended { byte, bit } => {
                findings.extend(open.take().map(|stretch| stretch.finding(segment)));
                let what = turned_back(*bit);
                findings.push(new(what).at(*byte..*byte + 1));
                continue;
            }
            PieceState::Damaged { positions, why, .. } => (Some(positions), *why, false),
            PieceState::Unreadable { positions, why } => (Some(positions), *why, true),
        };
        match (&mut open, positions) {
            (Some(stretch), Some(positions))
                if intact
                    && stretch.bytes.end == piece.bytes.start
                    && stretch.positions.end == positions.start =>
            {
                (stretch.bytes.end, stretch.positions.end) = (piece.bytes.end, positions.end);
                stretch.unreadable += 1;
            }
            (_, positions) => {
                findings.extend(open.take().map(|stretch| stretch.finding(segment)));
                open = positions.map(|positions| Stretch {
                    bytes: piece.bytes.clone(),
                    positions: positions.clone(),
                    why,
                    unreadable: 0,
                });
            }
        }
    }
    findings.extend(open.map(|stretch| stretch.finding(segment)));
    if let Some(litter) = &segment.litter {
        let what = "behind the segment's last frame there is something that is not blank";
        findings.push(new(what.to_owned()).at(litter.clone()));
    }
    if let Some(tail) = segment.tail.as_ref().filter(|tail| !tail.is_empty()) {
        let what = "the unsynced tail of the log; the next opening cuts it";
        findings.push(Finding::new(&segment.path, Meaning::UnsyncedTail, what).at(tail.clone()));
    }
}

/// Lost pieces side by side: a damage, and the intact frames that cannot be read without it.
struct Stretch {
    bytes: Range<u64>,
    positions: Range<u64>,
    why: &'static str,
    unreadable: u64,
}

impl Stretch {
    fn finding(self, segment: &Surveyed) -> Finding {
        let mut what = self.why.to_owned();
        if self.unreadable > 0 {
            let n = self.unreadable;
            what.push_str("; frames behind it that are intact and use strings it defines: ");
            what.push_str(&n.to_string());
        }
        let mut finding = Finding::new(&segment.path, Meaning::Corruption, what);
        if !matches!(segment.beginning, Beginning::Missing) {
            finding = finding.at(self.bytes);
        }
        finding.positions = Positions::of(&self.positions);
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Grain, Keep, TestClock, TimeZone, Timestamp, View};

    /// Views that differ in what takes the memory: keys, buckets, the aggregates in the buckets.
    fn views() -> [View; 4] {
        [
            View::new("keys").by(["user"]),
            View::new("pairs").by(["user", "hour"]).stats("value"),
            View::new("minutes").by(["shop"]).grain(Grain::Minute, Keep::All),
            View::new("stats").by(["shop"]).stats("value").grain(Grain::Minute, Keep::All),
        ]
    }

    #[test]
    fn views_are_folded_together_by_what_their_series_and_buckets_take() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("db");
        let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
        let db = Options::new().clock(clock).open(&dir).unwrap();
        for view in views() {
            db.define(view).unwrap();
        }
        for n in 0..20_000 {
            let (user, shop) = (format!("user {}", n % 3_000), format!("shop {}", n % 3));
            let (at, hour) = (Timestamp::from_secs(n * 60), (n / 60 % 24).to_string());
            let event = Event::new("e").at(at).dim("user", &user).dim("shop", &shop);
            db.record(&event.dim("hour", &hour).value(n as f64)).unwrap();
        }
        db.close().unwrap();

        let site = Site::enter(Arc::new(OsDisk), &dir, Stay::Reading, &Options::new()).unwrap();
        let mut quietly = |_| {};
        let mut verification = Verification::begin(&site, Depth::Refold, &mut quietly);
        let rows = verification.store().unwrap();
        let heap_bytes = |id| rows.of(id).heap_bytes;
        let stored = site.catalog.as_ref().unwrap().views.clone();
        let dictionary = Arc::new(Dictionary::new(0));
        for view in &stored {
            let expected = refold::expected_bytes(view, heap_bytes(view.id));
            let one = std::slice::from_ref(view);
            let mut folded = Refold::new(one, TimeZone::UTC, u64::MAX - 1, &dictionary);
            verification.fold_again(&dictionary, &mut folded).unwrap();
            let taken = folded.memory_bytes();
            let name = view.view.name();
            assert!(expected >= taken, "{name}: {taken} bytes, of which {expected} were expected");
            assert!(expected < taken * 4, "{name}: {taken} bytes, {expected} were expected");
        }
        // Together up to the size of a group, and in their order; what is larger is alone.
        let of = |view: &StoredView| refold::expected_bytes(view, heap_bytes(view.id));
        for group_bytes in [1, of(&stored[0]) + of(&stored[1]), u64::MAX] {
            let groups = refold::groups(stored.clone(), &heap_bytes, group_bytes);
            let ids = groups.iter().flatten().map(|view| view.id);
            assert!(ids.eq(stored.iter().map(|view| view.id)));
            for group in &groups {
                let bytes: u64 = group.iter().map(of).sum();
                assert!(bytes <= group_bytes || group.len() == 1, "{bytes} of {group_bytes}");
            }
        }
        assert_eq!(refold::groups(stored.clone(), &heap_bytes, 1).len(), 4);
        assert_eq!(refold::groups(stored, &heap_bytes, u64::MAX).len(), 1);
    }
}
