//! Any events, in any mixture of calls, against a map of counts, before and after reopening.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quipu::{Db, Event, Grain, Keep, OnInvalid, Timestamp, View};
use quipu_fuzz::directory::{IDS, options, scratch};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
struct Owned {
    name: String,
    at: Option<i64>,
    dims: Vec<(Dim, String)>,
    value: Option<f64>,
    latency: Option<f64>,
    entity: Option<String>,
    id: Option<String>,
    payload: Vec<u8>,
    times: Option<u64>,
    /// By how much the time may be off, in nanoseconds.
    about: Option<u64>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Dim {
    A,
    B,
    C,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Record(Owned),
    Batch(Vec<Owned>),
    All(Vec<Owned>, bool),
    Checkpoint,
    Reopen,
}

impl Owned {
    fn event(&self) -> Event<'_> {
        let mut event = Event::new(&self.name).payload(&self.payload);
        if let Some(at) = self.at.map(Timestamp::from_micros) {
            event = match self.about {
                Some(nanos) => event.at_about(at, Duration::from_nanos(nanos)),
                None => event.at(at),
            };
        }
        if let Some(times) = self.times {
            event = event.times(times);
        }
        for (dim, text) in self.dims.iter().take(40) {
            let name = match dim {
                Dim::A => "a",
                Dim::B => "b",
                Dim::C => "c",
            };
            event = event.dim(name, text);
        }
        if let Some(value) = self.value {
            event = event.value(value);
        }
        if let Some(latency) = self.latency {
            event = event.measure("latency", latency);
        }
        if let Some(entity) = &self.entity {
            event = event.entity(entity);
        }
        if let Some(id) = &self.id {
            event = event.id(id);
        }
        event
    }

    fn dim(&self, wanted: char) -> Option<String> {
        let name = |dim: Dim| match dim {
            Dim::A => 'a',
            Dim::B => 'b',
            Dim::C => 'c',
        };
        self.dims.iter().find(|(dim, _)| name(*dim) == wanted).map(|(_, text)| text.clone())
    }
}

/// What must be answered: counts by key, and the measured count of the values.
#[derive(Default)]
struct Model {
    events: u64,
    counted: u64,
    measured: u64,
    by_ab: BTreeMap<Vec<String>, u64>,
    by_name: BTreeMap<Vec<String>, u64>,
    /// The last ids, oldest first.
    ids: Vec<String>,
}

impl Model {
    /// Takes in what was recorded in one call; gives how many of them were duplicates.
    fn add_all<'e>(&mut self, events: impl IntoIterator<Item = &'e Owned>) -> u64 {
        let mut duplicates = 0;
        for event in events {
            match &event.id {
                Some(id) if self.ids.contains(id) => {
                    duplicates += 1;
                    continue;
                }
                Some(id) => self.ids.push(id.clone()),
                None => {}
            }
            self.add(event);
        }
        self.ids.drain(..self.ids.len().saturating_sub(IDS));
        duplicates
    }

    fn add(&mut self, event: &Owned) {
        let times = event.times.unwrap_or(1);
        let count = |count: &mut u64| *count = count.saturating_add(times);
        self.events += 1;
        count(&mut self.counted);
        if event.value.is_some() {
            count(&mut self.measured);
        }
        count(self.by_name.entry(vec![event.name.clone()]).or_default());
        if let (Some(a), Some(b)) = (event.dim('a'), event.dim('b')) {
            count(self.by_ab.entry(vec![a, b]).or_default());
        }
    }

    fn check(&self, db: &Db) {
        assert_eq!(db.statistics().events, self.events);
        let all = db.query("all").expect("is defined").totals().expect("reads");
        assert_eq!(all.count, self.counted);
        assert_eq!(all.summary().map_or(0, |summary| summary.count_value), self.measured);
        for (view, want) in [("by_ab", &self.by_ab), ("by_name", &self.by_name)] {
            let query = db.query(view).expect("is defined");
            let rows = query.rows().expect("reads").map(|row| row.expect("reads"));
            let got: Vec<_> = rows.map(|row| (row.key, row.count)).collect();
            let want: Vec<_> = want.iter().map(|(key, count)| (key.clone(), *count)).collect();
            assert_eq!(got, want, "{view}");
        }
        let buckets = db.query("all").expect("is defined").buckets(&[], Grain::Day);
        let counts = buckets.expect("reads").into_iter().map(|bucket| bucket.count);
        assert_eq!(counts.fold(0, u64::saturating_add), self.counted);
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let home = scratch();
    let path = home.path().join("db");
    let open = || options().open(&path).expect("opens");
    let mut db = open();
    db.define(View::new("all").stats("value").stats("latency").grain(Grain::Day, Keep::All))
        .expect("defines");
    db.define(View::new("by_ab").by(["a", "b"]).stats("latency")).expect("defines");
    db.define(View::new("by_name").by(["event"])).expect("defines");
    let mut model = Model::default();
    for step in &steps {
        match step {
            Step::Record(event) => {
                if let Ok(recorded) = db.record(&event.event()) {
                    assert_eq!(u64::from(recorded.duplicate), model.add_all([event]));
                }
            }
            Step::Batch(events) => {
                let mut batch = db.batch();
                let taken = events.iter().filter(|event| batch.push(&event.event()).is_ok());
                let taken: Vec<&Owned> = taken.collect();
                assert_eq!(batch.len(), taken.len());
                let outcome = db.record_batch(&mut batch).expect("records");
                assert_eq!(outcome.recorded + outcome.duplicates, taken.len() as u64);
                assert_eq!(outcome.duplicates, model.add_all(taken));
            }
            Step::All(events, skip) => {
                let on_invalid = if *skip { OnInvalid::Skip } else { OnInvalid::Refuse };
                let all = events.iter().map(Owned::event);
                if let Ok(outcome) = db.record_all(all, on_invalid) {
                    let refused: Vec<usize> = outcome.refused.iter().map(|(i, _)| *i).collect();
                    let taken = events.iter().enumerate().filter(|(i, _)| !refused.contains(i));
                    assert_eq!(outcome.duplicates, model.add_all(taken.map(|(_, event)| event)));
                }
            }
            Step::Checkpoint => db.checkpoint().expect("checkpoints"),
            Step::Reopen => {
                drop(db);
                db = open();
            }
        }
    }
    model.check(&db);
    drop(db);
    model.check(&open());
});
