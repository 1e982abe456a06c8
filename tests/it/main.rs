//! Behaviour through the public door, a module per behaviour.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]
#![allow(clippy::float_cmp, reason = "sums are exact; equal is what they must be")]

mod asked;
mod backfill;
mod backup;
mod budget;
mod calendar;
mod compared;
mod convert;
mod corruption;
mod counters;
mod crash;
mod dedup;
mod directory;
mod distinct;
mod durability;
mod exchange;
mod forged;
mod found;
mod gcra;
mod golden;
mod heavy;
mod http;
mod input;
mod instants;
#[cfg(feature = "datasketches")]
mod interchange;
#[cfg(feature = "datasketches")]
mod kll;
#[cfg(feature = "simulation")]
mod lanes;
mod late;
mod limit_cases;
mod limit_denials;
mod limit_short;
mod limits;
mod matrix;
mod membership;
mod millis;
mod model;
mod oracles;
mod point_counts;
mod policies;
mod queries;
mod read_only;
mod recording;
mod redefine;
mod refunds;
mod repair;
mod reservations;
mod retention;
mod rules;
mod schedules;
mod several;
mod sketches;
mod staging;
mod storage;
mod strays;
mod tidy;
mod tiny_counter;
mod together;
#[cfg(feature = "tower")]
mod tower;
mod trailing;
#[cfg(feature = "simulation")]
mod unwell;
mod views;
mod zones;
