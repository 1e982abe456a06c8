//! What a limit answers: values, not errors.

use crate::policy::Constraint;
use crate::time::Length;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whether something may happen now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what a limit answers decides nothing by itself"]
pub enum Verdict {
    /// It may, and where it was to be recorded it is.
    Allowed {
        /// How much more may happen now, under the tightest of the limit's "at most" constraints;
        /// `None` where it has none.
        remaining: Option<u64>,
        /// After how long all of that one's limit is there again, if nothing else happens.
        resets_in: Option<Duration>,
    },
    /// It may not; nothing is recorded.
    Denied(Denial),
}

/// Why something may not happen, and when it may.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what was denied did not happen"]
pub struct Denial {
    /// The place of the constraint among those of the limit, in the order in which they were added:
    /// of several that do not hold, the one that is the last to hold again.
    pub index: usize,
    /// What it says.
    pub constraint: Arc<Constraint>,
    /// The number that it allows or wants; 0 where it is about a time.
    pub limit: u64,
    /// The number that counts against it, or towards it.
    pub used: u64,
    /// After how long it may happen, exactly: at any moment before it is denied, at this one allowed, under
    /// all constraints of the limit, if nothing else happens. (Where events ahead of now have pushed out the
    /// finest buckets, by those that are left.) `None`: waiting does not help.
    pub retry_after: Option<Duration>,
    /// It can never fit: it costs more than the limit is.
    pub is_too_much: bool,
}

/// How much of a constraint is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What the constraint says.
    pub constraint: Arc<Constraint>,
    /// The number that it allows or wants; 0 where it is about a time.
    pub limit: u64,
    /// The number that counts against it, or towards it.
    pub used: u64,
    /// After how long nothing that is used counts any more, if nothing else happens.
    pub resets_in: Duration,
}

impl Verdict {
    /// Whether it may happen.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Verdict::Allowed { .. })
    }

    /// Why it may not.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Verdict::Allowed { .. } => None,
            Verdict::Denied(denial) => Some(denial),
        }
    }

    /// After how long it may: at once where it is allowed; `None` where waiting does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.denial().map_or(Some(Duration::ZERO), |denial| denial.retry_after)
    }
}

impl Usage {
    /// How much of it is left.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl std::error::Error for Denial {}

/// A sentence for people.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.constraint)?;
        if self.limit > 0 {
            write!(f, ": {} of {}", self.used, self.limit)?;
        }
        match self.retry_after {
            _ if self.is_too_much => write!(f, "; it can never fit"),
            Some(after) => write!(f, "; again in {}", Length::from(after)),
            None => write!(f, "; waiting does not help"),
        }
    }
}
