//! Few trials of each store: that what is measured is sound, and what Quipu promises.

use quipu_flips::{Left, Outcome, Plan, STORES, Trials, trials};

fn silent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Lost(_) | Outcome::Wrong(_))
}

#[test]
fn a_flipped_bit_is_never_passed_over_by_quipu_and_an_undamaged_store_has_everything() {
    let plan = Plan { records: 100, trials: 4, seed: 1 };
    let rows: Vec<Trials> = STORES
        .iter()
        .flat_map(|store| trials(*store, plan).expect("the trials are done"))
        .collect();
    for row in &rows {
        let (name, left) = (row.store.name, row.left);
        assert_eq!(row.control, Outcome::AllRight, "{name}, {left:?}, no bit flipped");
        assert_eq!(row.outcomes.len(), plan.trials, "{name}, {left:?}");
        if name == "Quipu" {
            let told: Vec<_> = row.outcomes.iter().filter(|outcome| silent(outcome)).collect();
            assert!(told.is_empty(), "{left:?}: {told:?}");
        }
    }

    // The trials do see what is lost and what is wrong where a store says nothing.
    let of = |name, left| {
        let row = rows.iter().find(|row| row.store.name == name && row.left == left);
        &row.expect("each store has two rows").outcomes
    };
    let lost = |outcome: &Outcome| matches!(outcome, Outcome::Lost(1..=100));
    assert!(of("SQLite", Left::Killed).iter().any(lost));
    assert!(of("redb", Left::Closed).contains(&Outcome::Wrong(1)));
}
