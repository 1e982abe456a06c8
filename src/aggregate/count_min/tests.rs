//! The laws of Count-Min: linear to the byte, and what it says of cells that have wrapped.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn bytes(counts: &CountMin) -> Vec<u8> {
    let mut out = Vec::new();
    counts.encode(&mut out);
    out
}

fn fold<'a>(empty: &CountMin, changes: impl IntoIterator<Item = &'a (u16, i64)>) -> CountMin {
    let mut counts = empty.clone();
    for (item, weight) in changes {
        counts.observe((&item.to_le_bytes(), *weight), Timestamp::default());
    }
    counts
}

fn weight() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => Just(1_i64),
        6 => -200_i64..200,
        2 => -70_000_i64..70_000,
        1 => any::<i64>(),
        1 => Just(i64::MAX),
        1 => Just(i64::MIN),
    ]
}

fn shape() -> impl Strategy<Value = CountMin> {
    let of = |(width, depth): (u32, u8)| CountMin::new(width, depth).expect("a shape");
    prop_oneof![
        1 => Just(CountMin::default()),
        4 => Just((20, 5)).prop_map(of),
        4 => Just((300, 3)).prop_map(of),
        1 => (1_u32..2_000, 1_u8..9).prop_map(of),
    ]
}

fn changes(most: usize) -> impl Strategy<Value = Vec<(u16, i64)>> {
    let item = prop_oneof![0_u16..10, 0_u16..2_000];
    prop::collection::vec((item, weight()), 0..most)
}

proptest! {
    #[test]
    fn the_bytes_are_a_function_of_the_net_weights(
        empty in shape(),
        changes in changes(250),
        passing in changes(60),
        parts in prop::collection::vec(0_usize..4, 400),
    ) {
        let direct = fold(&empty, &changes);
        // What passes comes in one part and goes in another.
        let back = passing.iter().map(|(item, weight)| (*item, weight.wrapping_neg()));
        let all: Vec<_> = passing.iter().copied().chain(changes.iter().rev().copied()).chain(back).collect();
        let mut parts: Vec<CountMin> = (0..4).map(|part| {
            let mine = all.iter().zip(&parts).filter(|(_, p)| **p == part);
            fold(&empty, mine.map(|(change, _)| change))
        }).collect();
        let (last, mut merged) = (parts.pop().expect("four"), parts.remove(0));
        let mut tail = parts.remove(0);
        tail.merge(&last);
        merged.merge(&tail);
        merged.merge(&parts[0]);
        // i64::MIN has no opposite: what it passes with is off by 2^64 in the total, and so in bytes.
        if passing.iter().all(|(_, weight)| *weight != i64::MIN) {
            prop_assert_eq!(merged.cells == direct.cells, true);
            prop_assert_eq!(merged.total, direct.total);
            if !(empty.shape == Shape::Open && changes.is_empty()) {
                prop_assert_eq!(bytes(&merged), bytes(&direct));
                prop_assert_eq!(&merged, &direct);
            }
        }
        let mut gone = merged.clone();
        gone.subtract(&merged);
        prop_assert_eq!((gone.total, gone.cells == Cells::default()), (0, true));
    }

    #[test]
    fn a_state_comes_back_from_its_bytes(empty in shape(), changes in changes(300)) {
        let counts = fold(&empty, &changes);
        let encoded = bytes(&counts);
        let mut rest = encoded.as_slice();
        let decoded = CountMin::decode(&mut rest).expect("own bytes");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&decoded, &counts);
        prop_assert_eq!(bytes(&decoded), encoded.clone());
        prop_assert!(decoded.heap_bytes() <= 2 * encoded.len() + (64 << 10));
        for cut in 0..encoded.len() {
            prop_assert!(CountMin::decode(&mut &encoded[..cut]).is_err());
        }
    }

    #[test]
    fn hostile_bytes_decode_to_an_error_or_to_themselves(
        empty in shape(), changes in changes(100),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut input = bytes(&fold(&empty, &changes));
        for (at, byte) in edits {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let mut rest = input.as_slice();
        if let Ok(mut decoded) = CountMin::decode(&mut rest) {
            prop_assert_eq!(bytes(&decoded), &input[..input.len() - rest.len()]);
            decoded.merge(&fold(&empty, &changes));
            decoded.count_of(b"any");
            prop_assert_eq!(CountMin::decode(&mut bytes(&decoded).as_slice()), Ok(decoded));
        }
    }

    #[test]
    fn no_count_is_too_low_while_none_is_negative(empty in shape(), changes in changes(200)) {
        let (mut counts, mut net) = (empty, BTreeMap::<u16, i128>::new());
        for (item, weight) in changes {
            let now = net.entry(item).or_default();
            // Nothing is taken back that has not come.
            let weight = i128::from(weight).max(-*now);
            let key = item.to_le_bytes();
            let done = if weight < 0 {
                counts.remove(&key, weight.unsigned_abs() as u64)
            } else {
                counts.insert(&key, weight as u64)
            };
            if done.is_ok() {
                *now += weight;
            }
        }
        for (item, count) in net {
            let known = counts.count_of(&item.to_le_bytes());
            prop_assert!(known.upper as i128 >= count, "{:?} {}", known, count);
            prop_assert!(known.lower <= known.value && known.value <= known.upper);
            prop_assert!(!known.is_exact() || known.value as i128 == count);
        }
    }
}

#[test]
fn what_has_wrapped_says_so_and_comes_right_again() {
    let half = {
        let mut half = CountMin::new(50, 3).expect("a shape");
        half.insert(b"a", i64::MAX as u64).expect("fits");
        half.insert(b"b", 7).expect("fits");
        half
    };
    let mut both = half.clone();
    both.merge(&half);
    let known = both.count_of(b"a");
    assert!(known.lower == 0.0 && known.upper >= 2.0 * i64::MAX as f64, "{known:?}");
    both.subtract(&half);
    assert_eq!(both, half);
    assert_eq!(both.count_of(b"b"), half.count_of(b"b"));
}

#[test]
fn states_of_two_shapes_know_their_total_whichever_way_they_met() {
    let of = |width, n| {
        let mut counts = CountMin::new(width, 4).expect("a shape");
        counts.insert(b"a", n).expect("fits");
        counts
    };
    let (a, b, c) = (of(10, 1), of(20, 2), of(10, 4));
    let fold = |order: [&CountMin; 4]| {
        let mut all = CountMin::default();
        for part in order {
            all.merge(part);
        }
        bytes(&all)
    };
    let empty = CountMin::default();
    let mixed = fold([&a, &b, &c, &empty]);
    assert_eq!(fold([&a, &c, &empty, &b]), mixed);
    assert_eq!(fold([&b, &empty, &c, &a]), mixed);
    let mixed = CountMin::decode(&mut mixed.as_slice()).expect("own bytes");
    assert_eq!((mixed.total(), mixed.count_of(b"a").upper), (7, 7.0));
}
