//! The text form of windows, constraints and rules: what is written on a command line and shown.
//!
//! The grammar is in the documentation of [`Rule`]. Reading gives what the calls give that build a rule,
//! checked by the same code.
//!
//! Invariants
//! 1. What is displayed is read as the same value; but for the words of
//!    [`Limit::only_if`](crate::Limit::only_if), which are only shown.
//! 2. What is refused says which word, behind what it stands, and what may stand there.
//!
//! Next: `limit.rs`.

use super::constraint::{Bound, Constraint};
use super::window::{Kind, Window};
use super::{Policy, Rule};
use crate::error::{Error, Result};
use crate::event::abridged;
use crate::time::{Grain, Length, Schedule};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// As it stands behind "at most 10".
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Rolling(length) => write!(f, "in any {}", Length::from(length)),
            Kind::Last(1, grain) => write!(f, "per {grain}"),
            Kind::Last(n, grain) => {
                write!(f, "in the last {}", grain.counted(&n.to_string(), false))
            }
            Kind::Gcra(n, period) => {
                write!(f, "at once, then {n} in each {}", Length::from(period))
            }
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(n, window) => write!(f, "at most {n} {window}"),
            Bound::AtLeast(n, window) => write!(f, "at least {n} {window}"),
            Bound::Cooldown(length) => write!(f, "none for {}", Length::from(*length)),
            Bound::Within(length) => write!(f, "one in the last {}", Length::from(*length)),
            Bound::During(schedule) => write!(f, "only {schedule}"),
            Bound::OutsideOf(schedule) => write!(f, "not {schedule}"),
            Bound::Said(words) => f.write_str(words),
        }
    }
}

/// `burst = at most 100 in any 1m`.
impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_named(f, self)?;
        self.bound.fmt(f)
    }
}

/// `burst = calls but refunds: at most 100 in any 1m`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_named(f, self.constraint())?;
        if let Some(view) = self.view() {
            write!(f, "{}", Name(view))?;
            if let Some(refunds) = self.refunds() {
                write!(f, " but {}", Name(refunds))?;
            }
            f.write_str(": ")?;
        }
        self.constraint().bound.fmt(f)
    }
}

/// For people: its rules, one behind the other.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", Name(self.name()))?;
        for (i, rule) in self.rules().iter().enumerate() {
            write!(f, "{}{rule}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str(if self.is_shadow() { "), which refuses nothing" } else { ")" })
    }
}

fn write_named(f: &mut fmt::Formatter<'_>, constraint: &Constraint) -> fmt::Result {
    constraint.name().map_or(Ok(()), |name| write!(f, "{} = ", Name(name)))
}

/// A name, in quotes where it could be taken for something else.
struct Name<'a>(&'a str);

/// Names that would be taken for something else.
const RESERVED: [&str; 3] = ["only", "not", "but"];

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "_-./#@+".contains(c);
        let is_reserved = RESERVED.iter().any(|word| word.eq_ignore_ascii_case(self.0));
        if !self.0.is_empty() && !is_reserved && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

/// Reads the form that it displays, as it stands behind "at most 10"; see [`Rule`].
impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        read("window", text, |reader| {
            let window = reader.window()?;
            checked(window, window.check())
        })
    }
}

/// Reads the form that it displays; see [`Rule`].
impl FromStr for Constraint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        read("constraint", text, |reader| {
            let name = reader.constraint_name()?;
            let bound = match reader.of_calendar() {
                Some(is_open) => reader.calendar(is_open)?,
                None => reader.counted(&format!("{COUNTED}; {CALENDAR}"))?,
            };
            let constraint = Constraint { name, bound };
            let check = constraint.check();
            checked(constraint, check)
        })
    }
}

/// Reads the form described at [`Rule`].
impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        read("rule", text, |reader| {
            let name = reader.constraint_name()?;
            let rule = if let Some(is_open) = reader.of_calendar() {
                Rule::of_calendar(Constraint { name, bound: reader.calendar(is_open)? })
            } else {
                let (view, refunds) = reader.views()?;
                let bound = reader.counted(COUNTED)?;
                Rule::of_view(view, refunds, Constraint { name, bound })
            };
            let check = rule.check();
            checked(rule, check)
        })
    }
}

/// What is wrong with a text, without the text.
type Read<T> = std::result::Result<T, String>;

fn read<'a, T>(
    what: &str,
    text: &'a str,
    read: impl FnOnce(&mut Reader<'a>) -> Read<T>,
) -> Result<T> {
    read(&mut Reader { text, at: 0 })
        .map_err(|why| Error::invalid(format!("the {what} {}: {why}", abridged(text))))
}

fn checked<T>(value: T, check: Result<()>) -> Read<T> {
    check.map(|()| value).map_err(|error| error.message().to_owned())
}

const WINDOWS: &str = "a window: `in any 60s` (whenever it begins), `per day` (of the calendar), `in the \
    last 7 days` (today and the six before it), or `at once, then 10 in each 1s` (as they come back)";
const COUNTED: &str = "`at most 100` or `at least 3` and a window like `in any 60s` or `per day`, `none \
    for 1h`, or `one in the last 5m`";
const CALENDAR: &str = "of the calendar, `only mon-fri 08:00-20:00` or `not 22:00-06:00`";
const VIEW: &str = "the view that it counts in and a colon, like `calls: at most 100 in any 60s`; or, of \
    the calendar, `only mon-fri 08:00-20:00`";
const LENGTH: &str = "a length of time like 60s, 15m or 1h30m";

/// What is left of a text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text[self.at..].trim_start()
    }

    /// Goes on to where `rest` begins, which is a part of the end of the text.
    fn go_on(&mut self, rest: &str) {
        self.at = self.text.len() - rest.len();
    }

    /// The next word, and what stands behind it.
    fn word(&self) -> (&'a str, &'a str) {
        let rest = self.rest();
        let ends = |c: char| c.is_whitespace() || c == ':' || c == '=';
        match rest.find(ends) {
            // One that is a word by itself.
            Some(0) => rest.split_at(1),
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        }
    }

    /// Takes these words, if they are the next ones.
    fn takes(&mut self, words: &str) -> bool {
        let before = self.at;
        for due in words.split(' ') {
            let (word, behind) = self.word();
            if !word.trim_end_matches(',').eq_ignore_ascii_case(due) {
                self.at = before;
                return false;
            }
            self.go_on(behind);
        }
        true
    }

    /// Says that what is next is not what is due (invariant 2).
    fn wrong(&self, due: &str) -> String {
        let before = self.text[..self.at].trim();
        let tail = before.char_indices().rev().nth(39).map_or(0, |(at, _)| at);
        let before = match tail {
            0 => format!("`{before}`"),
            _ => format!("`...{}`", &before[tail..]),
        };
        let is_first = self.text[..self.at].trim().is_empty();
        let what = match (is_first, self.word().0) {
            (true, "") => "it is empty".to_owned(),
            (true, word) => format!("it begins with {}", abridged(word)),
            (false, "") => format!("nothing stands behind {before}"),
            (false, word) => format!("{} stands behind {before}", abridged(word)),
        };
        format!("{what}; what is due is {due}")
    }

    fn number(&mut self) -> Read<u64> {
        let (word, behind) = self.word();
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| word.parse().ok()).flatten();
        let number = number.ok_or_else(|| self.wrong("a whole number like 100"))?;
        self.go_on(behind);
        Ok(number)
    }

    /// All that is left.
    fn length(&mut self) -> Read<Duration> {
        if self.rest().is_empty() {
            return Err(self.wrong(LENGTH));
        }
        let length: Length =
            self.rest().parse().map_err(|error: Error| error.message().to_owned())?;
        self.at = self.text.len();
        Ok(length.into())
    }

    fn window(&mut self) -> Read<Window> {
        if self.takes("in any") {
            return self.length().map(Window::rolling);
        }
        if self.takes("per") {
            return self.grain(self.rest()).map(Window::fixed);
        }
        if self.takes("at once then") {
            let n = self.number()?;
            if !self.takes("in each") {
                return Err(self.wrong("`in each` and a length of time, like `in each 1s`"));
            }
            return self.length().map(|period| Window::gcra(n, period));
        }
        if !self.takes("in the last") && !self.takes("in") {
            return Err(self.wrong(WINDOWS));
        }
        // Here a length is no number of buckets.
        if let Ok(length) = self.rest().parse::<Length>() {
            return Err(format!(
                "{} is a length; write `in any {length}` for whatever time is so long, and for buckets of \
                 the calendar their number and name, like `in the last 7 days`",
                abridged(self.rest())
            ));
        }
        let n = self.number()?;
        let n = u32::try_from(n).map_err(|_| format!("{n} buckets are more than are kept"))?;
        self.grain(self.rest()).map(|grain| Window::last(n, grain))
    }

    /// All that is left: a grain, one or many, by any of its names.
    fn grain(&mut self, text: &str) -> Read<Grain> {
        if text.is_empty() {
            return Err(self.wrong("a grain, like minute, hour, day, week, month or 6h"));
        }
        let text = text.trim().to_ascii_lowercase();
        let grain = match text.as_str() {
            "month of 30 days" | "months of 30 days" => Ok(Grain::Month30),
            "year of 365 days" | "years of 365 days" => Ok(Grain::Year365),
            text => {
                let of = |one: &str| text.strip_prefix(one).map(str::trim_start);
                let name = of("buckets of ").or_else(|| of("bucket of ")).unwrap_or(text);
                let one = || name.strip_suffix('s').and_then(|one| one.parse().ok());
                name.parse().or_else(|error| one().ok_or(error))
            }
        };
        self.at = self.text.len();
        grain.map_err(|error: Error| error.message().to_owned())
    }

    /// What is asked of a view; `due` is what may stand here.
    fn counted(&mut self, due: &str) -> Read<Bound> {
        if self.takes("at most") {
            return Ok(Bound::AtMost(self.number()?, self.window()?));
        }
        if self.takes("at least") {
            return Ok(Bound::AtLeast(self.number()?, self.window()?));
        }
        if self.takes("none for") {
            return self.length().map(Bound::Cooldown);
        }
        if self.takes("one in the last") {
            return self.length().map(Bound::Within);
        }
        let word = self.word().0;
        if self.at > 0 && ["only", "not"].iter().any(|of| word.eq_ignore_ascii_case(of)) {
            return Err(format!(
                "`{word}` is of the calendar, and asks no view: leave the view away"
            ));
        }
        Err(self.wrong(due))
    }

    /// Takes `only` or `not`, where hours follow: whether they are those when it is open.
    fn of_calendar(&mut self) -> Option<bool> {
        let before = self.at;
        let is_open = self.takes("only");
        if (is_open || self.takes("not")) && !matches!(self.word().0, ":" | "but") {
            return Some(is_open);
        }
        self.at = before;
        None
    }

    /// All that is left.
    fn calendar(&mut self, is_open: bool) -> Read<Bound> {
        let schedule = self.rest().parse::<Schedule>();
        let schedule = schedule.map_err(|error| error.message().to_owned())?.into();
        self.at = self.text.len();
        Ok(if is_open { Bound::During(schedule) } else { Bound::OutsideOf(schedule) })
    }

    /// The name before a `=`, if there is one.
    fn constraint_name(&mut self) -> Read<Option<String>> {
        let before = self.at;
        let is_quoted = self.rest().starts_with('"');
        // What begins with no name is told by who reads on.
        let name = match self.name() {
            Ok(name) => name,
            Err(why) if is_quoted => return Err(why),
            Err(_) => return Ok(None),
        };
        if self.takes("=") {
            return Ok(Some(name));
        }
        self.at = before;
        Ok(None)
    }

    /// The view, and that of what is given back, up to the colon.
    fn views(&mut self) -> Read<(String, Option<String>)> {
        let before = self.at;
        let view = self.name()?;
        let refunds = if self.takes("but") { Some(self.name()?) } else { None };
        if self.takes(":") {
            return Ok((view, refunds));
        }
        if self.rest().is_empty() || refunds.is_some() {
            return Err(
                self.wrong("a colon and what is asked of the view, like `: at most 100 per day`")
            );
        }
        // It may be no view: the whole beginning is shown.
        self.at = before;
        Err(format!("{}; a name with spaces stands in double quotes", self.wrong(VIEW)))
    }

    /// A word, or what stands in quotes.
    fn name(&mut self) -> Read<String> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let (word, behind) = self.word();
        if word.is_empty() || word == ":" || word == "=" {
            return Err(self.wrong(VIEW));
        }
        self.go_on(behind);
        Ok(word.to_owned())
    }

    /// What stands in quotes, as it is written for debugging.
    fn quoted(&mut self) -> Read<String> {
        let mut chars = self.rest()[1..].chars();
        let mut name = String::new();
        let due = "a double quote at its end; \\\" is one inside of it, \\\\ a backslash";
        let unended = |reader: &Self| {
            format!("{} is not ended; what is due is {due}", abridged(reader.rest()))
        };
        loop {
            match chars.next().ok_or_else(|| unended(self))? {
                '"' => break,
                '\\' => {
                    let escape = chars.next().ok_or_else(|| unended(self))?;
                    name.push(match escape {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        '0' => '\0',
                        '"' | '\'' | '\\' => escape,
                        'u' => escaped(&mut chars).ok_or(
                            "what is due behind \\u is a character's number, like \\u{e4}",
                        )?,
                        other => {
                            return Err(format!(
                                "\\{other} stands for nothing; a backslash is \\\\"
                            ));
                        }
                    });
                }
                c => name.push(c),
            }
        }
        self.go_on(chars.as_str());
        Ok(name)
    }
}

/// The character of `{e4}`.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let (number, behind) = chars.as_str().strip_prefix('{')?.split_once('}')?;
    *chars = behind.chars();
    u32::from_str_radix(number, 16).ok().and_then(char::from_u32)
}
