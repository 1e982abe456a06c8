//! Limits on requests that come by HTTP: the question, and what the client is told of the answer.
//!
//! Next: `limit/http.rs`.

use super::{Limit, Limiter};
use crate::error::Result;
use crate::event::Event;
use crate::limit::{HttpVerdict, Verdict};
use crate::options::Durability;

impl Limit {
    /// [`Limit::check_and_record`], and the answer as a client is told it. What is left is read after that,
    /// so it counts what others did in between.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Constraint, Event, Grain, Options, TestClock, Timestamp, View, Window};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2026-11-26T10:30:00Z")?);
    /// let calls = View::new("calls").by(["key"]).rate_limit_grains();
    /// let db = Options::new().clock(clock.clone()).view(calls).open(dir.path().join("api"))?;
    ///
    /// let of_alice = db.query("calls")?.series(&["alice"])?;
    /// let minute = Constraint::at_most(100, Window::rolling(Duration::from_mins(1))).named("minute");
    /// let hour = Constraint::at_most(1_000, Window::fixed(Grain::Hour)).named("hour");
    /// let limit = db.limit().on(&of_alice, minute)?.on(&of_alice, hour)?;
    ///
    /// let told = limit.check_and_record_http(&Event::new("call").dim("key", "alice"))?;
    /// assert!(told.is_allowed());
    /// assert_eq!(told.policy(), Some(r#""minute";q=100;w=60,"hour";q=1000;w=3600"#));
    /// assert_eq!(told.rate_limit(), Some(r#""minute";r=99;t=60"#));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Limit::check_and_record`].
    pub fn check_and_record_http(&self, event: &Event<'_>) -> Result<HttpVerdict> {
        Ok(self.told(self.check_and_record(event)?))
    }

    /// The same at a durability of its own, as [`Limit::check_and_record_with`].
    ///
    /// # Errors
    /// As there.
    pub fn check_and_record_http_with(
        &self,
        event: &Event<'_>,
        durability: Durability,
    ) -> Result<HttpVerdict> {
        Ok(self.told(self.check_and_record_with(event, durability)?))
    }

    fn told(&self, verdict: Verdict) -> HttpVerdict {
        let usage = self.usage().unwrap_or_else(|error| {
            // The verdict stands, and what was recorded is.
            tracing::warn!(%error, "the usage of a limit is not told");
            Vec::new()
        });
        HttpVerdict::new(verdict, &usage)
    }
}

impl Limiter {
    /// [`Limit::check_and_record_http`] for the key of the event.
    ///
    /// # Errors
    /// As [`Limiter::check_and_record`].
    pub fn check_and_record_http(&self, event: &Event<'_>) -> Result<HttpVerdict> {
        self.of(event)?.check_and_record_http(event)
    }

    /// The same at a durability of its own.
    ///
    /// # Errors
    /// As there.
    pub fn check_and_record_http_with(
        &self,
        event: &Event<'_>,
        durability: Durability,
    ) -> Result<HttpVerdict> {
        self.of(event)?.check_and_record_http_with(event, durability)
    }
}
