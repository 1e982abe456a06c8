//! The events that benches record: a real shop's, and made-up ones with Zipf keys.

use flate2::read::GzDecoder;
use quipu::{Event, Timestamp};
use std::fs::File;
use std::io::{BufRead, BufReader};

/// An event as a program would hold it: all its text is its own.
pub(crate) struct Sale {
    pub(crate) name: String,
    pub(crate) time: Timestamp,
    pub(crate) user: Option<String>,
    pub(crate) product: String,
    pub(crate) category: String,
    pub(crate) value: f64,
}

impl Sale {
    pub(crate) fn event(&self) -> Event<'_> {
        let event = Event::new(&self.name)
            .at(self.time)
            .dim("product", &self.product)
            .dim("category", &self.category)
            .value(self.value);
        match &self.user {
            Some(user) => event.dim("user", user),
            None => event,
        }
    }
}

/// The shop of `examples/data`: 245,903 lines, 3,002 users, 3,651 products, 131,500 pairs; a
/// quarter of the events have no user.
pub(crate) fn retail() -> Vec<Sale> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/online_retail_h1.ndjson.gz");
    let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    BufReader::new(GzDecoder::new(file))
        .lines()
        .map(|line| {
            let line = line.expect("gzip of text");
            let json: serde_json::Value = serde_json::from_str(&line).expect("a JSON object");
            let text = |field: &str| json[field].as_str().map(str::to_owned);
            Sale {
                name: text("event").expect("each line names its event"),
                time: Timestamp::from_millis(json["ts"].as_i64().expect("each line has a time")),
                user: text("user"),
                product: text("product").expect("each line has a product"),
                category: text("category").expect("each line has a category"),
                value: json["value"].as_f64().expect("each line has a value"),
            }
        })
        .collect()
}

/// `n` events over 45 days with Zipf(1.05) keys of 100,000 users, 20,000 products and 50
/// categories; the same each time.
pub(crate) fn synthetic(n: usize) -> Vec<Sale> {
    let mut random = SplitMix64(0x5eed);
    let users = Zipf::new(100_000, 1.05);
    let products = Zipf::new(20_000, 1.05);
    let categories = Zipf::new(50, 1.05);
    let begin = Timestamp::parse_rfc3339("2024-01-01T00:00:00Z").expect("a time").micros();
    let step = 45 * 24 * 3_600 * 1_000_000 / n as i64;
    (0..n)
        .map(|i| Sale {
            name: "sale".to_owned(),
            time: Timestamp::from_micros(begin + i as i64 * step),
            user: Some(format!("user-{}", users.draw(&mut random))),
            product: format!("product-{}", products.draw(&mut random)),
            category: format!("category-{}", categories.draw(&mut random)),
            value: random.below(100_000) as f64 / 100.0,
        })
        .collect()
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014).
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(n)) >> 64) as u64
    }

    /// In 0.0..1.0.
    fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks by Zipf's law, drawn by inverting the cumulative distribution. Ranks are mixed up, so
/// that a rank says nothing about how long its number is.
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
    number_of_rank: Vec<u32>,
}

impl Zipf {
    pub(crate) fn new(ranks: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=ranks)
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        let mut number_of_rank: Vec<u32> = (0..ranks).collect();
        let mut random = SplitMix64(u64::from(ranks));
        for i in (1..number_of_rank.len()).rev() {
            number_of_rank.swap(i, random.below(i as u64 + 1) as usize);
        }
        Zipf { cumulative, number_of_rank }
    }

    pub(crate) fn draw(&self, random: &mut SplitMix64) -> u32 {
        let all = self.cumulative[self.cumulative.len() - 1];
        let at = random.unit() * all;
        let rank = self.cumulative.partition_point(|sum| *sum <= at);
        self.number_of_rank[rank.min(self.number_of_rank.len() - 1)]
    }
}
