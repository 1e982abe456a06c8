//! How many: a counter of 64 bits that stops at its end in place of wrapping.

use super::{Aggregate, Malformed};
use crate::codec;
use crate::time::Timestamp;

/// The number of observations. Eight bytes in memory, one to ten when encoded; exact up to
/// 2^64 - 1, where it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(u64);

impl Count {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Counts so many more.
    #[inline]
    pub(crate) fn add(&mut self, times: u64) {
        self.0 = self.0.saturating_add(times);
    }
}

impl Aggregate for Count {
    type Input<'a> = ();

    #[inline]
    fn observe(&mut self, (): (), _time: Timestamp) {
        self.add(1);
    }

    fn merge(&mut self, other: &Self) {
        self.add(other.0);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, self.0);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        codec::take_u64(bytes).map(Count)
    }
}
