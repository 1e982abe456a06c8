//! Tokens: 40 bits of a hash, from which the register and the level of an item follow at every precision.
//!
//! ```text
//! token := the hash's upper 18 bits · field (22 bits)
//! field := the next 22 bits, where they are 64 or more
//!          47 - z, else, where the hash's lower 46 bits begin with z zeros (16 to 46): 1 to 31
//! ```
//!
//! A register's level is a number of leading zeros, up to 60, and 40 bits of a hash have no room for
//! the rare long ones; a field that has 16 zeros says how many there are and forgets the rest. So a
//! token is the same as its hash for every register of every precision up to 18 (O. Ertl, "`ExaLogLog`",
//! arXiv:2402.13726, on its sparse mode, keeps v bits and 6 for the zeros behind them: 34 bits
//! would be left to tell items apart, here it is almost all 40).
//!
//! *How often two items have one token:* with probability 2^-40 (1 + 2^-30) each pair. Of n items
//! `n² / 2^41` pairs are expected to, which bounds the probability that the number of tokens is not that
//! of the items: 4.8e-7 at 1,024, 3.4e-6 at 2,730 (all that precision 14 has), 1e-4 at 14,829, 8.7e-4 at
//! 43,690 (precision 18).

/// The bits of a token.
pub(super) const TOKEN_BITS: u32 = 40;
/// The bits that are an index at the greatest precision.
const INDEX_BITS: u32 = super::PRECISION_MAX as u32;
const FIELD_BITS: u32 = TOKEN_BITS - INDEX_BITS;
/// The bits of a hash behind the index.
const REST_BITS: u32 = 64 - INDEX_BITS;
/// Below this a field says how many zeros there are.
const PLAIN_MIN: u64 = 64;
/// The field for all bits zero, and that for the fewest zeros which are counted.
const LOWEST: u64 = 1;
const HIGHEST: u64 = (REST_BITS - FIELD_BITS) as u64 + PLAIN_MIN.ilog2() as u64 + LOWEST;

/// The token of a hash; never zero.
#[inline]
pub(super) fn of(hash: u64) -> u64 {
    let token = hash >> (64 - TOKEN_BITS);
    let field = token & ((1 << FIELD_BITS) - 1);
    if field >= PLAIN_MIN { token } else { rare(hash) }
}

#[cold]
fn rare(hash: u64) -> u64 {
    // The index is shifted out; a bit behind the rest stops the count.
    let zeros = (hash << INDEX_BITS | 1 << (INDEX_BITS - 1)).leading_zeros();
    (hash >> REST_BITS) << FIELD_BITS | (u64::from(REST_BITS - zeros) + LOWEST)
}

/// A hash that has this token.
#[inline]
pub(super) fn hash(token: u64) -> u64 {
    let field = token & ((1 << FIELD_BITS) - 1);
    if field >= PLAIN_MIN { token << (64 - TOKEN_BITS) } else { rare_hash(token, field) }
}

#[cold]
fn rare_hash(token: u64, field: u64) -> u64 {
    let index = token >> FIELD_BITS << REST_BITS;
    index | (1 << (field - LOWEST)) >> 1
}

/// Whether some hash has this token.
pub(super) fn is_token(token: u64) -> bool {
    let field = token & ((1 << FIELD_BITS) - 1);
    token >> TOKEN_BITS == 0 && (field >= PLAIN_MIN || (LOWEST..=HIGHEST).contains(&field))
}
