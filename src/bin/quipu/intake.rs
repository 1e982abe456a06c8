//! From the values of a line to a recorded event: batches, bad lines and the tally.
//!
//! 1. Every line that is read is recorded, a duplicate, or bad; the tally has each once.
//! 2. A bad line leaves nothing behind and stops nothing, unless the caller is strict: then what
//!    stands before it is recorded, and nothing after it.
//! 3. The first [`BAD_SHOWN`] bad lines are told as they come, the others only counted.
//! 4. An event waits for others to be recorded with no longer than [`PATIENCE`], if whoever reads asks
//!    for it.

use std::time::{Duration, Instant};

use quipu::{Batch, Db};
use serde::Serialize;

use crate::failure::Failure;
use crate::mapping::{Mapping, Need, Value, Values};
use crate::number;
use crate::progress::{self, Meter};

/// How many events are recorded together.
const BATCH_EVENTS: usize = 2_000;
/// How long an event may wait for others.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many bad lines are told one by one.
const BAD_SHOWN: u64 = 20;

/// What a bad line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnBad {
    Count,
    Stop,
}

/// What became of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Lines (or CSV records) that were read, blank ones not counted.
    pub(crate) read: u64,
    /// Events that are now in the log and in the views.
    pub(crate) recorded: u64,
    /// Events passed over because their id was known.
    pub(crate) duplicates: u64,
    /// Lines that made no event.
    pub(crate) bad: u64,
    /// Recorded events that came later than the views keep buckets for.
    pub(crate) late: u64,
}

/// Takes lines in.
pub(crate) struct Intake<'a> {
    db: &'a Db,
    mapping: &'a Mapping,
    on_bad: OnBad,
    batch: Batch,
    /// When the first event of the batch came.
    since: Option<Instant>,
    /// The line that was taken last.
    line: u64,
    /// An event had no id.
    anonymous: bool,
    /// Which slots were ever filled.
    met: Vec<bool>,
    pub(crate) tally: Tally,
    pub(crate) meter: Meter,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(db: &'a Db, mapping: &'a Mapping, on_bad: OnBad, meter: Meter) -> Self {
        Self {
            db,
            mapping,
            on_bad,
            batch: db.batch(),
            since: None,
            line: 0,
            anonymous: false,
            met: vec![false; mapping.slots()],
            tally: Tally::default(),
            meter,
        }
    }

    /// Begins with another input.
    pub(crate) fn begin(&mut self) {
        self.line = 0;
    }

    /// Closes the directory, which is not recorded to any more.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        self.db.close().map_err(|error| Failure::from(error).because(&self.so_far()))
    }

    /// Takes one line. Returns whether the batch was recorded with it, which is a good time to
    /// tell progress.
    pub(crate) fn line(
        &mut self,
        source: &str,
        line: u64,
        values: Result<Values<'_>, String>,
    ) -> Result<bool, Failure> {
        self.tally.read += 1;
        self.line = line;
        let pushed = values.and_then(|values| {
            for (met, value) in self.met.iter_mut().zip(&values) {
                *met |= !matches!(value, Value::Missing);
            }
            let event = self.mapping.event(&values)?;
            self.anonymous |= !self.mapping.identifies(&values);
            self.batch.push(&event).map_err(|error| error.to_string())
        });
        if let Err(why) = pushed {
            self.bad(source, line, &why)?;
        }
        if self.batch.len() < BATCH_EVENTS {
            if !self.batch.is_empty() {
                self.since.get_or_insert_with(progress::now);
            }
            return Ok(false);
        }
        self.flush()?;
        Ok(true)
    }

    /// Records what is in the batch.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.since = None;
        if self.batch.is_empty() {
            return Ok(());
        }
        let outcome = self
            .db
            .record_batch(&mut self.batch)
            .map_err(|error| Failure::from(error).because(&self.so_far()))?;
        self.tally.recorded += outcome.recorded;
        self.tally.duplicates += outcome.duplicates;
        self.tally.late += outcome.late;
        Ok(())
    }

    /// Records what has waited long enough (4); gives how long the rest may wait, if there is one.
    pub(crate) fn flush_due(&mut self) -> Result<Option<Duration>, Failure> {
        let Some(since) = self.since else { return Ok(None) };
        let left = PATIENCE.saturating_sub(progress::now().duration_since(since));
        if !left.is_zero() {
            return Ok(Some(left));
        }
        self.flush()?;
        Ok(None)
    }

    /// How far an input was taken in, and how to go on, when it is stopped in the middle.
    pub(crate) fn how_to_go_on(&self, source: &str) -> String {
        let recorded = number::grouped(self.tally.recorded);
        let again = if self.anonymous || self.tally.recorded == 0 {
            ""
        } else {
            " (or load it whole: events whose ids are remembered are passed over)"
        };
        format!(
            "{source} is recorded up to line {}, {recorded} events in all; to go on, load it from line \
             {} on{again}",
            self.line,
            self.line + 1
        )
    }

    /// What is recorded, for a message that explains a stop.
    pub(crate) fn so_far(&self) -> String {
        format!(
            "{} events were recorded before this and are kept; nothing after it was",
            number::grouped(self.tally.recorded)
        )
    }

    /// Fields that were asked for and stood in no line.
    pub(crate) fn unmet(&self) -> Vec<&'a str> {
        let fields = self.mapping.fields().zip(&self.met);
        let unmet = fields.filter(|((_, need), met)| *need == Need::Asked && !**met);
        unmet.map(|((field, _), _)| field).collect()
    }

    fn bad(&mut self, source: &str, line: u64, why: &str) -> Result<(), Failure> {
        self.tally.bad += 1;
        let message = format!("{source}:{line}: {}", number::visible(why));
        if self.on_bad == OnBad::Stop {
            self.flush()?;
            return Err(Failure::new(message).because(&self.so_far()));
        }
        if self.tally.bad <= BAD_SHOWN {
            self.meter.say(&message);
        }
        if self.tally.bad == BAD_SHOWN {
            self.meter.say("(further bad lines are counted, not shown)");
        }
        Ok(())
    }
}
