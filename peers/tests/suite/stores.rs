//! The two stores behind one trait.
//!
//! Next: `model.rs`.

use crate::words::*;
use chrono::{DateTime, Duration, Utc};
use quipu::Grain;
use quipu_peers::adapter;
use std::sync::Arc;
use tiny_counter::TimeUnit;

pub trait Store {
    fn open(grains: Grains, now: i64) -> Self;
    fn set(&self, now: i64);
    /// Whether it was recorded.
    fn record(&self, step: &Step) -> bool;
    fn ask(&self, ask: &Ask) -> Answer;
}

pub fn moment(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a moment")
}

pub struct Quipu {
    pub store: adapter::EventStore,
    pub clock: quipu::TestClock,
}

pub fn grain(unit: Unit) -> Grain {
    match unit {
        Second => Grain::Second,
        Minute => Grain::Minute,
        Hour => Grain::Hour,
        Day => Grain::Day,
        Week => Grain::Week,
        Month => Grain::Month,
        Year => Grain::Year,
    }
}

/// Names the grains of a builder: both builders have the same words.
macro_rules! tracked {
    ($builder:expr, $grains:expr) => {
        $grains.iter().fold($builder, |builder, (unit, count)| match unit {
            Second => builder.track_seconds(*count),
            Minute => builder.track_minutes(*count),
            Hour => builder.track_hours(*count),
            Day => builder.track_days(*count),
            Week => builder.track_weeks(*count),
            Month => builder.track_months(*count),
            Year => builder.track_years(*count),
        })
    };
}
pub(crate) use tracked;

/// `last_...(n)` in a unit: all questions have the same words.
macro_rules! last {
    ($query:expr, $n:expr, $unit:expr) => {
        match $unit {
            Second => $query.last_seconds($n),
            Minute => $query.last_minutes($n),
            Hour => $query.last_hours($n),
            Day => $query.last_days($n),
            Week => $query.last_weeks($n),
            Month => $query.last_months($n),
            Year => $query.last_years($n),
        }
    };
}

/// A range of a question of one counter.
macro_rules! range {
    ($query:expr, $stretch:expr) => {
        match $stretch {
            Last(n, unit) => last!($query, n, unit),
            Ever => $query.ever(),
            Days(from, to) => $query.days(from..to),
            DaysFrom(from) => $query.days_from(from),
            DaysFromTake(from, n) => $query.days_from(from).take(n),
        }
    };
}

/// A range of a question of several.
macro_rules! range_of_several {
    ($query:expr, $stretch:expr) => {
        match $stretch {
            Last(n, unit) => last!($query, n, unit),
            Ever => $query.ever(),
            other => panic!("several counters have no {other:?}"),
        }
    };
}

impl Store for Quipu {
    fn open(grains: Grains, now: i64) -> Self {
        let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(now));
        let builder = adapter::EventStore::builder().with_clock(Arc::new(clock.clone()));
        Quipu { store: tracked!(builder, grains).build().expect("good grains"), clock }
    }

    fn set(&self, now: i64) {
        self.clock.set(quipu::Timestamp::from_secs(now));
    }

    fn record(&self, step: &Step) -> bool {
        let store = &self.store;
        match *step {
            Record(name, 1) => store.record(name).is_ok(),
            Record(name, n) => store.record_count(name, n).is_ok(),
            Ago(name, 1, ago) => store.record_ago(name, Duration::seconds(ago)).is_ok(),
            Ago(name, n, ago) => store.record_count_ago(name, n, Duration::seconds(ago)).is_ok(),
            At(name, 1, at) => store.record_at(name, moment(seconds(at))).is_ok(),
            At(name, n, at) => store.record_count_at(name, n, moment(seconds(at))).is_ok(),
            Balance(positive, negative) => store.balance_delta(positive, negative).is_ok(),
            Advance(_) => panic!("the clock is set"),
        }
    }

    fn ask(&self, ask: &Ask) -> Answer {
        let store = &self.store;
        let age = |age: Option<Duration>| age.map_or(Nothing, |age| Age(age.num_seconds()));
        let back = |back: Option<usize>| count_or_nothing(back.map(|back| back as u64));
        let answer = match *ask {
            Sum([name], stretch) => range!(store.query(name), stretch).sum().map(count_or_nothing),
            Sum(names, stretch) => {
                range_of_several!(store.query_many(names), stretch).sum().map(count_or_nothing)
            }
            Average([name], stretch) => {
                range!(store.query(name), stretch).average().map(number_or_nothing)
            }
            Average(names, stretch) => {
                range_of_several!(store.query_many(names), stretch).average().map(number_or_nothing)
            }
            AverageActive(name, stretch) => {
                range!(store.query(name), stretch).average_nonzero().map(number_or_nothing)
            }
            Active(name, stretch) => range!(store.query(name), stretch).count_nonzero().map(back),
            Buckets(name, stretch) => range!(store.query(name), stretch).into_buckets().map(Counts),
            LastBack(name, stretch) => range!(store.query(name), stretch).last_seen().map(back),
            FirstBack(name, stretch) => range!(store.query(name), stretch).first_seen().map(back),
            LastSeen(name) => store.query(name).last_seen().map(age),
            FirstSeen(name) => store.query(name).first_seen().map(age),
            FirstSeenIn(name, unit) => store.query(name).first_seen_in(grain(unit)).map(age),
            Ratio(a, b, stretch) => {
                range_of_several!(store.query_ratio(a, b), stretch).map(number_or_nothing)
            }
            Delta(a, b, stretch) => {
                range_of_several!(store.query_delta(a, b), stretch).sum().map(Difference)
            }
            DeltaAverage(a, b, stretch) => {
                range_of_several!(store.query_delta(a, b), stretch).average().map(Number)
            }
        };
        answer.unwrap_or(Refused)
    }
}

pub struct TinyCounter {
    pub store: tiny_counter::EventStore,
    pub clock: tiny_counter::TestClock,
}

pub fn unit(unit: Unit) -> TimeUnit {
    match unit {
        Second => TimeUnit::Seconds,
        Minute => TimeUnit::Minutes,
        Hour => TimeUnit::Hours,
        Day => TimeUnit::Days,
        Week => TimeUnit::Weeks,
        Month => TimeUnit::Months,
        Year => TimeUnit::Years,
    }
}

fn narrow(n: u64) -> u32 {
    u32::try_from(n).expect("tiny-counter takes counts of 32 bits")
}

impl Store for TinyCounter {
    fn open(grains: Grains, now: i64) -> Self {
        crate::utc();
        let clock = tiny_counter::TestClock::build_for_testing_at(moment(now));
        let builder = tiny_counter::EventStore::builder().with_clock(Arc::new(clock.clone()));
        TinyCounter { store: tracked!(builder, grains).build().expect("good grains"), clock }
    }

    fn set(&self, now: i64) {
        self.clock.set(moment(now));
    }

    fn record(&self, step: &Step) -> bool {
        let store = &self.store;
        match *step {
            Record(name, 1) => store.record(name),
            Record(name, n) => store.record_count(name, narrow(n)),
            Ago(name, 1, ago) => store.record_ago(name, Duration::seconds(ago)),
            Ago(name, n, ago) => store.record_count_ago(name, narrow(n), Duration::seconds(ago)),
            At(name, 1, at) => return store.record_at(name, moment(seconds(at))).is_ok(),
            At(name, n, at) => {
                return store.record_count_at(name, narrow(n), moment(seconds(at))).is_ok();
            }
            Balance(positive, negative) => {
                return store.balance_delta(positive, negative).is_ok();
            }
            Advance(_) => panic!("the clock is set"),
        }
        true
    }

    fn ask(&self, ask: &Ask) -> Answer {
        let store = &self.store;
        let age = |age: Option<Duration>| age.map_or(Nothing, |age| Age(age.num_seconds()));
        let wide = |count: Option<u32>| count_or_nothing(count.map(u64::from));
        let back = |back: Option<usize>| count_or_nothing(back.map(|back| back as u64));
        match *ask {
            Sum([name], stretch) => wide(range!(store.query(*name), stretch).sum()),
            Sum(names, stretch) => wide(range_of_several!(store.query_many(names), stretch).sum()),
            Average([name], stretch) => {
                number_or_nothing(range!(store.query(*name), stretch).average())
            }
            Average(names, stretch) => {
                number_or_nothing(range_of_several!(store.query_many(names), stretch).average())
            }
            AverageActive(name, stretch) => {
                number_or_nothing(range!(store.query(name), stretch).average_nonzero())
            }
            Active(name, stretch) => back(range!(store.query(name), stretch).count_nonzero()),
            Buckets(name, stretch) => {
                let buckets = range!(store.query(name), stretch).into_buckets();
                Counts(buckets.into_iter().map(u64::from).collect())
            }
            LastBack(name, stretch) => back(range!(store.query(name), stretch).last_seen()),
            FirstBack(name, stretch) => back(range!(store.query(name), stretch).first_seen()),
            LastSeen(name) => age(store.query(name).last_seen()),
            FirstSeen(name) => age(store.query(name).first_seen()),
            FirstSeenIn(name, of) => age(store.query(name).first_seen_in(unit(of))),
            Ratio(a, b, stretch) => {
                number_or_nothing(range_of_several!(store.query_ratio(a, b), stretch))
            }
            Delta(a, b, stretch) => {
                let delta = range_of_several!(store.query_delta(a, b), stretch).sum();
                Difference(i128::from(delta))
            }
            DeltaAverage(a, b, stretch) => {
                Number(range_of_several!(store.query_delta(a, b), stretch).average())
            }
        }
    }
}
