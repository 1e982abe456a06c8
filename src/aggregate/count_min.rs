//! Counts of everything, each a little too high: the Count-Min sketch, plain and linear.
//!
//! Cormode and Muthukrishnan, "An improved data stream summary: the Count-Min sketch and its
//! applications" (Journal of Algorithms 55, 2005, section 4.1). An item adds its weight to one cell
//! in each row; its count is at most the least of these cells. It is linear: what is removed is as if
//! it had never come, and sums and differences of sketches are those of what they counted. The
//! conservative update, which would raise only the least cells, is narrower and has neither.
//!
//! # Invariants
//!
//! 1. A cell is the sum of its items' weights modulo 2^64, read as a signed number. That is a group,
//!    so the state is a function of the net weights, in any order and grouping, with removals before
//!    or behind what they remove; so are its bytes.
//! 2. Where no net weight is negative, a row whose cells add up to [`total`](CountMin::total) has not
//!    wrapped: each cell lies 0 or more times 2^64 below its true sum, and all true sums together are
//!    the total. A row that has is not asked; [`insert`](CountMin::insert) refuses what would do that.
//!    While the total is below 2^63 none can have, and nothing is added up.
//! 3. States of two shapes have nothing in common but the total of both: such a merge is a state
//!    that knows the total alone, whatever it is merged with later.
//!
//! # The error
//!
//! With N the total, w the width and d the depth, an item's cell in a row exceeds its count by the
//! weights of those that fall together with it: (N - count) / w in the mean, so by 2N / w or more in at
//! most every second case (Markov), in all rows with a chance of 2^-d. So `count <= value` always,
//! and `value <= count + 2N / w` with probability `1 - 2^-d`. The paper's own constants are e in place
//! of 2; those with 2 are what `RedisBloom` sizes by, so that both have the same shape for one error.
//!
//! That needs rows that do not depend on each other. Row j is chosen by the j-th output of `SplitMix64`
//! seeded with the item's one hash. Two multiples of a second hash, as Kirsch and Mitzenmacher, "Less
//! hashing, same performance" (2006) have it, would let two items that agree in both hashes fall together
//! in every row, with a chance of w^-2 a pair in place of w^-d; here they must have the same 64 bits,
//! which the 2^-d leave far behind. The hash has no secret: who chooses items on purpose can make them
//! fall together.
//!
//! # Bytes
//!
//! ```text
//! count_min := 0 · 0                                                     no shape chosen yet
//!            | 0 · 1 · wraps (zigzag) · low (8)                          of two shapes
//!            | width (LEB128) · depth (1) · wraps (zigzag) · form (1) · cells
//! cells     := n (LEB128) · (gap (LEB128) · cell (zigzag)) × n           form 0: the cells not zero
//!            | cell (form) × width · depth                               form 1, 2, 4, 8: all, row by row
//! ```
//!
//! `gap` counts the zeros before. The form is 0 while at most an eighth of the cells, and at most 512,
//! are not zero, else the fewest bytes that hold every cell. The total is what the cells of the first row
//! add up to and `wraps · 2^64`; all rows add up to the same modulo 2^64.
//!
//! Next: `membership.rs`.

mod cells;
#[cfg(test)]
mod tests;

use super::hash::hash;
use super::{Aggregate, Approx, Malformed};
use crate::codec;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use cells::Cells;

/// Counts of all items, of which none is too low: for point queries, with weights that can be taken
/// back.
///
/// A count is too high by at most `2 · total() / width` with probability `1 - 2^-depth`. 48 bytes when
/// empty; while few cells are touched 16 bytes for each, then width · depth cells of one, two, four or
/// eight bytes, as their greatest needs. Inserting and asking are O(depth).
///
/// ```
/// use quipu::aggregate::CountMin;
///
/// let mut counts = CountMin::with_error(0.001, 0.01)?;
/// assert_eq!((counts.width(), counts.depth()), (2_000, 7));
/// counts.insert(b"tea", 5)?;
/// counts.insert(b"milk", 2)?;
/// counts.remove(b"milk", 2)?;
/// assert_eq!(counts.count_of(b"tea").value, 5.0);
/// assert_eq!(counts.count_of(b"milk").value, 0.0);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountMin {
    shape: Shape,
    total: i128,
    cells: Cells,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// That of whichever state it is merged with, or the default.
    #[default]
    Open,
    Of {
        width: u32,
        depth: u8,
    },
    /// Invariant 3.
    Mixed,
}

impl CountMin {
    /// The error where none is given, as a share of the total.
    pub const EPSILON: f64 = 0.001;
    /// The chance of a greater one.
    pub const DELTA: f64 = 0.01;
    /// The most rows.
    pub const DEPTH_MAX: u8 = 32;
    /// The most cells, which take 128 MiB.
    pub const CELLS_MAX: u32 = 1 << 24;

    /// An empty sketch of `depth` rows of `width` cells.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) unless there is a cell, and no more than
    /// [`DEPTH_MAX`](CountMin::DEPTH_MAX) rows and [`CELLS_MAX`](CountMin::CELLS_MAX) cells.
    ///
    /// ```
    /// use quipu::aggregate::CountMin;
    ///
    /// assert!(CountMin::new(20, 5).is_ok());
    /// assert!(CountMin::new(20, 0).is_err());
    /// ```
    pub fn new(width: u32, depth: u8) -> Result<Self> {
        Shape::checked(width, depth).map(|shape| CountMin { shape, ..CountMin::default() }).ok_or_else(
            || {
                Error::invalid(format!(
                    "a sketch of {depth} rows of {width} cells; it has 1 to {} rows, and 1 to {} cells",
                    Self::DEPTH_MAX,
                    Self::CELLS_MAX
                ))
            },
        )
    }

    /// The smallest sketch that errs by no more than `epsilon · total()` but with probability `delta`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) unless both are between 0 and 1, or as
    /// [`new`](CountMin::new).
    pub fn with_error(epsilon: f64, delta: f64) -> Result<Self> {
        let between = |x: f64| x > 0.0 && x < 1.0;
        if !(between(epsilon) && between(delta)) {
            return Err(Error::invalid(format!(
                "an error of {epsilon} with probability {delta}; both are between 0 and 1"
            )));
        }
        // Casts stop at the greatest number, which `new` refuses.
        Self::new((2.0 / epsilon).ceil() as u32, (-delta.log2()).ceil().max(1.0) as u8)
    }

    /// An empty sketch of the same shape.
    pub(crate) fn emptied(&self) -> Self {
        CountMin { shape: self.shape, ..CountMin::default() }
    }

    /// The number of cells in a row; 0 while no shape is chosen.
    pub fn width(&self) -> u32 {
        self.shape.of().0
    }

    /// The number of rows.
    pub fn depth(&self) -> u8 {
        self.shape.of().1
    }

    /// The net weight of all items together.
    pub fn total(&self) -> i128 {
        self.total
    }

    /// Counts an item so many times more.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) where one of its cells would leave 64 bits; nothing is
    /// counted then, and what else was and will be is not touched by it.
    ///
    /// ```
    /// # let mut counts = quipu::aggregate::CountMin::default();
    /// counts.insert(b"tea", i64::MAX as u64)?;
    /// assert!(counts.insert(b"tea", 1).is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn insert(&mut self, item: &[u8], weight: u64) -> Result<()> {
        self.change(item, i128::from(weight))
    }

    /// Takes back what was counted of an item. It may come before what it takes back.
    ///
    /// # Errors
    /// As [`insert`](CountMin::insert).
    pub fn remove(&mut self, item: &[u8], weight: u64) -> Result<()> {
        self.change(item, -i128::from(weight))
    }

    fn change(&mut self, item: &[u8], weight: i128) -> Result<()> {
        let hash = hash(item);
        let fits = |cell: i64| i64::try_from(i128::from(cell) + weight).is_ok();
        let weight_fits = i64::try_from(weight);
        if let Ok(weight) = weight_fits
            && self.shape.places(hash).all(|place| fits(self.cells.get(place)))
        {
            self.add_hashed(hash, weight);
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a count would leave 64 bits with {weight} more; split what is counted over several sketches"
        )))
    }

    /// Counts an item whose [hash](super::hash) is known, modulo 2^64 (invariants 1 and 2).
    pub(crate) fn add_hashed(&mut self, hash: u64, weight: i64) {
        if weight == 0 {
            return;
        }
        if self.shape == Shape::Open {
            self.shape =
                Self::with_error(Self::EPSILON, Self::DELTA).map_or(Shape::Mixed, |s| s.shape);
        }
        self.total = self.total.wrapping_add(i128::from(weight));
        let cells = self.shape.cells();
        for place in self.shape.places(hash) {
            self.cells.add(place, weight, cells);
        }
    }

    /// What is known of an item's count, provided that no item has been taken back more than it had
    /// counted.
    ///
    /// `value` and `upper` are never below the count; `lower` is above it with a chance of 2^-depth at
    /// most, which `confidence` says. Where something shows that the proviso is broken, or that a cell
    /// has left 64 bits, the bounds are what is known all the same: 0 and the total, or infinities.
    pub fn count_of(&self, item: &[u8]) -> Approx {
        let broken = || {
            let (lower, upper) = (f64::NEG_INFINITY, f64::INFINITY);
            Approx { value: 0.0, lower, upper, confidence: 1.0 }
        };
        // No item counts more than all.
        let of_all = || {
            let all = rounded_up(self.total);
            Approx { value: all, lower: 0.0, upper: all, confidence: 1.0 }
        };
        let Shape::Of { width, depth } = self.shape else {
            return if self.total < 0 { broken() } else { of_all() };
        };
        let (mut least, mut rows) = (i64::MAX, 0);
        let sums = (self.total > i128::from(i64::MAX)).then(|| self.cells.row_sums(width, depth));
        for (row, place) in self.shape.places(hash(item)).enumerate() {
            if sums.as_ref().is_none_or(|sums| sums[row] == self.total) {
                least = least.min(self.cells.get(place));
                rows += 1;
            }
        }
        if self.total < 0 || least < 0 {
            return broken();
        }
        if rows == 0 {
            return of_all();
        }
        if least == 0 {
            return Approx::exact(0.0);
        }
        // What is above 2^53 is rounded, upwards where it is a bound from above.
        let upper = rounded_up(i128::from(least));
        let lower = ((least as f64).next_down() - self.error()).max(0.0);
        Approx { value: upper, lower, upper, confidence: 1.0 - 0.5_f64.powi(rows) }
    }

    /// By how much a count is too high at most, with probability `1 - 2^-depth`: 2 · total / width.
    pub fn error(&self) -> f64 {
        match self.shape {
            Shape::Of { width, .. } => 2.0 * self.total.max(0) as f64 / f64::from(width),
            Shape::Open | Shape::Mixed => self.total.max(0) as f64,
        }
    }

    /// Takes out everything that `other` has counted.
    ///
    /// ```
    /// use quipu::aggregate::{Aggregate, CountMin};
    ///
    /// let mut all = CountMin::new(100, 4)?;
    /// let mut part = all.clone();
    /// part.insert(b"tea", 3)?;
    /// all.insert(b"milk", 1)?;
    /// let before = all.clone();
    /// all.merge(&part);
    /// all.subtract(&part);
    /// assert_eq!(all, before);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, -1);
    }

    /// Adds so many times what `other` has counted.
    fn combine(&mut self, other: &Self, sign: i64) {
        self.total = self.total.wrapping_add(other.total.wrapping_mul(i128::from(sign)));
        self.shape = match (self.shape, other.shape) {
            (Shape::Open, shape) | (shape, Shape::Open) => shape,
            (a, b) if a == b => a,
            _ => Shape::Mixed,
        };
        if self.shape == Shape::Mixed {
            self.cells = Cells::default();
            return;
        }
        self.cells.combine(&other.cells, sign, self.shape.cells());
    }
}

impl Shape {
    fn checked(width: u32, depth: u8) -> Option<Self> {
        let cells = width.checked_mul(u32::from(depth))?;
        let fits = cells > 0 && cells <= CountMin::CELLS_MAX && depth <= CountMin::DEPTH_MAX;
        fits.then_some(Shape::Of { width, depth })
    }

    fn of(self) -> (u32, u8) {
        match self {
            Shape::Of { width, depth } => (width, depth),
            Shape::Open | Shape::Mixed => (0, 0),
        }
    }

    fn cells(self) -> usize {
        let (width, depth) = self.of();
        width as usize * usize::from(depth)
    }

    /// The cell of each row: outputs of `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom
    /// number generators", 2014) with the hash as its seed.
    #[inline]
    fn places(self, hash: u64) -> impl Iterator<Item = usize> {
        let (width, depth) = self.of();
        (0..u64::from(depth)).map(move |row| {
            let z = hash.wrapping_add((row + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let z = z ^ (z >> 31);
            let chosen = (u128::from(z) * u128::from(width)) >> 64;
            (row * u64::from(width)) as usize + chosen as usize
        })
    }
}

/// The least `f64` that is not below a number.
fn rounded_up(number: i128) -> f64 {
    let near = number as f64;
    if (near as i128) < number { near.next_up() } else { near }
}

impl Aggregate for CountMin {
    /// An item, and by how much its count changes.
    type Input<'a> = (&'a [u8], i64);

    fn observe(&mut self, (item, weight): Self::Input<'_>, _time: Timestamp) {
        self.add_hashed(hash(item), weight);
    }

    fn merge(&mut self, other: &Self) {
        self.combine(other, 1);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (width, depth) = self.shape.of();
        codec::put_u64(out, u64::from(width));
        match self.shape {
            Shape::Open => out.push(0),
            Shape::Mixed => {
                out.push(1);
                codec::put_i64(out, (self.total >> 64) as i64);
                out.extend_from_slice(&(self.total as u64).to_le_bytes());
            }
            Shape::Of { .. } => {
                out.push(depth);
                let first = self.cells.row_sums(width, depth)[0];
                codec::put_i64(out, (self.total.wrapping_sub(first) >> 64) as i64);
                self.cells.encode(out, self.shape.cells());
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let width = codec::take_u32(bytes)?;
        let [depth] = codec::take_array(bytes)?;
        if width == 0 {
            return match depth {
                0 => Ok(CountMin::default()),
                1 => {
                    let high = i128::from(codec::take_i64(bytes)?) << 64;
                    let total = high | i128::from(u64::from_le_bytes(codec::take_array(bytes)?));
                    Ok(CountMin { shape: Shape::Mixed, total, cells: Cells::default() })
                }
                _ => Err(Malformed("a sketch has no cells")),
            };
        }
        let too_many = Malformed("a sketch has no cells or more than there are");
        let shape = Shape::checked(width, depth).ok_or(too_many)?;
        let wraps = i128::from(codec::take_i64(bytes)?) << 64;
        let cells = Cells::decode(bytes, shape.cells())?;
        let sums = cells.row_sums(width, depth);
        if sums.iter().any(|sum| *sum as u64 != sums[0] as u64) {
            return Err(Malformed("the rows of a sketch do not add up to the same"));
        }
        Ok(CountMin { shape, total: wraps.wrapping_add(sums[0]), cells })
    }

    fn heap_bytes(&self) -> usize {
        self.cells.heap_bytes()
    }
}
