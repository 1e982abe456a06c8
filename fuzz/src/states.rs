//! What the targets that decode states share: a state's bytes, and two of them merged.

use quipu::aggregate::Aggregate;

pub fn bytes(state: &impl Aggregate) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

pub fn merged<A: Aggregate>(a: &A, b: &A) -> A {
    let mut out = a.clone();
    out.merge(b);
    out
}
