//! The catalog: everything the snapshot says besides series, as one row.
//!
//! It is written by every checkpoint in the same transaction as the series, so definitions,
//! position, counters and series are always of one moment.

use crate::codec::{self, Malformed};
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::Replicas;
use crate::log::reader::Resume;
use crate::options::Dedup;
use crate::policy::Policy;
use crate::snapshot::{Snapshot, Table};
use crate::tier::Backfill;
use crate::time::{TimeZone, Timestamp};
use crate::view::View;
use std::path::Path;

/// The key of the catalog's row in `Table::Meta`.
pub(super) const ROW: &[u8] = b"catalog";

#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    /// The directory that the store belongs to, as in the manifest.
    pub(super) identity: u128,
    /// The number of the checkpoint. A row carries that of the cut whose state it is.
    pub(super) sequence: u64,
    /// Everything up to this position is in the rows, nothing behind it is.
    pub(super) position: u64,
    /// The segment of the log that was active at the cut: replay begins there.
    pub(super) segment: u64,
    /// Where the frames of that segment ended at the cut; everything before is durable.
    pub(super) offset: u64,
    /// The oldest segment that was not retired; 0 before the first checkpoint.
    pub(super) first_segment: u64,
    pub(super) next_view: u32,
    pub(super) views: Vec<StoredView>,
    /// Dropped views whose rows are still there.
    pub(super) purge: Vec<u32>,
    pub(super) events: u64,
    pub(super) late: u64,
    pub(super) duplicates: u64,
    pub(super) dedup: Dedup,
    /// When the checkpoint was made, microseconds since 1970.
    pub(super) checkpointed_at: i64,
    /// The time of the newest event; [`Timestamp::MIN`] before the first.
    pub(super) newest: Timestamp,
    /// The time zone that the directory was given; `None` where it has none of its own, which is UTC.
    pub(super) zone: Option<TimeZone>,
    /// The policies that are set, by name.
    pub(super) policies: Vec<Policy>,
    /// Who recorded what; `None` where the directory has recorded all of it, under its identity.
    pub(super) replicas: Option<Replicas>,
}

/// What is always in the row, in its order.
type Fields = (
    (u128, u64, u64, u64, u64, u64),
    (u32, Vec<StoredView>, Vec<u32>, Vec<Policy>),
    (u64, u64, u64, Dedup, i64, i64),
);

#[derive(Clone, Debug, bincode::Encode, bincode::Decode)]
pub(super) struct StoredView {
    pub(super) id: u32,
    pub(super) view: View,
    pub(super) defined_at: u64,
    pub(super) backfill: Backfill,
    /// Series rows in the store.
    pub(super) rows: u64,
    /// From which bucket of each grain on all series know theirs, where they were converted.
    pub(super) converted: Option<Vec<i64>>,
}

/// A directory's time zone by its name. A name that is none was valid to the software that wrote it,
/// whose database of zones was another.
pub(super) fn known_zone(name: &str) -> Result<TimeZone> {
    name.parse().map_err(|error: Error| {
        let message = format!("the directory's time zone is not known here: {}", error.message());
        Error::new(ErrorKind::NewerFormat, message)
    })
}

impl Catalog {
    /// The catalog of the store at `path`; the default one when there was no checkpoint yet.
    pub(super) fn read(snapshot: &dyn Snapshot, path: &Path, identity: u128) -> Result<Self> {
        let Some(value) = snapshot.get(Table::Meta, ROW)? else { return Ok(Catalog::default()) };
        let damaged = |malformed| {
            let message = format!("the catalog in the snapshot is damaged: {malformed}");
            Error::corruption(path, 0, message)
        };
        if codec::is_newer(ROW, &value) {
            let message = "the snapshot was written by newer software; use that";
            return Err(Error::new(ErrorKind::NewerFormat, message).at(path, None));
        }
        let (mut catalog, zone) =
            codec::unseal(ROW, &value).and_then(Catalog::decode).map_err(damaged)?;
        catalog.zone =
            zone.map(|zone| known_zone(&zone)).transpose().map_err(|e| e.at(path, None))?;
        if catalog.identity != identity {
            let message = "the snapshot belongs to another directory; put this one's back";
            return Err(Error::corruption(path, 0, message));
        }
        for stored in &mut catalog.views {
            stored.view = stored.view.clone().checked().map_err(|error| error.at(path, None))?;
        }
        let refused =
            |error: Error| error.told_of(ErrorKind::Corruption, "a policy is none").at(path, None);
        catalog.policies.iter().try_for_each(Policy::check).map_err(refused)?;
        catalog.check().map_err(damaged)?;
        Ok(catalog)
    }

    /// The identity in the catalog, if there is one that can be read.
    pub(super) fn identity(snapshot: &dyn Snapshot) -> Result<Option<u128>> {
        let value = snapshot.get(Table::Meta, ROW)?;
        let catalog = value.map(|value| codec::unseal(ROW, &value).and_then(Catalog::decode));
        Ok(catalog.and_then(Result::ok).map(|(catalog, _)| catalog.identity))
    }

    /// Whether it comes from a store; the default one does not.
    pub(super) fn is_stored(&self) -> bool {
        self.identity != 0
    }

    /// Who recorded what, in a directory of this identity.
    pub(super) fn replicas(&self, identity: u128) -> Replicas {
        self.replicas.clone().unwrap_or_else(|| Replicas::new(identity))
    }

    /// Where in the log to go on behind the snapshot; the manifest names `made` segments.
    pub(super) fn resume(&self, made: u64) -> Resume {
        let oldest = self.first_segment.max(1);
        Resume {
            oldest,
            segment: self.segment.max(oldest),
            offset: self.offset,
            position: self.position,
            made,
        }
    }

    /// What holds of every catalog that a checkpoint writes, and what arithmetic relies on: each
    /// event, row and definition has a position of its own, and an id is given once.
    fn check(&self) -> Result<(), Malformed> {
        if self.position.max(self.sequence) > i64::MAX as u64 {
            return Err(Malformed("it counts further than there can be records"));
        }
        if self.events.max(self.late) > self.position {
            return Err(Malformed("it has more events than positions"));
        }
        if self.first_segment > self.segment {
            return Err(Malformed("its first segment of the log is behind the last one"));
        }
        for (i, stored) in self.views.iter().enumerate() {
            let mut others = self.views[..i].iter();
            let same_name = |other: &&StoredView| other.view.name() == stored.view.name();
            // One that is to take the place of the other.
            let may_share = usize::from(stored.backfill.is_succeeding());
            if others.clone().filter(same_name).count() > may_share
                || others.any(|other| other.id == stored.id)
            {
                return Err(Malformed("it has a view twice"));
            }
            if stored.defined_at.max(stored.rows) > self.position {
                return Err(Malformed("a view is ahead of the log"));
            }
            let grains = stored.view.grains().len();
            if stored.converted.as_ref().is_some_and(|known| known.len() != grains) {
                return Err(Malformed("a view knows what it does not keep"));
            }
            if let Backfill::Succeeding { since, done } = stored.backfill
                && (since > done || done > stored.defined_at)
            {
                return Err(Malformed("a view is filled with what cannot be"));
            }
        }
        if !self.policies.is_sorted_by(|a, b| a.name() < b.name()) {
            return Err(Malformed("its policies are not in order"));
        }
        let live = |id: &u32| self.views.iter().any(|stored| stored.id == *id);
        if self
            .views
            .iter()
            .map(|stored| &stored.id)
            .chain(&self.purge)
            .any(|id| *id >= self.next_view)
            || self.purge.iter().any(live)
        {
            return Err(Malformed("the id of a view would be given again"));
        }
        Ok(())
    }

    pub(super) fn row(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (ROW.to_vec(), Some(codec::seal(ROW, |out| self.encode(out))))
    }

    /// The fields in their order; the name of the time zone only where there is one, and who recorded
    /// what only where that was not always the same, so that the row of a directory without is what it
    /// was before there were any.
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { identity, sequence, position, segment, offset, first_segment, .. } = self;
        let Self { next_view, views, purge, policies, .. } = self;
        let Self { events, late, duplicates, dedup, checkpointed_at, newest, zone, .. } = self;
        let replicas = &self.replicas;
        let place = (identity, sequence, position, segment, offset, first_segment);
        let counts = (events, late, duplicates, dedup, checkpointed_at, newest.micros());
        out.extend_from_slice(&codec::encode(&(
            place,
            (next_view, views, purge, policies),
            counts,
        )));
        // UTC has no name where one has to be there.
        if zone.is_some() || replicas.is_some() {
            out.extend_from_slice(&codec::encode(&zone.map_or("", |zone| zone.name())));
        }
        if let Some(replicas) = replicas {
            replicas.encode(out);
        }
    }

    /// Reads [`encode`](Catalog::encode)'s bytes; the zone, which may be unknown here, by its name.
    fn decode(mut bytes: &[u8]) -> Result<(Self, Option<String>), Malformed> {
        let (place, defined, counts): Fields = codec::take_encoded(&mut bytes)?;
        let zone = if bytes.is_empty() {
            None
        } else {
            Some(codec::take_encoded(&mut bytes)?).filter(|zone: &String| !zone.is_empty())
        };
        let replicas = if bytes.is_empty() { None } else { Some(Replicas::decode(&mut bytes)?) };
        codec::finished(bytes)?;
        let (identity, sequence, position, segment, offset, first_segment) = place;
        let (next_view, views, purge, policies) = defined;
        let (events, late, duplicates, dedup, checkpointed_at, newest) = counts;
        let catalog = Catalog {
            identity,
            sequence,
            position,
            segment,
            offset,
            first_segment,
            next_view,
            views,
            purge,
            events,
            late,
            duplicates,
            dedup,
            checkpointed_at,
            newest: Timestamp::from_micros(newest),
            zone: None,
            policies,
            replicas,
        };
        Ok((catalog, zone))
    }
}
