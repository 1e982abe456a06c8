//! Count-Min: what other implementations are tested by, the error over many trials, bytes.

use quipu::ErrorKind;
use quipu::aggregate::{Aggregate, CountMin};
use std::collections::BTreeMap;

fn value(counts: &CountMin, item: &str) -> f64 {
    counts.count_of(item.as_bytes()).value
}

#[test]
fn shapes_and_counts_are_as_asked() {
    let mut counts = CountMin::new(20, 5).unwrap();
    counts.insert(b"a", 5).unwrap();
    assert_eq!(value(&counts, "a"), 5.0);
    assert_eq!((counts.width(), counts.depth(), counts.total()), (20, 5, 5));
    let counts = CountMin::with_error(0.001, 0.01).unwrap();
    assert_eq!((counts.width(), counts.depth()), (2_000, 7));
    assert_eq!(value(&CountMin::default(), "a"), 0.0);
    for (epsilon, delta) in [(0.0, 0.1), (0.1, 1.0), (f64::NAN, 0.1), (1e-12, 0.1), (0.1, 1e-300)] {
        let error = CountMin::with_error(epsilon, delta).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{epsilon} {delta}");
    }
}

#[test]
fn merging_adds_and_subtracting_takes_exactly_that_back() {
    let of = |counted: &[(&str, u64)]| {
        let mut counts = CountMin::new(1_000, 5).unwrap();
        for (item, n) in counted {
            counts.insert(item.as_bytes(), *n).unwrap();
        }
        counts
    };
    let (a, b) = (of(&[("foo", 1), ("bar", 1), ("baz", 100)]), of(&[("baz", 98), ("foo", 99)]));
    let mut both = a.clone();
    both.merge(&b);
    assert_eq!(["foo", "bar", "baz"].map(|item| value(&both, item)), [100.0, 1.0, 198.0]);
    both.subtract(&b);
    assert_eq!(both, a);
    both.remove(b"baz", 100).unwrap();
    assert_eq!(["foo", "bar", "baz"].map(|item| value(&both, item)), [1.0, 1.0, 0.0]);
    assert_eq!(both.total(), 2);
    assert_eq!(both, of(&[("bar", 1), ("foo", 1)]), "as if it had never come");
}

#[test]
fn a_count_that_is_full_is_an_error_of_that_item_alone() {
    let mut counts = CountMin::new(2_000, 7).unwrap();
    counts.insert(b"full", i64::MAX as u64 - 1).unwrap();
    let before = counts.clone();
    assert_eq!(counts.insert(b"full", 2).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(counts.insert(b"other", u64::MAX).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(counts, before);
    counts.insert(b"other", 7).unwrap();
    counts.insert(b"full", 1).unwrap();
    assert!(counts.insert(b"full", 1).is_err());
    assert_eq!(value(&counts, "other"), 7.0);
    assert_eq!(counts.total(), i128::from(i64::MAX) + 7);
    assert!(counts.count_of(b"full").upper >= i64::MAX as f64);
}

#[test]
fn what_was_never_there_cannot_be_taken_back_unnoticed() {
    let mut counts = CountMin::new(100, 4).unwrap();
    counts.remove(b"a", 3).unwrap();
    let known = counts.count_of(b"a");
    assert_eq!((known.lower, known.upper), (f64::NEG_INFINITY, f64::INFINITY));
    counts.insert(b"a", 5).unwrap();
    assert_eq!(value(&counts, "a"), 2.0, "a removal may come first");
}

#[test]
fn the_error_is_kept_as_often_as_is_said() {
    let (width, depth, trials) = (64, 3, 300);
    let (mut asked, mut beyond) = (0_u32, 0_u32);
    for trial in 0..trials {
        let mut counts = CountMin::new(width, depth).unwrap();
        let mut truth = BTreeMap::new();
        for i in 1..400_u64 {
            let weight = if trial % 2 == 0 { 1 } else { 4_000 / i };
            let item = format!("{trial}: {i}");
            counts.insert(item.as_bytes(), weight).unwrap();
            truth.insert(item, weight as f64);
        }
        for (item, count) in truth {
            let known = counts.count_of(item.as_bytes());
            assert!(known.value >= count && known.upper >= count, "never too low");
            assert_eq!(known.confidence, 1.0 - 0.125);
            asked += 1;
            beyond += u32::from(known.lower > count);
        }
    }
    let share = f64::from(beyond) / f64::from(asked);
    assert!(share <= 0.125, "{share}");
    assert!(share > 0.0, "the bound is one that can be missed");
}

fn hex(text: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(pair).collect()
}

fn bytes(counts: &CountMin) -> Vec<u8> {
    let mut out = Vec::new();
    counts.encode(&mut out);
    out
}

/// Worked out with another implementation of XXH3 and the layout in the guide.
#[test]
fn bytes_are_what_they_ever_were() {
    assert_eq!(bytes(&CountMin::default()), [0, 0]);
    let mut counts = CountMin::new(20, 5).unwrap();
    counts.insert(b"a", 5).unwrap();
    assert_eq!(bytes(&counts), hex("1405000005110a0e0a070a1a0a170a"));
    let mut counts = CountMin::new(4, 2).unwrap();
    counts.insert(b"a", 5).unwrap();
    counts.insert(b"b", 200).unwrap();
    counts.remove(b"c", 1).unwrap();
    assert_eq!(bytes(&counts), hex("040200020000ffff0000cd00c800000004000000"));
}

#[test]
fn damaged_bytes_are_errors_that_say_what_is_wrong() {
    for (input, wrong) in [
        ("0002", "no cells"),
        ("ffffffff0f20", "more than there are"),
        ("140500000211", "larger"),
        ("14050000ffffffff0f", "larger"),
        ("1405000005110a0e0a070a1a0a1700", "zero"),
        ("1405000005110a0e0a070a1a0a170c", "add up"),
        ("040200030000ffff", "1, 2, 4 or 8"),
        ("040200010500000000000006", "add up"),
        ("04020002050000000000000005000000", "cut short"),
        ("0402000105000000000000", "cut short"),
        ("040200020500000000000000050000000000000000", "wider"),
    ] {
        let error = CountMin::decode(&mut hex(input).as_slice()).unwrap_err();
        assert!(error.to_string().contains(wrong), "{input}: {error}");
    }
}

#[test]
fn of_two_shapes_no_count_is_too_low() {
    let (mut narrow, mut wide) = (CountMin::new(10, 2).unwrap(), CountMin::new(20, 3).unwrap());
    narrow.insert(b"tea", 5).unwrap();
    wide.insert(b"milk", (1 << 53) - 4).unwrap();
    narrow.merge(&wide);
    let tea = narrow.count_of(b"tea");
    assert!(tea.value >= 5.0 && tea.lower == 0.0 && !tea.is_exact(), "{tea:?}");
    let milk = narrow.count_of(b"milk");
    assert!(milk.upper as i128 > (1 << 53), "a total of 2^53 + 1 is rounded upwards: {milk:?}");
    for _ in 0..2 {
        narrow.subtract(&wide);
    }
    let broken = narrow.count_of(b"tea");
    assert_eq!((broken.lower, broken.upper), (f64::NEG_INFINITY, f64::INFINITY));
}
