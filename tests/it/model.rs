//! The engine against a model: a list of events and a fold over it.
//!
//! The law that tests everything: snapshot + tail == full replay == model.

use proptest::prelude::*;
use quipu::{Dedup, ErrorKind, Options, TestClock, Timestamp};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

#[path = "../model/mod.rs"]
mod truth;
use truth::{Fact, Model, NOW, VIEWS, minute, view, with_event};

#[derive(Clone, Debug)]
enum Op {
    Record(Vec<Fact>),
    Single(Fact),
    Checkpoint,
    Close,
    /// The directory as another process would find it if this one was killed now.
    Kill,
    Define(usize),
    Drop(usize),
    Backfill(usize),
    Ask(u8),
    Check,
}

fn fact() -> impl Strategy<Value = Fact> {
    (
        prop_oneof![Just("sale"), Just("cancel")],
        prop::option::of(0_u8..24),
        prop::option::weighted(0.8, 0_u8..12),
        prop::option::weighted(0.8, -500..500_i32),
        (-20_000..20_000_i32, prop_oneof![6 => Just(0), 1 => 1..400_u16]),
        prop::option::weighted(0.3, any::<u8>()),
        (prop::option::weighted(0.8, 0_u16..400), prop_oneof![6 => Just(1), 1 => 2..9_u64]),
    )
        .prop_map(|(name, user, product, value, (at, about), id, (visitor, times))| Fact {
            name,
            user,
            product,
            visitor,
            value,
            time: minute(at),
            about,
            times,
            id,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec(fact(), 0..60).prop_map(Op::Record),
        4 => fact().prop_map(Op::Single),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => (0_usize..VIEWS).prop_map(Op::Define),
        1 => (0_usize..VIEWS).prop_map(Op::Drop),
        2 => (0_usize..VIEWS).prop_map(Op::Backfill),
        2 => any::<u8>().prop_map(Op::Ask),
        1 => Just(Op::Check),
    ]
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    // First, so that it names no segment that is made after the log was copied.
    let _ = std::fs::copy(from.join("MANIFEST"), to.join("MANIFEST"));
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_name() == "MANIFEST" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            // A file may be renamed or removed by the background between the listing and this.
            let _ = std::fs::copy(entry.path(), target);
        }
    }
}

fn run(ops: &[Op], budget: usize) {
    let root = tempfile::tempdir().unwrap();
    let mut generation = 0;
    let mut path = root.path().join("db0");
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let open = |path: &Path| {
        Options::new()
            .clock(clock.clone())
            .memory_budget(budget)
            .segment_bytes(64 << 10)
            .checkpoint_every(std::time::Duration::from_hours(1))
            .dedup(Dedup::Last(1_000))
            .open(path)
            .unwrap()
    };
    let mut db = open(&path);
    let mut model = Model::default();
    let mut ids = BTreeSet::new();
    let record = |model: &mut Model, ids: &mut BTreeSet<u8>, fact: &Fact| {
        let new = fact.id.is_none_or(|id| ids.insert(id));
        model.facts.extend(new.then(|| fact.clone()));
        new
    };
    for op in ops {
        match op {
            Op::Record(facts) => {
                let mut batch = db.batch();
                for fact in facts {
                    with_event(fact, |event| batch.push(event)).unwrap();
                }
                let outcome = db.record_batch(&mut batch).unwrap();
                let accepted =
                    facts.iter().filter(|fact| record(&mut model, &mut ids, fact)).count() as u64;
                assert_eq!(outcome.recorded, accepted);
                assert_eq!(outcome.duplicates, facts.len() as u64 - accepted);
            }
            Op::Single(fact) => {
                let recorded = with_event(fact, |event| db.record(event)).unwrap();
                assert_eq!(recorded.duplicate, !record(&mut model, &mut ids, fact));
            }
            Op::Checkpoint => db.checkpoint().unwrap(),
            Op::Close => {
                db.close().unwrap();
                db = open(&path);
            }
            Op::Kill => {
                generation += 1;
                let copy = root.path().join(format!("db{generation}"));
                copy_dir(&path, &copy);
                db = open(&copy);
                path = copy;
            }
            Op::Define(which) => {
                let new = db.define(view(*which)).unwrap();
                assert_eq!(new, !model.defined.contains_key(which));
                model.defined.entry(*which).or_insert(model.facts.len());
            }
            Op::Drop(which) => {
                let dropped = db.drop_view(view(*which).name());
                assert_eq!(dropped.is_ok(), model.defined.remove(which).is_some());
            }
            Op::Backfill(which) => {
                let result = db.backfill(view(*which).name(), |_| ControlFlow::Continue(()));
                match model.defined.get_mut(which) {
                    Some(from) => {
                        result.unwrap();
                        *from = 0;
                    }
                    None => assert_eq!(result.unwrap_err().kind(), ErrorKind::UnknownView),
                }
            }
            Op::Ask(user) => {
                if model.defined.contains_key(&0) {
                    let user = format!("u{}", user % 24);
                    let row = db.query("by_user").unwrap().get(&[&user]).unwrap();
                    let count = row.map(|row| row.count);
                    assert_eq!(count, model.expected(0).get(&vec![user]).map(|row| row.count));
                }
            }
            Op::Check => model.check(&db).unwrap(),
        }
    }
    model.check(&db).unwrap();
    db.close().unwrap();
    model.check(&open(&path)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_a_model(
        first in prop::collection::vec((0_usize..VIEWS).prop_map(Op::Define), 1..5),
        ops in prop::collection::vec(op(), 1..40),
        budget in prop_oneof![Just(0_usize), Just(6_000), Just(1 << 30)],
    ) {
        let ops: Vec<Op> = first.into_iter().chain(ops).collect();
        run(&ops, budget);
    }
}
