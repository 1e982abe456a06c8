//! Schedules: when something is open, by the clock and the calendar of a time zone; and when it opens
//! and closes next.
//!
//! Invariants
//! 1. A [`Schedule`] that exists was checked: it has hours, each of them has spans, days and dates on
//!    which one can begin, and there are at most [`Limits::SCHEDULE_PARTS`] parts. It is in its normal
//!    form (`hours.rs`), and reading what it displays gives it back (`text.rs`).
//! 2. A span from wall time `a` to wall time `b` is open from `reaches(a)` to `passes(b)`: from the
//!    first moment at which the clocks show `a` or later, to the one from which on they never show less
//!    than `b`. Where `a <= b` then `reaches(a) <= passes(b)`, so spans that touch on the clock touch in
//!    time, whatever the zone does.
//! 3. No moment of an excepted day is open, the day being that of [`Grain::Day`].
//! 4. Every search goes forward, by a span, an edge of dates or a change of the zone a step, and each
//!    has finitely many of them before the last accepted moment.
//!
//! A moment of day n (the least date that the clocks show from it on) lies in no span that begins
//! before the date n - 1, because spans are at most a day long; and in none that begins behind n + 1,
//! because clocks were never put back by more than a day.
//!
//! Next: `schedule/hours.rs`.

mod hours;
mod text;

pub use hours::Hours;

use super::civil::{Date, Dates};
use super::grain::DAY;
use super::{Grain, TimeZone, Timestamp};
use crate::error::{Error, Result};
use crate::event::Limits;
use hours::{covers_week, place, tidied};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// When something is open: hours of the day, on days of the week, on dates, in a time zone, with
/// exceptions.
///
/// It is open in every span of any of its [`Hours`], but not on the dates that are
/// [excepted](Schedule::except). A span is open at its first moment and closed at its last.
///
/// ```
/// use quipu::{Date, Hours, Schedule, Timestamp, Weekday};
///
/// let shop = Schedule::new([
///     Hours::between("09:00", "17:30")?.weekdays(),
///     Hours::between("10:00", "24:00")?.on([Weekday::Saturday]),
/// ])?
/// .except(Date::new(2026, 12, 25)?)?
/// .in_zone("Europe/Berlin".parse()?);
/// let text = "mon-fri 09:00-17:30, sat 10:00-24:00 in Europe/Berlin; except 2026-12-25";
/// assert_eq!(shop.to_string(), text);
/// assert_eq!(text.parse::<Schedule>()?, shop);
///
/// // Thursday, six in the evening; Friday is Christmas.
/// let evening = Timestamp::parse_rfc3339("2026-12-24T18:00:00+01:00")?;
/// assert!(!shop.is_open(evening));
/// let opens = shop.opens(evening).unwrap();
/// assert_eq!(opens, Timestamp::parse_rfc3339("2026-12-26T10:00:00+01:00")?);
/// assert_eq!(shop.closes(opens), Some(Timestamp::parse_rfc3339("2026-12-27T00:00:00+01:00")?));
/// # Ok::<(), quipu::Error>(())
/// ```
///
/// # As text
///
/// [`Display`](std::fmt::Display) writes and `FromStr` reads the form in which a schedule is written on a
/// command line, serialized and stored:
///
/// ```text
/// schedule = hours { "," hours } [ "in" zone ] [ ";" "except" dates { dates } ]
/// hours    = { dates } { days } span { span }  |  "always"
/// dates    = 2026-12-24  |  2026-12-24..2026-12-31           the last one included
/// days     = mon  |  mon-fri  |  weekdays  |  weekends  |  daily
/// span     = 09:00-17:30  |  22:00-06:00  |  10:00-24:00     with seconds: 09:00:30-17:30
/// ```
///
/// What belongs together has a space between it, what does not a comma: `mon wed 09:00-12:00
/// 13:00-17:00` has both spans on both days. Hours always say their spans, and their days or dates; only
/// where there are no others `22:00-06:00` may stand for `daily 22:00-06:00`. Also read are: names of
/// days in full and in capitals, ranges over the weekend (`fri-mon`), another order inside of hours, `9:00`, `;` in
/// place of `,`, commas between excepted dates, and `in` behind `except`.
///
/// # Nights
///
/// A span whose end is not behind its begin goes on to the next day: `22:00-06:00`. It belongs to the
/// day on which it begins: `fri 22:00-06:00` is open until Saturday morning, and not in the night before
/// Friday. The same with dates.
///
/// # Where clocks change
///
/// A span is between two times on the wall. Where the clocks are put forward over one of them, it begins,
/// or ends, when they are; nothing is open that lies in the gap as a whole. Where they are put back, so
/// that a time comes twice, a span begins when its begin comes the first time and ends when its end
/// comes the second time, and is open all the while in between. So `sun 00:00-24:00` has 23
/// hours, or 25; spans that touch, like `09:00-12:00` and `12:00-17:00`, never leave a gap;
/// and of a date that a zone left out (Apia, 2011-12-30) only what reaches into the next day is there.
///
/// # Costs
///
/// With n parts (spans, ranges of dates, excepted ranges), [`is_open`](Schedule::is_open) looks at
/// the spans of three dates, O(n) at most; [`opens`](Schedule::opens) at a few dates more and, for each of
/// the hours, at every range of dates and of exceptions that it skips; [`closes`](Schedule::closes) at
/// each span that follows without a gap, but it goes over stretches of dates on which it is open around
/// the clock in one step. How far away the answer lies does not matter. Nothing is allocated but by
/// `closes`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Schedule {
    hours: Vec<Hours>,
    except: Vec<Dates>,
    zone: Option<TimeZone>,
}

/// The last date on which a span can begin that a moment can be in: a day behind that of
/// [`Timestamp::MAX`] in the zones that are ahead.
const LAST_DAY: i64 = Timestamp::MAX.micros() / DAY + 1;

impl Schedule {
    /// Open at every moment.
    ///
    /// ```
    /// use quipu::{Schedule, Timestamp};
    ///
    /// assert!(Schedule::always().is_open(Timestamp::from_secs(0)));
    /// assert_eq!(Schedule::always().closes(Timestamp::from_secs(0)), None);
    /// ```
    pub fn always() -> Self {
        Schedule { hours: vec![Hours::all_day()], except: Vec::new(), zone: None }
    }

    /// Open in all these hours.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when there are none, when there is no day or no
    /// date on which some of them begin, when a range of dates ends before it begins, and when there are
    /// more than [`Limits::SCHEDULE_PARTS`] parts.
    ///
    /// ```
    /// use quipu::{Date, Hours, Schedule};
    ///
    /// let summer = Date::new(2026, 7, 1)?..=Date::new(2026, 8, 31)?;
    /// let lunch = Hours::between("09:00", "12:00")?.and("13:00", "17:00")?;
    /// let open = Schedule::new([lunch.weekdays().dates(summer)])?;
    /// assert_eq!(open.to_string(), "2026-07-01..2026-08-31 mon-fri 09:00-12:00 13:00-17:00");
    ///
    /// let monday = Date::new(2026, 7, 6)?;
    /// assert!(Schedule::new([Hours::all_day().weekends().dates(monday)]).is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn new(hours: impl IntoIterator<Item = Hours>) -> Result<Self> {
        // More are an error anyway.
        let hours = hours.into_iter().take(Limits::SCHEDULE_PARTS + 1).collect();
        Schedule { hours, except: Vec::new(), zone: None }.checked()
    }

    /// Closed on this date, or on these dates, from the first moment to the last: no span begins on
    /// them, and one that reaches in from the evening before ends at midnight. The night that would
    /// begin on the last of them is closed, too.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when a range ends before it begins, when nothing
    /// is left of some hours, and when there are more than [`Limits::SCHEDULE_PARTS`] parts.
    ///
    /// ```
    /// use quipu::{Date, Schedule};
    ///
    /// let holidays = Date::new(2026, 12, 24)?..=Date::new(2027, 1, 1)?;
    /// let open = Schedule::always().except(holidays)?;
    /// assert_eq!(open.to_string(), "always; except 2026-12-24..2027-01-01");
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn except(mut self, dates: impl Into<Dates>) -> Result<Self> {
        self.except.push(dates.into());
        self.checked()
    }

    /// By the clocks of this time zone.
    ///
    /// ```
    /// use quipu::{Schedule, TimeZone, Timestamp};
    ///
    /// let night: Schedule = "22:00-06:00".parse()?;
    /// let moment = Timestamp::parse_rfc3339("2026-07-01T20:30:00Z")?;
    /// assert!(!night.is_open(moment)); // UTC, where no other zone is given
    /// assert!(night.in_zone("Europe/Berlin".parse()?).is_open(moment));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// By the clocks of this time zone, where it has none of its own: what has a default zone, as a
    /// store has ([`Options::time_zone`](crate::Options::time_zone)), gives it to schedules in this way.
    ///
    /// ```
    /// use quipu::{Schedule, TimeZone};
    ///
    /// let berlin: TimeZone = "Europe/Berlin".parse()?;
    /// let night: Schedule = "22:00-06:00".parse()?;
    /// assert_eq!(night.clone().or_in_zone(berlin).zone(), Some(berlin));
    /// assert_eq!(night.in_zone(TimeZone::UTC).or_in_zone(berlin).zone(), Some(TimeZone::UTC));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn or_in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = self.zone.or(Some(zone));
        self
    }

    /// The time zone that it was given. Without one the clocks are those of UTC.
    pub fn zone(&self) -> Option<TimeZone> {
        self.zone
    }

    /// Whether it is open at this moment. At moments that are not accepted
    /// ([`Timestamp::MIN`] to [`Timestamp::MAX`] are) it is not.
    ///
    /// ```
    /// use quipu::{Schedule, Timestamp};
    ///
    /// let office: Schedule = "weekdays 09:00-17:30 in America/New_York".parse()?;
    /// assert!(office.is_open(Timestamp::parse_rfc3339("2026-03-02T09:00:00-05:00")?));
    /// assert!(!office.is_open(Timestamp::parse_rfc3339("2026-03-02T17:30:00-05:00")?));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn is_open(&self, at: Timestamp) -> bool {
        if at < Timestamp::MIN || at > Timestamp::MAX {
            return false;
        }
        let day = self.day(at.micros());
        place(&self.except, day).is_none() && self.ends(at.micros(), day).next().is_some()
    }

    /// The first moment from `at` on at which it is open: `at`, if it is; `None`, if it never is until
    /// [`Timestamp::MAX`].
    ///
    /// It is closed at every moment from `at` on before the answer, and open at it.
    ///
    /// ```
    /// use quipu::{Schedule, Timestamp};
    ///
    /// // At 02:00 the clocks of New York are put forward to 03:00.
    /// let open: Schedule = "sun 02:30-05:00 in America/New_York".parse()?;
    /// let saturday = Timestamp::parse_rfc3339("2026-03-07T12:00:00-05:00")?;
    /// let opens = Timestamp::parse_rfc3339("2026-03-08T03:00:00-04:00")?;
    /// assert_eq!(open.opens(saturday), Some(opens));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn opens(&self, at: Timestamp) -> Option<Timestamp> {
        let from = at.max(Timestamp::MIN).micros();
        let first = self.day(from) - 1;
        let each = self.hours.iter().filter_map(|hours| self.first_open(hours, from, first));
        each.min().map(Timestamp::from_micros).filter(|opens| *opens <= Timestamp::MAX)
    }

    /// The first moment from `at` on at which it is closed: `at`, if it is; `None`, if it never is until
    /// [`Timestamp::MAX`].
    ///
    /// It is open at every moment from `at` on before the answer, and closed at it.
    ///
    /// ```
    /// use quipu::{Schedule, Timestamp};
    ///
    /// let open: Schedule = "mon-fri 00:00-24:00".parse()?;
    /// let tuesday = Timestamp::parse_rfc3339("2026-12-01T12:00:00Z")?;
    /// assert_eq!(open.closes(tuesday), Some(Timestamp::parse_rfc3339("2026-12-05T00:00:00Z")?));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn closes(&self, at: Timestamp) -> Option<Timestamp> {
        let mut at = at.max(Timestamp::MIN);
        while at <= Timestamp::MAX {
            let day = self.day(at.micros());
            if place(&self.except, day).is_some() {
                return Some(at);
            }
            let around = self.open_around_the_clock(day);
            let Some(end) = around.or_else(|| self.ends(at.micros(), day).max()) else {
                return Some(at);
            };
            let excepted = self.except.get(self.except.partition_point(|d| d.last.number() < day));
            let excepted = excepted.map(|dates| self.clock().passes(dates.first.number() * DAY));
            at = Timestamp::from_micros(excepted.map_or(end, |start| start.min(end)));
        }
        None
    }

    /// When it is open in `range`: spans of which each ends before the next one begins, the first and
    /// the last cut where they reach out of it. They are found one by one, as they are asked for.
    ///
    /// ```
    /// use quipu::{Schedule, Timestamp};
    /// use std::time::Duration;
    ///
    /// let open: Schedule = "mon-fri 09:00-12:00 13:00-17:00 in Europe/Berlin".parse()?;
    /// let monday = Timestamp::parse_rfc3339("2026-11-30T00:00:00+01:00")?;
    /// let week = monday..monday.saturating_add(Duration::from_hours(7 * 24));
    /// let hours = open.spans(week).map(|span| span.end.micros() - span.start.micros());
    /// assert_eq!(hours.sum::<i64>(), 35 * 3_600_000_000);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn spans(&self, range: Range<Timestamp>) -> impl Iterator<Item = Range<Timestamp>> {
        // Behind the last accepted moment nothing is open.
        let behind = Timestamp::from_micros(Timestamp::MAX.micros() + 1);
        let end = range.end.min(behind);
        let mut from = range.start;
        std::iter::from_fn(move || {
            let start = self.opens(from).filter(|start| *start < end)?;
            from = self.closes(start).unwrap_or(behind);
            Some(start..from.min(end))
        })
    }

    fn clock(&self) -> TimeZone {
        self.zone.unwrap_or_default()
    }

    fn day(&self, at: i64) -> i64 {
        self.clock().bucket(Grain::Day, Timestamp::from_micros(at))
    }

    /// The moments of a span that begins on this date (invariant 2). None, if the end is not behind
    /// the start.
    fn moments(&self, span: hours::Span, date: i64) -> Range<i64> {
        let (from, to) = span.walls(date);
        self.clock().reaches(from)..self.clock().passes(to)
    }

    /// Where the spans end that the moment `at` of `day`, which is not excepted, lies in.
    fn ends(&self, at: i64, day: i64) -> impl Iterator<Item = i64> {
        let begun = (day - 1..=day + 1).filter(|date| place(&self.except, *date).is_none());
        begun.flat_map(move |date| {
            let hours = self.hours.iter().filter(move |hours| hours.begin_on(date));
            let spans = hours.flat_map(Hours::spans);
            let moments = spans.map(move |span| self.moments(span, date));
            moments.filter(move |moments| moments.contains(&at)).map(|moments| moments.end)
        })
    }

    /// The first moment from `from` on in a span of these hours that begins on the date `first` or later.
    ///
    /// Spans come in the order in which they begin; so do their first moments that are not excepted.
    fn first_open(&self, hours: &Hours, from: i64, first: i64) -> Option<i64> {
        let mut next = first;
        while let Some(date) = self.next_begin(hours, next) {
            for span in hours.spans() {
                let moments = self.moments(span, date);
                let mut open = from.max(moments.start);
                // An evening before excepted dates that ended when it had come.
                while open < moments.end
                    && let Some(at) = place(&self.except, self.day(open))
                {
                    open = self.clock().passes((self.except[at].last.number() + 1) * DAY);
                }
                if open < moments.end {
                    return Some(open);
                }
            }
            next = date + 1;
        }
        None
    }

    /// The first date from `date` on, on which spans of these hours begin.
    fn next_begin(&self, hours: &Hours, date: i64) -> Option<i64> {
        let mut date = date;
        while date <= LAST_DAY {
            let named = hours.next_date(date)?;
            match place(&self.except, named) {
                None if named <= LAST_DAY => return Some(named),
                None => return None,
                Some(at) => date = self.except[at].last.number() + 1,
            }
        }
        None
    }

    /// Where a stretch of dates ends that `day` is in, on all of which, and on the one before it, the same hours
    /// hold, none is excepted, and those hours are open around the clock; `None`, if there is none.
    ///
    /// Every wall time of those dates lies in a span that begins on its date or the one before, and
    /// spans that touch leave no gap (invariant 2).
    fn open_around_the_clock(&self, day: i64) -> Option<i64> {
        let before = day - 1;
        let except = self.except.get(self.except.partition_point(|d| d.last.number() < before));
        let mut last = except.map_or(i64::MAX, |dates| dates.first.number() - 1);
        for hours in &self.hours {
            last = last.min(hours.same_until(before));
        }
        let held = self.hours.iter().filter(|hours| hours.hold_on(before));
        (last >= day && covers_week(held)).then(|| {
            // Behind the last day there is no accepted moment.
            if last > LAST_DAY { i64::MAX } else { self.clock().passes((last + 1) * DAY) }
        })
    }

    /// Checks it and puts it into its normal form (invariant 1).
    fn checked(mut self) -> Result<Self> {
        if self.hours.is_empty() {
            return Err(Error::invalid(
                "a schedule without hours is never open; give some, like mon-fri 09:00-17:30",
            ));
        }
        let parts = self.hours.iter().map(Hours::parts).sum::<usize>() + self.except.len();
        if parts > Limits::SCHEDULE_PARTS {
            return Err(Error::invalid(format!(
                "a schedule has at most {} spans, ranges of dates and excepted ones together, this one \
                 more",
                Limits::SCHEDULE_PARTS
            )));
        }
        self.except = tidied(&self.except)?;
        self.hours = Hours::normal(std::mem::take(&mut self.hours))?;
        for hours in &self.hours {
            if hours.next_date(Date::MIN.number()).is_none() {
                return Err(Error::invalid(format!(
                    "`{hours}` never begins: none of the dates is such a day of the week; leave out \
                     the days or name other dates"
                )));
            }
            let begin = self.next_begin(hours, Date::MIN.number());
            if begin.is_none_or(|date| date > Date::MAX.number()) {
                return Err(Error::invalid(format!(
                    "`{hours}` never begins: every date of it is excepted; leave out these hours, or \
                     except fewer dates"
                )));
            }
        }
        Ok(self)
    }
}

impl Serialize for Schedule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Stored as its text.
impl bincode::Encode for Schedule {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.to_string().encode(encoder)
    }
}

impl<C> bincode::Decode<C> for Schedule {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let text = String::decode(decoder)?;
        text.parse().map_err(|e: Error| bincode::error::DecodeError::OtherString(e.to_string()))
    }
}

bincode::impl_borrow_decode!(Schedule);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_schedule_is_stored_as_its_text_and_checked_when_it_is_read() {
        let text = "mon-fri 09:00-17:30, sat 10:00-24:00 in Europe/Berlin; except 2026-12-25";
        let schedule: Schedule = text.parse().unwrap();
        let bytes = codec::encode(&schedule);
        assert_eq!(bytes, codec::encode(&text.to_owned()));
        assert_eq!(codec::decode::<Schedule>(&bytes), Ok(schedule));
        let never = codec::encode(&"2026-12-25 sat 09:00-10:00".to_owned());
        assert!(codec::decode::<Schedule>(&never).is_err());
    }

    #[test]
    fn a_day_begins_when_its_first_time_has_passed() {
        for name in ["America/St_Johns", "Pacific/Apia", "America/Sao_Paulo", "Asia/Kolkata"] {
            let zone: TimeZone = name.parse().unwrap();
            for day in -40_000..50_000 {
                let start = zone.start(Grain::Day, day).micros();
                assert_eq!(zone.passes(day * DAY), start, "{name} {day}");
                assert!(zone.reaches(day * DAY) <= start, "{name} {day}");
            }
        }
    }
}
