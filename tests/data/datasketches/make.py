"""Sketches as the Python package of Apache DataSketches writes them, and whether it reads ours.

    python make.py            writes theirs/*.sk and theirs/answers.json
    python make.py --check    reads ours/*.sk, which `cargo test` writes with QUIPU_WRITE_GOLDEN=1

Made and checked with `pip install datasketches==5.2.0`, Python 3.11. What is drawn by lot (kll_many,
kll_merged) comes out otherwise each time.
"""

import json
import pathlib
import sys

import datasketches as ds

HERE = pathlib.Path(__file__).parent
THEIRS, OURS = HERE / "theirs", HERE / "ours"
SEED = int.from_bytes(b"xxh3-64\0", "little")
HLL = {4: ds.tgt_hll_type.HLL_4, 6: ds.tgt_hll_type.HLL_6, 8: ds.tgt_hll_type.HLL_8}


def users(start, end):
    return [f"user {n}" for n in range(start, end)]


def of(sketch, items):
    for item in items:
        sketch.update(item)
    return sketch


def hll(lg_k, bits, items):
    return of(ds.hll_sketch(lg_k, HLL[bits]), items)


def theta(lg_k, items, seed=9001):
    return of(ds.update_theta_sketch(lg_k, seed=seed), items)


def frequent(lg_map, pairs):
    sketch = ds.frequent_strings_sketch(lg_map)
    for item, weight in pairs:
        sketch.update(item, weight)
    return sketch


def sold(n):
    """A few products are most of what is sold."""
    return [(f"product {(i * i * 7919) % 997 * ((i * 31) % 101) // 400}", 1 + i % 3) for i in range(n)]


def scattered(n):
    return [float((i * 7919) % n) for i in range(n)]


def make():
    THEIRS.mkdir(exist_ok=True)
    answers = {}

    def write(name, image, **told):
        (THEIRS / f"{name}.sk").write_bytes(bytes(image))
        answers[name] = told

    def write_hll(name, sketch, image=None):
        bounds = [sketch.get_estimate(), sketch.get_lower_bound(2), sketch.get_upper_bound(2)]
        write(name, image or sketch.serialize_compact(), lg_k=sketch.lg_config_k, bounds=bounds)

    for bits in HLL:
        write_hll(f"hll{bits}_empty", hll(12, bits, []))
        write_hll(f"hll{bits}_list", hll(12, bits, users(0, 5)))
        write_hll(f"hll{bits}_set", hll(12, bits, users(0, 300)))
        write_hll(f"hll{bits}_many", hll(10, bits, users(0, 60_000)))
        write_hll(f"hll{bits}_least", hll(4, bits, users(0, 2_000)))
        for name, n in [("list", 5), ("set", 40), ("many", 9_000)]:
            sketch = hll(9, bits, users(0, n))
            write_hll(f"hll{bits}_{name}_updatable", sketch, sketch.serialize_updatable())
    write_hll("hll_ints", hll(10, 8, range(-500, 1_500)))
    write_hll("hll_floats", hll(10, 8, [n / 2 + 0.25 for n in range(2_000)]))
    union = ds.hll_union(10)
    union.update(hll(10, 4, users(0, 3_000)))
    union.update(hll(11, 8, users(2_000, 5_000)))
    write_hll("hll_union", union.get_result(HLL[4]))

    def write_theta(name, sketch, image=None):
        write(name, image or sketch.serialize(), estimate=sketch.get_estimate(), hashes=sketch.num_retained)

    write_theta("theta_empty", theta(12, []).compact())
    write_theta("theta_one", theta(12, ["user 7"]).compact())
    write_theta("theta_exact", theta(12, users(0, 300)).compact())
    write_theta("theta_many", theta(8, users(0, 20_000)).compact())
    write_theta("theta_unordered", theta(8, users(10_000, 30_000)).compact(False))
    packed = theta(8, users(10_000, 30_000)).compact()
    write_theta("theta_packed", packed, packed.serialize(compress=True))
    packed = theta(12, users(0, 300)).compact()
    write_theta("theta_packed_exact", packed, packed.serialize(compress=True))
    write_theta("theta_ints", theta(8, range(-500, 1_500)).compact())
    write_theta("theta_floats", theta(8, [n / 2 + 0.25 for n in range(2_000)]).compact())
    write_theta("theta_foreign_seed", theta(8, users(0, 9), 123).compact())

    def write_frequent(name, sketch):
        rows = sketch.get_frequent_items(ds.frequent_items_error_type.NO_FALSE_NEGATIVES)
        rows = [[item, lower, upper] for item, _, lower, upper in rows]
        error = sketch.get_upper_bound("never seen")
        write(name, sketch.serialize(), total=sketch.total_weight, error=error, rows=rows)

    write_frequent("frequent_empty", frequent(6, []))
    write_frequent("frequent_exact", frequent(10, [("tea", 90), ("", 3), ("Krüge \U0001f375", 7), ("tea", 10)]))
    write_frequent("frequent_purged", frequent(5, sold(20_000)))
    write_frequent("frequent_least", frequent(3, sold(20_000)))
    one = frequent(6, sold(9_000))
    one.merge(frequent(5, [(f"other {item}", weight) for item, weight in sold(5_000)]))
    write_frequent("frequent_merged", one)

    def write_kll(name, sketch):
        told = {"k": sketch.k, "n": sketch.n}
        if sketch.n > 0:
            ranks = [i / 16 for i in range(17)]
            told["ends"] = [sketch.get_min_value(), sketch.get_max_value()]
            told["quantiles"] = [sketch.get_quantile(rank, True) for rank in ranks]
            told["ranks"] = [sketch.get_rank(value, True) for value in told["quantiles"]]
            told["error"] = sketch.normalized_rank_error(False)
        write(name, sketch.serialize(), **told)

    write_kll("kll_empty", ds.kll_doubles_sketch(200))
    write_kll("kll_one", of(ds.kll_doubles_sketch(200), [-2.5]))
    write_kll("kll_few", of(ds.kll_doubles_sketch(200), [3.0, -1.0, 2.0, 2.0]))
    write_kll("kll_many", of(ds.kll_doubles_sketch(64), scattered(20_000)))
    merged = of(ds.kll_doubles_sketch(100), scattered(3_000))
    merged.merge(of(ds.kll_doubles_sketch(50), [3_000 + value for value in scattered(3_000)]))
    write_kll("kll_merged", merged)
    write("kll_floats", of(ds.kll_floats_sketch(200), [3.0, -1.0, 2.0]).serialize())

    (THEIRS / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    print(f"{len(answers)} sketches")


def check():
    seen = set()

    def ours(name):
        seen.add(name)
        return (OURS / f"{name}.sk").read_bytes()

    def near(name, value, truth, part):
        assert abs(value - truth) <= part * truth, f"{name}: {value}, not {truth}"
        print(f"{name}: {value:.6g} of {truth}")

    def read_hll(name):
        return ds.hll_sketch.deserialize(ours(name))

    for name, truth, part in [("distinct_none", 0, 0), ("distinct_few", 5, 1e-4), ("distinct_some", 300, 1e-3)]:
        near(name, read_hll(name).get_estimate(), truth, part)
    for name, truth in [("distinct_tokens", 1_000), ("distinct_many", 100_000), ("distinct_more", 100_000)]:
        sketch = read_hll(name)
        near(name, sketch.get_estimate(), truth, 0.05)
        assert sketch.get_lower_bound(2) < sketch.get_estimate() < sketch.get_upper_bound(2)
    for names, truth, part in [
        (["distinct_many", "distinct_more"], 150_000, 0.08),
        (["distinct_many", "distinct_some_11"], 100_000, 0.08),
        (["distinct_few", "distinct_some"], 300, 1e-3),
    ]:
        union = ds.hll_union(12)
        for name in names:
            union.update(read_hll(name))
        near("union of " + " and ".join(names), union.get_estimate(), truth, part)
    # Hashed as here: together with the same items it is the same.
    for name, items in [
        ("hll_texts", users(0, 2_000)),
        ("hll_ints", range(-500, 1_500)),
        ("hll_floats", [n / 2 + 0.25 for n in range(2_000)]),
        ("hll_merged", users(0, 2_500)),
    ]:
        alone, union = hll(10, 8, items), ds.hll_union(10)
        # Of two that were merged the estimate is that of registers.
        union.update(read_hll(name))
        union.update(read_hll(name))
        once = union.get_estimate()
        union.update(alone)
        assert union.get_estimate() == once, name
        near(name, once, len(items), 0.1)

    def read_theta(name, seed=SEED):
        return ds.compact_theta_sketch.deserialize(ours(name), seed)

    assert read_theta("theta_none").is_empty()
    assert read_theta("theta_one").get_estimate() == 1
    a, b = read_theta("theta_few"), read_theta("theta_some")
    many, more = read_theta("theta_many"), read_theta("theta_more")
    near("theta_few", a.get_estimate(), 300, 0)
    near("theta_many", many.get_estimate(), 20_000, 0.15)
    for name, one, two, truth, part in [("few and some", a, b, 100, 0), ("many and more", many, more, 10_000, 0.3)]:
        both = ds.theta_intersection(SEED)
        both.update(one)
        both.update(two)
        near(f"theta, {name}", both.get_result().get_estimate(), truth, part)
    union = ds.theta_union(12, seed=SEED)
    for sketch in [a, b, many, more]:
        union.update(sketch)
    near("theta, all", union.get_result().get_estimate(), 30_000, 0.15)
    for what in [lambda: read_theta("theta_few", 9001), lambda: ds.theta_union(12).update(a)]:
        try:
            what()
        except (RuntimeError, ValueError) as refused:
            print(f"refused, as it must be: {refused}")
        else:
            raise AssertionError("hashes of ours are taken for others")
    for name, items in [
        ("theta_texts", users(0, 5_000)),
        ("theta_ints", range(-500, 1_500)),
        ("theta_floats", [n / 2 + 0.25 for n in range(2_000)]),
    ]:
        sketch, same = read_theta(name, 9001), theta(8, items).compact()
        assert sketch.get_estimate() == same.get_estimate(), name
        assert sketch.serialize() == same.serialize(), name
        print(f"{name}: the same bytes")

    def bounds(name, counts):
        sketch = ds.frequent_strings_sketch.deserialize(ours(name))
        assert sketch.total_weight == sum(counts.values()), name
        for item, count in counts.items():
            assert sketch.get_lower_bound(item) <= count <= sketch.get_upper_bound(item), (name, item)
        print(f"{name}: {len(counts)} items, off by {sketch.get_upper_bound('never seen')} at most")
        return sketch

    def counted(pairs):
        counts = {}
        for item, weight in pairs:
            counts[item] = counts.get(item, 0) + weight
        return counts

    assert bounds("top_none", {}).is_empty()
    exact = bounds("top_exact", counted([("tea", 100), ("", 3), ("Krüge \U0001f375", 7)]))
    assert exact.get_upper_bound("never seen") == 0
    purged = bounds("top_purged", counted(sold(20_000)))
    assert 0 < purged.get_upper_bound("never seen") <= purged.total_weight / 21
    purged.merge(frequent(5, sold(20_000)))
    for item, count in counted(sold(20_000)).items():
        assert purged.get_lower_bound(item) <= 2 * count <= purged.get_upper_bound(item), item

    kll = [ds.kll_doubles_sketch.deserialize(ours(name)) for name in ["kll_none", "kll_one", "kll_few", "kll_many"]]
    none, one, few, many = kll
    assert none.is_empty() and one.get_quantile(0.5) == -2.5
    assert [few.get_quantile(rank, True) for rank in [0, 0.25, 0.5, 1]] == [-1, -1, 2, 3]
    assert (many.k, many.n, many.get_min_value(), many.get_max_value()) == (64, 20_000, 0, 19_999)
    for i in range(1, 64):
        assert abs(many.get_rank(20_000 * i / 64, True) - i / 64) < 2 * many.normalized_rank_error(False)
    many.merge(of(ds.kll_doubles_sketch(64), [20_000 + value for value in scattered(20_000)]))
    assert abs(many.get_rank(20_000.0) - 0.5) < 2 * many.normalized_rank_error(False)
    print("kll: ranks as they are")

    left = {path.stem for path in OURS.glob("*.sk")} - seen
    assert not left, f"not looked at: {left}"
    print(f"{len(seen)} sketches are read")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else make()
