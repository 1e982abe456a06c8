//! The cells of a Count-Min sketch: those that are not zero while they are few, then all of them, as
//! wide as the greatest needs.
//!
//! Invariants
//! 1. Listed cells ascend, and none is zero; there are at most as many as [`listed_max`] says.
//! 2. What is all there stays so in memory, and as wide, though less would do; `encode` writes the form
//!    that the values have, and equality is that of the values.

use crate::aggregate::Malformed;
use crate::codec;

#[derive(Clone, Debug)]
pub(super) enum Cells {
    Listed(Vec<(u32, i64)>),
    Bytes(Box<[i8]>),
    Shorts(Box<[i16]>),
    Words(Box<[i32]>),
    Longs(Box<[i64]>),
}

/// So many cells are listed at most.
const LISTED_MAX: usize = 512;

fn listed_max(cells: usize) -> usize {
    LISTED_MAX.min(cells / 8)
}

/// The fewest bytes that hold a cell.
fn width_of(cell: i64) -> u8 {
    if i8::try_from(cell).is_ok() {
        1
    } else if i16::try_from(cell).is_ok() {
        2
    } else if i32::try_from(cell).is_ok() {
        4
    } else {
        8
    }
}

/// Adds modulo 2^64; gives the sum back where it does not fit.
#[inline]
fn add_within<T: Copy + Into<i64> + TryFrom<i64>>(cell: &mut T, weight: i64) -> Option<i64> {
    let sum = (*cell).into().wrapping_add(weight);
    match T::try_from(sum) {
        Ok(fits) => {
            *cell = fits;
            None
        }
        Err(_) => Some(sum),
    }
}

impl Default for Cells {
    fn default() -> Self {
        Cells::Listed(Vec::new())
    }
}

impl Cells {
    pub(super) fn get(&self, place: usize) -> i64 {
        match self {
            Cells::Listed(listed) => {
                let found = listed.binary_search_by_key(&(place as u32), |(at, _)| *at);
                found.map_or(0, |at| listed[at].1)
            }
            Cells::Bytes(cells) => i64::from(cells[place]),
            Cells::Shorts(cells) => i64::from(cells[place]),
            Cells::Words(cells) => i64::from(cells[place]),
            Cells::Longs(cells) => cells[place],
        }
    }

    /// Writes a cell of those that are all there; the width is enough for it.
    fn set(&mut self, place: usize, cell: i64) {
        match self {
            Cells::Listed(_) => {}
            Cells::Bytes(cells) => cells[place] = cell as i8,
            Cells::Shorts(cells) => cells[place] = cell as i16,
            Cells::Words(cells) => cells[place] = cell as i32,
            Cells::Longs(cells) => cells[place] = cell,
        }
    }

    fn zeros(width: u8, cells: usize) -> Self {
        match width {
            1 => Cells::Bytes(vec![0; cells].into()),
            2 => Cells::Shorts(vec![0; cells].into()),
            4 => Cells::Words(vec![0; cells].into()),
            _ => Cells::Longs(vec![0; cells].into()),
        }
    }

    /// Those that are not zero, ascending.
    fn iter(&self) -> impl Iterator<Item = (usize, i64)> {
        let (listed, all) = match self {
            Cells::Listed(listed) => (listed.as_slice(), 0),
            Cells::Bytes(cells) => (&[][..], cells.len()),
            Cells::Shorts(cells) => (&[][..], cells.len()),
            Cells::Words(cells) => (&[][..], cells.len()),
            Cells::Longs(cells) => (&[][..], cells.len()),
        };
        let listed = listed.iter().map(|(at, cell)| (*at as usize, *cell));
        listed.chain((0..all).map(|at| (at, self.get(at))).filter(|(_, cell)| *cell != 0))
    }

    /// Adds modulo 2^64, to one of so many.
    pub(super) fn add(&mut self, place: usize, weight: i64, cells: usize) {
        if let Cells::Listed(listed) = self {
            match listed.binary_search_by_key(&(place as u32), |(at, _)| *at) {
                Ok(at) => {
                    listed[at].1 = listed[at].1.wrapping_add(weight);
                    if listed[at].1 == 0 {
                        listed.remove(at);
                    }
                    return;
                }
                Err(at) if listed.len() < listed_max(cells) => {
                    listed.insert(at, (place as u32, weight));
                    return;
                }
                Err(_) => self.spread(1, cells),
            }
        }
        let wider = match self {
            Cells::Listed(_) => None,
            Cells::Bytes(all) => add_within(&mut all[place], weight),
            Cells::Shorts(all) => add_within(&mut all[place], weight),
            Cells::Words(all) => add_within(&mut all[place], weight),
            Cells::Longs(all) => add_within(&mut all[place], weight),
        };
        if let Some(cell) = wider {
            self.spread(width_of(cell), cells);
            self.set(place, cell);
        }
    }

    /// Makes all of them be there, this wide at least.
    fn spread(&mut self, width: u8, cells: usize) {
        let least = self.iter().map(|(_, cell)| width_of(cell)).max().unwrap_or(1);
        let mut wider = Self::zeros(least.max(width), cells);
        self.iter().for_each(|(place, cell)| wider.set(place, cell));
        *self = wider;
    }

    pub(super) fn combine(&mut self, other: &Cells, sign: i64, cells: usize) {
        other.iter().for_each(|(place, cell)| self.add(place, cell.wrapping_mul(sign), cells));
    }

    /// What the cells of each row add up to.
    pub(super) fn row_sums(&self, width: u32, depth: u8) -> Vec<i128> {
        let mut sums = vec![0; usize::from(depth)];
        self.iter().for_each(|(place, cell)| sums[place / width as usize] += i128::from(cell));
        sums
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, cells: usize) {
        let (mut n, mut width) = (0, 1);
        for (_, cell) in self.iter() {
            n += 1;
            width = width.max(width_of(cell));
        }
        if n <= listed_max(cells) {
            out.push(0);
            codec::put_u64(out, n as u64);
            let mut next = 0;
            for (place, cell) in self.iter() {
                codec::put_u64(out, (place - next) as u64);
                codec::put_i64(out, cell);
                next = place + 1;
            }
            return;
        }
        out.push(width);
        for place in 0..cells {
            out.extend_from_slice(&self.get(place).to_le_bytes()[..usize::from(width)]);
        }
    }

    pub(super) fn decode(bytes: &mut &[u8], cells: usize) -> Result<Self, Malformed> {
        match codec::take_array(bytes)? {
            [0] => Self::decode_listed(bytes, cells),
            [width @ (1 | 2 | 4 | 8)] => Self::decode_all(bytes, width, cells),
            _ => Err(Malformed("a cell has 1, 2, 4 or 8 bytes")),
        }
    }

    fn decode_listed(bytes: &mut &[u8], cells: usize) -> Result<Self, Malformed> {
        let n = codec::take_count(bytes, 2)?;
        if n > listed_max(cells) {
            return Err(Malformed("more cells are listed than are"));
        }
        let mut listed = Vec::with_capacity(n);
        let mut next = 0_usize;
        for _ in 0..n {
            let gap = codec::take_u32(bytes)? as usize;
            let place = next + gap;
            let cell = codec::take_i64(bytes)?;
            if place >= cells || cell == 0 {
                return Err(Malformed("a listed cell is none, or zero"));
            }
            listed.push((place as u32, cell));
            next = place + 1;
        }
        Ok(Cells::Listed(listed))
    }

    fn decode_all(bytes: &mut &[u8], width: u8, cells: usize) -> Result<Self, Malformed> {
        let raw = codec::take(bytes, cells * usize::from(width))?;
        let all = match width {
            1 => Cells::Bytes(raw.iter().map(|byte| *byte as i8).collect()),
            2 => Cells::Shorts(raw.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)).collect()),
            4 => Cells::Words(raw.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()),
            _ => Cells::Longs(raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        };
        let least = all.iter().map(|(_, cell)| width_of(cell)).max();
        if least != Some(width) || all.iter().count() <= listed_max(cells) {
            return Err(Malformed("cells are written wider than they need, or not listed"));
        }
        Ok(all)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Cells::Listed(listed) => listed.capacity() * size_of::<(u32, i64)>(),
            Cells::Bytes(cells) => size_of_val(&**cells),
            Cells::Shorts(cells) => size_of_val(&**cells),
            Cells::Words(cells) => size_of_val(&**cells),
            Cells::Longs(cells) => size_of_val(&**cells),
        }
    }
}

impl PartialEq for Cells {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
