//! The hash of everything that sketches hold: XXH3, 64 bits, seed 0.
//!
//! It is stored, merged with that of other stores, and so never another one: the same bytes have the
//! same hash on every machine. The bytes of a text are its UTF-8, those of a number its eight bytes,
//! least first.

/// The hash of an item.
#[inline]
pub(crate) fn hash(item: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(item)
}

#[cfg(test)]
mod tests {
    use super::hash;

    /// Made with the reference implementation's `XXH3_64bits`: a text of each class of length that it
    /// treats otherwise.
    #[test]
    fn a_hash_is_what_it_ever_was() {
        let run = |n: u32| (0..n).map(|i| (i % 251) as u8).collect::<Vec<_>>();
        for (item, is) in [
            (b"".to_vec(), 0x2d06_8005_38d3_94c2),
            (b"a".to_vec(), 0xe6c6_32b6_1e96_4e1f),
            (b"ann".to_vec(), 0x482c_8948_4cbd_62c8),
            (7_u64.to_le_bytes().to_vec(), 0x8167_1e58_d6b5_96af),
            (b"0123456789abcdef".to_vec(), 0x6443_9946_d8fa_212d),
            (b"0123456789abcdefg".to_vec(), 0xd2e6_3ed5_466f_5c32),
            (run(100), 0x004e_4f92_1a64_bd1c),
            (run(200), 0xf42a_8864_feaf_0703),
            (run(1_000), 0x33ef_703f_b2b2_0ed1),
        ] {
            assert_eq!(hash(&item), is, "{item:?}");
        }
    }
}
