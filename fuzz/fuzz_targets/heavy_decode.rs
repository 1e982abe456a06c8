//! Bytes as a state of heavy hitters, Count-Min or membership, the first byte saying which: an error, or
//! a state with exactly these bytes, of bounded memory, that obeys the laws and whose bounds hold for
//! what is counted from here on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::Timestamp;
use quipu::aggregate::{Aggregate, CountMin, Membership, Top};
use quipu_fuzz::states::{bytes, merged};

/// Decodes two states from the input and checks what holds of every aggregate.
fn laws<A: Aggregate + std::fmt::Debug>(input: &[u8], associative: bool) -> Option<(A, A)> {
    let mut rest = input;
    let a = A::decode(&mut rest).ok()?;
    assert!(a.heap_bytes() <= 2 * input.len() + (64 << 10), "memory is that of the bytes");
    assert_eq!(bytes(&a), input[..input.len() - rest.len()], "only own bytes are accepted");
    let b = A::decode(&mut rest).unwrap_or_default();
    let (ab, ba) = (merged(&a, &b), merged(&b, &a));
    assert_eq!(ab, ba, "merging commutes");
    assert_eq!(bytes(&ab), bytes(&ba), "merging commutes, to the byte");
    assert_eq!(bytes(&merged(&a, &A::default())), bytes(&a), "the empty state changes nothing");
    if associative {
        assert_eq!(bytes(&merged(&ab, &a)), bytes(&merged(&a, &ba)), "merging is associative");
    }
    let again = A::decode(&mut bytes(&ab).as_slice()).expect("own bytes are accepted");
    assert_eq!(again, ab);
    Some((a, b))
}

fn tops(input: &[u8]) {
    let Some((a, b)) = laws::<Top>(input, false) else { return };
    let ab = merged(&a, &b);
    assert_eq!(ab.total(), a.total().saturating_add(b.total()));
    assert!(ab.error() >= a.error().saturating_add(b.error()), "floors add up");
    for heavy in [a.top(9), b.top(9)].concat() {
        let [x, y, both] = [&a, &b, &ab].map(|state| state.count_of(&heavy.item));
        assert!(
            both.lower <= x.lower.saturating_add(y.lower),
            "what was not counted is not claimed"
        );
        assert!(both.upper >= x.upper.saturating_add(y.upper), "what may have been counted may be");
    }
    let mut more = ab.clone();
    for i in 0..64_u8 {
        more.insert(&[i; 20][..usize::from(i % 20)], u64::from(i));
    }
    let threshold = more.error();
    let above = more.above(threshold);
    assert!(above.complete && above.guaranteed.iter().all(|heavy| heavy.lower > threshold));
    assert_eq!(Top::decode(&mut bytes(&more).as_slice()), Ok(more));
}

fn point_counts(input: &[u8]) {
    let Some((mut a, b)) = laws::<CountMin>(input, true) else { return };
    let before = (a.width(), a.total());
    a.count_of(b"a");
    if before.0 == b.width() && before.0 > 0 && a.depth() == b.depth() {
        let was = bytes(&a);
        a.merge(&b);
        a.subtract(&b);
        assert_eq!(bytes(&a), was, "what is taken back is as if it had never come");
    }
    a.observe((b"a", 7), Timestamp::default());
    bytes(&a);
}

fn membership(input: &[u8]) {
    let Some((mut a, _)) = laws::<Membership>(input, true) else { return };
    let rate = a.false_positive_rate();
    assert!((0.0..=1.0).contains(&rate));
    for i in 0..40_u8 {
        let (known, new) = (a.contains(&[i]), a.insert(&[i]));
        assert_ne!(known, new);
        assert!(a.contains(&[i]), "nothing is denied");
    }
    assert!(a.false_positive_rate() >= rate);
}

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, rest)) => tops(rest),
        Some((1, rest)) => point_counts(rest),
        Some((_, rest)) => membership(rest),
        None => {}
    }
});
