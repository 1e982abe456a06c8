//! Images of HLL sketches: whether bytes are one, and a [`Distinct`](crate::aggregate::Distinct)'s registers
//! or items as one.
//!
//! ```text
//! image    := words of the preamble (1) · 1 7 · lg_k (1) · lg of the table (1) · flags (1) · state (1) · mode (1) · body
//! preamble := 2 list, 3 set, 10 registers
//! mode     := 0 list, 1 set, 2 registers, and 0, 4 or 8 for registers of 4, 6 or 8 bits
//! flags    := 4 empty, 8 compact, 16 registers were merged
//! list     := coupon (4)*                                         state: how many, 7 at most
//! set      := coupons (4) · coupon (4)*
//! registers := estimate (f64) · Σ 2^-r, r < 32 (f64) · Σ 2^-r, r ≥ 32 (f64) · how many are least (4) ·
//!             coupons (4) · registers · coupon (4)*               state: the least register of 4 bits
//! ```
//!
//! A *coupon* is a register's value in its upper 6 bits, and below them 26 of which the lower `lg_k` are the
//! register's number. What is not compact has the free cells of its coupons, too, as zeros. A register of 4 bits is less
//! by the least one; where it does not fit it is 15, and has a coupon. Sets grow at three quarters.

use super::{family, header};
use crate::aggregate::Malformed;
use crate::codec;

pub(in crate::aggregate) const LG_K_MIN: u8 = 4;
pub(super) const LG_K_MAX: u8 = 21;
const VERSION: u8 = 1;
const EMPTY: u8 = 4;
const COMPACT: u8 = 8;
const MERGED: u8 = 16;
/// As long as it is a list.
const LIST_MAX: usize = 7;
const LG_LIST: u8 = 3;
const LG_SET_MIN: u8 = 5;
/// A table in which coupons lie further off is none that items leave.
const STEPS_MAX: usize = 64;
/// Below this `lg_k` there are no sets.
const LG_K_SET_MIN: u8 = 8;
/// The type of 8 bits in a mode.
const BYTES: u8 = 2 << 2;
/// Of a coupon that are no value.
const PLACE_BITS: u32 = 26;
/// In 4 bits: the register is a coupon.
const IN_COUPON: u8 = 15;
const VALUE_MAX: u8 = 63;
const NO_HLL: &str = "the bytes are no HLL sketch of Apache DataSketches";
const UNTRUE: Malformed = Malformed("an HLL sketch is not what its header says");

/// A header, as far as it is of use.
struct Header {
    lg_k: u8,
    lg_table: u8,
    flags: u8,
    state: u8,
    /// Registers have 4, 6 or 8 bits.
    kind: u8,
}

/// Whether the bytes are an image, all of them, that leaves an `HllSketch` whose invariants hold.
pub(super) fn check(image: &[u8]) -> Result<(), Malformed> {
    let ([preamble, version, _, lg_k, lg_table, flags, state, mode], body) =
        header(image, family::HLL, NO_HLL)?;
    let kind = mode >> 2 & 3;
    if version != VERSION || !(LG_K_MIN..=LG_K_MAX).contains(&lg_k) || kind > 2 {
        return Err(Malformed("an HLL sketch has no lg_k of 4 to 21, or another version or kind"));
    }
    let header = Header { lg_k, lg_table, flags, state, kind };
    match (mode & 3, preamble) {
        (0, 2) => check_list(&header, body),
        (1, 3) => check_set(&header, body),
        (2, 10) => check_registers(&header, body),
        _ => Err(UNTRUE),
    }
}

fn coupons(bytes: &[u8]) -> impl Iterator<Item = u32> + Clone + '_ {
    bytes.as_chunks::<4>().0.iter().map(|coupon| u32::from_le_bytes(*coupon))
}

fn value(coupon: u32) -> u8 {
    (coupon >> PLACE_BITS) as u8
}

/// What fails is `UNTRUE`.
fn must(is: bool) -> Result<(), Malformed> {
    if is { Ok(()) } else { Err(UNTRUE) }
}

fn check_list(header: &Header, body: &[u8]) -> Result<(), Malformed> {
    let count = usize::from(header.state);
    must(header.lg_table == LG_LIST && count <= LIST_MAX)?;
    must((header.flags & EMPTY != 0) == (count == 0))?;
    let cells = if header.flags & COMPACT != 0 { count } else { 1 << LG_LIST };
    must(body.len() == 4 * cells || count == 0 && body.is_empty())?;
    must(coupons(body).enumerate().all(|(at, coupon)| {
        // A cell that is free is nothing but zeros, and none has what another one has.
        let is_new = coupons(body).take(at).all(|before| before != coupon);
        if at < count { value(coupon) > 0 && is_new } else { coupon == 0 }
    }))
}

fn check_set(header: &Header, mut body: &[u8]) -> Result<(), Malformed> {
    let count = u32::from_le_bytes(codec::take_array(&mut body)?) as usize;
    let lg_table = header.lg_table;
    must(header.lg_k >= LG_K_SET_MIN && (LG_SET_MIN..=header.lg_k - 3).contains(&lg_table))?;
    let cells = 1_usize << lg_table;
    // As full as growing leaves it: what it takes is in proportion to the bytes.
    must(4 * count <= 3 * cells && (lg_table == LG_SET_MIN || 8 * count > 3 * cells))?;
    let is_compact = header.flags & COMPACT != 0;
    must(body.len() == 4 * if is_compact { count } else { cells })?;
    let taken = coupons(body).filter(|coupon| value(*coupon) > 0).count();
    must(taken == count && coupons(body).all(|coupon| coupon == 0 || value(coupon) > 0))?;
    must(is_compact || are_found(body.as_chunks::<4>().0, lg_table))
}

/// Whether each coupon lies where it is looked for, so that none is there twice and none is taken for new.
fn are_found(cells: &[[u8; 4]], lg_table: u8) -> bool {
    let mask = cells.len() - 1;
    // Tables that are three quarters full take two or three steps each.
    let mut steps = STEPS_MAX * cells.len();
    cells.iter().enumerate().all(|(at, cell)| {
        let coupon = u32::from_le_bytes(*cell);
        let stride = (coupon & ((1 << PLACE_BITS) - 1)) >> lg_table | 1;
        let mut place = coupon as usize & mask;
        while coupon != 0 && place != at {
            if [[0; 4], *cell].contains(&cells[place]) || steps == 0 {
                return false;
            }
            steps -= 1;
            place = (place + stride as usize) & mask;
        }
        true
    })
}

fn check_registers(header: &Header, mut body: &[u8]) -> Result<(), Malformed> {
    let mut float = || codec::take_array(&mut body).map(f64::from_le_bytes);
    let (estimate, sum_low, sum_high) = (float()?, float()?, float()?);
    let mut number = || codec::take_array(&mut body).map(u32::from_le_bytes);
    let (least, exceptions) = (number()?, number()? as usize);
    let m = 1_usize << header.lg_k;
    let registers = codec::take(
        &mut body,
        match header.kind {
            0 => m / 2,
            1 => m * 3 / 4 + 1,
            _ => m,
        },
    )?;
    must(header.kind == 0 || header.state == 0 && exceptions == 0)?;
    // The values that do not fit are a few in ten thousand where an image was made by observing.
    must(exceptions <= (m / 8).max(16))?;
    let is_compact = header.kind != 0 || header.flags & COMPACT != 0;
    if is_compact {
        must(body.len() == 4 * exceptions)?;
    } else if exceptions > 0 {
        must(header.lg_table < 26 && body.len() == 4 << header.lg_table)?;
    } else {
        must(body.len() == 4 << lg_exceptions(header.lg_k) && body.iter().all(|byte| *byte == 0))?;
    }
    let mut sums = Sums::default();
    match header.kind {
        0 => sums.of_four_bits(header, registers, body, exceptions)?,
        1 => (0..m).try_for_each(|at| sums.add(six_bits(registers, at)))?,
        _ => registers.iter().try_for_each(|register| sums.add(*register))?,
    }
    let same = |told: f64, is: f64| (told - is).abs() <= 1e-9 * is;
    must(same(sum_low, sums.low) && same(sum_high, sums.high))?;
    must(least == if header.kind == 0 { sums.least } else { sums.zeros })?;
    let met = m as f64 - f64::from(sums.zeros);
    // Each register that is not zero was an item; a merged sketch has no estimate of its own.
    must(estimate.is_finite() && (header.flags & MERGED != 0 || estimate >= 0.9 * met))
}

/// The cells that an image has for coupons which there are none of, if it is not compact.
fn lg_exceptions(lg_k: u8) -> u8 {
    match lg_k {
        0..=6 => 2,
        7..=9 => 3,
        10 | 11 => 4,
        12 | 13 => 5,
        _ => lg_k - 8,
    }
}

/// The register at a place, where four lie in three bytes.
fn six_bits(registers: &[u8], at: usize) -> u8 {
    let bit = 6 * at;
    let two = [registers[bit / 8], registers.get(bit / 8 + 1).copied().unwrap_or(0)];
    (u16::from_le_bytes(two) >> (bit % 8)) as u8 & VALUE_MAX
}

/// What an image says of its registers.
#[derive(Default)]
struct Sums {
    low: f64,
    high: f64,
    zeros: u32,
    /// Registers of 4 bits that are the least.
    least: u32,
}

impl Sums {
    fn add(&mut self, register: u8) -> Result<(), Malformed> {
        must(register <= VALUE_MAX)?;
        let part = 1.0 / (1_u64 << register) as f64;
        *(if register < 32 { &mut self.low } else { &mut self.high }) += part;
        self.zeros += u32::from(register == 0);
        Ok(())
    }

    fn of_four_bits(
        &mut self,
        header: &Header,
        registers: &[u8],
        exceptions: &[u8],
        count: usize,
    ) -> Result<(), Malformed> {
        let least = header.state;
        must(least < VALUE_MAX)?;
        let place = |coupon: u32| coupon & ((1 << header.lg_k) - 1);
        let nibble = |at: u32| registers[at as usize / 2] >> (4 * (at & 1)) & 15;
        let taken = coupons(exceptions).filter(|coupon| *coupon != 0);
        // The crate refuses two of one register; so as many as there are of it have each their own.
        let mut found = 0;
        for coupon in taken {
            let fits = value(coupon) >= least.saturating_add(IN_COUPON);
            must(fits && nibble(place(coupon)) == IN_COUPON)?;
            self.add(value(coupon))?;
            found += 1;
        }
        must(found == count)?;
        for at in 0..1 << header.lg_k {
            match nibble(at) {
                IN_COUPON => found = found.checked_sub(1).ok_or(UNTRUE)?,
                above => {
                    self.least += u32::from(above == 0);
                    self.add(least + above)?;
                }
            }
        }
        must(found == 0 && self.least > 0)
    }
}

/// Registers of 8 bits as an image, with an estimate of what they are of.
pub(in crate::aggregate) fn of_registers(registers: &[u8], estimate: f64) -> Vec<u8> {
    let lg_k = registers.len().trailing_zeros() as u8;
    let sum = |of: fn(&u8) -> bool| {
        let of = registers.iter().filter(|register| of(register));
        of.map(|register| 1.0 / (1_u64 << register) as f64).sum::<f64>()
    };
    let zeros: u32 = registers.iter().map(|register| u32::from(*register == 0)).sum();
    let mut image = vec![10, VERSION, family::HLL, lg_k, 0, 0, 0, 2 | BYTES];
    for float in [estimate, sum(|register| *register < 32), sum(|register| *register >= 32)] {
        image.extend_from_slice(&float.to_le_bytes());
    }
    image.extend_from_slice(&zeros.to_le_bytes());
    image.extend_from_slice(&[0; 4]);
    image.extend_from_slice(registers);
    image
}

/// The coupon of a register's value, told from others by bits that are as good as drawn.
pub(in crate::aggregate) fn coupon(lg_k: u8, register: u32, drawn: u32, value: u8) -> u32 {
    let place = (drawn << lg_k | register) & ((1 << PLACE_BITS) - 1);
    u32::from(value) << PLACE_BITS | place
}

/// Whether a sketch of this size has so many items as coupons.
pub(in crate::aggregate) fn has_coupons(lg_k: u8, items: usize) -> bool {
    items <= LIST_MAX || lg_k >= LG_K_SET_MIN && 4 * items <= 3 << (lg_k - 3)
}

/// Coupons as an image, as many as such a sketch has.
pub(in crate::aggregate) fn of_coupons(lg_k: u8, coupons: &[u32]) -> Vec<u8> {
    let count = coupons.len();
    let mut image = if count <= LIST_MAX {
        let flags = if count == 0 { COMPACT | EMPTY } else { COMPACT };
        vec![2, VERSION, family::HLL, lg_k, LG_LIST, flags, count as u8, BYTES]
    } else {
        let lg_table = (LG_SET_MIN..lg_k).find(|lg| 4 * count <= 3 << lg).unwrap_or(lg_k);
        let mut image = vec![3, VERSION, family::HLL, lg_k, lg_table, COMPACT, 0, 1 | BYTES];
        image.extend_from_slice(&(count as u32).to_le_bytes());
        image
    };
    for coupon in coupons {
        image.extend_from_slice(&coupon.to_le_bytes());
    }
    image
}
