//! The report of a load for people: 80 columns, plain text, block characters.
//!
//! 1. No line is wider than [`WIDTH`] columns.
//! 2. The same on a terminal and in a file; nothing is coloured, nothing moves.

use std::io::{self, Write};

use quipu::{Row, Timestamp};

use crate::number::{self, fixed, grouped, padded, shortened, visible};
use crate::report::{self, Period, Ranking, Report, Shares, ViewLine};
use crate::spark;

/// The widest line.
const WIDTH: usize = 80;
/// One of two columns.
const HALF: usize = WIDTH / 2 - 2;
/// The widest name of a view.
const NAME_WIDTH_MAX: usize = 40;
/// Up to so many days are shown by hour.
const DAYS_BY_HOUR_MAX: usize = 3;

impl Report {
    /// Writes it as text.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_load(out)?;
        self.write_state(out)?;
        if let Some(top) = &self.top {
            write_ranking(out, top)?;
        }
        if let Some(shares) = &self.shares {
            write_shares(out, shares)?;
        }
        if self.days.len() <= DAYS_BY_HOUR_MAX && self.hours.len() > 1 {
            write_chart(out, "hour", &self.hours)
        } else {
            write_chart(out, "day", &self.days)
        }
    }

    fn write_load(&self, out: &mut impl Write) -> io::Result<()> {
        let load = &self.load;
        let tally = &load.tally;
        let files = match load.files.as_slice() {
            [file] => file.clone(),
            files => format!("{} files", files.len()),
        };
        writeln!(
            out,
            "{} events recorded in {} ({}/s)",
            grouped(tally.recorded),
            number::micros((load.seconds * 1e6) as u64),
            grouped(load.events_per_second)
        )?;
        writeln!(
            out,
            "from {} ({})",
            shortened(&visible(&files), WIDTH - 18),
            number::bytes(load.bytes)
        )?;
        writeln!(
            out,
            "{} read, {} bad, {} duplicates passed over{}",
            grouped(tally.read),
            grouped(tally.bad),
            grouped(tally.duplicates),
            if tally.late > 0 { format!(", {} late", grouped(tally.late)) } else { String::new() }
        )
    }

    fn write_state(&self, out: &mut impl Write) -> io::Result<()> {
        let minute = |at: Timestamp| number::instant(&at.to_string()).chars().take(16).collect();
        writeln!(out)?;
        writeln!(out, "{}", shortened(&visible(&self.directory), WIDTH))?;
        write!(out, "{} events", grouped(self.events))?;
        if let (Some(from), Some(to)) = (self.from, self.to) {
            let (from, to): (String, String) = (minute(from), minute(to));
            write!(out, " from {from} to {to} UTC")?;
        }
        writeln!(out)?;
        let name = |view: &ViewLine| shortened(&visible(&view.name), NAME_WIDTH_MAX).into_owned();
        let width = self.views.iter().map(|view| number::width(&name(view))).max().unwrap_or(0);
        for view in &self.views {
            let key = view.key.join(", ");
            let keys = match view.key.as_slice() {
                [] => "no key".to_owned(),
                _ => format!("{} keys", grouped(view.keys)),
            };
            let line = format!("  {}  {keys:>18}  ", padded(&name(view), width));
            writeln!(out, "{}", fitted(&line, &visible(&key)))?;
        }
        Ok(())
    }
}

fn write_ranking(out: &mut impl Write, top: &Ranking) -> io::Result<()> {
    let dimension = visible(&top.dimension);
    writeln!(out)?;
    let count = |row: &Row| row.count as f64;
    let by_count = column(&format!("Top {dimension} by count"), &top.by_count, count);
    let Some(measure) = &top.measure else {
        return by_count.iter().try_for_each(|line| writeln!(out, "{}", line.trim_end()));
    };
    let sum = |row: &Row| row.summary().map_or(f64::NAN, |summary| summary.sum);
    let title = format!("Top {dimension} by sum of {}", visible(measure));
    let by_sum = column(&title, &top.by_sum, sum);
    for i in 0..by_sum.len().max(by_count.len()) {
        let [left, right] = [&by_sum, &by_count].map(|lines| lines.get(i).map_or("", |l| l));
        writeln!(out, "{}", format!("{}{right}", padded(left, WIDTH - HALF)).trim_end())?;
    }
    Ok(())
}

/// A title and the keys of rows with a number each, [`HALF`] wide.
fn column(title: &str, rows: &[Row], value: impl Fn(&Row) -> f64) -> Vec<String> {
    let decimals = number::decimals(rows.iter().map(&value));
    let line = |row: &Row| {
        let number = fixed(value(row), decimals);
        let room = HALF.saturating_sub(number.len() + 4);
        format!("  {}  {number}", padded(&key_text(row, room), room))
    };
    let title = shortened(title, HALF).into_owned();
    std::iter::once(title).chain(rows.iter().map(line)).collect()
}

fn write_shares(out: &mut impl Write, shares: &Shares) -> io::Result<()> {
    let dimension = visible(&shares.dimension);
    let value = |row: &Row| match (&shares.measure, row.summary()) {
        (Some(_), Some(summary)) => summary.sum,
        _ => row.count as f64,
    };
    let what = match &shares.measure {
        Some(measure) => format!("Sum of {}", visible(measure)),
        None => "Events".to_owned(),
    };
    let title = match shares.keys as usize - shares.rows.len().min(shares.keys as usize) {
        0 => format!("{what} by {dimension}"),
        _ => format!(
            "{what} by {dimension}, first {} of {}",
            shares.rows.len(),
            grouped(shares.keys)
        ),
    };
    writeln!(out, "\n{}", shortened(&title, WIDTH))?;
    let largest = shares.rows.iter().map(value).fold(0.0, f64::max);
    let decimals = number::decimals(shares.rows.iter().map(value));
    let texts: Vec<_> = shares
        .rows
        .iter()
        .map(|row| (key_text(row, 26), fixed(value(row), decimals), value(row)))
        .collect();
    let keys = texts.iter().map(|text| number::width(&text.0)).max().unwrap_or(0);
    let numbers = texts.iter().map(|text| text.1.len()).max().unwrap_or(0);
    let room = WIDTH.saturating_sub(keys + numbers + 14);
    for (key, number, x) in texts {
        let share = match x / shares.total * 100.0 {
            share if shares.total > 0.0 => format!("{share:6.1} %"),
            _ => " ".repeat(8),
        };
        let line = format!(
            "  {}  {number:>numbers$}{share}  {}",
            padded(&key, keys),
            spark::bar(x / largest, room)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A row of small columns over the periods from the first to the last, the empty ones included.
fn write_chart(out: &mut impl Write, unit: &str, periods: &[Period]) -> io::Result<()> {
    let (Some(first), Some(last)) = (periods.first(), periods.last()) else { return Ok(()) };
    let Some(peak) = periods.iter().rev().max_by_key(|period| period.count) else { return Ok(()) };
    let room = WIDTH as i64 - 4;
    let span = last.number - first.number + 1;
    if span < 2 {
        return Ok(());
    }
    let step = (span - 1) / room + 1;
    let mut columns = vec![0; ((span - 1) / step + 1) as usize];
    for period in periods {
        columns[((period.number - first.number) / step) as usize] += period.count;
    }
    let text = |number: i64| match unit {
        "hour" => report::period_text(number, report::HOUR_MICROS, ":00.000Z"),
        _ => report::day_text(number),
    };
    let each = if step > 1 { format!(", each column {step} {unit}s") } else { String::new() };
    writeln!(
        out,
        "\nEvents by {unit}{each} (most: {} on {})",
        grouped(peak.count),
        text(peak.number)
    )?;
    writeln!(out, "  {}", spark::line(&columns).trim_end())?;
    let (from, to) = (text(first.number), text(last.number));
    let gap = columns.len().saturating_sub(from.len() + to.len()).max(4);
    writeln!(out, "  {from}{:gap$}{to}", "")
}

/// A line and as much of a text as fits behind it.
fn fitted(line: &str, text: &str) -> String {
    let room = WIDTH.saturating_sub(number::width(line));
    format!("{line}{}", shortened(text, room)).trim_end().to_owned()
}

/// The key of a row of one dimension in so many columns.
fn key_text(row: &Row, width_max: usize) -> String {
    let key = row.key.join(", ");
    let key = if key.is_empty() { "(empty)".to_owned() } else { visible(&key).into_owned() };
    shortened(&key, width_max).into_owned()
}
