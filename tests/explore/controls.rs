//! Controls: the exploration sees what it is to see. Each breaks one rule that the engine relies
//! on, and the exploration must find that something was lost.
//!
//! A rule is broken by the disk, which says that it did a thing and did not: to the engine that is
//! the same as an engine that forgot it. Where no disk can lie it is the model that says something else
//! than what was recorded: to the comparison that is the same as an engine that does.

use crate::cuts::{self, Explorer, Lie};
use crate::script::{self, Act, Setup};
use crate::truth::{Fact, Model, SKETCHES, view, with_event};
use quipu::simulation::{Operation, OperationKind, Random, SimulatedDisk, Stepped};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn file(op: &Operation) -> String {
    op.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_sync_of(op: &Operation, end: &str) -> bool {
    op.kind == OperationKind::Sync && file(op).ends_with(end)
}

/// What a violation says; `None` where the exploration finds none.
fn found(lie: Lie) -> Option<String> {
    script::fixed_scripts().iter().find_map(|script| {
        let mut plan = cuts::everywhere(2, 8);
        let mut explorer = Explorer { plan: &mut plan, lie: Some(lie), images: 0 };
        let panic = catch_unwind(AssertUnwindSafe(|| explorer.explore(script))).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap())
    })
}

#[track_caller]
fn is_caught(lie: Lie, expected: &[&str]) {
    let found = found(lie).expect("the exploration sees it");
    assert!(expected.iter().any(|text| found.contains(text)), "found for another reason: {found}");
}

const LOST: &str = "had been acknowledged as durable";
const OPENING: &str = "it cannot be opened";
const UNFILLED: &str = "a backfill acknowledged as complete is not";
const REBUILT: &str = "the log had to stand in for a damaged snapshot";

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    is_caught(|op, _| op.kind == OperationKind::Sync, &[LOST, OPENING, UNFILLED, REBUILT]);
}

#[test]
fn a_log_that_is_not_synced_is_caught() {
    is_caught(|op, _| is_sync_of(op, ".qlog"), &[LOST, OPENING, UNFILLED]);
}

#[test]
fn a_snapshot_that_is_not_synced_is_caught() {
    is_caught(|op, _| is_sync_of(op, ".redb"), &[LOST, OPENING, UNFILLED, REBUILT]);
}

#[test]
fn a_new_snapshot_that_is_not_synced_is_caught() {
    is_caught(|op, _| is_sync_of(op, ".redb.new"), &[OPENING, REBUILT]);
}

#[test]
fn a_manifest_that_is_not_synced_is_caught() {
    is_caught(|op, _| is_sync_of(op, "MANIFEST.new"), &[OPENING]);
}

#[test]
fn a_new_segment_that_is_not_synced_is_caught() {
    let unsynced: Lie = |op, _| is_sync_of(op, ".new") && op.path.starts_with("db/log");
    is_caught(unsynced, &[LOST, OPENING, UNFILLED]);
}

#[test]
fn a_directory_that_is_not_synced_is_caught() {
    is_caught(|op, _| op.kind == OperationKind::SyncDir, &[LOST, OPENING, UNFILLED]);
}

#[test]
fn the_directory_of_the_log_not_synced_is_caught() {
    is_caught(
        |op, _| op.kind == OperationKind::SyncDir && file(op) == "log",
        &[LOST, OPENING, UNFILLED],
    );
}

#[test]
fn the_main_directory_not_synced_is_caught() {
    is_caught(
        |op, _| op.kind == OperationKind::SyncDir && file(op) == "db",
        &[LOST, OPENING, UNFILLED],
    );
}

#[test]
fn a_checkpoint_that_does_not_sync_the_log_first_is_caught() {
    is_caught(
        |op, act| matches!(act, Act::Checkpoint) && is_sync_of(op, ".qlog"),
        &[LOST, OPENING, UNFILLED],
    );
}

/// The engine after some facts, and what a model says of it that `changed` its facts.
fn compared(which: usize, change: impl Fn(&mut Fact)) -> Option<String> {
    let setup = Setup::plain();
    let engine = Stepped::open(setup.options(&Setup::clock(0)), &SimulatedDisk::new(1), "db");
    let engine = engine.unwrap();
    let db = engine.db();
    db.define(view(which)).unwrap();
    let mut facts = script::facts(&mut Random::new(7), 40);
    for fact in &facts {
        with_event(fact, |event| db.record(event)).unwrap();
    }
    change(&mut facts[20]);
    let model = Model { facts, defined: BTreeMap::from([(which, 0)]), ..Model::default() };
    let panic = catch_unwind(AssertUnwindSafe(|| model.check(db).unwrap())).err()?;
    Some(panic.downcast_ref::<String>().expect("it says what").clone())
}

#[test]
fn a_sketch_of_other_facts_is_caught() {
    assert_eq!(compared(SKETCHES, |_| ()), None);
    let another = |change: fn(&mut Fact)| compared(SKETCHES, change).expect("it is seen");
    let found = another(|fact| fact.visitor = Some(1_000));
    assert!(found.contains("another state of quipu::aggregate::distinct"), "{found}");
    let found = another(|fact| fact.user = Some(100));
    assert!(found.contains("another state of quipu::aggregate::top"), "{found}");
}
