//! The text form of schedules: what is written on a command line, and what is stored.
//!
//! The grammar is in the documentation of [`Schedule`]. Reading gives what the calls give that build a
//! schedule, and is checked by the same code; what is written is the normal form.
//!
//! Hours that do not say their spans, or (beside others) not their days, are refused, although they
//! would have a meaning. In `mon, wed 09:00-17:00` and in `mon-fri 09:00-12:00, 13:00-17:00` a comma
//! stands where a space belongs, and the meaning would not be the one that was meant.
//!
//! Next: `event.rs`.

use super::super::civil::{Dates, Weekday};
use super::hours::{Days, Hours};
use super::{Schedule, TimeZone};
use crate::error::{Error, Result};
use crate::event::{Limits, abridged};
use std::fmt;

/// `2026-11-29..2026-12-23 sat-sun 10:00-22:00`.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for dates in &self.dates {
            write!(f, "{gap}{dates}")?;
            gap = " ";
        }
        match self.days {
            None if self.dates.is_empty() => {
                f.write_str("daily")?;
                gap = " ";
            }
            None => {}
            Some(days) => write_days(f, days, &mut gap)?,
        }
        for span in self.spans() {
            let (from, to) = span.ends();
            write!(f, "{gap}{from}-{to}")?;
            gap = " ";
        }
        Ok(())
    }
}

/// `mon wed-fri`.
fn write_days(f: &mut fmt::Formatter<'_>, days: Days, gap: &mut &str) -> fmt::Result {
    let mut day = 0;
    while day < 7 {
        let first = day;
        while day < 7 && days.has(day) {
            day += 1;
        }
        if day > first {
            write!(f, "{gap}{}", Weekday::ALL[first])?;
            *gap = " ";
        }
        if day > first + 1 {
            write!(f, "-{}", Weekday::ALL[day - 1])?;
        }
        day += 1;
    }
    Ok(())
}

/// `mon-fri 09:00-17:30, sat 10:00-24:00 in Europe/Berlin; except 2026-12-25`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hours == [Hours::all_day()] {
            f.write_str("always")?;
        } else {
            for (i, hours) in self.hours.iter().enumerate() {
                write!(f, "{}{hours}", if i == 0 { "" } else { ", " })?;
            }
        }
        if let Some(zone) = self.zone {
            write!(f, " in {zone}")?;
        }
        for (i, dates) in self.except.iter().enumerate() {
            write!(f, "{} {dates}", if i == 0 { "; except" } else { "" })?;
        }
        Ok(())
    }
}

/// As it displays.
impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads the form described at [`Schedule`].
impl std::str::FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        read(text).map_err(|error| {
            Error::invalid(format!("the schedule {}: {}", abridged(text), error.message()))
        })
    }
}

/// What is read next.
enum Part {
    Hours,
    Zone,
    Except,
    /// Behind the zone.
    End,
}

fn read(text: &str) -> Result<Schedule> {
    let mut all: Vec<Draft> = Vec::new();
    let mut hours = Draft::default();
    let mut zone = None;
    let mut except: Option<Vec<Dates>> = None;
    let mut part = Part::Hours;
    for (count, word) in words(text).enumerate() {
        // A part is one word, or a few with its days and commas.
        if count > 16 * Limits::SCHEDULE_PARTS {
            return refuse(format!("it has more than {} parts", Limits::SCHEDULE_PARTS));
        }
        let separates = word == "," || word == ";";
        match part {
            Part::Zone => {
                zone = Some(word.parse::<TimeZone>()?);
                part = Part::End;
            }
            _ if word.eq_ignore_ascii_case("in") => {
                if zone.is_some() {
                    return refuse("a second time zone; there is one for all hours");
                }
                part = Part::Zone;
            }
            _ if word.eq_ignore_ascii_case("except") => {
                if except.is_some() {
                    return refuse("a second `except`; name all dates behind one");
                }
                except = Some(Vec::new());
                part = Part::Except;
            }
            Part::Hours if separates => all.push(std::mem::take(&mut hours)),
            _ if separates => {}
            Part::Hours => hours.read(word)?,
            Part::Except => except.get_or_insert_default().push(word.parse()?),
            Part::End => {
                return refuse(format!(
                    "{} behind the time zone, which stands behind all hours; what may follow is \
                     `; except` and dates",
                    abridged(word)
                ));
            }
        }
    }
    if matches!(part, Part::Zone) {
        return refuse("no time zone behind `in`; names are like Europe/Berlin");
    }
    if except.as_ref().is_some_and(Vec::is_empty) {
        return refuse("no dates behind `except`; write them like 2026-12-25");
    }
    all.push(hours);
    // Nothing between two separators, as before `; except`.
    all.retain(|draft| !draft.is_empty());
    let alone = all.len() == 1;
    let hours = all.into_iter().map(|draft| draft.finish(alone)).collect::<Result<_>>()?;
    Schedule { hours, except: except.unwrap_or_default(), zone }.checked()
}

/// What stands between white space; commas and semicolons are words of their own.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let pieces = text.split_inclusive([',', ';']).flat_map(|piece| {
        let end = piece.len() - usize::from(piece.ends_with([',', ';']));
        [&piece[..end], &piece[end..]]
    });
    pieces.flat_map(str::split_whitespace)
}

fn refuse<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::invalid(what))
}

/// Hours as they are read, word by word.
struct Draft {
    hours: Hours,
    says_days: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            hours: Hours { dates: Vec::new(), days: None, spans: Vec::new() },
            says_days: false,
        }
    }
}

impl Draft {
    fn is_empty(&self) -> bool {
        !self.says_days && self.hours.spans.is_empty()
    }

    fn read(&mut self, word: &str) -> Result<()> {
        let hours = std::mem::replace(&mut self.hours, Draft::default().hours);
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        self.hours = if word.contains(':') {
            let Some((from, to)) = word.split_once('-') else {
                return refuse(format!(
                    "{} is no span of hours; they are two times with a - between, like 09:00-17:30",
                    abridged(word)
                ));
            };
            hours.and(from, to)?
        } else {
            self.says_days = true;
            if word.starts_with(|c: char| c.is_ascii_digit()) {
                hours.dates(word.parse::<Dates>().map_err(|error| {
                    Error::invalid(format!("{}, spans like 09:00-17:30", error.message()))
                })?)
            } else if is("always") {
                hours.on(Weekday::ALL).and("00:00", "24:00")?
            } else if is("daily") {
                hours.on(Weekday::ALL)
            } else if is("weekdays") {
                hours.weekdays()
            } else if is("weekends") {
                hours.weekends()
            } else {
                hours.on(days(word)?)
            }
        };
        Ok(())
    }

    /// `alone`: there are no others.
    fn finish(self, alone: bool) -> Result<Hours> {
        let hours = self.hours;
        if hours.spans.is_empty() {
            return refuse(format!(
                "`{hours}` says no hours; write `{hours} 00:00-24:00` for all day, and what has the \
                 same hours beside each other, as in `mon wed 09:00-17:00`"
            ));
        }
        if !self.says_days && !alone {
            return refuse(format!(
                "hours without days beside others; write `{hours}`, and spans of the same days \
                 beside each other, as in `mon-fri 09:00-12:00 13:00-17:00`"
            ));
        }
        Ok(hours)
    }
}

/// `mon`, or `mon-fri`, which may go on behind Sunday.
fn days(word: &str) -> Result<impl Iterator<Item = Weekday>> {
    let day = |text: &str| {
        text.parse::<Weekday>().map_err(|_| {
            Error::invalid(format!(
                "{} is no part of a schedule; there are days (mon, mon-fri, weekdays, weekends, \
                 daily), dates (2026-12-24, 2026-12-24..2026-12-31), spans (09:00-17:30), `in` a \
                 time zone, and `except` dates",
                abridged(word)
            ))
        })
    };
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (day(first)?, day(last)?);
    let ahead = (last as usize + 7 - first as usize) % 7;
    Ok(Weekday::ALL.into_iter().cycle().skip(first as usize).take(ahead + 1))
}
