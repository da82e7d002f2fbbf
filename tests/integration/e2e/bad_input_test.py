"""Bad input on both logs: every bad record has its reason and keeps its bytes, and the partition goes on behind it."""

import json
import struct
import time

import harness

# 2026-03-01T12:00:00Z; every record carries it, so that nothing here depends on the day the test runs.
NOW_MS = 1772366400000
RECENT = "2026-03-01T11:59:00Z"
MIB = 1 << 20


def report(agent, **changes):
    """A good report of that agent; a member given as None is left out."""
    whole = {"id": f"id-{agent}", "agentId": agent, "divisionId": "d", "metricSet": {"win": 0.5}, "timestamp": RECENT, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def text(agent, **changes):
    return json.dumps(report(agent, **changes)).encode()


def with_text(agent, old, new):
    """A good report with one piece of its text replaced: what json.dumps cannot say."""
    whole = json.dumps(report(agent)).encode()
    assert whole.count(old) == 1, (old, whole)
    return whole.replace(old, new)


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, payload):
    """A length-delimited member of a Protobuf message."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def protobuf(agent, report_id=None, value=0.5, unknown=b""):
    """The same report as text() makes, written by hand from schemas/proto/eval_report.proto."""
    entry = field(1, b"win") + varint(2 << 3 | 1) + struct.pack("<d", value)
    timestamp = varint(1 << 3) + varint(NOW_MS // 1000 - 60)
    return (field(2, agent.encode()) + field(3, (report_id or f"id-{agent}").encode()) + field(7, b"d") + field(8, entry)
            + field(9, timestamp) + unknown)


def padded(agent, size):
    """A good report of exactly that size with its key."""
    whole = text(agent, metadata={"pad": ""})
    return whole.replace(b'"pad": ""', b'"pad": "' + b"x" * (size - len(whole) - len(agent)) + b'"')


PROTOBUF = [("content-type", b"application/protobuf")]

# name, reason, value of that agent's record, and what is not usual: key, headers, timestamp
BAD = [
    ("not-json", "NOT_JSON", lambda a: b"hello"),
    ("not-json-comma", "NOT_JSON", lambda a: with_text(a, b"0.5}", b"0.5,}")),
    ("two-documents", "NOT_JSON", lambda a: text(a) + text(a)),
    ("not-protobuf", "NOT_PROTOBUF", lambda a: b"\x12\xff\xff\xff"),
    ("not-protobuf-said", "NOT_PROTOBUF", lambda a: b"\xff\xff\xff\xff", {"headers": PROTOBUF}),
    ("truncated-json", "NOT_JSON", lambda a: text(a)[:-1]),
    ("truncated-protobuf", "NOT_PROTOBUF", lambda a: protobuf(a)[:-1]),
    ("truncated-frame", "NOT_PROTOBUF", lambda a: b"\0\0\0\0\1"),
    ("report-is-a-list", "WRONG_TYPE", lambda a: b"[]"),
    ("report-is-a-number", "WRONG_TYPE", lambda a: b"17"),
    ("agent-is-a-number", "WRONG_TYPE", lambda a: text(a, agentId=7)),
    ("id-is-a-list", "WRONG_TYPE", lambda a: text(a, id=[1])),
    ("metrics-are-a-list", "WRONG_TYPE", lambda a: text(a, metricSet=[0.5])),
    ("value-is-a-string", "WRONG_TYPE", lambda a: text(a, metricSet={"win": "0.5"})),
    ("value-is-true", "WRONG_TYPE", lambda a: text(a, metricSet={"win": True})),
    ("metadata-is-a-string", "WRONG_TYPE", lambda a: text(a, metadata="x")),
    ("agent-in-both-spellings", "WRONG_TYPE", lambda a: text(a, agent_id=a)),
    ("no-agent", "MISSING_FIELD", lambda a: text(a, agentId=None)),
    ("no-metrics", "MISSING_FIELD", lambda a: text(a, metricSet=None)),
    ("no-timestamp", "MISSING_FIELD", lambda a: text(a, timestamp=None)),
    ("empty-agent", "BAD_ID", lambda a: text(a, agentId="")),
    ("empty-metrics", "BAD_METRICS", lambda a: text(a, metricSet={})),
    ("257-metrics", "BAD_METRICS", lambda a: text(a, metricSet={f"m{i}": i for i in range(257)})),
    ("nan", "NOT_JSON", lambda a: with_text(a, b"0.5", b"NaN")),
    ("infinity", "NOT_JSON", lambda a: with_text(a, b"0.5", b"Infinity")),
    ("minus-infinity", "NOT_JSON", lambda a: with_text(a, b"0.5", b"-Infinity")),
    ("1e400", "VALUE_NOT_FINITE", lambda a: with_text(a, b"0.5", b"1e400")),
    ("protobuf-nan", "VALUE_NOT_FINITE", lambda a: protobuf(a, value=float("nan"))),
    ("protobuf-infinity", "VALUE_NOT_FINITE", lambda a: protobuf(a, value=float("inf"))),
    ("out-of-range", "VALUE_OUT_OF_RANGE", lambda a: text(a, metricSet={"win": 1000000000000.001})),
    ("out-of-range-below", "VALUE_OUT_OF_RANGE", lambda a: text(a, metricSet={"win": -1e13})),
    ("timestamp-words", "BAD_TIMESTAMP", lambda a: text(a, timestamp="yesterday")),
    ("timestamp-no-zone", "BAD_TIMESTAMP", lambda a: text(a, timestamp="2026-03-01T11:59:00")),
    ("timestamp-no-such-day", "BAD_TIMESTAMP", lambda a: text(a, timestamp="2026-02-30T11:59:00Z")),
    ("timestamp-is-a-number", None, lambda a: text(a, timestamp=NOW_MS)),
    ("before-1970", "BAD_TIMESTAMP", lambda a: text(a, timestamp="1969-12-31T23:59:59.999Z")),
    ("in-the-future", "TIMESTAMP_IN_FUTURE", lambda a: text(a, timestamp="2026-03-01T12:05:00.001Z")),
    ("other-key", "KEY_MISMATCH", lambda a: text(a), {"key": b"somebody-else"}),
    ("empty-key", "KEY_MISMATCH", lambda a: text(a), {"key": b""}),
    ("null-key", "KEY_MISMATCH", lambda a: text(a), {"key": None}),
    ("no-bytes", "EMPTY", lambda a: b""),
    ("tombstone", "EMPTY", lambda a: None),
    ("tombstone-without-key", "EMPTY", lambda a: None, {"key": None}),
    ("id-with-nul", "BAD_ID", lambda a: with_text(a, b'"id": "', b'"id": "\\u0000')),
    ("agent-with-nul", "BAD_ID", lambda a: with_text(a, b'"agentId": "', b'"agentId": "\\u0000')),
    ("lone-surrogate", None, lambda a: with_text(a, b'"id": "', b'"id": "\\ud800')),
    ("lone-low-surrogate", None, lambda a: with_text(a, b'"agentId": "', b'"agentId": "\\udc00x')),
    ("invalid-utf8-id", None, lambda a: with_text(a, b'"id": "', b'"id": "\xff\xfe')),
    ("overlong-utf8-id", None, lambda a: with_text(a, b'"id": "', b'"id": "\xc0\x80')),
    ("invalid-utf8-protobuf", "BAD_ID", lambda a: protobuf(a).replace(b"id-", b"i\xff-")),
    ("id-of-257-bytes", "BAD_ID", lambda a: text(a, id="i" * 257)),
    ("agent-of-257-bytes", "BAD_ID", lambda a: text("a" * 257), {"key": b"a" * 257}),
    ("division-of-257-bytes", "BAD_ID", lambda a: text(a, divisionId="é" * 129)),
    ("id-of-nearly-1-mib", "BAD_ID", lambda a: text(a, id="i" * (MIB - 400))),
    ("5000-brackets", "TOO_DEEP", lambda a: with_text(a, b"0.5}", b"0.5}, \"metadata\": {\"x\": " + b"[" * 5000 + b"]" * 5000 + b"}")),
    ("5000-open-brackets", "TOO_DEEP", lambda a: b"[" * 5000),
    ("5000-objects", "TOO_DEEP", lambda a: b'{"a":' * 5000),
]

HEADERS = [("trace", b"abc-1"), ("trace", b"abc-2"), ("empty", b""), ("null", None), ("binary", bytes(range(256)))]


class BadInput(harness.EndToEnd):

    def sent_cases(self):
        """Each bad record followed, in the same partition, by a good one of an agent of its own: (case, records)."""
        for index, (name, reason, make, *rest) in enumerate(BAD):
            unusual = rest[0] if rest else {}
            agent, partition = f"agent-{name}", index % 4
            bad = (partition, NOW_MS, unusual.get("key", agent.encode()), make(agent), unusual.get("headers", []) + HEADERS)
            after = f"after-{name}"
            good = (partition, NOW_MS, after.encode(), text(after), [])
            yield name, reason, bad, good

    @harness.both_logs
    def test_every_bad_record_is_named_and_kept_and_the_partition_goes_on(self, assay):
        assay.ok("topics", "apply")
        cases = list(self.sent_cases())
        assay.send([record for _, _, bad, good in cases for record in (bad, good)])
        sums = assay.fold()
        self.assertEqual((sums["delivered"], sums["accepted"], sums["filtered"], sums["deadLetters"]),
                         (2 * len(cases), len(cases), 0, len(cases)))
        self.assertEqual(sums["delivered"], sums["accepted"] + sums["filtered"] + sums["deadLetters"])
        self.assertEqual(sum(sums["byReason"].values()), sums["filtered"] + sums["deadLetters"])

        rows = assay.dead_letters()
        self.assertEqual(len(rows), len(cases))
        self.assertEqual(len({row["id"] for row in rows}), len(cases))
        places = {(row["partition"], row["offset"]): row for row in rows}
        records = {(r.partition, str(r.offset)): r for r in assay.read("eval.reports.v1")}
        letters = {next(v for n, v in letter.headers if n == "assay-source").decode(): letter
                   for letter in assay.read("eval.reports.v1.dlq")}
        table = {}
        for index, (name, reason, bad, _) in enumerate(cases):
            with self.subTest(case=name):
                partition, _, key, value, headers = bad
                place = (partition, str(index // 4 * 2))
                self.assertEqual((records[place].key, records[place].value), (key, value), "what was sent is what the log has")
                row = places[place]
                table[name] = row["reason"]
                if reason:
                    self.assertEqual(row["reason"], reason, row["detail"])
                self.assertTrue(row["detail"], "a reason code alone helps nobody")
                self.assertLess(len(row["detail"]), 1000)
                self.assertEqual((row["topic"], row["processor"]), ("eval.reports.v1", "scoring"))
                self.assertEqual(assay.ok("dlq", "show", row["id"], "--bytes").out, value or b"")
                shown, shown_key, shown_value, shown_headers = assay.dead_letter(row["id"])
                self.assertEqual((shown_key, shown_value, shown["truncated"]), (key, value, False))
                self.assertEqual([n for n, _ in shown_headers], [n for n, _ in headers])
                letter = letters[f"eval.reports.v1/{partition}/{place[1]}"]
                self.assertEqual((letter.key, letter.value), (key, value))
                self.assertEqual([h for h in letter.headers if not h[0].startswith("assay-")], headers)
        type(self).tables[assay.log] = table

        scored = {row["agentId"]: row["samples"] for row in assay.json("scores", "--window", "1h")}
        self.assertEqual(scored, {f"after-{name}": 1 for name, *_ in cases})

        again = assay.fold()
        self.assertEqual(again, sums)
        self.assertEqual(assay.dead_letters(), rows, "a second run finds nothing new")
        self.assertGreater(int(assay.json("audit", "head")["rows"]), 0)

    tables = {}

    def test_z_both_logs_gave_the_same_reasons(self):
        self.assertEqual(set(self.tables), {"embedded", "kafka"}, "both runs came so far")
        self.assertEqual(self.tables["embedded"], self.tables["kafka"])

    @harness.both_logs
    def test_duplicates_are_filtered_in_any_encoding_and_conflicts_are_dead_letters(self, assay):
        assay.ok("topics", "apply")
        agent = "twin"
        key = agent.encode()
        first = report(agent)
        shuffled = dict(reversed(first.items()))
        snake = {"agent_id": agent, "division_id": "d", "metric_set": {"win": 0.5}, "timestamp": "2026-03-01T12:59:00+01:00", "id": first["id"]}
        same = [json.dumps(first).encode(), json.dumps(first).encode(), json.dumps(shuffled, indent=3).encode(),
                json.dumps(snake).encode(), protobuf(agent), b"\0\0\0\0\1\0" + protobuf(agent),
                with_text(agent, b"0.5", b"5E-1"), with_text(agent, b'"agentId"', b'"\\u0061gentId"')]
        other = [text(agent, metricSet={"win": 0.25}), protobuf(agent, value=0.75)]
        unnamed = [text(agent, id=None), text(agent, id=None)]
        values = same + other + unnamed
        assay.send([(1, NOW_MS, key, value, []) for value in values])
        sums = assay.fold()
        self.assertEqual(sums, {"delivered": len(values), "accepted": 1 + len(unnamed), "filtered": len(same) - 1,
                                "deadLetters": len(other),
                                "byReason": {"CONFLICTING_DUPLICATE": len(other), "DUPLICATE": len(same) - 1}})
        self.assertEqual([row["offset"] for row in assay.dead_letters()], [str(len(same)), str(len(same) + 1)])
        (row,) = assay.json("scores", "--window", "1h")
        self.assertEqual((row["samples"], row["score"]), (3, 0.5))

    @harness.both_logs
    def test_what_is_just_good_enough_is_scored(self, assay):
        assay.ok("topics", "apply")
        good = {
            "metrics-256": text("metrics-256", metricSet={f"m{i}": 0.5 for i in range(256)}),
            "largest": text("largest", metricSet={"win": 1e12, "lose": -1e12}),
            "soon": text("soon", timestamp="2026-03-01T12:05:00.000Z"),
            "é" * 128: text("é" * 128, id="long"),
            "first-day": text("first-day", timestamp="1970-01-01T00:00:00Z"),
            "full-record": padded("full-record", MIB),
            "deep": with_text("deep", b"0.5}", b'0.5}, "metadata": {"x": ' + b"[" * 62 + b"]" * 62 + b"}"),
        }
        assay.send([(0, NOW_MS, agent.encode(), value, []) for agent, value in good.items()])
        sums = assay.fold()
        self.assertEqual((sums["accepted"], sums["byReason"]), (len(good), {}))
        scored = {row["agentId"] for row in assay.json("scores", "--window", "1h")}
        self.assertEqual(scored, set(good))

    @harness.both_logs
    def test_unknown_fields_are_accepted_and_counted(self, assay):
        service = assay.start_service()
        assay_lines = [report("curious", colour="green", shape={"sides": [1, 2]}), report("plain")]
        if assay.log == "kafka":
            assay.produce(assay_lines)
            harness.wait_until("two accepted reports", lambda: json.loads(assay.http("/query/tally")[1]).get("accepted") == 2)
        else:  # the embedded log has one writer at a time
            service.terminate()
            assay.produce(assay_lines)
            service = assay.start_service()
            harness.wait_until("two accepted reports", lambda: json.loads(assay.http("/query/tally")[1]).get("accepted") == 2)
        exposition = assay.http("/metrics")[1]
        unknown = sum(float(line.rsplit(" ", 1)[1]) for line in exposition.splitlines() if line.startswith("assay_unknown_fields_total{"))
        self.assertEqual(unknown, 2)
        self.assertEqual(service.terminate()[0], 0)

    @harness.both_logs
    def test_produce_refuses_a_byte_too_much_and_goes_on(self, assay):
        lines = [padded("full", MIB), padded("over", MIB + 1), text("after")]
        sums = assay.produce([line.decode() for line in lines])
        self.assertEqual(sums, {"sent": 2, "refused": 1, "byReason": {"TOO_LARGE": 1}})
        raw = assay.produce([line.decode() for line in [padded("raw-full", MIB), padded("raw-over", MIB + 1), b"{broken"]], "--raw")
        self.assertEqual(raw, {"sent": 2, "refused": 1, "byReason": {"TOO_LARGE": 1}})
        sums = assay.fold()
        self.assertEqual((sums["delivered"], sums["accepted"], sums["byReason"]), (4, 3, {"NOT_JSON": 1}))

    def test_a_foreign_client_on_kafka(self):
        """What kcat sends: tombstones, keys with separators, headers; and a record that is larger than anything we would send."""
        assay = self.assay("kafka")
        assay.ok("topics", "apply")
        topic = assay.prefix + "eval.reports.v1"
        kcat = ["-P", "-t", topic, "-p", "2"]
        harness.kcat(*kcat, "-Z", "-K", "|", "-H", "trace=foreign", data=b"gone|\n")
        harness.kcat(*kcat, "-K", "|", "-H", "trace=foreign", data=b"wrong|" + text("right") + b"\n")
        harness.kcat(*kcat, "-H", "trace=foreign", data=text("keyless") + b"\n")
        huge = self.directory / "huge"
        huge.write_bytes(padded("", MIB + 1))
        harness.kcat(*kcat, "-X", "message.max.bytes=4000000", str(huge))
        assay.send([(2, int(time.time() * 1000), b"after", text("after"), [])])
        sums = assay.fold()
        self.assertEqual((sums["delivered"], sums["accepted"], sums["byReason"]),
                         (5, 1, {"EMPTY": 1, "KEY_MISMATCH": 2, "TOO_LARGE": 1}))
        rows = assay.dead_letters()
        letters = [assay.dead_letter(row["id"]) for row in rows]
        self.assertEqual([(row["reason"], key, value, headers) for row, key, value, headers in letters],
                         [("EMPTY", b"gone", None, [("trace", "foreign")]),
                          ("KEY_MISMATCH", b"wrong", text("right"), [("trace", "foreign")]),
                          ("KEY_MISMATCH", None, text("keyless"), [("trace", "foreign")]),
                          ("TOO_LARGE", None, huge.read_bytes(), [])])
        # And kcat reads the dead letters as everybody else's tool would.
        seen = harness.kcat_records(topic + ".dlq")
        self.assertEqual([record["key"] for record in seen], ["gone", "wrong", None, None])
        for record, row in zip(seen, rows):
            headers = dict(zip(record["headers"][::2], record["headers"][1::2]))
            self.assertEqual((headers["assay-reason"], headers["assay-source"]), (row["reason"], f"eval.reports.v1/2/{row['offset']}"))


if __name__ == "__main__":
    harness.main()
