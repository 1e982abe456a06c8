//! Other devices, and what they have told: bundles with gaps and overlaps.

use crate::script::{Setup, facts};
use crate::truth::{Fact, with_event};
use quipu::simulation::{Random, SimulatedDisk, Stepped};
use quipu::{Bundle, Cursor, Durability};
use std::sync::OnceLock;

/// How many devices there are, and how many bundles of each.
pub(crate) const DEVICES: usize = 2;
pub(crate) const BUNDLES: usize = 3;

/// A bundle, and the facts of its frames by their position on the device.
pub(crate) struct Told {
    pub(crate) bundle: Bundle,
    pub(crate) frames: Vec<Vec<(u64, Fact)>>,
}

pub(crate) fn told(device: usize, which: usize) -> &'static Told {
    static TOLD: OnceLock<Vec<Told>> = OnceLock::new();
    let all = TOLD.get_or_init(|| (0..DEVICES).flat_map(|device| tell(device as u64)).collect());
    &all[device * BUNDLES + which]
}

/// The bundles of a device, which records some frames.
fn tell(device: u64) -> Vec<Told> {
    let setup = Setup::plain();
    // Its replica's number is of no disk that a script runs on: those are seeded by small numbers.
    let disk = SimulatedDisk::new(u64::MAX - device);
    let engine = Stepped::open(setup.options(&Setup::clock(0)), &disk, "other").expect("opens");
    let db = engine.db();
    let random = &mut Random::new(700 + device);
    let mut frames = Vec::new();
    let mut cursors = vec![Cursor::beginning()];
    for n in [20, 7, 1, 30] {
        let mut batch = db.batch();
        let first = db.position().get() + 1;
        let frame: Vec<(u64, Fact)> = (first..).zip(facts(random, n)).collect();
        for (_, fact) in &frame {
            with_event(fact, |event| batch.push(event)).expect("is valid");
        }
        db.record_batch_with(&mut batch, Durability::Memory).expect("records");
        frames.push(frame);
        cursors.push(db.cursor());
    }
    // The end, all, and the beginning.
    [(2, u64::MAX), (0, u64::MAX), (0, 1)]
        .into_iter()
        .map(|(from, bytes)| {
            let bundle = db.export_some(&cursors[from], bytes).expect("is told");
            let events = bundle.events() as usize;
            let mut there = 0;
            let frames = frames[from..].iter().take_while(|frame| {
                there += frame.len();
                there <= events
            });
            Told { frames: frames.cloned().collect(), bundle }
        })
        .collect()
}
