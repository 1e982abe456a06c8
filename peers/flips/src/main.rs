//! Prints what each store does when a bit of synced data is flipped. The head of `lib.rs` says how.
//!
//! ```sh
//! cargo run --release --manifest-path peers/flips/Cargo.toml           # 60 trials a row
//! cargo run --release --manifest-path peers/flips/Cargo.toml -- 1000   # as many as one likes
//! ```

use quipu_flips::{Plan, Result, STORES, table, trials};

fn main() -> Result<()> {
    let mut plan = Plan::default();
    if let Some(trials) = std::env::args().nth(1) {
        plan.trials = trials.parse().map_err(|_| format!("{trials:?} is no number of trials"))?;
    }
    // A store that panics is counted; what it prints then would stand between the lines of the
    // table.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let rows: Result<Vec<_>> = STORES.iter().map(|store| trials(*store, plan)).collect();
    std::panic::set_hook(usual);
    print!("{}", table(plan, &rows?.concat()));
    Ok(())
}
