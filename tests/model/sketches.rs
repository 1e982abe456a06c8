//! Sketches of every kind, as a fold over what one of them would observe.
//!
//! All but `top` are functions of what was observed, in whatever order and parts: their bytes must be the
//! same. So must those of a `top` that never met more than it has room for; of another one the bounds hold.

use super::Fact;
use quipu::View;
use quipu::aggregate::{
    Aggregate, CountMin, Distinct, Membership, Quantiles, Sketches, Theta, Top,
};
use std::collections::BTreeMap;

const PRECISION: u8 = 5;
/// Of users, whom the first definition does not count so.
pub(crate) const COARSER: u8 = 4;
const SAMPLE: u16 = 64;
/// What is met is more than that.
const FEW: u32 = 4;
/// What is met is never more than that.
const MANY: u32 = 64;
const WIDTH: u32 = 16;
const DEPTH: u8 = 2;
const EXPECTED: u64 = 20;
const ONE_IN: u32 = 4;

/// What all definitions of the view of sketches have, but for buckets.
pub(crate) fn common() -> View {
    View::new("sketches")
        .by(["event"])
        .stats("value")
        .distinct_at("visitor", PRECISION)
        .theta("visitor", SAMPLE)
        .top("visitor", FEW)
        .top("user", MANY)
        .top_by("user", "value", MANY)
        .quantiles("value")
        .membership("visitor", EXPECTED, ONE_IN)
}

/// With one that another definition leaves out.
pub(super) fn with_counts(view: View) -> View {
    view.count_min("visitor", WIDTH, DEPTH)
}

/// What the sketches of some facts must say, whichever of them a definition keeps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observed {
    visitors: Distinct,
    different_users: Distinct,
    sample: Theta,
    /// How often each visitor came.
    visits: BTreeMap<String, u64>,
    users: Top,
    weighed: Top,
    values: Quantiles,
    counts: CountMin,
    seen: Membership,
}

impl Observed {
    pub(super) fn nothing() -> Self {
        Observed {
            visitors: Distinct::new(PRECISION).unwrap(),
            different_users: Distinct::new(COARSER).unwrap(),
            sample: Theta::new(SAMPLE).unwrap(),
            visits: BTreeMap::new(),
            users: Top::new(MANY).unwrap(),
            weighed: Top::new(MANY).unwrap(),
            values: Quantiles::default(),
            counts: CountMin::new(WIDTH, DEPTH).unwrap(),
            seen: Membership::new(EXPECTED, 1.0 / f64::from(ONE_IN)).unwrap(),
        }
    }

    pub(super) fn observe(&mut self, fact: &Fact) {
        if let Some(visitor) = fact.visitor() {
            self.visitors.insert(visitor.as_bytes());
            self.sample.insert(visitor.as_bytes());
            self.counts.insert(visitor.as_bytes(), fact.times).unwrap();
            self.seen.insert(visitor.as_bytes());
            *self.visits.entry(visitor).or_default() += fact.times;
        }
        if let Some(user) = fact.user() {
            self.different_users.insert(user.as_bytes());
            self.users.insert(user.as_bytes(), fact.times);
            // What is negative weighs nothing.
            let weight = fact.value.map_or(0, |value| u64::try_from(value).unwrap_or(0));
            self.weighed.insert(user.as_bytes(), weight * fact.times);
        }
        if let Some(value) = fact.value {
            self.values.insert_times(f64::from(value), fact.times);
        }
    }

    /// Compares what a view of this definition says with it.
    pub(super) fn check(&self, said: &Sketches, view: &View, what: &str) {
        for dimension in view.distinct_dimensions() {
            let want = if dimension == "user" { &self.different_users } else { &self.visitors };
            same(said.distinct(dimension), want, what);
        }
        for dimension in view.theta_dimensions() {
            same(said.theta(dimension), &self.sample, what);
        }
        for dimension in view.count_min_dimensions() {
            same(said.count_min(dimension), &self.counts, what);
        }
        for dimension in view.membership_dimensions() {
            same(said.membership(dimension), &self.seen, what);
        }
        for measure in view.quantile_measures() {
            same(said.quantiles(measure), &self.values, what);
        }
        for (dimension, by) in view.top_dimensions() {
            match (dimension, by) {
                ("user", None) => same(said.top(dimension), &self.users, what),
                ("user", Some(by)) => same(said.top_by(dimension, by), &self.weighed, what),
                _ => self.check_heavy(said.top(dimension).expect(what), what),
            }
        }
    }

    /// The bounds of a `top` beyond its capacity.
    fn check_heavy(&self, top: &Top, what: &str) {
        let all: u64 = self.visits.values().sum();
        assert_eq!((top.total(), top.capacity()), (all, FEW), "{what}");
        assert!(top.error() <= all / u64::from(FEW + 1), "{what}");
        let is_small = self.visits.len() <= FEW as usize;
        assert!(top.is_exact() || !is_small, "{what}");
        for (visitor, count) in &self.visits {
            let told = top.count_of(visitor.as_bytes());
            assert!(told.lower <= *count && *count <= told.upper, "{what}: {told:?} of {count}");
            assert!(told.is_exact() || !is_small, "{what}: {told:?}");
        }
        for heavy in top.top(usize::MAX) {
            assert!(self.visits.contains_key(&*heavy.text()), "{what}: {heavy:?} never came");
        }
    }
}

fn same<S: Aggregate>(said: Option<&S>, want: &S, what: &str) {
    let bytes = |state: &S| {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        bytes
    };
    let said = said.unwrap_or_else(|| panic!("{what}: a sketch is not there"));
    assert!(bytes(said) == bytes(want), "{what}: another state of {}", std::any::type_name::<S>());
}
