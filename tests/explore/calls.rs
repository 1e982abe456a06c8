//! One long call on a disk (a backup, a restore, a repair, an opening that puts something aside), cut
//! and failed everywhere.
//!
//! The call is made once from a disk prepared for it. Before each operation of it that changes
//! something the power fails, in several ways, or the process is killed; and each operation of it
//! fails, with what that leaves. Each time the call is made again, must succeed, and is cut in its
//! turn, some places by chance.

use crate::{Pace, cuts, number};
use quipu::Error;
use quipu::simulation::{Fault, Operation, Random, SimulatedDisk, Survival};
use std::io;
use std::sync::{Arc, Mutex};

/// What is cut. `S` is what the call is made on, say an engine that was opened before.
pub(crate) struct Call<'a, S> {
    pub(crate) name: &'a str,
    /// Is there before the call, and what it does to the disk is not cut.
    pub(crate) prepare: &'a dyn Fn(&SimulatedDisk) -> S,
    pub(crate) make: &'a dyn Fn(&S, &SimulatedDisk) -> Result<(), Error>,
    /// Operations that do not fail.
    pub(crate) spared: &'a dyn Fn(&Operation) -> bool,
    /// What must hold of a disk on which the call was not completed.
    pub(crate) interrupted: &'a dyn Fn(&SimulatedDisk),
    /// What must hold of a disk on which it was.
    pub(crate) complete: &'a dyn Fn(&SimulatedDisk),
}

type Moments = Vec<(Operation, SimulatedDisk)>;

/// Tells which place it was.
struct Tell(String);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Of the interrupted calls one in so many is interrupted again when it is repeated.
const AGAIN_ONE_IN: u64 = 3;

impl<S> Call<'_, S> {
    /// Cuts and fails the call from this disk on, one place in `QUIPU_EXPLORE_CALLS`.
    pub(crate) fn everywhere(&self, disk: &SimulatedDisk) {
        let one_in = number("QUIPU_EXPLORE_CALLS", 8);
        let mut pace = Pace::begin();
        let mut random = Random::new(cuts::digest(self.name));
        let mut image = |place: String, image: &SimulatedDisk, random: &mut Random| {
            if random.one_in(one_in) {
                self.examine(place, image, random, &mut pace.images, 0);
            }
        };
        let (done, moments, operations) = self.run(disk);
        for (end, disk) in ends(&done, &mut random) {
            let _tell = Tell(format!("{}: done, then {end}", self.name));
            (self.complete)(&disk);
        }
        for (op, moment) in &moments {
            for (end, disk) in ends(moment, &mut random) {
                image(format!("{}: {end} before {op:?}", self.name), &disk, &mut random);
            }
        }
        for at in operations.into_iter().filter(|op| !(self.spared)(op)).map(|op| op.number) {
            let error = ERRORS[random.below(2) as usize];
            let run = disk.kill();
            let made_on = (self.prepare)(&run);
            run.plan(move |op| (op.number == at).then_some(Fault::Error(error)));
            let result = (self.make)(&made_on, &run);
            run.heal();
            let mut ends = ends(&run, &mut random);
            drop(made_on);
            ends.push(("closed".to_owned(), run));
            for (end, disk) in ends {
                let place = format!("{}: operation {at}: {error:?}, then {end}", self.name);
                if result.is_ok() && random.one_in(one_in) {
                    let _tell = Tell(place);
                    (self.complete)(&disk);
                } else {
                    image(place, &disk, &mut random);
                }
            }
        }
        pace.tell(self.name);
    }

    /// Makes the call; gives the disk behind it, its moments, and its operations.
    fn run(&self, disk: &SimulatedDisk) -> (SimulatedDisk, Moments, Vec<Operation>) {
        let run = disk.kill();
        let made_on = (self.prepare)(&run);
        let operations = Arc::new(Mutex::new(Vec::new()));
        let kept = operations.clone();
        run.plan(move |op| {
            kept.lock().unwrap().push(op.clone());
            None
        });
        run.keep_moments();
        (self.make)(&made_on, &run).expect("nothing is in its way");
        run.heal();
        let operations = std::mem::take(&mut *operations.lock().unwrap());
        (run.kill(), run.moments(), operations)
    }

    fn examine(
        &self,
        place: String,
        image: &SimulatedDisk,
        random: &mut Random,
        images: &mut u64,
        depth: u64,
    ) {
        *images += 1;
        let tell = Tell(place);
        (self.interrupted)(&image.kill());
        let (done, moments, _) = self.run(image);
        (self.complete)(&done);
        (self.complete)(&done.power_cut(Survival::None));
        if depth < 2 && !moments.is_empty() && random.one_in(AGAIN_ONE_IN) {
            let (op, moment) = &moments[random.below(moments.len() as u64) as usize];
            let mut ends = ends(moment, random);
            let (end, disk) = ends.swap_remove(random.below(ends.len() as u64) as usize);
            let place = format!("{}\n  then {end} before {op:?}", tell.0);
            self.examine(place, &disk, random, images, depth + 1);
        }
    }
}

const ERRORS: [io::ErrorKind; 2] = [io::ErrorKind::Other, io::ErrorKind::StorageFull];

/// What the ends of a process leave of a disk.
fn ends(disk: &SimulatedDisk, random: &mut Random) -> Vec<(String, SimulatedDisk)> {
    let seeds = [random.number(), random.number()];
    let some = seeds.map(|seed| (format!("cut {seed}"), disk.power_cut(Survival::Some(seed))));
    [
        ("a kill".to_owned(), disk.kill()),
        ("a cut that leaves nothing".to_owned(), disk.power_cut(Survival::None)),
        ("a cut that leaves all".to_owned(), disk.power_cut(Survival::All)),
    ]
    .into_iter()
    .chain(some)
    .collect()
}
