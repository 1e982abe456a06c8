//! What tiny-counter promises in public, asked of the adapter: as tables of cases, and as scripts drawn
//! by chance that run on both.
//!
//! `peers/README.md` says what was taken over, what was not, and which values were put right.
//!
//! Next: `words.rs`.
#![allow(missing_docs, reason = "tests are documented by their names")]
#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

mod words;

mod stores;

mod model;

mod cases;
mod differential;
mod exchanging;
mod faults;
mod keeping;
mod seen;
mod together;

/// tiny-counter takes its days from the zone of the process, which is to be UTC.
fn utc() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: whoever reads the environment in this binary does so by way of `std`, which takes the same
    // lock as this: chrono, `tempfile` and the harness.
    ONCE.call_once(|| unsafe { std::env::set_var("TZ", "UTC") });
}
