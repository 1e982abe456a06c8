//! The sketches of a view: how each is asked for, and which there are.
//!
//! Next: `plan.rs`.

use super::View;
use super::measured::Measured;
use crate::aggregate::{Distinct, Membership};

impl View {
    /// Keeps the distribution of a measure ([`Quantiles`](crate::aggregate::Quantiles)): medians, 99th
    /// percentiles, histograms, within 0.78 % of the value.
    ///
    /// ```
    /// use quipu::{Grain, Keep, View};
    ///
    /// let view = View::new("latency").by(["route"]).quantiles("value").grain(Grain::Hour, Keep::Last(48));
    /// assert_eq!(view.to_string(), "latency: by route, count, quantiles of value, 48 hours");
    /// ```
    pub fn quantiles(mut self, measure: impl Into<String>) -> Self {
        self.aggregates.push(Measured::Quantiles(measure.into()));
        self
    }

    /// Keeps how many different values a dimension has ([`Distinct`](crate::aggregate::Distinct)): exactly
    /// up to a thousand, beyond that with a standard error of 1.2 %, in 4 KiB. An event without the dimension
    /// is counted, and has no value of it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, Grain, Keep, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("buyers").by(["country"]).distinct("user").grain(Grain::Day, Keep::Last(90)))?;
    /// for user in ["ann", "bob", "ann"] {
    ///     db.record(&Event::new("sale").dim("country", "FR").dim("user", user))?;
    /// }
    /// let month = db.query("buyers")?.series(&["FR"])?.last_days(30).total()?.unwrap();
    /// let buyers = month.sketches.distinct("user").unwrap().estimate();
    /// assert_eq!((buyers.value, buyers.is_exact()), (2.0, true));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn distinct(self, dimension: impl Into<String>) -> Self {
        self.distinct_at(dimension, Distinct::PRECISION)
    }

    /// The same with 2^precision bytes once there are many, from 4 to 18: a standard error of 0.76 /
    /// √2^precision.
    ///
    /// ```
    /// use quipu::View;
    ///
    /// let view = View::new("visitors").distinct_at("user", 14);
    /// assert_eq!(view.to_string(), "visitors: all in one, count, distinct user at precision 14");
    /// ```
    pub fn distinct_at(mut self, dimension: impl Into<String>, precision: u8) -> Self {
        self.aggregates.push(Measured::Distinct { dimension: dimension.into(), precision });
        self
    }

    /// Keeps a sample of the different values of a dimension ([`Theta`](crate::aggregate::Theta)), of which
    /// it can be told how many those of one key or range have in common with those of others: users who did
    /// one thing and another and not a third. Exact up to `k`, from 64 to 16,384; 4,096 take 37 KiB once there
    /// are as many, and tell of what is a tenth of all to within some 5 %.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("did").by(["event"]).theta("user", 4_096))?;
    /// for (event, user) in [("cart", "ann"), ("cart", "bob"), ("sale", "ann")] {
    ///     db.record(&Event::new(event).dim("user", user))?;
    /// }
    /// let did = db.query("did")?;
    /// let (carts, sales) = (did.get(&["cart"])?.unwrap(), did.get(&["sale"])?.unwrap());
    /// let (carts, sales) = (carts.sketches.theta("user").unwrap(), sales.sketches.theta("user").unwrap());
    /// assert_eq!(carts.intersection(sales).value, 1.0);
    /// assert_eq!(carts.difference(sales).value, 1.0); // left without buying
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn theta(mut self, dimension: impl Into<String>, k: u16) -> Self {
        self.aggregates.push(Measured::Theta { dimension: dimension.into(), k });
        self
    }

    /// Keeps how many events each value of a dimension has, of any number of values
    /// ([`CountMin`](crate::aggregate::CountMin)): never too few, and too many by at most 2 / width of all
    /// events with probability 1 - 2^-depth. Up to width · depth · 8 bytes a key and bucket.
    /// [`CountMin::with_error`](crate::aggregate::CountMin::with_error) tells which width and depth an error
    /// takes.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("sold").count_min("product", 2_000, 7))?;
    /// for product in ["tea", "pot", "tea"] {
    ///     db.record(&Event::new("sale").dim("product", product))?;
    /// }
    /// let sold = db.query("sold")?.totals()?;
    /// assert_eq!(sold.sketches.count_min("product").unwrap().count_of(b"tea").value, 2.0);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn count_min(mut self, dimension: impl Into<String>, width: u32, depth: u8) -> Self {
        self.aggregates.push(Measured::CountMin { dimension: dimension.into(), width, depth });
        self
    }

    /// Keeps which values a dimension had ([`Membership`](crate::aggregate::Membership)), to be asked whether
    /// one came before: what did is never denied, and of what did not one in `one_in` is affirmed as long as
    /// no more than `expected` different ones came. 10 to 21 bits for each expected value where it is one in
    /// a hundred.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("cards").by(["user"]).membership("card", 1_000, 1_000))?;
    /// db.record(&Event::new("sale").dim("user", "ann").dim("card", "1234"))?;
    /// let ann = db.query("cards")?.get(&["ann"])?.unwrap();
    /// let cards = ann.sketches.membership("card").unwrap();
    /// assert!(cards.contains(b"1234") && !cards.contains(b"9876"));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn membership(mut self, dimension: impl Into<String>, expected: u64, one_in: u32) -> Self {
        let dimension = dimension.into();
        // Worked out once; what is no size is refused when the view is defined.
        let set = Membership::new(expected, 1.0 / f64::from(one_in));
        let size = set.map_or(0, |set| set.size());
        self.aggregates.push(Measured::Membership { dimension, expected, one_in, size });
        self
    }

    /// Keeps the values of a dimension that most events have ([`Top`](crate::aggregate::Top)): up to
    /// `capacity` different ones exactly, beyond that the heaviest of them, each within bounds that always
    /// hold and are never wider than the number of events / (capacity + 1). For the top ten a capacity of a
    /// hundred and more is sensible.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, Grain, Keep, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("bestsellers").by(["country"]).top("product", 100).grain(Grain::Hour, Keep::Last(48)))?;
    /// for product in ["tea", "pot", "tea"] {
    ///     db.record(&Event::new("sale").dim("country", "FR").dim("product", product))?;
    /// }
    /// let hours = db.query("bestsellers")?.series(&["FR"])?.last_hours(24).total()?.unwrap();
    /// let top = hours.sketches.top("product").unwrap().top(1);
    /// assert_eq!((top[0].text(), top[0].lower, top[0].upper), ("tea".into(), 2, 2));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn top(self, dimension: impl Into<String>, capacity: u32) -> Self {
        self.top_of(dimension.into(), None, capacity)
    }

    /// The same, where each event weighs what its measure says: the products with the greatest revenue.
    /// Weights are whole numbers: a measure is rounded to the nearest, so give it in cents, bytes or
    /// milliseconds; an event whose measure is missing, negative or rounded to nothing weighs nothing.
    ///
    /// ```
    /// use quipu::View;
    ///
    /// let view = View::new("revenue").top_by("product", "cents", 100);
    /// assert_eq!(view.to_string(), "revenue: all in one, count, top 100 of product by cents");
    /// ```
    pub fn top_by(
        self,
        dimension: impl Into<String>,
        measure: impl Into<String>,
        capacity: u32,
    ) -> Self {
        self.top_of(dimension.into(), Some(measure.into()), capacity)
    }

    fn top_of(mut self, dimension: String, by: Option<String>, capacity: u32) -> Self {
        self.aggregates.push(Measured::Top { dimension, by, capacity });
        self
    }

    /// Keeps the distribution of a measure by ranks ([`Kll`](crate::aggregate::Kll)): exact up to `k`
    /// values, beyond that each answer is off by some 2.3 / k^0.97 of all values (1.3 % at 200) with a
    /// confidence of 99 %, however values lie. Its bytes depend on how it came about; for latencies, sizes and
    /// money [`quantiles`](Self::quantiles) are narrower. 8 to 65,535 for `k`; 200 take 12 KB at most.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("app"))?;
    /// db.define(View::new("scores").by(["game"]).kll("value", 200))?;
    /// for score in [-3.0, 120.0, 9e99] {
    ///     db.record(&Event::new("played").dim("game", "chess").value(score))?;
    /// }
    /// let chess = db.query("scores")?.get(&["chess"])?.unwrap();
    /// assert_eq!(chess.sketches.kll("value").unwrap().median().unwrap().value, 120.0);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    #[cfg(feature = "datasketches")]
    pub fn kll(mut self, measure: impl Into<String>, k: u16) -> Self {
        self.aggregates.push(Measured::Kll { measure: measure.into(), k });
        self
    }

    /// The dimensions of which it counts the distinct values.
    pub fn distinct_dimensions(&self) -> impl Iterator<Item = &str> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::Distinct { dimension, .. } => Some(dimension.as_str()),
            _ => None,
        })
    }

    /// The dimensions of which it keeps a theta sketch.
    pub fn theta_dimensions(&self) -> impl Iterator<Item = &str> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::Theta { dimension, .. } => Some(dimension.as_str()),
            _ => None,
        })
    }

    /// The dimensions whose different values it counts one way or another.
    pub(crate) fn counted_dimensions(&self) -> impl Iterator<Item = &str> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::Distinct { dimension, .. } | Measured::Theta { dimension, .. } => {
                Some(dimension.as_str())
            }
            _ => None,
        })
    }

    /// The dimensions of which it keeps the top values, and by what measure, if that is not how many
    /// events have them.
    pub fn top_dimensions(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::Top { dimension, by, .. } => Some((dimension.as_str(), by.as_deref())),
            _ => None,
        })
    }

    /// The dimensions of which it keeps a count-min sketch.
    pub fn count_min_dimensions(&self) -> impl Iterator<Item = &str> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::CountMin { dimension, .. } => Some(dimension.as_str()),
            _ => None,
        })
    }

    /// The dimensions of which it keeps which values there were.
    pub fn membership_dimensions(&self) -> impl Iterator<Item = &str> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::Membership { dimension, .. } => Some(dimension.as_str()),
            _ => None,
        })
    }

    /// The measures of which it keeps the distribution.
    pub fn quantile_measures(&self) -> impl Iterator<Item = &str> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::Quantiles(measure) => Some(measure.as_str()),
            _ => None,
        })
    }

    /// The measures of which it keeps the distribution by ranks.
    pub fn kll_measures(&self) -> impl Iterator<Item = &str> {
        self.aggregates.iter().filter_map(|measured| match measured {
            Measured::Kll { measure, .. } => Some(measure.as_str()),
            _ => None,
        })
    }

    /// The dimension or measure that each of its sketches is of, and the measure by which it weighs.
    pub(crate) fn sketched(&self) -> impl Iterator<Item = [Option<&str>; 2]> {
        let sketches = self.aggregates.iter().filter(|measured| measured.sketch().is_some());
        sketches.map(Measured::names)
    }
}
