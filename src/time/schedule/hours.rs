//! Hours: spans of the day, on days of the week, on dates. What a schedule is made of.
//!
//! Invariants, of hours in their normal form
//! 1. Spans are in order of their begins and none touches another, unless both together are a day or
//!    longer. A span is shorter than a day, or the whole of one.
//! 2. All seven days of the week are no restriction, and stand as none; nor are no dates.
//! 3. Ranges of dates are in order, and none touches another.
//! 4. No two hours of a schedule have the same days and dates.
//!
//! Next: `text.rs`.

use super::super::civil::{Date, Dates, TimeOfDay, Weekday, weekday0};
use super::super::grain::{DAY, SECOND};
use crate::error::{Error, Result};
use std::fmt;

/// Spans of the day, every day or on some days of the week or dates: what a
/// [`Schedule`](super::Schedule) is made of.
///
/// Days and dates that are both given must both hold. A span belongs to the day on which it begins,
/// also when it reaches into the next one.
///
/// ```
/// use quipu::{Hours, Weekday};
///
/// let nights = Hours::between("22:00", "06:00")?.on([Weekday::Friday, Weekday::Saturday]);
/// assert_eq!(nights.to_string(), "fri-sat 22:00-06:00");
/// let office = Hours::between("09:00", "12:00")?.and("13:00", "17:00")?.weekdays();
/// assert_eq!(office.to_string(), "mon-fri 09:00-12:00 13:00-17:00");
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hours {
    pub(super) dates: Vec<Dates>,
    pub(super) days: Option<Days>,
    pub(super) spans: Vec<Span>,
}

/// From one second of a day on to another one, which may be of the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    from: u32,
    to: u32,
}

/// Days of the week: bit 0 is Monday. They are ordered by the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Days(u8);

impl Hours {
    /// From 00:00 to 24:00.
    pub fn all_day() -> Self {
        Hours { dates: Vec::new(), days: None, spans: vec![Span::ALL_DAY] }
    }

    /// From one time of day to another, which is excluded. An end that is not behind the begin is on the
    /// next day; 24:00 is an end.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when a text is no time of day, when both are the
    /// same, and when it begins at 24:00.
    ///
    /// ```
    /// use quipu::{Hours, TimeOfDay};
    ///
    /// assert_eq!(Hours::between("10:00", "24:00")?.to_string(), "daily 10:00-24:00");
    /// let (six, seven) = (TimeOfDay::new(6, 0, 0)?, TimeOfDay::new(7, 0, 0)?);
    /// assert_eq!(Hours::between(six, seven)?, Hours::between("06:00", "07:00")?);
    /// assert!(Hours::between("10:00", "10:00").is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn between<T>(from: T, to: T) -> Result<Self>
    where
        T: TryInto<TimeOfDay>,
        T::Error: fmt::Display,
    {
        Hours { dates: Vec::new(), days: None, spans: Vec::new() }.and(from, to)
    }

    /// Another span, on the same days.
    ///
    /// # Errors
    /// Those of [`Hours::between`].
    pub fn and<T>(mut self, from: T, to: T) -> Result<Self>
    where
        T: TryInto<TimeOfDay>,
        T::Error: fmt::Display,
    {
        let time = |of: T| of.try_into().map_err(|error| Error::invalid(error.to_string()));
        self.spans.push(Span::new(time(from)?, time(to)?)?);
        Ok(self)
    }

    /// On these days of the week, and those that were named before.
    pub fn on(mut self, days: impl IntoIterator<Item = Weekday>) -> Self {
        let named = self.days.unwrap_or_default();
        self.days = Some(days.into_iter().fold(named, Days::with));
        self
    }

    /// On Monday to Friday.
    pub fn weekdays(self) -> Self {
        self.on(Weekday::ALL[..5].iter().copied())
    }

    /// On Saturday and Sunday.
    pub fn weekends(self) -> Self {
        self.on(Weekday::ALL[5..].iter().copied())
    }

    /// On this date, or these dates, the last included, and those that were named before.
    ///
    /// ```
    /// use quipu::{Date, Hours};
    ///
    /// let advent = Date::new(2026, 11, 29)?..=Date::new(2026, 12, 23)?;
    /// let late = Hours::between("10:00", "22:00")?.dates(advent).weekends();
    /// assert_eq!(late.to_string(), "2026-11-29..2026-12-23 sat-sun 10:00-22:00");
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn dates(mut self, dates: impl Into<Dates>) -> Self {
        self.dates.push(dates.into());
        self
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        self.spans.iter().copied()
    }

    /// How many spans and ranges of dates.
    pub(super) fn parts(&self) -> usize {
        self.spans.len() + self.dates.len()
    }

    /// Checks hours and puts them into their normal form, in an order that does not depend on theirs.
    pub(super) fn normal(mut all: Vec<Hours>) -> Result<Vec<Hours>> {
        for hours in &mut all {
            if hours.days == Some(Days(0)) {
                return Err(Error::invalid(
                    "hours on no day of the week never begin; name some, like mon-fri, or none for \
                     every day",
                ));
            }
            hours.days = hours.days.filter(|days| *days != Days::ALL);
            hours.dates = tidied(&hours.dates)?;
        }
        let order = |a: &Hours, b: &Hours| (&a.dates, a.days).cmp(&(&b.dates, b.days));
        all.sort_by(order);
        let mut normal: Vec<Hours> = Vec::with_capacity(all.len());
        for hours in all {
            match normal.last_mut() {
                Some(last) if (&last.dates, last.days) == (&hours.dates, hours.days) => {
                    last.spans.extend(hours.spans);
                }
                _ => normal.push(hours),
            }
        }
        for hours in &mut normal {
            hours.spans = united(&hours.spans);
        }
        Ok(normal)
    }

    /// Whether they hold on this date, if it is one of their days of the week.
    pub(super) fn hold_on(&self, date: i64) -> bool {
        self.dates.is_empty() || place(&self.dates, date).is_some()
    }

    /// Whether spans begin on this date.
    pub(super) fn begin_on(&self, date: i64) -> bool {
        self.days.is_none_or(|days| days.has(weekday0(date))) && self.hold_on(date)
    }

    /// The first date from `date` on, on which spans begin.
    pub(super) fn next_date(&self, date: i64) -> Option<i64> {
        let on_weekday = |date: i64| {
            let days = self.days.unwrap_or(Days::ALL);
            (date..date + 7).find(|date| days.has(weekday0(*date)))
        };
        if self.dates.is_empty() {
            return on_weekday(date);
        }
        let later = &self.dates[self.dates.partition_point(|dates| dates.last.number() < date)..];
        later.iter().find_map(|dates| {
            let named = on_weekday(date.max(dates.first.number()));
            named.filter(|named| *named <= dates.last.number())
        })
    }

    /// The last date to which they hold, or do not, as they do on `date`.
    pub(super) fn same_until(&self, date: i64) -> i64 {
        match self.dates.get(self.dates.partition_point(|dates| dates.last.number() < date)) {
            None => i64::MAX,
            Some(dates) if dates.first.number() > date => dates.first.number() - 1,
            Some(dates) => dates.last.number(),
        }
    }
}

/// Whether these hours are open around the clock, all week, on dates on which they hold.
pub(super) fn covers_week<'a>(hours: impl Iterator<Item = &'a Hours>) -> bool {
    const DAY: u32 = 86_400;
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for hours in hours {
        let days = hours.days.unwrap_or(Days::ALL);
        for (day, span) in (0..7).flat_map(|day| hours.spans().map(move |span| (day, span))) {
            if days.has(day) {
                let begin = day as u32 * DAY;
                spans.push((begin + span.from, begin + span.to));
                // The end of Sunday's night is on Monday.
                spans.push((0, (begin + span.to).saturating_sub(7 * DAY)));
            }
        }
    }
    spans.sort_unstable();
    let mut covered = 0;
    for (from, to) in spans {
        if from <= covered {
            covered = covered.max(to);
        }
    }
    covered >= 7 * DAY
}

/// The range that `day` is in.
pub(super) fn place(ranges: &[Dates], day: i64) -> Option<usize> {
    let at = ranges.partition_point(|dates| dates.last.number() < day);
    ranges.get(at).filter(|dates| dates.first.number() <= day).map(|_| at)
}

/// The same dates, in order, with what touches in one range.
pub(super) fn tidied(ranges: &[Dates]) -> Result<Vec<Dates>> {
    if let Some(Dates { first, last }) = ranges.iter().find(|dates| dates.first > dates.last) {
        return Err(Error::invalid(format!(
            "{first}..{last} ends before it begins; write {last}..{first}"
        )));
    }
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable();
    let touch = |a: Date, b: Date| b <= a || a.is_before(b);
    ranges.dedup_by(|next, before| {
        let one = touch(before.last, next.first);
        if one {
            before.last = before.last.max(next.last);
        }
        one
    });
    Ok(ranges)
}

/// The same spans, in order, with what touches in one, if that is a span.
fn united(spans: &[Span]) -> Vec<Span> {
    let mut spans = spans.to_vec();
    spans.sort_unstable();
    spans.dedup_by(|next, before| {
        let union = Span { from: before.from, to: before.to.max(next.to) };
        let one = next.from <= before.to && union.is_span();
        if one {
            *before = union;
        }
        one
    });
    spans
}

impl Span {
    const ALL_DAY: Span = Span { from: 0, to: TimeOfDay::END.seconds() };

    fn new(from: TimeOfDay, to: TimeOfDay) -> Result<Self> {
        if from == TimeOfDay::END {
            return Err(Error::invalid(format!(
                "{from}-{to} begins where its day ends; write 00:00-{to} on the day after"
            )));
        }
        if from == to {
            return Err(Error::invalid(format!(
                "{from}-{to} is no span: begin and end are the same; a whole day is 00:00-24:00"
            )));
        }
        let day = TimeOfDay::END.seconds();
        let over = if to < from { day } else { 0 };
        Ok(Span { from: from.seconds(), to: to.seconds() + over })
    }

    /// Whether it is shorter than a day, or the whole of one.
    fn is_span(self) -> bool {
        self.to - self.from < Self::ALL_DAY.to || self == Self::ALL_DAY
    }

    /// Begin and end on the clock, as they are written.
    pub(super) fn ends(self) -> (TimeOfDay, TimeOfDay) {
        (TimeOfDay::wrapped(self.from), TimeOfDay::wrapped(self.to))
    }

    /// Begin and end on the wall when it begins on this date, in microseconds as if it were UTC.
    pub(super) fn walls(self, date: i64) -> (i64, i64) {
        let at = |seconds: u32| date.saturating_mul(DAY) + i64::from(seconds) * SECOND;
        (at(self.from), at(self.to))
    }
}

impl Days {
    const ALL: Days = Days(0b111_1111);

    fn with(self, day: Weekday) -> Self {
        Days(self.0 | 1 << day as u8)
    }

    /// Whether the `day`th one, from Monday as 0, is one of them.
    pub(super) fn has(self, day: usize) -> bool {
        self.0 >> day & 1 == 1
    }
}

impl Ord for Days {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Read from Monday on, as a word: a day is less than none.
        (!self.0.reverse_bits()).cmp(&!other.0.reverse_bits())
    }
}

impl PartialOrd for Days {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
