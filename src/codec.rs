//! How bytes are written: variable-length integers, framed values, and bincode behind one door.
//!
//! Invariants
//! 1. Everything is little-endian, except row keys, whose byte order is their sort order.
//! 2. A stored value is `version (1) · checksum (4) · payload`; the checksum is CRC-32 over the
//!    row's key, the version and the payload, so a value under the wrong key is damage too.
//! 3. Decoding never panics and never allocates more than its input's length times a constant.
//!
//! Integers are LEB128: seven bits a byte, low bits first, high bit set on all but the last.
//! Signed ones are zigzag-coded before. bincode (standard configuration, varint) serves the
//! catalog and control records; its upstream rests, so this is the only module that names it.

/// Bytes that are not an encoding of what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

/// The version byte of stored values.
pub(crate) const VALUE_VERSION: u8 = 1;
/// Bytes before the payload of a stored value.
pub(crate) const VALUE_HEADER_BYTES: usize = 5;

pub(crate) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, zigzag(value));
}

#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_in(bytes: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        at += 1;
        value >>= 7;
    }
    bytes[at] = value as u8;
    at + 1
}

/// Appends integers as [`put_u64`] does, a block of bytes at a time: `out` is not asked for room for each byte.
#[inline]
pub(crate) fn put_all(out: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    const LONGEST: usize = 10;
    const FULL: usize = 128 - LONGEST;
    let mut block = [0; FULL + LONGEST];
    let mut len = 0;
    for value in values {
        if len > FULL {
            out.extend_from_slice(&block[..len]);
            len = 0;
        }
        // Most take a byte or two.
        if value < 1 << 7 {
            block[len] = value as u8;
            len += 1;
        } else if value < 1 << 14 {
            block[len] = value as u8 | 0x80;
            block[len + 1] = (value >> 7) as u8;
            len += 2;
        } else {
            len = put_in(&mut block, len, value);
        }
    }
    out.extend_from_slice(&block[..len]);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What [`put_bytes`] does, for what is most often short: copies of lengths that the compiler knows are
/// a few instructions where a call costs more than the copy.
#[inline]
pub(crate) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let Some(short) = short_bytes(bytes) else { return put_bytes(out, bytes) };
    let mut both = [bytes.len() as u8; 1 + SHORT_BYTES];
    both[1..].copy_from_slice(&short);
    let end = out.len() + 1 + bytes.len();
    out.extend_from_slice(&both);
    out.truncate(end);
}

/// So many bytes a short text has at most.
pub(crate) const SHORT_BYTES: usize = size_of::<u128>();

/// A short text and zeros behind it, copied as one word that is made of its two ends, which overlap. `None`:
/// it is longer.
#[inline]
pub(crate) fn short_bytes(bytes: &[u8]) -> Option<[u8; SHORT_BYTES]> {
    let len = bytes.len();
    let word = match len {
        0 => 0,
        1..4 => {
            let [middle, last] = [len / 2, len - 1].map(|at| u32::from(bytes[at]) << (8 * at));
            u128::from(u32::from(bytes[0]) | middle | last)
        }
        4..=8 => {
            let (first, last) = (bytes.first_chunk()?, bytes.last_chunk()?);
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
            u128::from(u64::from(u32::from_le_bytes(*first)) | last)
        }
        9..=16 => {
            let (first, last) = (bytes.first_chunk()?, bytes.last_chunk()?);
            let last = u128::from(u64::from_le_bytes(*last)) << (8 * (len - 8));
            u128::from(u64::from_le_bytes(*first)) | last
        }
        _ => return None,
    };
    Some(word.to_le_bytes())
}

#[inline]
pub(crate) fn take_u64(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    if let [first, rest @ ..] = *bytes
        && *first < 0x80
    {
        *bytes = rest;
        return Ok(u64::from(*first));
    }
    if let [first, second @ 1..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Ok(u64::from(first & 0x7f) | u64::from(*second) << 7);
    }
    if let Some((value, len)) =
        bytes.first_chunk().and_then(|word| short(u64::from_le_bytes(*word)))
    {
        *bytes = &bytes[len..];
        return Ok(value);
    }
    take_u64_long(bytes)
}

/// The integer that a word of bytes begins with, and how many of them it takes: without a step for each.
/// `None`: it takes more than there are, or one too many.
#[inline]
fn short(word: u64) -> Option<(u64, usize)> {
    const MORE: u64 = 0x8080_8080_8080_8080;
    let last = !word & MORE;
    if last == 0 {
        return None;
    }
    // The bits up to that of the last byte.
    let sevens = word & (last ^ (last - 1)) & !MORE;
    let len = last.trailing_zeros() as usize / 8 + 1;
    if sevens >> (8 * (len - 1)) == 0 && len > 1 {
        return None;
    }
    let pairs = (sevens & 0x007f_007f_007f_007f) | (sevens & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    Some(((fours & 0x0fff_ffff) | (fours >> 32) << 28, len))
}

/// The same of a signed one.
#[inline]
pub(crate) fn short_i64(word: u64) -> Option<(i64, usize)> {
    short(word).map(|(value, len)| (signed(value), len))
}

#[inline]
fn signed(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn take_u64_long(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return Err(Malformed("an integer is wider than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            if byte == 0 && i > 0 {
                return Err(Malformed("an integer is padded"));
            }
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(Malformed("an integer is cut short"))
}

pub(crate) fn take_u32(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    u32::try_from(take_u64(bytes)?).map_err(|_| Malformed("an integer is wider than 32 bits"))
}

pub(crate) fn take_i64(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    take_u64(bytes).map(signed)
}

pub(crate) fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = bytes.split_at_checked(n).ok_or(Malformed("bytes are cut short"))?;
    *bytes = rest;
    Ok(head)
}

pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed("bytes are cut short"))?;
    *bytes = rest;
    Ok(*head)
}

pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let n = usize::try_from(take_u64(bytes)?).map_err(|_| Malformed("a length is too large"))?;
    take(bytes, n)
}

/// A length that counts items of at least `item_bytes_min` bytes each, checked against what is
/// left so that no allocation outgrows the input.
pub(crate) fn take_count(bytes: &mut &[u8], item_bytes_min: usize) -> Result<usize, Malformed> {
    let n = usize::try_from(take_u64(bytes)?).map_err(|_| Malformed("a count is too large"))?;
    if n.saturating_mul(item_bytes_min.max(1)) > bytes.len() {
        return Err(Malformed("a count is larger than the bytes that follow"));
    }
    Ok(n)
}

pub(crate) fn finished(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
}

fn checksum(key: &[u8], version: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[version]);
    hasher.update(payload);
    hasher.finalize()
}

/// Frames what `write` appends as a stored value of row `key` (invariant 2).
pub(crate) fn seal(key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; VALUE_HEADER_BYTES];
    write(&mut out);
    out[0] = VALUE_VERSION;
    let sum = checksum(key, VALUE_VERSION, &out[VALUE_HEADER_BYTES..]);
    out[1..VALUE_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The payload of a stored value of row `key`.
pub(crate) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let mut rest = value;
    let [version] = take_array::<1>(&mut rest)?;
    let sum = u32::from_le_bytes(take_array(&mut rest)?);
    if sum != checksum(key, version, rest) {
        return Err(Malformed("the checksum of a stored value does not match"));
    }
    if version != VALUE_VERSION {
        return Err(Malformed("a stored value has a version that this software does not know"));
    }
    Ok(rest)
}

/// Whether this is a stored value of row `key`, whole, that later software wrote. A flipped bit in the
/// version does not make one of it.
pub(crate) fn is_newer(key: &[u8], value: &[u8]) -> bool {
    let mut rest = value;
    let (Ok([version]), Ok(sum)) = (take_array::<1>(&mut rest), take_array(&mut rest)) else {
        return false;
    };
    version > VALUE_VERSION && u32::from_le_bytes(sum) == checksum(key, version, rest)
}

/// Encodes by bincode; for the catalog and control records.
pub(crate) fn encode<T: bincode::Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard())
        .expect("encoding our own types into memory has no way to fail")
}

/// Decodes what [`encode`] gave, whole, with a limit on what may be allocated.
pub(crate) fn decode<T: bincode::Decode<()>>(mut bytes: &[u8]) -> Result<T, Malformed> {
    let value = take_encoded(&mut bytes)?;
    finished(bytes)?;
    Ok(value)
}

/// Decodes what [`encode`] gave off the front of `bytes`, with the same limit.
pub(crate) fn take_encoded<T: bincode::Decode<()>>(bytes: &mut &[u8]) -> Result<T, Malformed> {
    const BYTES_MAX: usize = 128 << 20;
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    let decoded = bincode::decode_from_slice(bytes, config);
    let (value, used) = decoded.map_err(|_| Malformed("not an encoding of this type"))?;
    *bytes = &bytes[used..];
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back(a: u64, b: i64) {
            let mut out = Vec::new();
            put_u64(&mut out, a);
            put_i64(&mut out, b);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_u64(&mut rest), Ok(a));
            prop_assert_eq!(take_i64(&mut rest), Ok(b));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn integers_are_read_at_once_as_byte_by_byte(
            bytes: [u8; 12],
            value: u64,
            bits in 0..64,
            is_written: bool,
        ) {
            let mut all = Vec::new();
            if is_written {
                put_u64(&mut all, value >> bits);
            }
            all.extend_from_slice(&bytes);
            let (mut once, mut one_by_one) = (all.as_slice(), all.as_slice());
            prop_assert_eq!(take_u64(&mut once), take_u64_long(&mut one_by_one));
            prop_assert_eq!(once, one_by_one);
        }

        #[test]
        fn integers_are_put_together_as_one_by_one(
            integers in prop::collection::vec((any::<u64>(), 0_u32..64), 0..200),
        ) {
            let integers = integers.iter().map(|(value, bits)| value >> bits);
            let (mut all, mut one_by_one) = (vec![7], vec![7]);
            put_all(&mut all, integers.clone());
            integers.for_each(|value| put_u64(&mut one_by_one, value));
            prop_assert_eq!(all, one_by_one);
        }

        #[test]
        fn short_bytes_are_put_as_others(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let (mut short, mut any) = (vec![7], vec![7]);
            put_short(&mut short, &bytes);
            put_bytes(&mut any, &bytes);
            prop_assert_eq!(short, any);
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while let Ok(n) = take_u64(&mut rest) {
                let mut again = Vec::new();
                put_u64(&mut again, n);
                prop_assert!(bytes[..bytes.len() - rest.len()].ends_with(&again));
            }
            prop_assert!(unseal(b"key", &bytes).is_err() || bytes.len() >= VALUE_HEADER_BYTES);
        }

        #[test]
        fn a_flipped_bit_in_a_stored_value_is_seen(payload: Vec<u8>, bit: prop::sample::Index) {
            let mut value = seal(b"row", |out| out.extend_from_slice(&payload));
            prop_assert_eq!(unseal(b"row", &value), Ok(payload.as_slice()));
            prop_assert!(unseal(b"row2", &value).is_err());
            let bit = bit.index(value.len() * 8);
            value[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unseal(b"row", &value).is_err());
            prop_assert!(!is_newer(b"row", &value));
        }
    }
}
