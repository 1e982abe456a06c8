//! The questions to sketches about single items: `count-of` and `contains`.
//!
//! 1. Items are values of a dimension. They stand behind `--item`, since how many arguments are parts of
//!    the key nobody but the view knows; a `-` among them is all lines of standard input.
//! 2. Every item has one row, in the order in which they were given, also when it never came.
//! 3. The columns are the same whichever sketch has the answer.

use std::cell::Cell as Shared;
use std::io;

use clap::Args;
use quipu::aggregate::{Approx, Membership, Sketches};

use crate::failure::Failure;
use crate::lines::{LINE_BYTES_MAX, Line, Lines};
use crate::number;
use crate::progress::say;
use crate::sheet::{Cell, Extent};
use crate::which::{BOUNDS, Kind, WhichArgs, counted};

const COUNT_OF_EXAMPLES: &str = "\
Examples:
  quipu count-of urls --item /home /about --last 24h --dir app
  quipu count-of sold France --item 22423 --dir shop
  quipu count-of sold --each --item 22423 --format csv --dir shop
  cut -f1 urls.tsv | quipu count-of urls --item - --dir app

The view is defined with --count-min DIM, or --top DIM.";

const CONTAINS_EXAMPLES: &str = "\
Examples:
  quipu contains cards ann --item 4111-1111 --dir shop
  quipu contains cards --item 4111-1111 --last 30d --exit-code --dir shop
  quipu contains cards --item - --format csv --dir shop < numbers.txt

The view is defined with --membership DIM.";

/// How many events have certain values of a dimension
///
/// Of a count-min sketch the count is never too low, and not below `lower` with the confidence that is
/// told; of the top values it is between its bounds for sure. Where a view keeps both the narrower one answers.
#[derive(Debug, Args)]
#[command(after_help = COUNT_OF_EXAMPLES)]
pub(crate) struct CountOfArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    items: ItemArgs,
    /// The dimension, where the view has counts of several [default: its first]
    #[arg(long, value_name = "DIM")]
    of: Option<String>,
    /// Each key for itself, in key order
    #[arg(long)]
    each: bool,
}

/// Whether certain values of a dimension were seen before
///
/// A no is for sure. While there are few values a yes is, too; beyond that a value that never came is taken
/// for one that did with the rate that is told, a number from 0 to 1.
#[derive(Debug, Args)]
#[command(after_help = CONTAINS_EXAMPLES)]
pub(crate) struct ContainsArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    items: ItemArgs,
    /// The dimension, where the view has the values of several [default: its first]
    #[arg(long, value_name = "DIM")]
    of: Option<String>,
    /// Each key for itself, in key order
    #[arg(long)]
    each: bool,
    /// Exit with code 5 unless all of them were seen
    #[arg(long)]
    exit_code: bool,
}

/// Which values.
#[derive(Debug, Args)]
struct ItemArgs {
    /// The values; - for standard input, one a line; --item=-x for one that begins with a hyphen
    #[arg(long = "item", short, value_name = "ITEM", num_args = 1.., required = true,
        allow_negative_numbers = true)]
    items: Vec<String>,
}

impl ItemArgs {
    fn read(&self) -> Result<Vec<String>, Failure> {
        let mut items = Vec::new();
        for item in &self.items {
            match item.as_str() {
                "-" => read_lines(io::stdin().lock(), &mut items)?,
                item => items.push(item.to_owned()),
            }
        }
        Ok(items)
    }
}

/// Takes every line that is not empty, without what ends it.
fn read_lines(input: impl io::BufRead, items: &mut Vec<String>) -> Result<(), Failure> {
    const INPUT: &str = "standard input";
    let mut lines = Lines::new(input);
    loop {
        let number = lines.number() + 1;
        let wrong = |why: &str| Err(Failure::new(format!("{INPUT}, line {number}: {why}")));
        match lines.read().map_err(|error| Failure::file(INPUT, &error))? {
            None => return Ok(()),
            Some(Line::TooLong) => return wrong(&format!("longer than {LINE_BYTES_MAX} bytes")),
            Some(Line::Bytes(line)) => {
                match str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) {
                    Ok("") => {}
                    Ok(item) => items.push(item.to_owned()),
                    Err(_) => return wrong("it is not UTF-8, as all values are"),
                }
            }
        }
    }
}

/// Runs `count-of`.
pub(crate) fn count_of(args: &CountOfArgs) -> Result<(), Failure> {
    // Before the directory is opened: no lock is held while input is waited for.
    let items = args.items.read()?;
    let asked = args.which.view.ask()?;
    let kind = Kind {
        name: "count-min sketch or top",
        option: "--count-min DIM",
        of: |view| {
            let tops = view.top_dimensions().filter(|(_, by)| by.is_none());
            view.count_min_dimensions().chain(tops.map(|(of, _)| of)).collect()
        },
    };
    let of = kind.chosen(&asked, args.of.as_ref())?;
    let columns = [&[("item", 0), ("count", 0)][..], &BOUNDS].concat();
    args.which.write(asked, args.each, &columns, Extent::Many, |sketches, take| {
        for item in &items {
            let [count, lower, upper, exact, confidence] = counted(count(sketches, &of, item));
            take(&[Cell::Text(item.clone()), count, lower, upper, exact, confidence])?;
        }
        Ok(())
    })
}

/// The narrowest of what is known.
fn count(sketches: &Sketches, of: &str, item: &str) -> Approx {
    let top = sketches.top(of).map(|top| top.count_of(item.as_bytes()).approx());
    let count_min = sketches.count_min(of).map(|counts| counts.count_of(item.as_bytes()));
    let width = |approx: &Approx| approx.upper - approx.lower;
    let narrowest = top.into_iter().chain(count_min).min_by(|a, b| width(a).total_cmp(&width(b)));
    // A view that was chosen keeps one of them.
    narrowest.unwrap_or(Approx { value: 0.0, lower: 0.0, upper: f64::INFINITY, confidence: 1.0 })
}

/// A yes that strangers get more often than this is pointed out.
const RATE_SENSIBLE: f64 = 0.5;

/// Runs `contains`.
pub(crate) fn contains(args: &ContainsArgs) -> Result<(), Failure> {
    let items = args.items.read()?;
    let asked = args.which.view.ask()?;
    let kind = Kind {
        name: "set of members",
        option: "--membership DIM",
        of: |view| view.membership_dimensions().collect(),
    };
    let of = kind.chosen(&asked, args.of.as_ref())?;
    let (rows, unseen) = (Shared::new(0), Shared::new(0));
    let columns = [("item", 0), ("seen", 0), ("exact", 2), ("false_positive_rate", 1)];
    args.which.write(asked, args.each, &columns, Extent::Many, |sketches, take| {
        let empty = Membership::default();
        let set = sketches.membership(&of).unwrap_or(&empty);
        // It looks at all of the set, so once for all.
        let rate = set.false_positive_rate();
        if rate > RATE_SENSIBLE {
            say("hint: more different values came than were expected, so a yes says little");
        }
        let rate = Cell::Number(rate);
        for item in &items {
            let seen = set.contains(item.as_bytes());
            let exact = !seen || set.exact_len().is_some();
            rows.update(|rows: u64| rows + 1);
            unseen.update(|unseen: u64| unseen + u64::from(!seen));
            take(&[Cell::Text(item.clone()), Cell::Flag(seen), Cell::Flag(exact), rate.clone()])?;
        }
        Ok(())
    })?;
    match (unseen.get(), rows.get()) {
        (1.., 1) if args.exit_code => Err(Failure::no("it was not seen")),
        (unseen @ 1.., rows) if args.exit_code => Err(Failure::no(format!(
            "{} of {} were not seen",
            number::grouped(unseen),
            number::grouped(rows)
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_lines_that_are_not_empty() {
        let mut items = Vec::new();
        read_lines(&b"\xef\xbb\xbfa b\r\n\n\tc \n-\na b"[..], &mut items).unwrap();
        assert_eq!(items, ["a b", "\tc ", "-", "a b"]);
        let refused = read_lines(&b"a\n\xff\n"[..], &mut items).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "standard input, line 2: it is not UTF-8, as all values are"
        );
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(read_lines(&long[..], &mut items).unwrap_err().to_string().contains("longer than"));
    }
}
