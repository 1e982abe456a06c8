//! Bytes as a state of Stats, Count or Quantiles: an error, or a state with exactly these bytes that obeys the laws.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::Timestamp;
use quipu::aggregate::{Aggregate, Count, Quantiles, Stats};
use quipu_fuzz::states::{bytes, merged};

/// Decodes two states from the input and checks the laws on them.
fn laws<A: Aggregate + std::fmt::Debug>(input: &[u8], input_value: A::Input<'_>) -> Option<(A, A)> {
    let mut rest = input;
    let a = A::decode(&mut rest).ok()?;
    assert_eq!(bytes(&a), input[..input.len() - rest.len()], "only own bytes are accepted");
    let mut b = A::decode(&mut rest).unwrap_or_default();
    let (ab, ba) = (merged(&a, &b), merged(&b, &a));
    assert_eq!(bytes(&ab), bytes(&ba), "merging commutes");
    assert_eq!(bytes(&merged(&a, &A::default())), bytes(&a), "the empty state changes nothing");
    assert_eq!(bytes(&merged(&ab, &a)), bytes(&merged(&a, &ba)), "merging is associative");
    let encoded = bytes(&ab);
    match A::decode(&mut encoded.as_slice()) {
        Ok(again) => assert_eq!(bytes(&again), encoded, "own bytes are accepted"),
        // Bytes can say of two states what no number of events leaves, and both together more.
        Err(error) => assert_eq!(error.to_string(), "more than a count of doubles can sum to"),
    }
    b.observe(input_value, Timestamp::from_secs(1));
    bytes(&b);
    Some((ab, b))
}

fuzz_target!(|input: &[u8]| {
    if let Some((ab, b)) = laws::<Stats>(input, 0.1) {
        let (ab, b) = (ab.summary(), b.summary());
        assert!(ab.min <= ab.max && b.min <= b.max);
    }
    laws::<Count>(input, ());
    if let Some((ab, b)) = laws::<Quantiles>(input, 0.1) {
        for state in [ab, b] {
            let median = state.median().map(|median| (median.lower, median.upper));
            let ends = state.min().zip(state.max());
            assert_eq!(median.is_some(), ends.is_some());
            if let Some(((lower, upper), (min, max))) = median.zip(ends) {
                assert!(min <= lower && lower <= upper && upper <= max);
            }
            assert!(state.bins().iter().all(|bin| bin.lower <= bin.upper && bin.count > 0));
        }
    }
});
