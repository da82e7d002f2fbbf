#!/usr/bin/env python3
"""Judges the judge: each rule of the reference against cases computed by hand."""
import contextlib
import io
import json
import math
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import unittest
from fractions import Fraction

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import alpaca_check
import compare
import reference as ref
from reference import DAY, HOUR, MINUTE, SECOND, WINDOWS, Config, Fold, Rule

T0 = 20_000 * DAY  # a day boundary


def line(time, metrics=None, agent="a", **fields):
    return json.dumps({"agentId": agent, "metricSet": {"m": 1} if metrics is None else metrics, "timestamp": ref.format_time(time),
                       **fields}).encode()


def fold(*lines, **options):
    return Fold(lines, Config(**options))


def window_row(metrics_list, config=None, window="1h", **fields):
    """The row of one window with a report per entry, a second apart."""
    result = Fold([line(T0 + n * SECOND, m, **fields) for n, m in enumerate(metrics_list)], config or Config())
    return ref.agent_score(result.agents["a"], WINDOWS[window], T0 + HOUR, result.config)


class Known(unittest.TestCase):
    def test_murmur2_places_keys_as_kafka_does(self):
        # Values of Kafka's own UtilsTest.
        for key, hashed in ((b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
                            (b"a-little-bit-longer-string", -1486304829), (b"abc", 479470107)):
            self.assertEqual(ref.murmur2(key), hashed & 0xFFFFFFFF, key)

    def test_what_was_known_ends_at_the_first_later_record_of_the_partition(self):
        def arrived(time, agent="a"):
            return line(T0, agent=agent, at=ref.format_time(time))
        other = next(name for name in map(str, range(99)) if ref.partition_of(name, 4) != ref.partition_of("a", 4))
        lines = [arrived(T0), arrived(T0 + 5), arrived(T0 + 6), arrived(T0 + 5), arrived(T0 + 5, other), arrived(T0 + 6, other)]
        config = Config(record_time="at")
        self.assertEqual(list(ref.known(lines, config, T0 + 5, 4)), [lines[0], lines[1], lines[4]])
        self.assertEqual(list(ref.known(lines, config, T0 + 6, 4)), lines)
        self.assertEqual(list(ref.known(lines, config, T0 - 1, 4)), [])


class Time(unittest.TestCase):
    def test_forms(self):
        self.assertEqual(ref.parse_time("1970-01-01T00:00:00Z"), 0)
        self.assertEqual(ref.parse_time("1970-01-01T01:00:00.0019999+01:00"), 1)  # cut, not rounded
        self.assertEqual(ref.parse_time("2024-02-29T23:59:60Z"), ref.parse_time("2024-03-01T00:00:00Z") - 1)
        self.assertEqual(ref.parse_time("2024-01-01T00:00:00.5-00:30"), ref.parse_time("2024-01-01T00:30:00.500Z"))
        for bad in ("2024-01-01T00:00:00", "2024-01-01 00:00:00Z", "2024-02-30T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01",
                    "2024-01-01T00:00:00.Z", "2024-01-01T00:00:00+0100", "2024-W01-1T00:00:00Z", "2024-01-01T00:00:00+24:00", "",
                    "٢٠٢٤-01-01T00:00:00Z", "2024-01-01T00:00:00Z "):
            self.assertIsNone(ref.parse_time(bad), bad)

    def test_round_trip(self):
        for text in ("2023-05-28T23:22:21.850Z", "1970-01-01T00:00:00.000Z", "2100-12-31T23:59:59.999Z"):
            self.assertEqual(ref.format_time(ref.parse_time(text)), text)

    def test_boundaries(self):
        self.assertEqual(ref.first_boundary_after(T0, MINUTE), T0 + MINUTE)  # strictly after
        self.assertEqual(ref.first_boundary_after(T0 - 1, MINUTE), T0)
        self.assertEqual(ref.last_boundary(T0, HOUR), T0)
        self.assertEqual(ref.last_boundary(T0 - 1, HOUR), T0 - HOUR)


class Decode(unittest.TestCase):
    def reason(self, raw):
        with self.assertRaises(ref.Rejected) as caught:
            ref.decode(raw)
        return caught.exception.args[0]

    def test_reasons(self):
        good = b'{"agentId":"a","metricSet":{"m":1},"timestamp":"2024-01-01T00:00:00Z"}'
        ref.decode(good)
        for reason, old, new in (
                ("NOT_JSON", b'Z"}', b'Z"'), ("NOT_JSON", b'"m":1', b'"m":NaN'), ("NOT_JSON", b'"a"', b'"\xff"'),
                ("WRONG_TYPE", b'"m":1', b'"m":"1"'), ("WRONG_TYPE", b'"m":1', b'"m":true'), ("WRONG_TYPE", b'"a"', b"7"),
                ("WRONG_TYPE", b'{"m":1}', b"[1]"), ("MISSING_FIELD",
                 b"agentId", b"agent"), ("MISSING_FIELD", b"timestamp", b"time"),
                ("BAD_ID", b'"a"', b'""'), ("BAD_ID", b'"a"', b'"' + b"x" * 257 + b'"'), ("BAD_ID", b'"a"', b'"\\u0000"'),
                ("BAD_ID", b'"a"', b'"\\ud800"'), ("BAD_ID", b'"a"', b'"\\u0085"'), ("BAD_METRICS", b'{"m":1}', b"{}"),
                ("VALUE_NOT_FINITE", b'"m":1', b'"m":1e400'), ("VALUE_OUT_OF_RANGE", b'"m":1', b'"m":1000000000000.0002'),
                ("BAD_TIMESTAMP", b"2024-01-01T00:00:00Z", b"2024-01-01T00:00:00"),
                ("BAD_TIMESTAMP", b"2024-01-01T00:00:00Z", b"1969-12-31T23:59:59.999Z"), ("EMPTY", good, b""), ("WRONG_TYPE", good,
                                                                                                                b"[]"),
                ("TOO_DEEP", good, b"[" * 5000)):
            self.assertIn(old, good)
            self.assertEqual(self.reason(good.replace(old, new, 1)), reason, new[:40])
        many = json.dumps({"agentId": "a",
    "metricSet": {f"m{n}": n for n in range(257)},
     "timestamp": "2024-01-01T00:00:00Z"}).encode()
        self.assertEqual(self.reason(many), "BAD_METRICS")

    def test_accepts(self):
        report = ref.decode('{"agent_id":"ä","metric_set":{"m":-1e12},"timestamp":"2024-01-01T00:00:00Z","unknown":[1]}'.encode())
        self.assertEqual((report.agent, report.metrics), ("ä", {"m": -10**18}))
        self.assertEqual(ref.decode(line(T0, agent="x" * 256)).agent, "x" * 256)

    def test_micro_is_rounded_half_to_even_of_the_exact_double(self):
        for value, micro in ((0.0078125, 7812), (0.0234375, 23438), (-0.0078125, -7812), (1e12, 10**18), (1e-300, 0), (0.1, 100000),
                             (0.0000005, 0), (0.0000015, 2 if Fraction(0.0000015) > Fraction(3, 2 * 10**6) else 1), (-0.0, 0)):
            self.assertEqual(ref.to_micro(value), micro, value)
        rng = random.Random(7)
        for _ in range(2000):
            value = struct.unpack(">d", struct.pack(">Q", rng.getrandbits(64)))[0]
            if math.isfinite(value) and abs(value) <= 1e12:
                self.assertEqual(ref.to_micro(value), round(Fraction(value) * 10**6))


class Accept(unittest.TestCase):
    def test_late_edge(self):
        grace = 45 * MINUTE
        self.assertEqual(fold(line(T0), line(T0 - grace)).counts, {})
        self.assertEqual(fold(line(T0), line(T0 - grace - 1)).counts, {"LATE": 1})

    def test_the_clock_is_the_agents_own(self):
        result = fold(line(T0 + 30 * DAY, agent="b"), line(T0), line(T0 - 30 * MINUTE))
        self.assertEqual((result.counts, result.agents["a"].clock), ({}, T0))

    def test_a_late_report_moves_nothing(self):
        result = fold(line(T0, id="1"), line(T0 - HOUR, id="2"), line(T0 - HOUR, id="2"))
        self.assertEqual(result.counts, {"LATE": 2})  # not remembered
        self.assertEqual(len(result.agents["a"].accepted), 1)

    def test_duplicates_in_any_spelling(self):
        first = line(T0, {"m": 1, "n": 0.25}, id="1", metadata={"a": 1, "b": 0})
        respelled = (b'{"metadata":{"b":-0.0,"a":1.0},"id":"1","metric_set":{"n":2.5e-1,"m":1.0},"agent_id":"a","timestamp":"'
                     + ref.format_time(T0 + HOUR).replace("Z", "9+01:00").encode() + b'"}')
        self.assertEqual(fold(first, respelled).counts, {"DUPLICATE": 1})
        for other in (line(T0 + 1, {"m": 1, "n": 0.25}, id="1", metadata={"a": 1, "b": 0}), line(T0, {"m": 1}, id="1"),
                      line(T0, {"m": 1, "n": 0.25}, id="1", metadata={"a": True, "b": 0}),
                      line(T0, {"m": 1, "n": 0.25}, id="1", divisionId="d", metadata={"a": 1, "b": 0})):
            self.assertEqual(fold(first, other).counts, {"CONFLICTING_DUPLICATE": 1})
        self.assertEqual(fold(first, line(T0, {"m": 2}, id="1", agent="b")).counts, {})  # (agentId, id)
        self.assertEqual(fold(line(T0), line(T0)).counts, {})  # without an id: not remembered

    def test_duplicate_comes_before_late(self):
        self.assertEqual(fold(line(T0, id="1"), line(T0 + 2 * HOUR), line(T0, id="1")).counts, {"DUPLICATE": 1})

    def test_memory_edge(self):
        for clock, expected in ((T0 + 24 * HOUR, {"CONFLICTING_DUPLICATE": 1}), (T0 + 24 * HOUR + 1, {})):
            self.assertEqual(fold(line(T0, id="1"), line(clock), line(clock, {"m": 2}, id="1")).counts, expected)
        # The report's own jump does not count: it is judged by the clock before it.
        self.assertEqual(fold(line(T0, id="1"), line(T0 + 9 * DAY, id="1")).counts, {"CONFLICTING_DUPLICATE": 1})
        # Forgotten and come again: late, as the memory is never shorter than the grace.
        self.assertEqual(fold(line(T0, id="1"), line(T0 + 24 * HOUR + 1), line(T0, id="1")).counts, {"LATE": 1})

    def test_future(self):
        lines = [line(T0 + 5 * MINUTE + extra, metadata={"at": ref.format_time(T0)}) for extra in (0, 1)]
        self.assertEqual(fold(*lines).counts, {})
        self.assertEqual(fold(*lines, record_time="metadata.at").counts, {"TIMESTAMP_IN_FUTURE": 1})

    def test_counts_balance(self):
        result = ref.counts(fold(b"x", line(T0, id="1"), line(T0, id="1"), line(T0 - DAY), line(T0, {"m": 2}, id="1")))
        self.assertEqual(result["in"], result["accepted"] + result["filtered"] + result["deadLetters"])
        self.assertEqual((result["accepted"], result["filtered"], result["deadLetters"]), (1, 2, 2))


class Score(unittest.TestCase):
    def test_half_open_window(self):
        result = fold(line(T0), line(T0 + HOUR - 1), line(T0 + HOUR))
        samples = lambda end: (row := ref.agent_score(result.agents["a"], WINDOWS["1h"], end, result.config)) and row["samples"]
        self.assertEqual([samples(T0), samples(T0 + MINUTE), samples(T0 + HOUR), samples(T0 + HOUR + MINUTE)], [None, 1, 2, 2])

    def test_mean_variance_and_interval(self):
        row = window_row([{"m": x} for x in (0.5, 0.7, 0.9)])
        part = row["components"][0]
        self.assertEqual((part["count"], part["mean"], part["variance"], part["min"], part["max"]), (3, 0.7, 0.04, 0.5, 0.9))
        margin = 1.96 * math.sqrt(0.04 / 3)
        self.assertEqual(row["score"], 0.7)
        self.assertEqual(row["lower"], round(0.7 - margin, 9))
        self.assertEqual(row["upper"], round(0.7 + margin, 9))  # 0.926...
        self.assertAlmostEqual(row["confidence"], 1 - 2 * margin, 9)

    def test_one_value_takes_the_largest_variance(self):
        config = Config(rules=[Rule(metric="m", low=0.0, high=10.0)])
        row = window_row([{"m": 5}], config)
        self.assertIsNone(row["components"][0]["variance"])
        # variance (10/2)^2 = 25, slope 1/10: SE = sqrt(25/100) = 0.5; 0.5 -+ 0.98 is clipped.
        self.assertEqual([row[k] for k in ("score", "lower", "upper", "confidence")], [0.5, 0.0, 1.0, 0.0])

    def test_the_error_is_that_of_the_weighted_mean(self):
        config = Config(rules=[Rule(metric="x", low=0.0, high=2.0), Rule(metric="y", weight=9.0)])
        row = window_row([{"x": 1, "y": 0.5}, {"y": 0.5}], config)
        # Only x varies, as one value: SE^2 = (1/2)^2 * (2/2)^2 / 10^2 = 0.0025.
        self.assertEqual([row[k] for k in ("score", "lower", "upper", "confidence")], [0.5, 0.402, 0.598, 0.804])

    def test_clipped_mean_keeps_its_slope(self):
        config = Config(rules=[Rule(metric="m", direction="down", low=0.0, high=5.0)])
        row = window_row([{"m": 5.9}, {"m": 6.1}], config)  # variance 0.02
        self.assertEqual((row["score"], row["lower"]), (0.0, 0.0))
        self.assertEqual(row["upper"], round(1.96 * math.sqrt(0.02 / 2) / 5, 9))
        self.assertEqual(window_row([{"m": -1}, {"m": -1}], config)["score"], 1.0)

    def test_weights(self):
        config = Config(rules=[Rule(metric="x", weight=3.0), Rule(metric="y", direction="down", low=0.0, high=4.0, weight=1.0),
                               Rule(metric="z", weight=0.0)])
        row = window_row([{"x": 0.5, "y": 1, "z": 1}, {"x": 0.5, "y": 1}], config)
        self.assertEqual(row["score"], 0.5625)  # (3 * 0.5 + 0.75) / 4
        self.assertEqual([c["contribution"] for c in row["components"]], [0.375, 0.1875, 0.0])
        self.assertEqual((row["lower"], row["upper"], row["confidence"]), (0.5625, 0.5625, 1.0))
        self.assertEqual(window_row([{"y": 1}, {"y": 1}], config)["score"], 0.75)  # only the metrics present

    def test_no_weight_no_score(self):
        row = window_row([{"m": 2}])
        self.assertEqual([row[k] for k in ("score", "lower", "upper", "confidence")], [None] * 4)
        self.assertEqual((row["unconfigured"], row["samples"]), (["m"], 1))

    def test_default_rule_looks_at_the_window(self):
        self.assertEqual(window_row([{"m": 0}, {"m": 1}])["score"], 0.5)
        self.assertIsNone(window_row([{"m": 0}, {"m": 1.000001}])["score"])
        self.assertIsNone(window_row([{"m": -0.000001}, {"m": 1}])["score"])
        self.assertEqual(window_row([{"m": 0}, {"m": 1.0000001}])["score"], 0.5)  # the value is 1 in 10^-6

    def test_first_rule_that_matches(self):
        config = Config(rules=[Rule(division="gpu-*", metric="m", high=2.0), Rule(window="24h", metric="?", high=4.0),
                               Rule(metric="m[1]", high=8.0), Rule(metric="*", high=16.0)])
        self.assertEqual(window_row([{"m": 1}], config, divisionId="gpu-1")["score"], 0.5)
        self.assertEqual(window_row([{"m": 1}], config, "24h")["score"], 0.25)
        self.assertEqual(window_row([{"m": 1}], config)["score"], 0.0625)
        self.assertEqual(window_row([{"m[1]": 1}], config)["score"], 0.125)

    def test_rounding_is_half_to_even_of_the_exact_value(self):
        config = Config(rules=[Rule(metric="m", low=0.0, high=2000.0)])
        for micro, expected in ((1, 0.0), (3, 2e-9), (5, 2e-9), (2001, 1e-6)):  # micro / 2 * 10^-9
            self.assertEqual(window_row([{"m": micro / 10**6}] * 2, config)["score"], expected, micro)

    def test_division_of_the_greatest_timestamp_and_id(self):
        result = fold(line(T0 + 1, id="b", divisionId="B"), line(T0 + 1, id="c", divisionId="C"), line(T0 + 1, id="a",
                                                                                                       divisionId="A"),
                      line(T0, id="z", divisionId="Z"), line(T0 + 2 * HOUR))
        division = lambda end: ref.agent_score(result.agents["a"], WINDOWS["1h"], end, result.config)["divisionId"]
        self.assertEqual(division(T0 + HOUR), "C")
        self.assertEqual(division(T0 + 3 * HOUR), "default")

    def test_scores_with_and_without_an_instant(self):
        result = fold(line(T0), line(T0 + 10 * DAY, agent="b"))
        self.assertEqual([(r["agentId"], r["window"], r["windowEnd"]) for r in ref.scores(result)],
                         [("a", "1h", ref.format_time(T0 + MINUTE)), ("a", "24h", ref.format_time(T0 + 15 * MINUTE)),
                          ("a", "7d", ref.format_time(T0 + HOUR)), ("b", "1h", ref.format_time(T0 + 10 * DAY + MINUTE)),
                          ("b", "24h", ref.format_time(T0 + 10 * DAY + 15 * MINUTE)), ("b", "7d",
                                                                                       ref.format_time(T0 + 10 * DAY + HOUR))])
        self.assertEqual([(r["agentId"], r["window"], r["windowEnd"]) for r in ref.scores(result, T0 + HOUR + 59_999)],
                         [("a", "1h", ref.format_time(T0 + HOUR)), ("a", "24h", ref.format_time(T0 + HOUR)),
                          ("a", "7d", ref.format_time(T0 + HOUR))])
        self.assertEqual([r["window"] for r in ref.scores(result, T0 + HOUR + MINUTE)], ["24h", "7d"])
        self.assertEqual(ref.scores(result, T0), [])


    def test_windows_against_plain_statistics(self):
        rng, lines, reports = random.Random(11), [], []
        clock = T0
        for n in range(400):
            clock += rng.choice([0, 1, MINUTE, rng.randrange(3 * HOUR)])
            time = clock - rng.choice([0, rng.randrange(45 * MINUTE)])
            metrics = {name: rng.choice([rng.random(), rng.randrange(9), -rng.random()])
                                        for name in rng.sample("xyz", rng.randint(1, 3))}
            lines.append(line(time, metrics, id=str(n)))
            reports.append((time, metrics))
        rows = ref.closed(fold(*lines))
        self.assertGreater(len(rows), 250)
        for row in rows:
            begin, end = ref.parse_time(row["windowStart"]), ref.parse_time(row["windowEnd"])
            inside = [metrics for time, metrics in reports if begin <= time < end]
            self.assertEqual(row["samples"], len(inside))
            for part in row["components"]:
                values = [round(Fraction(m[part["metric"]]), 6) for m in inside if part["metric"] in m]
                self.assertEqual((part["count"], part["mean"]), (len(values), float(sum(values) / len(values))))
                self.assertEqual(part["variance"], float(statistics.variance(values)) if len(values) > 1 else None)
                self.assertEqual((part["min"], part["max"]), (float(min(values)), float(max(values))))


class Configuration(unittest.TestCase):
    def load(self, text, **options):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            return ref.load_config(file.name, **options)

    def test_defaults_and_keys(self):
        config = ref.load_config()
        self.assertEqual((config.grace, config.dedupe, config.enter, config.leave, config.min_samples, config.cooldown,
                          config.max_per_week),
                         (45 * MINUTE, DAY, 0.85, 0.8, 5, DAY, 2))
        config = self.load('[scoring]\ngrace = "10m"\ndedupe = "5m"\n[[scoring.metric]]\nmetric = "x"\nlow = 1\nhigh = 3\n'
                           '[promotion]\nenter = 0.9\ncooldown = "6h"\n[allocation]\nother = 1\n')
        self.assertEqual((config.grace, config.dedupe, config.enter, config.cooldown), (10 * MINUTE, 10 * MINUTE, 0.9, 6 * HOUR))
        self.assertEqual((config.rules[0].metric, config.rules[0].direction, config.rules[0].high), ("x", "up", 3))
        self.assertEqual(self.load('[scoring]\ngrace = "10m"\n', grace=2 * DAY).dedupe, 2 * DAY)  # never less than the grace

    def test_what_it_does_not_know_is_refused(self):
        for text in ("[scoring]\ngrase = 1\n", "[promotion]\nenter_at = 1\n", '[scoring]\ngrace = "1 week"\n',
                     '[[scoring.metric]]\ndirection = "left"\n', "[[scoring.metric]]\nlow = 1.0\nhigh = 1.0\n"):
            with self.assertRaises(SystemExit, msg=text):
                self.load(text)


class Closed(unittest.TestCase):
    def ends(self, *lines, **options):
        result = fold(*lines, **options)
        return [(window.name, (end - T0) / HOUR) for _, window, end in result.closed()]

    def test_closes_when_the_clock_reaches_end_plus_grace(self):
        grace = 45 * MINUTE
        self.assertEqual(self.ends(line(T0), line(T0 + HOUR + grace - 1)), [])
        self.assertEqual(self.ends(line(T0), line(T0 + HOUR + grace)), [("24h", 1), ("1h", 1)])
        self.assertEqual(self.ends(line(T0), line(T0 + HOUR + grace), line(T0 + HOUR + grace), line(T0 + HOUR)),
                         [("24h", 1), ("1h", 1)])  # once

    def test_a_jump_closes_all_that_hold_a_report(self):
        ends = self.ends(line(T0), line(T0 + 1000 * DAY))
        self.assertEqual(ends[:3], [("24h", 1), ("1h", 1), ("24h", 2)])
        self.assertEqual([e for w, e in ends if w == "24h"], list(range(1, 25)))
        self.assertEqual([e for w, e in ends if w == "1h"], [1])
        self.assertEqual([e for w, e in ends if w == "7d"], [24, 48, 72, 96, 120, 144, 168])
        self.assertEqual(ends.index(("7d", 24)) + 1, ends.index(("24h", 24)))

    def test_order_at_one_end(self):
        ends = self.ends(line(T0 - HOUR), line(T0 + HOUR))
        self.assertEqual(ends, [("7d", 0), ("24h", 0), ("1h", 0)])

    def test_the_closing_report_is_not_in_it(self):
        self.assertEqual(self.ends(line(T0 - 1), line(T0), grace=0), [("7d", 0), ("24h", 0), ("1h", 0)])

    def test_late_within_grace_counts(self):
        result = fold(line(T0), line(T0 + HOUR + 44 * MINUTE), line(T0 + HOUR - 1), line(T0 + HOUR + 45 * MINUTE))
        self.assertEqual([row["samples"] for row in ref.closed(result, ("1h",))], [2])

    def test_order_across_agents_is_that_of_the_cause(self):
        result = fold(line(T0), line(T0, agent="b"), line(T0 + 2 * HOUR, agent="b"), line(T0 + 2 * HOUR))
        self.assertEqual([row["agentId"] for row in ref.closed(result, ("1h",))], ["b", "a"])


class Scoreboard(unittest.TestCase):
    def test_ranks_ties_and_movement(self):
        values = {"a": (0.5, 0.9), "b": (0.8, 0.8), "c": (0.8, 0.8)}
        lines = [line(T0 + hour * HOUR, {"m": values[agent][hour]}, agent=agent) for hour in (0, 1) for agent in values]
        lines.append(line(T0 + HOUR, {"m": 1}, agent="new"))
        lines.append(line(T0 + HOUR, {"m": 7}, agent="unranked"))
        rows = ref.scoreboard(fold(*lines), window="1h")
        self.assertEqual([(r["rank"], r["agentId"], r["movement"]) for r in rows],
                         [(1, "new", None), (2, "a", 1), (3, "b", -2), (4, "c", -2)])
        self.assertEqual({r["windowEnd"] for r in rows}, {ref.format_time(T0 + HOUR + MINUTE)})
        self.assertEqual(len(ref.scoreboard(fold(*lines), window="1h", top=2)), 2)

    def test_all_agents_stand_at_one_instant(self):
        result = fold(line(T0, agent="old"), line(T0 + 2 * HOUR))
        self.assertEqual([r["agentId"] for r in ref.scoreboard(result, window="1h")], ["a"])
        self.assertEqual([r["agentId"] for r in ref.scoreboard(result, window="24h")], ["a", "old"])
        self.assertEqual([r["agentId"] for r in ref.scoreboard(result, T0 + HOUR, "1h")], ["old"])

    def test_division(self):
        result = fold(line(T0, divisionId="x"), line(T0 + 9 * HOUR, agent="b", divisionId="y"))
        self.assertEqual([(r["agentId"], r["windowEnd"]) for r in ref.scoreboard(result, window="24h", division="x")],
                         [("a", ref.format_time(T0 + 15 * MINUTE))])


class Promotion(unittest.TestCase):
    def history(self, levels, per_hour=6, tail=True, gate=ref.allow_everything, **options):
        """A value an hour (None: no report) from T0; returns (action, hour of E[, reason])."""
        lines = [line(T0 + hour * HOUR + n * MINUTE, {"m": level}) for hour, level in enumerate(levels) if level is not None
                 for n in range(per_hour)]
        if tail:
            lines.append(line(T0 + (len(levels) + 1) * HOUR, {"m": 0.82}))
        events = ref.promotions(fold(*lines, **options), gate)
        return [(e["action"], (ref.parse_time(e["ts"]) - T0) // HOUR, *([e["reason"]] if "reason" in e else [])) for e in events]

    def test_three_hours_promote_once(self):
        self.assertEqual(self.history([0.9] * 2), [])
        self.assertEqual(self.history([0.9] * 8), [("promote", 3)])
        self.assertEqual(self.history([0.85] * 3), [("promote", 3)])  # at the line
        self.assertEqual(self.history([0.849999] * 3), [])

    def test_a_gap_breaks_the_row(self):
        self.assertEqual(self.history([0.9, 0.9, None, 0.9, 0.9]), [])
        self.assertEqual(self.history([0.9, 0.9, None, 0.9, 0.9, 0.9]), [("promote", 6)])

    def test_min_samples(self):
        self.assertEqual(self.history([0.9] * 4, per_hour=4), [])
        self.assertEqual(self.history([0.9] * 4, per_hour=5), [("promote", 3)])

    def test_the_days_lower_bound_must_clear_the_line(self):
        # A bad hour widens the interval and lowers the mean of the day; it leaves only after 24 h.
        self.assertEqual(self.history([0.0] + [0.9] * 23), [])
        self.assertEqual(self.history([0.0] + [0.9] * 24), [("promote", 25)])

    def test_demotion(self):
        options = {"cooldown": 0}
        self.assertEqual(self.history([0.9] * 3 + [0.79] * 3, **options), [("promote", 3), ("demote", 6)])
        self.assertEqual(self.history([0.9] * 3 + [0.8] * 5, **options), [("promote", 3)])  # not below the line
        self.assertEqual(self.history([0.5] * 9, **options), [])  # never promoted

    def test_cooldown_edge_and_one_hold(self):
        self.assertEqual(self.history([0.9] * 3 + [0.7] * 30), [("promote", 3), ("hold", 6, "cooldown"), ("demote", 27)])
        self.assertEqual(self.history([0.9] * 3 + [0.7] * 4 + [0.82] + [0.7] * 5, cooldown=100 * HOUR),
                         [("promote", 3), ("hold", 6, "cooldown"), ("hold", 11, "cooldown")])  # said again after it ceased

    def test_rate_limit_edge(self):
        levels = [0.9] * 3 + [0.1] * 30 + [0.9] * (7 * 24)
        events = self.history(levels, cooldown=0)
        # promoted at 3, demoted at 6; the third request may come when 3 leaves (E - 7d, E]: at 3 + 168.
        self.assertEqual(events, [("promote", 3), ("demote", 6), ("hold", 57, "rate_limit"), ("promote", 171)])
        self.assertEqual(self.history(levels, cooldown=0, max_per_week=3)[2], ("promote", 57))

    def test_the_gate_comes_first_and_a_new_reason_is_said(self):
        deny = lambda action, row: "policy" if row["windowEnd"] < ref.format_time(T0 + 8 * HOUR) else None
        self.assertEqual(self.history([0.9] * 10, gate=deny), [("hold", 3, "policy"), ("promote", 8)])
        both = lambda action, row: "policy" if action == "demote" and row["windowEnd"] < ref.format_time(T0 + 8 * HOUR) else None
        self.assertEqual(self.history([0.9] * 3 + [0.7] * 8, gate=both),
                         [("promote", 3), ("hold", 6, "policy"), ("hold", 8, "cooldown")])

    def test_a_silent_agent_decides_nothing(self):
        self.assertEqual(self.history([0.9] * 3, tail=False), [])


class Tools(unittest.TestCase):
    def differences(self, expected, actual, **options):
        with contextlib.redirect_stdout(io.StringIO()):
            return compare.compare(expected, actual, **options)

    def test_compare_sees_each_difference(self):
        rows = ref.scores(fold(*[line(T0 + n * SECOND, {"m": n / 10}, agent=a) for n in range(9) for a in "ab"]))
        copy = lambda: json.loads(json.dumps(rows))
        self.assertEqual(self.differences(rows, copy()), 0)
        for change in (lambda r: r.pop(), lambda r: r[0].update(samples=8), lambda r: r[0].update(score=r[0]["score"] * (1 + 2e-9)),
                       lambda r: r[0].update(score=None), lambda r: r[0]["components"][0].update(count=8),
                       lambda r: r[0]["components"][0].update(
    mean=0.4000001), lambda r: r[0]["components"][0].update(
        variance=None),
                       lambda r: r[0]["components"].pop(), lambda r: r[0].update(divisionId="x"),
                       lambda r: r[0].update(windowEnd="x")):
            other = copy()
            change(other)
            self.assertGreater(self.differences(rows, other), 0)
        other = copy()
        other[0]["score"] *= 1 + 1e-10
        self.assertEqual(self.differences(rows, other), 0)
        self.assertGreater(self.differences(rows, list(reversed(copy())), ordered=True), 0)

    def test_compare_promotions_in_order(self):
        events = [{"entityId": e, "divisionId": "d", "action": a, "ts": t} for e, a, t in
                  (("x", "promote", "1"), ("y", "promote", "1"), ("x", "demote", "2"))]
        self.assertEqual(self.differences(events, events), 0)
        self.assertGreater(self.differences(events, [events[1], events[0], events[2]]), 0)
        self.assertEqual(self.differences(events, [events[1], events[0], events[2]], per_entity=True), 0)
        self.assertGreater(self.differences(events, [events[2], events[0], events[1]], per_entity=True), 0)
        self.assertGreater(self.differences(events, events[:2]), 0)
        self.assertGreater(self.differences(events, []), 0)
        self.assertGreater(self.differences([], events), 0)

    def test_audit_rules_are_each_found(self):
        here = os.path.dirname(os.path.abspath(__file__))
        done = subprocess.run([sys.executable, os.path.join(here, "audit_compat.py"),
                              "--self-test"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_compare_exits(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("a.json", "b.json")]
            for path, reasons in zip(paths, ({"LATE": 1}, {"LATE": 2})):
                with open(path, "w", encoding="utf-8") as file:
                    json.dump({"in": 3, "byReason": reasons}, file)
            run = lambda *p: subprocess.run([sys.executable, compare.__file__, *p], capture_output=True, check=False).returncode
            self.assertEqual((run(paths[0], paths[0]), run(*paths), run(paths[0], folder)), (0, 7, 2))

    def test_alpaca_check(self):
        rows = ref.scores(fold(*[line(T0 + n * SECOND, {"win": v}, agent=a) for a, values in (("x", (1, 0.5)), ("y", (0.5, 0.5)))
                                 for n, v in enumerate(values)]))
        board = {"x": {"win_rate": "75", "standard_error": "25", "n_total": "2"},
                 "y": {"win_rate": "50", "standard_error": "0", "n_total": "2"}}
        self.assertEqual(alpaca_check.check(board, rows, "win")[0], [])
        for model, field, value in (("x", "win_rate", "75.0001"), ("x", "standard_error", "25.00001"), ("y", "n_total", "3"),
                                    ("y", "win_rate", "76")):
            other = {**board, model: {**board[model], field: value}}
            self.assertTrue(alpaca_check.check(other, rows, "win")[0])
        self.assertTrue(alpaca_check.check(board, rows, "win", [{"rank": 1, "agentId": "y"}, {"rank": 2, "agentId": "x"}])[0])

    def test_inputs_and_generator(self):
        here = os.path.dirname(os.path.abspath(__file__))
        with tempfile.TemporaryDirectory() as folder:
            plain, rules = os.path.join(folder, "r.jsonl"), os.path.join(folder, "r.toml")
            make = [sys.executable, os.path.join(here, "make_reports.py"), "--seed", "5", "--reports", "1500", "--bad", "0.1"]
            subprocess.run([*make, "--out", plain, "--rules", rules], check=True)
            with open(plain, "rb") as file:
                self.assertEqual(subprocess.run(make, check=True, capture_output=True).stdout, file.read())
            subprocess.run(["zstd", "-q", plain, "-o", plain + ".zst"], check=True)
            subprocess.run(["gzip", "-k", plain], check=True)
            ask = [sys.executable, os.path.join(here, "reference.py"), "counts", "--config", rules, "--input"]
            answers = [json.loads(subprocess.run([*ask, plain + end], check=True, capture_output=True).stdout)
                                  for end in ("", ".zst", ".gz")]
            self.assertEqual(answers[0], answers[1])
            self.assertEqual(answers[0], answers[2])
            for reason in ("LATE", "DUPLICATE", "CONFLICTING_DUPLICATE", "NOT_JSON", "BAD_ID"):
                self.assertGreater(answers[0]["byReason"].get(reason, 0), 0, reason)


if __name__ == "__main__":
    unittest.main()
