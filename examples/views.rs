//! Views over half a year of a shop's sales: totals, top lists, averages, a filter, and a view that
//! is defined when the events are there already, and filled from the log.
//!
//! `cargo run --release --example views [DIRECTORY]`
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use quipu::{Batch, Component, Db, Event, Grain, Keep, Row, Timestamp, View};
use serde::Deserialize;
use std::borrow::Cow;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;

const EVENTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/online_retail_h1.ndjson.gz");

/// A line of the file: a customer bought (or gave back) a product; the category is the country.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    ts: i64,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    product: Cow<'a, str>,
    #[serde(borrow)]
    category: Cow<'a, str>,
    value: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let path = std::env::args_os().nth(1).map_or(scratch.path().join("shop"), Into::into);
    let db = Db::open(path)?;

    // What is to be known is said beforehand; then every event keeps it up to date.
    db.define(View::new("revenue_by_category").by(["category"]).stats("value"))?;
    db.define(View::new("purchases_by_user").by(["user"]).only_events(["sale"]))?;
    db.define(View::new("value_by_product").by(["product"]).only_events(["sale"]).stats("value"))?;
    db.define(
        View::new("french_months")
            .where_equal("category", "France")
            .only_events(["sale"])
            .stats("value")
            .grain(Grain::Month, Keep::All),
    )?;
    if db.statistics().events == 0 {
        load(&db, Path::new(EVENTS))?;
    }

    title("Total revenue by category");
    for row in db.query("revenue_by_category")?.top(8, Component::Sum)? {
        println!("{:<24}{:>14.2}{:>9} events", row.key[0], sum(&row), row.count);
    }
    title("Top 10 users by purchase count");
    for row in db.query("purchases_by_user")?.top(10, Component::Count)? {
        println!("{:<24}{:>14}   last on {}", row.key[0], row.count, row.last_seen);
    }
    title("Average value per product, of those with the dearest sales");
    for row in db.query("value_by_product")?.top(5, Component::Mean)? {
        let summary = row.summary().ok_or("the view keeps statistics")?;
        let mean = summary.mean.unwrap_or_default();
        let deviation = summary.var_samp.map_or("-".to_owned(), |v| format!("{:.2}", v.sqrt()));
        println!("{:<24}{mean:>14.2} ± {deviation}, {} sales", row.key[0], row.count);
    }
    title("Sales to France by month");
    for month in db.query("french_months")?.buckets(&[], Grain::Month)? {
        let sum = month.summary().map_or(0.0, |summary| summary.sum);
        println!("{:<24}{sum:>14.2}{:>9} sales", &month.start.to_string()[..7], month.count);
    }

    // A question that nobody had thought of. The log has all the answers.
    title("Which product whom: a view defined afterwards");
    db.define(View::new("by_user_product").by(["user", "product"]).stats("value"))?;
    let mut shown = 0;
    let read = db.backfill("by_user_product", |progress| {
        if progress.done >= shown + progress.total / 5 {
            shown = progress.done;
            println!("{:>3} % read", 100 * progress.done / progress.total);
        }
        ControlFlow::Continue(())
    })?;
    let pairs = db.query("by_user_product")?;
    println!("{read} events from the log, {} pairs", pairs.key_count()?);
    let best = db.query("purchases_by_user")?.top(1, Component::Count)?;
    let user = best[0].key[0].as_str();
    let mut theirs: Vec<Row> = pairs.prefix(&[user])?.collect::<Result<_, _>>()?;
    theirs.sort_by_key(|row| std::cmp::Reverse(row.count));
    for row in theirs.iter().take(5) {
        println!("{:<12}{:<12}{:>14.2}{:>9} times", row.key[0], row.key[1], sum(row), row.count);
    }
    db.close()?;
    Ok(())
}

fn load(db: &Db, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut reader = BufReader::new(flate2::read::MultiGzDecoder::new(File::open(path)?));
    let (mut text, mut batch) = (String::new(), db.batch());
    while reader.read_line(&mut text)? > 0 {
        push(&mut batch, &serde_json::from_str(&text)?)?;
        text.clear();
        if batch.len() == 4_096 {
            db.record_batch(&mut batch)?;
        }
    }
    db.record_batch(&mut batch)?;
    println!("{} events recorded", db.statistics().events);
    Ok(())
}

fn push(batch: &mut Batch, line: &Line<'_>) -> quipu::Result<()> {
    let mut event = Event::new(&line.event)
        .at(Timestamp::from_millis(line.ts))
        .dim("product", &line.product)
        .dim("category", &line.category)
        .value(line.value);
    // A sale over the counter has no user: it counts in every view but those by user.
    if let Some(user) = &line.user {
        event = event.dim("user", user);
    }
    batch.push(&event)
}

fn title(text: &str) {
    println!("\n{text}\n{}", "-".repeat(text.len()));
}

fn sum(row: &Row) -> f64 {
    row.summary().map_or(0.0, |summary| summary.sum)
}
