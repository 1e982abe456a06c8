//! A [`Top`] as a sketch of frequent items, strings, and such a sketch as a [`Top`].
//!
//! ```text
//! image := 1 1 10 · lg of the greatest map (1) · lg of the map (1) · 5 0 0                  no item
//!        | 4 1 10 · lg of the greatest map (1) · lg of the map (1) · 0 0 0 · items (4) · 0 (4)
//!          · weight of all (8) · offset (8) · weight (8)* · (length (4) · UTF-8)*
//! ```
//!
//! There an item with a weight counted between that and the offset more, another one the offset at most. So of
//! `floor` and `upper` (`top.rs`) the offset is the one and a weight what the other is above it: upper bounds
//! are the same on both sides, lower ones that were narrower here are the widest there, and what is read
//! has the same bounds as where it comes from. A map is three quarters full at most.

use super::{family, header};
use crate::aggregate::{Malformed, Top};
use crate::codec;
use crate::error::{Error, Result};
use std::result;

const EMPTY: u8 = 5;
const LG_MAP_MIN: u8 = 3;
const LG_MAP_MAX: u8 = 30;
const NO_FREQUENT: &str = "the bytes are no sketch of frequent items of Apache DataSketches";
const UNTRUE: Malformed = Malformed("frequent strings are not what their header says");

/// The items that a map of 2^lg has room for.
fn map_room(lg: u8) -> usize {
    3 << lg >> 2
}

/// The least map for so many items.
fn lg_map(items: usize) -> u8 {
    (LG_MAP_MIN..LG_MAP_MAX).find(|lg| map_room(*lg) >= items).unwrap_or(LG_MAP_MAX)
}

impl Top {
    /// The state as a sketch of frequent items of Apache DataSketches (`frequent_strings_sketch`), which any of
    /// its implementations reads and merges. Upper bounds stay; a lower bound is the upper one less
    /// [`error`](Self::error).
    ///
    /// ```
    /// use quipu::aggregate::Top;
    ///
    /// let mut top = Top::default();
    /// (0..100).for_each(|n| top.insert(format!("item {}", n % 30).as_bytes(), n));
    /// let back = Top::from_datasketches(&top.to_datasketches()?).unwrap();
    /// assert_eq!((back.total(), back.top(9)), (top.total(), top.top(9)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) where an item is not UTF-8, or all together count more than
    /// 2^63 - 1, for neither can be told there.
    pub fn to_datasketches(&self) -> Result<Vec<u8>> {
        let (items, offset) = (self.top(usize::MAX), self.error());
        let lg_max = lg_map(self.room());
        let mut image = vec![1, 1, family::FREQUENCY, lg_max, LG_MAP_MIN, EMPTY, 0, 0];
        if self.total() == 0 {
            return Ok(image);
        }
        if i64::try_from(self.total()).is_err() {
            return Err(Error::invalid(format!(
                "items that count {} together; a sketch of frequent items holds 2^63 - 1",
                self.total()
            )));
        }
        image[0] = 4;
        image[4] = lg_map(items.len());
        image[5] = 0;
        image.extend_from_slice(&(items.len() as u64).to_le_bytes());
        image.extend_from_slice(&self.total().to_le_bytes());
        image.extend_from_slice(&offset.to_le_bytes());
        for heavy in &items {
            image.extend_from_slice(&(heavy.upper - offset).to_le_bytes());
        }
        for heavy in &items {
            if std::str::from_utf8(&heavy.item).is_err() {
                return Err(Error::invalid(format!(
                    "the item {:?} is not UTF-8; frequent strings are",
                    heavy.text()
                )));
            }
            image.extend_from_slice(&(heavy.item.len() as u32).to_le_bytes());
            image.extend_from_slice(&heavy.item);
        }
        Ok(image)
    }

    /// Reads what Apache DataSketches wrote of frequent strings. Bounds are those of the sketch. The capacity is
    /// that of its map, or less where the sketch does not know its items as well as a [`Top`] of that
    /// capacity does; then no more of the lightest items are kept than that one has room for.
    ///
    /// # Errors
    /// [`Malformed`] for anything else, for sketches of numbers, and for more than 98,304 items.
    pub fn from_datasketches(image: &[u8]) -> result::Result<Self, Malformed> {
        let ([preamble, version, _, lg_max, lg_map, flags, _, _], mut rest) =
            header(image, family::FREQUENCY, NO_FREQUENT)?;
        let is_map = LG_MAP_MIN <= lg_map && lg_map <= lg_max && lg_max <= LG_MAP_MAX;
        // The upper bits are of no use in an image.
        let preamble = preamble & 0x3f;
        let is_empty = flags & EMPTY != 0;
        if !is_map || version != 1 || preamble != if is_empty { 1 } else { 4 } {
            return Err(UNTRUE);
        }
        let capacity = map_room(lg_max).min(Self::CAPACITY_MAX as usize) as u32;
        if is_empty {
            codec::finished(rest)?;
            return Ok(Self::of_capacity(capacity));
        }
        let items = u32::from_le_bytes(codec::take_array(&mut rest)?) as usize;
        let _unused: [u8; 4] = codec::take_array(&mut rest)?;
        let total = u64::from_le_bytes(codec::take_array(&mut rest)?);
        let offset = u64::from_le_bytes(codec::take_array(&mut rest)?);
        if items > map_room(lg_map) || i64::try_from(total).is_err() || total == 0 {
            return Err(UNTRUE);
        }
        let weights = codec::take(&mut rest, items.saturating_mul(8))?;
        let mut strings = rest;
        for _ in 0..items {
            string(&mut strings)?;
        }
        codec::finished(strings)?;
        let entries = super::words(weights).scan(rest, entry);
        Self::of_bounds(capacity, offset, total, items, entries)
    }
}

/// The next string beside its weight.
fn entry<'a>(strings: &mut &'a [u8], weight: u64) -> Option<(&'a [u8], u64)> {
    Some((string(strings).ok()?, weight))
}

/// The next string, which is UTF-8.
fn string<'a>(bytes: &mut &'a [u8]) -> result::Result<&'a [u8], Malformed> {
    let length = u32::from_le_bytes(codec::take_array(bytes)?);
    let string = codec::take(bytes, length as usize)?;
    std::str::from_utf8(string).map_err(|_| Malformed("a frequent string is not UTF-8"))?;
    Ok(string)
}
