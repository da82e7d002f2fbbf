#!/usr/bin/env python3
"""Compares two JSON documents of the same kind (reference.py, or `assay … -o json`) and names the first differences.

    compare.py EXPECTED.json ACTUAL.json [--per-entity] [--limit N]

What kind it is shows in the rows: scores and closed windows (`components`), scoreboard (`rank`), promotions (`action`), counts
(an object). Fields that only one side has are looked at only if they are named here. Exit 0 equal, 7 different, 2 unusable.
"""
import argparse
import json
import math
import sys

RELATIVE = 1e-9
NINE_DECIMALS = 1.000001e-9  # one unit in the last place: for values that are rounded after a square root
WINDOW_ORDER = {"7d": 0, "24h": 1, "1h": 2}


class Differences:
    def __init__(self, limit):
        self.limit, self.found = limit, 0

    def add(self, place, expected, actual):
        self.found += 1
        if self.found <= self.limit:
            print(f"{place}: expected {expected!r}, got {actual!r}")

    def exact(self, place, expected, actual):
        if expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
            self.add(place, expected, actual)

    def close(self, place, expected, actual, absolute=0.0):
        if expected is None or actual is None:
            self.exact(place, expected, actual)
        elif not isinstance(actual, (int, float)) or not math.isclose(expected, actual, rel_tol=RELATIVE, abs_tol=absolute):
            self.add(place, expected, actual)


def by_key(rows, keys, differences, side):
    table = {}
    for row in rows:
        key = tuple(row[k] for k in keys)
        if key in table and table[key] != row:
            differences.add(f"{side} {' '.join(map(str, key))}", "one row", "two that differ")
        table[key] = row
    return table


def in_both(expected, actual, keys, differences):
    left, right = by_key(expected, keys, differences, "expected"), by_key(actual, keys, differences, "actual")
    for key in left.keys() - right.keys():
        differences.add(" ".join(map(str, key)), "a row", "none")
    for key in right.keys() - left.keys():
        differences.add(" ".join(map(str, key)), "no row", "one")
    return [(" ".join(map(str, key)), row, right[key]) for key, row in left.items() if key in right]


def compare_scores(expected, actual, differences):
    for place, left, right in in_both(expected, actual, ("agentId", "window", "windowEnd"), differences):
        for field in ("divisionId", "windowStart", "samples"):
            differences.exact(f"{place} {field}", left[field], right.get(field))
        differences.close(f"{place} score", left["score"], right.get("score"))
        for field in ("lower", "upper", "confidence"):
            differences.close(f"{place} {field}", left[field], right.get(field), NINE_DECIMALS)
        for metric, a, b in in_both(left["components"], right.get("components", []), ("metric",), differences):
            where = f"{place} {metric}"
            differences.exact(f"{where} count", a["count"], b.get("count"))
            for field in ("mean", "variance", "min", "max", "weight"):
                differences.close(f"{where} {field}", a[field], b.get(field))
            if a["weight"]:  # what an unweighted metric shows here is left open
                for field in ("normalized", "contribution"):
                    differences.close(f"{where} {field}", a[field], b.get(field), NINE_DECIMALS)


def compare_board(expected, actual, differences):
    for place, left, right in in_both(expected, actual, ("window", "windowEnd", "rank"), differences):
        for field in ("agentId", "divisionId", "samples", "movement"):
            differences.exact(f"{place} {field}", left[field], right.get(field))
        differences.close(f"{place} score", left["score"], right.get("score"))
        for field in ("lower", "upper"):
            differences.close(f"{place} {field}", left[field], right.get(field), NINE_DECIMALS)


def compare_promotions(expected, actual, differences, per_entity):
    groups = {None: (expected, actual)}
    if per_entity:  # partitions are ordered within, not among each other
        entities = sorted({row["entityId"] for row in expected} | {row["entityId"] for row in actual})
        groups = {e: ([r for r in expected if r["entityId"] == e], [r for r in actual if r["entityId"] == e]) for e in entities}
    for entity, (left, right) in groups.items():
        where = f"promotion of {entity}" if entity else "promotion"
        for n, (a, b) in enumerate(zip(left, right), 1):
            for field in ("entityId", "action", "ts", "divisionId"):
                differences.exact(f"{where} #{n} {field}", a[field], b.get(field))
        differences.exact(f"{where}: events", len(left), len(right))


def compare_order(expected, actual, differences):
    """eval.scores.v1 as it is consumed, of one agent: rising E, at equal E 7d, 24h, 1h."""
    for side, rows in (("expected", expected), ("actual", actual)):
        last = {}
        for row in rows:
            place = (row["windowEnd"], WINDOW_ORDER[row["window"]])
            if last.get(row["agentId"], place) > place:
                where = f"{side} {row['agentId']} {row['window']} {row['windowEnd']}"
                differences.add(where, "rising ends", "one that comes too late")
            last[row["agentId"]] = place


def compare_counts(expected, actual, differences):
    for field in ("in", "accepted", "filtered", "deadLetters"):
        if field in expected or field in actual:
            differences.exact(field, expected.get(field), actual.get(field))
    left, right = expected.get("byReason", {}), actual.get("byReason", {})
    for reason in sorted(left.keys() | right.keys()):
        differences.exact(reason, left.get(reason, 0), right.get(reason, 0))


def compare(expected, actual, limit=20, per_entity=False, ordered=False):
    """Prints the first differences and returns how many there are."""
    differences = Differences(limit)
    if isinstance(expected, dict) != isinstance(actual, dict):
        differences.add("document", type(expected).__name__, type(actual).__name__)
    elif isinstance(expected, dict):
        compare_counts(expected, actual, differences)
    else:
        first = (expected or actual or [{}])[0]
        if "components" in first:
            compare_scores(expected, actual, differences)
            if ordered:
                compare_order(expected, actual, differences)
        elif "rank" in first:
            compare_board(expected, actual, differences)
        elif "action" in first:
            compare_promotions(expected, actual, differences, per_entity)
        elif first:
            raise SystemExit("compare: rows are neither scores, scoreboard nor promotions")
    return differences.found


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        print(f"compare: cannot read {path} as JSON: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("expected")
    parser.add_argument("actual")
    parser.add_argument("--per-entity", action="store_true", help="promotions: the order within each entity, not among them")
    parser.add_argument("--ordered", action="store_true", help="scores: also that each agent's ends rise, at equal E 7d, 24h, 1h")
    parser.add_argument("--limit", type=int, default=20, help="differences to print")
    options = parser.parse_args()
    expected, actual = load(options.expected), load(options.actual)
    found = compare(expected, actual, options.limit, options.per_entity, options.ordered)
    if found:
        print(f"different: {found} differences")
        raise SystemExit(7)
    print(f"equal: {len(expected)} {'fields' if isinstance(expected, dict) else 'rows'}")


if __name__ == "__main__":
    main()
