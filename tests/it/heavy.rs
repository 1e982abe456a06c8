//! Heavy hitters: bounds on streams made to break them, exactness, bytes, and what is refused.

use quipu::aggregate::{Aggregate, Malformed, Top};
use quipu::{ErrorKind, Timestamp};
use std::collections::BTreeMap;

type Stream = Vec<(u64, u64)>;

struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn name(item: u64) -> String {
    // Some are longer than what lies in an entry.
    if item.is_multiple_of(3) { format!("item {item}") } else { format!("item number {item:09}") }
}

fn zipf(items: u64, exponent: f64, draws: usize, seed: u64) -> Stream {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=items)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut random = Random(seed);
    let mut draw = || sums.partition_point(|part| *part <= random.unit() * sum) as u64;
    (0..draws).map(|_| (draw(), 1)).collect()
}

fn truth(stream: &[(u64, u64)]) -> BTreeMap<String, u64> {
    let mut truth = BTreeMap::new();
    for (item, weight) in stream {
        *truth.entry(name(*item)).or_default() += weight;
    }
    truth
}

fn fold(capacity: u32, stream: &[(u64, u64)]) -> Top {
    let mut top = Top::new(capacity).unwrap();
    for (item, weight) in stream {
        top.observe((name(*item).as_bytes(), *weight), Timestamp::default());
    }
    top
}

/// Streams that are hard on counters of this capacity.
fn streams(capacity: u32) -> Vec<(&'static str, Stream)> {
    let k = u64::from(capacity);
    let distinct = |n: u64| (0..n).map(|i| (i, 1)).collect::<Stream>();
    let sorted = |up: bool| {
        let weight = |i: u64| if up { i } else { 5 * k - i };
        let each = (0..5 * k).flat_map(|i| (0..weight(i).min(300)).map(move |_| (i, 1)));
        each.collect::<Stream>()
    };
    let mut random = Random(k);
    vec![
        ("all different", distinct(20 * k)),
        ("all different, then one heavy", [distinct(9 * k), vec![(1 << 40, 1); 5_000]].concat()),
        ("one heavy, then all different", [vec![(1 << 40, 1); 500], distinct(40 * k)].concat()),
        ("as many as the capacity", distinct(k)),
        ("up to the first purge", distinct(k + (k / 2).max(1))),
        ("the first purge", distinct(k + (k / 2).max(1) + 1)),
        ("round and round, one too many", distinct(k + (k / 2).max(1) + 1).repeat(9)),
        ("by frequency, up", sorted(true)),
        ("by frequency, down", sorted(false)),
        ("weights of all sizes", {
            (0..3_000)
                .map(|_| (random.draw() % (9 * k), random.draw() >> (20 + random.draw() % 44)))
                .collect()
        }),
        ("zipf 0.8", zipf(20 * k, 0.8, 20_000, 1)),
        ("zipf 1.05", zipf(20 * k, 1.05, 20_000, 2)),
        ("zipf 1.3", zipf(20 * k, 1.3, 20_000, 3)),
    ]
}

#[track_caller]
fn assert_right(top: &Top, stream: &[(u64, u64)], what: &str) {
    let truth = truth(stream);
    assert_eq!(top.total(), truth.values().sum::<u64>(), "{what}");
    let limit = top.total() / (u64::from(top.capacity()) + 1);
    assert!(top.error() <= limit, "{what}: {} of {limit}", top.error());
    for (item, count) in &truth {
        let known = top.count_of(item.as_bytes());
        assert!(known.lower <= *count && *count <= known.upper, "{what}: {known:?} is {count}");
        assert!(known.upper - known.lower <= limit, "{what}: {known:?}");
    }
    // Whoever counts more than the limit is named, and whoever is sure to is among those.
    let above = top.above(limit);
    assert!(above.complete);
    let named: Vec<_> = above.guaranteed.iter().chain(&above.possible).map(|h| h.text()).collect();
    assert!(truth.iter().all(|(item, count)| *count <= limit || named.contains(&item.into())));
    assert!(above.guaranteed.iter().all(|heavy| truth[&*heavy.text()] > limit), "{what}");
}

#[test]
fn bounds_hold_on_streams_that_are_made_to_break_them() {
    for capacity in [1, 2, 10, 100] {
        for (what, stream) in streams(capacity) {
            assert_right(&fold(capacity, &stream), &stream, what);
        }
    }
}

#[test]
fn merging_costs_nothing_of_the_limit() {
    for capacity in [1, 10, 100] {
        for (what, stream) in streams(capacity) {
            let parts: Vec<Top> =
                stream.chunks(stream.len().div_ceil(64)).map(|part| fold(capacity, part)).collect();
            let mut one_by_one = Top::default();
            for part in &parts {
                one_by_one.merge(part);
            }
            assert_right(&one_by_one, &stream, what);
            let mut level = parts;
            while level.len() > 1 {
                let pairs = level.chunks(2).map(|pair| {
                    let mut merged = pair[0].clone();
                    pair[1..].iter().for_each(|other| merged.merge(other));
                    merged
                });
                level = pairs.collect();
            }
            assert_right(&level[0], &stream, what);
        }
    }
}

#[test]
fn the_heaviest_of_a_zipf_stream_are_known_exactly() {
    for (exponent, seed) in [(1.05, 4), (1.2, 5), (1.05, 6)] {
        let stream = zipf(50_000, exponent, 300_000, seed);
        let truth = truth(&stream);
        let mut order: Vec<_> = truth.iter().map(|(item, count)| (*count, item)).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        let top = fold(4_096, &stream);
        let named = top.top(50);
        assert!(named.iter().all(quipu::aggregate::Heavy::is_exact));
        let named: Vec<_> = named.iter().map(|heavy| (heavy.value, heavy.text())).collect();
        let truly: Vec<_> =
            order[..50].iter().map(|(n, item)| (*n, item.as_str().into())).collect();
        assert_eq!(named, truly);
    }
}

#[test]
fn three_items_are_listed_with_their_counts_once_each() {
    let mut top = Top::new(3).unwrap();
    for item in
        ["foo", "baz", "foo", "bar", "foo", "baz", "foo", "bar", "baz", "foo", "bar", "baz", "foo"]
    {
        top.insert(item.as_bytes(), 1);
    }
    let named: Vec<_> = top.top(9).iter().map(|h| (h.text().into_owned(), h.value)).collect();
    assert_eq!(named, [("foo".into(), 6), ("baz".into(), 4), ("bar".into(), 3)]);
    let mut odd = Top::default();
    for item in ["", "\n", "", "a\0", "a"] {
        odd.insert(item.as_bytes(), 1);
    }
    odd.insert(b"nothing", 0);
    let named: Vec<_> = odd.top(9).iter().map(|h| (h.text().into_owned(), h.value)).collect();
    let once = |item: &str| (item.to_owned(), 1);
    assert_eq!(named, [(String::new(), 2), once("\n"), once("a"), once("a\0")]);
    assert_eq!(Top::new(0).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(Top::new(Top::CAPACITY_MAX + 1).unwrap_err().to_string().contains("65536"));
}

#[test]
fn an_answer_as_json_has_its_bounds() {
    let mut top = Top::new(1).unwrap();
    for (item, weight) in [("a", 5), ("b", 3), ("c", 2), ("dé", 4)] {
        top.insert(item.as_bytes(), weight);
    }
    let json = serde_json::to_string(&top.above(4)).unwrap();
    assert_eq!(
        json,
        r#"{"guaranteed":[{"item":"a","value":5,"lower":5,"upper":5}],"#.to_owned()
            + r#""possible":[{"item":"dé","value":4,"lower":4,"upper":7}],"complete":true}"#
    );
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn bytes(top: &Top) -> Vec<u8> {
    let mut out = Vec::new();
    top.encode(&mut out);
    out
}

#[test]
fn bytes_are_what_they_ever_were() {
    assert_eq!(bytes(&Top::default()), hex("00"));
    assert_eq!(bytes(&Top::new(300).unwrap()), hex("ac02 00 00"));
    let mut exact = Top::new(3).unwrap();
    for (item, weight) in [("foo", 6), ("baz", 4), ("a longer item than 15", 300)] {
        exact.insert(item.as_bytes(), weight);
    }
    let long = "15 61206c6f6e676572206974656d207468616e203135 ac02";
    assert_eq!(bytes(&exact), hex(&format!("03 03 00 {long} 03 62617a 04 03 666f6f 06")));
    let mut purged = Top::new(1).unwrap();
    for (item, weight) in [("a", 5), ("b", 3), ("c", 2), ("d", 4)] {
        purged.insert(item.as_bytes(), weight);
    }
    // A floor of 3, a total of 14; a is 2 above it, d 4 with a slack of 3.
    assert_eq!(bytes(&purged), hex("01 02 03 0e 01 61 02 00 01 64 04 03"));
    let mut wide = Top::new(600).unwrap();
    (0..513_u16).for_each(|i| wide.insert(&i.to_be_bytes(), u64::from(i) + 1));
    let wide = bytes(&wide);
    assert_eq!(wide[..5], hex("d804 8104 00"));
    let entry =
        |i: &str, over: &str| hex(&format!("02 {i} {} {over} {}", "00".repeat(13), "00".repeat(8)));
    assert_eq!(wide[5..37], entry("0000", "0100000000000000"));
    assert_eq!(wide[5 + 512 * 32..], entry("0200", "0102000000000000"));
}

#[test]
fn damaged_bytes_are_errors_that_say_what_is_wrong() {
    for (input, wrong) in [
        ("", "cut short"),
        ("8380 00 00 00", "padded"),
        ("8180 04 00 00", "greater than there are"),
        ("03 05 00 0161 01 0162 01 0163 01 0164 01 0165 01", "room"),
        ("03 ffffffffffffffffff01 00", "count is larger"),
        ("03 01 00 ffffffffffffffff7f 61 01", "cut short"),
        ("03 02 00 0162 01 0161 01", "order"),
        ("03 02 00 0161 01 0161 01", "order"),
        ("03 01 00 0161 00", "bounds"),
        ("03 01 02 64 0161 01 03", "bounds"),
        ("03 01 02 07 0161 01 02", "all items together"),
        ("03 01 ffffffffffffffffff01 ffffffffffffffffff01 0161 01 02", "2^64"),
    ] {
        let error: Malformed = Top::decode(&mut hex(input).as_slice()).unwrap_err();
        assert!(error.to_string().contains(wrong), "{input}: {error}");
    }
}
