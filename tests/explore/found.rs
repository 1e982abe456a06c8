//! What the exploration found, each made small.

use quipu::simulation::{SimulatedDisk, Stepped, Survival};
use quipu::{Durability, Event, Options, TestClock};

fn options() -> Options {
    Options::new().clock(TestClock::default()).durability(Durability::Sync).tiny_segments(4_096)
}

/// Names that a process made, and did not live to sync, are in the page cache: whoever finds them
/// and builds upon them has to sync them first.
#[test]
fn names_that_a_killed_process_left_are_made_durable() {
    let disk = SimulatedDisk::new(1);
    disk.keep_moments();
    let engine = Stepped::open(options(), &disk, "a/b/db").unwrap();
    engine.db().record(&Event::new("e")).unwrap();
    drop(engine);
    let moments = disk.moments();
    assert!(moments.len() > 20);
    for (operation, moment) in moments {
        let killed = moment.kill();
        killed.keep_moments();
        let engine = Stepped::open(options(), &killed, "a/b/db").unwrap();
        let position = engine.db().record(&Event::new("e")).unwrap().position;
        let cut = killed.power_cut(Survival::None);
        let after = Stepped::open(options(), &cut, "a/b/db").unwrap();
        assert_eq!(after.db().position(), position, "killed before {operation:?}");
        // And while that opening is at it.
        for (again, moment) in killed.moments() {
            for survival in [Survival::None, Survival::Some(operation.number), Survival::All] {
                let opened = Stepped::open(options(), &moment.power_cut(survival), "a/b/db");
                assert!(opened.is_ok(), "{opened:?}: {operation:?}, then {again:?}");
            }
        }
    }
}
