//! Cutting the power: at every operation of a script, in several ways, again in the recovery, and
//! again in the recovery of that.
//!
//! A run of a script is a list of moments, the disk before each operation that changes it. A [`Cut`]
//! is one of them and what is kept of what was not synced. What it leaves is opened, compared with
//! the model, worked with and opened again; that is a run, too, and is cut in its turn. So a place
//! is a script and a path of cuts, and everything else follows from that.

use crate::run::{History, Mark, Run, Weather, least_records, read_beside};
use crate::script::{self, Act, Script};
use quipu::simulation::{Operation, Random, SimulatedDisk, Step, Survival};
use std::fmt;
use std::str::FromStr;

/// A power cut, or the death of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The place in the list of moments; the last is the end of the run.
    pub(crate) moment: usize,
    /// What is kept: 0 nothing, 1 all, 2 the page cache, too; any other a choice of its own.
    pub(crate) kept: u64,
}

const NOTHING: u64 = 0;
const ALL: u64 = 1;
const KILL: u64 = 2;
const CHOICES: u64 = 3;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Cut>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cuts: Vec<String> = self.0.iter().map(|c| format!("{}.{}", c.moment, c.kept)).collect();
        f.write_str(&cuts.join("/"))
    }
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
        let cut = |text: &str| {
            let (moment, kept) = text.split_once('.').ok_or(format!("{text:?} is no cut"))?;
            Ok(Cut { moment: number(moment)? as usize, kept: number(kept)? })
        };
        text.split('/').filter(|part| !part.is_empty()).map(cut).collect::<Result<_, _>>().map(Path)
    }
}

impl Path {
    /// The number of cuts so far.
    pub(crate) fn depth(&self) -> usize {
        self.0.len()
    }

    fn then(&self, cut: Cut) -> Self {
        Path([self.0.as_slice(), &[cut]].concat())
    }

    /// A seed that is this place's own.
    fn seed(&self, script: &Script) -> u64 {
        digest(&format!("{}:{self}", script.name))
    }
}

/// FNV-1a: the same on every machine.
pub(crate) fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The number of moments of a run, the end included; the first are of its opening.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) all: usize,
    opening: usize,
}

/// Where to cut a run.
pub(crate) type Plan<'a> = dyn FnMut(&Script, &Path, Moments) -> Vec<Cut> + 'a;

/// Every moment of the script, each with `choices` choices beside the plain ones; of the recoveries
/// one cut in `again`.
pub(crate) fn everywhere(
    choices: u64,
    again: u64,
) -> impl FnMut(&Script, &Path, Moments) -> Vec<Cut> {
    move |script, path, moments| {
        if path.0.is_empty() {
            let kept = |moment| (0..CHOICES + choices).map(move |kept| Cut { moment, kept });
            return (0..moments.all).flat_map(kept).collect();
        }
        if path.depth() < 3 { sometimes(script, path, moments, 1, again) } else { Vec::new() }
    }
}

/// Up to `cuts` moments by chance, and again in the recoveries.
pub(crate) fn by_chance(cuts: u64, again: u64) -> impl FnMut(&Script, &Path, Moments) -> Vec<Cut> {
    move |script, path, moments| match path.depth() {
        0 => sometimes(script, path, moments, cuts, 1),
        1..3 => sometimes(script, path, moments, 1, again),
        _ => Vec::new(),
    }
}

/// One moment in five, with so many choices; then every moment of the recovery.
pub(crate) fn recoveries(choices: u64) -> impl FnMut(&Script, &Path, Moments) -> Vec<Cut> {
    move |_, path, moments| {
        let cuts = |moment, kept: std::ops::Range<u64>| kept.map(move |kept| Cut { moment, kept });
        match path.depth() {
            0 => (0..moments.all)
                .step_by(5)
                .flat_map(|moment| cuts(moment, CHOICES..CHOICES + choices))
                .collect(),
            1 => (0..moments.opening).flat_map(|moment| cuts(moment, NOTHING..KILL)).collect(),
            _ => Vec::new(),
        }
    }
}

/// So many cuts with a chance of one in `one_in` each; of a recovery mostly while it opens.
fn sometimes(script: &Script, path: &Path, moments: Moments, cuts: u64, one_in: u64) -> Vec<Cut> {
    let mut random = Random::new(path.seed(script));
    let mut chosen = Vec::new();
    for _ in 0..cuts {
        if random.one_in(one_in) {
            let opening = !path.0.is_empty() && !random.one_in(3);
            let of = if opening { moments.opening } else { moments.all };
            let moment = random.below(of as u64) as usize;
            chosen.push(Cut { moment, kept: random.below(CHOICES + 6) });
        }
    }
    chosen
}

/// This place only.
pub(crate) fn at(place: Path) -> impl FnMut(&Script, &Path, Moments) -> Vec<Cut> {
    move |_, path, _| place.0.get(path.depth()).copied().into_iter().collect()
}

/// How a disk under a script lies.
pub(crate) type Lie = fn(&Operation, &Act) -> bool;

pub(crate) struct Explorer<'a> {
    pub(crate) plan: &'a mut Plan<'a>,
    /// What the first disk does not do although it says so.
    pub(crate) lie: Option<Lie>,
    /// Disks that were opened.
    pub(crate) images: u64,
}

/// Of the images that are opened one in so many is read before.
const READ_ONE_IN: u64 = 5;

/// Says how to repeat what failed.
struct Tell<'a>(&'a Script, &'a Path);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Of what began with a fault the fault is told, too, and is what to repeat.
            eprintln!(
                "repeat it by\n  QUIPU_EXPLORE='{}:{}' cargo test --features simulation --test \
                 explore repeat -- --nocapture",
                self.0.name, self.1
            );
        }
    }
}

impl Explorer<'_> {
    /// Runs a script and cuts it where the plan says.
    pub(crate) fn explore(&mut self, script: &Script) {
        let root = Path::default();
        let tell = Tell(script, &root);
        let disk = SimulatedDisk::new(1);
        disk.keep_moments();
        let mut run =
            Run::open(&script.setup, &disk, History::new(), &Mark::default(), Weather::Fair)
                .expect("an empty disk is opened");
        for act in &script.acts {
            if let Some(lie) = self.lie {
                let act = act.clone();
                disk.plan(move |op| lie(op, &act).then_some(quipu::simulation::Fault::Lie));
            }
            let _ = run.act(act);
        }
        let (history, marks) = run.end();
        drop(tell);
        self.cut(script, &root, &disk, &history, &marks);
    }

    fn cut(
        &mut self,
        script: &Script,
        path: &Path,
        disk: &SimulatedDisk,
        history: &History,
        marks: &[Mark],
    ) {
        let moments = disk.moments();
        let opened = marks.get(1).map_or(0, |mark| mark.operations);
        let opening = moments.partition_point(|(operation, _)| operation.number <= opened);
        let count = Moments { all: moments.len() + 1, opening: opening + 1 };
        for cut in (self.plan)(script, path, count) {
            // The act during which it happens, and the one before.
            let at = moments.get(cut.moment).map(|(operation, _)| operation.number);
            let during = match at {
                Some(at) => marks.partition_point(|mark| mark.operations < at),
                None => marks.len() - 1,
            };
            let before = match at {
                Some(_) => &marks[during.max(1) - 1],
                None => &marks[during],
            };
            let Mark { submitted, minute, .. } = marks[during];
            let bounds = Mark { submitted, minute, ..before.clone() };
            let whole = moments.get(cut.moment).map_or(disk, |(_, disk)| disk);
            let path = path.then(cut);
            let image = match cut.kept {
                NOTHING => whole.power_cut(Survival::None),
                ALL => whole.power_cut(Survival::All),
                KILL => whole.kill(),
                _ => whole.power_cut(Survival::Some(path.seed(script))),
            };
            self.examine(script, &path, &image, history, &bounds);
        }
    }

    /// Examines a disk that came about in another way, and cuts that.
    pub(crate) fn go_on(
        &mut self,
        script: &Script,
        origin: &str,
        disk: &SimulatedDisk,
        history: &History,
        bounds: &Mark,
    ) {
        let script = Script { name: format!("{} {origin}", script.name), ..script.clone() };
        self.examine(&script, &Path::default(), disk, history, bounds);
    }

    /// Opens what a cut left, compares it, works with it, and cuts that.
    fn examine(
        &mut self,
        script: &Script,
        path: &Path,
        image: &SimulatedDisk,
        history: &History,
        bounds: &Mark,
    ) {
        let tell = Tell(script, path);
        self.images += 1;
        let mut random = Random::new(path.seed(script));
        // Somebody may look before the owner does; a control is to be caught by the owner.
        let shown = (self.lie.is_none() && random.one_in(READ_ONE_IN))
            .then(|| read_beside(&script.setup, image, history, bounds));
        image.keep_moments();
        let mut run = Run::open(&script.setup, image, history.clone(), bounds, Weather::Fair)
            .unwrap_or_else(|error| panic!("it cannot be opened: {error}"));
        let found = run.history.len();
        // What a first opening records may not be there before.
        let is_found = |n| n == found || (n < found && found == least_records(&script.setup));
        assert!(shown.is_none_or(is_found), "{shown:?} were shown, {found} found");
        run.check().expect("answers");
        let go_on = [Act::Run(Step::Sync), Act::Check, Act::Reopen, Act::Check];
        let acts = (0..random.below(6)).map(|_| script::act(&mut random)).collect::<Vec<_>>();
        for act in acts.iter().chain(&go_on) {
            let _ = run.act(act);
        }
        let (history, marks) = run.end();
        drop(tell);
        self.cut(script, path, image, &history, &marks);
    }
}
