//! Every operation of the scripts fails once: the caller is told or it does not matter, reading goes
//! on, and nothing acknowledged as durable is lost, by whatever end the process comes to.

use crate::cuts::{self, Explorer};
use crate::run::{History, Mark, Run, Weather};
use crate::script::{self, Script};
use crate::{Pace, number};
use quipu::simulation::{Fault, Operation, OperationKind, Random, SimulatedDisk, Survival};
use std::io;
use std::sync::{Arc, Mutex};

/// The operations of a run in which nothing fails.
pub(crate) fn operations(script: &Script) -> Vec<Operation> {
    let operations = Arc::new(Mutex::new(Vec::new()));
    let kept = operations.clone();
    let disk = SimulatedDisk::new(1);
    disk.plan(move |op| {
        kept.lock().unwrap().push(op.clone());
        None
    });
    let mut run = open(script, &disk, Weather::Fair).unwrap();
    for act in &script.acts {
        run.act(act).unwrap();
    }
    run.end();
    std::mem::take(&mut *operations.lock().unwrap())
}

fn open<'a>(
    script: &'a Script,
    disk: &SimulatedDisk,
    weather: Weather,
) -> Result<Run<'a>, quipu::Error> {
    Run::open(&script.setup, disk, History::new(), &Mark::default(), weather)
}

struct Tell<'a>(&'a Script, u64, io::ErrorKind);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat it by\n  QUIPU_FAULT='{}:{}:{:?}' cargo test --features simulation --test \
                 explore a_fault_to_repeat -- --nocapture",
                self.0.name, self.1, self.2
            );
        }
    }
}

/// Runs a script of which one operation fails; gives the number of images looked at.
fn survive(script: &Script, number: u64, error: io::ErrorKind) -> u64 {
    let tell = Tell(script, number, error);
    let images = suffer(script, number, Fault::Error(error));
    drop(tell);
    images
}

/// Runs a script of which one operation has a fault, and looks at what every end leaves.
pub(crate) fn suffer(script: &Script, number: u64, fault: Fault) -> u64 {
    let disk = SimulatedDisk::new(number);
    disk.plan(move |op| (op.number == number).then_some(fault));
    let mut run = match open(script, &disk, Weather::Foul) {
        Ok(run) => run,
        Err(_) => open(script, &disk, Weather::Foul).expect("it was one fault"),
    };
    for act in &script.acts {
        if run.act(act).is_err() {
            // Whatever it was, what is known is still told; and the caller tries again.
            run.check().expect("reading goes on");
            let _ = run.act(act);
        }
    }
    let (history, bounds) = run.expectation();
    let ends = [
        disk.kill(),
        disk.power_cut(Survival::None),
        disk.power_cut(Survival::All),
        disk.power_cut(Survival::Some(number)),
    ];
    run.end();
    let mut explorer = Explorer { plan: &mut cuts::by_chance(1, 2), lie: None, images: 0 };
    for (n, end) in ends.iter().chain([&disk]).enumerate() {
        explorer.go_on(script, &format!("fault {number} {fault:?} {n}"), end, &history, &bounds);
    }
    explorer.images
}

/// Fails so many operations by chance, each in a run of its own.
pub(crate) fn survive_some(script: &Script, faults: u64) -> u64 {
    let operations = operations(script);
    let mut random = Random::new(cuts::digest(&script.name));
    let mut images = 0;
    for _ in 0..faults {
        let op = &operations[random.below(operations.len() as u64) as usize];
        images += survive(script, op.number, ERRORS[random.below(2) as usize]);
    }
    images
}

const ERRORS: [io::ErrorKind; 2] = [io::ErrorKind::Other, io::ErrorKind::StorageFull];

/// The errors that an operation can end in: what asks for no room finds enough of it.
fn errors_of(kind: OperationKind) -> &'static [io::ErrorKind] {
    use OperationKind::{Exists, Len, List, Lock, Open, Read, Remove};
    match kind {
        List | Exists | Open | Remove | Lock | Len | Read => &ERRORS[..1],
        _ => &ERRORS,
    }
}

#[test]
fn one_fault_anywhere_costs_nothing_acknowledged() {
    let mut pace = Pace::begin();
    let step = number("QUIPU_EXPLORE_FAULTS", 20);
    let scripts = script::fixed_scripts();
    // By as many threads as a small machine has, each with every other script.
    let some = |first: usize| {
        let mut images = 0;
        for (n, script) in scripts.iter().enumerate().skip(first).step_by(2) {
            for op in operations(script) {
                // A sync that fails is the worst there is.
                let always = op.kind == OperationKind::Sync;
                if always || (op.number + n as u64).is_multiple_of(step) {
                    let errors = errors_of(op.kind).iter();
                    images += errors.map(|error| survive(script, op.number, *error)).sum::<u64>();
                }
            }
        }
        images
    };
    pace.images = std::thread::scope(|scope| {
        let other = scope.spawn(|| some(1));
        some(0) + other.join().expect("it is told above which fault was not survived")
    });
    pace.tell("faults in the fixed scripts");
}

#[test]
fn a_fault_to_repeat() {
    let Ok(place) = std::env::var("QUIPU_FAULT") else { return };
    let [name, number, error] = place.split(':').collect::<Vec<_>>()[..] else {
        panic!("SCRIPT:OPERATION:ERROR")
    };
    let script = script::named(name);
    let number = number.parse().unwrap();
    println!("{script:#?}\n{:#?}", operations(&script).iter().find(|op| op.number == number));
    let error = ERRORS.into_iter().find(|kind| format!("{kind:?}") == error).unwrap();
    survive(&script, number, error);
}

#[test]
fn short_and_interrupted_transfers_change_nothing() {
    for script in script::fixed_scripts() {
        let disk = SimulatedDisk::new(1);
        let mut random = Random::new(1);
        disk.plan(move |op| {
            let transfer = matches!(op.kind, OperationKind::Read | OperationKind::Write);
            match random.below(4) {
                0 if transfer => Some(Fault::Short),
                1 if transfer => Some(Fault::Error(io::ErrorKind::Interrupted)),
                _ => None,
            }
        });
        let mut run = open(&script, &disk, Weather::Fair).unwrap();
        for act in &script.acts {
            run.act(act).unwrap();
            run.check().unwrap();
        }
        run.end();
    }
}
