//! The laws of quantiles, their error, and bytes that nobody should trust.
#![allow(clippy::float_cmp, reason = "what is exact is compared exactly")]

use super::bins::OCTAVES;
use super::*;
use proptest::prelude::*;

fn of(values: &[f64]) -> Quantiles {
    let mut state = Quantiles::default();
    for value in values {
        state.insert(*value);
    }
    state
}

fn bytes(state: &Quantiles) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

/// What a value is off by, as a share of it.
fn off(found: f64, is: f64) -> f64 {
    if found == is { 0.0 } else { ((found - is) / is).abs() }
}

/// Values as they are met: money, latencies, of either sign, some far out.
fn values(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        6 => (-100_000_i64..1_000_000).prop_map(|cents| cents as f64 / 100.0),
        3 => (-40.0..40.0_f64).prop_map(f64::exp),
        1 => any::<f64>().prop_filter("finite", |x| x.is_finite()),
        1 => prop::sample::select(vec![0.0, -0.0, 5e-324, f64::MIN, f64::MAX, -1.0, 1.0]),
    ];
    prop::collection::vec(value, n)
}

#[test]
fn zeros_among_the_least_values_that_there_are_stay_zeros() {
    let subnormal = |n: u64| f64::from_bits(n);
    let mut state = Quantiles::default();
    (1..=200).for_each(|n| state.insert(subnormal(n)));
    assert!(!state.is_exact());
    for zero in [0.0, -0.0, 0.0] {
        state.insert(zero);
    }
    state.insert(subnormal(1));
    assert_eq!(state.count(), 204);
    assert_eq!((state.min(), state.max()), (Some(0.0), Some(subnormal(200))));
    let lower = state.bins().iter().map(|bin| (bin.upper, bin.count)).next();
    assert_eq!(lower, Some((0.0, 3)));
    assert_eq!(bytes(&Quantiles::decode(&mut &bytes(&state)[..]).unwrap()), bytes(&state));
}

proptest! {
    #[test]
    fn any_order_and_grouping_gives_the_same_bytes(
        values in values(0..600),
        parts in prop::collection::vec(0_usize..5, 600),
        order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let direct = bytes(&of(&values));
        let mut reversed = values.clone();
        reversed.reverse();
        prop_assert_eq!(&bytes(&of(&reversed)), &direct);
        let mut states = vec![Quantiles::default(); 5];
        for (value, part) in values.iter().zip(&parts) {
            states[*part].insert(*value);
        }
        let mut merged = Quantiles::default();
        for part in &order {
            merged.merge(&states[*part]);
        }
        prop_assert_eq!(&bytes(&merged), &direct);
        // Merged as a tree, and the greater into the smaller.
        let (mut left, mut right) = (states[0].clone(), states[3].clone());
        left.merge(&states[1]);
        right.merge(&states[4]);
        left.merge(&states[2]);
        right.merge(&left);
        prop_assert_eq!(&bytes(&right), &direct);
        prop_assert_eq!(&right, &merged);
    }

    #[test]
    fn bytes_come_back_and_are_gone_on_with(values in values(0..400), more in values(0..200)) {
        let state = of(&values);
        let encoded = bytes(&state);
        let mut rest = encoded.as_slice();
        let mut decoded = Quantiles::decode(&mut rest).expect("own bytes");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&decoded, &state);
        for value in &more {
            decoded.insert(*value);
        }
        prop_assert_eq!(bytes(&decoded), bytes(&of(&[values, more].concat())));
        for end in 0..encoded.len() {
            prop_assert!(Quantiles::decode(&mut &encoded[..end]).is_err());
        }
    }

    #[test]
    fn an_answer_is_off_by_less_than_it_may_and_within_its_bounds(
        mut values in values(1..700),
        share in 0.0..=1.0_f64,
        edge: prop::sample::Index,
    ) {
        let state = of(&values);
        values.sort_by(|a, b| (a + 0.0).total_cmp(&(b + 0.0)));
        let n = values.len();
        let rank = ((share * n as f64).ceil() as usize).clamp(1, n);
        let (is, answer) = (values[rank - 1], state.quantile(share).unwrap().unwrap());
        prop_assert!(answer.lower <= is && is <= answer.upper, "{answer:?} of {is}");
        prop_assert!(answer.lower <= answer.value && answer.value <= answer.upper, "{answer:?}");
        let greatest = values[0].abs().max(values[n - 1].abs());
        let is_normal = is.abs() >= f64::MIN_POSITIVE && is.abs() >= greatest * 2_f64.powi(-118);
        if is_normal || state.is_exact() {
            prop_assert!(off(answer.value, is) <= 1.0 / 129.0 + 1e-15, "{answer:?} of {is}");
        }
        prop_assert_eq!((state.min(), state.max()), (Some(values[0] + 0.0), Some(values[n - 1] + 0.0)));
        prop_assert_eq!(state.count(), n as u64);
        // Counts below an edge, of the values and beside them.
        for edge in [values[edge.index(n)], values[edge.index(n)] * 1.001 + 0.3] {
            let is = values.iter().filter(|value| **value <= edge).count() as f64;
            let counted = state.count_up_to(edge);
            prop_assert!(counted.lower <= is && is <= counted.upper, "{counted:?} of {is}");
            prop_assert!(counted.lower <= counted.value && counted.value <= counted.upper);
            prop_assert!(!state.is_exact() || counted.is_exact());
        }
        let bins = state.bins();
        prop_assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), n as u64);
        prop_assert!(bins.windows(2).all(|pair| pair[0].upper < pair[1].lower
            || pair[0].upper == pair[1].lower && pair[0].upper == 0.0));
    }

    #[test]
    fn a_value_that_is_observed_many_times_is_as_if_one_by_one(
        values in values(0..300),
        (value, times) in (-9.0..9.0_f64, 1_u64..300),
    ) {
        let (mut at_once, mut one_by_one) = (of(&values), of(&values));
        at_once.insert_times(value, times);
        (0..times).for_each(|_| one_by_one.insert(value));
        at_once.insert_times(1e9, 0);
        prop_assert_eq!(bytes(&at_once), bytes(&one_by_one));
    }

    #[test]
    fn hostile_bytes_decode_to_an_error_or_to_themselves(
        input: Vec<u8>,
        values in values(100..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut flipped = bytes(&of(&values));
        for (at, byte) in flips {
            let at = at.index(flipped.len());
            flipped[at] ^= byte;
        }
        for input in [&input, &flipped] {
            let mut rest = input.as_slice();
            let Ok(mut state) = Quantiles::decode(&mut rest) else { continue };
            prop_assert_eq!(&bytes(&state), &input[..input.len() - rest.len()]);
            prop_assert!(state.heap_bytes() <= 2 * input.len() + (64 << 10));
            let _ = (state.median(), state.histogram(&[0.0, 1.0]), state.bins());
            state.insert(1e300);
            state.merge(&of(&values));
        }
    }
}

#[test]
fn every_percentile_is_of_its_rank_whatever_a_product_is_rounded_to() {
    for n in [1, 7, 28, 100, 1_000, 3_000] {
        let mut state = Quantiles::default();
        // All of one bin but the rank that is asked for would tell nothing; so few different values.
        for per_mille in (0..=1_000_u64).step_by(if n > 100 { 7 } else { 1 }) {
            let rank = (per_mille * n).div_ceil(1_000).max(1);
            state.clone_from(&Quantiles::default());
            state.insert_times(1.0, rank - 1);
            state.insert(2.0);
            state.insert_times(3.0, n - rank);
            let percent = per_mille as f64 / 10.0;
            assert_eq!(state.percentile(percent).unwrap().unwrap().value, 2.0, "{percent} of {n}");
            let share = state.quantile(per_mille as f64 / 1_000.0).unwrap().unwrap();
            assert_eq!(share.value, 2.0, "{percent} of {n}");
        }
    }
    assert!(Quantiles::default().percentile(100.1).is_err());
}

#[test]
fn counts_stop_at_their_end_whichever_way_they_come_there() {
    let many: Vec<f64> = (0..200).map(f64::from).collect();
    let (mut a, mut b) = (of(&many), of(&many));
    a.insert_times(7.0, u64::MAX - 5);
    b.insert_times(7.0, 1 << 40);
    let mut ab = a.clone();
    ab.merge(&b);
    b.merge(&a);
    assert_eq!(bytes(&ab), bytes(&b));
    assert_eq!(ab.count(), u64::MAX);
    assert_eq!(Quantiles::decode(&mut bytes(&ab).as_slice()).unwrap(), ab);
    let mut c = of(&many);
    c.insert_times(7.0, (1 << 33) + 3);
    assert_eq!(c.count_up_to(7.07).value, ((1_u64 << 33) + 3 + 8) as f64);
    assert_eq!(c.median().unwrap().lower, 7.0);
}

#[test]
fn what_is_far_smaller_than_the_greatest_is_about_zero() {
    let mut state = of(&(1..=200).map(f64::from).collect::<Vec<_>>());
    state.insert(-1e-3);
    state.insert(1e200);
    let first = state.value_at(1).unwrap();
    assert_eq!((first.value, first.lower), (0.0, -1e-3));
    assert!(first.upper < 1e200 * 2_f64.powi(-118) && first.upper >= 200.0);
    assert_eq!(state.count_up_to(1e199).value, 201.0);
    assert_eq!(state.bins().len(), 2);
    assert!(state.heap_bytes() < 1_000);
}

#[test]
fn the_greatest_state_is_no_greater_than_said() {
    let mut state = Quantiles::default();
    for octave in 0..OCTAVES {
        for sub in 0..64 {
            let value = 2_f64.powi(octave) * (1.0 + f64::from(sub) / 64.0);
            state.insert(value);
            state.insert(-value);
        }
    }
    assert!((60 << 10..64 << 10).contains(&state.heap_bytes()), "{}", state.heap_bytes());
    assert!(size_of::<Quantiles>() <= 16);
    assert_eq!(Quantiles::default().heap_bytes(), 0);
    let encoded = bytes(&state);
    assert!(encoded.len() < 32 + 2 * 2 * 64 * OCTAVES as usize);
    let decoded = Quantiles::decode(&mut encoded.as_slice()).unwrap();
    assert!(decoded.heap_bytes() <= 2 * encoded.len() + (64 << 10));
}

#[test]
fn ranks_are_those_of_the_values_in_order() {
    // 1, two 2, three 3, four 4, five 5: below and up to, as halves of those that are equal.
    let mut state = Quantiles::default();
    (1..=5).for_each(|n| state.insert_times(n as f64, n));
    let rank = |value: f64| {
        let below = state.count_between(f64::NEG_INFINITY, value.next_down()).value;
        let up_to = state.count_up_to(value).value;
        if up_to == 0.0 { -1.0 } else { f64::midpoint(below, up_to).floor() }
    };
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| rank(f64::from(n))), [-1.0, 0.0, 2.0, 4.0, 8.0, 12.0]);
    assert_eq!(rank(6.0), 15.0);
    let by_rank: Vec<_> = (0..=15).rev().map(|n| state.value_at(n).map(|v| v.value)).collect();
    let is = [5, 5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 2, 2, 1].map(|n| Some(f64::from(n)));
    assert_eq!(by_rank[0], None);
    assert_eq!(by_rank[1..], is);
    assert_eq!(Quantiles::default().median(), None);
    assert_eq!(Quantiles::default().min(), None);
    assert_eq!(Quantiles::default().count_up_to(3.0).upper, 0.0);
}

#[test]
fn what_is_no_number_is_passed_over_and_what_is_no_question_refused() {
    let mut state = of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(state, Quantiles::default());
    (0..300).for_each(|n| state.insert(f64::from(n)));
    let before = bytes(&state);
    state.insert(f64::NAN);
    state.insert(f64::INFINITY);
    assert_eq!(bytes(&state), before);
    for share in [-0.1, 1.1, 99.0, f64::NAN] {
        assert!(state.quantile(share).unwrap_err().to_string().contains("from 0 to 1"));
    }
    for edges in [&[1.0, 1.0][..], &[2.0, 1.0], &[f64::NAN], &[1.0, f64::NAN]] {
        assert!(state.histogram(edges).is_err());
    }
    let all = state.histogram(&[f64::NEG_INFINITY, f64::INFINITY]).unwrap();
    assert_eq!(all.iter().map(|n| n.value).collect::<Vec<_>>(), [0.0, 300.0, 0.0]);
}

#[test]
fn bytes_are_what_they_ever_were() {
    assert_eq!(bytes(&Quantiles::default()), [0]);
    let mut few = of(&[2.5]);
    few.insert_times(-1.0, 300);
    let is = [&[2][..], &(-1.0_f64).to_le_bytes(), &[0xac, 2], &2.5_f64.to_le_bytes(), &[1]];
    assert_eq!(bytes(&few), is.concat());
    let mut many = of(&(0..=128).map(f64::from).collect::<Vec<_>>());
    many.insert(1e-100);
    let head = [&[255, 134, 8, 1][..], &0.0_f64.to_le_bytes(), &128.0_f64.to_le_bytes(), &[129, 1]];
    assert_eq!(bytes(&many)[..22], head.concat()[..22]);
    assert_eq!(xxhash_rust::xxh3::xxh3_64(&bytes(&many)), 0xad27_d862_993f_c712);
}

#[test]
fn no_value_is_up_to_what_is_no_number() {
    let mut quantiles = Quantiles::default();
    (0..500).for_each(|n| quantiles.insert(f64::from(n)));
    let none = quantiles.count_up_to(f64::NAN);
    assert_eq!((none.value, none.is_exact()), (0.0, true));
    assert_eq!(quantiles.share_up_to(f64::NAN).map(|share| share.value), Some(0.0));
}

#[test]
fn counts_that_stopped_are_not_called_exact() {
    let mut state = Quantiles::default();
    state.insert_times(1.0, u64::MAX - 1);
    state.insert_times(2.0, 1);
    state.insert_times(1.0, 9);
    let ones = state.count_up_to(1.5);
    assert!(!ones.is_exact() && ones.upper.is_infinite(), "{ones:?}");
    let share = state.share_up_to(1.5).unwrap();
    assert!(share.lower > 0.99 && share.upper == 1.0, "{share:?}");
}

#[test]
fn long_counts_in_every_bin_take_no_more_than_twice_their_bytes() {
    let mut state = Quantiles::default();
    for sign in [-1.0, 1.0] {
        for octave in 0..OCTAVES {
            for bin in 0..35 {
                let size = (1.0 + f64::from(bin) / 64.0) * 2.0_f64.powi(octave);
                state.insert_times(sign * size, 1 << 32);
            }
        }
    }
    let encoded = bytes(&state);
    let decoded = Quantiles::decode(&mut &encoded[..]).unwrap();
    let (heap, bound) = (decoded.heap_bytes(), 2 * encoded.len() + (64 << 10));
    assert!(heap <= bound, "{heap} bytes of {} stored", encoded.len());
}
