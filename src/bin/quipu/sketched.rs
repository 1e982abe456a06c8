//! The sketches that `quipu define` is asked for.
//!
//! 1. What is no definition is refused before a directory is opened, in the words of the option; what
//!    one option cannot know, such as a dimension that is named twice, the engine refuses.
//! 2. Sizes can be left out, and are those of the engine's aggregates then.
//!
//! Next: `which.rs` and `sketch.rs`, where they are asked.

use clap::Args;
use quipu::View;
use quipu::aggregate::{CountMin, Distinct, Kll, Membership, Theta, Top};

/// Which sketches a view keeps.
#[derive(Debug, Args)]
pub(crate) struct SketchedArgs {
    /// How many different values these dimensions have: DIM, or DIM=PRECISION (4 to 18)
    /// [default precision: 12, a standard error of 1.2 %]
    #[arg(long, value_name = "DIM[=P]", value_delimiter = ',', value_parser = Fine::parse)]
    distinct: Vec<Fine>,
    /// Samples of the values of these dimensions, for `quipu common`: DIM, or DIM=K (64 to 16384)
    /// [default size: 4096]
    #[arg(long, value_name = "DIM[=K]", value_delimiter = ',', value_parser = Fine::parse)]
    theta: Vec<Fine>,
    /// The values of these dimensions that most events have: DIM, or DIM=N to be exact for N values;
    /// 'DIM by MEASURE' for what weighs most, each event by its measure, rounded to a whole number; what is
    /// negative or rounded to 0 weighs nothing [default size: 256]
    #[arg(long, value_name = "DIM[ by MEASURE][=N]", value_delimiter = ',', value_parser = Fine::parse)]
    top: Vec<Fine>,
    /// How often any value of these dimensions comes, for `quipu count-of`: DIM, DIM=ERROR% for an error of
    /// at most that part of all events in 99 % of answers, or DIM=WIDTHxDEPTH for 2 / WIDTH of all in all
    /// but 1 of 2^DEPTH (up to WIDTH * DEPTH * 8 bytes a key and bucket) [default: 0.1%, which is 2000x7]
    #[arg(long, value_name = "DIM[=SIZE]", value_delimiter = ',', value_parser = Counted::parse)]
    count_min: Vec<Counted>,
    /// Which values these dimensions had, for `quipu contains`: DIM, DIM=N where up to N different ones are
    /// expected, or DIM=N:M so that one stranger in M is taken for one of them (10 to 21 bits for each that is
    /// expected, once there are many, where M is 100) [default: 1000000:100]
    #[arg(long, value_name = "DIM[=N[:M]]", value_delimiter = ',', value_parser = Members::parse)]
    membership: Vec<Members>,
    /// Medians, percentiles and histograms of these measures
    #[arg(long, value_name = "MEASURES", value_delimiter = ',')]
    quantiles: Vec<String>,
    /// The same with guarantees on ranks, for values of which nothing is known: MEASURE, or MEASURE=K (8 to
    /// 65535) to be within 2.3 / K^0.97 of all values in 99 of 100 answers, in 5 to 9 KiB a key and bucket
    /// for 200 [default size: 200]
    #[arg(long, value_name = "MEASURE[=K]", value_delimiter = ',', value_parser = Fine::parse)]
    kll: Vec<Fine>,
}

impl SketchedArgs {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        let sizes = [self.distinct.len(), self.theta.len(), self.top.len(), self.count_min.len()];
        sizes.iter().sum::<usize>() + self.membership.len() + self.quantiles.len() + self.kll.len()
            == 0
    }

    /// Adds them to a view.
    pub(crate) fn of(&self, mut view: View) -> View {
        for of in &self.distinct {
            view = view.distinct_at(&of.name, of.number(Distinct::PRECISION, u8::MAX));
        }
        for of in &self.theta {
            view = view.theta(&of.name, of.number(Theta::K, u16::MAX));
        }
        for of in &self.top {
            let capacity = of.number(Top::CAPACITY, u32::MAX);
            view = match of.name.split_once(" by ") {
                Some((dimension, by)) => view.top_by(dimension.trim(), by.trim(), capacity),
                None => view.top(&of.name, capacity),
            };
        }
        for of in &self.count_min {
            view = view.count_min(&of.name, of.width, of.depth);
        }
        for of in &self.membership {
            view = view.membership(&of.name, of.expected, of.one_in);
        }
        for of in &self.kll {
            view = view.kll(&of.name, of.number(Kll::K, u16::MAX));
        }
        self.quantiles.iter().fold(view, View::quantiles)
    }
}

/// The name before a `=`, and what is behind it.
fn named(text: &str) -> Result<(String, Option<&str>), String> {
    let (name, size) = match text.rsplit_once('=') {
        None => (text, None),
        Some((name, size)) => (name, Some(size.trim())),
    };
    match name.trim() {
        "" => Err("expected a name, and = and a number behind it or not".to_owned()),
        name => Ok((name.to_owned(), size)),
    }
}

/// A name, and how fine something is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fine {
    name: String,
    number: Option<u32>,
}

impl Fine {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, number) = named(text)?;
        let number = number
            .map(|number| number.parse().map_err(|_| format!("{number:?} is no whole number")))
            .transpose()?;
        Ok(Self { name, number })
    }

    /// How fine, in the type that has room for it; what has none is refused by the view.
    fn number<T: TryFrom<u32>>(&self, default: T, most: T) -> T {
        self.number.map_or(default, |number| T::try_from(number).unwrap_or(most))
    }
}

/// A dimension, and the shape of a count-min sketch of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    name: String,
    width: u32,
    depth: u8,
}

impl Counted {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, size) = named(text)?;
        let sketch = match size {
            None => CountMin::with_error(CountMin::EPSILON, CountMin::DELTA),
            Some(size) => match size.strip_suffix('%') {
                Some(percent) => {
                    let percent: f64 = percent.trim().parse().map_err(|_| Self::wrong(size))?;
                    if !(percent > 0.0 && percent < 100.0) {
                        return Err(format!("an error of {size}: it is above 0% and below 100%"));
                    }
                    CountMin::with_error(percent / 100.0, CountMin::DELTA)
                }
                None => Self::of_shape(size)?,
            },
        };
        let sketch = sketch.map_err(|_| {
            format!(
                "{} has no room: a sketch has 1 to {} rows, and 1 to {} cells in all of them",
                size.unwrap_or_default(),
                CountMin::DEPTH_MAX,
                CountMin::CELLS_MAX
            )
        })?;
        Ok(Self { name, width: sketch.width(), depth: sketch.depth() })
    }

    fn of_shape(size: &str) -> Result<quipu::Result<CountMin>, String> {
        let (width, depth) = size.split_once(['x', 'X']).ok_or_else(|| Self::wrong(size))?;
        let number = |text: &str| text.trim().parse::<u128>().map_err(|_| Self::wrong(size));
        let (width, depth) = (number(width)?, number(depth)?);
        // What has no room in the types is more than there can be.
        let (width, depth) =
            (width.try_into().unwrap_or(u32::MAX), depth.try_into().unwrap_or(u8::MAX));
        Ok(CountMin::new(width, depth))
    }

    fn wrong(size: &str) -> String {
        format!("{size:?} is no size: it is an error, as in 0.1%, or WIDTHxDEPTH, as in 2000x7")
    }
}

/// A dimension, and the size of the set of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Members {
    name: String,
    expected: u64,
    one_in: u32,
}

impl Members {
    const ONE_IN: u32 = (1.0 / Membership::RATE) as u32;

    fn parse(text: &str) -> Result<Self, String> {
        let (name, size) = named(text)?;
        let wrong = |text: &str| {
            format!(
                "{text:?} is no whole number: the size is N or N:M, as in 1000000 or 1000000:100"
            )
        };
        let (expected, one_in) = match size {
            None => (Membership::EXPECTED, Self::ONE_IN),
            Some(size) => {
                let (expected, one_in) = match size.split_once(':') {
                    None => (size, None),
                    Some((expected, one_in)) => (expected, Some(one_in)),
                };
                let one_in = one_in.map(|text| text.trim().parse().map_err(|_| wrong(text)));
                let expected = expected.trim().parse().map_err(|_| wrong(expected))?;
                (expected, one_in.transpose()?.unwrap_or(Self::ONE_IN))
            }
        };
        if expected == 0 {
            return Err("a set of no values: at least one is expected".to_owned());
        }
        if one_in < 2 {
            return Err(format!(
                "one stranger in {one_in} would be taken for a member: it is 2 or more"
            ));
        }
        Membership::new(expected, 1.0 / f64::from(one_in)).map_err(|error| error.to_string())?;
        Ok(Self { name, expected, one_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_min_sketches_are_of_an_error_or_of_a_shape() {
        let of = |text| Counted::parse(text).map(|of| (of.name, of.width, of.depth));
        assert_eq!(of("url"), Ok(("url".to_owned(), 2_000, 7)));
        assert_eq!(of("url=0.1%"), of("url"));
        assert_eq!(of("url=1 %"), Ok(("url".to_owned(), 200, 7)));
        assert_eq!(of("a=b = 300 x 5"), Ok(("a=b".to_owned(), 300, 5)));
        for wrong in ["url=2000", "url=", "url=x7", "url=7x", "url=-1x7", "url=a%", "url=1.5x2"] {
            assert!(of(wrong).unwrap_err().contains("as in 2000x7"), "{wrong}");
        }
        for wrong in ["url=0%", "url=100%", "url=-1%", "url=nan%"] {
            assert!(of(wrong).unwrap_err().contains("above 0%"), "{wrong}");
        }
        for wrong in
            ["url=0x7", "url=9x0", "url=9x33", "url=9x300", "url=99999999999x9", "url=1e-9%"]
        {
            assert!(of(wrong).unwrap_err().contains("1 to 32 rows"), "{wrong}");
        }
        assert!(of("=2000x7").unwrap_err().contains("expected a name"));
    }

    #[test]
    fn sets_are_of_so_many_with_one_wrong_in_so_many() {
        let of = |text| Members::parse(text).map(|of| (of.name, of.expected, of.one_in));
        assert_eq!(of("card"), Ok(("card".to_owned(), 1_000_000, 100)));
        assert_eq!(of("card=500"), Ok(("card".to_owned(), 500, 100)));
        assert_eq!(of(" card = 500 : 1000"), Ok(("card".to_owned(), 500, 1_000)));
        for wrong in
            ["card=", "card=x", "card=5:", "card=5:y", "card=1e6", "card=-1", "card=5:0.01"]
        {
            assert!(of(wrong).unwrap_err().contains("no whole number"), "{wrong}");
        }
        assert!(of("card=0").unwrap_err().contains("at least one"));
        assert!(of("card=5:0").unwrap_err().contains("2 or more"));
        assert!(of("card=5:1").unwrap_err().contains("2 or more"));
        assert!(of("card=99999999999999").unwrap_err().contains("gigabyte"));
        assert!(of("=5").unwrap_err().contains("expected a name"));
    }
}
