//! Holds every event and counts anew for each answer: what is right. Beside it, what tiny-counter makes
//! of the same script, as far as that can be said: its faults, written down.
//!
//! Next: `faults.rs`.

use crate::words::*;
use chrono::Datelike;
use std::collections::BTreeMap;

pub struct Model {
    grains: Vec<(Unit, usize)>,
    now: i64,
    events: BTreeMap<&'static str, Vec<Event>>,
    /// What tiny-counter takes for known.
    touched: Vec<&'static str>,
}

struct Event {
    time: i64,
    count: u64,
    recorded: i64,
}

/// The number of the bucket of UTC that a moment is in.
pub fn bucket(unit: Unit, time: i64) -> i64 {
    let date = crate::stores::moment(time).date_naive();
    match unit {
        Second => time,
        Minute => time.div_euclid(MINUTE),
        Hour => time.div_euclid(HOUR),
        Day => time.div_euclid(DAY),
        // 1970 began on a Thursday.
        Week => (time.div_euclid(DAY) + 3).div_euclid(7),
        Month => i64::from(date.year()) * 12 + i64::from(date.month0()),
        Year => i64::from(date.year()),
    }
}

/// Buckets counted back, most recent first.
type Back = std::ops::Range<usize>;

impl Model {
    pub fn new(grains: Grains, now: i64) -> Self {
        let mut grains = grains.to_vec();
        grains.sort();
        Model { grains, now, events: BTreeMap::new(), touched: Vec::new() }
    }

    pub fn now(&self) -> i64 {
        self.now
    }

    pub fn set(&mut self, now: i64) {
        self.now = now;
    }

    /// Whether it is recorded.
    pub fn record(&mut self, step: &Step) -> bool {
        let (name, count, time) = match step {
            Record(name, n) => (*name, *n, self.now),
            Ago(name, n, ago) => (*name, *n, self.now - ago),
            At(name, n, at) => (*name, *n, seconds(at)),
            Balance(a, b) => {
                let (of_a, of_b) = (self.ever(a).unwrap_or(0), self.ever(b).unwrap_or(0));
                let (name, n) = (if of_a > of_b { *b } else { *a }, of_a.abs_diff(of_b));
                return n == 0 || self.record(&Record(name, n));
            }
            Advance(_) => panic!("the clock is set"),
        };
        self.touched.push(name);
        if count == 0 || time > self.now {
            return false;
        }
        let recorded = self.now;
        self.events.entry(name).or_default().push(Event { time, count, recorded });
        true
    }

    fn kept(&self, unit: Unit) -> Option<usize> {
        self.grains.iter().find(|(kept, _)| *kept == unit).map(|(_, n)| *n)
    }

    fn coarsest(&self) -> Unit {
        self.grains.last().expect("a grain").0
    }

    fn of<'a>(&'a self, names: &'a [&str]) -> Option<impl Iterator<Item = &'a Event>> {
        let is_known = names.iter().any(|name| self.events.contains_key(name));
        let mut once: Vec<&str> = names.to_vec();
        once.sort_unstable();
        once.dedup();
        is_known.then(|| once.into_iter().filter_map(|name| self.events.get(name)).flatten())
    }

    fn ever(&self, name: &str) -> Option<u64> {
        self.of(&[name]).map(|events| events.map(|event| event.count).sum())
    }

    /// The range in a unit; nothing where it cannot be answered.
    fn range(&self, stretch: Stretch) -> Option<(Unit, Back)> {
        let (unit, back) = match stretch {
            Last(n, unit) => (unit, 0..n),
            Days(from, to) => (Day, from..to),
            DaysFrom(from) => (Day, from..self.kept(Day)?),
            DaysFromTake(from, n) => (Day, from..from + n),
            Ever => panic!("ever is no range of buckets"),
        };
        (!back.is_empty() && back.end <= self.kept(unit)?).then_some((unit, back))
    }

    /// Counts of a range by bucket, most recent first.
    fn counts(&self, names: &[&str], stretch: Stretch) -> Result<Option<Vec<u64>>, ()> {
        let (unit, back) = match stretch {
            Ever => {
                let unit = self.coarsest();
                let Some(events) = self.of(names) else { return Ok(None) };
                let first = events.map(|event| event.time).min().expect("an event");
                // Of each name nothing may be let go.
                let kept = self.kept(unit).expect("kept") as i64;
                for name in names {
                    let Some(events) = self.events.get(name) else { continue };
                    let numbers = || events.iter().map(|event| bucket(unit, event.time));
                    if numbers().max() >= numbers().min().map(|first| first + kept) {
                        return Err(());
                    }
                }
                let back = bucket(unit, self.now) - bucket(unit, first) + 1;
                (unit, 0..back as usize)
            }
            other => self.range(other).ok_or(())?,
        };
        let Some(events) = self.of(names) else { return Ok(None) };
        let mut counts = vec![0; back.len()];
        for event in events {
            let ago = (bucket(unit, self.now) - bucket(unit, event.time)) as usize;
            if back.contains(&ago) {
                counts[ago - back.start] += event.count;
            }
        }
        Ok(Some(counts))
    }

    fn sum(&self, names: &[&str], stretch: Stretch) -> Result<Option<u64>, ()> {
        if matches!(stretch, Ever) {
            return Ok(self.of(names).map(|events| events.map(|event| event.count).sum()));
        }
        Ok(self.counts(names, stretch)?.map(|counts| counts.iter().sum()))
    }

    /// What is right.
    #[allow(clippy::cast_precision_loss, reason = "an average is rounded")]
    pub fn ask(&self, ask: &Ask) -> Answer {
        let mean = |counts: &[u64]| counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let active = |counts: Vec<u64>| -> Vec<u64> {
            counts.into_iter().filter(|count| *count > 0).collect()
        };
        let place = |name: &'static str, stretch: Stretch, last: bool| {
            let from = match stretch {
                Ever | Last(..) => 0,
                Days(from, _) | DaysFrom(from) | DaysFromTake(from, _) => from,
            };
            let counts = self.counts(&[name], stretch)?;
            let at = counts.and_then(|counts| {
                let is_active = |count: &u64| *count > 0;
                if last {
                    counts.iter().position(is_active)
                } else {
                    counts.iter().rposition(is_active)
                }
            });
            Ok(count_or_nothing(at.map(|at| (from + at) as u64)))
        };
        let times = |name: &'static str| {
            self.events.get(name).map(|events| events.iter().map(|event| event.time))
        };
        let age = |time: Option<i64>| time.map_or(Nothing, |time| Age((self.now - time).max(0)));
        let answer = match *ask {
            Sum(names, stretch) => self.sum(names, stretch).map(count_or_nothing),
            Average(names, stretch) => {
                let counts = self.counts(names, stretch);
                counts.map(|counts| number_or_nothing(counts.map(|counts| mean(&counts))))
            }
            AverageActive(name, stretch) => self.counts(&[name], stretch).map(|counts| {
                let active = counts.map(active).filter(|active| !active.is_empty());
                number_or_nothing(active.map(|active| mean(&active)))
            }),
            Active(name, stretch) => {
                let counts = self.counts(&[name], stretch);
                counts.map(|c| count_or_nothing(c.map(|counts| active(counts).len() as u64)))
            }
            Buckets(name, stretch) => {
                self.counts(&[name], stretch).map(|counts| Counts(counts.unwrap_or_default()))
            }
            LastBack(name, stretch) => place(name, stretch, true),
            FirstBack(name, stretch) => place(name, stretch, false),
            LastSeen(name) => Ok(age(times(name).and_then(Iterator::max))),
            FirstSeen(name) => Ok(age(times(name).and_then(Iterator::min))),
            FirstSeenIn(name, unit) => {
                panic!("the model has no buckets of {name} to begin in {unit:?}")
            }
            Ratio(a, b, stretch) => self.both(a, b, stretch).map(|both| match both {
                (Some(a), Some(b)) if b > 0 => Number(a as f64 / b as f64),
                _ => Nothing,
            }),
            Delta(a, b, stretch) => self.delta(a, b, stretch).map(Difference),
            DeltaAverage(a, b, stretch) => {
                let n = if let Last(n, _) = stretch { n as f64 } else { 1.0 };
                self.delta(a, b, stretch).map(|delta| Number(delta as f64 / n))
            }
        };
        answer.unwrap_or(Refused)
    }

    #[allow(clippy::type_complexity)]
    fn both(
        &self,
        a: &'static str,
        b: &'static str,
        stretch: Stretch,
    ) -> Result<(Option<u64>, Option<u64>), ()> {
        Ok((self.sum(&[a], stretch)?, self.sum(&[b], stretch)?))
    }

    fn delta(&self, a: &'static str, b: &'static str, stretch: Stretch) -> Result<i128, ()> {
        let (a, b) = self.both(a, b, stretch)?;
        Ok(i128::from(a.unwrap_or(0)) - i128::from(b.unwrap_or(0)))
    }
}

/// What tiny-counter says. Its guesses of times, and its weeks about the turn of a year, are not here.
impl Model {
    /// The bucket that tiny-counter puts an event into.
    fn taken_for(unit: Unit, event: &Event) -> i64 {
        let length = match unit {
            Second => 1,
            Minute => MINUTE,
            Hour => HOUR,
            Day | Week | Month | Year => return bucket(unit, event.time),
        };
        let present = bucket(unit, event.recorded);
        let start = present * length;
        let back = if event.time >= start { 0 } else { ((start - event.time) / length).max(1) };
        present - back
    }

    /// The unit and the buckets back of a range as tiny-counter reads it.
    fn read(&self, stretch: Stretch) -> (Unit, Back) {
        match stretch {
            Last(n, unit) => (unit, 0..n),
            Ever => (self.coarsest(), 0..usize::MAX),
            Days(from, to) => (Day, from..to),
            DaysFrom(from) => (Day, from..usize::MAX),
            DaysFromTake(from, n) => (Day, from..from + n),
        }
    }

    /// All that it keeps of a counter in a unit, most recent first; nothing where it knows neither.
    fn ring(&self, name: &str, unit: Unit) -> Option<Vec<u64>> {
        if !self.touched.contains(&name) {
            return None;
        }
        let mut ring = vec![0; self.kept(unit)?];
        for event in self.events.get(name).into_iter().flatten() {
            // What is too old when it is recorded is let go at once, in that grain.
            let at_once = (bucket(unit, event.recorded) - Self::taken_for(unit, event)) as usize;
            let back = (bucket(unit, self.now) - Self::taken_for(unit, event)) as usize;
            if at_once < ring.len() && back < ring.len() {
                ring[back] += event.count;
            }
        }
        Some(ring)
    }

    fn part(&self, name: &str, stretch: Stretch) -> Option<Vec<u64>> {
        let (unit, back) = self.read(stretch);
        let ring = self.ring(name, unit)?;
        let end = back.end.min(ring.len());
        Some(ring[back.start.min(end)..end].to_vec())
    }

    /// What tiny-counter answers; nothing where it guesses.
    pub fn tiny_counter(&self, ask: &Ask) -> Option<Answer> {
        let sum = |names: &[&str], stretch: Stretch| -> Option<u64> {
            let parts: Vec<Vec<u64>> =
                names.iter().filter_map(|name| self.part(name, stretch)).collect();
            (!parts.is_empty()).then(|| parts.iter().flatten().sum())
        };
        let wide = |stretch: Stretch| {
            let (_, back) = self.read(stretch);
            (back.end - back.start) as f64
        };
        let is_known = |name: &str| self.touched.contains(&name);
        Some(match *ask {
            Sum(names, stretch) => count_or_nothing(sum(names, stretch)),
            Average(names, stretch) => match sum(names, stretch) {
                None => Nothing,
                Some(0) => Number(0.0),
                Some(sum) => Number(sum as f64 / wide(stretch)),
            },
            AverageActive(name, stretch) => {
                let part = self.part(name, stretch).unwrap_or_default();
                let active: Vec<u64> = part.into_iter().filter(|count| *count > 0).collect();
                let mean = || active.iter().sum::<u64>() as f64 / active.len() as f64;
                number_or_nothing((!active.is_empty()).then(mean))
            }
            Active(name, stretch) => {
                let part = self.part(name, stretch).filter(|part| !part.is_empty());
                let active = |part: Vec<u64>| part.iter().filter(|count| **count > 0).count();
                count_or_nothing(part.map(|part| active(part) as u64))
            }
            Buckets(name, stretch) => Counts(self.part(name, stretch).unwrap_or_default()),
            LastBack(name, stretch) => {
                let ring = self.ring(name, self.read(stretch).0);
                let at = ring.and_then(|ring| ring.iter().position(|count| *count > 0));
                count_or_nothing(at.map(|at| at as u64))
            }
            FirstBack(name, stretch) => {
                let ring = self.ring(name, self.read(stretch).0);
                let at = ring.and_then(|ring| ring.iter().rposition(|count| *count > 0));
                count_or_nothing(at.map(|at| at as u64))
            }
            LastSeen(_) | FirstSeen(_) | FirstSeenIn(..) => return None,
            Ratio(a, b, stretch) => {
                let of = |name| sum(&[name], stretch).unwrap_or(0);
                let known = is_known(a) && is_known(b) && of(b) > 0;
                number_or_nothing(known.then(|| of(a) as f64 / of(b) as f64))
            }
            Delta(a, b, stretch) => {
                let of = |name| i128::from(sum(&[name], stretch).unwrap_or(0));
                Difference(of(a) - of(b))
            }
            DeltaAverage(a, b, stretch) => {
                let of = |name| i128::from(sum(&[name], stretch).unwrap_or(0));
                let wide = wide(stretch);
                Number(if wide > 0.0 { (of(a) - of(b)) as f64 / wide } else { 0.0 })
            }
        })
    }

    /// Whether buckets of the unit are kept.
    pub fn has_unit(&self, stretch: Stretch) -> bool {
        self.kept(self.read(stretch).0).is_some()
    }

    /// Whether tiny-counter has the same totals of two counters.
    pub fn knows_alike(&self, a: &'static str, b: &'static str) -> bool {
        [a, b].iter().all(|name| {
            let ring = self.ring(name, self.coarsest());
            let known: Option<u64> = ring.map(|ring| ring.iter().sum());
            known.unwrap_or(0) == self.ever(name).unwrap_or(0)
        }) && !self.has_odd_weeks()
    }

    /// Whether tiny-counter's weeks may be wrong: about the turn of a year, and after one of 53 weeks. They
    /// can then begin in the future, where a late event is refused by them, after some of the other grains
    /// have counted it: which is by chance.
    pub fn has_odd_weeks(&self) -> bool {
        let all = || self.events.values().flatten().flat_map(|e| [e.time, e.recorded, self.now]);
        let week = |time: i64| crate::stores::moment(time).iso_week();
        let is_turn = |time: i64| matches!(week(time).week(), 1 | 52 | 53);
        // A counter begins with the first of January of the year that it is made in.
        let january = |time: i64| crate::stores::moment(time).with_ordinal(1).expect("a day");
        let years = || all().flat_map(|t| [week(t).year(), january(t).iso_week().year()]);
        let mut turned = years().min().unwrap_or(0)..years().max().unwrap_or(0);
        // The 28th of December is in the last week of its year.
        let is_long = |year: i32| {
            let date = chrono::NaiveDate::from_ymd_opt(year, 12, 28).expect("a date");
            date.iso_week().week() == 53
        };
        self.kept(Week).is_some() && (all().any(is_turn) || turned.any(is_long))
    }
}
