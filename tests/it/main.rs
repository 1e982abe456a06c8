//! Behaviour through the public door, a module per behaviour.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]
#![allow(clippy::float_cmp, reason = "sums are exact; equal is what they must be")]

mod backfill;
mod budget;
mod corruption;
mod crash;
mod dedup;
mod directory;
mod durability;
mod forged;
mod found;
mod input;
mod model;
mod oracles;
mod queries;
mod recording;
mod retention;
mod tidy;
mod views;
