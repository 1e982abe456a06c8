//! What a [`Top`] says: items with their bounds, in one order.
//!
//! Invariant: answers are ordered by their value, the greatest first, and those of the same value by
//! the bytes of their items; so the same state gives the same answer always.

use super::Top;
use super::item::{Probe, SHORT_BYTES_MAX};
use super::table::{Entry, Table};
use crate::aggregate::Approx;
use crate::aggregate::hash::hash;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::borrow::Cow;
use std::cmp::Ordering;

/// An item, and what is known of its count: at least `lower`, at most `upper`, always.
///
/// As JSON it is `{"item": "tea", "value": 7, "lower": 7, "upper": 7}`; bytes that are not UTF-8 are
/// replaced there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heavy {
    /// The item's bytes.
    pub item: Box<[u8]>,
    /// The estimate: the lower bound and an eighth of what lies between the two, rounded down.
    pub value: u64,
    /// The item counts at least this.
    pub lower: u64,
    /// The item counts at most this; where it is 2^64 - 1, counting stopped there.
    pub upper: u64,
}

/// The items that count more than a threshold: those that surely do, and those that may.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Above {
    /// Those whose lower bound is above the threshold, heaviest first.
    pub guaranteed: Vec<Heavy>,
    /// Those of whom only the upper bound is.
    pub possible: Vec<Heavy>,
    /// Whether these are all: no other item can count more than the threshold. It is so for every
    /// threshold that is not below [`Top::error`].
    pub complete: bool,
}

impl Heavy {
    fn new(item: &[u8], upper: u64, slack: u64) -> Self {
        let lower = upper - slack;
        Heavy { item: item.into(), value: lower + slack / 8, lower, upper }
    }

    /// The item as text; bytes that are not UTF-8 are replaced.
    ///
    /// ```
    /// # let mut top = quipu::aggregate::Top::default();
    /// top.insert("café".as_bytes(), 1);
    /// assert_eq!(top.top(1)[0].text(), "café");
    /// ```
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.item)
    }

    /// Whether the count is known exactly.
    pub fn is_exact(&self) -> bool {
        self.lower == self.upper && self.upper != u64::MAX
    }

    /// The count as other approximate answers are; above 2^53 its bounds are rounded outwards, and the upper one
    /// is infinite where counting [stopped](Heavy::upper).
    ///
    /// ```
    /// # let mut top = quipu::aggregate::Top::default();
    /// top.insert(b"tea", 7);
    /// assert_eq!(top.count_of(b"tea").approx().upper, 7.0);
    /// ```
    pub fn approx(&self) -> Approx {
        Approx::counted(self.value as f64, self.lower, self.upper)
    }
}

impl Serialize for Heavy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut heavy = serializer.serialize_struct("Heavy", 4)?;
        heavy.serialize_field("item", &self.text())?;
        heavy.serialize_field("value", &self.value)?;
        heavy.serialize_field("lower", &self.lower)?;
        heavy.serialize_field("upper", &self.upper)?;
        heavy.end()
    }
}

/// As the weight of all and the heaviest ten.
impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Top", 2)?;
        fields.serialize_field("total", &self.total())?;
        fields.serialize_field("top", &self.top(10))?;
        fields.end()
    }
}

fn value(entry: &Entry) -> u64 {
    entry.upper - entry.slack + entry.slack / 8
}

impl Top {
    /// The `n` items that count most, heaviest first; fewer, if fewer are known. O(items · log(items)).
    ///
    /// An item that is not among the first n may count as much as the last of them where the bounds of
    /// the two overlap, one that is not known at all up to [`error`](Top::error).
    ///
    /// ```
    /// use quipu::aggregate::Top;
    ///
    /// let mut top = Top::default();
    /// for (item, weight) in [("foo", 6), ("baz", 4), ("bar", 3)] {
    ///     top.insert(item.as_bytes(), weight);
    /// }
    /// let named: Vec<_> = top.top(2).iter().map(|heavy| (heavy.text().into_owned(), heavy.value)).collect();
    /// assert_eq!(named, [("foo".to_owned(), 6), ("baz".to_owned(), 4)]);
    /// ```
    pub fn top(&self, n: usize) -> Vec<Heavy> {
        self.of(n, |_| true)
    }

    /// What is known of one item: between 0 and [`error`](Top::error) if it is not among those known by
    /// name. O(1).
    ///
    /// ```
    /// use quipu::aggregate::Top;
    ///
    /// let mut top = Top::default();
    /// top.insert(b"tea", 3);
    /// assert_eq!(top.count_of(b"tea").value, 3);
    /// assert_eq!(top.count_of(b"milk").upper, 0);
    /// ```
    pub fn count_of(&self, item: &[u8]) -> Heavy {
        let found = self.table.as_ref().and_then(|table| {
            let at = table.find(&Probe::new(item, || hash(item)))?;
            Some((table.entries[at].upper, table.entries[at].slack))
        });
        let (upper, slack) = found.unwrap_or((self.error(), self.error()));
        Heavy::new(item, upper, slack)
    }

    /// The items that count more than `threshold`.
    ///
    /// For all that are more than a share s of everything, the threshold is `s · total()`; the answer
    /// is complete where s is at least 1 / (capacity + 1).
    ///
    /// ```
    /// use quipu::aggregate::Top;
    ///
    /// let mut top = Top::new(10)?;
    /// top.insert(b"tea", 60);
    /// (0..40_u32).for_each(|i| top.insert(&i.to_le_bytes(), 1));
    /// let above = top.above(top.total() / 10);
    /// assert_eq!(above.guaranteed[0].text(), "tea");
    /// assert!(above.possible.is_empty() && above.complete);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn above(&self, threshold: u64) -> Above {
        let guaranteed = |entry: &Entry| entry.upper - entry.slack > threshold;
        Above {
            guaranteed: self.of(usize::MAX, guaranteed),
            possible: self.of(usize::MAX, |entry| entry.upper > threshold && !guaranteed(entry)),
            complete: self.error() <= threshold,
        }
    }

    /// Whether both can have counted the same: their bounds do not contradict each other.
    pub(crate) fn agrees(&self, other: &Top) -> bool {
        if self.is_exact() && other.is_exact() {
            return self == other;
        }
        let overlaps = |heavy: &Heavy, other: &Top| {
            let other = other.count_of(&heavy.item);
            heavy.lower <= other.upper && other.lower <= heavy.upper
        };
        self.total() == other.total()
            && self.capacity() == other.capacity()
            && self.top(usize::MAX).iter().all(|heavy| overlaps(heavy, other))
            && other.top(usize::MAX).iter().all(|heavy| overlaps(heavy, self))
    }

    fn of(&self, n: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Heavy> {
        let Some(table) = &self.table else { return Vec::new() };
        let mut entries: Vec<&Entry> = table.entries.iter().filter(|entry| wanted(entry)).collect();
        let order = |a: &&Entry, b: &&Entry| by_value(table, a, b);
        if n < entries.len() {
            if n > 0 {
                entries.select_nth_unstable_by(n - 1, order);
            }
            entries.truncate(n);
        }
        entries.sort_unstable_by(order);
        let heavy = |entry: &&Entry| {
            let mut short = [0; SHORT_BYTES_MAX + 1];
            Heavy::new(entry.item.bytes(&table.arena, &mut short), entry.upper, entry.slack)
        };
        entries.iter().map(heavy).collect()
    }
}

/// The order of answers.
fn by_value(table: &Table, a: &Entry, b: &Entry) -> Ordering {
    value(b).cmp(&value(a)).then_with(|| table.order(a, b))
}
