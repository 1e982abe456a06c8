//! A directory that is looked at as it is, damaged or not, without being opened.
//!
//! Invariants
//! 1. Nothing is written: the store is opened held back. The lock is taken, by those who only look
//!    shared with each other and without a right to write; it is made only for whoever comes to change
//!    something. For those the names that are found are made durable: an
//!    earlier repair may have died behind a rename, and there would be nothing left to do.
//! 2. Whose directory it is, and where its log begins, is found out whatever file says it no longer.

use super::catalog::Catalog;
use super::open::{LOCK, LOG, STORE, staged_events};
use super::store;
use super::verify::{Finding, Meaning, turned_back};
use crate::disk::{Access, Disk, Filling, Lock, Sharing};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Home;
use crate::log::reader::{self, Resume};
use crate::log::segment::{self, RawHeader, Segment};
use crate::log::stage::{Flipped, Staged};
use crate::manifest::{self, Manifest, State, StoreName};
use crate::options::Options;
use crate::snapshot::{RedbStorage, Storage as _, Store};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory that is looked at without being opened.
pub(super) struct Site {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) home: Home,
    pub(super) manifest: Manifest,
    /// Why the manifest that is there is not that one.
    pub(super) manifest_damage: Option<String>,
    pub(super) storage: Option<Store>,
    pub(super) catalog: Option<Catalog>,
    /// Why there is no storage, or no catalog in it.
    pub(super) store_damage: Option<Error>,
    pub(super) resume: Resume,
    _lock: Option<Lock>,
}

/// What somebody wants in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    Reading,
    Changing,
}

impl Site {
    pub(super) fn enter(
        disk: Arc<dyn Disk>,
        dir: &Path,
        stay: Stay,
        options: &Options,
    ) -> Result<Self> {
        let asked = store::asked(options)?;
        let fail = |e| Error::io("look at the directory", dir, e);
        if !disk.exists(dir).map_err(fail)? {
            let message = "there is no such directory";
            return Err(Error::new(ErrorKind::NotFound, message).at(dir, None));
        }
        super::open::refuse_other_kinds(dir, &disk.list(dir).map_err(fail)?)?;
        let log = dir.join(LOG);
        let has_store = disk.exists(&dir.join(STORE)).map_err(fail)?;
        let has_manifest = disk.exists(&dir.join(manifest::NAME)).map_err(fail)?;
        if !has_store && !has_manifest && segment::numbers(&*disk, &log)?.is_empty() {
            let message = "the directory holds no data of Quipu's";
            return Err(Error::new(ErrorKind::NotFound, message).at(dir, None));
        }
        // Whoever has it open has made the file; to make one here would change the directory.
        let lock = match stay {
            Stay::Changing => Some(Sharing::Nobody),
            Stay::Reading => {
                disk.exists(&dir.join(LOCK)).map_err(fail)?.then_some(Sharing::Readers)
            }
        };
        let lock = lock.map(|sharing| super::open::lock(&*disk, dir, sharing)).transpose()?;
        if stay == Stay::Changing {
            super::open::settle_names(&*disk, dir)?;
            if disk.exists(&log).map_err(fail)? {
                disk.sync_dir(&log).map_err(fail)?;
            }
        }
        let numbers = segment::numbers(&*disk, &log)?;
        let (manifest, manifest_damage) = match Manifest::open(disk.clone(), dir) {
            Ok(Some(manifest)) => match strangers(&disk, &log, &numbers, manifest.identity)? {
                Some(_) if stored_identity(&disk, dir, options)? != Some(manifest.identity) => {
                    let what = "the manifest belongs to another directory than all segments do";
                    (reconstruct(&disk, dir, &numbers, options)?, Some(what.to_owned()))
                }
                _ => (manifest, None),
            },
            Err(error) if error.kind() == ErrorKind::NotQuipu && numbers.is_empty() => {
                return Err(error);
            }
            Err(error) if !matches!(error.kind(), ErrorKind::NotQuipu | ErrorKind::Corruption) => {
                return Err(error);
            }
            damaged => {
                let what = match damaged {
                    Err(error) => error.message().to_owned(),
                    Ok(_) => "the manifest is missing".to_owned(),
                };
                (reconstruct(&disk, dir, &numbers, options)?, Some(what))
            }
        };
        let (filling, identity) = (Filling::Reserved, manifest.identity);
        let home = Home { disk: disk.clone(), dir: log, identity, filling };
        store::check_asked(manifest.store(), asked, dir)?;
        let (mut storage, mut catalog, mut store_damage) = (None, None, None);
        if has_store || asked != StoreName::REDB {
            let opened = inspect(&disk, dir, options).and_then(|storage| {
                let place = store::place(&storage, dir);
                let catalog = Catalog::read(&*storage.snapshot()?, &place, identity);
                Ok((storage, catalog))
            });
            match opened {
                Ok((opened, Ok(read))) => {
                    storage = Some(opened);
                    // Without one, no checkpoint was made.
                    catalog = Some(read).filter(Catalog::is_stored);
                }
                Ok((opened, Err(error))) => {
                    storage = Some(opened);
                    store_damage = Some(error);
                }
                Err(error) => store_damage = Some(error),
            }
            if let Some(error) = store_damage.take_if(|e| e.kind() != ErrorKind::Corruption) {
                return Err(error);
            }
        }
        let resume = match &catalog {
            Some(catalog) => catalog.resume(manifest.segments_made()),
            None => without_snapshot(&home, &numbers, manifest.segments_made())?,
        };
        let dir = dir.to_owned();
        Ok(Site {
            disk,
            dir,
            home,
            manifest,
            manifest_damage,
            storage,
            catalog,
            store_damage,
            resume,
            _lock: lock,
        })
    }
}

/// Where the log is read from when there is no catalog to say it: from its oldest segment.
fn without_snapshot(home: &Home, numbers: &[u64], made: u64) -> Result<Resume> {
    let oldest = numbers.first().copied().unwrap_or(1);
    let mut position = 0;
    if oldest > 1 {
        // What came before was retired, or is lost; nobody can say which.
        let first = Segment::open(home, oldest, Access::Read)
            .and_then(|segment| reader::first_frame(&segment));
        position = match first {
            Ok(header) => header.map_or(0, |header| header.position.saturating_sub(1)),
            Err(error) if error.kind() == ErrorKind::Corruption => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(Resume { oldest, segment: oldest, offset: 0, position, made })
}

/// The segments' headers, those that are whole.
fn headers(
    disk: &Arc<dyn Disk>,
    log: &Path,
    numbers: &[u64],
) -> Result<Vec<(u64, Option<RawHeader>)>> {
    let header = |number: &u64| {
        let header = RawHeader::of(&**disk, &log.join(segment::name(*number)))?;
        Ok((*number, header.filter(RawHeader::is_whole)))
    };
    numbers.iter().map(header).collect()
}

impl Site {
    /// Where the store has its rows, for errors and findings.
    pub(super) fn place(&self) -> PathBuf {
        match self.manifest.store() {
            StoreName::REDB => self.dir.join(STORE),
            _ => self.dir.clone(),
        }
    }

    /// What is wrong with the stage, if anything is.
    pub(super) fn stage_damage(&self) -> Result<Option<StageDamage>> {
        let staged = match Staged::read(&*self.disk, &self.dir, self.home.identity) {
            Err(error) if error.kind() == ErrorKind::Corruption => {
                return Ok(Some(StageDamage::Lost(error)));
            }
            read => read?,
        };
        if let Some(flipped) = staged.flipped() {
            return Ok(Some(StageDamage::Flipped(*flipped)));
        }
        let malformed = staged.groups().into_iter().find_map(|behind| {
            let error = staged_events(&staged, behind, &self.dir).find_map(Result::err)?;
            Some((error, behind))
        });
        Ok(malformed.map(|(error, behind)| {
            let lost = staged.cut_off(behind, error.offset().unwrap_or(0) as usize);
            StageDamage::Event { error, lost: lost.iter().map(|record| record.position).collect() }
        }))
    }
}

/// What is wrong with a stage.
pub(super) enum StageDamage {
    /// A bit of its header, which is turned back.
    Flipped(Flipped),
    /// It says nothing.
    Lost(Error),
    /// One of its events is none; its position, and those of the events behind it that are lost with it.
    Event { error: Error, lost: Vec<u64> },
}

impl StageDamage {
    /// What verifying says of it.
    pub(super) fn finding(&self, path: &Path) -> Finding {
        match self {
            StageDamage::Lost(error) | StageDamage::Event { error, .. } => Finding::of(error, path),
            StageDamage::Flipped(Flipped { byte, bit, .. }) => {
                let finding = Finding::new(path, Meaning::Corruption, turned_back(*bit));
                finding.at(*byte..*byte + 1)
            }
        }
    }
}

/// The identity that all segments have in common, if none has this one.
fn strangers(
    disk: &Arc<dyn Disk>,
    log: &Path,
    numbers: &[u64],
    identity: u128,
) -> Result<Option<u128>> {
    let headers = headers(disk, log, numbers)?;
    let mut identities = headers.iter().flat_map(|(_, header)| header).map(RawHeader::identity);
    let first = identities.next();
    let agree = identities.all(|identity| Some(identity) == first);
    Ok(first.filter(|first| agree && *first != identity))
}

/// Opens the store, be it there or not, to be read only.
fn inspect(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Store> {
    Ok(match &options.storage {
        None => Store::Redb(RedbStorage::inspect(disk, &dir.join(STORE))?),
        Some(opener) => Store::Guest(opener.open(dir)?),
    })
}

/// Whose directory the snapshot says that this is, if it can be read.
fn stored_identity(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Option<u128>> {
    let store = dir.join(STORE);
    let is_there = disk.exists(&store).map_err(|e| Error::io("look at", &store, e))?;
    if !is_there && options.storage.is_none() {
        return Ok(None);
    }
    let identity =
        inspect(disk, dir, options).and_then(|storage| Catalog::identity(&*storage.snapshot()?));
    Ok(identity.unwrap_or_default())
}

/// The manifest that the rest of the directory speaks of.
fn reconstruct(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    numbers: &[u64],
    options: &Options,
) -> Result<Manifest> {
    let mut identities: BTreeMap<u128, u64> = BTreeMap::new();
    let mut created = i64::MAX;
    let headers = headers(disk, &dir.join(LOG), numbers)?;
    for header in headers.iter().flat_map(|(_, header)| header) {
        *identities.entry(header.identity()).or_default() += 1;
        created = created.min(header.made_at());
    }
    if let Some(mended) = Manifest::mended(disk.clone(), dir)
        && (identities.is_empty() || identities.contains_key(&mended.identity))
    {
        return Ok(mended);
    }
    let stored = stored_identity(disk, dir, options)?
        .filter(|stored| identities.is_empty() || identities.contains_key(stored));
    let most = identities.iter().max_by_key(|(_, segments)| **segments);
    let identity = stored.or(most.map(|(identity, _)| *identity)).ok_or_else(|| {
        let message = "neither the manifest nor any segment says whose directory this is; put \
                       the manifest back from a backup";
        Error::corruption(&dir.join(manifest::NAME), 0, message)
    })?;
    let created = Timestamp::from_micros(if created == i64::MAX { 0 } else { created });
    // The last of those that say so of themselves, and what can no longer say it shortly behind.
    let ours = |(_, header): &&(u64, Option<RawHeader>)| {
        header.as_ref().is_some_and(|header| header.identity() == identity)
    };
    let last = headers.iter().rfind(ours).map_or(0, |(number, _)| *number);
    let near = last..=last.saturating_add(numbers.len() as u64);
    let silent =
        |(number, header): &&(u64, Option<RawHeader>)| header.is_none() && near.contains(number);
    let made = headers.iter().rfind(silent).map_or(last, |(number, _)| last.max(*number));
    let state = State { segments_made: made, store: store::asked(options)?, fork: 0 };
    Ok(Manifest::rebuilt(disk.clone(), dir, identity, created, state))
}
