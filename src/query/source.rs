//! Where a view's series come from, as a question sees it, and the keys by which it asks.
//!
//! Invariants
//! 1. What is read of a series is read where it is, under the lock of its shard: a reading closure
//!    takes no lock and asks no other series.

use crate::dictionary::{Dictionary, Sym};
use crate::error::Result;
use crate::key;
use crate::series::{CellRef, SeriesRef};
use crate::sync::OnceLock;
use crate::time::{TimeZone, Timestamp};
use crate::versions::{Version, Versions};
use crate::view::View;
use smallvec::SmallVec;
use std::ops::ControlFlow;
use std::slice;
use std::sync::Arc;

/// Where a view's series come from.
pub(crate) trait Source: Send + Sync {
    fn view(&self) -> &View;
    /// The time zone of the store.
    fn zone(&self) -> TimeZone;
    /// Whether its buckets were converted from those of another definition.
    fn is_converted(&self) -> bool;
    /// Whether something else answers in its place by now.
    fn has_successor(&self) -> bool;
    /// What answers in its place, if it does not any more.
    fn successor(&self) -> Result<Option<Arc<dyn Source>>>;
    /// The present moment by the store's clock.
    fn now(&self) -> Timestamp;
    /// The same to within some milliseconds, in less time.
    fn now_roughly(&self) -> Timestamp;
    /// The key of these parts, to be asked for.
    fn key(&self, parts: &[&str]) -> AskedKey;
    /// The parts of a key.
    fn spell(&self, key: &AskedKey) -> Vec<String>;
    /// Reads the series of a key once, if there is one; says whether there is.
    fn see(&self, key: &AskedKey, read: &mut dyn FnMut(SeriesRef<'_>)) -> Result<bool>;
    /// What tells its engine from others that are open.
    fn engine(&self) -> usize;
    /// A number of the key, the same for as long as the engine is open, and for the same key of every
    /// view; none where a part of it was not seen since.
    fn number_of(&self, key: &AskedKey) -> Option<u64>;
    /// The same; its parts are known from now on.
    fn number(&self, key: &AskedKey) -> u64;
    /// Its syms, where all of them were seen, this view still answers, and what is recorded [is in it at
    /// once](Source::apply_at_once).
    fn at_hand<'k>(&self, key: &'k AskedKey) -> Option<&'k [Sym]>;
    /// [`see`](Source::see) of a key that is at hand. Where `read` says so, the [version](Source::versions)
    /// that its series was read at, if there is one.
    fn see_at_hand(
        &self,
        key: &AskedKey,
        read: &mut dyn FnMut(SeriesRef<'_>) -> bool,
    ) -> Result<Option<Version>>;
    /// Of its series.
    fn versions(&self) -> &Arc<Versions>;
    /// From now on a recorded event is in this view as soon as its call returns, whatever it waits for
    /// elsewhere.
    fn apply_at_once(&self) -> Result<()>;
    /// Calls `see` with the series of every key whose first parts are these, the last of them being
    /// only the beginning of a text; in no order; it may be called while a lock is held. `between` is
    /// called now and then while none is, and can end it.
    fn each(
        &self,
        beginning: &[&str],
        depth: Depth,
        see: &mut dyn FnMut(KeyRef<'_>, SeriesRef<'_>),
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
        out: &mut dyn FnMut(KeyRef<'_>, CellRef<'_>),
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

/// A key that is asked for. Most are of one part or two, and of parts that have syms, which stay what
/// they are until the engine is closed: these are copied for each question, and nothing is allocated.
#[derive(Clone)]
pub(crate) enum AskedKey {
    One(Sym),
    Two([Sym; 2]),
    Spelled(Arc<SpelledKey>),
}

/// A key of more parts, or one that no event can have had since the engine was opened, while a row may.
pub(crate) struct SpelledKey {
    parts: Box<[String]>,
    /// Looked up once there are some.
    syms: OnceLock<SmallVec<[Sym; 4]>>,
}

impl AskedKey {
    /// In place of a key, where nothing is asked for.
    pub(crate) const NONE: AskedKey = AskedKey::One(Sym::NONE);

    /// The key of these parts, of which `find` gives the sym, if there is one.
    #[inline]
    pub(crate) fn of(parts: &[&str], find: impl Fn(&str) -> Option<Sym>) -> Self {
        let key = match parts {
            [part] => find(part).map(AskedKey::One),
            [a, b] => find(a).zip(find(b)).map(|(a, b)| AskedKey::Two([a, b])),
            _ => None,
        };
        key.unwrap_or_else(|| AskedKey::spelled(parts))
    }

    #[cold]
    fn spelled(parts: &[&str]) -> Self {
        let parts = parts.iter().map(ToString::to_string).collect();
        AskedKey::Spelled(Arc::new(SpelledKey { parts, syms: OnceLock::new() }))
    }

    /// The syms of its parts, as soon as `find` finds each of them, and else the parts.
    #[inline]
    pub(crate) fn syms(&self, find: impl Fn(&str) -> Option<Sym>) -> Result<&[Sym], &[String]> {
        match self {
            AskedKey::One(sym) => Ok(slice::from_ref(sym)),
            AskedKey::Two(syms) => Ok(syms),
            AskedKey::Spelled(key) => key.syms(find).ok_or(&*key.parts),
        }
    }
}

impl SpelledKey {
    fn syms(&self, find: impl Fn(&str) -> Option<Sym>) -> Option<&[Sym]> {
        if let Some(syms) = self.syms.get() {
            return Some(syms);
        }
        let found = self.parts.iter().map(|part| find(part)).collect::<Option<_>>()?;
        Some(self.syms.get_or_init(|| found))
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
