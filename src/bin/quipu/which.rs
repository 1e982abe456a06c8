//! Of which keys, of which time and of what a sketch is asked, and how its answers are written.
//!
//! 1. No key is all keys together, a part of one those that begin with it; with `--each` every key
//!    answers for itself.
//! 2. Every figure has its bounds beside it, and whether it is exact, in every form.
//! 3. Rows are written as they are found: of many keys there is one sketch at a time.
//!
//! Next: `sketch.rs`, what is asked of them.

use std::io;

use clap::Args;
use quipu::aggregate::{Approx, Sketches};
use quipu::{Grain, RangeQuery, SeriesQuery, TimeZone, Timestamp, Total, View};

use crate::args::Output;
use crate::ask::{Answer, Asked, ViewArgs, grain};
use crate::failure::Failure;
use crate::instant::Moment;
use crate::number;
use crate::over_time::{Units, advised, no_such_key};
use crate::progress::say;
use crate::sheet::{Cell, Column, Extent, Sheet, millis};
use crate::table::Align;

/// Which keys, and when.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    /// The parts of the key, in the order of the view's dimensions; the first ones for all keys that
    /// begin so, none for all
    #[arg(value_name = "KEY")]
    key: Vec<String>,
    #[command(flatten)]
    when: WhenArgs,
}

/// Which time; all of it where nothing is said.
#[derive(Debug, Args)]
pub(crate) struct WhenArgs {
    /// The last so many units, the present one so far included: 500ms, 90s, 60m, 24h, 7d, 4w, 12mo, 2y
    /// [default: since ever]
    #[arg(long, value_name = "TIME", value_parser = Units::parse, conflicts_with = "from")]
    last: Option<Units>,
    /// The whole buckets from this time on: RFC 3339, a date in the directory's time zone, or milliseconds
    /// since 1970. Both ends must be those of buckets
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, requires = "to")]
    from: Option<Moment>,
    /// Up to this time, which is not in it
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, requires = "from")]
    to: Option<Moment>,
    /// In buckets of this grain [default: the unit of --last; of a span the view's finest]
    #[arg(long, value_name = "GRAIN", value_parser = grain)]
    grain: Option<quipu::Grain>,
    /// Take what is kept where that is less
    #[arg(long)]
    kept: bool,
}

impl WhenArgs {
    fn of(&self, series: &SeriesQuery, zone: TimeZone) -> Result<RangeQuery, Failure> {
        let range = match (self.last, self.from, self.to) {
            (Some(last), ..) => series.last(last.n, last.grain),
            (None, Some(from), Some(to)) => {
                let finest = series.view().grains().first().map(|(grain, _)| *grain);
                let grain = self.grain.or(finest).ok_or_else(|| {
                    Failure::usage(format!(
                        "the view {} keeps no buckets: it can be asked about all time only",
                        series.view().name()
                    ))
                })?;
                let (from, to) = (from.in_zone(zone), to.in_zone(zone));
                whole(from, to, grain, zone)?;
                series.between(from, to).by(grain)
            }
            _ if self.grain.is_some() => {
                return Err(Failure::usage("--grain is of --last, or of --from and --to"));
            }
            _ => series.ever(),
        };
        let range = match self.grain {
            Some(grain) if self.last.is_some() => range.by(grain),
            _ => range,
        };
        Ok(if self.kept { range.kept() } else { range })
    }

    /// What there is of a series in that time; `None` if there is no such series.
    fn total(&self, asked: &Asked, series: &SeriesQuery) -> Result<Option<Total>, Failure> {
        let range = self.of(series, asked.time_zone())?;
        let total = range.total().map_err(|error| advised(error, self.kept))?;
        if let Some(total) = total.as_ref().filter(|total| total.is_partial()) {
            say(&format!("what is kept begins with {}", told(total.known_from)));
        }
        Ok(total)
    }

    /// The same of one key or of several together. That nothing happened in that time is told, since
    /// what is asked for may be another time.
    pub(crate) fn total_of(
        &self,
        asked: &Asked,
        key: &[String],
        series: &SeriesQuery,
    ) -> Result<Total, Failure> {
        let missing = || no_such_key(asked.query.view().name(), key);
        let total = self.total(asked, series)?.ok_or_else(missing)?;
        if total.count == 0
            && let Some(seen) = series.last_seen()?
        {
            let whose = match key {
                [] => String::new(),
                key => format!(" of {}", number::key(key)),
            };
            let last = told(seen.time);
            say(&format!("hint: no events{whose} in that time; the last was at {last}"));
        }
        Ok(total)
    }
}

/// Refuses a range that cuts a bucket: of sketches no part of one can be told, and the answer would be that
/// of more than was asked for.
fn whole(from: Timestamp, to: Timestamp, grain: Grain, zone: TimeZone) -> Result<(), Failure> {
    let span = |moment| zone.span(grain, zone.bucket(grain, moment));
    let (first, last) = (span(from).start, span(to).start);
    if (first, last) == (from, to) || from >= to {
        return Ok(());
    }
    let end = if last == to { to } else { span(to).end };
    Err(Failure::new(format!(
        "the buckets are of a {grain}, and a part of one cannot be told from the rest of it: ask --from {} \
         --to {}, or in buckets of another --grain",
        millis(first),
        millis(end)
    )))
}

fn told(at: Timestamp) -> String {
    number::instant(&millis(at).to_string())
}

/// Takes the cells of one row.
pub(crate) type Take<'a> = dyn FnMut(&[Cell]) -> io::Result<()> + 'a;

impl WhichArgs {
    /// Gives the answer of all keys that are meant together, or the key and the answer of each.
    fn totals(
        &self,
        asked: &Asked,
        each: bool,
        mut give: impl FnMut(&[String], &Total) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let query = &asked.query;
        let mut key: Vec<&str> = self.key.iter().map(String::as_str).collect();
        if each {
            let mut is_there = false;
            for row in query.clone().without_sketches().prefix(&key)? {
                let row = row?;
                let parts: Vec<&str> = row.key.iter().map(String::as_str).collect();
                if let Some(total) = self.when.total(asked, &query.series(&parts)?)? {
                    is_there = true;
                    give(&row.key, &total)?;
                }
            }
            return if is_there { Ok(()) } else { Err(no_such_key(self.view.name(), &self.key)) };
        }
        let parts = query.view().key().len();
        let series = if key.len() == parts {
            query.series(&key)?
        } else if key.is_empty() {
            query.all_series()
        } else {
            if key.len() < parts {
                // Of the next part nothing is said.
                key.push("");
            }
            query.series_starting_with(&key)?
        };
        give(&[], &self.when.total_of(asked, &self.key, &series)?)
    }

    /// Writes an answer: the rows that `rows` makes of what there is of each key.
    pub(crate) fn write(
        &self,
        asked: Asked,
        each: bool,
        columns: &[(&'static str, u8)],
        extent: Extent,
        rows: impl Fn(&Sketches, &mut Take<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let names = each.then(|| asked.query.view().key().to_vec());
        let extent = if each { Extent::Many } else { extent };
        // What cannot be answered leaves no header behind.
        let mut begun: Option<Answer> = None;
        self.totals(&asked, each, |key, total| {
            let answer = match &mut begun {
                Some(answer) => answer,
                none => none.insert(start(self.view.output(), names.clone(), columns, extent)?),
            };
            rows(&total.sketches, &mut |cells| answer.row(key, cells))
        })?;
        match begun {
            Some(answer) => asked.finish(answer),
            None => Ok(()),
        }
    }
}

/// Starts an answer of these columns, each with its rank.
pub(crate) fn start(
    output: &Output,
    key: Option<Vec<String>>,
    columns: &[(&'static str, u8)],
    extent: Extent,
) -> Result<Answer, Failure> {
    let align = |name| match name {
        "item" => Align::Key,
        "percentile" | "seen" | "exact" => Align::Left,
        _ => Align::Right,
    };
    let column = |&(name, rank)| Column { name, align: align(name), rank };
    output.start(Sheet { key, columns: columns.iter().map(column).collect() }, extent)
}

/// A kind of sketch, and of what a view keeps it.
pub(crate) struct Kind {
    /// As in "the view keeps no ...".
    pub(crate) name: &'static str,
    /// The option that defines it.
    pub(crate) option: &'static str,
    /// The dimensions or measures.
    pub(crate) of: fn(&View) -> Vec<&str>,
}

impl Kind {
    /// Of which dimension or measure a view is asked: of its first where nothing is said.
    pub(crate) fn chosen(&self, asked: &Asked, of: Option<&String>) -> Result<String, Failure> {
        let view = asked.query.view();
        let names = self.names(view);
        match of {
            Some(of) if names.contains(&of.as_str()) => Ok(of.clone()),
            Some(of) if !names.is_empty() => Err(Failure::new(format!(
                "the view {} keeps no {} of {}; it does of: {}",
                view.name(),
                self.name,
                number::key(&[of]),
                names.join(", ")
            ))),
            None if !names.is_empty() => Ok(names[0].to_owned()),
            _ => self.none(asked),
        }
    }

    /// The dimensions or measures, each once.
    fn names<'a>(&self, view: &'a View) -> Vec<&'a str> {
        let mut names = Vec::new();
        for name in (self.of)(view) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The view has none; which others do.
    fn none(&self, asked: &Asked) -> Result<String, Failure> {
        let name = asked.query.view().name();
        let mut others = Vec::new();
        for status in asked.views()? {
            let names = self.names(&status.view);
            if !names.is_empty() {
                others.push(format!("{} (of {})", status.view.name(), names.join(", ")));
            }
        }
        let others = match others.as_slice() {
            [] => ", and no other does".to_owned(),
            others => format!("; these do: {}", others.join(", ")),
        };
        let failure = Failure::new(format!("the view {name} keeps no {}{others}", self.name));
        Err(failure.because(&format!(
            "hint: quipu define NAME {} --backfill makes a view that does",
            self.option
        )))
    }
}

/// The columns of [`counted`] behind the first.
pub(crate) const BOUNDS: [(&str, u8); 4] =
    [("lower", 1), ("upper", 2), ("exact", 3), ("confidence", 4)];

/// A number of things. It is a whole one, so the bounds are the whole ones within those that are known.
pub(crate) fn counted(answer: Approx) -> [Cell; 5] {
    let exact = answer.is_exact();
    let value = answer.value.round();
    let (lower, upper) = (answer.lower.ceil().min(value), answer.upper.floor().max(value));
    let [value, lower, upper] = [value, lower, upper].map(|number| Cell::Count(number as u64));
    let certain = if exact { 1.0 } else { answer.confidence };
    [value, lower, upper, Cell::Flag(exact), Cell::Number(certain)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_whole_things_are_whole_and_hold_the_value() {
        let of = |value, lower, upper| {
            let [value, lower, upper, exact, _] =
                counted(Approx { value, lower, upper, confidence: 0.5 });
            [value, lower, upper, exact]
        };
        let cells = |counts: [u64; 3], exact| {
            let [value, lower, upper] = counts.map(Cell::Count);
            [value, lower, upper, Cell::Flag(exact)]
        };
        assert_eq!(of(1.0, 0.998, 1.0), cells([1, 1, 1], false));
        assert_eq!(of(10.6, 9.2, 12.9), cells([11, 10, 12], false));
        assert_eq!(of(10.6, 10.5, 10.7), cells([11, 11, 11], false));
        assert_eq!(of(7.0, 7.0, 7.0), cells([7, 7, 7], false), "bounds that hold half of the time");
        assert_eq!(
            counted(Approx { confidence: 1.0, value: 7.0, lower: 7.0, upper: 7.0 })[3],
            Cell::Flag(true)
        );
        assert_eq!(of(0.0, f64::NEG_INFINITY, f64::INFINITY), cells([0, 0, u64::MAX], false));
    }
}
