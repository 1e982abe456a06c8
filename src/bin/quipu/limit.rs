//! `quipu limit`: whether something may happen now (`check`, `record`), what is used (`usage`), and what is
//! given back (`refund`, `reset`); `policy` has what sets the rules.
//!
//! 1. What is denied is an answer, on standard output as any other; the exit code says so, and is no
//!    error's.
//! 2. A moment to come back is never too early: lengths and moments are rounded up.
//! 3. What is recorded counts for the policy: an event that none of its views takes is refused.
//!
//! Next: `policy.rs`.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use quipu::{
    Clock as _, Db, Denial, EVENT_DIMENSION, Event, Limiter, Options, Policy, SystemClock,
    TestClock, Timestamp, Usage, Verdict, View,
};

use crate::args::{Output, Place};
use crate::failure::Failure;
use crate::instant;
use crate::number;
use crate::policy::{self, PoliciesArgs, RemoveArgs, SetArgs};
use crate::sheet::{Cell, Column, Extent, Format, Sheet};
use crate::table::Align;

const LIMIT_EXAMPLES: &str = "\
Examples:
  quipu define logins --by user --events login --grain minute=61 --create
  quipu limit set logins 'logins: at most 5 in any 1h'
  quipu limit record logins user=ann && ./log_in
  quipu limit usage logins user=ann";

const CHECK_EXAMPLES: &str = "\
Examples:
  quipu limit check logins user=ann --dir shop
  quipu limit check api key=k1 --times 20 --format json --dir shop";

const RECORD_EXAMPLES: &str = "\
Examples:
  quipu limit record logins user=ann --dir shop && ./log_in
  quipu limit record api key=k1 --event call --times 20 --quiet --dir shop";

const USAGE_EXAMPLES: &str = "\
Examples:
  quipu limit usage logins user=ann --dir shop";

const REFUND_EXAMPLES: &str = "\
Examples:
  quipu limit refund jobs user=ann --times 2 --dir shop

A rule takes back what another view counts: `jobs but refunds: at most 5 per hour`.";

const RESET_EXAMPLES: &str = "\
Examples:
  quipu limit reset jobs user=ann --dir shop";

/// Limits: may this happen now, and if not, when
///
/// A policy is some rules; whom they limit is told by what an event has of the key of their views.
#[derive(Debug, Args)]
#[command(after_help = LIMIT_EXAMPLES)]
pub(crate) struct LimitArgs {
    #[command(subcommand)]
    command: LimitCommand,
}

#[derive(Debug, Subcommand)]
enum LimitCommand {
    Set(SetArgs),
    List(PoliciesArgs),
    Remove(RemoveArgs),
    Check(CheckArgs),
    Record(RecordArgs),
    Usage(UsageArgs),
    Refund(RefundArgs),
    Reset(ResetArgs),
}

/// Say whether something may happen now; nothing is recorded
///
/// Exit code 0: allowed; 5: denied. Lengths of time are in seconds but in tables.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    subject: Subject,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    times: u64,
    /// Only the exit code
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: Output,
}

/// Record something if it may happen now
///
/// Exit code 0: allowed, and recorded; 5: denied, and nothing is recorded. Lengths of time are in seconds
/// but in tables.
#[derive(Debug, Args)]
#[command(after_help = RECORD_EXAMPLES)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    asked: CheckArgs,
    /// What was measured of it
    #[arg(long = "measure", value_name = "NAME=NUMBER", value_parser = measure)]
    measures: Vec<(String, f64)>,
}

/// What is used of each rule, and when it is there again
#[derive(Debug, Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    output: Output,
}

/// Give back what was used, the newest first, and no more than was
#[derive(Debug, Args)]
#[command(after_help = REFUND_EXAMPLES)]
pub(crate) struct RefundArgs {
    #[command(flatten)]
    subject: Subject,
    /// How much
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    times: u64,
    #[command(flatten)]
    output: Output,
}

/// Give back all that is used
#[derive(Debug, Args)]
#[command(after_help = RESET_EXAMPLES)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    output: Output,
}

/// Which policy, and of whom.
#[derive(Debug, Args)]
struct Subject {
    /// The name of the policy
    #[arg(value_name = "POLICY")]
    policy: String,
    /// Dimensions of the event: those of the views' keys, and others
    #[arg(value_name = "DIM=VALUE", value_parser = dimension)]
    dimensions: Vec<(String, String)>,
    /// The name of the event [default: the only one that the policy's views take]
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// How long to wait for another process that has the directory open
    #[arg(long, value_name = "LENGTH", default_value = "5s", value_parser = instant::duration)]
    wait: Duration,
    #[command(flatten)]
    place: Place,
}

fn dimension(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("no dimension stands before the =; write user=ann".to_owned()),
        Some((name, _)) if name == EVENT_DIMENSION => {
            Err("the event's name is said by --event".to_owned())
        }
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("what is due is DIM=VALUE, like user=ann".to_owned()),
    }
}

fn measure(text: &str) -> Result<(String, f64), String> {
    let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
    let measure = text.split_once('=').filter(|(name, _)| !name.is_empty());
    measure
        .and_then(|(name, value)| Some((name.to_owned(), number(value)?)))
        .ok_or_else(|| "what is due is NAME=NUMBER, like value=15.3".to_owned())
}

/// Runs `limit`.
pub(crate) fn run(args: &LimitArgs) -> Result<(), Failure> {
    match &args.command {
        LimitCommand::Set(args) => policy::set(args),
        LimitCommand::List(args) => policy::list(args),
        LimitCommand::Remove(args) => policy::remove(args),
        LimitCommand::Check(args) => check(args),
        LimitCommand::Record(args) => record(args),
        LimitCommand::Usage(args) => usage(args),
        LimitCommand::Refund(args) => give_back(&args.subject, &args.output, |limiter, event| {
            limiter.refund(&event.times(args.times))
        }),
        LimitCommand::Reset(args) => {
            give_back(&args.subject, &args.output, |limiter, event| limiter.reset(&event))
        }
    }
}

/// A policy that was opened to be asked.
struct Asked {
    db: Db,
    limiter: Limiter,
    policy: Policy,
    /// The name of the event.
    event: String,
    /// The moment that is asked about: the store's clock stands still at it (2).
    now: Timestamp,
}

/// What the event is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It has the key.
    Key,
    /// It is recorded, and counts.
    Use,
    /// It is recorded, and gives back.
    GiveBack,
}

impl Subject {
    fn ask(&self, purpose: Purpose) -> Result<Asked, Failure> {
        let clock = TestClock::at(SystemClock.now());
        let db = self.place.open_within(self.wait, &Options::new().clock(clock.clone()))?;
        // Nobody else records from here on.
        let now = SystemClock.now();
        clock.set(now);
        let limiter = db.limiter(&self.policy).map_err(policy::advised)?;
        let policy = limiter.policy()?;
        let view = |name: &str| Ok::<View, Failure>(db.query(name)?.view().clone());
        let (mut counting, mut all) = (Vec::new(), Vec::new());
        for rule in policy.rules() {
            let asked = rule.view().map(view).transpose()?;
            let refunds = rule.refunds().map(view).transpose()?;
            match purpose {
                Purpose::GiveBack => counting.extend(refunds),
                _ if rule.constraint().counts_against() => counting.extend(asked.clone()),
                _ => {}
            }
            all.extend(asked);
        }
        if purpose == Purpose::GiveBack && counting.is_empty() {
            return Err(Failure::new(format!(
                "nothing is given back to {}: none of its rules says what is, as in\n  \
                 jobs but refunds: at most 5 per hour",
                number::visible(&self.policy)
            )));
        }
        self.check_key(&all)?;
        let event = self.event_name(&counting, &all, purpose)?;
        Ok(Asked { db, limiter, policy, event, now })
    }

    /// Checks that all dimensions of the keys are said.
    fn check_key(&self, views: &[View]) -> Result<(), Failure> {
        let said = |part: &&str| self.dimensions.iter().any(|(name, _)| name == part);
        let parts = views.iter().flat_map(View::key).map(String::as_str);
        let missing: BTreeSet<&str> =
            parts.filter(|part| *part != EVENT_DIMENSION && !said(part)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let due: Vec<String> = missing.iter().map(|part| format!("{part}=VALUE")).collect();
        Err(Failure::usage(format!(
            "the policy {} counts by {}: say of whom, with {}",
            number::visible(&self.policy),
            missing.into_iter().collect::<Vec<_>>().join(" and by "),
            due.join(" ")
        )))
    }

    /// The name of the event: what was said, or the only one that all the counting views take.
    fn event_name(
        &self,
        counting: &[View],
        all: &[View],
        purpose: Purpose,
    ) -> Result<String, Failure> {
        let takes = |view: &View, name: &str| {
            view.events().is_empty() || view.events().iter().any(|event| event == name)
        };
        let names: BTreeSet<&str> =
            counting.iter().flat_map(View::events).map(String::as_str).collect();
        let policy = number::visible(&self.policy);
        if let Some(name) = &self.event {
            if counting.is_empty() || counting.iter().any(|view| takes(view, name)) {
                return Ok(name.clone());
            }
            return Err(Failure::new(format!(
                "no view by which {policy} counts takes events {}; they take {}",
                number::visible(name),
                number::visible(&names.into_iter().collect::<Vec<_>>().join(", "))
            )));
        }
        let of_all = |name: &&str| counting.iter().all(|view| takes(view, name));
        let mut shared = names.iter().copied().filter(of_all);
        if let (Some(name), None) = (shared.next(), shared.next()) {
            return Ok(name.to_owned());
        }
        let is_of_name =
            all.iter().any(|view| view.key().iter().any(|part| part == EVENT_DIMENSION));
        if purpose == Purpose::Key && !is_of_name {
            // It is looked at by nothing.
            return Ok(self.policy.clone());
        }
        if counting.is_empty() {
            return Err(Failure::usage(format!(
                "which event? Nothing counts against the rules of the policy {policy}: say --event NAME"
            )));
        }
        let take =
            if names.is_empty() { vec!["events of any name"] } else { names.into_iter().collect() };
        Err(Failure::usage(format!(
            "which event? The views of the policy {policy} take {}: say --event NAME",
            number::visible(&take.join(", "))
        )))
    }

    fn event<'a>(&'a self, name: &'a str) -> Event<'a> {
        let dims = self.dimensions.iter();
        dims.fold(Event::new(name), |event, (name, value)| event.dim(name, value))
    }
}

/// What was decided.
struct Decision<'a> {
    policy: &'a Policy,
    verdict: Verdict,
    /// The policy refuses nothing, and would have.
    is_shadowed: bool,
    times: u64,
    done: &'static str,
    now: Timestamp,
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let asked = args.subject.ask(Purpose::Key)?;
    let event = args.subject.event(&asked.event).times(args.times);
    let verdict = asked.limiter.check(&event)?;
    decide(&asked, args, verdict, "allowed")
}

fn record(args: &RecordArgs) -> Result<(), Failure> {
    let (measures, args) = (&args.measures, &args.asked);
    let asked = args.subject.ask(Purpose::Use)?;
    let event = args.subject.event(&asked.event).times(args.times);
    let measures = measures.iter();
    let event = measures.fold(event, |event, (name, value)| event.measure(name, *value));
    let verdict = asked.limiter.check_and_record(&event)?;
    decide(&asked, args, verdict, "recorded")
}

fn decide(
    asked: &Asked,
    args: &CheckArgs,
    verdict: Verdict,
    done: &'static str,
) -> Result<(), Failure> {
    let (policy, times) = (&asked.policy, args.times);
    // What holds has a time at which all of its limit is there again.
    let is_denied = matches!(verdict, Verdict::Allowed { remaining: Some(0), resets_in: None });
    let is_shadowed = policy.is_shadow() && is_denied;
    let now = asked.now;
    let decision = Decision { policy, verdict, is_shadowed, times, done, now };
    if !args.quiet {
        match args.output.format() {
            Format::Table => writeln!(io::stdout().lock(), "{}", decision.sentence())?,
            _ => decision.write(&args.output)?,
        }
    }
    let is_allowed = decision.verdict.is_allowed();
    asked.db.close()?;
    if is_allowed { Ok(()) } else { Err(Failure::Denied) }
}

impl Decision<'_> {
    fn rule(&self, denial: &Denial) -> String {
        let rule = self.policy.rules().get(denial.index);
        rule.map_or_else(|| denial.constraint.to_string(), ToString::to_string)
    }

    fn word(&self) -> &'static str {
        match &self.verdict {
            _ if self.is_shadowed => "shadowed",
            Verdict::Allowed { .. } => "allowed",
            Verdict::Denied(denial) if denial.is_too_much => "too_much",
            Verdict::Denied(_) => "denied",
        }
    }

    /// For people.
    fn sentence(&self) -> String {
        match &self.verdict {
            Verdict::Allowed { .. } if self.is_shadowed => {
                format!("{}, as the policy is a shadow; it would be denied", self.done)
            }
            Verdict::Allowed { remaining, resets_in } => {
                let left = remaining.map(|n| format!(": {} left", number::grouped(n)));
                let resets_in = resets_in.filter(|length| !length.is_zero());
                let resets =
                    resets_in.map(|after| format!("; all of it again {}", self.again(after)));
                [Some(self.done.to_owned()), left, resets].into_iter().flatten().collect()
            }
            Verdict::Denied(denial) => {
                let rule = self.rule(denial);
                format!("denied: {}\n{}", number::visible(&rule), self.why(denial))
            }
        }
    }

    /// How much there is of it, and when it may happen.
    fn why(&self, denial: &Denial) -> String {
        if denial.is_too_much {
            return format!("{} at once are more than it ever allows", number::grouped(self.times));
        }
        let when = denial.retry_after.map_or_else(
            || "waiting does not help".to_owned(),
            |after| format!("again {}", self.again(after)),
        );
        if denial.limit == 0 {
            return when;
        }
        let (used, limit) = (number::grouped(denial.used), number::grouped(denial.limit));
        let there = if denial.constraint.is_at_most() { "used" } else { "there" };
        format!("{used} of {limit} {there}; {when}")
    }

    fn again(&self, after: Duration) -> String {
        let at = number::instant(&later(self.now, after).to_string());
        format!("in {}, at {at} UTC", number::length(after))
    }

    fn write(&self, output: &Output) -> Result<(), Failure> {
        let column = |name, align, rank| Column { name, align, rank };
        let columns = vec![
            column("verdict", Align::Left, 0),
            column("left", Align::Right, 0),
            column("resets_in_seconds", Align::Right, 0),
            column("rule", Align::Wrapped, 0),
            column("used", Align::Right, 0),
            column("limit", Align::Right, 0),
            column("retry_after_seconds", Align::Right, 0),
            column("retry_at", Align::Right, 0),
        ];
        let mut writer = output.start(Sheet { key: None, columns }, Extent::One)?;
        let verdict = Cell::Text(self.word().to_owned());
        let cells = match &self.verdict {
            Verdict::Allowed { remaining, resets_in } => {
                let remaining = if self.is_shadowed { &None } else { remaining };
                let mut cells = vec![verdict, counted(*remaining), length(*resets_in)];
                cells.resize(8, Cell::Missing);
                cells
            }
            Verdict::Denied(denial) => {
                let is_counted = denial.limit > 0;
                vec![
                    verdict,
                    Cell::Missing,
                    Cell::Missing,
                    Cell::Text(self.rule(denial)),
                    counted(is_counted.then_some(denial.used)),
                    counted(is_counted.then_some(denial.limit)),
                    length(denial.retry_after),
                    moment(self.now, denial.retry_after),
                ]
            }
        };
        writer.row(&[], &cells)?;
        Ok(writer.finish()?)
    }
}

fn usage(args: &UsageArgs) -> Result<(), Failure> {
    let asked = args.subject.ask(Purpose::Key)?;
    let usage = asked.limiter.usage(&args.subject.event(&asked.event))?;
    let now = asked.now;
    let column = |name, align, rank| Column { name, align, rank };
    let columns = vec![
        column("rule", Align::Wrapped, 0),
        column("used", Align::Right, 0),
        column("limit", Align::Right, 0),
        column("left", Align::Right, 0),
        column("resets_in_seconds", Align::Right, 0),
        column("resets_at", Align::Right, 1),
    ];
    let mut writer = args.output.start(Sheet { key: None, columns }, Extent::Many)?;
    for (rule, usage) in asked.policy.rules().iter().zip(&usage) {
        writer.row(&[], &usage_cells(rule.to_string(), rule.view().is_some(), usage, now))?;
    }
    writer.finish()?;
    Ok(asked.db.close()?)
}

fn usage_cells(rule: String, has_view: bool, usage: &Usage, now: Timestamp) -> [Cell; 6] {
    let is_limit = usage.limit > 0;
    let left = is_limit && usage.constraint.is_at_most();
    let resets_in = Some(usage.resets_in).filter(|_| has_view);
    [
        Cell::Text(rule),
        counted(has_view.then_some(usage.used)),
        counted(is_limit.then_some(usage.limit)),
        counted(left.then(|| usage.remaining())),
        length(resets_in),
        moment(now, resets_in),
    ]
}

fn give_back(
    subject: &Subject,
    output: &Output,
    give: impl Fn(&Limiter, Event<'_>) -> quipu::Result<u64>,
) -> Result<(), Failure> {
    let asked = subject.ask(Purpose::GiveBack)?;
    let given = give(&asked.limiter, subject.event(&asked.event))?;
    if output.format() == Format::Table {
        writeln!(io::stdout().lock(), "{} given back", number::grouped(given))?;
    } else {
        let columns = vec![Column { name: "given_back", align: Align::Right, rank: 0 }];
        let mut writer = output.start(Sheet { key: None, columns }, Extent::One)?;
        writer.row(&[], &[Cell::Count(given)])?;
        writer.finish()?;
    }
    Ok(asked.db.close()?)
}

fn counted(n: Option<u64>) -> Cell {
    n.map_or(Cell::Missing, Cell::Count)
}

fn length(length: Option<Duration>) -> Cell {
    length.map_or(Cell::Missing, Cell::Length)
}

fn moment(now: Timestamp, after: Option<Duration>) -> Cell {
    after.map_or(Cell::Missing, |after| Cell::Time(later(now, after)))
}

/// A moment to the millisecond, not too early (2).
fn later(now: Timestamp, after: Duration) -> Timestamp {
    let at = now.saturating_add(after).micros();
    Timestamp::from_millis(at.div_euclid(1_000).saturating_add(i64::from(at.rem_euclid(1_000) > 0)))
}
