//! What a calendar costs: recording into a view by user with buckets of days in Europe/Paris, against
//! days in UTC and against uniform spans of 24 hours, in the order of their times and shuffled.
//!
//! Time is CPU time of the whole process up to and including [`Db::sync`]. Rounds alternate; a ratio is
//! of one round, and the median of the ratios is shown.
//!
//! Run as `cargo bench --bench calendar`.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod common;

use common::events::{Sale, synthetic};
use common::measure::{cpu, median};
use common::report::{Target, heading, line, ns_each};
use common::{Store, record_in_batches};
use quipu::{Db, Grain, Keep, Options, TimeZone, View};
use std::time::Duration;

const EVENTS: usize = 200_000;
const ROUNDS: usize = 7;

type Record = fn(&Db, &[Sale]);

fn batches(db: &Db, sales: &[Sale]) {
    record_in_batches(db, sales.iter().map(Sale::event));
}

fn singly(db: &Db, sales: &[Sale]) {
    for sale in sales {
        db.record(&sale.event()).expect("recorded");
    }
}

fn time(view: &View, zone: TimeZone, sales: &[Sale], record: Record) -> Duration {
    let store = Store::new(Options::new().time_zone(zone), [view.clone()]);
    let (time, ()) = cpu(|| {
        record(&store.db, sales);
        store.db.sync().expect("synced");
    });
    time
}

/// A view in two zones and a uniform one beside it.
fn compare(what: &str, sales: &[Sale], record: Record, calendar: &View, uniform: &View) {
    let paris: TimeZone = "Europe/Paris".parse().expect("a zone of the database");
    let (mut spans, mut utc, mut local) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        spans.push(time(uniform, TimeZone::UTC, sales, record));
        utc.push(time(calendar, TimeZone::UTC, sales, record));
        local.push(time(calendar, paris, sales, record));
    }
    let ratio = |of: &[Duration], to: &[Duration]| {
        let each = of.iter().zip(to).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64());
        median(&each.collect::<Vec<_>>())
    };
    let ns = |times: &[Duration]| ns_each(median(times), sales.len());
    heading(format!("{what}, {} events, CPU time, median of {ROUNDS} rounds", sales.len()));
    line("uniform", ns(&spans), "ns/event", Target::None);
    line("calendar, UTC", ns(&utc), "ns/event", Target::None);
    line("calendar, Europe/Paris", ns(&local), "ns/event", Target::None);
    line("calendar in UTC / uniform", ratio(&utc, &spans), "", Target::AtMost(1.2));
    line("calendar in Paris / uniform", ratio(&local, &spans), "", Target::AtMost(1.2));
    line("Paris / UTC", ratio(&local, &utc), "", Target::AtMost(1.2));
}

fn main() {
    let hours = |n: u64| Grain::every(Duration::from_hours(n)).expect("a length");
    let by_user = || View::new("v").by(["user"]).stats("value");
    let day = by_user().grain(Grain::Day, Keep::All);
    let span = by_user().grain(hours(24), Keep::All);
    let four = [Grain::Day, Grain::Week, Grain::Month, Grain::Year];
    let four = four.into_iter().fold(by_user(), |view, grain| view.grain(grain, Keep::All));
    let spans = [24, 7 * 24, 30 * 24, 365 * 24];
    let spans = spans.into_iter().fold(by_user(), |view, n| view.grain(hours(n), Keep::All));
    let mut sales = synthetic(EVENTS);
    sales.sort_by_key(|sale| sale.time);
    let mut shuffled = synthetic(EVENTS);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..shuffled.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        shuffled.swap(at, (state >> 33) as usize % (at + 1));
    }
    compare("days, in order, batches", &sales, batches, &day, &span);
    compare("days, shuffled, batches", &shuffled, batches, &day, &span);
    compare("days, in order, singly", &sales, singly, &day, &span);
    compare("four calendar grains, in order, batches", &sales, batches, &four, &spans);
    compare("four calendar grains, shuffled, batches", &shuffled, batches, &four, &spans);
}
