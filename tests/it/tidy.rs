//! The house's rules that a reader of the text alone can check: headers, layers, words, figures.
//!
//! Rules look at the code without its comments and without what is under `#[cfg(test)]`, and at
//! the whole text where it is prose that is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

// What may know what.

/// A module of the crate, the modules it may name. It may always name itself.
const LAYERS: &[(&str, &[&str])] = &[
    // 0 words
    ("error", WORDS),
    ("event", WORDS),
    ("key", WORDS),
    ("time", WORDS),
    ("options", WORDS),
    ("dictionary", WORDS),
    ("codec", WORDS),
    ("slots", WORDS),
    ("versions", WORDS),
    // 1 algebra
    ("aggregate", WORDS),
    ("series", &["aggregate", "ring"]),
    ("ring", &["aggregate", "series"]),
    ("view", &["aggregate", "series"]),
    // 2 bytes
    ("policy", WORDS),
    ("record", &["policy", "view"]),
    // 3 disk, and memory; they do not know each other
    ("disk", WORDS),
    ("manifest", &["disk"]),
    ("log", &["disk", "manifest", "record"]),
    ("snapshot", &["disk"]),
    ("tier", &["aggregate", "record", "series", "view"]),
    // 4 asking
    ("query", &["aggregate", "series", "view"]),
    ("limit", &["policy", "query"]),
    ("exchange", &["log", "record"]),
    // 5 life: the only one that knows disk and memory
    (
        "db",
        &[
            "aggregate",
            "disk",
            "exchange",
            "limit",
            "log",
            "manifest",
            "policy",
            "query",
            "record",
            "series",
            "snapshot",
            "tier",
            "view",
        ],
    ),
    // 6 edges
    // Models of threads drive parts of the engine by themselves.
    ("tower", &["limit"]),
    (
        "simulation",
        &["db", "disk", "log", "manifest", "policy", "record", "series", "tier", "view"],
    ),
];

/// Everybody may use these.
const WORDS: &[&str] = &[
    "codec",
    "dictionary",
    "error",
    "event",
    "key",
    "options",
    "slots",
    "sync",
    "time",
    "versions",
];

/// An arrow against the layers, and why it is there.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("options", "db", "`Options::open` is where an engine begins; it hands itself over to `Db`"),
    ("options", "disk", "... on the operating system's disk"),
    ("options", "snapshot", "an opening can be given a store of the program's own"),
    ("options", "view", "an opening can be given views to define"),
];

/// What modules of a layer may not hold, with the reason.
const FORBIDDEN: &[(&[&str], &[&str], &str)] = &[
    (
        &["aggregate", "series", "ring", "view", "key", "codec", "event"],
        &["std::fs", "std::io", "Mutex", "RwLock", "Clock", "Stopwatch", ".now()", "thread"],
        "algebra has no files, locks or clock",
    ),
    (&["record"], &["std::fs", "std::io", "crate::disk"], "record makes bytes, not files"),
    (
        &["log", "snapshot", "tier", "manifest"],
        &["Clock", "SystemTime", "Instant", ".now()", "thread_rng"],
        "disk and memory are told the time",
    ),
    (&["query"], &["std::fs", "Path", "dashmap", "DashMap"], "asking touches no files"),
    (&["db"], &["to_le_bytes", "from_le_bytes", "to_be_bytes"], "db holds no byte layouts"),
];

/// A library, the only files that may name it.
const SEAMS: &[(&str, &[&str])] = &[
    ("std::fs", &["disk.rs", "disk/"]),
    ("Mmap::map", &["disk.rs", "disk/"]),
    ("MmapOptions", &["disk.rs", "disk/"]),
    ("redb::", &["snapshot/redb.rs", "snapshot.rs"]),
    ("crc32fast::", &["codec.rs", "log/", "manifest.rs", "record.rs", "snapshot/sums.rs"]),
    ("bincode::config", &["codec.rs"]),
    ("SystemTime::", &["time.rs", "time/"]),
    ("Instant::", &["time.rs", "time/"]),
];

#[test]
fn modules_know_only_what_is_below_them() {
    let mut arrows: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let exports = root_exports();
    let library = library();
    let modules: BTreeSet<String> = library.iter().map(Source::module).collect();
    for source in library.iter().filter(|source| source.module() != "lib") {
        for name in source.root_names() {
            // `crate::Error` comes by way of the front page.
            let to = exports.get(&name).unwrap_or(&name).clone();
            if to != source.module() && modules.contains(&to) {
                arrows.entry((source.module(), to)).or_default().insert(source.path.clone());
            }
        }
    }
    for to in ["log", "snapshot", "tier", "time"] {
        assert!(
            arrows.contains_key(&("db".to_owned(), to.to_owned())),
            "the scan finds db -> {to}"
        );
    }
    let mut wrong = Vec::new();
    for ((from, to), files) in &arrows {
        let excepted = EXCEPTIONS.iter().any(|(a, b, _)| a == from && b == to);
        match LAYERS.iter().find(|(module, _)| module == from) {
            None => wrong.push(format!("{from} is in no layer ({files:?})")),
            Some((_, below)) if below.contains(&to.as_str()) || WORDS.contains(&to.as_str()) => {}
            Some(_) if excepted => {}
            Some(_) => wrong.push(format!("{from} may not know {to} ({files:?})")),
        }
    }
    for (from, to, _) in EXCEPTIONS {
        if !arrows.contains_key(&((*from).to_owned(), (*to).to_owned())) {
            wrong.push(format!("the exception {from} -> {to} is no longer needed"));
        }
    }
    for (module, _) in LAYERS {
        if !modules.contains(*module) {
            wrong.push(format!("the layer table has {module}, the crate has not"));
        }
    }
    report(&wrong);
}

#[test]
fn layers_hold_nothing_that_is_not_theirs() {
    let mut wrong = Vec::new();
    for source in library() {
        for (modules, names, reason) in FORBIDDEN {
            if modules.contains(&source.module().as_str()) {
                let of = source.code_lines_with(names);
                wrong.extend(of.into_iter().map(|line| format!("{line}: {reason}")));
            }
        }
        for (name, places) in SEAMS {
            if !places.iter().any(|place| source.path.starts_with(&format!("src/{place}"))) {
                let of = source.code_lines_with(&[name]);
                wrong
                    .extend(of.into_iter().map(|line| format!("{line}: {name} is for {places:?}")));
            }
        }
    }
    report(&wrong);
}

#[test]
fn every_source_file_begins_with_its_contract() {
    let files = [library(), command_line(), outside()].concat();
    let bare = files.iter().filter(|source| !source.text.starts_with("//! "));
    report(&bare.map(|source| source.path.clone()).collect::<Vec<_>>());
}

#[test]
fn files_stay_short_enough_to_be_read() {
    let files = [library(), command_line(), outside()].concat();
    let long = files.iter().map(|s| (s.text.lines().count(), &s.path)).filter(|(n, _)| *n > 900);
    let told = long.map(|(lines, path)| format!("{path} has {lines} lines, 900 are allowed"));
    report(&told.collect::<Vec<_>>());
}

#[test]
fn a_public_type_name_means_one_thing() {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in library() {
        for (_, line) in source.code() {
            let mut words = line.trim_start().split([' ', '<', '(', ':', ';', '{', '=']);
            if words.next() == Some("pub")
                && words.next().is_some_and(|w| matches!(w, "struct" | "enum" | "trait" | "type"))
                && let Some(name) = words.next()
            {
                seen.entry(name.to_owned()).or_default().push(source.path.clone());
            }
        }
    }
    assert!(seen.contains_key("Db") && seen.contains_key("Row"), "the scan finds types: {seen:?}");
    let twice = seen.iter().filter(|(_, at)| at.len() > 1);
    report(&twice.map(|seen| format!("{seen:?}")).collect::<Vec<_>>());
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    let mut wrong = Vec::new();
    for source in [library(), command_line()].concat() {
        wrong.extend(source.code_lines_with(&[
            ".unwrap()",
            ".unwrap_err()",
            "#[allow(",
            "#![allow(",
        ]));
    }
    report(&wrong);
}

#[test]
fn prose_and_code_are_free_of_stubs_promises_and_history() {
    let shouted = ["TODO", "FIXME", "XXX", "HACK"];
    let words = [
        "todo!",
        "unimplemented!",
        "hack",
        "hacky",
        "placeholder",
        "stub",
        "for now",
        "legacy",
        "previously",
        "formerly",
        "blazing",
        "blazingly",
        "lightning-fast",
        "simply",
        "seamless",
        "seamlessly",
        "state-of-the-art",
        "cutting-edge",
        "world-class",
    ];
    let me = "tests/it/tidy.rs";
    let mut wrong = Vec::new();
    for source in [library(), command_line(), outside(), prose()].concat() {
        if source.path == me {
            continue;
        }
        for (n, line) in source.text.lines().enumerate() {
            let lower = line.to_lowercase();
            let found = words.iter().filter(|word| has_word(&lower, word));
            for word in found.chain(shouted.iter().filter(|word| has_word(line, word))) {
                wrong.push(format!("{}:{}: {word:?}", source.path, n + 1));
            }
        }
    }
    report(&wrong);
}

#[test]
fn nothing_names_a_machine() {
    let paths = ["/work/", "/home/", "/root/", "/Users/", "C:\\Users"];
    let mut wrong = Vec::new();
    for source in [library(), command_line(), outside(), prose()].concat() {
        if source.path == "tests/it/tidy.rs" {
            continue;
        }
        for (n, line) in source.text.lines().enumerate() {
            if paths.iter().any(|path| line.contains(path)) {
                wrong.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    report(&wrong);
}

/// The guide of the format states constants in lines `<!-- const: log::frame::HEADER_BYTES = 56 -->`
/// beside the tables that a reader sees.
#[test]
fn the_format_guide_agrees_with_the_constants() {
    let guide = read("src/guide/format.md");
    let mut wrong = Vec::new();
    let mut stated = 0;
    for line in guide.lines() {
        let Some(rest) = line.trim().strip_prefix("<!-- const:") else { continue };
        let rest = rest.strip_suffix("-->").unwrap_or_else(|| panic!("{line}: ends with -->"));
        let (path, value) = rest.split_once('=').unwrap_or_else(|| panic!("{line}: has a ="));
        let (module, name) =
            path.trim().rsplit_once("::").unwrap_or_else(|| panic!("{line}: a path"));
        let file = format!("src/{}.rs", module.replace("::", "/"));
        let found = library().into_iter().find(|s| s.path == file).and_then(|s| s.constant(name));
        stated += 1;
        match found {
            None => wrong.push(format!("{file} has no const {name}")),
            Some(found) if squeezed(&found) != squeezed(value) => {
                wrong.push(format!("{file}: {name} is {found}, the guide says {}", value.trim()));
            }
            Some(_) => {}
        }
    }
    assert!(stated > 0, "src/guide/format.md states no constant");
    report(&wrong);
}

#[test]
fn the_fuzzing_guide_names_every_target_and_each_has_seeds() {
    let guide = read("src/guide/fuzzing.md");
    let manifest = read("fuzz/Cargo.toml");
    let mut targets: Vec<&str> = manifest
        .split("[[bin]]")
        .skip(1)
        .filter_map(|bin| bin.lines().find_map(|line| line.strip_prefix("name = \"")))
        .map(|name| name.trim_end_matches('"'))
        .collect();
    targets.sort_unstable();
    let mut named: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    named.sort_unstable();
    assert_eq!(named, targets, "the rows of the guide's table and the targets of fuzz/Cargo.toml");
    let sources = files("fuzz/fuzz_targets", ".rs");
    assert_eq!(sources.len(), targets.len(), "each file of fuzz/fuzz_targets is a target");
    for target in targets {
        let corpus = root().join("fuzz/corpus").join(target);
        let inputs = fs::read_dir(&corpus).into_iter().flatten();
        let seeds = inputs.map(|input| input.unwrap().file_name().into_string().unwrap());
        assert!(seeds.into_iter().any(|name| name.starts_with("seed-")), "{target} has no seed");
    }
}

#[test]
fn each_promise_has_tests_by_the_names_that_the_guide_gives() {
    let guide = read("src/guide/design.md");
    let rows = guide.lines().skip_while(|line| !line.starts_with("| promise |")).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    let promises: Vec<&str> = rows.iter().filter_map(|row| row.split(" | ").next()).collect();
    let numbers: Vec<String> = (1..=10).map(|n| format!("| {n}")).collect();
    assert_eq!(promises, numbers);
    for row in rows {
        let suites =
            row.split("; ").map(|suite| suite.split('`').skip(1).step_by(2).collect::<Vec<_>>());
        for suite in suites.filter(|suite| !suite.is_empty()) {
            let tests = files(&format!("tests/{}", suite[0]), ".rs");
            for name in &suite[1..] {
                let begins = |part: &str| part.trim_start().starts_with(&format!("fn {name}()"));
                let is_there = |file: &Source| file.text.split("#[test]").skip(1).any(begins);
                let is_there = tests.iter().any(is_there);
                assert!(suite.len() > 1 && is_there, "no test {name} in tests/{}", suite[0]);
            }
        }
    }
}

#[test]
fn the_readme_shows_what_is_run() {
    let readme = read("README.md");
    assert!(!read("CHANGELOG.md").is_empty());
    let ci = read(".ci/run");
    assert!(readme.contains("cargo test --features cli"), "the README says how tests are run");
    assert!(ci.contains("README.md"), ".ci/run takes its commands from the README");

    let mut blocks = readme.split("```");
    let shown = blocks.find_map(|b| b.strip_prefix("rust")).expect("README has an example in Rust");
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect()
    };
    let (shown, run) =
        (lines(shown.split_once('\n').unwrap().1), lines(&read("examples/quickstart.rs")));
    assert!(
        run.windows(shown.len()).any(|window| window == shown),
        "the README's example is not in examples/quickstart.rs line by line"
    );
}

// Reading.

#[derive(Clone)]
struct Source {
    /// From the package's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The top module it belongs to: `log` for `src/log.rs` and `src/log/frame.rs`.
    fn module(&self) -> String {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned()
    }

    /// The lines, numbered from 1, without comments and without items under `#[cfg(test)]`.
    fn code(&self) -> Vec<(usize, String)> {
        let mut out = Vec::new();
        let mut lines = self.text.lines().enumerate();
        if self.path.ends_with("/tests.rs") {
            return out;
        }
        while let Some((n, line)) = lines.next() {
            let trimmed = line.trim_start();
            if trimmed.starts_with("#[cfg(test)]") {
                // The item ends at its closing brace, which stands as deep as the attribute, or
                // with the line, for an item without a body.
                let indent = &line[..line.len() - trimmed.len()];
                let end = format!("{indent}}}");
                for (_, line) in lines.by_ref() {
                    let whole = line.ends_with(';')
                        && line.starts_with(indent)
                        && !line[indent.len()..].starts_with(' ');
                    if line == end || whole {
                        break;
                    }
                }
            } else if !trimmed.starts_with("//") {
                let line = line.split_once(" // ").map_or(line, |(code, _)| code);
                out.push((n + 1, line.to_owned()));
            }
        }
        out
    }

    fn code_lines_with(&self, names: &[&str]) -> Vec<String> {
        let bad = |line: &str| names.iter().any(|name| has_word(line, name));
        let lines = self.code().into_iter().filter(|(_, line)| bad(line));
        lines.map(|(n, line)| format!("{}:{n}: {}", self.path, line.trim())).collect()
    }

    /// What it names at the crate's root: by `crate::x`, `crate::{x, y::z}`, or `super::` from
    /// high enough.
    fn root_names(&self) -> BTreeSet<String> {
        let depth = self.path.matches('/').count();
        let up = "super::".repeat(depth);
        let code: String = self.code().into_iter().map(|(_, line)| line + "\n").collect();
        let mut names = BTreeSet::new();
        for root in ["crate::", up.as_str()] {
            for (at, _) in code.match_indices(root) {
                // `super::` a level deeper names a sibling, and a longer `super::` was found before.
                if code[..at].ends_with("super::") {
                    continue;
                }
                let rest = &code[at + root.len()..];
                if let Some(group) = rest.strip_prefix('{') {
                    names.extend(group_heads(group));
                } else {
                    names.insert(identifier(rest));
                }
            }
        }
        names.remove("");
        names.remove("super");
        names
    }

    /// The value of a constant as it is written.
    fn constant(&self, name: &str) -> Option<String> {
        let declared = format!("const {name}: ");
        let code: String = self.code().into_iter().map(|(_, line)| line + "\n").collect();
        let (_, rest) = code.split_once(&declared)?;
        // Behind the type, which may hold a `;` (arrays) but no `=`.
        let (_, value) = rest.split_once('=')?;
        Some(value.split_once(';')?.0.trim().to_owned())
    }
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of the paths in a group `{a, b::c, d::{e, f}}`, without its opening brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut at_head) = (Vec::new(), 0, true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && (c.is_alphanumeric() || c == '_') => {
                heads.push(identifier(&group[i..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// The module each name comes from that the front page exports.
fn root_exports() -> BTreeMap<String, String> {
    let front: String = library()
        .into_iter()
        .filter(|source| source.path == "src/lib.rs")
        .flat_map(|source| source.code())
        .map(|(_, line)| line + " ")
        .collect();
    let mut exports = BTreeMap::new();
    for statement in front.split(';') {
        let Some(path) = statement.trim().strip_prefix("pub use ") else { continue };
        let Some((module, names)) = path.split_once("::") else { continue };
        for name in names.split(|c: char| !c.is_alphanumeric() && c != '_') {
            exports.insert(name.to_owned(), module.to_owned());
        }
    }
    assert!(exports.contains_key("Db"), "the front page exports Db: {exports:?}");
    exports.remove("");
    exports
}

/// Whether `word` is in `line` and not only as part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let inner = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        (edge(before) || !inner(word.chars().next()))
            && (edge(after) || !inner(word.chars().next_back()))
    })
}

fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '_').collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The files under `folder` whose names end in `end`; none where there is no such folder.
fn files(folder: &str, end: &str) -> Vec<Source> {
    fn walk(folder: &Path, end: &str, out: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, end, out);
            } else if name.ends_with(end) {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), end, &mut paths);
    paths.sort();
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(source).collect()
}

fn library() -> Vec<Source> {
    let mut library = files("src", ".rs");
    library.retain(|source| !source.path.starts_with("src/bin/"));
    assert!(library.len() > 20, "the library is found");
    library
}

fn command_line() -> Vec<Source> {
    files("src/bin", ".rs")
}

/// Rust that is not of the package's own targets' source.
fn outside() -> Vec<Source> {
    ["tests", "benches", "examples", "fuzz", "peers"].iter().flat_map(|f| files(f, ".rs")).collect()
}

fn prose() -> Vec<Source> {
    let mut prose = files("", ".md");
    prose.extend(files("", ".toml"));
    assert!(prose.iter().any(|source| source.path == "Cargo.toml"));
    prose
}

#[track_caller]
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} in all:\n{}", wrong.len(), wrong.join("\n"));
}
