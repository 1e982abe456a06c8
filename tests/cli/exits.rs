//! Exit codes, and what is said with them.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::{Shop, exists};

#[test]
fn a_wrong_command_line_is_2() {
    let shop = Shop::loaded();
    assert_eq!(shop.run(&[]).code, Some(2));
    assert_eq!(shop.run(&["nonsense"]).code, Some(2));
    assert_eq!(shop.run(&["load"]).code, Some(2));
    shop.run(&["top", "by_user", "--by", "median"]).failed(2, "there are count, count_value");
    assert_eq!(shop.run(&["list", "by_user", "--unordered", "--prefix", "a"]).code, Some(2));
    let mut command = shop.command(&["views"]);
    let without_dir = command.env_remove("QUIPU_DIR").output().unwrap();
    assert_eq!(without_dir.status.code(), Some(2));
}

#[test]
fn help_is_0_and_has_examples() {
    let shop = Shop::new();
    let help = shop.run(&["load", "--help"]).ok().out;
    assert!(help.contains("quipu load sales.ndjson.gz") && help.contains("Ctrl-C"), "{help}");
    shop.run(&["--version"]).ok();
}

#[test]
fn only_load_makes_a_directory() {
    let shop = Shop::new();
    for command in [
        &["views"][..],
        &["stats"],
        &["checkpoint"],
        &["list", "by_user"],
        &["top", "by_user"],
        &["get", "by_user", "x"],
        &["define", "x", "--by", "user"],
        &["drop", "x"],
        &["backup", "kept"],
    ] {
        let run = shop.run(command);
        assert_eq!(run.code, Some(1), "{command:?}: {run:?}");
        assert!(run.err.contains("data"), "{run:?}");
        assert!(!exists(&shop.dir()), "{command:?}");
    }
}

#[test]
fn a_snapshot_in_a_programs_own_store_is_1_and_left_alone() {
    let shop = Shop::new();
    let memory = |_: &std::path::Path| Ok(quipu::storage::MemoryStorage::default());
    let options = quipu::Options::new().storage("mine", memory).view(quipu::View::new("all"));
    options.open(shop.dir()).unwrap().close().unwrap();
    for command in [
        &["totals", "all"][..],
        &["stats"],
        &["verify"],
        &["repair", "--apply"],
        &["backup", "kept"],
        &["load", &shop.file("a.ndjson", crate::EVENTS)],
    ] {
        let run = shop.run(command);
        assert_eq!(run.code, Some(1), "{command:?}: {run:?}");
        assert!(run.err.contains("\"mine\""), "{run:?}");
        assert!(!exists(&shop.dir().join("state.redb")), "{command:?}");
    }
}

#[test]
fn a_directory_that_is_not_ours_is_1_and_left_alone() {
    let shop = Shop::new();
    std::fs::create_dir(shop.dir()).unwrap();
    std::fs::write(shop.dir().join("thesis.txt"), "x").unwrap();
    let file = shop.file("a.ndjson", crate::EVENTS);
    assert_eq!(shop.run(&["load", &file]).code, Some(1));
    assert_eq!(shop.run(&["views"]).code, Some(1));
    assert_eq!(std::fs::read_dir(shop.dir()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_is_open_elsewhere_is_4() {
    let shop = Shop::loaded();
    let db = quipu::Db::open(shop.dir()).unwrap();
    let file = shop.file("a.ndjson", crate::EVENTS);
    for command in [&["load", &file][..], &["define", "x"], &["drop", "by_user"], &["checkpoint"]] {
        shop.run(command).failed(4, "data");
    }
    // Questions are answered beside it, with what it recorded a moment ago.
    assert_eq!(shop.row("by_hour", &[])["count"], 6);
    db.record(&quipu::Event::new("sale").dim("user", "ann")).unwrap();
    assert_eq!(shop.row("by_hour", &[])["count"], 7);
    for command in [&["views"][..], &["stats"], &["list", "by_user"], &["totals", "by_user"]] {
        shop.run(command).ok();
    }
    db.close().unwrap();
    drop(db);
    shop.run(&["views"]).ok();
}

#[test]
fn a_damaged_directory_is_3() {
    let shop = Shop::loaded();
    let manifest = shop.dir().join("MANIFEST");
    let whole = std::fs::read(&manifest).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&manifest, &damaged).unwrap();
    shop.run(&["list", "by_user"]).failed(3, "MANIFEST");
    let file = shop.file("a.ndjson", crate::EVENTS);
    shop.run(&["load", &file]).failed(3, "MANIFEST");
    assert_eq!(std::fs::read(&manifest).unwrap(), damaged, "nothing is repaired in silence");
    std::fs::write(&manifest, whole).unwrap();
    assert_eq!(shop.row("by_hour", &[])["count"], 6);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let shop = Shop::new();
    let line =
        |i| format!("{{\"event\":\"e\",\"ts\":1291191960000,\"user\":\"user number {i}\"}}\n");
    // Far more than a pipe holds.
    let file = shop.file("a.ndjson", (0..20_000).map(line).collect::<String>());
    shop.run(&["load", &file]).ok();
    for format in ["ndjson", "json", "csv", "table"] {
        let mut command = shop.command(&["list", "by_user", "--format", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{format}");
        assert_eq!(output.stderr, b"", "{format}");
    }
}

#[test]
fn no_command_minds_that_nobody_reads_its_answer() {
    let shop = Shop::loaded();
    let file = shop.file("a.ndjson", crate::EVENTS);
    for command in [
        &["load", &file][..],
        &["views"],
        &["stats"],
        &["totals", "by_user"],
        &["top", "by_user"],
        &["get", "by_user", "ann"],
        &["backup", "kept"],
        &["restore", "kept", "again"],
        &["verify", "--format", "json"],
        &["--help"],
        &["load", "--help"],
    ] {
        let mut command = shop.command(command);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Closed before anything comes.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!err.contains("standard output") && !err.contains("panicked"), "{err}");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let shop = Shop::loaded();
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    let mut command = shop.command(&["list", "by_user"]);
    let run = crate::Run::from(command.stdout(full).output().unwrap());
    run.failed(1, "standard output: No space left");
}
