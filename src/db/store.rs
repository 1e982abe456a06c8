//! Which store has the snapshot of a directory, and how a directory goes over to another one.
//!
//! Invariants
//! 1. The manifest names the store, and no other is believed: what else a store holds is of an earlier
//!    time, and could be behind the log by more than the log can say.
//! 2. A change is one write of the manifest. Before it the new store is emptied, and what it is to
//!    begin with is durable in it. So a crash leaves a directory that has its old store, whole, or its
//!    new one.
//! 3. Only rows of redb's are copied: a guest that is not brought along cannot be opened. Out of one the
//!    snapshot is made again from the log, if that says all.
//! 4. What is damaged or no longer used of redb's is put aside, never deleted; a guest's own is its own.

use super::catalog::Catalog;
use super::open::{STORE, put_aside, quarantine};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Home;
use crate::log::reader;
use crate::manifest::{Manifest, StoreName};
use crate::options::Options;
use crate::snapshot::{self, Opener, RedbStorage, Storage as _, Store};
use crate::time::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The store that an opening goes on with.
pub(super) struct Opened {
    pub(super) storage: Store,
    /// What it says, or will say as soon as this is settled.
    pub(super) catalog: Catalog,
    /// What is wrong with the one that is there, in place of which this one is made.
    pub(super) damaged: Option<Error>,
    /// The directory goes over to it.
    change: Option<Change>,
}

struct Change {
    to: StoreName,
    /// The store that it had, if rows are copied.
    from: Option<RedbStorage>,
}

/// The store that an opening asks for.
pub(super) fn asked(options: &Options) -> Result<StoreName> {
    let Some(opener) = &options.storage else { return Ok(StoreName::REDB) };
    StoreName::of_guest(&opener.name).ok_or_else(|| {
        Error::invalid(format!(
            "no store can be called {:?}: its name has 1 to 8 of a-z, 0-9, - and _, and redb is the \
             one that a directory has by itself",
            opener.name
        ))
    })
}

/// Opens the store, changing nothing. In place of a damaged one of redb's a new one will be made, if
/// the log can say all that was in it.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    home: &Home,
    manifest: &Manifest,
    options: &Options,
) -> Result<Opened> {
    let (has, asked) = (manifest.store(), asked(options)?);
    if has != asked && !options.change_storage {
        return Err(conflict(has, asked, dir));
    }
    let redb = || of_redb(disk, dir, home, manifest.segments_made());
    let says_all = || reader::is_complete(home, manifest.segments_made());
    match &options.storage {
        None if has == asked => redb(),
        Some(opener) if has == asked => of_guest(opener, dir, home, &says_all),
        Some(opener) if has == StoreName::REDB => {
            let Opened { storage, catalog, damaged, .. } = redb()?;
            let from = match storage {
                Store::Redb(old) if catalog.is_stored() => {
                    // Its rows will be written elsewhere.
                    RedbStorage::check(disk, &dir.join(STORE))?;
                    Some(old)
                }
                Store::Redb(_) | Store::Guest(_) => None,
            };
            let (storage, change) = (Store::Guest(opener.open(dir)?), Change { to: asked, from });
            Ok(Opened { storage, catalog, damaged, change: Some(change) })
        }
        other => {
            if manifest.segments_made() > 0 && !says_all()? {
                return Err(left_behind(has, asked, dir));
            }
            let storage = match other {
                None => Store::Redb(RedbStorage::anew(disk, &dir.join(STORE))?),
                Some(opener) => Store::Guest(opener.open(dir)?),
            };
            let change = Some(Change { to: asked, from: None });
            Ok(Opened { storage, catalog: Catalog::default(), damaged: None, change })
        }
    }
}

fn of_redb(disk: &Arc<dyn Disk>, dir: &Path, home: &Home, made: u64) -> Result<Opened> {
    let path = dir.join(STORE);
    let opened = RedbStorage::open(disk, &path).and_then(|storage| {
        let catalog = Catalog::read(&*storage.snapshot()?, &path, home.identity)?;
        Ok((storage, catalog, None))
    });
    let (storage, catalog, damaged) = match opened {
        Err(error) if error.kind() == ErrorKind::Corruption && reader::is_complete(home, made)? => {
            (RedbStorage::anew(disk, &path)?, Catalog::default(), Some(error))
        }
        opened => opened?,
    };
    Ok(Opened { storage: Store::Redb(storage), catalog, damaged, change: None })
}

fn of_guest(
    opener: &Opener,
    dir: &Path,
    home: &Home,
    says_all: &dyn Fn() -> Result<bool>,
) -> Result<Opened> {
    let opened = opener.open(dir).and_then(|storage| {
        let catalog = Catalog::read(&*storage.snapshot()?, dir, home.identity)?;
        Ok(Opened { storage: Store::Guest(storage), catalog, damaged: None, change: None })
    });
    match opened {
        Err(error) if error.kind() == ErrorKind::Corruption && says_all()? => {
            let message = format!(
                "{}; or give it an empty store: the log, which reaches back to its beginning, says all \
                 that was in this one",
                error.message()
            );
            Err(Error::new(ErrorKind::Corruption, message).at(dir, None))
        }
        opened => opened,
    }
}

impl Opened {
    /// Where what it holds is, for errors.
    pub(super) fn place(&self, dir: &Path) -> PathBuf {
        place(&self.storage, dir)
    }

    /// Why the catalog says nothing, where it does not.
    pub(super) fn lost(&self) -> &str {
        match (&self.damaged, &self.change) {
            (Some(error), _) => error.message(),
            (None, Some(_)) => "it stays in the store that the directory had",
            (None, None) => "missing",
        }
    }

    /// Brings the stores in order: nothing is refused any more.
    pub(super) fn settle(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        manifest: &Manifest,
        now: Timestamp,
    ) -> Result<()> {
        if let Some(error) = &self.damaged {
            let to = quarantine(disk, dir, now)?;
            put_aside(disk, dir, STORE, &to)?;
            let to = to.display();
            tracing::warn!(%error, %to, "a damaged snapshot was put aside and is rebuilt");
        }
        if let Some(Change { to, from }) = self.change.take() {
            if let Store::Guest(_) = &self.storage {
                snapshot::clear(&self.storage)?;
                if let Some(from) = &from {
                    snapshot::copy(&*from.snapshot()?, &self.storage)?;
                }
            } else {
                // Of a time before the one with the store that it had.
                retire_redb(disk, dir, now)?;
            }
            tracing::info!(dir = %dir.display(), from = %manifest.store(), %to, "another store");
            manifest.note_store(to)?;
        }
        if let Store::Guest(_) = &self.storage {
            retire_redb(disk, dir, now)?;
        }
        Ok(())
    }
}

/// Puts the snapshot of redb's aside, if there is one, where another store has it.
fn retire_redb(disk: &dyn Disk, dir: &Path, now: Timestamp) -> Result<()> {
    let path = dir.join(STORE);
    if disk.exists(&path).map_err(|e| Error::io("look at", &path, e))? {
        put_aside(disk, dir, STORE, &quarantine(disk, dir, now)?)?;
    }
    Ok(())
}

/// Where a store's rows are, for errors: redb's in its file, a guest's somewhere of its own.
pub(super) fn place(storage: &Store, dir: &Path) -> PathBuf {
    match storage {
        Store::Redb(_) => dir.join(STORE),
        Store::Guest(_) => dir.to_owned(),
    }
}

/// Refuses to look at a directory with another store than it has.
pub(super) fn check_asked(has: StoreName, asked: StoreName, dir: &Path) -> Result<()> {
    match (has == asked, asked) {
        (true, _) => Ok(()),
        (false, StoreName::REDB) => only_redb(
            has,
            dir,
            "it is verified and repaired with that at hand (Options::verify, Options::repair)",
        ),
        (false, _) => Err(conflict(has, asked, dir)),
    }
}

/// Refuses a directory whose snapshot is not in redb's file, to who `wants` just that.
pub(super) fn only_redb(has: StoreName, dir: &Path, wants: &str) -> Result<()> {
    if has == StoreName::REDB {
        return Ok(());
    }
    let message = format!(
        "the snapshot of this directory is in the store {has:?}, which only the program that brings it \
         along can read, and {wants}; ask that program, or let it take a backup, and restore that",
        has = has.to_string()
    );
    Err(Error::new(ErrorKind::StorageConflict, message).at(dir, None))
}

fn conflict(has: StoreName, asked: StoreName, dir: &Path) -> Error {
    let message = format!(
        "the snapshot of this directory is in the store {:?}, and it was opened with {:?}; open it with \
         the first one (Options::storage; redb is the one without that), or let it go over to the \
         other (Options::change_storage)",
        has.to_string(),
        asked.to_string()
    );
    Error::new(ErrorKind::StorageConflict, message).at(dir, None)
}

/// The log does not say what is in the store that is left.
fn left_behind(has: StoreName, asked: StoreName, dir: &Path) -> Error {
    let message = format!(
        "the snapshot cannot go over from the store {:?} to {:?}: the log no longer reaches back to \
         its beginning, so it does not say all that is there; open it with the first one, take a \
         backup, and restore that to a directory with redb's",
        has.to_string(),
        asked.to_string()
    );
    Error::new(ErrorKind::StorageConflict, message).at(dir, None)
}
