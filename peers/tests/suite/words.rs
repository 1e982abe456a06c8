//! The words of a script: what is recorded, what is asked, what is answered. A script runs on any store.
//!
//! Next: `stores.rs`.

use crate::faults::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

pub use Unit::{Day, Hour, Minute, Month, Second, Week, Year};

pub type Grains = &'static [(Unit, usize)];

/// What both keep when they are not told otherwise.
pub const DEFAULT: Grains =
    &[(Minute, 60), (Hour, 72), (Day, 56), (Week, 52), (Month, 12), (Year, 4)];

pub type Names = &'static [&'static str];

/// Buckets of a range, as they are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Stretch {
    Last(usize, Unit),
    Ever,
    Days(usize, usize),
    DaysFrom(usize),
    DaysFromTake(usize, usize),
}

pub use Stretch::{Days, DaysFrom, DaysFromTake, Ever, Last};

/// Times are in seconds.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Record(&'static str, u64),
    /// So many, so long ago.
    Ago(&'static str, u64, i64),
    /// So many, at a moment of RFC 3339.
    At(&'static str, u64, &'static str),
    Advance(i64),
    Balance(&'static str, &'static str),
}

pub use Step::{Advance, Ago, At, Balance, Record};

#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Sum(Names, Stretch),
    Average(Names, Stretch),
    AverageActive(&'static str, Stretch),
    Active(&'static str, Stretch),
    Buckets(&'static str, Stretch),
    /// The last and the first bucket with events, counted back.
    LastBack(&'static str, Stretch),
    FirstBack(&'static str, Stretch),
    LastSeen(&'static str),
    FirstSeen(&'static str),
    FirstSeenIn(&'static str, Unit),
    Ratio(&'static str, &'static str, Stretch),
    Delta(&'static str, &'static str, Stretch),
    DeltaAverage(&'static str, &'static str, Stretch),
}

pub use Ask::{
    Active, Average, AverageActive, Buckets, Delta, DeltaAverage, FirstBack, FirstSeen,
    FirstSeenIn, LastBack, LastSeen, Ratio, Sum,
};

#[derive(Clone, Debug)]
pub enum Answer {
    /// Never heard of, or nothing to divide by.
    Nothing,
    /// Events, or buckets.
    Count(u64),
    Number(f64),
    Difference(i128),
    Counts(Vec<u64>),
    Age(i64),
    /// An error, which says why.
    Refused,
}

pub use Answer::{Age, Count, Counts, Difference, Nothing, Number, Refused};

/// Numbers are equal when they print alike to twelve digits: the two sum up in different orders.
impl PartialEq for Answer {
    fn eq(&self, other: &Answer) -> bool {
        match (self, other) {
            (Number(a), Number(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
            (Count(a), Count(b)) => a == b,
            (Difference(a), Difference(b)) => a == b,
            (Counts(a), Counts(b)) => a == b,
            (Age(a), Age(b)) => a == b,
            (Nothing, Nothing) | (Refused, Refused) => true,
            _ => false,
        }
    }
}

pub fn count_or_nothing(count: Option<u64>) -> Answer {
    count.map_or(Nothing, Count)
}

pub fn number_or_nothing(number: Option<f64>) -> Answer {
    number.map_or(Nothing, Number)
}

/// A line of a case.
#[derive(Clone, Debug)]
pub enum Line {
    Do(Step),
    /// Both answer this.
    Both(Ask, Answer),
    /// The right answer; that of tiny-counter is by chance.
    Right(Ask, Answer),
    /// The right answer, and what tiny-counter says, which is wrong for this reason.
    PutRight(Ask, Answer, Answer, Fault),
}

pub use Line::{Both, Do, PutRight, Right};

pub struct Case {
    pub name: &'static str,
    pub grains: Grains,
    pub now: &'static str,
    pub lines: Vec<Line>,
}

/// A Wednesday in summer, with everything before it that is asked for.
pub const NOW: &str = "2025-06-18T10:20:30Z";

/// With the default grains, at [`NOW`].
pub fn case(name: &'static str, lines: Vec<Line>) -> Case {
    Case { name, grains: DEFAULT, now: NOW, lines }
}

pub fn with(name: &'static str, grains: Grains, now: &'static str, lines: Vec<Line>) -> Case {
    Case { name, grains, now, lines }
}

pub fn seconds(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).expect("a moment").timestamp()
}

pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 86_400;
pub const WEEK: i64 = 7 * DAY;
