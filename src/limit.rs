//! Limits: whether something may happen now, and if not, when it may.
//!
//! A limit is some *constraints*, each a question to a [series](crate::SeriesQuery), and the recording
//! that follows it, made one step: [`Limit::check_and_record`](crate::Limit::check_and_record).
//!
//! Every constraint is brought into one form, a [`Case`](case::Case): what counts from when until when,
//! and a bound on the sum. From that follow both whether it holds at a moment and when it next will, so
//! the two can not disagree.
//!
//! Invariants
//! 1. What decides is read once; an answer and its time to come back are of the same reading.
//! 2. "At most" counts everything that may have happened in the window, "at least" only what certainly
//!    did: a bucket that the window's edge cuts counts whole for the one and not at all for the other.
//!
//! Next: `limit/case.rs`, then `db/limit.rs`.

mod asked;
mod case;
mod http;
mod verdict;

pub(crate) use asked::{Asked, Judged, Plain, Question, Reserved, Used, Whom, back, evenly};
pub(crate) use case::When;
pub use http::HttpVerdict;
pub use verdict::{Denial, Usage, Verdict};
