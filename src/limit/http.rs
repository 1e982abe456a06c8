//! What a limit answers, in the words of HTTP: values of header fields, and the body of a refusal.
//!
//! ```text
//! RateLimit-Policy: "minute";q=100;w=60,"day";q=1000;w=86400    each "at most", by its name
//! RateLimit: "minute";r=50;t=30                                 the tightest: r are left, for t seconds
//! Retry-After: 30                                               of a refusal, where waiting helps
//! ```
//! As draft-ietf-httpapi-ratelimit-headers has them (-08 to -11), in the syntax of structured fields (RFC
//! 9651): Strings of printable ASCII, Integers of at most 15 digits.
//!
//! Invariants
//! 1. Whoever does as it says is not refused, if nobody else uses the quota: what is left and allowed is
//!    never told as more than it is, how long to wait never as less.
//! 2. `Retry-After` is not before the end of `t`. Who uses no more than `r` within `t` does not within a
//!    part of it either, so it is `t` that gives way.
//!
//! Next: `db/http.rs`, which asks; `tower.rs`, which sends it.

use super::asked::back;
use super::verdict::{Denial, Usage, Verdict};
use crate::policy::Constraint;
use crate::query::Back;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Duration;

/// The greatest Integer of a structured field.
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// A verdict as HTTP tells it: the values of the fields `RateLimit-Policy`, `RateLimit` and `Retry-After`,
/// and the body of a refusal.
///
/// [`Limit::check_and_record_http`](crate::Limit::check_and_record_http) gives one; with the feature
/// `tower`, `quipu::tower::LimitLayer` sends it.
///
/// - `RateLimit-Policy` has each "at most" constraint that has a name ([`Constraint::named`]): `q` is its
///   limit, `w` the [length](crate::Window::length) of its window in seconds, of a smooth one
///   ([`Window::gcra`](crate::Window::gcra)) the time in which a whole burst comes back. A window of one and a
///   half seconds is told as two: who keeps to that keeps to the limit. One that is shorter than a second
///   has no `w`, for a second would be more than the truth by any factor.
/// - `RateLimit` names the tightest of them, which is the one that does not hold, or else the one of which the
///   least is left: who uses no more than `r` within `t` seconds is let in, and then all of it is there
///   again. (Some of a rolling window may be back before that.) Of one that is not used at all there is no `t`.
/// - `Retry-After` is the time after which it may happen, rounded up to whole seconds, where waiting helps. It
///   is also `t`, then; where what does not hold has no name or is about something else (a cooldown, a
///   schedule), `t` is at most that long.
///
/// A constraint without a name is not told of, but for `Retry-After`. What a header field cannot carry of a name,
/// all but printable ASCII, is told as `%` and the hexadecimal of its bytes. Numbers above
/// 999,999,999,999,999, the greatest that a structured field has, are told as that.
///
/// ```
/// use quipu::{Constraint, Grain, HttpVerdict, Usage, Verdict, Window};
/// use std::time::Duration;
///
/// let burst = Constraint::at_most(100, Window::rolling(Duration::from_mins(1))).named("burst");
/// let daily = Constraint::at_most(1_000, Window::fixed(Grain::Day)).named("daily");
/// // As `Limit::usage` and `Limit::check` give them.
/// let usage = |constraint: Constraint, used, resets_in| Usage {
///     limit: constraint.limit(),
///     constraint: constraint.into(),
///     used,
///     resets_in: Duration::from_secs(resets_in),
/// };
/// let usage = [usage(burst, 50, 30), usage(daily, 400, 40_000)];
/// let verdict = Verdict::Allowed { remaining: Some(50), resets_in: Some(Duration::from_secs(30)) };
///
/// let told = HttpVerdict::new(verdict, &usage);
/// assert_eq!(told.policy(), Some(r#""burst";q=100;w=60,"daily";q=1000;w=86400"#));
/// assert_eq!(told.rate_limit(), Some(r#""burst";r=50;t=30"#));
/// assert_eq!(told.retry_after(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpVerdict {
    verdict: Verdict,
    policy: Option<String>,
    rate_limit: Option<String>,
}

impl HttpVerdict {
    /// A verdict, and what the same limit says about its usage just after it. What is left is taken
    /// from the usage, or of a constraint that does not hold from the denial.
    ///
    /// Without usage it tells of `Retry-After` alone.
    pub fn new(verdict: Verdict, usage: &[Usage]) -> Self {
        let mut policy = String::new();
        let mut shown: SmallVec<[Quota<'_>; 4]> = SmallVec::new();
        for (index, usage) in usage.iter().enumerate() {
            let Some((name, window)) = quota(&usage.constraint) else { continue };
            let comma = if policy.is_empty() { "" } else { "," };
            let _ = write!(policy, "{comma}{name};q={}", usage.limit.min(INTEGER_MAX));
            if window >= Duration::from_secs(1) {
                let _ = write!(policy, ";w={}", whole_seconds(window));
            }
            shown.push(Quota { index, name, usage });
        }
        let denial = verdict.denial();
        let is_violated = |quota: &Quota<'_>| denial.is_some_and(|is| is.index == quota.index);
        let tightest = shown.iter().min_by_key(|quota| {
            let Usage { resets_in, .. } = quota.usage;
            (!is_violated(quota), quota.usage.remaining(), Reverse(*resets_in))
        });
        HttpVerdict {
            rate_limit: tightest.map(|quota| quota.item(denial, is_violated(quota))),
            policy: Some(policy).filter(|policy| !policy.is_empty()),
            verdict,
        }
    }

    /// What the limit said.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether it may happen.
    pub fn is_allowed(&self) -> bool {
        self.verdict.is_allowed()
    }

    /// The value of `RateLimit-Policy`; `None` where no constraint is to be told of.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// The value of `RateLimit`; `None` where no constraint is to be told of.
    pub fn rate_limit(&self) -> Option<&str> {
        self.rate_limit.as_deref()
    }

    /// The value of `Retry-After`, in seconds; `None` where it is allowed, and where waiting does not help.
    pub fn retry_after(&self) -> Option<u64> {
        self.verdict.denial().and_then(|denial| denial.retry_after).map(whole_seconds)
    }

    /// The header fields of the response, name and value.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Constraint, Event, Options, View, Window};
    /// use std::time::Duration;
    ///
    /// let calls = View::new("calls").by(["key"]).rate_limit_grains();
    /// let db = Options::new().clock(clock).view(calls).open(dir.path().join("api"))?;
    /// let of_alice = db.query("calls")?.series(&["alice"])?;
    /// let minute = Constraint::at_most(1, Window::rolling(Duration::from_mins(1))).named("minute");
    /// let limit = db.limit().on(&of_alice, minute)?;
    ///
    /// let call = Event::new("call").dim("key", "alice");
    /// assert!(limit.check_and_record_http(&call)?.is_allowed());
    /// let refused = limit.check_and_record_http(&call)?;
    /// let fields: Vec<_> = refused.fields().map(|(name, value)| format!("{name}: {value}")).collect();
    /// assert_eq!(
    ///     fields,
    ///     [r#"RateLimit-Policy: "minute";q=1;w=60"#, r#"RateLimit: "minute";r=0;t=60"#, "Retry-After: 60"]
    /// );
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("RateLimit-Policy", self.policy.clone()),
            ("RateLimit", self.rate_limit.clone()),
            ("Retry-After", self.retry_after().map(|seconds| seconds.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// The body of a refusal, as JSON: a problem (RFC 9457, `application/problem+json`) of status 429. Where a
    /// quota is used up it is of the type `quota-exceeded`, with the quota's name. `None` where it is allowed.
    ///
    /// ```
    /// use quipu::{Constraint, Denial, HttpVerdict, Verdict};
    /// use std::time::Duration;
    ///
    /// let denial = Denial {
    ///     index: 0,
    ///     constraint: Constraint::cooldown(Duration::from_mins(1)).into(),
    ///     limit: 0,
    ///     used: 1,
    ///     retry_after: Some(Duration::from_millis(12_300)),
    ///     is_too_much: false,
    /// };
    /// let told = HttpVerdict::new(Verdict::Denied(denial), &[]);
    /// assert_eq!(told.retry_after(), Some(13));
    /// let problem = r#"{"type":"about:blank","title":"Too Many Requests","status":429}"#;
    /// assert_eq!(told.problem().as_deref(), Some(problem));
    /// ```
    pub fn problem(&self) -> Option<String> {
        let constraint = &self.verdict.denial()?.constraint;
        let mut problem = if constraint.is_at_most() {
            let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
            format!(r#"{{"type":"{kind}","title":"The quota is used up","status":429"#)
        } else {
            r#"{"type":"about:blank","title":"Too Many Requests","status":429"#.to_owned()
        };
        // What is printable ASCII is the same String in a structured field as in JSON.
        if let Some(name) = constraint.name().map(quoted) {
            let _ = write!(problem, r#","violated-policies":[{name}]"#);
        }
        problem.push('}');
        Some(problem)
    }
}

/// A constraint that clients are told of.
struct Quota<'a> {
    /// Its place in the limit.
    index: usize,
    /// In quotes.
    name: String,
    usage: &'a Usage,
}

impl Quota<'_> {
    /// What is left of it, and for how long (invariant 2).
    fn item(&self, denial: Option<&Denial>, is_violated: bool) -> String {
        let Quota { name, usage, .. } = self;
        let retry_after = denial.and_then(|denial| denial.retry_after);
        let (left, time) = match denial {
            Some(denial) if is_violated => {
                let left = denial.limit.saturating_sub(denial.used);
                (left, retry_after.unwrap_or(usage.resets_in))
            }
            _ => (usage.remaining(), usage.resets_in.min(retry_after.unwrap_or(Duration::MAX))),
        };
        let mut item = format!("{name};r={}", left.min(INTEGER_MAX));
        if !time.is_zero() {
            let _ = write!(item, ";t={}", whole_seconds(time));
        }
        item
    }
}

/// The name in quotes, and how long it takes until all is there again.
fn quota(constraint: &Constraint) -> Option<(String, Duration)> {
    let window = constraint.window().filter(|_| constraint.is_at_most())?;
    let length = match back(constraint) {
        // Of what comes back smoothly this is the time in which all of it does.
        Some(Back::Level { micros }) => Duration::from_micros(micros.unsigned_abs()),
        _ => window.length(),
    };
    Some((quoted(constraint.name()?), length))
}

/// As a String of a structured field.
fn quoted(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => {
                let _ = write!(quoted, "%{byte:02X}");
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Rounded up: who waits so long has waited long enough.
fn whole_seconds(length: Duration) -> u64 {
    length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0)).min(INTEGER_MAX)
}
