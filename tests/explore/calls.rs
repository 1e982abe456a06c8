//! One long call on a disk (a backup, a restore, a repair, an opening that puts something aside), cut
//! and failed everywhere.
//!
//! The call is made once from a disk prepared for it. Before each operation of it that changes
//! something the power fails, in several ways, or the process is killed; and each operation of it
//! fails, with what that leaves. Each time the call is made again, must succeed, and is cut in its
//! turn, some places by chance.
//!
//! Places are numbered, and what is done at one depends on its number alone: so one can be gone to by itself.

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

/// Tells which place it was, and how to go there again.
struct Tell<'a> {
    place: String,
    /// The call and the number of the place that it began with.
    call: &'a str,
    number: u64,
}

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            eprintln!(
                "{}: {}\nrepeat it by\n  QUIPU_CALL='{}:{}' cargo test --features simulation --test \
                 explore {} -- --nocapture",
                self.call,
                self.place,
                self.call,
                self.number,
                thread.name().unwrap_or_default()
            );
        }
    }
}

/// Of the interrupted calls one in so many is interrupted again when it is repeated.
const AGAIN_ONE_IN: u64 = 3;

/// The places of a call, in their order.
struct Places<'a> {
    call: &'a str,
    next: u64,
    one_in: u64,
    /// The call and the only place to go to.
    only: Option<(String, u64)>,
}

impl<'a> Places<'a> {
    fn of(call: &'a str) -> Self {
        let only = std::env::var("QUIPU_CALL").ok().map(|place| {
            let (call, number) = place.rsplit_once(':').expect("CALL:PLACE");
            (call.to_owned(), number.parse().expect("the number of a place"))
        });
        Places { call, next: 0, one_in: number("QUIPU_EXPLORE_CALLS", 8), only }
    }

    /// What the disks of the next places are drawn with.
    fn draw(&self) -> Random {
        Random::new(cuts::digest(&format!("{} from {}", self.call, self.next)))
    }

    /// Whether one of the next so many is gone to at all; if not, they are passed over.
    fn has_any(&mut self, many: u64) -> bool {
        let is_in = |only: &(String, u64)| {
            only.0 == self.call && (self.next..self.next + many).contains(&only.1)
        };
        let has = self.only.as_ref().is_none_or(is_in);
        self.next += if has { 0 } else { many };
        has
    }

    /// The next place, if it is gone to; `always`: it is no matter of chance.
    fn next(&mut self, place: String, always: bool) -> Option<(Tell<'a>, Random)> {
        let (call, number) = (self.call, self.next);
        self.next += 1;
        let mut random = Random::new(cuts::digest(&format!("{call}:{number}")));
        let by_chance = random.one_in(self.one_in) || always;
        let goes = self.only.as_ref().map_or(by_chance, |only| only.0 == call && only.1 == number);
        goes.then_some((Tell { place, call, number }, random))
    }
}

impl<S> Call<'_, S> {
    /// Cuts and fails the call from this disk on, one place in `QUIPU_EXPLORE_CALLS`.
    pub(crate) fn everywhere(&self, disk: &SimulatedDisk) {
        let mut pace = Pace::begin();
        let mut places = Places::of(self.name);
        let (done, moments, operations) = self.run(disk);
        for (end, disk) in ends(&done, &mut places.draw()) {
            if let Some((_tell, _)) = places.next(format!("done, then {end}"), true) {
                (self.complete)(&disk);
            }
        }
        for (op, moment) in &moments {
            if !places.has_any(ENDS) {
                continue;
            }
            for (end, disk) in ends(moment, &mut places.draw()) {
                if let Some((tell, mut random)) = places.next(format!("{end} before {op:?}"), false)
                {
                    self.examine(tell, &disk, &mut random, &mut pace.images, 0);
                }
            }
        }
        for at in operations.into_iter().filter(|op| !(self.spared)(op)).map(|op| op.number) {
            if !places.has_any(ENDS + 1) {
                continue;
            }
            let mut random = places.draw();
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
                let place = format!("operation {at}: {error:?}, then {end}");
                let Some((tell, mut random)) = places.next(place, false) else { continue };
                if result.is_ok() {
                    (self.complete)(&disk);
                } else {
                    self.examine(tell, &disk, &mut random, &mut pace.images, 0);
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
        mut tell: Tell<'_>,
        image: &SimulatedDisk,
        random: &mut Random,
        images: &mut u64,
        depth: u64,
    ) {
        *images += 1;
        (self.interrupted)(&image.kill());
        let (done, moments, _) = self.run(image);
        (self.complete)(&done);
        (self.complete)(&done.power_cut(Survival::None));
        if depth < 2 && !moments.is_empty() && random.one_in(AGAIN_ONE_IN) {
            let (op, moment) = &moments[random.below(moments.len() as u64) as usize];
            let mut ends = ends(moment, random);
            let (end, disk) = ends.swap_remove(random.below(ends.len() as u64) as usize);
            tell.place = format!("{}\n  then {end} before {op:?}", tell.place);
            self.examine(tell, &disk, random, images, depth + 1);
        }
    }
}

const ERRORS: [io::ErrorKind; 2] = [io::ErrorKind::Other, io::ErrorKind::StorageFull];

/// How many ends of a process are looked at.
const ENDS: u64 = 5;

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
    .collect::<Vec<_>>()
}
