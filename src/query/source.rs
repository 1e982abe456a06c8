//! Where a view's series come from, as a question sees it, and the keys by which it asks.
//!
//! Invariants
//! 1. What is read of a series is read where it is, under the lock of its shard: a reading closure
//!    takes no lock and asks no other series.

use crate::dictionary::{Dictionary, Sym};
use crate::error::Result;
use crate::key;
use crate::series::{Cell, Series};
use crate::sync::OnceLock;
use crate::time::{TimeZone, Timestamp};
use crate::view::View;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Where a view's series come from.
pub(crate) trait Source: Send + Sync {
    fn view(&self) -> &View;
    /// The time zone of the store.
    fn zone(&self) -> TimeZone;
    /// Whether something else answers in its place by now.
    fn has_successor(&self) -> bool;
    /// What answers in its place, if it does not any more.
    fn successor(&self) -> Result<Option<Arc<dyn Source>>>;
    /// The present moment by the store's clock.
    fn now(&self) -> Timestamp;
    /// The same to within some milliseconds, in less time.
    fn now_roughly(&self) -> Timestamp;
    /// Reads the series of a key once, if there is one; says whether there is.
    fn see(&self, key: &AskedKey<'_>, read: &mut dyn FnMut(&Series)) -> Result<bool>;
    /// Calls `see` with the series of every key whose first parts are these, the last of them being
    /// only the beginning of a text; in no order; it may be called while a lock is held. `between` is
    /// called now and then while none is, and can end it.
    fn each(
        &self,
        beginning: &[&str],
        depth: Depth,
        see: &mut dyn FnMut(KeyRef<'_>, &Series),
        between: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()>;
    /// Begins a scan in key order: the row keys in memory, greatest first.
    fn begin(&self, prefix: &[&str]) -> Result<Vec<Vec<u8>>>;
    /// Goes on with it behind `behind`; gives where to go on, `None` at the end.
    fn next_page(
        &self,
        prefix: &[&str],
        behind: Option<&[u8]>,
        resident: &mut Vec<Vec<u8>>,
        out: &mut dyn FnMut(KeyRef<'_>, &Cell),
    ) -> Result<Option<Vec<u8>>>;
    fn key_count(&self) -> Result<u64>;
}

/// How much of the series is read that a scan meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Their totals; where they come from the store their buckets are empty.
    Totals,
    Buckets,
}

/// A key that is asked for. Its syms are looked up once: they stay what they are until the engine is
/// closed.
pub(crate) struct AskedKey<'a> {
    parts: SmallVec<[Cow<'a, str>; 2]>,
    syms: OnceLock<SmallVec<[Sym; 4]>>,
}

impl<'a> AskedKey<'a> {
    pub(crate) fn of(parts: &[&'a str]) -> Self {
        AskedKey {
            parts: parts.iter().map(|part| Cow::Borrowed(*part)).collect(),
            syms: OnceLock::new(),
        }
    }

    /// One that can be kept.
    pub(super) fn kept(parts: &[&str]) -> AskedKey<'static> {
        AskedKey {
            parts: parts.iter().map(|part| Cow::Owned((*part).to_owned())).collect(),
            syms: OnceLock::new(),
        }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(Cow::as_ref)
    }

    /// The syms of its parts, which `find` finds as soon as there are some.
    #[inline]
    pub(crate) fn syms(
        &self,
        find: impl FnOnce(&mut dyn Iterator<Item = &str>) -> Option<SmallVec<[Sym; 4]>>,
    ) -> Option<&[Sym]> {
        if let Some(syms) = self.syms.get() {
            return Some(syms);
        }
        let found = find(&mut self.parts())?;
        Some(self.syms.get_or_init(|| found))
    }
}

impl fmt::Debug for AskedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

/// A key that is not spelled out yet.
#[derive(Clone, Copy)]
pub(crate) enum KeyRef<'a> {
    Syms(&'a [Sym], &'a Dictionary),
    Row(&'a [u8]),
}

impl KeyRef<'_> {
    pub(super) fn spell(&self) -> Vec<String> {
        match self {
            KeyRef::Syms(syms, dictionary) => {
                syms.iter().map(|sym| dictionary.text(*sym).to_owned()).collect()
            }
            KeyRef::Row(row) => key::parts(row).unwrap_or_default(),
        }
    }
}
