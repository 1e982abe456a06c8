//! Bytes as a sketch of Apache DataSketches or as a stored KLL sketch, the first byte saying which: an error,
//! or a sketch that can be written, read again, merged and asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::aggregate::datasketches::{Hll, ThetaSketch};
use quipu::aggregate::{Aggregate, Approx, Kll, Theta, Top};
use quipu_fuzz::states::{bytes, merged};

fn is_ordered(answer: Approx) {
    assert!(answer.lower <= answer.value && answer.value <= answer.upper, "{answer:?}");
}

fn hll(image: &[u8]) {
    let Ok(mut sketch) = Hll::from_bytes(image) else { return };
    is_ordered(sketch.estimate());
    let again = Hll::from_bytes(&sketch.to_bytes()).expect("own bytes are accepted");
    assert_eq!(again.estimate(), sketch.estimate());
    let mut few = Hll::new(6).expect("an lg_k");
    (0..9).for_each(|n| few.insert_int(n));
    (0..40).for_each(|n| sketch.insert_int(n));
    few.merge(&sketch);
    sketch.merge(&again);
    is_ordered(few.estimate());
    is_ordered(sketch.estimate());
    Hll::from_bytes(&sketch.to_bytes()).expect("own bytes are accepted");
}

fn theta(image: &[u8]) {
    let Ok(mut sketch) = ThetaSketch::from_bytes(image) else { return };
    is_ordered(sketch.estimate());
    let written = sketch.to_bytes().expect("can be written");
    let again = ThetaSketch::from_bytes(&written).expect("own bytes are accepted");
    assert_eq!(again.estimate(), sketch.estimate());
    let other = if sketch.is_ours() {
        let mut state = Theta::default();
        (0..9_u64).for_each(|n| state.insert(&n.to_le_bytes()));
        ThetaSketch::try_from(&state).expect("can be read")
    } else {
        let mut other = ThetaSketch::new(6).expect("an lg_k");
        (0..9).for_each(|n| other.insert_int(n));
        other
    };
    (0..40).for_each(|n| sketch.insert_int(n));
    is_ordered(sketch.intersection(&other).expect("of one kind").estimate());
    is_ordered(other.difference(&sketch).expect("of one kind").estimate());
    sketch.merge(&other).expect("of one kind");
    is_ordered(sketch.estimate());
}

fn top(image: &[u8]) {
    let Ok(mut top) = Top::from_datasketches(image) else { return };
    assert!(top.heap_bytes() <= 4 * image.len() + (64 << 10), "memory is that of the bytes");
    assert_eq!(Top::decode(&mut bytes(&top).as_slice()).as_ref(), Ok(&top));
    let again = Top::from_datasketches(&top.to_datasketches().expect("it was such a sketch"));
    let again = again.expect("own bytes are accepted");
    assert_eq!((again.total(), again.error()), (top.total(), top.error()));
    assert!(top.error() <= top.total() / (u64::from(top.capacity()) + 1));
    top.merge(&again);
    (0..64_u8).for_each(|n| top.insert(&[b'a' + n % 26; 20][..usize::from(n % 20)], n.into()));
    assert_eq!(Top::decode(&mut bytes(&top).as_slice()), Ok(top));
}

fn kll(state: &Kll, input: &[u8]) {
    assert!(state.heap_bytes() <= 4 * input.len() + (64 << 10), "memory is that of the bytes");
    assert_eq!(Kll::decode(&mut bytes(state).as_slice()).as_ref(), Ok(state));
    state.quantiles(&[0.0, 0.3, 1.0]).expect("shares").into_iter().for_each(is_ordered);
    is_ordered(state.count_up_to(1.0));
    let mut both = merged(state, state);
    (0..500).for_each(|n| both.insert(f64::from(n)));
    is_ordered(both.median().expect("has values"));
    assert_eq!(Kll::decode(&mut bytes(&both).as_slice()), Ok(both));
}

fuzz_target!(|input: &[u8]| {
    let Some((which, rest)) = input.split_first() else { return };
    match which {
        0 => hll(rest),
        1 => theta(rest),
        2 => top(rest),
        3 => {
            if let Ok(state) = Kll::from_datasketches(rest) {
                kll(&state, rest);
            }
        }
        _ => {
            let mut left = rest;
            if let Ok(state) = Kll::decode(&mut left) {
                assert_eq!(bytes(&state), rest[..rest.len() - left.len()], "only own bytes");
                kll(&state, rest);
            }
        }
    }
});
