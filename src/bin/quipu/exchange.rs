//! What replicas tell each other: `export` and `import`.
//!
//! 1. An export is bundles of bounded size, one behind the other; as JSON, one a line. So neither side
//!    holds all of a large one.
//! 2. The cursor to go on from is the answer of an export into a file, given when that is durable under its
//!    name: what was told is not told again. Where the bundles are on standard output it is told on standard
//!    error.
//! 3. What a file is, its first bytes say; what is no bundle may be tiny-counter's. A bundle that is refused
//!    has changed nothing; those before it in the file are imported, and importing it again passes over
//!    them.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use quipu::{Bundle, Cursor, Db, ImportOptions, Options, TimeZone, TinyCounter};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::archive::answer;
use crate::args::{Output, Place};
use crate::failure::Failure;
use crate::number;
use crate::progress::say;

const EXPORT_EXAMPLES: &str = "\
Examples:
  quipu export shop.bundle --dir shop    all; shows the cursor of its end
  quipu export new.bundle --since CURSOR --dir shop
  quipu export - --format json --dir shop | quipu import - --dir copy

The next export since the cursor has what was recorded meanwhile. Both may go to any number of others, \
in any order; what one has already it passes over.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  quipu import shop.bundle --dir laptop
  quipu import monday.bundle tuesday.bundle --dir laptop
  quipu import app_launch.bin --time-zone Europe/Paris --dir app

Events are named by who recorded them and where, so each counts once, however often it comes. Of \
tiny-counter's files and JSON exports each bucket becomes one event that stands for as many, known to \
within half of its span, and counts at the middle of it. Move a counter over once, when it is recorded \
to no more: a later state of it has the same events again, and is refused.";

/// Bytes of a bundle.
const BUNDLE_BYTES: u64 = 16 << 20;

/// Write down what was recorded, for other replicas to import
///
/// Own events and those imported before, with the names that they have everywhere. Also while another process
/// has the directory open; then up to what is known to be durable.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(crate) struct ExportArgs {
    /// The file to write; - is standard output
    #[arg(value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Only what was recorded behind this cursor, which an earlier export gave
    #[arg(long, value_name = "CURSOR", default_value = "beginning")]
    since: Cursor,
    /// The form of the bundles
    #[arg(long, short, value_name = "FORMAT", default_value = "binary")]
    format: BundleFormat,
    /// No summary
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BundleFormat {
    /// Small and checked
    Binary,
    /// One JSON object a line
    Json,
}

/// Record what other replicas have written down, each event once
///
/// Also moves files of tiny-counter 0.1 over: of one event (.bin; .json) or an export of all of them.
#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(crate) struct ImportArgs {
    /// The files; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Take events that are further ahead of the clock than a day, too
    #[arg(long)]
    allow_ahead: bool,
    /// Record as another replica from now on: for a directory that is a copy of one that goes on
    #[arg(long)]
    new_replica: bool,
    #[command(flatten)]
    tiny_counter: TinyCounterArgs,
    /// No summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: Output,
}

/// What files of tiny-counter's do not say.
#[derive(Debug, Args)]
struct TinyCounterArgs {
    /// The time zone of the device that tiny-counter's files are of
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: TimeZone,
    /// The name of the event of a file of tiny-counter's [default: the file's name]
    #[arg(long, value_name = "NAME")]
    event_name: Option<String>,
    /// Take a counter of tiny-counter's although another state of it is here: it is of another device
    #[arg(long)]
    another_device: bool,
}

/// Runs `export`.
pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let db = args.place.open_to_ask()?;
    let to_stdout = args.to.as_os_str() == "-";
    let unfinished = args.to.with_added_extension("unfinished");
    let fail = |error: io::Error| Failure::file(&args.to.to_string_lossy(), &error);
    let file = if to_stdout { None } else { Some(File::create(&unfinished).map_err(fail)?) };
    let mut out: Box<dyn Write> = match &file {
        None => Box::new(BufWriter::new(io::stdout().lock())),
        Some(file) => Box::new(BufWriter::new(file)),
    };
    let (mut cursor, mut events, mut bundles) = (args.since, 0, 0);
    loop {
        let bundle = db.export_some(&cursor, BUNDLE_BYTES)?;
        if bundle.cursor() == cursor && bundles > 0 {
            break;
        }
        let written = match args.format {
            BundleFormat::Binary => out.write_all(&bundle.to_bytes()),
            BundleFormat::Json => serde_json::to_writer(&mut out, &bundle)
                .map_err(io::Error::from)
                .and_then(|()| out.write_all(b"\n")),
        };
        written.map_err(|error| if to_stdout { Failure::from(error) } else { fail(error) })?;
        (cursor, events, bundles) = (bundle.cursor(), events + bundle.events(), bundles + 1);
    }
    out.flush().map_err(|error| if to_stdout { Failure::from(error) } else { fail(error) })?;
    drop(out);
    match file {
        None => say(&format!("cursor: {cursor}")),
        Some(file) => {
            put_in_place(&file, &unfinished, &args.to).map_err(fail)?;
            writeln!(io::stdout(), "{cursor}")?;
        }
    }
    db.close()?;
    if !args.quiet && !to_stdout {
        say(&format!(
            "{} in {}; next time: --since {cursor}",
            number::counted(events, "event"),
            args.to.display(),
        ));
    }
    Ok(())
}

/// Gives a file that was written its name, durably.
fn put_in_place(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(from, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Runs `import`.
pub(crate) fn import(args: &ImportArgs) -> Result<(), Failure> {
    let db = Options::new().open(&args.place.dir)?;
    let mut importing =
        Importing { db: &db, args, imported: 0, already_there: 0, late: 0, cursor: None };
    if args.new_replica {
        say(&format!("this directory records as replica {} from now on", db.new_replica()?));
    }
    for file in &args.files {
        importing.file(file).map_err(|failure| {
            let advice = format!("{} was not imported, or not all of it", file.display());
            failure.because(&advice)
        })?;
    }
    let Importing { imported, already_there, late, cursor, .. } = importing;
    let position = db.position().get();
    db.close()?;
    let figures = [
        ("imported", imported),
        ("already_there", already_there),
        ("late", late),
        ("position", position),
    ];
    answer(&args.output, &figures)?;
    if !args.quiet {
        say(&format!(
            "imported {}; {} were here already",
            number::counted(imported, "event"),
            number::grouped(already_there)
        ));
        if let Some(cursor) = cursor {
            say(&format!("next time: quipu export FILE --since {cursor}"));
        }
    }
    Ok(())
}

/// An import under way.
struct Importing<'a> {
    db: &'a Db,
    args: &'a ImportArgs,
    imported: u64,
    already_there: u64,
    late: u64,
    /// Of the last bundle.
    cursor: Option<Cursor>,
}

/// What a JSON object is, by the fields that it has.
#[derive(Deserialize)]
struct Fields {
    frames: Option<IgnoredAny>,
    starting_instant: Option<IgnoredAny>,
}

impl Importing<'_> {
    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let fail = |error: io::Error| Failure::file(&path.to_string_lossy(), &error);
        let input: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).map_err(fail)?)
        };
        let mut input = BufReader::new(input);
        let mut begins = Vec::new();
        input.by_ref().take(8).read_to_end(&mut begins).map_err(fail)?;
        let is_json = begins.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if Bundle::is_one(&begins) {
            let mut input = begins.chain(input);
            while let Some(bundle) = Bundle::read_from(&mut input)? {
                self.bundle(&bundle)?;
            }
            return Ok(());
        }
        input.read_to_end(&mut begins).map_err(fail)?;
        if is_json {
            return self.json(path, &begins);
        }
        let counter = TinyCounter::from_bincode(&begins)
            .map_err(|error| Failure::new(format!("neither a bundle, nor JSON; {error}")))?;
        self.counters([(self.name(path)?, counter)])
    }

    fn json(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let fail =
            |error: serde_json::Error| Failure::new(format!("not what can be imported: {error}"));
        for object in serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>() {
            let object = object.map_err(fail)?.get();
            let fields: Fields = serde_json::from_str(object).map_err(fail)?;
            if fields.frames.is_some() {
                self.bundle(&serde_json::from_str(object).map_err(fail)?)?;
            } else if fields.starting_instant.is_some() {
                let counter: TinyCounter = serde_json::from_str(object).map_err(fail)?;
                self.counters([(self.name(path)?, counter)])?;
            } else {
                let all: std::collections::BTreeMap<String, TinyCounter> =
                    serde_json::from_str(object).map_err(fail)?;
                self.counters(all)?;
            }
        }
        Ok(())
    }

    fn counters<N: AsRef<str>>(
        &mut self,
        counters: impl IntoIterator<Item = (N, TinyCounter)>,
    ) -> Result<(), Failure> {
        let options = ImportOptions::new();
        let options = if self.args.tiny_counter.another_device { options } else { options.once() };
        let bundle = Bundle::of_tiny_counters(counters, self.args.tiny_counter.time_zone)?;
        self.bundle_with(&bundle, options)
    }

    fn bundle(&mut self, bundle: &Bundle) -> Result<(), Failure> {
        self.bundle_with(bundle, ImportOptions::new())
    }

    fn bundle_with(&mut self, bundle: &Bundle, options: ImportOptions) -> Result<(), Failure> {
        let options = if self.args.allow_ahead { options.allow_ahead() } else { options };
        let outcome = self.db.import_with(bundle, &options).map_err(|error| {
            let text = error.to_string();
            let failure = Failure::from(error);
            if text.contains("two directories of one replica") {
                failure.because("quipu import --new-replica does that")
            } else if text.contains("moved over once") {
                failure.because("--another-device takes it where it is of another device")
            } else {
                failure
            }
        })?;
        self.imported += outcome.imported;
        self.already_there += outcome.already_there;
        self.late += outcome.late;
        self.cursor =
            Some(bundle.cursor()).filter(|cursor| cursor.replica().is_some()).or(self.cursor);
        Ok(())
    }

    /// The event that a file of tiny-counter's is of: its name, in which other characters than plain ones
    /// are `%` and two hexadecimal digits for each byte.
    fn name(&self, path: &Path) -> Result<String, Failure> {
        if let Some(name) = &self.args.tiny_counter.event_name {
            return Ok(name.clone());
        }
        let stem = path.file_stem().filter(|_| path.as_os_str() != "-");
        let stem = stem.and_then(|stem| stem.to_str()).map(decoded);
        stem.flatten().ok_or_else(|| {
            Failure::usage(
                "this is of one event, and the file's name does not say which: --event-name NAME",
            )
        })
    }
}

fn decoded(name: &str) -> Option<String> {
    let mut bytes = name.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
            u8::try_from(digit()? << 4 | digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_in_place_of_an_older_one() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("a.unfinished"), root.path().join("a"));
        std::fs::write(&to, "old").unwrap();
        std::fs::write(&from, "new").unwrap();
        put_in_place(&File::open(&from).unwrap(), &from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "new");
        assert!(!from.exists());
    }

    #[test]
    fn a_files_name_says_which_event_it_is_of() {
        let name = "api%2Fv1%3Aerrors%20caf%C3%A9%20100%25";
        assert_eq!(decoded(name).as_deref(), Some("api/v1:errors café 100%"));
        assert_eq!(decoded("plain.name_~-").as_deref(), Some("plain.name_~-"));
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(bad), None);
        }
    }
}
