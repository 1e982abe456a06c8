//! Bytes as a count of different items, or as a sample of them: an error, or a state with exactly these
//! bytes that obeys the laws, takes no more memory than it may, and answers within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::Timestamp;
use quipu::aggregate::{Aggregate, Approx, Distinct, Theta};

fn bytes(state: &impl Aggregate) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

fn merged<A: Aggregate>(a: &A, b: &A) -> A {
    let mut out = a.clone();
    out.merge(b);
    out
}

fn check(answer: Approx) -> Approx {
    assert!(0.0 <= answer.lower && answer.lower <= answer.value && answer.value <= answer.upper);
    assert!(0.0 < answer.confidence && answer.confidence <= 1.0);
    answer
}

/// Decodes two states from the input, checks the laws on them, and gives both.
fn laws<A>(input: &[u8]) -> Option<(A, A)>
where
    A: for<'a> Aggregate<Input<'a> = &'a [u8]> + std::fmt::Debug,
{
    let mut rest = input;
    let a = A::decode(&mut rest).ok()?;
    assert_eq!(bytes(&a), input[..input.len() - rest.len()], "only own bytes are accepted");
    assert!(a.heap_bytes() <= 2 * input.len() + (64 << 10), "no more memory than it may");
    let mut b = A::decode(&mut rest).unwrap_or_default();
    b.observe(rest, Timestamp::from_secs(1));
    let (ab, ba) = (merged(&a, &b), merged(&b, &a));
    assert_eq!(ab, ba, "merging commutes, in memory");
    assert_eq!(bytes(&ab), bytes(&ba), "and as bytes");
    assert_eq!(merged(&a, &A::default()), a, "the empty state changes nothing");
    assert_eq!(merged(&ab, &a), ab, "what was there before changes nothing");
    assert_eq!(A::decode(&mut bytes(&ab).as_slice()).as_ref(), Ok(&ab), "own bytes are accepted");
    // One item after the other gives what merging gives, across the change of form.
    let mut one_by_one = ab.clone();
    let mut apart = b.clone();
    for item in 0..2_000_u32 {
        one_by_one.observe(&item.to_le_bytes(), Timestamp::from_secs(1));
        apart.observe(&item.to_le_bytes(), Timestamp::from_secs(1));
    }
    assert_eq!(merged(&a, &apart), one_by_one, "merging is observing");
    Some((a, b))
}

fuzz_target!(|input: &[u8]| {
    if let Some((a, b)) = laws::<Distinct>(input) {
        let all = check(merged(&a, &b).estimate());
        assert!(all.upper >= check(a.estimate()).lower);
        check(a.intersection(&b));
        check(a.difference(&b));
        check(a.jaccard(&b));
    }
    if let Some((a, b)) = laws::<Theta>(input) {
        check(merged(&a, &b).estimate());
        let (both, only) = (check(a.intersection(&b)), check(a.difference(&b)));
        check(a.jaccard(&b));
        let none = check(Theta::in_all_and_none(&[&a, &b], &[&a]));
        assert_eq!(none.value, 0.0);
        if a.estimate().is_exact() && b.estimate().is_exact() {
            assert_eq!(both.value + only.value, a.estimate().value);
        }
    }
});
