//! The rows of a store, each by itself.
//!
//! They come in the order of their keys, those of a view beside each other.

use super::Depth;
use crate::codec;
use crate::db::catalog::{self, Catalog};
use crate::db::load::{blocks_named, check_series_row};
use crate::record::Seen;
use crate::series::Shape;
use crate::snapshot::{Snapshot, Table};

/// What the rows of a view are, those that are damaged left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) series: u64,
    /// Blocks of buckets that these speak of.
    pub(super) named_blocks: u64,
    /// Rows that are blocks of buckets.
    pub(super) blocks: u64,
    /// What the series take on the heap, buckets included; 0 where only checksums are looked at.
    pub(super) heap_bytes: u64,
}

/// Checks rows, and counts them.
pub(super) struct Rows<'a> {
    catalog: Option<&'a Catalog>,
    depth: Depth,
    /// The views of the catalog, by id.
    views: Vec<(u32, Shape, Counted)>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(catalog: Option<&'a Catalog>, depth: Depth) -> Self {
        let zone = catalog.and_then(|catalog| catalog.zone).unwrap_or_default();
        let views = catalog.map_or(&[][..], |catalog| &catalog.views).iter();
        let mut views: Vec<_> =
            views.map(|view| (view.id, view.view.shape(zone), Counted::default())).collect();
        views.sort_unstable_by_key(|(id, ..)| *id);
        Rows { catalog, depth, views }
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.views.binary_search_by_key(&id, |(id, ..)| *id).ok()
    }

    /// What was counted of a view.
    pub(super) fn of(&self, id: u32) -> Counted {
        self.place(id).map_or(Counted::default(), |at| self.views[at].2)
    }

    /// Checks one row; the error is what is wrong with it.
    pub(super) fn check(
        &mut self,
        snapshot: &dyn Snapshot,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        match table {
            Table::Meta if key == catalog::ROW => Ok(()),
            Table::Meta => Err("the table \"meta\" has a row that is not known".to_owned()),
            Table::Ids => match Seen::from_row(key, value) {
                Ok(seen) if self.catalog.is_some_and(|c| seen.position > c.position) => {
                    Err(format!(
                        "an id of position {} is stored, which is behind the snapshot",
                        seen.position
                    ))
                }
                Ok(_) => Ok(()),
                Err(e) => Err(format!("a stored event id is damaged: {e}")),
            },
            Table::Series => {
                codec::unseal(key, value).map_err(|e| {
                    let parts = crate::key::parts(key).unwrap_or_default();
                    format!("the stored series of key {parts:?} is damaged: {e}")
                })?;
                let depth = self.depth;
                let Some((shape, counted)) = self.view_of(key, "series")? else { return Ok(()) };
                let weight = match depth {
                    Depth::Refold => check_series_row(snapshot, key, value, shape),
                    Depth::Checksums => blocks_named(key, value, shape),
                };
                let weight = weight.map_err(|error| error.message().to_owned())?;
                counted.series += 1;
                counted.named_blocks += weight.blocks;
                counted.heap_bytes += weight.heap_bytes;
                Ok(())
            }
            Table::Buckets => {
                codec::unseal(key, value)
                    .map_err(|e| format!("a stored block of buckets is damaged: {e}"))?;
                if let Some((_, counted)) = self.view_of(key, "buckets")? {
                    counted.blocks += 1;
                }
                Ok(())
            }
        }
    }

    /// The view that a row is of; none, if that was dropped or there is no catalog.
    fn view_of(&mut self, key: &[u8], of: &str) -> Result<Option<(&Shape, &mut Counted)>, String> {
        let id = key.first_chunk().map(|id| u32::from_be_bytes(*id));
        let Some((id, catalog)) = id.zip(self.catalog) else { return Ok(None) };
        match self.place(id) {
            Some(at) => {
                let (_, shape, counted) = &mut self.views[at];
                Ok(Some((shape, counted)))
            }
            None if catalog.purge.contains(&id) => Ok(None),
            None => Err(format!("there are {of} of a view {id}, which does not exist")),
        }
    }
}
