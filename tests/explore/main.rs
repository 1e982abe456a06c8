//! The engine on simulated disks that fail and lose power.
//!
//! `cuts.rs` explores power cuts, `faults_everywhere.rs` fails each operation, `controls.rs` shows
//! that both see what they are to see. A failure prints the command that repeats it. Environment:
//!
//! - `QUIPU_EXPLORE_SECONDS`: how long random scripts are explored (3)
//! - `QUIPU_EXPLORE_SEED`: the first random script (0)
//! - `QUIPU_EXPLORE_IMAGES`: how many images there must be at the least (0)
//! - `QUIPU_EXPLORE`: the place that the test `repeat` goes to
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]
#![allow(clippy::float_cmp, reason = "sums are exact; equal is what they must be")]

mod controls;
mod cuts;
mod faults;
mod run;
mod script;
#[path = "../model/mod.rs"]
mod truth;

use cuts::Explorer;

#[test]
fn every_power_cut_of_the_fixed_scripts_is_survived() {
    for script in script::fixed_scripts() {
        let clock = std::time::Instant::now();
        let mut explorer = Explorer { plan: &mut cuts::everywhere(2, 8), lie: None, images: 0 };
        explorer.explore(&script);
        println!("{}: {} images {:?}", script.name, explorer.images, clock.elapsed());
    }
}

#[test]
fn repeat() {
    let Ok(place) = std::env::var("QUIPU_EXPLORE") else { return };
    let (name, path) = place.split_once(':').expect("SCRIPT:CUTS");
    let script = match name.parse() {
        Ok(seed) => script::random_script(seed),
        Err(_) => script::fixed_scripts().into_iter().find(|s| s.name == name).expect("a script"),
    };
    println!("{script:#?}");
    let mut plan = cuts::at(path.parse().expect("cuts"));
    Explorer { plan: &mut plan, lie: None, images: 0 }.explore(&script);
}
