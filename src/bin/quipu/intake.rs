//! From the values of a line to a recorded event: batches, bad lines and the tally.
//!
//! 1. Every line that is read is recorded, a duplicate, or bad; the tally has each once.
//! 2. A bad line leaves nothing behind and stops nothing, unless the caller is strict: then what
//!    stands before it is recorded, and nothing after it.
//! 3. The first [`BAD_SHOWN`] bad lines are told as they come, the others only counted.

use quipu::{Batch, Db};
use serde::Serialize;

use crate::failure::Failure;
use crate::mapping::{Mapping, Need, Value, Values};
use crate::number;
use crate::progress::Meter;

/// How many events are recorded together.
const BATCH_EVENTS: usize = 2_000;
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
            met: vec![false; mapping.slots()],
            tally: Tally::default(),
            meter,
        }
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
        let pushed = values.and_then(|values| {
            for (met, value) in self.met.iter_mut().zip(&values) {
                *met |= !matches!(value, Value::Missing);
            }
            let event = self.mapping.event(&values)?;
            self.batch.push(&event).map_err(|error| error.to_string())
        });
        if let Err(why) = pushed {
            self.bad(source, line, &why)?;
        }
        if self.batch.len() < BATCH_EVENTS {
            return Ok(false);
        }
        self.flush()?;
        Ok(true)
    }

    /// Records what is in the batch.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
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
