//! The laws of membership: a function of the set and of the size, whichever form it has.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn bytes(seen: &Membership) -> Vec<u8> {
    let mut out = Vec::new();
    seen.encode(&mut out);
    out
}

fn of_size<'a>(size: u8, items: impl IntoIterator<Item = &'a u64>) -> Membership {
    let mut seen = Membership { size, content: Content::default() };
    items.into_iter().for_each(|hash| {
        seen.insert_hashed(*hash);
    });
    seen
}

fn hashes(most: usize) -> impl Strategy<Value = Vec<u64>> {
    let hash = prop_oneof![10 => any::<u64>(), 1 => Just(0_u64), 1 => 0_u64..50, 1 => (0_u64..9).prop_map(|i| u64::MAX - i)];
    prop::collection::vec(hash, 0..most)
}

proptest! {
    #[test]
    fn any_order_grouping_and_sizes_give_the_same_bytes(
        items in hashes(150),
        sizes in prop::collection::vec(1_u8..7, 4),
        parts in prop::collection::vec(0_usize..4, 150),
    ) {
        let least = *sizes.iter().min().expect("four");
        let direct = of_size(least, &items);
        let mut parts: Vec<Membership> = (0..4).map(|part| {
            let mine = items.iter().zip(&parts).rev().filter(|(_, p)| **p == part);
            of_size(sizes[part], mine.map(|(hash, _)| hash))
        }).collect();
        let (last, mut merged) = (parts.pop().expect("four"), parts.remove(0));
        let mut tail = Membership::default();
        tail.merge(&parts[0]);
        tail.merge(&last);
        merged.merge(&tail);
        merged.merge(&parts[1]);
        prop_assert_eq!(bytes(&merged), bytes(&direct));
        prop_assert_eq!(&merged, &direct);
        prop_assert!(items.iter().all(|hash| direct.contains_hashed(*hash)));
        let set: BTreeSet<u64> = items.iter().copied().collect();
        match direct.exact_len() {
            Some(n) => {
                prop_assert_eq!(n, set.len() as u64);
                prop_assert!((1..60).all(|i| direct.contains_hashed(i) == set.contains(&i)));
            }
            None => prop_assert!(set.len() > 3 * blocks(least)),
        }
        let encoded = bytes(&direct);
        let mut rest = encoded.as_slice();
        let decoded = Membership::decode(&mut rest).expect("own bytes");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&decoded, &direct);
        prop_assert_eq!(bytes(&decoded), encoded.clone());
        prop_assert_eq!(decoded.heap_bytes(), direct.heap_bytes());
        prop_assert!((0..encoded.len()).all(|cut| Membership::decode(&mut &encoded[..cut]).is_err()));
    }

    #[test]
    fn hostile_bytes_decode_to_an_error_or_to_themselves(
        items in hashes(40), size in 1_u8..5,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut input = bytes(&of_size(size, &items));
        for (at, byte) in edits {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let mut rest = input.as_slice();
        if let Ok(mut decoded) = Membership::decode(&mut rest) {
            prop_assert_eq!(bytes(&decoded), &input[..input.len() - rest.len()]);
            decoded.merge(&of_size(size, &items));
            prop_assert!(items.iter().all(|hash| decoded.contains_hashed(*hash)));
            prop_assert_eq!(Membership::decode(&mut bytes(&decoded).as_slice()), Ok(decoded));
        }
    }
}

#[test]
fn the_mask_is_that_of_the_published_layout() {
    // Of block and mask for the hash below, worked out by the specification's pseudocode.
    let hash = 0x0123_4567_89ab_cdef_u64;
    assert_eq!(place(hash, 1 << 10), 0x0123_4567 >> 22);
    let bits = SALTS.map(|salt| ((u64::from(salt) * 0x89ab_cdef) & 0xffff_ffff) >> 27);
    assert_eq!(mask(hash).map(u32::trailing_zeros).map(u64::from), bits);
    assert!(mask(hash).iter().all(|word| word.is_power_of_two()));
}

#[test]
fn the_expected_rate_is_that_of_measurements() {
    // Ten bits an item: 1.24 % were measured with ten million strangers.
    let rate = expected_rate(25.6);
    assert!((rate - 0.0124).abs() < 0.0003, "{rate}");
    assert!(expected_rate(1e-3) < 1e-12 && expected_rate(999.0) > 0.999_999);
}

#[test]
fn large_tables_of_hashes_come_back() {
    let items: Vec<u64> = (1..30_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    for n in [8_191, 8_192, 8_193, 29_000] {
        let mut seen = of_size(20, &items[..n]);
        assert_eq!(seen.exact_len(), Some(n as u64));
        let encoded = bytes(&seen);
        let mut decoded = Membership::decode(&mut encoded.as_slice()).expect("own bytes");
        assert!(decoded.heap_bytes() <= 2 * encoded.len() + (64 << 10));
        for more in &items[n..] {
            assert!(decoded.insert_hashed(*more) && seen.insert_hashed(*more));
        }
        assert_eq!(bytes(&decoded), bytes(&seen));
    }
}

/// Hashes of one place, as somebody can make them up, and such as lie behind the end of the table.
#[test]
fn crafted_hashes_are_read_in_one_pass() {
    for upper in [0_u64, 77, 0xffff_ffff] {
        let items: Vec<u64> = (1..=300_000).map(|low| upper << 32 | low).collect();
        // As it would be written; inserting them one by one takes quadratic time.
        let mut written = vec![19, 0];
        codec::put_u64(&mut written, items.len() as u64);
        written.extend(items.iter().flat_map(|hash| hash.to_le_bytes()));
        let mut rest = written.as_slice();
        let seen = Membership::decode(&mut rest).unwrap();
        assert!(rest.is_empty() && seen.heap_bytes() <= 2 * written.len() + 65_536);
        assert_eq!(bytes(&seen), written);
        assert!(seen.contains_hashed(items[0]) && seen.contains_hashed(items[299_999]));
    }
}
