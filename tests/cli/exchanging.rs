//! `export` and `import`: between directories, and from tiny-counter.

use crate::{Shop, exists};

/// A directory of this name instead of the shop's own.
fn within<'a>(name: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--dir", name]].concat()
}

#[test]
fn what_is_exported_is_imported_once() {
    let shop = Shop::loaded();
    let cursor = shop.run(&["export", "all.bundle"]).ok().out;
    let cursor = cursor.trim_end();
    assert!(cursor.len() > 33 && cursor.as_bytes()[32] == b':', "{cursor}");
    assert!(!exists(&shop.dir().with_file_name("all.bundle.unfinished")));
    let first = shop.run(&within("copy", &["import", "all.bundle"])).ok();
    assert_eq!((&first.json()["imported"], &first.json()["already_there"]), (&6.into(), &0.into()));
    assert!(first.err.contains(&format!("--since {cursor}")), "{first:?}");
    let again = shop.run(&within("copy", &["import", "all.bundle", "all.bundle"])).ok();
    assert_eq!(
        (&again.json()["imported"], &again.json()["already_there"]),
        (&0.into(), &12.into())
    );
    shop.run(&within(
        "copy",
        &["define", "by_user", "--by", "user", "--stats", "value", "--backfill"],
    ))
    .ok();
    let row = |dir: &str| shop.run(&within(dir, &["get", "by_user", "ann"])).ok().json();
    assert_eq!(row("copy"), shop.row("by_user", &["ann"]));
    // What comes later, as text, through a pipe.
    let more =
        shop.file("more.ndjson", r#"{"event":"sale","ts":1291191960000,"user":"ann","value":1}"#);
    shop.run(&["load", &more]).ok();
    let told = shop.run(&["export", "-", "--format", "json", "--since", cursor]).ok();
    assert!(told.err.contains("cursor: "), "{told:?}");
    assert!(
        told.out.starts_with("{\"format\":1") && told.out.contains("\"event\":\"sale\""),
        "{told:?}"
    );
    let import = shop.run_with(&told.out, &within("copy", &["import", "-", "--quiet"])).ok();
    assert_eq!(import.json()["imported"], 1);
    assert_eq!(import.err, "");
    assert_eq!(row("copy"), shop.row("by_user", &["ann"]));
}

#[test]
fn what_cannot_be_imported_is_said_and_changes_nothing() {
    let shop = Shop::loaded();
    let junk = shop.file("junk", "no bundle");
    shop.run(&within("copy", &["import", &junk])).failed(1, "neither a bundle");
    let junk = shop.file("junk.json", "{\"a\": 1}");
    shop.run(&within("copy", &["import", &junk])).failed(1, "not what can be imported");
    shop.run(&["export", "all.bundle"]).ok();
    let path = shop.dir().with_file_name("all.bundle");
    let mut bytes = std::fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    shop.run(&within("copy", &["import", "all.bundle"])).failed(1, "damaged");
    shop.run(&["export", "-", "--since", "yesterday"]).failed(2, "no cursor");
    let other = "0123456789abcdef0123456789abcdef:3";
    shop.run(&["export", "-", "--since", other]).failed(1, "not one of this directory");
    shop.run(&within("nowhere", &["export", "-"])).failed(1, "no such directory");
    assert_eq!(shop.run(&within("copy", &["stats", "--format", "json"])).ok().json()["events"], 0);
}

#[test]
fn a_copied_directory_can_be_given_a_name_of_its_own() {
    let shop = Shop::loaded();
    let copy = shop.dir().with_file_name("copy");
    std::fs::create_dir_all(copy.join("log")).unwrap();
    for folder in ["", "log"] {
        for entry in std::fs::read_dir(shop.dir().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, copy.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    let more =
        shop.file("more.ndjson", r#"{"event":"sale","ts":1291191960000,"user":"ann","value":1}"#);
    shop.run(&["load", &more]).ok();
    shop.run(&["export", "all.bundle"]).ok();
    let refused = shop.run(&within("copy", &["import", "all.bundle"]));
    refused.failed(1, "two directories of one replica");
    refused.failed(1, "--new-replica");
    let named = shop.run(&within("copy", &["import", "all.bundle", "--new-replica"])).ok();
    assert!(named.err.contains("records as replica"), "{named:?}");
    assert_eq!(named.json()["imported"], 1);
}

#[test]
fn files_of_tiny_counter_are_moved_over() {
    let shop = Shop::new();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-counter/");
    let file = |name: &str| format!("{data}{name}");
    let errors = file("new-york/api%2Fv1%3Aerrors%20caf%C3%A9%20100%25.bin");
    shop.run(&["import", &errors, "--time-zone", "America/New_York"]).ok();
    let moved = shop.run(&["import", &file("utc/app_launch.bin"), &file("export.json")]).ok();
    assert!(moved.json()["imported"].as_u64().unwrap() > 10, "{moved:?}");
    let again = shop.run(&["import", &file("export.json"), &file("utc/app_launch.bin")]).ok();
    assert_eq!(again.json()["imported"], 0);
    shop.run(&["define", "events", "--by", "event", "--backfill"]).ok();
    for (id, count) in [
        ("app_launch", 45_u64),
        ("api/v1:errors café 100%", 31),
        ("sale", 33),
        ("refund", 4_294_967_295),
    ] {
        assert_eq!(shop.row("events", &[id])["count"], count, "{id}");
    }
    let bytes = std::fs::read(file("utc/app_launch.bin")).unwrap();
    let nameless = shop.file("%.bin", bytes);
    shop.run(&["import", &nameless]).failed(2, "--event-name");
    shop.run(&["import", &nameless, "--event-name", "other"]).ok();
    assert_eq!(shop.row("events", &["other"])["count"], 45);
}

#[test]
fn a_later_state_of_a_counter_of_tiny_counter_is_refused_or_said_to_be_of_another_device() {
    let shop = Shop::new();
    let state = |today: u32| {
        format!(
            r#"{{"starting_instant": "2026-06-30T12:00:01Z", "intervals": {{"Days":
            {{"data": [{today}, 0, 1], "interval_start": "2026-06-30T00:00:00Z"}}}}}}"#
        )
    };
    let (first, later) = (shop.file("visit.json", state(2)), shop.file("later.json", state(3)));
    shop.run(&["import", &first]).ok();
    let zone = shop.run(&["import", &first, "--time-zone", "Europe/Paris"]).ok();
    assert_eq!(zone.json()["imported"], 0);
    let again = ["import", &later, "--event-name", "visit"];
    let refused = shop.run(&again);
    refused.failed(1, "\"visit\"");
    refused.failed(1, "--another-device");
    let taken = shop.run(&[&again[..], &["--another-device"]].concat()).ok();
    assert_eq!(taken.json()["imported"], 2);
}
