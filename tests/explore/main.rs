//! The engine on simulated disks that fail and lose power.
//!
//! `cuts.rs` explores power cuts, and `controls.rs` shows that it sees what it is to see;
//! `faults_everywhere.rs` fails each operation, for which `untold.rs` does so. What is left is compared
//! with a model (`tests/model`, `limits.rs`). `backup.rs` and `repair.rs` do both to backups, restores,
//! repairs and openings that rebuild a snapshot (`calls.rs`). `sectors.rs` lets each sector of a log be one
//! that cannot be read, `flips.rs` each read be wrong in a bit, and `guests.rs` has a store of one's own: they
//! draw nothing, and are repeated by their names. Of what is drawn a failure prints the command that repeats
//! it. Environment:
//!
//! - `QUIPU_EXPLORE_SECONDS`: how long random scripts are explored (3)
//! - `QUIPU_EXPLORE_SEED`: the first random script (0)
//! - `QUIPU_EXPLORE_IMAGES`: how many images there must be at the least (0)
//! - `QUIPU_EXPLORE_FAULTS`: of the operations of the fixed scripts one in so many fails (20)
//! - `QUIPU_EXPLORE_CALLS`: of what cuts and faults of a backup, a restore or a repair leave one in so
//!   many is looked at (8)
//! - `QUIPU_EXPLORE_FLIPS`: in how many bits each read is wrong, one at a time (4)
//! - `QUIPU_EXPLORE`, `QUIPU_FAULT`, `QUIPU_CALL`: the place to repeat
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]
#![allow(clippy::float_cmp, reason = "sums are exact; equal is what they must be")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures, and how to repeat a failure"
)]

mod backup;
mod calls;
mod controls;
mod cuts;
mod faults;
mod faults_everywhere;
mod flips;
mod found;
mod guests;
mod limits;
mod others;
mod repair;
mod run;
mod script;
mod sectors;
#[path = "../model/mod.rs"]
mod truth;
mod untold;

use cuts::Explorer;
use quipu::simulation::Operation;
use script::Script;
use std::time::{Duration, Instant};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// What runs at a time is one thread: the figures are those of one core.
struct Pace {
    begun: Instant,
    images: u64,
}

impl Pace {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long to explore; nothing tested depends on it"
    )]
    fn begin() -> Self {
        Pace { begun: Instant::now(), images: 0 }
    }

    fn tell(&self, what: &str) {
        let (images, seconds) = (self.images, self.begun.elapsed().as_secs_f64());
        let pace = images as f64 * 60.0 / seconds;
        println!("{what}: {images} images in {seconds:.1} s, {pace:.0} a minute");
    }
}

fn explore(script: &Script, plan: &mut cuts::Plan<'_>) -> u64 {
    let mut explorer = Explorer { plan, lie: None, images: 0 };
    explorer.explore(script);
    explorer.images
}

#[test]
fn every_power_cut_is_survived() {
    let mut pace = Pace::begin();
    for script in script::fixed_scripts() {
        pace.images += explore(&script, &mut cuts::everywhere(2, 3));
    }
    pace.images += explore(&script::many_visitors(), &mut cuts::by_chance(40, 2));
    pace.tell("every operation of the fixed scripts");
    let mut recoveries = Pace::begin();
    let tail = script::named("tail");
    recoveries.images += explore(&tail, &mut cuts::recoveries(4));
    recoveries.tell("every operation of recoveries of a long tail");
    assert!(pace.images > 3_000, "{} images", pace.images);
    let seconds = Duration::from_secs(number("QUIPU_EXPLORE_SECONDS", 3));
    let mut seed = number("QUIPU_EXPLORE_SEED", 0);
    let mut random = Pace::begin();
    while random.begun.elapsed() < seconds {
        let script = script::random_script(seed);
        random.images += explore(&script, &mut cuts::by_chance(20, 2));
        random.images += faults_everywhere::survive_some(&script, 2);
        seed += 1;
    }
    random.tell(&format!("random scripts up to seed {seed}"));
    let least = number("QUIPU_EXPLORE_IMAGES", 0);
    assert!(
        pace.images + recoveries.images + random.images >= least,
        "at least {least} images were asked for"
    );
}

/// Every operation with what it is done to, of a run of all the scripts.
fn trace() -> Vec<Operation> {
    let scripts = script::fixed_scripts().into_iter().chain([script::random_script(5)]);
    scripts.flat_map(|script| faults_everywhere::operations(&script)).collect()
}

#[test]
fn the_same_script_does_the_same_operations() {
    let (first, second) = (trace(), trace());
    assert!(first.len() > 1_000, "{}", first.len());
    let differs = first.iter().zip(&second).find(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(first.len(), second.len());
    // The hashes of another process have other seeds.
    if std::env::var("QUIPU_TRACE").is_ok() {
        println!("digest {:016x}", digest(&first));
        return;
    }
    let me = std::env::current_exe().unwrap();
    let mut other = std::process::Command::new(me);
    other.args(["the_same_script", "--nocapture"]).env("QUIPU_TRACE", "1");
    let told = String::from_utf8(other.output().unwrap().stdout).unwrap();
    assert!(told.contains(&format!("digest {:016x}", digest(&first))), "{told}");
}

/// FNV-1a of what the operations are called.
fn digest(trace: &[Operation]) -> u64 {
    cuts::digest(&format!("{trace:?}"))
}

/// Goes to one place: `QUIPU_EXPLORE='SCRIPT:CUTS'`.
#[test]
fn repeat() {
    let Ok(place) = std::env::var("QUIPU_EXPLORE") else { return };
    let (name, path) = place.split_once(':').expect("SCRIPT:CUTS");
    let script = script::named(name);
    println!("{script:#?}");
    explore(&script, &mut cuts::at(path.parse().expect("cuts")));
}
