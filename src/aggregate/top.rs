//! Heavy hitters: the items that count most, each with bounds that always hold.
//!
//! The algorithm is Misra and Gries, "Finding repeated elements" (Science of Computer Programming 2,
//! 1982), for weights, with purges put off until there is no more room, as in Anderson et al., "A
//! high-performance algorithm for identifying frequent items in data streams" (IMC 2017). What is
//! subtracted there from every counter is added here to one number, the *floor*; and each entry
//! remembers how high the floor was when it came in, its *slack*.
//!
//! # The algorithm
//!
//! With k the capacity, room for k + max(k / 2, 1) entries, f(x) the true count of x and N of all:
//!
//! ```text
//! insert(x, w)   x has an entry:  upper += w
//!                it has none:     a new one, upper = floor + w, slack = floor; then, without room, purge
//! purge          floor = the least number that leaves at most k entries above it; the others go
//! merge(A, B)    floor = floorA + floorB. In both: upper = upperA + upperB, slack = slackA + slackB.
//!                In A alone: upper = upperA + floorB, slack = slackA + floorB; in B alone alike.
//!                Then, without room, purge
//! ```
//!
//! # Invariants
//!
//! 1. An entry has `upper - slack <= f(x) <= upper`, an item without one `f(x) <= floor`.
//!    *Proof.* A new item has counted at most the floor before, by the second half; so the first half
//!    holds for the new entry. What has an entry counts exactly. Purged is only `upper <= floor`, and
//!    floors never fall. When merging, the bounds of both sides add up; the side without an entry adds
//!    0 to the lower bound and its floor to the upper one.
//! 2. `floor < upper`, `slack <= floor`: so every answer is known to within the floor. *Proof.* The
//!    floor does not fall, a slack is what it was, and both add up alike.
//! 3. `sum of (upper - floor) + (k + 1) · floor <= N`; so `floor <= N / (k + 1)`, in any tree of
//!    merges. *Proof.* Inserting adds w to both sides. A purge raises the floor by c, where k + 1
//!    entries at least had c or more above it, and each of these gives up c. Merging adds both sides:
//!    over the new floor an entry has what it had over the old ones together. That is the argument of
//!    Agarwal et al., "Mergeable summaries" (PODS 2012, section 3.1): merges cost nothing of the bound.
//!    They cost slack: an entry that was in one of two states is known less well by the other's floor.
//! 4. As long as there was no purge everything is exact, and the bytes are a function of what was
//!    counted: always so with k different items or fewer. Behind that point the bytes depend on orders and
//!    groupings, what 1 to 3 say does not. Merging two states is commutative to the byte always.
//!
//! Counts stop at 2^64 - 1, like [`Count`](super::Count): f(x) above is then that. An upper bound that
//! has stopped there is right, and so is a lower one, since what is lost is never subtracted. N stops
//! too; then 3 says nothing any more, 1 and 2 hold.
//!
//! # Bytes
//!
//! ```text
//! top   := capacity (LEB128, 0: none chosen yet, and nothing behind it) · n (LEB128) · floor (LEB128)
//!          · [N (LEB128), where floor > 0] · entry × n, in the order of their items' bytes
//! entry := item (LEB128 length · bytes) · upper - floor (LEB128) · [slack (LEB128), where floor > 0]
//! ```
//!
//! Of more than 512 entries each is `item · zeros up to 16 bytes · upper - floor (8) · slack (8)`, so
//! that reading them never takes more memory than twice the bytes and 64 KB.
//!
//! # Why so
//!
//! The slack: an interval of Misra-Gries is as wide as the floor for every item. Most heavy items
//! come before the floor has risen and stay, and those are exact: of a stream of a million draws from
//! 100,000 items by Zipf's law (exponent 1.05) the 26 heaviest with capacity 256, the 294 heaviest with
//! 4,096. It costs 8 of 32 bytes. Rejected: `SpaceSaving` has the same bounds (Agarwal et al. show that
//! the two are one), and a heap or lists to keep in order; the sketches of Count-Min with candidates
//! have bounds that may fail, or no merge.
//!
//! The room: a purge looks at every entry, so there is half as much room again as is kept, and 15 ns are
//! paid for an insert with its share of purges (`cargo bench --bench heavy`: 12 to 17). The median as the
//! new floor, as in the paper, would need no room but leaves an error of 2N / k in place of N / (k + 1).
//!
//! The estimate: an eighth of the way from the lower bound to the upper one, as what came in late has
//! mostly not been there before. Over exponents of 0.8, 1.05 and 1.3 and capacities of 256, 2,730 and
//! 4,096 the root of the mean squared error of the upper bound is 1.8 to 5 times as large, that of the
//! lower one 1.1 to 1.25 times (the same bench).
//!
//! The form of an entry: 15 bytes in place take the names of most things; what is longer lies in one
//! block beside it, which copies and grows as one. A table of words to find entries by stays in the
//! nearest cache, where 32 bytes an entry would not.
//!
//! Next: `top/item.rs`, `top/table.rs`, `top/answer.rs`.

mod answer;
mod item;
mod table;
#[cfg(test)]
mod tests;

pub use answer::{Above, Heavy};

use super::hash::hash;
use super::{Aggregate, Malformed};
use crate::codec;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use item::{Probe, SHORT_BYTES_MAX, arena_bytes};
use table::{Entry, Table};

/// The items that count most: the counts of all items while they are few, then bounds of the heavy ones.
///
/// A state of capacity k is exact as long as it has met no more than k different items. Behind that it
/// keeps at most 1.5 k of them, and knows each count to within [`error`](Top::error), which is at most
/// `total() / (k + 1)`: an item that counts more than that is never missing. The bounds hold always,
/// not with some probability, and merging states does not widen that limit.
///
/// 16 bytes without items; with some, 80 on the heap and 32 for each item that there is room for,
/// and 6 to 12 to find it by where that are more than nine (10 items take 704 bytes, 256 take 12 KB).
/// What is more than 15 bytes of an item lies beside that. Inserting costs 12 to 17 nanoseconds (the bench `heavy`).
///
/// ```
/// use quipu::aggregate::Top;
///
/// let mut top = Top::new(2)?;
/// for (item, weight) in [("tea", 90), ("milk", 5), ("salt", 1), ("tea", 10), ("oats", 2)] {
///     top.insert(item.as_bytes(), weight);
/// }
/// assert_eq!(top.total(), 108);
/// let heaviest = &top.top(1)[0];
/// assert_eq!(heaviest.text(), "tea");
/// assert_eq!((heaviest.lower, heaviest.upper), (100, 100));
/// assert!(top.count_of(b"salt").upper <= top.total() / 3);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
pub struct Top {
    /// 0: that of whichever state it is merged with, or the default with the first item.
    capacity: u32,
    table: Option<Box<Table>>,
}

/// More entries than this are written in their full width.
const NARROW_ENTRIES_MAX: usize = 512;
const WIDE_ITEM_BYTES: usize = SHORT_BYTES_MAX + 1;

/// The entries that there is room for before a purge.
fn room(capacity: u32) -> usize {
    let capacity = capacity as usize;
    capacity + (capacity / 2).max(1)
}

impl Top {
    /// The capacity where none is chosen.
    pub const CAPACITY: u32 = 256;
    /// The greatest capacity. Such a state has up to 4.5 MB.
    pub const CAPACITY_MAX: u32 = 65_536;

    /// A state without items that is exact for `capacity` different ones.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) unless the capacity is one of 1 to
    /// [`CAPACITY_MAX`](Top::CAPACITY_MAX).
    ///
    /// ```
    /// use quipu::aggregate::Top;
    ///
    /// assert_eq!(Top::new(1_000)?.capacity(), 1_000);
    /// assert!(Top::new(0).is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn new(capacity: u32) -> Result<Self> {
        if capacity == 0 || capacity > Self::CAPACITY_MAX {
            return Err(Error::invalid(format!(
                "heavy hitters of capacity {capacity}; it is 1 to {}",
                Self::CAPACITY_MAX
            )));
        }
        Ok(Top { capacity, table: None })
    }

    /// The same for a capacity that was checked.
    pub(crate) fn of_capacity(capacity: u32) -> Self {
        Top { capacity, table: None }
    }

    /// The number of different items up to which everything is exact.
    pub fn capacity(&self) -> u32 {
        if self.capacity == 0 { Self::CAPACITY } else { self.capacity }
    }

    /// Counts an item, with a weight; weight 0 is nothing. Amortised O(1).
    ///
    /// ```
    /// use quipu::aggregate::Top;
    ///
    /// let mut top = Top::default();
    /// top.insert(b"tea", 3);
    /// top.insert(b"tea", 4);
    /// assert_eq!(top.count_of(b"tea").value, 7);
    /// ```
    #[inline]
    pub fn insert(&mut self, item: &[u8], weight: u64) {
        self.insert_with(item, || hash(item), weight);
    }

    /// The same for an item whose [hash](super::hash) may be known already; it is asked for where the
    /// item is long. Gives the bytes by which that grew on the heap; it never shrinks.
    #[inline]
    pub(crate) fn insert_with(
        &mut self,
        item: &[u8],
        hash: impl FnOnce() -> u64,
        weight: u64,
    ) -> usize {
        let probe = Probe::new(item, hash);
        if let Some(table) = &mut self.table
            && let Some(at) = table.find(&probe)
        {
            table.total = table.total.saturating_add(weight);
            let upper = &mut table.entries[at].upper;
            *upper = upper.saturating_add(weight);
            return 0;
        }
        self.insert_new(&probe, weight)
    }

    #[inline(never)]
    fn insert_new(&mut self, probe: &Probe<'_>, weight: u64) -> usize {
        if weight == 0 {
            return 0;
        }
        let mut grown = 0;
        let table = self.table.get_or_insert_with(|| {
            grown = size_of::<Table>();
            Box::default()
        });
        if self.capacity == 0 {
            self.capacity = Self::CAPACITY;
        }
        table.total = table.total.saturating_add(weight);
        let (floor, upper) = (table.floor, table.floor.saturating_add(weight));
        if upper > floor {
            let room = room(self.capacity);
            grown += table.push(probe, upper, floor, room + 1);
            if table.entries.len() > room {
                table.purge(self.capacity as usize);
            }
        }
        grown
    }

    /// The weights of all items together.
    pub fn total(&self) -> u64 {
        self.table.as_ref().map_or(0, |table| table.total)
    }

    /// The most by which an answer can be off, and the most that an item can have counted which
    /// [`top`](Top::top) does not name however many it is asked for; 0 as long as everything is exact.
    pub fn error(&self) -> u64 {
        self.table.as_ref().map_or(0, |table| table.floor)
    }

    /// Whether everything is exact.
    pub fn is_exact(&self) -> bool {
        self.error() == 0
    }

    /// The number of items that are known by name: of all different ones, as long as it is exact.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether no item is known by name.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entries(&self) -> &[Entry] {
        self.table.as_ref().map_or(&[], |table| &table.entries)
    }

    /// The entries that it has room for.
    #[cfg(feature = "datasketches")]
    pub(super) fn room(&self) -> usize {
        room(self.capacity())
    }

    /// The state of so many items, each with what its upper bound is above the floor, which all bounds are as
    /// wide as. The capacity becomes the greatest, up to this one, for which invariant 3 holds.
    #[cfg(feature = "datasketches")]
    pub(super) fn of_bounds<'a>(
        capacity: u32,
        floor: u64,
        total: u64,
        items: usize,
        entries: impl Iterator<Item = (&'a [u8], u64)> + Clone,
    ) -> std::result::Result<Self, Malformed> {
        const UNTRUE: Malformed = Malformed("heavy hitters count more than all items together");
        let over = entries.clone().map(|(_, over)| u128::from(over)).sum::<u128>();
        let spare = u128::from(total).checked_sub(over).ok_or(UNTRUE)?;
        let most = if floor == 0 { u128::MAX } else { spare / u128::from(floor) };
        let capacity = u128::from(capacity).min(most.saturating_sub(1)) as u32;
        if capacity == 0 || floor == 0 && spare > 0 {
            return Err(UNTRUE);
        }
        if items > room(Self::CAPACITY_MAX) {
            return Err(Malformed("more heavy hitters than there can be"));
        }
        let arena = entries.clone().map(|(item, _)| arena_bytes(item)).sum();
        let mut table = Table::with_room(items, arena, true);
        (table.floor, table.total) = (floor, total);
        for (item, over) in entries {
            let probe = Probe::new(item, || hash(item));
            let upper = floor.checked_add(over).filter(|_| over > 0).ok_or(UNTRUE)?;
            if table.find(&probe).is_some() {
                return Err(Malformed("a heavy hitter is there twice"));
            }
            table.push(&probe, upper, floor, items);
        }
        let mut top = Top { capacity, table: Some(Box::new(table)) };
        top.purge();
        Ok(top)
    }

    fn purge(&mut self) {
        if let Some(table) = &mut self.table {
            if table.entries.len() > room(self.capacity) {
                table.purge(self.capacity as usize);
            }
            table.give_back(room(self.capacity) + 1);
        }
    }
}

impl Default for Top {
    /// A state that takes the capacity of whichever it is merged with, or
    /// [`CAPACITY`](Top::CAPACITY) with its first item.
    fn default() -> Self {
        Top { capacity: 0, table: None }
    }
}

impl PartialEq for Top {
    fn eq(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (&self.table, &other.table) else {
            return self.capacity == other.capacity
                && self.table.is_none() == other.table.is_none();
        };
        let same = |entry: &Entry| {
            let mut short = [0; SHORT_BYTES_MAX + 1];
            let probe = entry.item.probe(&a.arena, &mut short);
            b.find(&probe).is_some_and(|at| {
                (b.entries[at].upper, b.entries[at].slack) == (entry.upper, entry.slack)
            })
        };
        (self.capacity, a.total, a.floor, a.entries.len())
            == (other.capacity, b.total, b.floor, b.entries.len())
            && a.entries.iter().all(same)
    }
}

impl std::fmt::Debug for Top {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Top")
            .field("capacity", &self.capacity())
            .field("total", &self.total())
            .field("error", &self.error())
            .field("items", &self.top(self.len()))
            .finish()
    }
}

impl Aggregate for Top {
    /// An item, and how much it counts.
    type Input<'a> = (&'a [u8], u64);

    #[inline]
    fn observe(&mut self, (item, weight): Self::Input<'_>, _time: Timestamp) {
        self.insert(item, weight);
    }

    /// Of two capacities the smaller one is that of both together.
    fn merge(&mut self, other: &Self) {
        self.capacity = match (self.capacity, other.capacity) {
            (0, capacity) | (capacity, 0) => capacity,
            (a, b) => a.min(b),
        };
        match (&mut self.table, &other.table) {
            (_, None) => {}
            (empty @ None, Some(_)) => empty.clone_from(&other.table),
            (Some(table), Some(other)) => table.merge(other),
        }
        self.purge();
    }

    fn encode(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, u64::from(self.capacity));
        if self.capacity == 0 {
            return;
        }
        let mut entries: Vec<&Entry> = self.entries().iter().collect();
        codec::put_u64(out, entries.len() as u64);
        codec::put_u64(out, self.error());
        let Some(table) = &self.table else { return };
        if table.floor > 0 {
            codec::put_u64(out, table.total);
        }
        entries.sort_unstable_by(|a, b| table.order(a, b));
        let wide = entries.len() > NARROW_ENTRIES_MAX;
        for entry in entries {
            let mut short = [0; SHORT_BYTES_MAX + 1];
            let item = entry.item.bytes(&table.arena, &mut short);
            let start = out.len();
            codec::put_bytes(out, item);
            if wide {
                out.resize(out.len().max(start + WIDE_ITEM_BYTES), 0);
                out.extend_from_slice(&(entry.upper - table.floor).to_le_bytes());
                out.extend_from_slice(&entry.slack.to_le_bytes());
            } else {
                codec::put_u64(out, entry.upper - table.floor);
                if table.floor > 0 {
                    codec::put_u64(out, entry.slack);
                }
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let capacity = codec::take_u32(bytes)?;
        if capacity == 0 {
            return Ok(Top::default());
        }
        if capacity > Self::CAPACITY_MAX {
            return Err(Malformed("a capacity is greater than there are"));
        }
        let n = codec::take_count(bytes, 2)?;
        if n > room(capacity) {
            return Err(Malformed("more heavy hitters than there is room for"));
        }
        let floor = codec::take_u64(bytes)?;
        let stated = if floor > 0 { Some(codec::take_u64(bytes)?) } else { None };
        if n == 0 && floor == 0 {
            return Ok(Top { capacity, table: None });
        }
        let mut table = Decoding { n, floor, wide: n > NARROW_ENTRIES_MAX }.table(bytes)?;
        // Invariant 3; both sides are below 2^82.
        let over = table.entries.iter().map(|entry| u128::from(entry.upper - floor)).sum::<u128>();
        let least = over + u128::from(floor) * (u128::from(capacity) + 1);
        table.total = match stated {
            None => u64::try_from(over).unwrap_or(u64::MAX),
            Some(total) if total < u64::MAX && u128::from(total) < least => {
                return Err(Malformed("heavy hitters count more than all items together"));
            }
            Some(total) => total,
        };
        Ok(Top { capacity, table: Some(Box::new(table)) })
    }

    fn heap_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, |table| size_of::<Table>() + table.heap_bytes())
    }
}

/// What is known before the entries are read.
struct Decoding {
    n: usize,
    floor: u64,
    wide: bool,
}

impl Decoding {
    fn table(&self, bytes: &mut &[u8]) -> Result<Table, Malformed> {
        // Twice: the arena is made in one piece, and nothing before all is found in order.
        let (mut rest, mut arena) = (*bytes, 0);
        let mut before: Option<&[u8]> = None;
        for _ in 0..self.n {
            let (item, _, _) = self.entry(&mut rest)?;
            if before.is_some_and(|before| before >= item) {
                return Err(Malformed("heavy hitters are not in order"));
            }
            before = Some(item);
            arena += arena_bytes(item);
        }
        let mut table = Table::with_room(self.n, arena, self.wide);
        table.floor = self.floor;
        for _ in 0..self.n {
            let (item, upper, slack) = self.entry(bytes)?;
            table.push(&Probe::new(item, || hash(item)), upper, slack, self.n);
        }
        Ok(table)
    }

    fn entry<'a>(&self, bytes: &mut &'a [u8]) -> Result<(&'a [u8], u64, u64), Malformed> {
        let start = bytes.len();
        let item = codec::take_bytes(bytes)?;
        let (over, slack) = if self.wide {
            let used = start - bytes.len();
            if codec::take(bytes, WIDE_ITEM_BYTES.saturating_sub(used))?.iter().any(|b| *b != 0) {
                return Err(Malformed("the bytes behind a short item are not zero"));
            }
            let over = u64::from_le_bytes(codec::take_array(bytes)?);
            (over, u64::from_le_bytes(codec::take_array(bytes)?))
        } else {
            let over = codec::take_u64(bytes)?;
            (over, if self.floor > 0 { codec::take_u64(bytes)? } else { 0 })
        };
        if over == 0 || slack > self.floor {
            return Err(Malformed("a heavy hitter's bounds are not in order"));
        }
        let upper = self.floor.checked_add(over).ok_or(Malformed("a count is above 2^64 - 1"))?;
        Ok((item, upper, slack))
    }
}
