//! Real data against answers that others computed (`tests/data/README.md`).
//!
//! Each set is recorded in batches and single calls, over a checkpoint, a clean reopening and a
//! crash, so that what is compared comes partly from the snapshot, partly from the log behind it.

use quipu::{
    Bucket, Component, Db, Dedup, Event, Grain, Keep, Options, Query, Row, Timestamp, View,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[test]
fn nist_series_keep_their_variance() {
    check_set("nist_numacc");
}

#[test]
fn a_web_log_out_of_order_is_answered_as_the_oracle_does() {
    check_set("apache_10k");
}

#[test]
fn keys_of_many_scripts_are_answered_as_the_oracle_does() {
    check_set("wikiticker");
}

#[test]
fn half_a_year_of_retail_is_answered_as_the_oracle_does() {
    check_set("online_retail_h1");
}

/// The lines themselves serve as ids; so what the window lets pass are the distinct lines.
#[test]
fn lines_that_are_their_own_ids_count_once() {
    let scratch = tempfile::tempdir().unwrap();
    let text = events_of("apache_10k");
    let want = oracle("apache_10k").answers.deduplicated_exact_rows;
    let open = || options().dedup(Dedup::Last(20_000)).open(scratch.path().join("db")).unwrap();
    let db = open();
    db.define(View::new("all").stats("value")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (mut recorded, mut duplicates) = (0, 0);
    let mut db = Some(db);
    for part in lines.chunks(3_000) {
        let engine = db.take().unwrap();
        let mut batch = engine.batch();
        for line in part {
            let id = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(line.as_bytes()));
            batch.push(&Line::parse(line).event().id(&id)).unwrap();
        }
        let outcome = engine.record_batch(&mut batch).unwrap();
        recorded += outcome.recorded;
        duplicates += outcome.duplicates;
        drop((batch, engine));
        db = Some(open());
    }
    let totals = db.unwrap().query("all").unwrap().totals().unwrap();
    assert_eq!((recorded, duplicates), (want.count, lines.len() as u64 - want.count));
    assert_eq!(totals.count, want.count);
    assert_eq!(totals.summary().unwrap().sum, number(&want.sum_exact));
}

// The data.

#[derive(Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    pub(crate) ts: i64,
    #[serde(borrow)]
    pub(crate) user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) product: Option<Cow<'a, str>>,
    #[serde(borrow)]
    category: Option<Cow<'a, str>>,
    value: Option<f64>,
}

impl<'a> Line<'a> {
    pub(crate) fn parse(line: &'a str) -> Self {
        serde_json::from_str(line).unwrap()
    }

    pub(crate) fn event(&self) -> Event<'_> {
        let mut event = Event::new(&self.event).at(Timestamp::from_millis(self.ts));
        for (name, text) in
            [("user", &self.user), ("product", &self.product), ("category", &self.category)]
        {
            if let Some(text) = text {
                event = event.dim(name, text);
            }
        }
        match self.value {
            Some(value) => event.value(value),
            None => event,
        }
    }
}

#[derive(Deserialize)]
struct Oracle {
    answers: Answers,
}

#[derive(Deserialize)]
struct Answers {
    overall: Expected,
    dims: BTreeMap<String, Dimension>,
    topk: BTreeMap<String, BTreeMap<String, Top>>,
    per_hour: Vec<(i64, u64, Option<String>)>,
    per_day: Vec<(i64, u64, Option<String>)>,
    per_week: Vec<(i64, u64)>,
    per_month: Vec<(i64, u64)>,
    keys20: Vec<KeyBuckets>,
    deduplicated_exact_rows: Deduplicated,
}

#[derive(Deserialize)]
struct Dimension {
    distinct: u64,
    top50: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    key: String,
    count: u64,
    count_value: u64,
    sum: Option<f64>,
    sum_exact: Option<String>,
    sum_abs: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    var_pop: Option<f64>,
    var_samp: Option<f64>,
    first_seen: i64,
    last_seen: i64,
}

#[derive(Deserialize)]
struct Top {
    rows: Vec<(String, serde_json::Value)>,
    tie_at_cut: bool,
}

#[derive(Deserialize)]
struct KeyBuckets {
    dim: String,
    key: String,
    hour: Vec<(i64, u64, Option<String>)>,
    day: Vec<(i64, u64, Option<String>)>,
}

#[derive(Deserialize)]
struct Deduplicated {
    count: u64,
    sum_exact: String,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn gunzip(path: &Path) -> String {
    let file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn events_of(set: &str) -> String {
    let folder = if set == "online_retail_h1" { "examples/data" } else { "tests/data" };
    gunzip(&here(&format!("{folder}/{set}.ndjson.gz")))
}

fn oracle(set: &str) -> Oracle {
    answers_of(set)
}

/// The part of a set's oracle that the type asks for.
pub(crate) fn answers_of<T: DeserializeOwned>(set: &str) -> T {
    read_json(&gunzip(&here(&format!("tests/data/{set}.oracle.json.gz"))))
}

fn read_json<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn number(decimal: &str) -> f64 {
    decimal.parse().unwrap()
}

// The engine.

/// The oracle's dimension, the view that answers it.
const VIEWS: [(&str, &str); 6] = [
    ("event", "by_event"),
    ("user", "by_user"),
    ("product", "by_product"),
    ("category", "by_category"),
    ("user+product", "by_user_product"),
    ("category+event", "by_category_event"),
];

fn view_of(dimension: &str) -> &'static str {
    VIEWS.iter().find(|(name, _)| *name == dimension).unwrap().1
}

/// Checkpoints are made where the test says so.
fn options() -> Options {
    Options::new().checkpoint_every(Duration::from_hours(1)).checkpoint_log_bytes(1 << 40)
}

fn define_views(db: &Db) {
    for (dimension, name) in VIEWS {
        let mut view = View::new(name).by(dimension.split('+')).stats("value");
        if matches!(dimension, "user" | "product") {
            view = view.grain(Grain::Hour, Keep::All).grain(Grain::Day, Keep::All);
        }
        assert!(db.define(view).unwrap());
    }
    let mut all = View::new("all").stats("value");
    for grain in [Grain::Hour, Grain::Day, Grain::Week, Grain::Month] {
        all = all.grain(grain, Keep::All);
    }
    assert!(db.define(all).unwrap());
}

/// Records the lines, a batch and some single calls in turn.
fn record(db: &Db, lines: &[&str]) {
    let mut batch = db.batch();
    for part in lines.chunks(997) {
        let (many, single) = part.split_at(part.len() * 4 / 5);
        for line in many {
            batch.push(&Line::parse(line).event()).unwrap();
        }
        assert_eq!(db.record_batch(&mut batch).unwrap().recorded, many.len() as u64);
        for line in single {
            db.record(&Line::parse(line).event()).unwrap();
        }
    }
}

/// What a crash leaves: the files as they are while the engine is open.
fn image(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            image(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn check_set(set: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let (text, oracle) = (events_of(set), oracle(set).answers);
    let lines: Vec<&str> = text.lines().collect();
    let (first, crashed) = (scratch.path().join("first"), scratch.path().join("crashed"));

    let db = options().open(&first).unwrap();
    define_views(&db);
    let (start, rest) = lines.split_at(lines.len() * 2 / 5);
    let (middle, end) = rest.split_at(rest.len() / 2);
    record(&db, start);
    db.checkpoint().unwrap();
    record(&db, middle);
    db.close().unwrap();
    let db = options().open(&first).unwrap();
    assert_eq!(db.statistics().replayed, 0, "a clean close leaves nothing to replay");
    record(&db, end);

    let mut check = Check { set, found: Vec::new(), lines: &lines };
    check.all("live", &db, &oracle);
    image(&first, &crashed);
    drop(db);
    let db = options().open(&crashed).unwrap();
    assert_eq!(db.statistics().replayed, end.len() as u64);
    check.all("recovered", &db, &oracle);
    db.checkpoint().unwrap();
    drop(db);
    let db = options().open(&first).unwrap();
    check.all("reopened", &db, &oracle);
    let found = check.found;
    assert!(found.is_empty(), "{} differ: {:#?}", found.len(), &found[..found.len().min(20)]);
}

// The comparison.

struct Check<'a> {
    set: &'a str,
    lines: &'a [&'a str],
    found: Vec<String>,
}

impl Check<'_> {
    fn all(&mut self, when: &str, db: &Db, oracle: &Answers) {
        assert_eq!(db.statistics().events, self.lines.len() as u64);
        let all = db.query("all").unwrap();
        self.row(&format!("{when} overall"), &all.totals().unwrap(), &oracle.overall);
        self.row(&format!("{when} overall"), &all.get(&[]).unwrap().unwrap(), &oracle.overall);
        self.buckets(when, &all, &[], Grain::Hour, &oracle.per_hour);
        self.buckets(when, &all, &[], Grain::Day, &oracle.per_day);
        for (grain, want) in [(Grain::Week, &oracle.per_week), (Grain::Month, &oracle.per_month)] {
            let got = all.buckets(&[], grain).unwrap();
            let got: Vec<_> = got.iter().map(|b| (b.start.millis(), b.count)).collect();
            self.same(&format!("{when} {grain}s"), &got, want);
        }
        for of in &oracle.keys20 {
            if matches!(of.dim.as_str(), "user" | "product") {
                let query = db.query(view_of(&of.dim)).unwrap();
                self.buckets(when, &query, &[&of.key], Grain::Hour, &of.hour);
                self.buckets(when, &query, &[&of.key], Grain::Day, &of.day);
            }
        }
        for (dimension, view) in VIEWS {
            let query = db.query(view).unwrap();
            let want = &oracle.dims[dimension];
            self.keys(&format!("{when} {view}"), &query, want.distinct, &oracle.overall);
            for want in &want.top50 {
                let key = split_key(dimension, &want.key);
                let parts: Vec<&str> = key.iter().map(String::as_str).collect();
                let what = format!("{when} {view} {key:?}");
                match query.get(&parts).unwrap() {
                    Some(row) => self.row(&what, &row, want),
                    None => self.found.push(format!("{what} is missing")),
                }
            }
            for (by, top) in &oracle.topk[dimension] {
                self.top(&format!("{when} {view}"), &query, dimension, by, top);
            }
        }
    }

    fn same<T: PartialEq + Debug + ?Sized>(&mut self, what: &str, got: &T, want: &T) {
        if got != want {
            self.found.push(format!("{} {what}: got {got:?}, want {want:?}", self.set));
        }
    }

    fn close(&mut self, what: &str, got: Option<f64>, want: Option<f64>, error: f64) {
        let agree = match (got, want) {
            (Some(got), Some(want)) => (got - want).abs() <= error,
            (got, want) => got == want,
        };
        if !agree {
            self.found.push(format!("{} {what}: got {got:?}, want {want:?}", self.set));
        }
    }

    fn row(&mut self, what: &str, row: &Row, want: &Expected) {
        self.same(&format!("{what} count"), &row.count, &want.count);
        let seen = (row.first_seen.millis(), row.last_seen.millis());
        self.same(&format!("{what} seen"), &seen, &(want.first_seen, want.last_seen));
        let got = row.summary().unwrap();
        self.same(&format!("{what} count_value"), &got.count_value, &want.count_value);
        let absolute = want.sum_abs.unwrap_or(0.0);
        // The oracle adds the decimal texts; half an ulp of each value and one of the sum apart.
        let exact = want.sum_exact.as_deref().map_or(0.0, number);
        self.close(&format!("{what} sum"), Some(got.sum), Some(exact), 1e-15 * absolute);
        self.close(
            &format!("{what} rounded sum"),
            Some(got.sum),
            want.sum.or(Some(0.0)),
            1e-15 * absolute,
        );
        self.same(&format!("{what} min"), &got.min, &want.min);
        self.same(&format!("{what} max"), &got.max, &want.max);
        let mean_error = 1e-15 * absolute / want.count_value.max(1) as f64;
        self.close(&format!("{what} mean"), got.mean, want.mean, mean_error);
        let relative = |of: Option<f64>| 1e-9 * of.unwrap_or(0.0);
        let (pop, samp) = (relative(want.var_pop), relative(want.var_samp));
        self.close(&format!("{what} var_pop"), got.var_pop, want.var_pop, pop);
        self.close(&format!("{what} var_samp"), got.var_samp, want.var_samp, samp);
    }

    fn buckets(
        &mut self,
        when: &str,
        query: &Query,
        key: &[&str],
        grain: Grain,
        want: &[(i64, u64, Option<String>)],
    ) {
        let got = query.buckets(key, grain).unwrap();
        let what = format!("{when} {} {key:?} {grain}s", query.view().name());
        let starts: Vec<_> = got.iter().map(|b| (b.start.millis(), b.count)).collect();
        let expected: Vec<_> = want.iter().map(|(start, count, _)| (*start, *count)).collect();
        self.same(&what, &starts, &expected);
        let size = if grain == Grain::Hour { 3_600_000 } else { 86_400_000 };
        for (Bucket { start, end, stats, .. }, (_, _, sum)) in got.iter().zip(want) {
            self.same(&what, &(end.millis() - start.millis()), &size);
            // Sums of a bucket cancel; the bound is on the sizes of what was added.
            let (summary, want) = (&stats[0].1, sum.as_deref().map_or(0.0, number));
            let largest = summary.max.unwrap_or(0.0).abs().max(summary.min.unwrap_or(0.0).abs());
            let error = 1e-15 * (largest * summary.count_value as f64).max(want.abs());
            self.close(&format!("{what} {start} sum"), Some(summary.sum), Some(want), error);
        }
    }

    /// All the ways to walk over the keys tell the same.
    fn keys(&mut self, what: &str, query: &Query, distinct: u64, overall: &Expected) {
        self.same(&format!("{what} distinct"), &query.key_count().unwrap(), &distinct);
        let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
        self.same(&format!("{what} rows"), &(rows.len() as u64), &distinct);
        let ordered = rows.windows(2).all(|pair| pair[0].key < pair[1].key);
        self.same(&format!("{what} in order, each once"), &ordered, &true);
        let totals = query.totals().unwrap();
        let counted: u64 = rows.iter().map(|row| row.count).sum();
        let without = self.lines_without(query.view().key());
        self.same(&format!("{what} counted"), &counted, &(overall.count - without));
        self.same(&format!("{what} totals"), &totals.count, &counted);
        let mut unordered: Vec<Row> = Vec::new();
        query
            .for_each(|row| {
                unordered.push(row);
                ControlFlow::Continue(())
            })
            .unwrap();
        unordered.sort_by(|a, b| a.key.cmp(&b.key));
        if unordered != rows {
            self.found.push(format!("{what}: for_each sees other rows than rows"));
        }
        if let [_, _] = query.view().key() {
            let first = &rows[rows.len() / 2].key[0];
            let under: Vec<Row> = query.prefix(&[first]).unwrap().map(Result::unwrap).collect();
            let want: Vec<Row> = rows.iter().filter(|row| row.key[0] == *first).cloned().collect();
            self.same(&format!("{what} prefix {first:?}"), &under, &want);
        }
    }

    /// How many lines lack a dimension of the key; in these sets only users are lacking.
    fn lines_without(&self, key: &[String]) -> u64 {
        let users = key.iter().any(|name| name == "user");
        let lacks = |line: &&&str| line.contains(r#""user":null"#);
        if users { self.lines.iter().filter(lacks).count() as u64 } else { 0 }
    }

    fn top(&mut self, what: &str, query: &Query, dimension: &str, by: &str, top: &Top) {
        let component: Component = by.parse().unwrap();
        let what = format!("{what} top by {by}");
        let got = query.top(top.rows.len(), component).unwrap();
        let keys: Vec<Vec<String>> = got.iter().map(|row| row.key.clone()).collect();
        let want: Vec<Vec<String>> =
            top.rows.iter().map(|(key, _)| split_key(dimension, key)).collect();
        self.same(&what, &keys, &want);
        for (row, (key, value)) in got.iter().zip(&top.rows) {
            let summary = row.summary().unwrap();
            match value.as_str() {
                Some(sum) => {
                    let error = 1e-9 * number(sum).abs();
                    self.close(
                        &format!("{what} {key}"),
                        Some(summary.sum),
                        Some(number(sum)),
                        error,
                    );
                }
                None => self.same(&what, &Some(row.count), &value.as_u64()),
            }
        }
        // Ten of them are the first ten; a tie at the cut falls to the lesser key.
        let ten: Vec<_> = query.top(10, component).unwrap().into_iter().map(|r| r.key).collect();
        self.same(&format!("{what}, ten"), &ten[..], &want[..want.len().min(10)]);
        self.same(&format!("{what} cut"), &(want.len() > 10), &top.tie_at_cut);
        // The lowest are the other end of the same order, ties still by key.
        let mut rows: Vec<(Row, f64)> = query
            .rows()
            .unwrap()
            .map(Result::unwrap)
            .map(|row| {
                let sum = row.summary().unwrap().sum;
                let rank = if component == Component::Count { row.count as f64 } else { sum };
                (row, rank)
            })
            .filter(|(row, _)| component == Component::Count || row.stats[0].1.count_value > 0)
            .collect();
        rows.sort_by(|(a, x), (b, y)| x.total_cmp(y).then_with(|| a.key.cmp(&b.key)));
        rows.truncate(25);
        let want: Vec<Row> = rows.into_iter().map(|(row, _)| row).collect();
        self.same(&format!("{what}, lowest"), &query.bottom(25, component).unwrap(), &want);
    }
}

fn split_key(dimension: &str, key: &str) -> Vec<String> {
    if dimension.contains('+') { read_json(key) } else { vec![key.to_owned()] }
}
