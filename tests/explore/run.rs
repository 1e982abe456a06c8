//! An engine that acts, and beside it what it must know: the records by position, and how far they
//! were acknowledged as durable.

#[path = "run/limited.rs"]
mod limited;

use crate::limits;
use crate::others::{Told, told};
use crate::script::{Act, Setup};
use crate::truth::{Fact, Model, SKETCHES, sketches, view, with_event};
use quipu::simulation::{OperationKind, SimulatedDisk, Step, Stepped, verify_on};
use quipu::{
    Db, Dedup, Depth, Durability, Error, ErrorKind, Grain, Keep, ReadOnlyDb, Retention, TestClock,
    TimeZone, View, ViewStatus,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

/// How many definitions a view can have.
pub(crate) const DEFINITIONS: usize = 3;

/// One of the definitions of a view; the model knows all that is in the first.
fn definition(which: usize, other: usize) -> View {
    match (other, which) {
        (0, _) => view(which),
        (1, _) => view(which).grain(Grain::Month, Keep::All),
        (_, SKETCHES) => {
            let view = sketches::common().distinct_at("user", sketches::COARSER);
            let view = self::view(which).grains().iter().fold(view, |v, (g, k)| v.grain(*g, *k));
            view.grain(Grain::Week, Keep::Last(3))
        }
        _ => {
            let view = view(which).grain(Grain::Week, Keep::Last(3));
            // The model asks one without statistics for none.
            if view.measures().len() == 0 { view } else { view.stats("price") }
        }
    }
}

/// Whether both keep the same of the same; the order in which they were told to does not matter.
fn is_same(a: &View, b: &View) -> bool {
    let grains = |view: &View| view.grains().iter().copied().collect::<BTreeMap<_, _>>();
    let sketches = |view: &View| -> Vec<Vec<String>> {
        let names = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
        let tops = view.top_dimensions().map(|(of, by)| format!("{of} by {by:?}"));
        vec![
            names(&mut view.distinct_dimensions()),
            names(&mut view.theta_dimensions()),
            names(&mut view.count_min_dimensions()),
            names(&mut view.membership_dimensions()),
            names(&mut view.quantile_measures()),
            tops.collect(),
        ]
    };
    a.key() == b.key()
        && a.measures().eq(b.measures())
        && grains(a) == grains(b)
        && sketches(a) == sketches(b)
}

/// A record of the log.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// The rule by which ids are remembered.
    Rule,
    Zone(TimeZone),
    /// An event, and the minute in which it was recorded.
    Fact(Fact, u32),
    /// A fact of another device, by its position there.
    Foreign(usize, u64, Fact),
    /// That what follows is of another replica.
    Rename,
    Define(usize),
    Drop(usize),
    Ask(usize),
    /// That the backfill is complete.
    Done,
    /// One of its other definitions is to take the place of the one that it has.
    Redefine(usize, usize),
    /// The same, by converting what is kept: it is there when all of that is done, or not at all.
    Convert(usize, usize),
    /// It has.
    Succeed(usize),
    /// It will not.
    GiveUp(usize),
    SetPolicy(usize),
    /// By its name.
    RemovePolicy(usize),
}

/// What the first opening records, each by itself.
fn first_records(setup: &Setup) -> Vec<Record> {
    let rule = (setup.ids != Dedup::Off).then_some(Record::Rule);
    let zone = (setup.zone != TimeZone::UTC).then_some(Record::Zone(setup.zone));
    rule.into_iter().chain(zone).collect()
}

/// How many records there are after any opening.
pub(crate) fn least_records(setup: &Setup) -> usize {
    first_records(setup).len()
}

/// The records in the order of their positions, and the positions at which a frame ends: what is
/// recovered ends at one of these.
#[derive(Clone, Debug)]
pub(crate) struct History {
    records: Vec<Record>,
    ends: BTreeSet<usize>,
}

/// A defined view.
#[derive(Clone, Copy, Debug)]
struct Defined {
    /// The position of its definition.
    at: usize,
    facts_before: usize,
    backfill_asked: bool,
    definition: usize,
    /// What is to be its definition, and the position at which that was said.
    successor: Option<(usize, usize)>,
    /// That is there for certain.
    is_certain: bool,
}

impl Defined {
    /// The view is as it is said to be, whatever its backfill is.
    fn check(&self, which: usize, status: &ViewStatus) {
        let same = |is: &View, other: usize| {
            let view = definition(which, other);
            assert!(is_same(is, &view), "the definition is\n{is}\nand not\n{view}");
        };
        same(&status.view, self.definition);
        let successor = status.successor.as_ref();
        if self.is_certain || successor.is_some() {
            assert_eq!(successor.is_some(), self.successor.is_some(), "a definition under way");
        }
        if let (Some(successor), Some((other, _))) = (successor, self.successor) {
            same(&successor.view, other);
        }
    }
}

impl History {
    pub(crate) fn new() -> Self {
        History { records: Vec::new(), ends: BTreeSet::from([0]) }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// As an opening finds it: what a first one records is there.
    fn opened(mut self, setup: &Setup, bounds: &Mark) -> Self {
        let first = first_records(setup);
        self.truncate(bounds.submitted.max(first.len()));
        for record in first.into_iter().skip(self.len()) {
            self.push(vec![record]);
        }
        self
    }

    fn push(&mut self, chunk: Vec<Record>) {
        self.records.extend(chunk);
        self.ends.insert(self.records.len());
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.records.truncate(len);
        self.ends.split_off(&(len + 1));
    }

    fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.records.iter().filter_map(|record| match record {
            Record::Fact(fact, _) | Record::Foreign(_, _, fact) => Some(fact),
            _ => None,
        })
    }

    /// The facts of a frame of another device that are not here, in runs.
    fn missing(&self, device: usize, frame: &[(u64, Fact)]) -> Vec<Vec<Record>> {
        let here: BTreeSet<u64> = self
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Foreign(of, position, _) if *of == device => Some(*position),
                _ => None,
            })
            .collect();
        let runs = frame.chunk_by(|(a, _), (b, _)| here.contains(a) == here.contains(b));
        let foreign =
            |(position, fact): &(u64, Fact)| Record::Foreign(device, *position, fact.clone());
        let missing = runs.filter(|run| !here.contains(&run[0].0));
        missing.map(|run| run.iter().map(foreign).collect()).collect()
    }

    fn views(&self) -> BTreeMap<usize, Defined> {
        let mut views = BTreeMap::new();
        let mut facts_before = 0;
        for (i, record) in self.records.iter().enumerate() {
            match record {
                Record::Rule
                | Record::Zone(_)
                | Record::Done
                | Record::Rename
                | Record::SetPolicy(_)
                | Record::RemovePolicy(_) => {}
                Record::Fact(..) | Record::Foreign(..) => facts_before += 1,
                Record::Define(which) => {
                    let view = Defined {
                        at: i + 1,
                        facts_before,
                        backfill_asked: false,
                        definition: 0,
                        successor: None,
                        is_certain: true,
                    };
                    views.insert(*which, view);
                }
                Record::Drop(which) => {
                    views.remove(which);
                }
                Record::Ask(which) => {
                    views.get_mut(which).expect("it was defined").backfill_asked = true;
                }
                Record::Redefine(which, other) | Record::Convert(which, other) => {
                    let view = views.get_mut(which).expect("it was defined");
                    view.successor = Some((*other, i + 1));
                    view.is_certain = matches!(record, Record::Redefine(..));
                }
                Record::Succeed(which) => {
                    let view = views.get_mut(which).expect("it was defined");
                    (view.definition, view.at) = view.successor.take().expect("it was begun");
                    view.is_certain = true;
                }
                Record::GiveUp(which) => {
                    let view = views.get_mut(which).expect("it was defined");
                    (view.successor, view.is_certain) = (None, true);
                }
            }
        }
        views
    }

    /// The policies that are set, by name.
    fn policies(&self) -> BTreeMap<&'static str, usize> {
        let mut policies = BTreeMap::new();
        for record in &self.records {
            match record {
                Record::SetPolicy(which) => _ = policies.insert(limits::name(*which), *which),
                Record::RemovePolicy(name) => _ = policies.remove(limits::NAMES[*name]),
                _ => {}
            }
        }
        policies
    }

    /// One that asks a view.
    fn asking(&self, view: usize) -> Option<usize> {
        self.policies().into_values().find(|policy| limits::asks(*policy, view))
    }

    /// Whether a view may not be given this definition: a policy would ask views of different buckets.
    fn is_needed(&self, which: usize, other: usize) -> bool {
        let now = self.views().get(&which).map_or(other, |view| view.definition);
        let grains = |other| definition(which, other).grains().to_vec();
        let is_net = |policy| limits::is_net(policy) && limits::asks(policy, which);
        grains(now) != grains(other) && self.policies().into_values().any(is_net)
    }

    fn model(&self) -> Model {
        let counts_from = |view: &Defined| if view.backfill_asked { 0 } else { view.facts_before };
        Model {
            facts: self.facts().cloned().collect(),
            defined: self.views().iter().map(|(which, view)| (*which, counts_from(view))).collect(),
            zone: self.zone(),
        }
    }

    fn zone(&self) -> TimeZone {
        let zone = self.records.iter().find_map(|record| match record {
            Record::Zone(zone) => Some(*zone),
            _ => None,
        });
        zone.unwrap_or_default()
    }

    /// The ids that are remembered in this minute.
    fn window(&self, rule: Dedup, minute: u32) -> BTreeSet<u8> {
        // Nobody asks the window about facts of others.
        let newest = self.records.iter().rev().filter_map(|record| match record {
            Record::Fact(fact, at) => fact.id.map(|id| (id, *at)),
            _ => None,
        });
        match rule {
            Dedup::Off => BTreeSet::new(),
            Dedup::Last(most) => newest.take(most as usize).map(|(id, _)| id).collect(),
            Dedup::For(age) => {
                let age = (age.as_secs() / 60) as u32;
                newest.filter(|(_, at)| at + age >= minute).map(|(id, _)| id).collect()
            }
        }
    }
}

/// How things stand after an act.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    /// Operations of the disk.
    pub(crate) operations: u64,
    /// Records that a power cut may not take.
    pub(crate) durable: usize,
    /// Records that there may be.
    pub(crate) submitted: usize,
    /// The definitions of views whose backfill was acknowledged.
    pub(crate) filled: BTreeSet<usize>,
    /// Minutes since the first opening.
    pub(crate) minute: u32,
}

/// What somebody sees who reads a disk that holds `history`, whether its owner has it open, has died
/// or has brought it in order: all records up to the end of a frame, none missing that may not be.
/// Nothing is written, and nothing is found damaged. Gives how many records they are.
pub(crate) fn read_beside(
    setup: &Setup,
    disk: &SimulatedDisk,
    history: &History,
    bounds: &Mark,
) -> usize {
    let history = history.clone().opened(setup, bounds);
    disk.plan(|op| {
        let nameless = op.path == std::path::Path::new("scratch");
        let written = op.kind.changes() && op.kind != OperationKind::Lock && !nameless;
        assert!(!written, "a reader does {op:?}");
        None
    });
    let found = match setup.options(&Setup::clock(0)).open_read_only_on(disk, "db") {
        Ok(reader) => {
            let found = check_reader(&reader, history, bounds);
            assert_eq!(reader.refresh().expect("it was just read").get() as usize, found);
            found
        }
        Err(error) => {
            assert_eq!(
                error.kind(),
                ErrorKind::NotFound,
                "it cannot be opened for reading: {error}"
            );
            assert_eq!(bounds.durable, 0, "it cannot be opened for reading: {error}");
            0
        }
    };
    // The end that a crash leaves is no damage.
    match verify_on(disk, "db", Depth::Refold, |_| {}) {
        Ok(report) => assert!(report.is_intact(), "{:?}", report.findings),
        Err(error) => assert_eq!((error.kind(), found), (ErrorKind::NotFound, 0), "{error}"),
    }
    disk.heal();
    found
}

/// Compares what a reader shows with what it may; gives how many records that are.
fn check_reader(reader: &ReadOnlyDb, mut history: History, bounds: &Mark) -> usize {
    let found = reader.position().get() as usize;
    assert!(history.ends.contains(&found), "a reader shows {found} records, no end of a frame");
    assert!(
        found >= bounds.durable,
        "a reader shows {found} records, and {} had been acknowledged as durable",
        bounds.durable
    );
    history.truncate(found);
    let mut model = history.model();
    let views = history.views();
    for status in reader.views().expect("answers") {
        let (which, defined) =
            views.iter().find(|(which, _)| view(**which).name() == status.view.name()).unwrap();
        defined.check(*which, &status);
        if status.backfill.is_some() {
            assert!(defined.backfill_asked, "nobody asked for its backfill");
            let filled = bounds.filled.contains(&defined.at);
            assert!(!filled, "to a reader a backfill acknowledged as complete is not");
            model.defined.remove(which);
        }
    }
    assert_eq!(reader.views().expect("answers").len(), views.len());
    limited::check_policies(&history, &reader.policies().expect("answers"));
    model.check(reader).expect("answers");
    found
}

/// That something was refused for this reason, and by an engine that can say so: one that is poisoned
/// says that first.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind) -> Result<(), Error> {
    let error = result.unwrap_err();
    if error.kind() == kind { Ok(()) } else { Err(error) }
}

/// What the disk under a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Whatever it should.
    Fair,
    /// Operations fail.
    Foul,
}

pub(crate) struct Run<'a> {
    setup: &'a Setup,
    disk: SimulatedDisk,
    clock: TestClock,
    engine: Option<Stepped>,
    weather: Weather,
    pub(crate) history: History,
    /// A frame whose append failed: it may be there after all.
    doubtful: Option<Vec<Record>>,
    /// What the last mark says from now on.
    mark: Mark,
    pub(crate) marks: Vec<Mark>,
    /// Something was recorded since the last sync that asks for one within an interval.
    promised: bool,
    /// What was done, to be told of a failure.
    acts: Vec<Act>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?}\nthe last of", self.mark);
            for act in &self.acts {
                eprintln!("  {act:?}");
            }
        }
    }
}

impl<'a> Run<'a> {
    /// Opens the engine on a disk that holds `history`, of which what `bounds` has as durable must
    /// be there and what it has as submitted may be.
    pub(crate) fn open(
        setup: &'a Setup,
        disk: &SimulatedDisk,
        history: History,
        bounds: &Mark,
        weather: Weather,
    ) -> Result<Self, Error> {
        // Who goes by the time at which ids came has a clock that does not go back; all others have one
        // that does, whenever somebody opens what is left.
        let minute = if matches!(setup.ids, Dedup::For(_)) { bounds.minute } else { 0 };
        let mut run = Run {
            setup,
            disk: disk.clone(),
            clock: Setup::clock(minute),
            engine: None,
            weather,
            history: history.opened(setup, bounds),
            doubtful: None,
            mark: Mark { operations: 0, minute, ..bounds.clone() },
            marks: Vec::new(),
            promised: false,
            acts: Vec::new(),
        };
        run.marks.push(run.mark.clone());
        run.open_engine()?;
        Ok(run)
    }

    fn open_engine(&mut self) -> Result<(), Error> {
        let engine = Stepped::open(self.setup.options(&self.clock), &self.disk, "db")?;
        let found = engine.db().position().get() as usize;
        let rebuilt = engine.db().statistics().snapshots_rebuilt;
        assert_eq!(rebuilt, 0, "the log had to stand in for a damaged snapshot");
        if let Some(doubtful) = self.doubtful.take()
            && found > self.history.len()
        {
            self.history.push(doubtful);
        }
        assert!(
            self.history.ends.contains(&found),
            "{found} records were found, which is no end of a frame; there were {}",
            self.history.len()
        );
        assert!(
            found >= self.mark.durable,
            "{found} records were found, {} had been acknowledged as durable",
            self.mark.durable
        );
        self.history.truncate(found);
        assert_eq!(
            engine.db().durable_position().get() as usize,
            found,
            "what was found is durable"
        );
        let views = self.history.views();
        let there: Vec<String> =
            engine.db().views()?.iter().map(|status| status.view.name().to_owned()).collect();
        let mut in_order: Vec<_> = views.iter().collect();
        in_order.sort_by_key(|(_, defined)| defined.at);
        let expected: Vec<_> =
            in_order.iter().map(|(which, _)| view(**which).name().to_owned()).collect();
        assert_eq!(there, expected, "the views that are defined");
        for status in engine.db().views()? {
            let named = |(which, _): &(&usize, _)| view(**which).name() == status.view.name();
            let (which, defined) = views.iter().find(named).expect("it is defined");
            defined.check(*which, &status);
            if status.backfill.is_some() {
                let at = status.defined_at.get() as usize;
                assert!(
                    !self.mark.filled.contains(&at),
                    "a backfill acknowledged as complete is not"
                );
            }
        }
        // What is complete without our having been told is complete.
        self.mark.filled.retain(|at| views.values().any(|defined| defined.at == *at));
        self.engine = Some(engine);
        self.promised = false;
        self.note(found);
        Ok(())
    }

    pub(crate) fn engine(&self) -> &Stepped {
        self.engine.as_ref().expect("it is open")
    }

    /// Makes a mark; the first `durable` records are.
    fn note(&mut self, durable: usize) {
        let told =
            self.engine.as_ref().map_or(0, |engine| engine.db().durable_position().get() as usize);
        assert!(
            self.engine.is_none() || told >= durable,
            "{durable} records are durable and the engine says {told}"
        );
        self.mark.durable = self.mark.durable.max(durable).max(told);
        self.mark.operations = self.disk.operations();
        self.mark.submitted = self.history.len() + self.doubtful.as_ref().map_or(0, Vec::len);
        self.marks.push(self.mark.clone());
    }

    fn defined(&self, which: usize) -> Option<Defined> {
        self.history.views().get(&which).copied()
    }

    /// The facts that are no duplicates.
    fn fresh(&self, facts: &[Fact]) -> Vec<Record> {
        let (rule, minute) = (self.setup.ids, self.mark.minute);
        let mut ids = self.history.window(rule, minute);
        let mut new = |fact: &Fact| fact.id.is_none_or(|id| ids.insert(id));
        let fresh = facts.iter().filter(|fact| rule == Dedup::Off || new(fact));
        fresh.map(|fact| Record::Fact(fact.clone(), minute)).collect()
    }

    /// Takes in a chunk that was to be appended, if the engine did it.
    fn settle<T>(&mut self, chunk: Vec<Record>, result: &Result<T, Error>) {
        let position = self.engine().db().position().get() as usize;
        if position == self.history.len() + chunk.len() {
            if !chunk.is_empty() {
                self.history.push(chunk);
                self.doubtful = None;
            }
            return;
        }
        assert_eq!(position, self.history.len(), "a chunk is recorded whole or not at all");
        match result {
            Ok(_) => panic!("acknowledged and not recorded: {chunk:?}"),
            Err(error) if error.kind() == ErrorKind::Poisoned => {}
            Err(_) => self.doubtful = Some(chunk),
        }
    }

    /// What a durability makes durable or promises; gives how many records are durable.
    fn acknowledged(&mut self, durability: Durability) -> usize {
        self.promised |= durability != Durability::Memory;
        if durability == Durability::Sync { self.history.len() } else { 0 }
    }

    fn is_poisoned(&self) -> bool {
        let synced = self.engine.as_ref().map(|engine| engine.db().sync());
        synced.is_some_and(|synced| synced.is_err_and(|e| e.kind() == ErrorKind::Poisoned))
    }

    /// Does it, and looks at what the engine said.
    pub(crate) fn act(&mut self, act: &Act) -> Result<(), Error> {
        self.acts.push(act.clone());
        let result = self.try_act(act);
        if let Err(error) = &result {
            assert_eq!(self.weather, Weather::Foul, "{act:?}: {error}");
            let kinds = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Poisoned];
            // That a backfill is complete would be a record, and nothing is recorded any more.
            let is_unfilled = error.kind() == ErrorKind::Backfilling && self.is_poisoned();
            assert!(kinds.contains(&error.kind()) || is_unfilled, "{act:?}: {error:?}");
            if self.engine.is_some() {
                self.note(0);
            }
        }
        result
    }

    fn try_act(&mut self, act: &Act) -> Result<(), Error> {
        self.reopen()?;
        let db = self.engine().db().clone();
        let mut durable = 0;
        match act {
            Act::Single(fact, level) => {
                let chunk = self.fresh(std::slice::from_ref(fact));
                let duplicate = chunk.is_empty();
                let recorded = with_event(fact, |event| db.record_with(event, *level));
                self.settle(chunk, &recorded);
                assert_eq!(recorded?.duplicate, duplicate);
                durable = self.acknowledged(*level);
            }
            Act::Batch(facts, level) => {
                let chunk = self.fresh(facts);
                let fresh = chunk.len();
                let mut batch = db.batch();
                for fact in facts {
                    with_event(fact, |event| batch.push(event))?;
                }
                let recorded = db.record_batch_with(&mut batch, *level);
                self.settle(chunk, &recorded);
                assert_eq!(recorded?.recorded, fresh as u64);
                durable = self.acknowledged(*level);
            }
            Act::Define(which) => {
                let there = self.defined(*which);
                let new = there.is_none();
                let chunk = if new { vec![Record::Define(*which)] } else { Vec::new() };
                let now = there.map_or(0, |defined| defined.definition);
                let defined = db.define(definition(*which, now));
                self.settle(chunk, &defined);
                assert_eq!(defined?, new);
                if new {
                    durable = self.acknowledged(self.setup.durability);
                }
            }
            Act::Drop(which) => durable = self.drop_view(*which)?,
            Act::SetPolicy(which) => durable = self.set_policy(*which)?,
            Act::RemovePolicy(name) => durable = self.remove_policy(*name)?,
            Act::CheckAndRecord(call, level) => durable = self.check_and_record(call, *level)?,
            Act::Refund(call) => durable = self.refund(call)?,
            Act::Backfill(which) => durable = self.backfill(*which)?,
            Act::Import(device, which) => durable = self.import(*device, told(*device, *which))?,
            Act::Rename => {
                let renamed = db.new_replica();
                self.settle(vec![Record::Rename], &renamed);
                assert_eq!(renamed?, db.replica());
                durable = self.acknowledged(self.setup.durability);
            }
            Act::Redefine(which, other, midway) => {
                durable = self.redefine(*which, *other, *midway)?;
            }
            Act::Checkpoint => {
                db.checkpoint()?;
                durable = self.history.len();
            }
            Act::Sync => durable = db.sync()?.get() as usize,
            Act::Run(step) => {
                let promised = *step == Step::Sync && std::mem::take(&mut self.promised);
                self.engine().run(*step)?;
                if promised {
                    durable = self.history.len();
                }
            }
            Act::Ask(user) => {
                let user = format!("u{user}");
                if self.defined(0).is_some_and(|view| !view.backfill_asked) {
                    let count = db.query("by_user")?.get(&[&user])?.map(|row| row.count);
                    let expected = self.history.model().expected(0);
                    assert_eq!(count, expected.get(&vec![user]).map(|row| row.count));
                }
            }
            Act::Check => self.check()?,
            Act::Tick => {
                self.clock.advance(Duration::from_mins(1));
                self.mark.minute += 1;
            }
            Act::Reopen => {
                let closed = db.close();
                drop(db);
                self.engine = None;
                if closed.is_ok() {
                    self.note(self.history.len());
                } else {
                    assert_eq!(self.weather, Weather::Foul, "{closed:?}");
                }
                self.open_engine()?;
            }
        }
        self.note(durable);
        Ok(())
    }

    fn drop_view(&mut self, which: usize) -> Result<usize, Error> {
        let dropped = self.engine().db().drop_view(view(which).name());
        if self.defined(which).is_none() {
            return refused(dropped, ErrorKind::UnknownView).map(|()| 0);
        }
        if self.history.asking(which).is_some() {
            return refused(dropped, ErrorKind::Invalid).map(|()| 0);
        }
        self.settle(vec![Record::Drop(which)], &dropped);
        dropped?;
        Ok(self.acknowledged(self.setup.durability))
    }

    fn import(&mut self, device: usize, told: &Told) -> Result<usize, Error> {
        let db = self.engine().db().clone();
        let imported = db.import(&told.bundle);
        let mut new = 0;
        let frames = told.frames.iter();
        let missing: Vec<_> =
            frames.flat_map(|frame| self.history.missing(device, frame)).collect();
        for chunk in missing {
            new += chunk.len() as u64;
            if db.position().get() as usize > self.history.len() {
                self.history.push(chunk);
                self.doubtful = None;
            } else {
                self.settle(chunk, &imported);
                break;
            }
        }
        assert_eq!(db.position().get() as usize, self.history.len());
        let outcome = imported?;
        assert_eq!((outcome.imported, outcome.already_there), (new, told.bundle.events() - new));
        Ok(self.history.len())
    }

    fn backfill(&mut self, which: usize) -> Result<usize, Error> {
        let db = self.engine().db().clone();
        let unfilled = db
            .views()?
            .into_iter()
            .any(|status| status.view.name() == view(which).name() && status.backfill.is_some());
        let filled = db.backfill(view(which).name(), |_| ControlFlow::Continue(()));
        let Some(defined) = self.defined(which) else {
            assert_eq!(filled.unwrap_err().kind(), ErrorKind::UnknownView);
            return Ok(0);
        };
        if let Err(error) = &filled
            && error.kind() == ErrorKind::LogRetired
        {
            assert!(self.setup.retention != Retention::KeepAll && !defined.backfill_asked);
            return Ok(0);
        }
        if let Err(error) = &filled
            && error.kind() == ErrorKind::Backfilling
        {
            assert!(defined.successor.is_some() && !defined.backfill_asked);
            return Ok(0);
        }
        let ask = (!defined.backfill_asked).then_some(Record::Ask(which));
        let done = (!defined.backfill_asked || unfilled).then_some(Record::Done);
        self.settle_each(ask.into_iter().chain(done), &filled);
        filled?;
        self.mark.filled.insert(defined.at);
        let was_filled = defined.backfill_asked && !unfilled;
        Ok(if was_filled { 0 } else { self.history.len() })
    }

    /// Takes in the records of a call that appends several, one after the other, as far as it has come.
    fn settle_each<T>(
        &mut self,
        records: impl IntoIterator<Item = Record>,
        result: &Result<T, Error>,
    ) {
        let position = self.engine().db().position().get() as usize;
        for record in records {
            if position > self.history.len() {
                self.history.push(vec![record]);
                self.doubtful = None;
            } else {
                self.settle(vec![record], result);
                break;
            }
        }
        assert_eq!(position, self.history.len());
    }

    fn redefine(&mut self, which: usize, other: usize, midway: bool) -> Result<usize, Error> {
        let db = self.engine().db().clone();
        let successor = |db: &Db| -> Result<Option<View>, Error> {
            let views = db.views()?.into_iter();
            let mut status = views.filter(|status| status.view.name() == view(which).name());
            Ok(status.next().and_then(|status| status.successor).map(|successor| successor.view))
        };
        let before = successor(&db)?;
        let same = |view: &View| is_same(view, &definition(which, other));
        let (mut steps, mut converts) = (0, false);
        let redefined = db.redefine(definition(which, other), |progress| {
            steps += 1;
            // What is read from the log begins with a frame that was read.
            if steps == 1 && progress.done == 0 {
                converts = true;
            }
            if converts {
                // The checkpoint would wait for the end.
                return if midway { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            }
            if midway && steps == 2 {
                // Should it fail, it is as if there had been none.
                let _ = db.checkpoint();
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let stopped = |error: &Error| error.kind() == ErrorKind::Stopped;
        let Some(defined) = self.defined(which) else {
            return refused(redefined, ErrorKind::UnknownView).map(|()| 0);
        };
        if self.history.is_needed(which, other) {
            return refused(redefined, ErrorKind::Invalid).map(|()| 0);
        }
        if let Err(error) = &redefined
            && error.kind() == ErrorKind::LogRetired
        {
            assert_ne!(self.setup.retention, Retention::KeepAll);
            assert!(defined.successor.is_none_or(|(begun, _)| begun != other));
            return Ok(0);
        }
        if defined.definition == other {
            let given_up = before.map(|_| Record::GiveUp(which));
            let is_recorded = given_up.is_some();
            self.settle_each(given_up, &redefined);
            assert!(!redefined?, "it was so already");
            let durability = self.setup.durability;
            return Ok(if is_recorded { self.acknowledged(durability) } else { 0 });
        }
        let is_begun = before.as_ref().is_some_and(same);
        // Where it failed before it said how it goes: what is converted is not there then.
        let fails = redefined.is_err() && steps == 0;
        converts |= fails && !is_begun && successor(&db).is_ok_and(|there| there.is_none());
        let begin =
            if converts { Record::Convert(which, other) } else { Record::Redefine(which, other) };
        let begin = (!is_begun).then_some(begin);
        let given_up = (converts && before.is_some()).then_some(Record::GiveUp(which));
        let is_stopped = redefined.as_ref().is_err_and(stopped);
        let end = (!is_stopped).then_some(Record::Succeed(which));
        self.settle_each(given_up.into_iter().chain(begin).chain(end), &redefined);
        if is_stopped {
            return Ok(0);
        }
        assert!(redefined?, "it is so now");
        if let Some(defined) = self.defined(which).filter(|defined| defined.backfill_asked) {
            self.mark.filled.insert(defined.at);
        }
        Ok(self.history.len())
    }

    /// Tries again what an opening failed at.
    fn reopen(&mut self) -> Result<(), Error> {
        if self.engine.is_none() { self.open_engine() } else { Ok(()) }
    }

    /// Compares everything there is with the model.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        self.reopen()?;
        let views = self.history.views();
        let mut unfilled = Vec::new();
        for status in self.engine().db().views()? {
            if status.backfill.is_some() {
                let named = |which: &&usize| view(**which).name() == status.view.name();
                let which = *views.keys().find(named).expect("it is defined");
                assert!(views[&which].backfill_asked, "nobody asked for its backfill");
                match self.backfill(which) {
                    // That it is complete would be a record.
                    Err(error) if error.kind() == ErrorKind::Poisoned => unfilled.push(which),
                    filled => _ = filled?,
                }
            }
        }
        let mut model = self.history.model();
        model.defined.retain(|which, _| !unfilled.contains(which));
        model.check(self.engine().db())?;
        self.check_limits()
    }

    /// What there may be on the disk at this moment, to be opened by somebody else.
    pub(crate) fn expectation(&self) -> (History, Mark) {
        let mut history = self.history.clone();
        history.records.extend(self.doubtful.iter().flatten().cloned());
        history.ends.insert(history.len());
        (history, self.marks.last().expect("there is one of the beginning").clone())
    }

    /// Closes the engine.
    pub(crate) fn end(mut self) -> (History, Vec<Mark>) {
        let closed = self.engine.take().map_or(Ok(()), |engine| engine.db().close());
        assert!(closed.is_ok() || self.weather == Weather::Foul, "{closed:?}");
        self.note(if closed.is_ok() { self.history.len() } else { 0 });
        (self.history.clone(), std::mem::take(&mut self.marks))
    }
}
