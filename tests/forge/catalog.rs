//! The row of `state.redb` that says what a directory is, with any content, by `guide/format.md`.

use super::store::{self, CATALOG, META};
use quipu::{Dedup, Policy, View};

/// Id, view, position of the definition, backfill, rows, and what is known of converted buckets.
type Stored = (u32, View, u64, Filled, u64, Option<Vec<i64>>);

#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub(crate) enum Filled {
    NotAsked,
    UpTo(u64),
    Complete,
    /// Of those behind the first position the ones up to the second.
    Succeeding(u64, u64),
}

/// The catalog by the format guide.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub(crate) struct Catalog {
    pub(crate) identity: u128,
    pub(crate) sequence: u64,
    pub(crate) position: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) first_segment: u64,
    pub(crate) next_view: u32,
    pub(crate) views: Vec<Stored>,
    pub(crate) purge: Vec<u32>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) events: u64,
    pub(crate) late: u64,
    pub(crate) duplicates: u64,
    pub(crate) dedup: Dedup,
    pub(crate) checkpointed_at: i64,
    pub(crate) newest: i64,
}

impl Catalog {
    pub(crate) fn read(state: &[u8]) -> Self {
        let rows = store::rows(state);
        let row = rows[META].iter().find(|(key, _)| key == CATALOG).unwrap();
        let config = bincode::config::standard();
        bincode::decode_from_slice(store::payload(&row.1), config).unwrap().0
    }

    pub(crate) fn write(&self, state: &[u8]) -> Vec<u8> {
        let payload = bincode::encode_to_vec(self, bincode::config::standard()).unwrap();
        let value = store::seal(CATALOG, &payload);
        store::changed(state, &[(META, CATALOG.to_vec(), Some(value))])
    }
}
