//! Conversion: the buckets of a series by other grains, where nobody has the events any more.
//!
//! Each ring, and last of all the totals, says of some stretches of time how many events were in them.
//! A new ring is made of such *masses*: what one bucket says, or what is left of it when a finer ring has
//! said the rest, with the moments between which its events were.
//!
//! Invariants
//! 1. Totals, the first and the last time stay as they are. So do the buckets of a grain that is kept
//!    on: changing how many of them are kept moves nothing.
//! 2. No event is in two masses. Together they have all events of the totals, if the view only counts;
//!    statistics cannot be subtracted, so there the events that no bucket has stay in the totals alone.
//! 3. A mass goes as a whole into one bucket: into the one that holds all its moments, if there is such
//!    a one, which is where its events were; else into that of the midpoint of its moments.
//! 4. Masses are taken from the grains that nest in the new one, the finest first, as far back as each
//!    reaches; what is older from the next one. A bucket that reaches over the beginning of the finer ones
//!    counts what these have not; with statistics it is taken in place of those that lie in it.
//! 5. The series says from which bucket of each grain on its buckets are what the events would have made
//!    ([`SeriesRef::known`]). What is in a bucket before is a guess, and never the source of another one.
//!
//! Whether a grain nests in another is looked up bucket by bucket, so that it is right in any zone.
//! Complexity: the number of old buckets times the number of new grains.

use super::{ALWAYS, CellRef, Series, SeriesRef, Shape};
use crate::aggregate::{Count, States, StatesRef};
use crate::ring::packed::Packed;
use crate::time::{Grain, Keep, TimeZone, Timestamp};
use std::collections::BTreeMap;

/// What is in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    count: Count,
    states: States,
}

/// Events of which is known between which two moments they were, both included.
#[derive(Clone, Debug)]
struct Mass {
    from: i64,
    to: i64,
    held: Held,
}

/// A ring as a source.
struct Source {
    /// Its buckets with events whose content is true and whole, newest first, by their bounds.
    buckets: Vec<(i64, i64, Held)>,
    /// It has every event from this moment on.
    reach: i64,
}

impl Held {
    fn of(count: u64, states: StatesRef<'_>) -> Self {
        let mut held = Held { count: Count::default(), states: states.to_owned() };
        held.count.add(count);
        held
    }

    fn merge(&mut self, other: &Held) {
        self.count.add(other.count.get());
        self.states.as_mut().merge(other.states());
    }

    pub(crate) fn count(&self) -> Count {
        self.count
    }

    pub(crate) fn states(&self) -> StatesRef<'_> {
        self.states.as_ref()
    }
}

/// The buckets of a new grain, by number.
type Buckets = BTreeMap<i64, Held>;

/// The series in the shape `to`, whose totals hold what those of `from` do.
pub(crate) fn convert(series: SeriesRef<'_>, from: &Shape, to: &Shape) -> Series {
    let zone = from.calendar.zone;
    let old = &from.calendar.grains;
    let source = |(at, (grain, keep)): (usize, &(Grain, Keep))| {
        Source::of(series, at, (*grain, *keep), zone)
    };
    let sources: Vec<Source> = old.iter().enumerate().map(source).collect();
    let made = to.calendar.grains.iter().map(|(grain, keep)| {
        let (mut buckets, known) = match old.iter().position(|(other, _)| other == grain) {
            Some(at) => carried_over(series, at, (*grain, old[at].1, *keep), zone),
            None => made_anew(series, &sources, *grain, zone),
        };
        if let Some((newest, _)) = buckets.last_key_value() {
            let oldest = keep.oldest(*newest);
            buckets = buckets.split_off(&oldest);
        }
        (buckets, known)
    });
    let (rings, known): (Vec<Buckets>, Vec<i64>) = made.unzip();
    series.with_rings(&rings, known, to)
}

/// The buckets of a grain as they are.
fn carried_over(
    series: SeriesRef<'_>,
    at: usize,
    (grain, old_keep, new_keep): (Grain, Keep, Keep),
    zone: TimeZone,
) -> (Buckets, i64) {
    let newest = series.newest(at);
    let kept = newest.map_or(i64::MIN, |newest| new_keep.oldest(newest));
    let buckets = series.buckets_back(at).take_while(|(number, ..)| *number >= kept);
    let buckets: Buckets =
        buckets.map(|(number, count, states)| (number, Held::of(count, states))).collect();
    // Where nothing was before, there was nothing to be known.
    let first = zone.bucket(grain, series.total().first());
    let before = |edge: i64| if first < edge && kept < edge { edge } else { ALWAYS };
    let mut known = before(series.known(at));
    if let Some(newest) = newest
        && !series.has_all(at)
    {
        // A ring that keeps no more than it did says this by itself.
        known = known.max(before(old_keep.oldest(newest)));
    }
    (buckets, known)
}

impl Source {
    fn of(series: SeriesRef<'_>, at: usize, (grain, keep): (Grain, Keep), zone: TimeZone) -> Self {
        let start = |number: i64| zone.start(grain, number).micros();
        let ring = match series.newest(at) {
            None => i64::MAX,
            Some(_) if series.has_all(at) => i64::MIN,
            Some(newest) => keep.oldest(newest),
        };
        let first = zone.bucket(grain, series.total().first());
        let known = if first >= series.known(at) { ALWAYS } else { series.known(at) };
        let oldest = ring.max(known);
        let reach = match oldest {
            i64::MIN => i64::MIN,
            i64::MAX => i64::MAX,
            oldest => start(oldest),
        };
        let buckets = series.buckets_back(at).take_while(|(number, ..)| *number >= oldest);
        let bounds = |number: i64| (start(number), start(number.saturating_add(1)));
        let buckets = buckets.map(|(number, count, states)| {
            let (start, end) = bounds(number);
            (start, end, Held::of(count, states))
        });
        Source { buckets: buckets.collect(), reach }
    }

    /// Whether each of its buckets lies in one bucket of `grain`.
    fn nests(&self, grain: Grain, zone: TimeZone) -> bool {
        let bucket = |micros: i64| zone.bucket(grain, Timestamp::from_micros(micros));
        self.buckets.iter().all(|(start, end, _)| bucket(*start) == bucket(end.saturating_sub(1)))
    }
}

/// What is known of the events of a series, from the newest back.
struct Masses {
    found: Vec<Mass>,
    /// Between these two moments are all events.
    life: (i64, i64),
    /// Of everything from here on the masses have all, but for what was before `hole`.
    reach: i64,
    /// Before this moment are events that no mass has, though a source reaches further back.
    hole: Option<i64>,
    has_states: bool,
}

impl Masses {
    /// A mass of events between two moments, of which those of the series are some.
    fn mass(&self, from: i64, to: i64, held: Held) -> Mass {
        let cut = (from.max(self.life.0), to.min(self.life.1));
        // What contradicts itself is taken as it is told.
        let (from, to) = if cut.0 <= cut.1 { cut } else { (from, to.max(from)) };
        Mass { from, to, held }
    }

    /// Takes in what is older than what is there.
    fn add(&mut self, source: &Source) {
        if source.reach >= self.reach {
            return;
        }
        let reach = self.reach;
        for (start, end, held) in source.buckets.iter().filter(|(start, ..)| *start < reach) {
            if *end <= reach {
                let mass = self.mass(*start, end.saturating_sub(1), held.clone());
                self.found.push(mass);
            } else {
                self.straddle((*start, *end), held);
            }
        }
        self.reach = source.reach;
    }

    /// Takes in the bucket whose newer part is there already.
    fn straddle(&mut self, (start, end): (i64, i64), held: &Held) {
        let lies_in = |mass: &Mass| mass.from >= start && mass.to < end;
        let is_cut = |mass: &Mass| mass.from < end && mass.to >= end;
        if self.found.iter().any(is_cut) {
            self.hole = Some(self.hole.map_or(self.reach, |hole| hole.max(self.reach)));
            return;
        }
        let there = self.found.iter().filter(|mass| lies_in(mass));
        let there = there.fold(0, |sum: u64, mass| sum.saturating_add(mass.held.count.get()));
        let left = held.count.get().saturating_sub(there);
        if left == 0 {
            return;
        }
        if self.has_states {
            self.found.retain(|mass| !lies_in(mass));
            let mass = self.mass(start, end.saturating_sub(1), held.clone());
            self.found.push(mass);
        } else {
            let mass = self.mass(start, self.reach - 1, Held::of(left, StatesRef::default()));
            self.found.push(mass);
        }
    }

    /// Takes in what only the totals know; gives the moment before which something is left out.
    fn add_rest(&mut self, total: CellRef<'_>, in_one: bool) -> Option<i64> {
        let there = |masses: &[Mass]| {
            masses.iter().fold(0, |sum: u64, mass| sum.saturating_add(mass.held.count.get()))
        };
        let left = total.count().saturating_sub(there(&self.found));
        if left == 0 {
            return None;
        }
        let end = self.hole.unwrap_or(i64::MIN).max(self.reach);
        // Rows that a repair has cut know less than they say.
        let end = if end <= self.life.0 { i64::MAX } else { end };
        if !self.has_states {
            let mass =
                self.mass(i64::MIN, end.saturating_sub(1), Held::of(left, StatesRef::default()));
            self.found.push(mass);
        } else if in_one || self.found.is_empty() {
            self.found.clear();
            let mass = self.mass(i64::MIN, i64::MAX, Held::of(total.count(), total.states()));
            self.found.push(mass);
        } else {
            return Some(end);
        }
        None
    }
}

/// The buckets of a grain that was not kept before.
fn made_anew(
    series: SeriesRef<'_>,
    sources: &[Source],
    grain: Grain,
    zone: TimeZone,
) -> (Buckets, i64) {
    let mut buckets = Buckets::new();
    let total = series.total();
    if total.count() == 0 {
        return (buckets, ALWAYS);
    }
    let bucket = |micros: i64| zone.bucket(grain, Timestamp::from_micros(micros));
    let mut masses = Masses {
        found: Vec::new(),
        life: (total.first().micros(), total.last().micros()),
        reach: i64::MAX,
        hole: None,
        has_states: !total.states().is_empty(),
    };
    // Finest first; those that nest before the others.
    let (nesting, others): (Vec<&Source>, Vec<&Source>) =
        sources.iter().partition(|source| source.nests(grain, zone));
    nesting.into_iter().chain(others).for_each(|source| masses.add(source));
    let in_one = bucket(masses.life.0) == bucket(masses.life.1);
    let missing = masses.add_rest(total, in_one);
    let behind = |micros: i64| bucket(micros).saturating_add(1);
    let mut known = ALWAYS;
    if let Some(end) = missing {
        let last = end.saturating_sub(1).min(masses.life.1);
        known = if bucket(last) == bucket(last.saturating_add(1)) {
            behind(last)
        } else {
            bucket(last.saturating_add(1))
        };
    }
    for mass in &masses.found {
        let middle = i64::midpoint(mass.from, mass.to);
        if bucket(mass.from) != bucket(mass.to) {
            known = known.max(behind(mass.to));
        }
        buckets
            .entry(bucket(middle))
            .and_modify(|held| held.merge(&mass.held))
            .or_insert_with(|| mass.held.clone());
    }
    (buckets, known)
}

impl SeriesRef<'_> {
    /// The same totals with these buckets, all of them to be written.
    fn with_rings(self, buckets: &[Buckets], known: Vec<i64>, shape: &Shape) -> Series {
        /// Any mark but clean.
        const CHANGED: u32 = 1;
        let mut made = Series::empty(shape);
        made.head.tally = self.head.tally;
        made.states = self.states.to_owned();
        if shape.is_packed && self.head.count() > 0 {
            made.head.packed = Packed::of(buckets.iter().map(|buckets| {
                buckets.iter().rev().map(|(number, held)| (*number, held.count.get()))
            }));
        }
        let grains = &shape.calendar.grains;
        for ((ring, buckets), (_, keep)) in made.rings_mut().iter_mut().zip(buckets).zip(grains) {
            for (number, held) in buckets.iter().rev() {
                if let Some(bucket) = ring.bucket_mut(*keep, *number, shape, CHANGED) {
                    bucket.merge(held.count(), held.states());
                }
            }
        }
        let (first_end, last_start) = self.head.inner_ends();
        made.head.set_inner_ends(first_end, last_start);
        made.head.set_known(known.into());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::super::Occurrence;
    use super::*;
    use crate::aggregate::{Kinds, Measure};
    use crate::time::{Calendar, Leaf};
    use proptest::prelude::*;
    use std::sync::Arc;

    const ZONES: [&str; 4] = ["UTC", "Europe/Paris", "Asia/Kolkata", "Pacific/Apia"];

    fn shape(kinds: usize, zone: &str, grains: &[(Grain, Keep)]) -> Shape {
        let mut grains = grains.to_vec();
        grains.sort_by_key(|(grain, _)| *grain);
        grains.dedup_by_key(|(grain, _)| *grain);
        let calendar = Calendar { zone: zone.parse().unwrap(), grains };
        Shape::new(Kinds { stats: kinds, ..Kinds::default() }, Arc::new(calendar))
    }

    fn put(series: &mut Series, shape: &Shape, (minute, value): (i64, i32)) {
        let (measure, time) = (Measure::new(f64::from(value)), Timestamp::from_secs(minute * 60));
        let leaf = Leaf::at(&shape.calendar, time);
        series.as_mut().observe(shape, &leaf, Occurrence::at(time), |_| &measure, 1);
    }

    fn fold(shape: &Shape, events: &[(i64, i32)]) -> Series {
        let mut series = Series::empty(shape);
        for event in events {
            put(&mut series, shape, *event);
        }
        series
    }

    fn list(series: &Series, at: usize) -> Vec<(i64, u64, States)> {
        let buckets = series.as_ref().buckets(at);
        buckets.map(|(number, count, states)| (number, count, states.to_owned())).collect()
    }

    fn grains() -> impl Strategy<Value = Vec<(Grain, Keep)>> {
        let grain = prop_oneof![
            6 => prop::sample::select(Grain::ALL[1..].to_vec()),
            1 => prop::sample::select(vec!["6h", "90m", "10d"]).prop_map(|text| text.parse().unwrap()),
        ];
        let keep = prop_oneof![
            1 => Just(Keep::All),
            3 => (1_u32..60).prop_map(Keep::Last),
            1 => (60_u32..900).prop_map(Keep::Last),
        ];
        prop::collection::vec((grain, keep), 0..5)
    }

    /// Minutes around a turn of the year and a change of the clocks, of which some lie close together.
    fn events() -> impl Strategy<Value = Vec<(i64, i32)>> {
        let minute = prop_oneof![
            2 => 0_i64..200,
            2 => 0_i64..9_000,
            1 => 0_i64..900_000,
        ];
        prop::collection::vec((minute.prop_map(|m| 21_915_360 + m), -9..9_i32), 0..40)
    }

    /// What is claimed of the buckets of a series holds, for which `events` are the truth.
    fn check(series: &Series, shape: &Shape, events: &[(i64, i32)]) -> Result<(), TestCaseError> {
        let mut all = shape.clone();
        all.calendar = Arc::new(Calendar {
            zone: shape.calendar.zone,
            grains: shape.calendar.grains.iter().map(|(grain, _)| (*grain, Keep::All)).collect(),
        });
        all.is_packed = false;
        let truth = fold(&all, events);
        prop_assert_eq!(series.as_ref().total().to_owned(), truth.as_ref().total().to_owned());
        for (at, (_, keep)) in shape.calendar.grains.iter().enumerate() {
            let (buckets, truth) = (list(series, at), list(&truth, at));
            let oldest = series.as_ref().newest(at).map_or(i64::MIN, |newest| keep.oldest(newest));
            prop_assert!(buckets.iter().all(|(number, ..)| *number >= oldest));
            let from = series.as_ref().known(at).max(oldest);
            let behind = |buckets: &[(i64, u64, States)]| {
                buckets.iter().filter(|(number, ..)| *number >= from).cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(behind(&buckets), behind(&truth), "grain {} from {}", at, from);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_500))]

        #[test]
        fn what_is_known_is_what_the_events_would_have_made_however_often(
            kinds in 0_usize..2,
            zone in prop::sample::select(ZONES.to_vec()),
            begin in grains(),
            steps in prop::collection::vec((events(), grains()), 1..4),
        ) {
            let mut now = shape(kinds, zone, &begin);
            let (mut series, mut truth) = (Series::empty(&now), Vec::new());
            for (events, grains) in steps {
                for event in &events {
                    put(&mut series, &now, *event);
                }
                truth.extend(events);
                check(&series, &now, &truth)?;
                let next = shape(kinds, zone, &grains);
                series = convert(series.as_ref(), &now, &next);
                now = next;
                check(&series, &now, &truth)?;
                let mut row = Vec::new();
                series.as_ref().encode_row(&mut row);
                let back = Series::decode_row(&row, &now).expect("own bytes");
                for at in 0..now.calendar.grains.len() {
                    prop_assert_eq!(back.as_ref().known(at), series.as_ref().known(at));
                }
                // What comes meanwhile is held apart, and merged with it.
                let mut whole = Series::empty(&now);
                whole.as_mut().merge(series.as_ref(), &now, 1);
                prop_assert_eq!(whole.bytes(), series.bytes());
                prop_assert_eq!(whole.as_ref().heap_bytes(), series.as_ref().heap_bytes());
            }
        }

        #[test]
        fn a_view_that_counts_keeps_the_number_of_its_events(
            zone in prop::sample::select(ZONES.to_vec()),
            (from, to) in (grains(), grains()),
            events in events(),
        ) {
            let from = shape(0, zone, &from);
            let kept: Vec<_> = to.iter().map(|(grain, _)| (*grain, Keep::All)).collect();
            let to = shape(0, zone, &kept);
            let series = fold(&from, &events);
            let converted = convert(series.as_ref(), &from, &to);
            for (at, (grain, _)) in to.calendar.grains.iter().enumerate() {
                if !from.calendar.grains.iter().any(|(other, _)| other == grain) {
                    let sum: u64 = list(&converted, at).iter().map(|(_, count, _)| count).sum();
                    prop_assert_eq!(sum, events.len() as u64);
                }
            }
        }

        #[test]
        fn finer_to_coarser_never_moves_an_event(
            kinds in 0_usize..2,
            zone in prop::sample::select(ZONES.to_vec()),
            events in events(),
            keep in 1_u32..60,
        ) {
            let coarse = [Grain::Hour, Grain::Day, Grain::Week, Grain::Month, Grain::Year];
            let all = |grains: &[Grain]| {
                let kept: Vec<_> = grains.iter().map(|grain| (*grain, Keep::All)).collect();
                shape(kinds, zone, &kept)
            };
            let (minutes, to) = (all(&[Grain::Minute]), all(&coarse));
            let converted = convert(fold(&minutes, &events).as_ref(), &minutes, &to);
            prop_assert_eq!(converted.bytes(), fold(&to, &events).bytes());
            // Of a ring that does not reach back, as far as it does.
            let some = shape(kinds, zone, &[(Grain::Minute, Keep::Last(keep))]);
            let series = fold(&some, &events);
            let converted = convert(series.as_ref(), &some, &to);
            let direct = fold(&to, &events);
            if let Some(newest) = series.as_ref().newest(0) {
                let reach = some.calendar.zone.start(Grain::Minute, Keep::Last(keep).oldest(newest));
                for (at, grain) in coarse.into_iter().enumerate() {
                    let edge = some.calendar.zone.bucket(grain, reach);
                    let behind = |series: &Series| {
                        let buckets = list(series, at).into_iter();
                        buckets.filter(|(number, ..)| *number > edge).collect::<Vec<_>>()
                    };
                    prop_assert_eq!(behind(&converted), behind(&direct));
                }
            }
        }

        #[test]
        fn another_number_of_buckets_moves_nothing(
            kinds in 0_usize..2,
            zone in prop::sample::select(ZONES.to_vec()),
            events in events(),
            keeps in prop::collection::vec(1_u32..90, 1..6),
        ) {
            let of = |keep: u32| {
                let kept = [(Grain::Hour, Keep::Last(keep)), (Grain::Week, Keep::Last(keep))];
                shape(kinds, zone, &kept)
            };
            let mut now = of(keeps[0]);
            let mut series = fold(&now, &events);
            let mut least = keeps[0];
            for keep in keeps.into_iter().chain([1]) {
                let next = of(keep);
                series = convert(series.as_ref(), &now, &next);
                now = next;
                least = least.min(keep);
                prop_assert_eq!(list(&series, 0), list(&fold(&of(least), &events), 0));
                prop_assert_eq!(list(&series, 1), list(&fold(&of(least), &events), 1));
            }
            prop_assert_eq!(series.bytes(), fold(&of(1), &events).bytes(), "of one bucket");
        }
    }

    /// Of seven hours of a day the ring has those from four on.
    #[test]
    fn a_bucket_that_reaches_over_the_finer_ones_counts_what_they_have_not() {
        let day = 19_858 * 1_440;
        let events: Vec<(i64, i32)> = (1..8).map(|hour| (day + hour * 60 + 30, 1)).collect();
        let grains = [(Grain::Hour, Keep::Last(4)), (Grain::Day, Keep::Last(9))];
        let six = |kinds| shape(kinds, "UTC", &[("6h".parse().unwrap(), Keep::Last(9))]);
        let counts = |kinds| {
            let from = shape(kinds, "UTC", &grains);
            let series = convert(fold(&from, &events).as_ref(), &from, &six(kinds));
            let first = 19_858 * 4;
            let buckets = list(&series, 0);
            let buckets: Vec<_> = buckets.iter().map(|(n, count, _)| (n - first, *count)).collect();
            (buckets, series.as_ref().known(0).max(first) - first)
        };
        // 1:30 to 3:30 are in the first six hours for certain.
        assert_eq!(counts(0), (vec![(0, 5), (1, 2)], 0));
        // Statistics of three of the events nobody knows.
        assert_eq!(counts(1), (vec![(0, 7)], 2));
    }

    /// Weeks that lie in a month are in that; one that lies in two goes to the one of its middle.
    #[test]
    fn weeks_become_months() {
        let day = |date: &str| {
            Timestamp::parse_rfc3339(&format!("{date}T12:00:00Z")).unwrap().micros() / 60_000_000
        };
        let dates = ["2024-04-24", "2024-04-29", "2024-05-01", "2024-05-14", "2024-06-12"];
        let events: Vec<(i64, i32)> = dates.iter().map(|date| (day(date), 1)).collect();
        let from = shape(0, "UTC", &[(Grain::Week, Keep::Last(52))]);
        let to = shape(0, "UTC", &[(Grain::Month, Keep::Last(12))]);
        let series = convert(fold(&from, &events).as_ref(), &from, &to);
        let april = 2024 * 12 + 3;
        let buckets: Vec<_> =
            list(&series, 0).iter().map(|(n, count, _)| (n - april, *count)).collect();
        assert_eq!(buckets, [(0, 1), (1, 3), (2, 1)]);
        assert_eq!(series.as_ref().known(0) - april, 2, "May has an event of April");
    }
}
