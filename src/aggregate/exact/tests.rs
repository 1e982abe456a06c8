//! Exact sums against a slow reference, at the ends of the range, and as bytes.

use super::*;
use proptest::prelude::*;

/// The same numbers kept in another way: digits of 32 bits with carries put off, read bit by
/// bit with long division. Slow, and shares no code with what it judges.
struct Reference {
    sum: Vec<i128>,
    squares: Vec<i128>,
}

impl Reference {
    fn of(values: &[f64]) -> Self {
        let mut new = Self { sum: vec![0; 70], squares: vec![0; 140] };
        for &x in values {
            let exponent = (x.to_bits() >> 52 & 0x7ff) as usize;
            let fraction = u128::from(x.to_bits() & ((1 << 52) - 1));
            let (digits, at) =
                if exponent == 0 { (fraction, 0) } else { (fraction + (1 << 52), exponent - 1) };
            let sign = if x < 0.0 { -1 } else { 1 };
            for bit in (0..53).filter(|bit| digits >> bit & 1 == 1) {
                new.sum[(at + bit) / 32] += sign << ((at + bit) % 32);
            }
            for bit in (0..106).filter(|bit| (digits * digits) >> bit & 1 == 1) {
                new.squares[(2 * at + bit) / 32] += 1 << ((2 * at + bit) % 32);
            }
        }
        new
    }

    /// Carries done; digits of the absolute value, and whether it was negative.
    fn settled(digits: &[i128]) -> (Vec<i128>, bool) {
        let carried = |sign: i128| {
            let mut carry = 0;
            let mut out: Vec<i128> = Vec::new();
            for digit in digits.iter().map(|digit| sign * digit).chain([0; 4]) {
                out.push((digit + carry).rem_euclid(1 << 32));
                carry = (digit + carry).div_euclid(1 << 32);
            }
            (out, carry)
        };
        match carried(1) {
            (out, 0) => (out, false),
            _ => (carried(-1).0, true),
        }
    }

    fn round(digits: &[i128], unit: i32, divisor: u128) -> f64 {
        let (digits, negative) = Self::settled(digits);
        let mut remainder = 0;
        let mut bits = Vec::new();
        // 200 zeros below, so that the quotient has bits enough.
        for place in (0..digits.len() * 32 + 200).rev() {
            let bit = place.checked_sub(200).map_or(0, |at| digits[at / 32] >> (at % 32) & 1);
            remainder = remainder * 2 + bit.cast_unsigned();
            bits.push(u64::from(remainder >= divisor));
            remainder %= divisor;
        }
        bits.reverse();
        let unit = unit - 200;
        let Some(top) = bits.iter().rposition(|&bit| bit == 1) else {
            return 0.0;
        };
        let last = (top as i32 - 52).max(UNIT_EXPONENT - unit);
        let bit = |at: i32| usize::try_from(at).ok().and_then(|at| bits.get(at)).map_or(0, |b| *b);
        let mut kept = (last..last + 53).rev().fold(0, |kept, at| kept * 2 + bit(at));
        let below = remainder != 0 || (0..last - 1).any(|at| bit(at) == 1);
        if bit(last - 1) == 1 && (below || kept % 2 == 1) {
            kept += 1;
        }
        let exponent = unit + last;
        let size = if exponent > 971 {
            f64::INFINITY
        } else {
            let half = exponent / 2;
            kept as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
        };
        if negative { -size } else { size }
    }

    fn sum(&self) -> f64 {
        Self::round(&self.sum, -1074, 1)
    }

    fn sum_of_squares(&self) -> f64 {
        Self::round(&self.squares, -2148, 1)
    }

    fn mean(&self, n: u64) -> f64 {
        Self::round(&self.sum, -1074, n.into())
    }

    fn variance(&self, n: u64, freedom: u64) -> f64 {
        let (sum, _) = Self::settled(&self.sum);
        let (squares, _) = Self::settled(&self.squares);
        let mut spread = vec![0; 150];
        for (at, digit) in squares.iter().enumerate() {
            spread[at] += digit * i128::from(n);
        }
        for (i, a) in sum.iter().enumerate() {
            for (j, b) in sum.iter().enumerate().filter(|(_, b)| a * *b != 0) {
                spread[i + j] -= a * b;
            }
        }
        Self::round(&spread, -2148, u128::from(n) * u128::from(freedom))
    }
}

fn sums(values: &[f64]) -> Sums {
    let mut sums = Sums::default();
    for &x in values {
        sums.add(x);
    }
    sums
}

fn bytes(sums: &Sums) -> Vec<u8> {
    let mut out = Vec::new();
    sums.encode(&mut out);
    out
}

fn is_narrow(sums: &Sums) -> bool {
    matches!(sums.0, State::Narrow(_))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[track_caller]
fn check_against_reference(values: &[f64]) {
    let (ours, reference) = (sums(values), Reference::of(values));
    let n = values.len() as u64;
    assert_eq!(ours.sum().to_bits(), reference.sum().to_bits(), "sum");
    assert_eq!(ours.sum_of_squares(), reference.sum_of_squares(), "sum of squares");
    if n > 0 {
        assert_eq!(ours.mean(n), Some(reference.mean(n)), "mean");
        assert_eq!(ours.var_pop(n), Some(reference.variance(n, n)), "var_pop");
    }
    if n > 1 {
        assert_eq!(ours.var_samp(n), Some(reference.variance(n, n - 1)), "var_samp");
    }
}

#[test]
fn narrow_sums_take_72_bytes() {
    assert_eq!(size_of::<Sums>(), 72);
    assert_eq!(size_of::<Wide>(), 824);
}

#[test]
fn nothing_added_is_zero() {
    let none = Sums::default();
    assert_eq!((none.sum().to_bits(), none.sum_of_squares().to_bits()), (0, 0));
    assert_eq!((none.mean(0), none.var_pop(0), none.var_samp(0)), (None, None, None));
    assert_eq!((none.var_pop(1), none.var_samp(1)), (Some(0.0), None));
    assert_eq!(sums(&[0.0, -0.0]), none);
    assert!(is_narrow(&sums(&[0.0, -0.0])));
    assert_eq!(bytes(&none), [0; 6]);
}

#[test]
fn a_million_tenths_are_summed_before_they_are_rounded() {
    let mut tenths = Sums::default();
    for _ in 0..1_000_000 {
        tenths.add(0.1);
    }
    // Exactly 100000.00000000000555…, less than half a step (7.3e-12) above 100000. Adding
    // the doubles one by one gives 100000.00000133288.
    assert_eq!(tenths.sum(), 100_000.0);
    assert_eq!(tenths.sum_of_squares(), 10_000.000_000_000_002);
    assert_eq!(tenths.mean(1_000_000), Some(0.1));
    assert_eq!(tenths.var_pop(1_000_000), Some(0.0));
    assert_eq!(tenths.var_samp(1_000_000), Some(0.0));
    assert!(is_narrow(&tenths));
}

#[test]
fn variance_survives_a_large_mean() {
    let near = sums(&[1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]);
    assert_eq!(near.var_samp(3), Some(1.0));
    assert_eq!(near.var_pop(3), Some(2.0 / 3.0));
    // NIST NumAcc3 and NumAcc4. The certified variance of both is 0.01 in decimals; the
    // doubles nearest to the data have these, by rational arithmetic.
    let data = |first, odd, even| -> Vec<f64> {
        std::iter::once(first).chain([odd, even].into_iter().cycle().take(1000)).collect()
    };
    let three = sums(&data(1_000_000.2, 1_000_000.1, 1_000_000.3));
    assert_eq!(three.var_samp(1001), Some(0.010_000_000_006_984_92));
    assert_eq!(three.var_pop(1001), Some(0.009_990_009_996_987_93));
    assert_eq!(three.mean(1001), Some(1_000_000.2));
    let four = sums(&data(10_000_000.2, 10_000_000.1, 10_000_000.3));
    assert_eq!(four.var_samp(1001), Some(0.010_000_000_111_758_71));
    assert_eq!(four.mean(1001), Some(10_000_000.2));
}

#[test]
fn a_sum_rounds_ties_to_even() {
    let big = 2f64.powi(53);
    assert_eq!(sums(&[big, 1.0]).sum(), big);
    assert_eq!(sums(&[big, 2.0, 1.0]).sum(), big + 4.0);
    assert_eq!(sums(&[big, 1.0, f64::from_bits(1)]).sum(), big + 2.0);
    assert_eq!(sums(&[big, 1.0, -f64::from_bits(1)]).sum(), big);
    assert_eq!(sums(&[-big, -1.0]).sum(), -big);
    assert_eq!(sums(&[-big, -2.0, -1.0]).sum(), -big - 4.0);
}

#[test]
fn the_ends_of_the_range_round_right() {
    let (max, tiny) = (f64::MAX, f64::from_bits(1));
    let half_step = 2f64.powi(970);
    assert_eq!(sums(&[max, max]).sum(), f64::INFINITY);
    assert_eq!(sums(&[-max, -max]).sum(), f64::NEG_INFINITY);
    assert_eq!(sums(&[max, max]).mean(2), Some(max));
    assert_eq!(sums(&[max, half_step]).sum(), f64::INFINITY);
    assert_eq!(sums(&[max, half_step, -tiny]).sum(), max);
    assert_eq!(sums(&[max, tiny, -max]).sum(), tiny);
    assert_eq!(sums(&[max, -max]).var_pop(2), Some(f64::INFINITY));
    assert_eq!(sums(&[max, max]).var_pop(2), Some(0.0));
    assert_eq!(sums(&[tiny, tiny]).mean(2), Some(tiny));
    assert_eq!(sums(&[tiny, 0.0]).mean(2), Some(0.0));
    assert_eq!(sums(&[tiny, tiny, tiny]).mean(2), Some(2.0 * tiny));
    assert_eq!(sums(&[tiny]).sum_of_squares(), 0.0);
    // 1.5 · 2^-1074 as squares: a tie that goes up to 2.
    let root = 2f64.powi(-537);
    assert_eq!(sums(&[root]).sum_of_squares(), tiny);
    let half = 0.5 * root;
    assert_eq!(sums(&[root, half, half]).sum_of_squares(), 2.0 * tiny);
    assert_eq!(sums(&[half, half]).sum_of_squares(), 0.0);
    assert_eq!(sums(&[half, half, tiny]).sum_of_squares(), tiny);
    check_against_reference(&[f64::MIN_POSITIVE, -f64::MIN_POSITIVE / 2.0, tiny, 1e-162]);
}

#[test]
fn a_count_that_is_not_theirs_gives_no_negative_variance() {
    assert_eq!(sums(&[5.0; 10]).var_pop(3), Some(0.0));
    assert_eq!(sums(&[1e300; 10]).var_samp(3), Some(0.0));
    assert!(sums(&[5.0; 10]).var_samp(u64::MAX).is_some_and(|var| var > 0.0));
}

#[test]
fn the_window_is_as_wide_as_promised_and_no_wider() {
    let (low, high) = (2f64.powi(-30), 2f64.powi(66));
    for x in [low.next_up(), low, 2f64.powi(-82), 3.0 * 2f64.powi(-82), high.next_down()] {
        assert!(is_narrow(&sums(&[x])) && is_narrow(&sums(&[-x])), "{x:e}");
        check_against_reference(&[x, -x, x]);
    }
    for x in [low.next_down(), 2f64.powi(-83), 1.5 * 2f64.powi(-82), high, 1e300] {
        assert!(!is_narrow(&sums(&[x])) && !is_narrow(&sums(&[-x])), "{x:e}");
        check_against_reference(&[x, -x, x]);
    }
}

/// As many of `x` as 2 to the power of `times`.
fn doubled(x: f64, times: u32) -> Sums {
    (0..times).fold(sums(&[x]), |mut sums, _| {
        sums.merge(&sums.clone());
        sums
    })
}

#[test]
fn a_carry_out_of_the_window_moves_to_full_width() {
    for x in [2f64.powi(65), -2f64.powi(65), 0.75] {
        for times in 0..160 {
            let sums = doubled(x, times);
            let (sum, squares) = (sums.sum(), sums.sum_of_squares());
            assert_eq!(sum, x * 2f64.powi(times.cast_signed()), "{times}");
            assert_eq!(squares, x * x * 2f64.powi(times.cast_signed()), "{times}");
            let room = (-2f64.powi(76)..2f64.powi(76)).contains(&sum);
            assert_eq!(is_narrow(&sums), room && squares < 2f64.powi(154), "{times}");
            let mut more = sums.clone();
            more.add(x);
            more.add(-x);
            let back = Sums::decode(&mut bytes(&more).as_slice()).expect("own bytes");
            assert_eq!(back, more);
            assert_eq!(back.sum(), sum);
            assert_eq!(is_narrow(&back), room && back.sum_of_squares() < 2f64.powi(154));
        }
    }
    // 2^76, the first sum without room, by additions alone.
    let mut sums = Sums::default();
    for count in 1..=1 << 11 {
        sums.add(2f64.powi(65));
        assert_eq!(is_narrow(&sums), count < 1 << 11, "{count}");
    }
    assert_eq!(sums.sum(), 2f64.powi(76));
    let mut below = Sums::default();
    for count in 1..=(1 << 11) + 1 {
        below.add(-2f64.powi(65));
        assert_eq!(is_narrow(&below), count <= 1 << 11, "{count}");
    }
}

#[test]
fn a_tiny_double_can_be_the_one_too_many() {
    let two = |exponent| 2f64.powi(exponent);
    let mut sums = sums(&[two(65); (1 << 11) - 1]);
    for (high, low) in [(65, 12), (12, -41), (-41, -82)] {
        sums.add(two(high) - two(low));
    }
    assert!(is_narrow(&sums));
    sums.add(two(-82));
    assert!(!is_narrow(&sums));
    sums.add(-two(-82));
    sums.add(two(65));
    assert_eq!(sums.sum(), two(76) + two(65));
}

#[test]
fn the_remainder_of_a_division_breaks_a_tie() {
    let unit = 2f64.powi(-894);
    let (even, odd) = (2f64.powi(53) * unit, unit);
    let mut tie = sums(&[even, even, even, odd, odd, odd]);
    assert_eq!(tie.mean(3), Some(even));
    // The sum has four limbs, of which the lowest is 1: all of it is remainder.
    tie.add(f64::from_bits(1));
    assert_eq!(tie.mean(3), Some(even.next_up()));
}

#[test]
fn full_width_holds_more_doubles_than_can_be_counted() {
    for x in [f64::MAX, -f64::MAX] {
        let all = doubled(x, 64);
        let back = Sums::decode(&mut bytes(&all).as_slice()).expect("own bytes");
        assert_eq!(back, all);
        assert_eq!(all.sum(), x * 2.0, "infinite");
        assert_eq!(all.sum_of_squares(), f64::INFINITY);
        assert_eq!(all.mean(u64::MAX), Some(x));
        assert_eq!(all.mean(1 << 63).map(f64::is_infinite), Some(true));
    }
}

#[test]
fn bytes_are_as_documented() {
    assert_eq!(
        hex(&bytes(&sums(&[15.3, 20.34]))),
        "08000890c2f5285c8f8e000e0010a0abadd85f76cf855ad3bce37c28"
    );
    assert_eq!(hex(&bytes(&sums(&[-4.5]))), "016008ee02c0104401");
    let widest = bytes(&sums(&[f64::MAX, f64::from_bits(1), -1.0]));
    assert_eq!(hex(&widest[..3]), "070100");
}

#[test]
fn no_second_spelling_is_decoded() {
    let refused = |sum: &[u8], squares: &[u8]| {
        let all = [sum, squares].concat();
        let mut rest = all.as_slice();
        let error = Sums::decode(&mut rest).expect_err("should be refused");
        assert_eq!(rest, all, "the slice stays");
        error.0
    };
    let header = |count: u32, offset: u32| (count | offset << 12).to_le_bytes()[..3].to_vec();
    let number =
        |digits: &[u8], offset: u32| [&header(digits.len() as u32, offset), digits].concat();
    let one = number(&[1], 200);
    let zero = number(&[], 0);
    assert_eq!(refused(&[], &[]), "no room for a header");
    assert_eq!(refused(&one, &[0, 0]), "no room for a header");
    assert_eq!(refused(&header(2, 0), &[1]), "fewer digits than the header says");
    assert_eq!(refused(&header(4095, 0), &[1; 4000]), "fewer digits than the header says");
    assert_eq!(refused(&header(0, 1), &one), "zero has no offset");
    assert_eq!(refused(&number(&[0, 1], 9), &one), "digits begin with a zero");
    assert_eq!(refused(&number(&[0], 9), &one), "digits begin with a zero");
    let copy = "digits end with a copy of the sign";
    assert_eq!(refused(&number(&[1, 0], 9), &one), copy);
    assert_eq!(refused(&number(&[0x81, 0xff], 9), &one), copy);
    let range = "digits outside the range of doubles";
    assert_eq!(refused(&number(&[1], 280), &one), range);
    assert_eq!(refused(&number(&[1; 300], 0), &one), range);
    assert_eq!(refused(&one, &number(&[1], 544)), range);
    let count = "more than a count of doubles can sum to";
    assert_eq!(refused(&number(&[0x7f], 279), &one), count);
    assert_eq!(refused(&number(&[0x80], 279), &one), count);
    assert_eq!(refused(&zero, &number(&[0xff], 300)), "a sum of squares is not negative");
    assert_eq!(
        refused(&number(&[1], 140), &zero),
        "squares that sum to zero leave nothing but zeros to sum"
    );
    assert!(Sums::decode(&mut [number(&[0x3f], 279), one].concat().as_slice()).is_ok());
}

/// As many events as there are positions, each of which counts for as many as can be.
#[test]
fn more_events_than_a_log_can_have_leave_room() {
    for value in [f64::MAX, f64::MIN] {
        let mut sums = sums(&[value]);
        for _ in 0..128 {
            let half = sums.clone();
            sums.merge(&half);
        }
        let back = Sums::decode(&mut bytes(&sums).as_slice()).expect("own bytes");
        assert_eq!(back, sums);
        assert_eq!(back.mean(u64::MAX).map(f64::signum), Some(value.signum()));
        assert!(back.var_pop(u64::MAX).is_some_and(|variance| variance >= 0.0));
    }
}

#[test]
fn decoding_takes_one_value_and_leaves_the_rest() {
    let mut all = bytes(&sums(&[1.5]));
    all.extend(bytes(&sums(&[1e300, 2.0])));
    all.push(7);
    let mut rest = all.as_slice();
    assert_eq!(Sums::decode(&mut rest), Ok(sums(&[1.5])));
    assert_eq!(Sums::decode(&mut rest), Ok(sums(&[2.0, 1e300])));
    assert_eq!(rest, [7]);
}

#[test]
fn what_was_wide_and_fits_again_decodes_narrow() {
    let mut sums = sums(&[2.5, -1e-20]);
    assert!(!is_narrow(&sums));
    // The squares of small terms stay; only a merge could take them out. So build the value.
    let State::Wide(pair) = &mut sums.0 else { panic!("wide") };
    pair.sum = Fixed::ZERO;
    pair.squares = Fixed::ZERO;
    assert_eq!(sums, Sums::default());
    sums.add(-2.5);
    assert!(!is_narrow(&sums));
    let mut narrow = Sums::default();
    narrow.add(-2.5);
    assert_eq!(sums, narrow);
    assert_eq!(narrow, sums);
    assert_eq!(bytes(&sums), bytes(&narrow));
    let back = Sums::decode(&mut bytes(&sums).as_slice()).expect("own bytes");
    assert!(is_narrow(&back));
    assert_ne!(sums, Sums::default());
}

/// Prices, whole numbers, ends of the range, powers of two, and any finite bits.
fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-10_000_000i32..10_000_000).prop_map(|cents| f64::from(cents) / 100.0),
        1 => any::<i32>().prop_map(f64::from),
        2 => prop::sample::select(vec![
            0.0, -0.0, f64::MAX, -f64::MAX, f64::MIN_POSITIVE, -f64::MIN_POSITIVE,
            f64::from_bits(1), -f64::from_bits(1), 1e300, -1e300, 1e16, 1.0, -1e16, 0.1,
        ]),
        2 => (-1074..1024i32, any::<bool>()).prop_map(|(exponent, minus)| {
            let size = 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2);
            if minus { -size } else { size }
        }),
        2 => any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |x| x.is_finite()),
    ]
}

/// Doubles that fit the narrow windows.
fn moderate() -> impl Strategy<Value = f64> {
    (-1i64 << 53..1 << 53, -82..13i32).prop_map(|(m, e)| m as f64 * 2f64.powi(e))
}

fn doubles() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        prop::collection::vec(double(), 0..24),
        prop::collection::vec(moderate(), 0..24),
        prop::collection::vec((-1_000_000i32..1_000_000).prop_map(|c| f64::from(c) / 100.0), 0..24),
    ]
}

/// Merges neighbours picked by `picks` until one is left.
fn merged(mut parts: Vec<Sums>, picks: &[prop::sample::Index]) -> Sums {
    for pick in picks.iter().cycle() {
        if parts.len() < 2 {
            break;
        }
        let from = parts.swap_remove(pick.index(parts.len()));
        let into = pick.index(parts.len());
        parts[into].merge(&from);
    }
    parts.pop().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn reads_agree_with_the_reference(values in doubles()) {
        check_against_reference(&values);
    }

    #[test]
    fn neither_order_nor_merges_leave_a_trace(
        (values, shuffled) in doubles()
            .prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle())),
        cuts in prop::collection::vec(1usize..5, 1..8),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
    ) {
        let whole = sums(&values);
        let mut parts = Vec::new();
        let mut left = shuffled.as_slice();
        for cut in cuts.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (part, rest) = left.split_at((*cut).min(left.len()));
            parts.push(sums(part));
            left = rest;
        }
        let other = merged(parts, &picks);
        prop_assert_eq!(&whole, &other);
        prop_assert_eq!(bytes(&whole), bytes(&other));
        prop_assert_eq!(whole.var_pop(7), other.var_pop(7));
    }

    #[test]
    fn wide_and_narrow_are_the_same(values in doubles()) {
        let narrow = sums(&values);
        let mut wide = Sums::default();
        wide.widen();
        for &x in &values {
            wide.add(x);
        }
        let n = values.len() as u64;
        prop_assert_eq!(&wide, &narrow);
        prop_assert_eq!(&narrow, &wide);
        prop_assert_eq!(bytes(&wide), bytes(&narrow));
        prop_assert_eq!(wide.sum(), narrow.sum());
        prop_assert_eq!(wide.sum_of_squares(), narrow.sum_of_squares());
        prop_assert_eq!(wide.mean(n), narrow.mean(n));
        prop_assert_eq!(wide.var_samp(n), narrow.var_samp(n));
    }

    #[test]
    fn moderate_doubles_stay_narrow(values in prop::collection::vec(moderate(), 0..24)) {
        prop_assert!(is_narrow(&sums(&values)));
    }

    #[test]
    fn bytes_come_back_as_the_value(values in doubles()) {
        let before = sums(&values);
        let all = bytes(&before);
        let mut rest = all.as_slice();
        let after = Sums::decode(&mut rest).expect("own bytes");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&after, &before);
        prop_assert_eq!(bytes(&after), all);
        prop_assert!(is_narrow(&after) || !is_narrow(&before));
    }

    #[test]
    fn different_sums_are_unequal(values in doubles(), x in double()) {
        let x = if x == 0.0 { 1.0 } else { x };
        let before = sums(&values);
        let mut after = before.clone();
        after.add(x);
        prop_assert_ne!(&after, &before);
        prop_assert_ne!(bytes(&after), bytes(&before));
    }

    #[test]
    fn strange_bytes_are_refused_or_canonical(
        bytes_in in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            // Headers that lead somewhere.
            (0u32..20, 0u32..280, 0u32..40, 0u32..560, prop::collection::vec(any::<u8>(), 70))
                .prop_map(|(count, offset, count2, offset2, digits)| {
                    let mut all = (count | offset << 12).to_le_bytes()[..3].to_vec();
                    all.extend(&digits[..count as usize]);
                    all.extend(&(count2 | offset2 << 12).to_le_bytes()[..3]);
                    all.extend(&digits[30..30 + count2 as usize]);
                    all
                }),
        ],
        n in any::<u64>(),
    ) {
        let mut rest = bytes_in.as_slice();
        match Sums::decode(&mut rest) {
            Err(_) => prop_assert_eq!(rest, bytes_in.as_slice()),
            Ok(mut sums) => {
                let used = bytes_in.len() - rest.len();
                prop_assert_eq!(bytes(&sums), &bytes_in[..used]);
                prop_assert!(sums.var_pop(n).is_none_or(|var| var >= 0.0));
                prop_assert!(sums.var_samp(n).is_none_or(|var| var >= 0.0));
                prop_assert!(!sums.sum().is_nan());
                prop_assert!(sums.mean(n).is_none_or(|mean| !mean.is_nan()));
                sums.add(-f64::MAX);
                sums.merge(&sums.clone());
            }
        }
    }
}
