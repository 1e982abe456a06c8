//! A store that the program brought along, behind a door that lets nothing strange in.
//!
//! Invariants
//! 1. A panic in it is an error, as it is of redb's: a checkpoint in the background goes on with the
//!    next one, and what was to be written stays to be written.
//! 2. Its errors say which store it was and whose directory, and have a kind that the engine decides
//!    by: `Corruption`, `NoSpace`, or `Io`.
//! 3. A range is in order, in its bounds and no longer than asked for, or it is corruption.
//!
//! What is stored under a key is judged by its seal (`codec.rs`), not here. Next: `snapshot/check.rs`.

use super::{Changes, Row, Snapshot, Start, Storage, Table, message_of};
use crate::error::{Error, ErrorKind, Result};
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Open = dyn Fn(&Path) -> Result<Box<dyn Storage>> + Send + Sync;

/// How a store is opened, and the name under which a directory knows it.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) name: String,
    open: Arc<Open>,
}

impl Opener {
    pub(crate) fn new<S: Storage + 'static>(
        name: String,
        open: impl Fn(&Path) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        let open = move |dir: &Path| Ok(Box::new(open(dir)?) as Box<dyn Storage>);
        Opener { name, open: Arc::new(open) }
    }

    /// Opens the store of the directory `dir`.
    pub(crate) fn open(&self, dir: &Path) -> Result<Guest> {
        let place = Place { name: self.name.clone(), dir: dir.to_owned() };
        let inner = place.call(|| (self.open)(dir))?;
        Ok(Guest { place, inner })
    }
}

pub(crate) struct Guest {
    place: Place,
    inner: Box<dyn Storage>,
}

/// Which store it is, and whose.
struct Place {
    name: String,
    dir: PathBuf,
}

impl Place {
    /// Calls the store (invariants 1 and 2).
    fn call<R>(&self, run: impl FnOnce() -> Result<R>) -> Result<R> {
        let called = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::Io, format!("it panicked: {}", message_of(&*panic))))
        });
        called.map_err(|error| {
            let kind = match error.kind() {
                kind @ (ErrorKind::Corruption | ErrorKind::NoSpace) => kind,
                _ => ErrorKind::Io,
            };
            let told = error.told_of(kind, &format!("the store {:?} of the snapshot", self.name));
            told.at(&self.dir, None)
        })
    }
}

impl Storage for Guest {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let inner = self.place.call(|| self.inner.snapshot())?;
        Ok(Box::new(GuestSnapshot { place: &self.place, inner }))
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        self.place.call(|| self.inner.commit(changes))
    }

    fn close(&self) -> Result<()> {
        self.place.call(|| self.inner.close())
    }
}

struct GuestSnapshot<'a> {
    place: &'a Place,
    inner: Box<dyn Snapshot + 'a>,
}

impl Snapshot for GuestSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.place.call(|| self.inner.get(table, key))
    }

    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let Some(bounds) = from.bounds(to) else { return Ok(Vec::new()) };
        self.place.call(|| {
            let rows = self.inner.range(table, from, to, limit)?;
            let is_ordered = rows.is_sorted_by(|(a, _), (b, _)| a < b);
            let is_inside =
                rows.iter().all(|(key, _)| RangeBounds::<[u8]>::contains(&bounds, key.as_slice()));
            if is_ordered && is_inside && rows.len() <= limit {
                return Ok(rows);
            }
            let message = "it gave rows that are out of order, or were not asked for";
            Err(Error::new(ErrorKind::Corruption, message))
        })
    }
}
