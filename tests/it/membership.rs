//! Membership: nothing is denied, the rate of false yeses is the one that is said, and bytes.

use quipu::ErrorKind;
use quipu::aggregate::{Aggregate, Membership};

#[test]
fn few_items_are_known_exactly() {
    let mut seen = Membership::new(100_000, 0.01).unwrap();
    assert_eq!(seen.heap_bytes(), 0);
    for i in 0..10_000_u32 {
        assert!(seen.insert(&i.to_le_bytes()));
        assert!(!seen.insert(&i.to_le_bytes()));
    }
    assert_eq!(seen.exact_len(), Some(10_000));
    assert!(seen.false_positive_rate() < 1e-15);
    assert!(seen.contains(&9_999_u32.to_le_bytes()) && !seen.contains(&10_000_u32.to_le_bytes()));
}

#[test]
fn the_rate_is_kept_up_to_what_is_expected_and_told_beyond() {
    for (expected, rate) in [(1_000_u32, 0.1), (10_000, 0.01), (30_000, 0.001), (777, 0.02)] {
        let mut seen = Membership::new(u64::from(expected), rate).unwrap();
        let mut most = 0.0_f64;
        for (upto, kept) in [(expected, true), (3 * expected, false)] {
            (0..upto).for_each(|i| {
                seen.insert(&i.to_le_bytes());
            });
            assert!((0..upto).all(|i| seen.contains(&i.to_le_bytes())), "nothing is denied");
            assert_eq!(seen.exact_len(), None);
            let strangers = 400_000_u32;
            let taken =
                (upto..upto + strangers).filter(|i| seen.contains(&i.to_le_bytes())).count();
            let measured = taken as f64 / f64::from(strangers);
            let said = seen.false_positive_rate();
            let deviation = (said / f64::from(strangers)).sqrt();
            assert!((measured - said).abs() <= 4.0 * deviation, "{measured} is said to be {said}");
            assert!(said <= rate || !kept, "{said} of {rate}");
            assert!(said > most, "it grows");
            most = said;
        }
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    for (expected, rate) in [(0, 0.1), (10, 0.0), (10, 1.0), (10, f64::NAN), (u64::MAX, 0.01)] {
        let error = Membership::new(expected, rate).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{expected} {rate}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(pair).collect()
}

fn bytes(seen: &Membership) -> Vec<u8> {
    let mut out = Vec::new();
    seen.encode(&mut out);
    out
}

/// Worked out with another implementation of XXH3 and the specification of Parquet's filters.
#[test]
fn bytes_are_what_they_ever_were() {
    assert_eq!(bytes(&Membership::default()), [0]);
    let mut seen = Membership::new(40, 0.01).unwrap();
    assert_eq!(bytes(&seen), hex("020000"));
    seen.insert(b"a");
    seen.insert(b"b");
    assert_eq!(bytes(&seen), hex("0200023f84d8441c0b5a571f4e961eb632c6e6"));
    let mut seen = Membership::new(40, 0.01).unwrap();
    for i in 0..7 {
        seen.insert(i.to_string().as_bytes());
    }
    let filter = "0004020106000000040900002002000821040000204010000004a0000000026040402001\
                  2080480028002000100c002000042401024080804000c08090000200";
    assert_eq!(bytes(&seen), hex(&format!("0201{filter}")));
}

#[test]
fn damaged_bytes_are_errors_that_say_what_is_wrong() {
    let block = "0100000001000000010000000100000001000000010000000100000001000000";
    for (input, wrong) in [
        ("1b00", "greater"),
        ("0202", "hashes or a filter"),
        ("0200ffffffffffffffffff01", "larger"),
        ("02000701", "larger"),
        ("010004", "larger"),
        ("020002020000000000000001000000000000000", "order"),
        (&format!("1a01{block}"), "cut short"),
        (&format!("0101{}", block.replacen('1', "0", 1)), "some words"),
        (&format!("0101{}", "0".repeat(64)), "empty"),
        (&format!("010004{}", "00".repeat(32)), "would have"),
    ] {
        let error = Membership::decode(&mut hex(input).as_slice()).unwrap_err();
        assert!(error.to_string().contains(wrong), "{input}: {error}");
    }
}
