//! Row keys: a view's key as bytes whose order is the order of the key's parts.
//!
//! ```text
//! series row   view id (4, big-endian) · part*
//! bucket row   view id (4, big-endian) · grain (1) · block (8, big-endian, sign bit flipped) · part*
//! part         its UTF-8 bytes, each 00 written as 00 FF · 00 01
//! ```
//! Invariants
//! 1. Keys compare as bytes the way their parts compare one after the other, bytewise UTF-8, a
//!    shorter part before its longer continuation. (The end mark 00 01 is less than 00 FF, and
//!    less than any byte a part goes on with.)
//! 2. The bytes of a key's first parts are a prefix of the whole key's bytes, and of no other's.
//! 3. A bucket's rows of one block lie together, whatever their keys: what is written at the same
//!    time has neighbours.
//!
//! The escape is that of the tuple layer of `FoundationDB` with another end mark.

use crate::codec::Malformed;

const END: u8 = 0x01;
const ESCAPED: u8 = 0xff;

/// Bytes before the parts of a series row.
pub(crate) const VIEW_BYTES: usize = 4;
/// Bytes of grain and block in a bucket row.
const BLOCK_BYTES: usize = 9;

/// The bytes of the longest bucket row's key, of so many parts of so many bytes each.
pub(crate) const fn bytes_max(parts: usize, part_bytes: usize) -> usize {
    VIEW_BYTES + BLOCK_BYTES + parts * (2 * part_bytes + 2)
}

pub(crate) fn view_prefix(view: u32) -> Vec<u8> {
    view.to_be_bytes().to_vec()
}

/// The first key behind all those of `view`; `None` for the last view there can be.
pub(crate) fn behind_view(view: u32) -> Option<Vec<u8>> {
    view.checked_add(1).map(view_prefix)
}

pub(crate) fn put_part(out: &mut Vec<u8>, part: &str) {
    put_beginning(out, part);
    out.extend_from_slice(&[0, END]);
}

/// What a part that begins with this text begins with.
fn put_beginning(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(ESCAPED);
        }
    }
}

pub(crate) fn series_row<'a>(view: u32, parts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&view.to_be_bytes());
    parts.for_each(|part| put_part(&mut out, part));
    out
}

/// What the rows of the series begin with whose first parts are these, the last of them being only the
/// beginning of a text; all of the view where there are none.
pub(crate) fn series_beginning(view: u32, beginning: &[&str]) -> Vec<u8> {
    let mut out = view_prefix(view);
    if let Some((last, whole)) = beginning.split_last() {
        for part in whole {
            put_part(&mut out, part);
        }
        put_beginning(&mut out, last);
    }
    out
}

/// The bucket row of the series whose row key is `series`.
pub(crate) fn bucket_row(series: &[u8], grain: u8, block: i64) -> Vec<u8> {
    let (view, parts) = series.split_at(VIEW_BYTES);
    let mut out = Vec::with_capacity(series.len() + BLOCK_BYTES);
    out.extend_from_slice(view);
    out.push(grain);
    out.extend_from_slice(&((block as u64) ^ (1 << 63)).to_be_bytes());
    out.extend_from_slice(parts);
    out
}

/// The series row of another view that has the same key.
pub(crate) fn in_view(view: u32, series: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(series.len());
    out.extend_from_slice(&view.to_be_bytes());
    out.extend_from_slice(&series[VIEW_BYTES..]);
    out
}

/// The parts in a series row's key.
pub(crate) fn parts(row: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut rest = row.get(VIEW_BYTES..).ok_or(Malformed("a row key is too short"))?.iter();
    let mut parts = Vec::new();
    let mut part = Vec::new();
    while let Some(&byte) = rest.next() {
        match (byte, if byte == 0 { rest.next() } else { None }) {
            (0, Some(&ESCAPED)) => part.push(0),
            (0, Some(&END)) => parts.push(
                String::from_utf8(std::mem::take(&mut part))
                    .map_err(|_| Malformed("a row key is not UTF-8"))?,
            ),
            (0, _) => return Err(Malformed("a row key has an unknown mark")),
            (byte, _) => part.push(byte),
        }
    }
    if part.is_empty() { Ok(parts) } else { Err(Malformed("a row key ends inside a part")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a\u{0}\u{1}\u{2}z\u{ff}]{0,4}", any::<String>()]
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_parts_and_come_back(
            a in prop::collection::vec(text(), 3),
            b in prop::collection::vec(text(), 3),
        ) {
            let row = |parts: &[String]| series_row(7, parts.iter().map(String::as_str));
            prop_assert_eq!(row(&a).cmp(&row(&b)), a.cmp(&b));
            prop_assert_eq!(parts(&row(&a)), Ok(a.clone()));
            prop_assert_eq!(row(&b).starts_with(&row(&a[..2])), a[..2] == b[..2]);
        }

        #[test]
        fn a_row_begins_as_its_parts_do(
            a in prop::collection::vec(text(), 3),
            b in prop::collection::vec(text(), 3),
            whole in 0_usize..3,
            cut: prop::sample::Index,
        ) {
            let boundaries: Vec<usize> = a[whole].char_indices().map(|(at, _)| at).collect();
            let cut = if boundaries.is_empty() { 0 } else { *cut.get(&boundaries) };
            let mut beginning: Vec<&str> = a[..whole].iter().map(String::as_str).collect();
            beginning.push(&a[whole][..cut]);
            let bytes = series_beginning(7, &beginning);
            for parts in [&a, &b] {
                let row = series_row(7, parts.iter().map(String::as_str));
                let begins = parts[..whole] == a[..whole] && parts[whole].starts_with(&a[whole][..cut]);
                prop_assert_eq!(row.starts_with(&bytes), begins);
            }
        }

        #[test]
        fn hostile_keys_are_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = parts(&bytes);
        }
    }
}
