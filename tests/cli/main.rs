//! The command line through its front door: the program is run, its output and exit code are read.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without, it may stop at")]

mod answers;
mod archive;
mod check;
mod exchanging;
mod exits;
mod formats;
mod full_disk;
mod limits;
mod loading;
mod over_time;
mod points;
mod protected;
mod sketches;
mod stopping;
mod views;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A data directory, files beside it, and the program to run on them.
struct Shop {
    root: TempDir,
}

/// What a run of the program gave.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Shop {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// One with the [`EVENTS`] loaded.
    fn loaded() -> Self {
        let shop = Self::new();
        let file = shop.file("events.ndjson", EVENTS);
        shop.run(&["load", &file]).ok();
        shop
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Writes a file and returns its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.root.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quipu"));
        command.args(args).env("QUIPU_DIR", self.dir()).current_dir(self.root.path());
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        self.command(args).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs with something on standard input.
    fn run_with(&self, input: &str, args: &[&str]) -> Run {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Every row of a view by its key, parts joined by `/`.
    fn rows(&self, view: &str) -> Vec<(String, Value)> {
        let rows = self.run(&["list", view]).ok().json_lines();
        rows.into_iter().map(|row| (key(&row), row)).collect()
    }

    /// One row of a view.
    fn row(&self, view: &str, parts: &[&str]) -> Value {
        self.run(&[&["get", view], parts].concat()).ok().json()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Ended with this code, and said this on standard error.
    #[track_caller]
    fn failed(&self, code: i32, said: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(said), "{self:?}");
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The key of a row, parts joined by `/`.
fn key(row: &Value) -> String {
    let parts = row["key"].as_array().unwrap();
    parts.iter().map(|part| part.as_str().unwrap()).collect::<Vec<_>>().join("/")
}

fn keys(rows: &[Value]) -> Vec<String> {
    rows.iter().map(key).collect()
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

/// Six events of 2010-12-01 and 2010-12-02: one without a user, one without a value, two alike.
const EVENTS: &str = r#"{"event":"sale","ts":1291191960000,"user":"ann","product":"cup","category":"UK","value":15.5}
{"event":"sale","ts":1291191960000,"user":"ann","product":"cup","category":"UK","value":15.5}
{"event":"sale","ts":1291195560000,"user":"bob","product":"cup","category":"FR","value":4.25}
{"event":"sale","ts":1291195560001,"user":null,"product":"pot","category":"FR","value":100}
{"event":"cancel","ts":1291278360000,"user":"ann","product":"pot","category":"UK","value":-2.5}
{"event":"view","ts":1291278360000,"user":"cem","product":"pot","category":"UK","value":null}
"#;
