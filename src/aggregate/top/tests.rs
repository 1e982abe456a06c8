//! The laws of heavy hitters: bounds in every stream and tree, bytes up to the capacity.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Truth = BTreeMap<Vec<u8>, u64>;

fn bytes(top: &Top) -> Vec<u8> {
    let mut out = Vec::new();
    top.encode(&mut out);
    out
}

fn new(capacity: u32) -> Top {
    Top::new(capacity).expect("a capacity")
}

fn fold<'a>(capacity: u32, stream: impl IntoIterator<Item = &'a (Vec<u8>, u64)>) -> Top {
    let mut top = new(capacity);
    stream.into_iter().for_each(|(item, weight)| top.insert(item, *weight));
    top
}

fn truth<'a>(stream: impl IntoIterator<Item = &'a (Vec<u8>, u64)>) -> Truth {
    let mut truth = Truth::new();
    for (item, weight) in stream {
        let count = truth.entry(item.clone()).or_default();
        *count = count.saturating_add(*weight);
    }
    truth.retain(|_, count| *count > 0);
    truth
}

/// Everything that the head of `top.rs` promises of a state with these counts.
#[track_caller]
fn assert_holds(top: &Top, truth: &Truth) {
    let total: u128 = truth.values().map(|count| u128::from(*count)).sum();
    assert_eq!(u128::from(top.total()), total.min(u128::from(u64::MAX)));
    assert!(top.len() <= room(top.capacity()), "{} items of {}", top.len(), top.capacity());
    let (all, mut over) = (top.top(usize::MAX), 0_u128);
    assert_eq!(all.len(), top.len());
    for heavy in &all {
        let count = truth.get(&*heavy.item).copied().unwrap_or(0);
        assert!(heavy.lower <= count && count <= heavy.upper, "{heavy:?}: {count}");
        assert!(heavy.upper - heavy.lower <= top.error() && heavy.upper > top.error());
        assert!((heavy.lower..=heavy.upper).contains(&heavy.value));
        over += u128::from(heavy.upper - top.error());
    }
    let order = |h: &Heavy| (std::cmp::Reverse(h.value), h.item.clone());
    assert!(all.is_sorted_by_key(order));
    for (item, count) in truth {
        let known = top.count_of(item);
        assert!(known.lower <= *count && *count <= known.upper, "{known:?}: {count}");
    }
    let k = u128::from(top.capacity());
    if total < u128::from(u64::MAX) {
        assert!(over + (k + 1) * u128::from(top.error()) <= total, "invariant 3");
    }
    if truth.len() as u128 <= k {
        assert!(top.is_exact() && top.len() == truth.len());
    }
    let mut thresholds = vec![0, top.error(), top.total() / (u64::from(top.capacity()) + 1)];
    thresholds.extend(all.first().map(|heavy| heavy.lower));
    for threshold in thresholds {
        let above = top.above(threshold);
        assert!(above.guaranteed.iter().all(|heavy| truth[&*heavy.item] > threshold));
        let named = above.guaranteed.iter().chain(&above.possible);
        let named: Vec<_> = named.map(|heavy| heavy.item.to_vec()).collect();
        let truly = truth.iter().filter(|(_, count)| **count > threshold);
        let missing = truly.filter(|(item, _)| !named.contains(item)).count();
        assert!(!above.complete || missing == 0, "complete above {threshold}");
    }
}

fn item() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0_u8..40).prop_map(|i| vec![i]),
        2 => (0_u32..60).prop_map(|i| format!("item-{i}").into_bytes()),
        2 => (0_u32..20).prop_map(|i| format!("an item with a name that is long: {i}").into_bytes()),
        1 => (0_usize..40).prop_map(|n| vec![0; n]),
    ]
}

fn weight() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => Just(1_u64),
        4 => 0_u64..1_000,
        1 => any::<u64>(),
        1 => (0_u64..4).prop_map(|less| u64::MAX - less),
    ]
}

fn stream(most: usize) -> impl Strategy<Value = Vec<(Vec<u8>, u64)>> {
    prop::collection::vec((item(), weight()), 0..most)
}

proptest! {
    #[test]
    fn bounds_hold_in_every_stream_and_tree_of_merges(
        stream in stream(300),
        capacities in prop::collection::vec(1_u32..40, 8),
        parts in prop::collection::vec(0_usize..8, 300),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 14),
    ) {
        let of = |part: usize| {
            let mine = stream.iter().zip(&parts).filter(move |(_, p)| **p == part);
            mine.map(|(event, _)| event.clone()).collect::<Vec<_>>()
        };
        let mut forest: Vec<(Top, Truth)> = (0..8)
            .map(|part| (fold(capacities[part], &of(part)), truth(&of(part))))
            .collect();
        for (top, truth) in &forest {
            assert_holds(top, truth);
        }
        for pair in picks.chunks(2) {
            let (right, right_truth) = forest.swap_remove(pair[0].index(forest.len()));
            let at = pair[1].index(forest.len());
            let mut other_way = right.clone();
            other_way.merge(&forest[at].0);
            let (left, left_truth) = &mut forest[at];
            left.merge(&right);
            for (item, count) in right_truth {
                let sum = left_truth.entry(item).or_default();
                *sum = sum.saturating_add(count);
            }
            assert_holds(left, left_truth);
            prop_assert_eq!(bytes(left), bytes(&other_way), "merging commutes, to the byte");
            prop_assert_eq!(&*left, &other_way);
        }
    }

    #[test]
    fn up_to_its_capacity_bytes_and_memory_are_a_function_of_the_counts(
        stream in stream(200),
        parts in prop::collection::vec(0_usize..4, 200),
        weights in any::<bool>(),
    ) {
        let capacity = truth(&stream).len().max(1) as u32;
        let direct = fold(capacity, &stream);
        let mut parts: Vec<Top> = (0..4).map(|part| {
            let mine = stream.iter().zip(&parts).filter(move |(_, p)| **p == part);
            let mut mine: Vec<_> = mine.map(|(event, _)| event.clone()).collect();
            if weights {
                mine.reverse();
            }
            fold(capacity, &mine)
        }).collect();
        let (mut left, right) = (parts.remove(0), parts.pop().expect("four"));
        let mut middle = parts.remove(0);
        middle.merge(&parts[0]);
        middle.merge(&right);
        left.merge(&middle);
        prop_assert_eq!(bytes(&left), bytes(&direct));
        prop_assert_eq!(&left, &direct);
        prop_assert!(left.is_exact());
        let counts = truth(&stream);
        let named = direct.top(usize::MAX);
        prop_assert_eq!(named.len(), counts.len());
        let is_known = |heavy: &Heavy| heavy.is_exact() || heavy.value == u64::MAX;
        prop_assert!(named.iter().all(|heavy| is_known(heavy) && counts[&*heavy.item] == heavy.value));
        prop_assert_eq!(left.heap_bytes(), direct.heap_bytes());
        prop_assert_eq!(left.clone().heap_bytes(), direct.heap_bytes());
        let decoded = Top::decode(&mut bytes(&direct).as_slice()).expect("own bytes");
        prop_assert_eq!(decoded.heap_bytes(), direct.heap_bytes());
    }

    #[test]
    fn a_state_comes_back_from_its_bytes_and_goes_on_alike(
        stream in stream(300), more in stream(50), capacity in 1_u32..60,
    ) {
        let mut top = fold(capacity, &stream);
        let encoded = bytes(&top);
        let mut rest = [encoded.as_slice(), b"behind"].concat();
        let mut at = rest.as_slice();
        let mut decoded = Top::decode(&mut at).expect("own bytes");
        prop_assert_eq!(at, b"behind");
        prop_assert_eq!(&decoded, &top);
        prop_assert_eq!(bytes(&decoded), encoded);
        for (item, weight) in &more {
            top.insert(item, *weight);
            decoded.insert(item, *weight);
        }
        prop_assert_eq!(bytes(&decoded), bytes(&top));
        rest.truncate(rest.len() - b"behind".len());
        for cut in 0..rest.len() {
            prop_assert!(Top::decode(&mut &rest[..cut]).is_err());
        }
    }

    #[test]
    fn what_is_said_to_have_grown_is_what_has(stream in stream(300), capacity in 1_u32..60) {
        let (mut top, mut heap) = (new(capacity), 0);
        for (item, weight) in &stream {
            heap += top.insert_with(item, || hash(item), *weight);
            prop_assert_eq!(top.heap_bytes(), heap);
        }
    }

    #[test]
    fn hostile_bytes_decode_to_an_error_or_to_themselves(
        stream in stream(40), capacity in 1_u32..20, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut input = bytes(&fold(capacity, &stream));
        for (at, byte) in edits {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let mut rest = input.as_slice();
        if let Ok(mut decoded) = Top::decode(&mut rest) {
            prop_assert_eq!(bytes(&decoded), &input[..input.len() - rest.len()]);
            decoded.merge(&decoded.clone());
            decoded.merge(&fold(capacity, &stream));
            let encoded = bytes(&decoded);
            prop_assert_eq!(&Top::decode(&mut encoded.as_slice()), &Ok(decoded));
        }
    }

    #[test]
    fn an_item_keeps_its_bytes_and_their_order(
        a in prop::collection::vec(any::<u8>(), 0..20),
        b in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut arena = Vec::new();
        let [x, y] = [&a, &b].map(|item| Probe::new(item, || hash(item)).settle(&mut arena));
        prop_assert!(x.bytes(&arena, &mut [0; 16]) == a);
        prop_assert!(y.bytes(&arena, &mut [0; 16]) == b);
        prop_assert_eq!(x.order(&y, &arena), a.cmp(&b));
        prop_assert_eq!(Probe::new(&a, || hash(&a)).is(&y, &arena), a == b);
    }
}

#[test]
fn an_empty_state_is_small_and_changes_nothing() {
    assert_eq!(size_of::<Top>(), 16);
    assert_eq!(Top::default().heap_bytes(), 0);
    assert_eq!(new(4_096).heap_bytes(), 0);
    for mut top in [Top::default(), new(7), fold(3, &[(b"a".to_vec(), 5)])] {
        let before = bytes(&top);
        top.merge(&Top::default());
        assert_eq!(bytes(&top), before);
        let mut empty = Top::default();
        empty.merge(&top);
        assert_eq!(bytes(&empty), before);
    }
    assert_eq!(Top::default().top(3), []);
    assert_eq!(Top::default().capacity(), Top::CAPACITY);
}

#[test]
fn items_with_one_hash_are_different_items() {
    let mut top = new(10);
    for (item, weight) in
        [(&b"the first of two long items"[..], 3), (b"the other of two long items", 4)]
    {
        top.insert_with(item, || 7, weight);
        top.insert_with(item, || 7, weight);
    }
    let counts: Vec<_> = top.top(2).iter().map(|heavy| heavy.value).collect();
    assert_eq!(counts, [8, 6]);
}

#[test]
fn large_states_come_back_too() {
    let mut random = 1_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % below
    };
    for n in [511, 512, 513, 5_000_u64] {
        let stream: Vec<_> = (0..n * 3)
            .map(|i| (format!("item {}", i % n).repeat(1 + (i % 4) as usize).into_bytes(), draw(9)))
            .collect();
        for capacity in [600, 4_096] {
            let top = fold(capacity, &stream);
            assert_holds(&top, &truth(&stream));
            let encoded = bytes(&top);
            let mut decoded = Top::decode(&mut encoded.as_slice()).expect("own bytes");
            assert_eq!(bytes(&decoded), encoded);
            assert!(decoded.heap_bytes() <= 2 * encoded.len() + (64 << 10));
            decoded.merge(&top);
            decoded.insert(b"one more", 1);
            let mut twice = truth(stream.iter().chain(&stream));
            twice.insert(b"one more".to_vec(), 1);
            assert_holds(&decoded, &twice);
        }
    }
}

#[test]
fn counts_stop_at_their_greatest() {
    let mut top = new(1);
    top.insert(b"a", u64::MAX);
    top.insert(b"a", u64::MAX);
    assert_eq!((top.total(), top.count_of(b"a").lower), (u64::MAX, u64::MAX));
    top.insert(b"b", u64::MAX - 1);
    top.insert(b"c", u64::MAX - 1);
    let truth = truth(&[
        (b"a".to_vec(), u64::MAX),
        (b"b".to_vec(), u64::MAX - 1),
        (b"c".to_vec(), u64::MAX - 1),
    ]);
    assert_holds(&top, &truth);
    top.merge(&top.clone());
    assert_eq!(top.error(), u64::MAX);
    assert_eq!(Top::decode(&mut bytes(&top).as_slice()), Ok(top.clone()));
    top.insert(b"d", 5);
    assert!(top.is_empty() && top.count_of(b"d").upper == u64::MAX);
}

#[test]
fn two_of_the_greatest_capacity_with_nothing_in_common_are_merged() {
    let of = |from: u32| {
        let mut top = Top::new(Top::CAPACITY_MAX).unwrap();
        (from..from + 98_000)
            .for_each(|item| top.insert(&item.to_le_bytes(), u64::from(item % 9 + 1)));
        top
    };
    let (mut top, other) = (of(0), of(98_000));
    top.merge(&other);
    assert_eq!(top.total(), 2 * (0..98_000_u64).map(|item| item % 9 + 1).sum::<u64>() + off());
    for item in (0..196_000_u32).step_by(101) {
        let (heavy, is) = (top.count_of(&item.to_le_bytes()), u64::from(item % 9 + 1));
        assert!(heavy.lower <= is && is <= heavy.upper, "{heavy:?} of {is}");
    }
}

/// By how much the second half of such items weighs more than the first.
fn off() -> u64 {
    let sum = |from: u64| (from..from + 98_000).map(|item| item % 9 + 1).sum::<u64>();
    sum(98_000) - sum(0)
}

#[test]
fn a_count_that_stopped_is_not_called_exact() {
    let mut top = new(8);
    top.insert(b"tea", u64::MAX - 1);
    assert!(top.count_of(b"tea").is_exact());
    top.insert(b"tea", 5);
    let tea = top.count_of(b"tea");
    assert_eq!((tea.lower, tea.upper), (u64::MAX, u64::MAX));
    assert!(!tea.is_exact() && !tea.approx().is_exact());
    assert!(tea.approx().upper.is_infinite() && tea.approx().lower < 2.0_f64.powi(64));
}
