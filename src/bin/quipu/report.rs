//! What a load did, and what the directory holds now: figures gathered from the views, shown by
//! [`crate::report_text`] or as one JSON object.
//!
//! 1. Every figure is an answer of the engine; nothing is counted here beside it.
//! 2. Each part is there when a view can answer it: the ranking from a view by product (or the
//!    first by one dimension), the shares from one by category, the days from one that keeps
//!    hours or days over everything.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use quipu::{Bucket, Component, Db, Grain, Row, Timestamp, ViewStatus};
use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::intake::Tally;
use crate::progress;
use crate::rows;
use crate::sheet;

/// How many rows a ranking has.
const RANKED: usize = 5;
/// How many rows the shares have.
const SHARED: usize = 10;
/// A view with more keys than this is not shown as shares.
const SHARED_KEYS_MAX: u64 = 10_000;

/// What one load did.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) files: Vec<String>,
    pub(crate) bytes: u64,
    #[serde(flatten)]
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
    pub(crate) events_per_second: u64,
}

impl Load {
    pub(crate) fn new(files: Vec<String>, bytes: u64, tally: Tally, elapsed: Duration) -> Self {
        let events_per_second = progress::rate(tally.recorded, elapsed);
        Self { files, bytes, tally, seconds: elapsed.as_secs_f64(), events_per_second }
    }
}

/// A load and the state behind it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) load: Load,
    pub(crate) directory: String,
    /// All events of the directory.
    pub(crate) events: u64,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
    pub(crate) views: Vec<ViewLine>,
    pub(crate) top: Option<Ranking>,
    pub(crate) shares: Option<Shares>,
    pub(crate) days: Vec<Period>,
    /// The same by hour, where the events are of few days.
    #[serde(skip)]
    pub(crate) hours: Vec<Period>,
}

/// A view and how many keys it has.
#[derive(Debug, Serialize)]
pub(crate) struct ViewLine {
    pub(crate) name: String,
    pub(crate) key: Vec<String>,
    pub(crate) keys: u64,
}

/// The first keys of a view.
#[derive(Debug, Serialize)]
pub(crate) struct Ranking {
    pub(crate) view: String,
    pub(crate) dimension: String,
    pub(crate) measure: Option<String>,
    #[serde(serialize_with = "serialize_rows")]
    pub(crate) by_sum: Vec<Row>,
    #[serde(serialize_with = "serialize_rows")]
    pub(crate) by_count: Vec<Row>,
}

/// How a total divides among the keys of a view.
#[derive(Debug, Serialize)]
pub(crate) struct Shares {
    pub(crate) view: String,
    pub(crate) dimension: String,
    pub(crate) measure: Option<String>,
    pub(crate) keys: u64,
    /// Of the measure, or where the view has none of the count.
    pub(crate) total: f64,
    #[serde(serialize_with = "serialize_rows")]
    pub(crate) rows: Vec<Row>,
}

/// A day or an hour, by its number since 1970.
#[derive(Debug, Serialize)]
pub(crate) struct Period {
    #[serde(rename = "day", serialize_with = "serialize_day")]
    pub(crate) number: i64,
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
}

pub(crate) const HOUR_MICROS: i64 = 3_600_000_000;
pub(crate) const DAY_MICROS: i64 = 24 * HOUR_MICROS;

impl Report {
    /// Asks the engine for everything that the report shows.
    pub(crate) fn gather(db: &Db, load: Load) -> Result<Self, Failure> {
        let mut views = db.views()?;
        // A view whose backfill is not complete does not answer.
        views.retain(|status| status.backfill.is_none());
        let span = span(db, &views)?;
        let ranked = ranked_view(&views);
        let shared = shared_view(&views, ranked);
        let buckets = buckets(db, &views)?;
        let zone = db.time_zone();
        let utc_hour = |start: Timestamp| start.micros().div_euclid(HOUR_MICROS);
        let hourly =
            buckets.iter().all(|bucket| bucket.end.micros() - bucket.start.micros() <= HOUR_MICROS);
        Ok(Self {
            load,
            directory: db.directory().display().to_string(),
            events: db.statistics().events,
            from: span.map(|row| row.first_seen),
            to: span.map(|row| row.last_seen),
            top: ranked.map(|status| ranking(db, status)).transpose()?,
            shares: shared.map(|status| shares(db, status)).transpose()?,
            days: periods(&buckets, |start| zone.bucket(Grain::Day, start)),
            hours: if hourly { periods(&buckets, utc_hour) } else { Vec::new() },
            views: views.into_iter().map(ViewLine::from).collect(),
        })
    }

    /// Writes it as one JSON object.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        sheet::json(out, self)?;
        out.write_all(b"\n")
    }
}

impl From<ViewStatus> for ViewLine {
    fn from(status: ViewStatus) -> Self {
        let name = status.view.name().to_owned();
        Self { name, key: status.view.key().to_vec(), keys: status.keys }
    }
}

fn single_key(status: &ViewStatus) -> Option<&str> {
    match status.view.key() {
        [dimension] => Some(dimension),
        _ => None,
    }
}

/// The totals of the view that sees the most: the one by event, or else the one of fewest keys.
fn span(db: &Db, views: &[ViewStatus]) -> Result<Option<Span>, Failure> {
    let filled = views.iter().filter(|status| status.keys > 0);
    let widest = filled.min_by_key(|status| (single_key(status) != Some("event"), status.keys));
    let Some(widest) = widest else { return Ok(None) };
    let row = db.query(widest.view.name())?.totals()?;
    Ok(Some(Span { first_seen: row.first_seen, last_seen: row.last_seen }))
}

#[derive(Clone, Copy)]
struct Span {
    first_seen: Timestamp,
    last_seen: Timestamp,
}

/// The view by product, or else the first by one dimension.
fn ranked_view(views: &[ViewStatus]) -> Option<&ViewStatus> {
    let by = |wanted: &str| {
        views.iter().find(|status| status.keys > 0 && single_key(status) == Some(wanted))
    };
    let other = || {
        views.iter().find(|status| {
            status.keys > 0 && single_key(status).is_some_and(|dimension| dimension != "event")
        })
    };
    by("product").or_else(other)
}

/// The view by category, or else another of few keys, or else the one by event.
fn shared_view<'a>(views: &'a [ViewStatus], ranked: Option<&ViewStatus>) -> Option<&'a ViewStatus> {
    let ranked = ranked.map(|status| status.view.name());
    let usable = |status: &&ViewStatus| {
        (1..=SHARED_KEYS_MAX).contains(&status.keys) && Some(status.view.name()) != ranked
    };
    let rank = |status: &&ViewStatus| match single_key(status)? {
        "category" => Some(0),
        "event" => Some(2),
        _ => Some(1),
    };
    let usable = views.iter().filter(usable).filter_map(|status| Some((rank(&status)?, status)));
    usable.min_by_key(|(rank, status)| (*rank, status.keys)).map(|(_, status)| status)
}

fn ranking(db: &Db, status: &ViewStatus) -> Result<Ranking, Failure> {
    let query = db.query(status.view.name())?;
    let by_count = query.top(RANKED, Component::Count)?;
    let measure = measure_of(&by_count);
    let by_sum = match measure {
        Some(_) => query.top(RANKED, Component::Sum)?,
        None => Vec::new(),
    };
    let view = status.view.name().to_owned();
    let dimension = single_key(status).unwrap_or_default().to_owned();
    Ok(Ranking { view, dimension, measure, by_sum, by_count })
}

fn shares(db: &Db, status: &ViewStatus) -> Result<Shares, Failure> {
    let query = db.query(status.view.name())?;
    let totals = query.totals()?;
    let measured = totals.summary().filter(|summary| summary.count_value > 0);
    let (component, total) = match measured {
        Some(summary) => (Component::Sum, summary.sum),
        None => (Component::Count, totals.count as f64),
    };
    Ok(Shares {
        view: status.view.name().to_owned(),
        dimension: single_key(status).unwrap_or_default().to_owned(),
        measure: measured.and_then(|_| totals.stats.first()).map(|(name, _)| name.clone()),
        keys: status.keys,
        total,
        rows: query.top(SHARED, component)?,
    })
}

fn measure_of(rows: &[Row]) -> Option<String> {
    rows.first()?.stats.first().map(|(name, _)| name.clone())
}

/// The buckets of the first view without a key that keeps hours or days.
fn buckets(db: &Db, views: &[ViewStatus]) -> Result<Vec<Bucket>, Failure> {
    for status in views.iter().filter(|status| status.view.key().is_empty()) {
        let query = db.query(status.view.name())?;
        for grain in [Grain::Hour, Grain::Day] {
            // A view without this grain refuses.
            if let Ok(buckets) = query.buckets(&[], grain)
                && !buckets.is_empty()
            {
                return Ok(buckets);
            }
        }
    }
    Ok(Vec::new())
}

/// Buckets added up to the periods whose numbers their starts have.
fn periods(buckets: &[Bucket], number: impl Fn(Timestamp) -> i64) -> Vec<Period> {
    let mut periods = BTreeMap::<i64, Period>::new();
    for bucket in buckets {
        let number = number(bucket.start);
        let period = periods.entry(number).or_insert(Period { number, count: 0, sum: None });
        period.count += bucket.count;
        if let Some(summary) = bucket.summary().filter(|summary| summary.count_value > 0) {
            period.sum = Some(period.sum.unwrap_or(0.0) + summary.sum);
        }
    }
    periods.into_values().collect()
}

/// The date with this number since 1970, `2010-12-01`.
pub(crate) fn day_text(number: i64) -> String {
    period_text(number, DAY_MICROS, "T")
}

/// The start of a period, cut before `end`.
pub(crate) fn period_text(number: i64, micros: i64, end: &str) -> String {
    let text = Timestamp::from_micros(number.saturating_mul(micros)).to_string();
    text.split(end).next().unwrap_or_default().replacen('T', " ", 1)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn serialize_day<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&day_text(*number))
}

fn serialize_rows<S: Serializer>(rows: &[Row], serializer: S) -> Result<S::Ok, S::Error> {
    let sheet = rows::row_sheet(&[], None);
    serializer.collect_seq(rows.iter().map(|row| sheet.object(&row.key, &rows::row_cells(row))))
}
