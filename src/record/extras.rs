//! Extras: what few events have, in columns that are empty where none has it.
//!
//! Behind the columns of an extended frame ([`Form`](super::Form)), `(tag (1) · section)*`: each section comes
//! at most once, in the order of the tags, where one of the events has it, and there is one at least:
//! ```text
//! 1  counts       presence · counts: for how many events one stands, where it is more than one
//! 2  half widths  presence · microseconds by which the time may be off, where it may
//! ```

use super::{Presence, put_presence, sift};
use crate::codec::{self, Malformed};
use crate::event::{Limits, Times};

const COUNTS: u8 = 1;
const HALF_WIDTHS: u8 = 2;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extras {
    /// For how many events each one stands; empty when each stands for one.
    counts: Vec<u64>,
    /// By how many microseconds the times may be off; empty when none is.
    half_widths: Vec<u64>,
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

    /// Whether some event has any.
    pub(crate) fn is_used(&self) -> bool {
        self.columns().into_iter().any(|(_, values, none)| is_used(values, none))
    }

    pub(super) fn clear(&mut self) {
        self.columns_mut().into_iter().for_each(|(_, values, _)| values.clear());
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

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (tag, values, none) in self.columns() {
            if is_used(values, none) {
                out.push(tag);
                put_presence(out, values.len(), |row| values[row] != none);
                let present = values.iter().filter(|value| **value != none);
                present.for_each(|value| codec::put_u64(out, *value));
            }
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

fn is_used(values: &[u64], none: u64) -> bool {
    values.iter().any(|value| *value != none)
}
