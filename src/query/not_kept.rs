//! What is said of a range that the view does not have any more.

use super::Query;
use super::range::Reach;
use super::series::SeriesQuery;
use super::window::Window;
use crate::error::{Error, ErrorKind};
use crate::time::Grain;

/// The view does not keep so many buckets.
#[cold]
pub(super) fn too_far(query: &Query, window: &Window, present: i64, reach: Reach) -> Error {
    let asked = present.abs_diff(window.from).saturating_add(1);
    Error::new(
        ErrorKind::NotKept,
        format!(
            "the view {:?} keeps {}; the range begins with the {} counted back from now. {}",
            query.view().name(),
            query.view().kept(),
            nth(asked, window.of.grain),
            reach.advice(),
        ),
    )
}

/// The series has let go of what the range begins with.
#[cold]
pub(super) fn pushed_out(
    series: &SeriesQuery,
    window: &Window,
    known_from: i64,
    reach: Reach,
) -> Error {
    let view = series.view();
    let known = if known_from > window.to {
        "nothing of it".to_owned()
    } else {
        format!("it from {} on", window.of.start(known_from))
    };
    Error::new(
        ErrorKind::NotKept,
        format!(
            "of the range from {} the view {:?} has {known}: it keeps {}, counted back from the newest \
             event of the key{}; events before that are in its totals only. {}",
            window.span().start,
            view.name(),
            view.kept(),
            series.query().and_converted(),
            reach.advice(),
        ),
    )
}

/// `365th day`, `91st bucket of 6h`.
fn nth(n: u64, grain: Grain) -> String {
    let suffix = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    grain.counted(&format!("{n}{suffix}"), true)
}
