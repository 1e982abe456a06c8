//! The engine on simulated disks that fail and lose power.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]

mod faults;
