//! The registers of `UltraLogLog`: what a large number of different items leaves.
//!
//! Of a hash the upper `p` bits are the index of a register, and the number of zeros that begin the
//! others is its *level*, 0 to 64 - p. A register holds the greatest level that it has met, and
//! whether it has met the two below:
//!
//! ```text
//! register := 4·(level + p - 1) + 2·[level - 1 was met] + [level - 2 was met]     0: nothing was met
//! ```
//!
//! O. Ertl, "`UltraLogLog`: A Practical and More Space-Efficient Alternative to `HyperLogLog` for
//! Approximate Distinct Counting", PVLDB 17/7 (arXiv:2308.16862), section 2; index, level and
//! bytes are those of the reference implementation in hash4j.
//!
//! *Estimate:* the number for which the registers are the likeliest (section 3.1), without its bias of
//! the first order. With n items, m registers and λ = n / m, level k comes to a register at the rate λρ(k),
//! ρ(k) = 2^-(k+1) (the last two levels share the last), so
//! `ln L = -λ·A + Σ b(k) ln(1 - exp(-λρ(k)))`, A being the sum of ρ over the levels that registers say they
//! have not met and b(k) the number of those that have met level k. Its derivative has one zero.
//! Relative standard error `√(ln 2 / ζ(2, 5/4) / m)`, that is 0.761 / √m: 1.19 % at p = 12, 0.59 % at 14.
//!
//! Rejected: the FGRA estimator of section 3.3, 0.782 / √m. Either goes through the registers once and
//! that is most of the time (`cargo bench --bench distinct`, estimate), so the better one is free.

use std::array;

/// √(ln 2 / ζ(2, 5/4)): the standard error is this, divided by the root of the number of registers.
const STANDARD_ERROR: f64 = 0.760_9;
/// Of the estimate's bias of the first order, in units of 1 / m (ibid., section 3.1).
const BIAS: f64 = 0.481_473_765_277_200_65;
/// Levels with rates of their own at the least precision, 4.
const LEVELS: usize = 64;

/// The precision of so many registers.
#[inline]
fn precision(registers: &[u8]) -> u32 {
    registers.len().trailing_zeros()
}

/// The levels of a register, each a bit; what is shifted out of a register of nothing is nothing.
fn unpack(register: u8) -> u64 {
    u64::from(4 | register & 3).wrapping_shl(u32::from(register >> 2).wrapping_sub(2))
}

/// The register of levels, one at least.
fn pack(levels: u64) -> u8 {
    let greatest = levels.ilog2();
    (greatest << 2) as u8 | (levels << (63 - greatest) << 1 >> 62) as u8
}

/// What two registers say together: the greater one, and of the other the levels that lie no more than
/// two below it. (Nothing lies below any register by more than that.)
#[inline]
fn together(a: u32, b: u32) -> u32 {
    let (high, low) = (a.max(b), a.min(b));
    high | (u64::from(4 | low & 3) >> ((high >> 2) - (low >> 2))) as u32 & 3
}

/// The register of a hash, and what it becomes when the hash is folded in; there is none where there are
/// no registers.
#[inline]
fn updated(registers: &[u8], hash: u64) -> Option<(usize, u8)> {
    let index = registers.len().checked_sub(1)?;
    let p = precision(registers);
    // The index comes to lie behind the rest; ones in its place stop the count of zeros.
    let turned = hash.rotate_left(p);
    let level = 63 - (turned | index as u64 | 1).ilog2();
    let at = turned as usize & index;
    Some((at, together(registers[at].into(), (level + p - 1) << 2) as u8))
}

/// Folds a hash in.
#[inline]
pub(super) fn update(registers: &mut [u8], hash: u64) {
    if let Some((at, register)) = updated(registers, hash) {
        registers[at] = register;
    }
}

/// Whether a hash, folded in, would change nothing.
pub(super) fn has(registers: &[u8], hash: u64) -> bool {
    updated(registers, hash).is_some_and(|(at, register)| registers[at] == register)
}

/// Folds other registers of the same precision in: [`together`], with comparisons in place of shifts,
/// which a compiler makes of 16 registers at once.
pub(super) fn merge(registers: &mut [u8], other: &[u8]) {
    for (a, b) in registers.iter_mut().zip(other) {
        let (high, low) = ((*a).max(*b), (*a).min(*b));
        let below = (high >> 2) - (low >> 2);
        let same = if below == 0 { low & 3 } else { 0 };
        let one = if below == 1 { 2 | (low >> 1 & 1) } else { 0 };
        let two = u8::from(below == 2);
        *a = high | same | one | two;
    }
}

/// The registers that the same items leave at a lower precision: index bits that are none any more
/// are the first of the others.
pub(super) fn reduced(registers: &[u8], to: u32) -> Box<[u8]> {
    let from = precision(registers);
    let group = 1 << (from - to);
    registers
        .chunks_exact(group)
        .map(|group| {
            let first = unpack(group[0]);
            let met = group.iter().enumerate().skip(1).filter(|(_, register)| **register != 0);
            // The zeros that begin i in from - to bits are as many as from - to - 1 - log2 i.
            let levels = met.fold(first, |levels, (i, _)| levels | 1 << (from - 2 - i.ilog2()));
            if levels == 0 { 0 } else { pack(levels) }
        })
        .collect()
}

/// Whether items leave these registers: some item, and no level that there is not.
pub(super) fn are_registers(registers: &[u8]) -> bool {
    let first = (precision(registers) as u8 - 1) << 2;
    let is_register = |register: u8| match register.checked_sub(first) {
        None => register == 0,
        Some(levels) => !matches!(levels, 1..=3 | 5 | 7),
    };
    registers.iter().all(|register| is_register(*register)) && registers.iter().any(|r| *r != 0)
}

/// The relative standard error at a precision.
pub(super) fn standard_error(precision: u8) -> f64 {
    STANDARD_ERROR / f64::from(1_u32 << precision).sqrt()
}

/// How many different items there were, about.
pub(super) fn estimate(registers: &[u8]) -> f64 {
    let p = precision(registers) as usize;
    let last = 63 - p;
    let mut met = [0.0; LEVELS];
    let mut unmet = 0.0;
    for (register, count) in histogram(registers).into_iter().enumerate().filter(|(_, n)| *n > 0) {
        let count = f64::from(count);
        if register == 0 {
            unmet += count;
            continue;
        }
        let level = (register >> 2) + 1 - p;
        met[level.min(last)] += count;
        if level <= last {
            unmet += count * rate(level);
        }
        for below in 1..=level.min(2) {
            if register >> (2 - below) & 1 == 1 {
                met[level - below] += count;
            } else {
                unmet += count * rate(level - below);
            }
        }
    }
    let m = registers.len() as f64;
    m * likeliest(&met[..=last], unmet) / (1.0 + BIAS / m)
}

/// 2^-(level + 1).
fn rate(level: usize) -> f64 {
    1.0 / (2_u64 << level) as f64
}

/// How many registers there are of each kind.
fn histogram(registers: &[u8]) -> [u32; 256] {
    // Neighbours count in tables of their own: an addition need not wait for the one before.
    let mut tables = [[0_u32; 256]; 4];
    for four in registers.chunks_exact(4) {
        for (table, register) in tables.iter_mut().zip(four) {
            table[usize::from(*register)] += 1;
        }
    }
    array::from_fn(|i| tables.iter().map(|table| table[i]).sum())
}

/// Where `Σ met(k) φ(λρ(k)) = λ·unmet`, φ(x) = x / (e^x - 1): the left side falls and is convex, so
/// Newton's steps from below stay below. `e^x - 1` is had for the least rate and, for each that is twice
/// the one before, from `e^2x - 1 = (e^x - 1)(e^x + 1)`.
fn likeliest(met: &[f64], unmet: f64) -> f64 {
    let Some(top) = met.iter().rposition(|n| *n > 0.0) else { return 0.0 };
    if unmet <= 0.0 {
        return f64::INFINITY;
    }
    let all: f64 = met.iter().sum();
    let weighed: f64 = met.iter().enumerate().map(|(level, n)| n * rate(level)).sum();
    // φ(x) >= 1 - x / 2.
    let mut lambda = all / (unmet + weighed / 2.0);
    for _ in 0..STEPS_MAX {
        let mut x = lambda * rate(top);
        let mut power = x.exp_m1();
        let (mut value, mut slope) = (0.0, 0.0);
        for n in met[..=top].iter().rev() {
            let phi = x / power;
            value += n * phi;
            slope += n * phi * (phi + x - 1.0);
            power *= power + 2.0;
            x *= 2.0;
        }
        let step = (value - lambda * unmet) / (lambda * unmet + slope);
        lambda += lambda * step.max(0.0);
        if step < PRECISE {
            break;
        }
    }
    lambda
}

/// Newton's steps double the digits; it takes four to eight.
const STEPS_MAX: u32 = 64;
const PRECISE: f64 = 1e-9;
