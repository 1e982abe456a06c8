//! Controls of the run of faults: a fault that nobody is told of is one that an engine swallowed, and the run
//! must find that something was lost.

use crate::faults_everywhere::{operations, suffer};
use crate::script;
use quipu::simulation::{Fault, Operation, OperationKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Swallows, one in each run, such operations of the scripts; gives in how many runs there were, and what the
/// first violation says.
fn found(which: fn(&Operation) -> bool) -> (u64, Option<String>) {
    let mut runs = 0;
    for script in script::fixed_scripts() {
        for op in operations(&script).iter().filter(|op| which(op)) {
            runs += 1;
            let run = || suffer(&script, op.number, Fault::Lie);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                return (runs, text);
            }
        }
    }
    (runs, None)
}

#[track_caller]
fn is_caught(which: fn(&Operation) -> bool, expected: &[&str]) {
    let (runs, found) = found(which);
    let found = found.unwrap_or_else(|| panic!("none of {runs} is seen"));
    assert!(expected.iter().any(|text| found.contains(text)), "found for another reason: {found}");
}

fn is_of(op: &Operation, end: &str) -> bool {
    op.path.to_string_lossy().ends_with(end)
}

const LOST: &str = "had been acknowledged as durable";
const NO_OPENING: &str = "it cannot be opened";

#[test]
fn a_failed_sync_of_the_log_that_is_swallowed_is_caught() {
    let is_it = |op: &Operation| op.kind == OperationKind::Sync && is_of(op, ".qlog");
    is_caught(is_it, &[LOST, NO_OPENING]);
}

#[test]
fn a_failed_write_of_the_snapshot_that_is_swallowed_is_caught() {
    let is_it = |op: &Operation| op.kind == OperationKind::Write && is_of(op, "state.redb");
    is_caught(is_it, &[NO_OPENING, "damaged", "is read otherwise", "left == right"]);
}

/// As where a full disk is not told of.
#[test]
fn a_failed_write_of_the_log_that_is_swallowed_is_caught() {
    let is_it = |op: &Operation| op.kind == OperationKind::Write && is_of(op, ".qlog");
    is_caught(is_it, &[LOST, NO_OPENING, "left == right"]);
}
