//! Moving over from tiny-counter: what its files say of an event, as events whose time is known roughly.
//!
//! A counter of tiny-counter has rings of several grains. The buckets of each say when its events happened,
//! to within the span of a bucket; a finer grain says it better and reaches back less far. From fine to
//! coarse:
//!
//! 1. The events of the finest grain's bucket happened within its span.
//! 2. Of a coarser bucket those are known already that finer ones place inside of it. Where a finer
//!    span lies across its edge, as a week does across that of a month, the counts on both sides say how many
//!    are where, and the span is cut there.
//! 3. The rest happened where finer grains do not reach: in the part of the bucket before them.
//!
//! Each of these spans becomes one event that stands for as many, at its middle, and off by at most half of
//! it. The number of all is that of the coarsest grain.
//!
//! A file (bincode 1; fixed width, little-endian, lengths of 8 bytes) is `starting_instant (text) · number ·
//! (unit (4) · number · counts (4)* · interval_start (text))* · dirty (1)`; JSON has the same fields by name.
//! Bucket 0 begins at `interval_start` and ends at `starting_instant`, when something was last recorded; the
//! others lie behind each other before it.
//!
//! The events of a state of a counter have a place of their own among the records of a replica. That is made
//! of the counter's name, and the place of what the file says, not of the events, which depend on the zone; and
//! a state takes all of its place. So a state is here as a whole or not, whatever the zone was.

use super::bundle::Packer;
use super::{Bundle, Cursor};
use crate::codec::{self, Malformed};
use crate::error::{Error, Result};
use crate::event::{Event, abridged};
use crate::record::{FRAME_EVENTS_MAX, Origin};
use crate::time::{Grain, TimeZone, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The counter of one event, as tiny-counter 0.1 has it in a file: read from the bytes of a file
/// ([`from_bincode`](TinyCounter::from_bincode)), or deserialized from JSON. What `export_all()` gave is
/// a map of these by the ids of the events. [`Bundle::of_tiny_counters`] makes something to be imported of
/// them.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Bundle, Db, ImportOptions, TimeZone, TinyCounter, View};
/// use std::collections::HashMap;
///
/// let exported = r#"{"app_launch": {"starting_instant": "2026-06-30T12:00:01Z", "dirty": false,
///     "intervals": {"Days": {"data": [3, 0, 1], "interval_start": "2026-06-30T00:00:00Z"}}}}"#;
/// let counters: HashMap<String, TinyCounter> = serde_json::from_str(exported).unwrap();
/// let bundle = Bundle::of_tiny_counters(counters, TimeZone::UTC)?;
///
/// let db = Db::open(dir.path().join("app"))?;
/// db.define(View::new("launches").by(["event"]))?;
/// db.import_with(&bundle, &ImportOptions::new().once())?;
/// let launches = db.query("launches")?.get(&["app_launch"])?.expect("it was launched");
/// assert_eq!(launches.count, 4);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TinyCounter {
    starting_instant: Timestamp,
    intervals: BTreeMap<Unit, Ring>,
    #[serde(default, rename = "dirty")]
    _dirty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Unit {
    Seconds,
    Minutes,
    Hours,
    Days,
    Weeks,
    Months,
    Years,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ring {
    data: Vec<u32>,
    interval_start: Timestamp,
}

/// So many events that happened between two moments, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spell {
    start: Timestamp,
    end: Timestamp,
    count: u64,
}

impl Unit {
    const ALL: [Unit; 7] = [
        Unit::Seconds,
        Unit::Minutes,
        Unit::Hours,
        Unit::Days,
        Unit::Weeks,
        Unit::Months,
        Unit::Years,
    ];

    /// The grain of the calendar, if it is one of the calendar's.
    fn grain(self) -> Option<Grain> {
        match self {
            Unit::Seconds | Unit::Minutes | Unit::Hours => None,
            Unit::Days => Some(Grain::Day),
            Unit::Weeks => Some(Grain::Week),
            Unit::Months => Some(Grain::Month),
            Unit::Years => Some(Grain::Year),
        }
    }

    /// The length of its buckets where they are uniform.
    fn micros(self) -> i64 {
        const DAY: i64 = 86_400_000_000;
        match self {
            Unit::Seconds => 1_000_000,
            Unit::Minutes => 60_000_000,
            Unit::Hours => 3_600_000_000,
            Unit::Days => DAY,
            Unit::Weeks => 7 * DAY,
            Unit::Months => 30 * DAY,
            Unit::Years => 365 * DAY,
        }
    }
}

impl TinyCounter {
    /// Reads a file of tiny-counter's (`.bin`), of one event.
    ///
    /// # Errors
    /// `Invalid` where the bytes are none.
    pub fn from_bincode(bytes: &[u8]) -> Result<Self> {
        TinyCounter::decode(bytes).map_err(|malformed| {
            Error::invalid(format!("this is no file of tiny-counter's: {malformed}"))
        })
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        fn number(bytes: &mut &[u8], item_bytes: usize) -> Result<usize, Malformed> {
            let number = u64::from_le_bytes(codec::take_array(bytes)?);
            let most = bytes.len() / item_bytes;
            let number = usize::try_from(number).ok().filter(|number| *number <= most);
            number.ok_or(Malformed("a length is larger than the bytes that follow"))
        }
        fn time(bytes: &mut &[u8]) -> Result<Timestamp, Malformed> {
            let length = number(bytes, 1)?;
            let text = std::str::from_utf8(codec::take(bytes, length)?);
            let time = text.ok().and_then(|text| Timestamp::parse_rfc3339(text).ok());
            time.ok_or(Malformed("a time is none"))
        }
        let bytes = &mut bytes;
        let starting_instant = time(bytes)?;
        let mut intervals = BTreeMap::new();
        for _ in 0..number(bytes, 20)? {
            let unit = u32::from_le_bytes(codec::take_array(bytes)?);
            let unit =
                Unit::ALL.get(unit as usize).ok_or(Malformed("a unit of time is unknown"))?;
            let mut data = Vec::new();
            for _ in 0..number(bytes, 4)? {
                data.push(u32::from_le_bytes(codec::take_array(bytes)?));
            }
            if intervals.insert(*unit, Ring { data, interval_start: time(bytes)? }).is_some() {
                return Err(Malformed("a unit of time is there twice"));
            }
        }
        let [dirty] = codec::take_array(bytes)?;
        codec::finished(bytes)?;
        Ok(TinyCounter { starting_instant, intervals, _dirty: dirty != 0 })
    }

    /// The first position of what it says.
    fn place(&self) -> u64 {
        let mut seed = Vec::new();
        codec::put_i64(&mut seed, self.starting_instant.micros());
        for (unit, ring) in &self.intervals {
            seed.push(*unit as u8);
            codec::put_i64(&mut seed, ring.interval_start.micros());
            codec::put_u64(&mut seed, ring.data.len() as u64);
            ring.data.iter().for_each(|count| codec::put_u64(&mut seed, u64::from(*count)));
        }
        (xxhash_rust::xxh3::xxh3_64(&seed) >> (64 - PLACE_BITS)) * PLACES + 1
    }

    /// Whether the buckets are those of the calendar of this zone: then all rings begin with one.
    fn is_of_calendar(&self, zone: TimeZone) -> bool {
        self.intervals.iter().all(|(unit, ring)| {
            unit.grain().is_none_or(|grain| {
                let start = ring.interval_start;
                zone.start(grain, zone.bucket(grain, start)) == start
            })
        })
    }

    /// When its events happened, as well as it knows, oldest first.
    fn spells(&self, zone: TimeZone) -> Vec<Spell> {
        let of_calendar = self.is_of_calendar(zone);
        let (mut spells, mut reach) = (Vec::new(), Timestamp::MAX);
        for (unit, ring) in &self.intervals {
            let grain = unit.grain().filter(|_| of_calendar);
            let newest = grain.map(|grain| zone.bucket(grain, ring.interval_start));
            let start = |nth: i64| {
                let start = if let Some((grain, newest)) = grain.zip(newest) {
                    zone.start(grain, newest.saturating_sub(nth))
                } else {
                    let before = nth.saturating_mul(unit.micros());
                    Timestamp::from_micros(ring.interval_start.micros().saturating_sub(before))
                };
                start.clamp(Timestamp::MIN, Timestamp::MAX)
            };
            let mut end = self.starting_instant.max(ring.interval_start);
            let buckets = ring.data.iter().zip(0..).map(|(count, nth)| {
                let bucket = Spell { start: start(nth), end, count: u64::from(*count) };
                end = bucket.start;
                bucket
            });
            spells = refined(spells, buckets, reach);
            reach = reach.min(end);
        }
        spells.sort_by_key(|spell| (spell.start, spell.end));
        spells
    }
}

/// What finer grains know, which reach back to a moment, together with the buckets of a coarser one, which come
/// newest first.
fn refined(
    mut finer: Vec<Spell>,
    buckets: impl Iterator<Item = Spell>,
    reach: Timestamp,
) -> Vec<Spell> {
    finer.sort_by_key(|spell| std::cmp::Reverse((spell.end, spell.start)));
    let mut finer = finer.into_iter().peekable();
    let mut known = Vec::new();
    // What lies across the older edge of the bucket before.
    let mut across: Vec<Spell> = Vec::new();
    for Spell { start, end, count } in buckets {
        let mut here = std::mem::take(&mut across);
        // A bucket that has just begun is a moment.
        let is_here = |spell: &Spell| spell.end > start || spell.start >= start;
        while let Some(spell) = finer.next_if(is_here) {
            here.push(spell);
        }
        let (inside, over): (Vec<_>, Vec<_>) = here.into_iter().partition(|s| s.start >= start);
        let mut missing = count.saturating_sub(inside.iter().map(|spell| spell.count).sum());
        known.extend(inside);
        for mut spell in over {
            let part = spell.count.min(missing);
            missing -= part;
            if part > 0 {
                known.push(Spell { start, count: part, ..spell });
            }
            spell = Spell { end: start, count: spell.count - part, ..spell };
            across.extend((spell.count > 0).then_some(spell));
        }
        if missing > 0 {
            // Should finer grains reach further: they have lost some.
            let end = if start < reach { end.min(reach) } else { end };
            known.push(Spell { start, end, count: missing });
        }
    }
    known.extend(across);
    known.extend(finer);
    known
}

impl Bundle {
    /// What counters of tiny-counter say as a bundle, to be imported: events of these names, at the middle
    /// of the narrowest span that is known, and off by at most half of it
    /// ([`Event::at_about`](crate::Event::at_about)). The number of events is exact, up to what the counters have
    /// forgotten.
    ///
    /// `zone` is the time zone of the device, which is not in the files: days, weeks, months and years are
    /// taken for those of its calendar where they can be, else for spans of 1, 7, 30 and 365 days.
    ///
    /// The same state of a counter is imported once, whatever file it comes from, and whatever zone was said
    /// first: again it changes nothing. A later state has most of its events in common with an earlier one,
    /// and no name for each of them, so both together count these twice. Whoever moves over does so once,
    /// when the other one records no more: import with [`ImportOptions::once`](crate::ImportOptions::once),
    /// which refuses another state of a counter that is here.
    ///
    /// In buckets, and in spans to the moment, the events count at the middle of their spans, and only there;
    /// [`first_seen`](crate::SeriesQuery::first_seen) and [`last_seen`](crate::SeriesQuery::last_seen) say how
    /// wide these are.
    ///
    /// # Errors
    /// `Invalid` for an id that no event can have as its name, and for a counter of more than a million
    /// buckets.
    pub fn of_tiny_counters<N: AsRef<str>>(
        counters: impl IntoIterator<Item = (N, TinyCounter)>,
        zone: TimeZone,
    ) -> Result<Bundle> {
        let mut packer = Packer::new(Cursor::beginning());
        for (name, counter) in counters {
            let (name, spells) = (name.as_ref(), counter.spells(zone));
            let events = spells.iter().map(|Spell { start, end, count }| {
                let middle = start.micros().midpoint(end.micros());
                let half_width = middle.abs_diff(start.micros()).max(middle.abs_diff(end.micros()));
                Event::new(name)
                    .at_about(Timestamp::from_micros(middle), Duration::from_micros(half_width))
                    .times(*count)
            });
            let events: Vec<Event<'_>> = events.collect();
            let n = events.len() as u64;
            if n > PLACES {
                let message = format!("the counter {} has {n} buckets", abridged(name));
                return Err(Error::invalid(format!("{message}; at most {PLACES} are moved over")));
            }
            let (replica, first) = (replica_of(name), counter.place());
            let firsts = (first + PLACES - n..).step_by(FRAME_EVENTS_MAX);
            for (frame, at) in events.chunks(FRAME_EVENTS_MAX).zip(firsts) {
                let empty = if at == first + PLACES - n { PLACES - n } else { 0 };
                packer.push_events(Origin { replica, first: at, empty }, frame.iter().cloned())?;
            }
        }
        Ok(packer.finish(Cursor::beginning()))
    }
}

/// How many positions a state of a counter takes, and how many bits say which ones: all together they are
/// numbers that JSON has.
const PLACES: u64 = 1 << 20;
const PLACE_BITS: u32 = 32;

/// The replica whose records the states of a counter are.
fn replica_of(name: &str) -> u128 {
    let mut seed = b"tiny-counter".to_vec();
    codec::put_bytes(&mut seed, name.as_bytes());
    xxhash_rust::xxh3::xxh3_128(&seed).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + 60 * minutes)
    }

    /// Kept for 45 minutes and for 24 hours, where hours mean the last 60 minutes each.
    #[test]
    fn an_event_of_fifty_minutes_ago_was_in_the_quarter_that_minutes_do_not_reach() {
        let ring = |buckets: usize, of: usize, starts: i64| {
            let mut data = vec![0; buckets];
            data[of] = 1;
            Ring { data, interval_start: at(starts) }
        };
        let mut minutes = ring(45, 0, -1);
        minutes.data[0] = 0;
        let hours = ring(24, 0, -60);
        let intervals = BTreeMap::from([(Unit::Minutes, minutes), (Unit::Hours, hours)]);
        let counter = TinyCounter { starting_instant: at(0), intervals, _dirty: false };
        let bundle = Bundle::of_tiny_counters([("event", counter)], TimeZone::UTC);
        let event = serde_json::to_value(bundle.expect("an event")).expect("a text");
        let event = &event["frames"][0]["events"][0];
        let middle = Timestamp::from_secs(1_700_000_000 - 52 * 60 - 30);
        assert_eq!(event["at"], middle.to_string());
        assert_eq!(event["about_micros"], 450_000_000);
    }

    /// Rings of nested and crossing grains, filled with events at known times.
    fn filled(events: &[i64], kept: [usize; 3]) -> TinyCounter {
        // In the zone of the counter: seconds, hours, and months of 30 days begin anywhere.
        let now = 90 * 86_400;
        let units = [Unit::Seconds, Unit::Hours, Unit::Months];
        let rings = units.into_iter().zip(kept).map(|(unit, kept)| {
            let length = unit.micros() / 1_000_000;
            let begins = now / length * length - if unit == Unit::Months { 7_777 } else { 0 };
            let mut data = vec![0; kept];
            for event in events {
                let nth = if *event >= begins { 0 } else { (begins - event + length - 1) / length };
                if let Some(count) = data.get_mut(nth as usize) {
                    *count += 1;
                }
            }
            (unit, Ring { data, interval_start: Timestamp::from_secs(begins) })
        });
        let (starting_instant, intervals) = (Timestamp::from_secs(now), rings.collect());
        TinyCounter { starting_instant, intervals, _dirty: true }
    }

    proptest! {
        /// Each event is in one of the spells, and there are as many as the coarsest grain counts, or a
        /// finer one that reaches further.
        #[test]
        fn every_event_is_where_it_is_said_to_be(
            events in prop::collection::vec(
                prop_oneof![0..=90 * 86_400_i64, (0..3_000_i64).prop_map(|ago| 90 * 86_400 - ago)], 1..60),
            kept in (1_usize..400, 1_usize..90, 1_usize..5).prop_map(|(s, h, m)| [s, h, m]),
        ) {
            let counter = filled(&events, kept);
            let spells = counter.spells(TimeZone::UTC);
            let most = counter.intervals.values().map(|r| r.data.iter().map(|c| u64::from(*c)).sum::<u64>());
            let total: u64 = spells.iter().map(|spell| spell.count).sum();
            prop_assert_eq!(total, most.max().unwrap_or(0));
            // Each of the events that are not forgotten finds room, in the span that ends first.
            let mut left = spells.clone();
            left.sort_by_key(|spell| spell.end);
            let mut known = events.clone();
            known.sort_unstable();
            for event in known.iter().skip(events.len() - total as usize) {
                let event = Timestamp::from_secs(*event);
                let has = |s: &&mut Spell| {
                    let begun = s.start <= event;
                    s.count > 0 && begun && (event < s.end || s.end == counter.starting_instant)
                };
                let spell = left.iter_mut().find(has);
                let missing = || TestCaseError::fail(format!("{event} is in none of {spells:?}"));
                spell.ok_or_else(missing)?.count -= 1;
            }
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = TinyCounter::from_bincode(&bytes);
        }
    }
}
