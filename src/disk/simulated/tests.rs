//! What the simulated disk promises to those who are tested on it.

use super::*;
use crate::disk::OsDisk;
use std::collections::BTreeSet;

const SEEDS: u64 = 300;

fn disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new(3);
    disk.create_dir(Path::new("d")).unwrap();
    disk
}

fn path(name: &str) -> PathBuf {
    Path::new("d").join(name)
}

/// A file whose name and content are durable.
fn durable(disk: &SimulatedDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.create(&path(name)).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    file.into()
}

fn content(disk: &SimulatedDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name), Access::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

/// Every content that a power cut is seen to leave.
fn outcomes(disk: &SimulatedDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let some = (0..SEEDS).map(Survival::Some);
    let all = some.chain([Survival::None, Survival::All]);
    all.map(|survival| content(&disk.power_cut(survival), name)).collect()
}

#[test]
fn what_was_synced_survives_and_nothing_else_must() {
    let disk = disk();
    let file = durable(&disk, "f", b"old");
    assert_eq!(outcomes(&disk, "f"), BTreeSet::from([Some(b"old".to_vec())]));
    file.write_at(0, b"new").unwrap();
    assert_eq!(content(&disk, "f").unwrap(), b"new", "a write is seen at once");
    let left = |survival| content(&disk.power_cut(survival), "f").unwrap();
    assert_eq!((left(Survival::None), left(Survival::All)), (b"old".to_vec(), b"new".to_vec()));
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, "f"), BTreeSet::from([Some(b"new".to_vec())]));
}

#[test]
fn a_power_cut_tears_sectors_and_reorders_them() {
    let disk = disk();
    let file = durable(&disk, "f", &[1; 1_536]);
    file.write_at(0, &[2; 1_536]).unwrap();
    let left: Vec<Vec<u8>> = outcomes(&disk, "f").into_iter().flatten().collect();
    assert!(
        left.iter().all(|bytes| bytes.len() == 1_536 && bytes.iter().all(|b| (1..=2).contains(b)))
    );
    let sectors = |bytes: &[u8]| bytes.chunks(512).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let whole: BTreeSet<Vec<u8>> = left
        .iter()
        .map(|bytes| sectors(bytes))
        .filter(|sectors| sectors.iter().all(|sector| sector.iter().all(|b| *b == sector[0])))
        .map(|sectors| sectors.iter().map(|sector| sector[0]).collect())
        .collect();
    assert_eq!(whole.len(), 8, "each subset of the sectors is met: {whole:?}");
    let torn = left.iter().flat_map(|bytes| sectors(bytes)).filter(|s| s[0] != s[511]).count();
    assert!(torn > 10);
    let torn = left.iter().flat_map(|bytes| sectors(bytes));
    for sector in torn {
        let changes = sector.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes <= 1, "a beginning of one moment and an end of another");
    }
}

#[test]
fn a_sector_is_left_as_it_was_at_some_moment_since_the_sync() {
    let disk = disk();
    let file = durable(&disk, "f", b"00");
    file.write_at(0, b"1").unwrap();
    file.write_at(1, b"2").unwrap();
    // "02" would need the second write without the first, in one sector and not torn.
    let left: BTreeSet<_> = outcomes(&disk, "f").into_iter().flatten().collect();
    for expected in [b"00", b"10", b"12"] {
        assert!(left.contains(expected.as_slice()));
    }
    // Bytes that nobody wrote keep their value, whatever is torn.
    file.sync().unwrap();
    file.write_at(1, b"9").unwrap();
    assert!(outcomes(&disk, "f").into_iter().flatten().all(|bytes| bytes[0] == b'1'));
}

#[test]
fn a_length_is_one_that_the_file_had() {
    let disk = disk();
    let file = durable(&disk, "f", &[7; 5_000]);
    file.set_len(100).unwrap();
    file.set_len(9_000).unwrap();
    let mut bytes = vec![1; 9_000];
    file.read_at(0, &mut bytes).unwrap();
    assert!(bytes[..100].iter().all(|b| *b == 7) && bytes[100..].iter().all(|b| *b == 0));
    let left: BTreeSet<_> = outcomes(&disk, "f").into_iter().flatten().collect();
    let lengths: BTreeSet<usize> = left.iter().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([100, 5_000, 9_000]));
    let longest = left.iter().find(|bytes| bytes.len() == 9_000).unwrap();
    assert!(longest[100..].iter().all(|b| *b == 0), "what was cut off does not come back");
}

#[test]
fn names_are_durable_by_their_directory_alone() {
    let disk = disk();
    let file = disk.create(&path("new")).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, "new"), BTreeSet::from([None, Some(b"x".to_vec())]));
    disk.sync_dir(Path::new("d")).unwrap();
    assert_eq!(outcomes(&disk, "new"), BTreeSet::from([Some(b"x".to_vec())]));
    durable(&disk, "old", b"y");
    disk.rename(&path("new"), &path("old")).unwrap();
    assert_eq!(disk.list(Path::new("d")).unwrap(), ["old"]);
    for seed in 0..SEEDS {
        let after = disk.power_cut(Survival::Some(seed));
        let (new, old) = (content(&after, "new"), content(&after, "old"));
        let whole = [(Some(b"x".to_vec()), Some(b"y".to_vec())), (None, Some(b"x".to_vec()))];
        assert!(whole.contains(&(new, old)), "a rename is there or not");
    }
    disk.sync_dir(Path::new("d")).unwrap();
    disk.remove(&path("old")).unwrap();
    assert_eq!(outcomes(&disk, "old"), BTreeSet::from([None, Some(b"x".to_vec())]));
    // A directory whose own name is lost takes everything below with it.
    disk.make_dir(Path::new("d/e")).unwrap();
    disk.create(Path::new("d/e/f")).unwrap();
    disk.sync_dir(Path::new("d/e")).unwrap();
    assert!(!disk.power_cut(Survival::None).exists(Path::new("d/e/f")).unwrap());
    disk.sync_dir(Path::new("d")).unwrap();
    assert!(disk.power_cut(Survival::None).exists(Path::new("d/e/f")).unwrap());
}

#[test]
fn a_failed_sync_loses_what_a_later_one_does_not_bring_back() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        disk.create_dir(Path::new("d")).unwrap();
        let file = durable(&disk, "f", &[1; 512]);
        file.write_at(0, &[2; 512]).unwrap();
        disk.plan(|op| {
            (op.kind == OperationKind::Sync).then_some(Fault::Error(io::ErrorKind::Other))
        });
        assert!(file.sync().is_err());
        disk.heal();
        assert_eq!(content(&disk, "f").unwrap(), [2; 512], "it is still seen");
        file.write_at(512, &[3; 512]).unwrap();
        file.sync().unwrap();
        let left = content(&disk.power_cut(Survival::All), "f").unwrap();
        assert_eq!(left[512..], [3; 512], "what came later is durable");
        lost += u32::from(left[..512] != [2; 512]);
    }
    assert!((5..20).contains(&lost), "{lost} of 20");
}

#[test]
fn each_operation_can_fail_lie_or_end_everything() {
    let disk = disk();
    let file = durable(&disk, "f", b"abc");
    let next = disk.operations() + 1;
    disk.plan(move |op| (op.number == next).then_some(Fault::Lie));
    file.write_at(0, b"xyz").unwrap();
    assert_eq!(content(&disk, "f").unwrap(), b"abc", "a lie");
    disk.plan(|op| {
        (op.kind == OperationKind::Rename).then_some(Fault::Error(io::ErrorKind::Other))
    });
    assert!(disk.rename(&path("f"), &path("g")).is_err());
    assert!(disk.exists(&path("f")).unwrap());
    disk.plan(|op| (op.kind == OperationKind::Read).then_some(Fault::FlippedBit));
    let flipped = content(&disk, "f").unwrap();
    let bits = flipped.iter().zip(b"abc").map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    assert_eq!(bits, 1);
    disk.plan(|op| (op.kind == OperationKind::Exists).then_some(Fault::PowerOff));
    assert!(disk.exists(&path("f")).is_err());
    disk.heal();
    assert!(file.len().is_err() && file.sync().is_err() && disk.list(Path::new("d")).is_err());
    assert_eq!(content(&disk.power_cut(Survival::None), "f").unwrap(), b"abc");
}

#[test]
fn short_and_interrupted_transfers_are_gone_on_with() {
    let disk = disk();
    let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    let mut random = Random::new(5);
    disk.plan(move |op| match (op.kind, random.below(3)) {
        (OperationKind::Read | OperationKind::Write, 0) => Some(Fault::Short),
        (OperationKind::Read | OperationKind::Write, 1) => {
            Some(Fault::Error(io::ErrorKind::Interrupted))
        }
        _ => None,
    });
    for round in 0..20 {
        let name = format!("f{round}");
        durable(&disk, &name, &bytes);
        assert_eq!(content(&disk, &name).unwrap(), bytes);
    }
    assert!(disk.operations() > 20 * 9, "a round has seven, if nothing is short");
    let file = disk.open(&path("f0"), Access::Read).unwrap();
    let error = file.read_at(9_999, &mut [0; 2]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    // The same loops on a real file.
    let dir = tempfile::tempdir().unwrap();
    let file = OsDisk.create(&dir.path().join("f")).unwrap();
    file.write_at(0, &bytes).unwrap();
    let mut read = vec![0; bytes.len()];
    file.read_at(0, &mut read).unwrap();
    assert_eq!(read, bytes);
    let error = file.read_at(9_999, &mut [0; 2]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_full_disk_takes_what_has_its_room_and_nothing_more() {
    let disk = disk();
    let prepared = disk.prepare(&path("p"), 64 << 10, Filling::Reserved).unwrap();
    assert_eq!(disk.allocated(), 64 << 10);
    disk.set_capacity(Some(68 << 10));
    prepared.write_at(40_000, &[1; 5_000]).unwrap();
    let file = disk.create(&path("f")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_at(0, &[1; 4_096]).unwrap();
    file.write_at(7, b"again").unwrap();
    assert_eq!(file.write_at(8_192, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    let error = disk.prepare(&path("q"), 4_096, Filling::Written).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(!disk.exists(&path("q")).unwrap(), "a half-made file holds no space");
    disk.remove(&path("p")).unwrap();
    file.write_at(8_192, b"x").unwrap();
    assert_eq!(disk.allocated(), 8_192);
}

#[test]
fn a_killed_process_gives_its_locks_back_and_leaves_what_it_wrote() {
    let disk = disk();
    let file = durable(&disk, "f", b"old");
    file.write_at(0, b"new").unwrap();
    let held = disk.lock(&path("l"), Sharing::Nobody).unwrap().unwrap();
    assert!(disk.lock(&path("l"), Sharing::Nobody).unwrap().is_none());
    let after = disk.kill();
    assert_eq!(content(&after, "f").unwrap(), b"new");
    assert!(after.lock(&path("l"), Sharing::Nobody).unwrap().is_some());
    let later = content(&after.power_cut(Survival::None), "f").unwrap();
    assert_eq!(later, b"old", "it was in the page cache only");
    drop(held);
    assert!(disk.lock(&path("l"), Sharing::Nobody).unwrap().is_some());
}

#[test]
fn readers_share_a_lock_with_each_other_and_make_none() {
    let disk = disk();
    let lock = |sharing| disk.lock(&path("l"), sharing).unwrap();
    assert!(disk.lock(&path("l"), Sharing::Readers).is_err());
    drop(lock(Sharing::Nobody).unwrap());
    let (first, second) = (lock(Sharing::Readers).unwrap(), lock(Sharing::Readers).unwrap());
    assert!(lock(Sharing::Nobody).is_none());
    drop(first);
    assert!(lock(Sharing::Nobody).is_none(), "the second one still has it");
    drop(second);
    let alone = lock(Sharing::Nobody).unwrap();
    assert!(lock(Sharing::Readers).is_none());
    drop(alone);
    assert!(lock(Sharing::Readers).is_some());
}

#[test]
fn moments_are_the_disks_before_each_change() {
    let disk = disk();
    let file = durable(&disk, "f", b"0");
    disk.keep_moments();
    file.write_at(0, b"1").unwrap();
    file.len().unwrap();
    file.sync().unwrap();
    let moments = disk.moments();
    let kinds: Vec<_> = moments.iter().map(|(op, _)| op.kind).collect();
    assert_eq!(kinds, [OperationKind::Write, OperationKind::Sync]);
    let seen: Vec<_> = moments.iter().map(|(_, disk)| content(disk, "f").unwrap()).collect();
    assert_eq!(seen, [b"0", b"1"]);
    assert_eq!(content(&moments[1].1.power_cut(Survival::None), "f").unwrap(), b"0");
    assert!(disk.moments().is_empty());
}

#[test]
fn a_rename_to_another_directory_is_there_or_not() {
    let disk = disk();
    disk.create_dir(Path::new("e")).unwrap();
    durable(&disk, "f", b"f");
    disk.rename(&path("f"), Path::new("e/g")).unwrap();
    let names = |disk: &SimulatedDisk| {
        (disk.exists(&path("f")).unwrap(), disk.exists(Path::new("e/g")).unwrap())
    };
    let cuts = |disk: &SimulatedDisk| -> BTreeSet<_> {
        (0..SEEDS).map(|seed| names(&disk.power_cut(Survival::Some(seed)))).collect()
    };
    assert_eq!(cuts(&disk), BTreeSet::from([(true, false), (false, true)]));
    // The one is durable, the other not yet.
    disk.sync_dir(Path::new("e")).unwrap();
    assert_eq!(cuts(&disk), BTreeSet::from([(true, true), (false, true)]));
    disk.sync_dir(Path::new("d")).unwrap();
    assert_eq!(cuts(&disk), BTreeSet::from([(false, true)]));
}

#[test]
fn what_a_hand_at_the_disk_does_is_durable_and_no_operation() {
    let disk = disk();
    durable(&disk, "f", b"f");
    let operations = disk.operations();
    disk.replace(path("f"), Some(b"other"));
    disk.replace(path("g"), Some(b"g"));
    let files = BTreeMap::from([(path("f"), b"other".to_vec()), (path("g"), b"g".to_vec())]);
    assert_eq!((disk.files(), disk.operations()), (files.clone(), operations));
    assert_eq!(disk.power_cut(Survival::None).files(), files);
    disk.replace(path("g"), None);
    assert_eq!(disk.power_cut(Survival::All).files().len(), 1);
}
