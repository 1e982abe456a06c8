//! What tiny-counter offers, on Quipu: for programs that move over, and for tests that ask both.
//!
//! The program of this package, `quipu-peers`, measures the two beside each other and does not use
//! this.
//!
//! Next: `adapter.rs`.

pub mod adapter;
