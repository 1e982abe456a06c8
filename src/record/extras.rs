//! Extras: what few events have, in columns that are empty where none has it.
//!
//! Behind the columns of an extended frame ([`Form`](super::Form)), `(tag (1) · section)*`: each section comes
//! at most once, in the order of the tags, where one of the events has it, and there is one at least:
//! ```text
//! 1  counts       presence · counts: for how many events one stands, where it is more than one
//! 2  half widths  presence · microseconds by which the time may be off, where it may
//! 3  origin       id of a replica (16) · position there of the first event · positions without events before it
//! ```
//! The origin says whose events they are, where another replica has recorded them: one at each position
//! there from the first on.

use super::{Presence, put_presence, sift};
use crate::codec::{self, Malformed};
use crate::event::{Limits, Times};
use std::ops::Range;

const COUNTS: u8 = 1;
const HALF_WIDTHS: u8 = 2;
const ORIGIN: u8 = 3;

/// Whose events a frame has, of another replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) replica: u128,
    /// The position of the first event there; those of the others follow.
    pub(crate) first: u64,
    /// So many positions in front of it are known to have no event of that replica.
    pub(crate) empty: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extras {
    /// For how many events each one stands; empty when each stands for one.
    counts: Vec<u64>,
    /// By how many microseconds the times may be off; empty when none is.
    half_widths: Vec<u64>,
    /// Whose events these are; `None` where this replica has recorded them.
    pub(crate) origin: Option<Origin>,
}

/// A column of extras: its tag, its values, and what they are of an event that has none.
type Extra<V> = (u8, V, u64);

impl Extras {
    fn columns(&self) -> [Extra<&[u64]>; 2] {
        [(COUNTS, &self.counts, 1), (HALF_WIDTHS, &self.half_widths, 0)]
    }

    fn columns_mut(&mut self) -> [Extra<&mut Vec<u64>>; 2] {
        [(COUNTS, &mut self.counts, 1), (HALF_WIDTHS, &mut self.half_widths, 0)]
    }

    /// Sets those of event `row`, those of rows before it being set already or missing.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, times: Times, half_width: u64) {
        for ((_, values, none), value) in self.columns_mut().into_iter().zip([times.0, half_width])
        {
            if value != none {
                values.resize(row, none);
                values.push(value);
            }
        }
    }

    /// For how many events event `row` stands.
    #[inline]
    pub(crate) fn times(&self, row: usize) -> u64 {
        self.counts.get(row).copied().unwrap_or(1)
    }

    /// By how many microseconds the time of event `row` may be off.
    #[inline]
    pub(crate) fn half_width(&self, row: usize) -> u64 {
        self.half_widths.get(row).copied().unwrap_or(0)
    }

    /// Whether each event stands for one, at a time that is known.
    pub(crate) fn is_plain(&self) -> bool {
        self.counts.is_empty() && self.half_widths.is_empty()
    }

    /// Whether some event has any.
    pub(crate) fn is_used(&self) -> bool {
        self.origin.is_some()
            || self.columns().into_iter().any(|(_, values, none)| is_used(values, none))
    }

    pub(super) fn clear(&mut self) {
        self.columns_mut().into_iter().for_each(|(_, values, _)| values.clear());
        self.origin = None;
    }

    /// Makes the columns that are used as long as there are events.
    pub(super) fn square(&mut self, n: usize) {
        for (_, values, none) in self.columns_mut() {
            if !values.is_empty() {
                values.resize(n, none);
            }
        }
    }

    pub(super) fn retain(&mut self, keep: &[bool]) {
        for (_, values, _) in self.columns_mut() {
            if !values.is_empty() {
                sift(values, keep);
            }
        }
    }

    pub(super) fn part(&self, rows: &Range<usize>) -> Self {
        let part =
            |values: &[u64]| values.get(rows.clone()).map(<[u64]>::to_vec).unwrap_or_default();
        Extras {
            counts: part(&self.counts),
            half_widths: part(&self.half_widths),
            origin: self.origin.map(|origin| origin.beginning_at(rows.start)),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (tag, values, none) in self.columns() {
            if is_used(values, none) {
                out.push(tag);
                put_presence(out, values, |value| *value != none);
                let present = values.iter().filter(|value| **value != none);
                present.for_each(|value| codec::put_u64(out, *value));
            }
        }
        if let Some(Origin { replica, first, empty }) = self.origin {
            out.push(ORIGIN);
            out.extend_from_slice(&replica.to_le_bytes());
            codec::put_u64(out, first);
            codec::put_u64(out, empty);
        }
    }

    /// Reads the extras of `n` events into `self`, which is empty, to the end of `bytes`.
    pub(super) fn decode(&mut self, n: usize, bytes: &mut &[u8]) -> Result<(), Malformed> {
        if bytes.is_empty() {
            return Err(Malformed("an extended frame has no extras"));
        }
        let mut before = 0;
        while !bytes.is_empty() {
            let [tag] = codec::take_array(bytes)?;
            if tag <= before {
                return Err(Malformed("extras of a frame are not in order"));
            }
            before = tag;
            let (values, none, most) = match tag {
                COUNTS => (&mut self.counts, 1, u64::MAX),
                HALF_WIDTHS => (&mut self.half_widths, 0, Limits::HALF_WIDTH.as_micros() as u64),
                ORIGIN => {
                    self.origin = Some(Origin::decode(n, bytes)?);
                    continue;
                }
                _ => return Err(Malformed("a frame has an extra of an unknown kind")),
            };
            let presence = Presence::take(bytes, n)?;
            if matches!(presence, Presence::None) {
                return Err(Malformed("an extra of a frame is of no event"));
            }
            for row in 0..n {
                let value = if presence.has(row) { codec::take_u64(bytes)? } else { none };
                if presence.has(row) && !(none + 1..=most).contains(&value) {
                    return Err(Malformed("a count or a half width is none that an event has"));
                }
                values.push(value);
            }
        }
        Ok(())
    }
}

impl Origin {
    /// That of the events from `row` on.
    fn beginning_at(self, row: usize) -> Self {
        let empty = if row == 0 { self.empty } else { 0 };
        Origin { first: self.first + row as u64, empty, ..self }
    }

    /// The last position of `n` events.
    pub(crate) fn last(&self, n: usize) -> u64 {
        self.first + n as u64 - 1
    }

    fn decode(n: usize, bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let replica = u128::from_le_bytes(codec::take_array(bytes)?);
        let (first, empty) = (codec::take_u64(bytes)?, codec::take_u64(bytes)?);
        if replica == 0 || empty >= first || first > i64::MAX as u64 - n as u64 {
            return Err(Malformed("the origin of a frame is none that there can be"));
        }
        Ok(Origin { replica, first, empty })
    }
}

fn is_used(values: &[u64], none: u64) -> bool {
    values.iter().any(|value| *value != none)
}
