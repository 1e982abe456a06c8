//! How far a long command has come, on a terminal's standard error.
//!
//! 1. Nothing is drawn in the first second, when standard error is no terminal, or when the
//!    caller wants quiet.
//! 2. Whatever else goes to standard error while a bar may be drawn goes through [`Meter::say`].

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::number;

/// Who wants to see progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The terminal, where there is one.
    Terminal,
    Nobody,
}

/// What a command counts towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Bytes,
    Events,
}

/// Measures a run and draws its bar.
pub(crate) struct Meter {
    started: Instant,
    bar: Option<ProgressBar>,
    measure: Measure,
    total: Option<u64>,
    drawn: bool,
}

/// How long a run stays without a bar (1).
const PATIENCE: Duration = Duration::from_secs(1);

impl Meter {
    /// Starts the clock.
    pub(crate) fn start(measure: Measure, total: Option<u64>, show: Show) -> Self {
        let drawn = show == Show::Terminal && io::stderr().is_terminal();
        Self { started: now(), bar: None, measure, total, drawn }
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        now().duration_since(self.started)
    }

    /// Tells how far the run has come: `done` of the total, and so many events.
    pub(crate) fn tick(&mut self, done: u64, events: u64) {
        self.draw(done, |elapsed| format!("{} events/s", number::grouped(rate(events, elapsed))));
    }

    /// Tells how far a run has come that reads nothing but bytes.
    pub(crate) fn tick_bytes(&mut self, done: u64) {
        self.draw(done, |elapsed| format!("{}/s", number::bytes(rate(done, elapsed))));
    }

    /// Sets how much there is to do, where that is known later than the start.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    fn draw(&mut self, done: u64, rate: impl FnOnce(Duration) -> String) {
        if !self.drawn {
            return;
        }
        let elapsed = self.elapsed();
        if self.bar.is_none() && elapsed >= PATIENCE {
            self.bar = Some(bar(self.measure, self.total, elapsed));
        }
        if let Some(bar) = &self.bar {
            let rate = rate(elapsed);
            let left = self.total.and_then(|total| time_left(done, total, elapsed));
            bar.set_message(match left {
                Some(left) => format!("{rate}  {} left", clock(left)),
                None => rate,
            });
            bar.set_position(done);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Writes a line to standard error beside the bar.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Writes a line to standard error. That it cannot be written has nowhere to be said.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// So many of something a second.
pub(crate) fn rate(n: u64, elapsed: Duration) -> u64 {
    (n as f64 / elapsed.as_secs_f64().max(1e-9)) as u64
}

/// How long the rest takes if it goes on like this.
fn time_left(done: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    let rest = total.saturating_sub(done) as f64 / done as f64;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * rest).ok()
}

/// `1:05:09`, or `5:09` under an hour.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a command runs is no event's time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn bar(measure: Measure, total: Option<u64>, elapsed: Duration) -> ProgressBar {
    let template = match (measure, total) {
        (Measure::Bytes, Some(_)) => "{wide_bar} {percent:>3} %  {bytes} of {total_bytes}  {msg}",
        (Measure::Bytes, None) => "{spinner} {bytes}  {msg}  {elapsed}",
        (Measure::Events, _) => "{wide_bar} {percent:>3} %  {human_pos} of {human_len}  {msg}",
    };
    // Templates are constants; a mistake in one shows the plain bar.
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("██░");
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
    bar.with_style(style).with_elapsed(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_no_time_to_have_passed() {
        assert_eq!(rate(1_000, Duration::from_millis(500)), 2_000);
        assert_eq!(rate(0, Duration::ZERO), 0);
    }

    #[test]
    fn the_rest_takes_as_long_as_the_beginning() {
        let left = |done, total| time_left(done, total, Duration::from_mins(1)).map(clock);
        assert_eq!(left(25, 100).as_deref(), Some("3:00"));
        assert_eq!(left(1, 100).as_deref(), Some("1:39:00"));
        assert_eq!(left(100, 100).as_deref(), Some("0:00"));
        assert_eq!(left(7, 5).as_deref(), Some("0:00"), "a file may grow");
        assert_eq!(left(0, 100), None);
    }

    #[test]
    fn every_bar_has_its_template() {
        for (measure, total) in
            [(Measure::Bytes, Some(1)), (Measure::Bytes, None), (Measure::Events, Some(1))]
        {
            bar(measure, total, Duration::ZERO).finish_and_clear();
        }
    }
}
