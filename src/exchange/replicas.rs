//! Who recorded what: the ids of this directory's own records, and which ones of other replicas are here.
//!
//! A record of a replica is named by the replica's id and its position there, for ever and everywhere. That
//! holds as long as nobody gives a position of an id twice. So a directory goes on under another id
//! where it might: it was restored to an earlier state, a repair gave something up, or somebody says that it
//! is a copy.
//!
//! Invariants
//! 1. `own` is in the order of positions and begins with position 1; each id is in it once. The records
//!    from the position of one id up to that of the next one, which may be the same, are of that id.
//! 2. Of other ids, and of own ones behind their end, the ranges of `covered` are here: those positions whose
//!    events are, and those that are known to have none.
//!
//! Next: `exchange/bundle.rs`.

use crate::codec::{self, Malformed};
use crate::error::{Error, Result};
use crate::record::Origin;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The name of a replica: of a directory as the one that recorded certain events.
///
/// It is shown and read as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub(crate) u128);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReplicaId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).ok().filter(|_| is_plain);
        id.map(ReplicaId).ok_or_else(|| {
            Error::invalid(format!("{text:?} is no id of a replica: 32 hexadecimal digits"))
        })
    }
}

impl Serialize for ReplicaId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReplicaId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Positions: ranges that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Takes in the positions `from..=to`.
    pub(crate) fn insert(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        let ranges = &mut self.0;
        // Those that overlap it or touch it become one with it.
        let begin = ranges.partition_point(|range| range.1 < from.saturating_sub(1));
        let end = ranges.partition_point(|range| range.0 <= to.saturating_add(1));
        let joined = ranges[begin..end]
            .iter()
            .fold((from, to), |joined, range| (joined.0.min(range.0), joined.1.max(range.1)));
        ranges.splice(begin..end, [joined]);
    }

    pub(crate) fn contains(&self, position: u64) -> bool {
        let at = self.0.partition_point(|range| range.1 < position);
        self.0.get(at).is_some_and(|range| range.0 <= position)
    }
}

/// Who recorded what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replicas {
    /// From which position on the records of this directory are of which id (invariant 1).
    own: Vec<(u64, u128)>,
    /// Invariant 2.
    covered: BTreeMap<u128, Ranges>,
}

/// What is known of a record of some replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Here,
    Not,
    /// It is of this directory, which has not recorded it: there are two directories of one id.
    Impossible,
}

impl Replicas {
    /// Those of a directory that was never anything else.
    pub(crate) fn new(identity: u128) -> Self {
        Replicas { own: vec![(1, identity)], covered: BTreeMap::new() }
    }

    /// Whether this says nothing that the directory's identity does not.
    pub(crate) fn is_plain(&self, identity: u128) -> bool {
        *self == Replicas::new(identity)
    }

    /// The id of what was recorded last.
    pub(crate) fn last(&self) -> u128 {
        self.own.last().map_or(0, |(_, id)| *id)
    }

    /// Whether the directory has ever recorded as this replica.
    pub(crate) fn is_own(&self, id: u128) -> bool {
        self.own.iter().any(|(_, own)| *own == id)
    }

    /// An id that no other replica has, made of a number that is most likely unique.
    pub(crate) fn another(&self, unique: u128) -> u128 {
        // Together with what is known, should the system's own randomness repeat itself.
        let mut seed = unique.to_le_bytes().to_vec();
        self.encode(&mut seed);
        xxhash_rust::xxh3::xxh3_128(&seed).max(1)
    }

    /// From `position` on the records are of another id than before. Said again it changes nothing. Where
    /// nothing here is of the one before, this only says that it was one of the directory's: its records
    /// are here as those of others are.
    pub(crate) fn begin(&mut self, position: u64, id: u128, before: u128) {
        if !self.is_own(before) {
            self.own.insert(0, (1, before));
        }
        if !self.is_own(id) {
            let at = self.own.partition_point(|(from, _)| *from <= position);
            self.own.insert(at, (position, id));
        }
    }

    /// Whether a change from one to the other can be: not to what the directory has been.
    pub(crate) fn may_begin(&self, id: u128, before: u128) -> bool {
        id != 0 && before != 0 && id != before && !(self.is_own(id) && self.is_own(before))
    }

    /// The own id of a position, and the positions that are of it; the last ones end where anything does.
    pub(crate) fn own_at(&self, position: u64) -> (u128, Range<u64>) {
        let behind = self.own.partition_point(|(from, _)| *from <= position).max(1);
        let end = self.own.get(behind).map_or(u64::MAX, |(from, _)| *from);
        let (from, id) = self.own[behind - 1];
        (id, from..end)
    }

    /// Whether a record of `id` is here. The last own position is `last`, and what comes behind is
    /// of the id `next`.
    pub(crate) fn find(&self, id: u128, position: u64, last: u64, next: u128) -> Known {
        let own = self.own.iter().position(|(_, own)| *own == id);
        let end = own.map(|at| self.own.get(at + 1).map_or(last + 1, |(from, _)| *from));
        let is_covered = || self.covered.get(&id).is_some_and(|ranges| ranges.contains(position));
        match end {
            Some(end) if position < end => Known::Here,
            Some(_) if id == next => Known::Impossible,
            _ if is_covered() => Known::Here,
            _ => Known::Not,
        }
    }

    /// Whether any record of `id` is here.
    pub(crate) fn has_any(&self, id: u128) -> bool {
        self.is_own(id) || self.covered.contains_key(&id)
    }

    /// So many events of this origin are here.
    pub(crate) fn cover(&mut self, origin: Origin, events: usize) {
        let ranges = self.covered.entry(origin.replica).or_default();
        ranges.insert(origin.first - origin.empty, origin.last(events));
    }

    /// Appends: `number · (position · id (16))* · number · (id (16) · number · (gap · length)*)*`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, self.own.len() as u64);
        for (from, id) in &self.own {
            codec::put_u64(out, *from);
            out.extend_from_slice(&id.to_le_bytes());
        }
        codec::put_u64(out, self.covered.len() as u64);
        for (id, Ranges(ranges)) in &self.covered {
            out.extend_from_slice(&id.to_le_bytes());
            codec::put_u64(out, ranges.len() as u64);
            let mut end = 0;
            for (from, to) in ranges {
                codec::put_u64(out, from - end);
                codec::put_u64(out, to - from);
                end = *to;
            }
        }
    }

    /// Reads [`encode`](Replicas::encode)'s bytes off the front.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let mut own: Vec<(u64, u128)> = Vec::new();
        for _ in 0..codec::take_count(bytes, 17)? {
            own.push((codec::take_u64(bytes)?, u128::from_le_bytes(codec::take_array(bytes)?)));
        }
        let is_named_twice =
            |at: usize| own[..at].iter().any(|(from, id)| *from > own[at].0 || *id == own[at].1);
        if own.first().is_none_or(|(from, _)| *from != 1) || (1..own.len()).any(is_named_twice) {
            return Err(Malformed("the ids of a directory's own records are not in order"));
        }
        let mut covered = BTreeMap::new();
        for _ in 0..codec::take_count(bytes, 17)? {
            let id = u128::from_le_bytes(codec::take_array(bytes)?);
            let mut ranges = Vec::new();
            let mut end = 0_u64;
            for nth in 0..codec::take_count(bytes, 2)? {
                let (gap, length) = (codec::take_u64(bytes)?, codec::take_u64(bytes)?);
                // Ranges that touch would be one.
                let least = if nth == 0 { 1 } else { 2 };
                let from = end.checked_add(gap).filter(|_| gap >= least);
                let range = from.and_then(|from| Some((from, from.checked_add(length)?)));
                let range =
                    range.ok_or(Malformed("the positions of a replica are not in order"))?;
                end = range.1;
                ranges.push(range);
            }
            if ranges.is_empty() || covered.insert(id, Ranges(ranges)).is_some() {
                return Err(Malformed("a replica is named twice, or for nothing"));
            }
        }
        Ok(Replicas { own, covered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_the_positions_that_were_put_in(
            put in prop::collection::vec((1_u64..60, 0_u64..9), 0..20),
        ) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (from, length) in put {
                ranges.insert(from, from + length);
                set.extend(from..=from + length);
            }
            for position in 0..80 {
                prop_assert_eq!(ranges.contains(position), set.contains(&position));
            }
            // No two of them touch.
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", ranges);
            let mut replicas = Replicas::new(7);
            for (from, to) in &ranges.0 {
                let origin = Origin { replica: 9, first: *to, empty: to - from };
                replicas.cover(origin, 1);
            }
            replicas.begin(30, 8, 7);
            replicas.begin(1, 8, 6);
            let mut bytes = Vec::new();
            replicas.encode(&mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(Replicas::decode(&mut rest), Ok(replicas));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn hostile_bytes_are_refused_or_canonical(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            if let Ok(replicas) = Replicas::decode(&mut rest) {
                let mut again = Vec::new();
                replicas.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }

    #[test]
    fn ranges_reach_the_last_position() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(1, u64::MAX - 1);
        assert_eq!(ranges.0, [(1, u64::MAX)]);
        ranges.insert(0, 0);
        assert_eq!(ranges.0, [(0, u64::MAX)]);
    }

    #[test]
    fn own_records_are_here_up_to_where_their_id_ends() {
        let mut replicas = Replicas::new(7);
        assert_eq!(replicas.find(7, 10, 10, 7), Known::Here);
        assert_eq!(replicas.find(7, 11, 10, 7), Known::Impossible, "nobody else is 7");
        // Restored: what comes next is of 8.
        assert_eq!(replicas.find(7, 11, 10, 8), Known::Not);
        replicas.begin(11, 8, 7);
        assert_eq!(replicas.own_at(10), (7, 1..11));
        assert_eq!(replicas.own_at(11), (8, 11..u64::MAX));
        assert_eq!(replicas.find(7, 10, 20, 8), Known::Here);
        assert_eq!(replicas.find(7, 11, 20, 8), Known::Not, "what others have of it since");
        replicas.cover(Origin { replica: 7, first: 12, empty: 1 }, 4);
        assert_eq!(replicas.find(7, 15, 20, 8), Known::Here);
        assert_eq!(replicas.find(8, 20, 20, 8), Known::Here);
        assert_eq!(replicas.find(9, 1, 20, 8), Known::Not);
        // Of a log that was written anew nothing is at the place that it had.
        assert!(
            replicas.may_begin(8, 9) && !replicas.may_begin(8, 7) && !replicas.may_begin(10, 0)
        );
        replicas.begin(1, 8, 9);
        assert!(replicas.is_own(9));
        assert_eq!(replicas.find(9, 1, 20, 8), Known::Not);
        assert_eq!(replicas.own_at(1).0, 7);
    }

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = ReplicaId(0x0123_4567);
        assert_eq!(id.to_string().parse::<ReplicaId>().expect("one"), id);
        for text in
            ["", "12", "+0000000000000000000000000000001", "g0000000000000000000000000000000"]
        {
            assert!(text.parse::<ReplicaId>().is_err(), "{text}");
        }
    }
}
