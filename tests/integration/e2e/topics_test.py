"""The output topics as somebody else's consumer reads them: two clients that nobody here wrote, on what the interface promises."""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import harness

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
import audit_compat  # our own RFC 8785 in Python, which is no part of the product

REPORTS, DEAD = "eval.reports.v1", "eval.reports.v1.dlq"
SCORE = {"agentId", "divisionId", "window", "windowStart", "windowEnd", "score", "lower", "upper", "confidence", "samples",
         "components", "configVersion", "computedAt", "rationale"}
COMPONENT = {"metric", "count", "mean", "variance", "min", "max", "normalized", "weight", "contribution"}
PROMOTION = {"id", "entityId", "divisionId", "action", "status", "score", "confidence", "rationale", "requestedBy", "policy",
             "evidence", "ts"}
ALLOCATION = {"id", "allocationId", "entityId", "divisionId", "pool", "cpu", "gpu", "memoryMB", "state", "reason", "cause", "ts"}
# Topic: (members, what its key is)
TOPICS = {
    "eval.scores.v1": (SCORE, lambda value: value["agentId"]),
    "eval.scores.live.v1": (SCORE, lambda value: f"{value['agentId']}/{value['window']}"),
    "promotion.events.v1": (PROMOTION, lambda value: value["entityId"]),
    "allocation.events.v1": (ALLOCATION, lambda value: value["pool"]),
    "audit-events": (None, lambda value: value["id"]),
    "config.v1": (None, lambda value: value["kind"]),
    "assay.manifests.v1": (None, lambda value: value["task"]),
}
IDENTIFIED = ("eval.scores.v1", "eval.scores.live.v1", "promotion.events.v1", "allocation.events.v1", "audit-events")


def headers_of(record):
    names = record.get("headers", [])
    return list(zip(names[::2], names[1::2], strict=True))


class Topics(harness.EndToEnd):

    @classmethod
    def setUpClass(cls):
        """One run for all tests, which only read; in three parts, so that the counters of writers go over restarts."""
        super().setUpClass()
        directory = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="assay-e2e-"))
        cls.pipeline = harness.Assay("kafka", directory)
        cls.addClassCleanup(cls.pipeline.close)
        made = cls.pipeline.directory / "reports.jsonl"
        cls.pipeline.ok("generate", "--agents", 20, "--reports", 2400, "--seed", 5, "--bad", 0.02, "--late", 0.02, "--out", made)
        lines = made.read_bytes().splitlines(keepends=True)
        for part in range(3):
            cls.pipeline.json("produce", "--raw", data=b"".join(lines[part * 800:(part + 1) * 800]))
            cls.folded = cls.pipeline.fold()
        cls.records = {topic: harness.kcat_records(cls.pipeline.prefix + topic) for topic in TOPICS}

    def dead(self, form):
        """A line for each dead letter, whose own bytes may be anything."""
        out = harness.kcat("-C", "-t", self.pipeline.prefix + DEAD, "-e", "-q", "-X", "isolation.level=read_committed", "-f", form)
        return out.decode(errors="replace").split("\n")[:-1]

    def test_kafkas_own_consumer_and_kcat_read_every_output_topic_alike(self):
        """Both read committed records alone, so what was aborted is in neither count."""
        counts = {topic: len(records) for topic, records in self.records.items()}
        counts[DEAD] = len(self.dead("%p %o\n"))
        self.assertEqual(counts[DEAD], len(self.pipeline.dead_letters()))
        self.assertGreater(counts[DEAD], 20)
        running = {}
        for topic, count in counts.items():
            self.assertGreater(count, 0, f"{topic} is empty, which compares nothing")
            words = ["tool", "org.apache.kafka.tools.consumer.ConsoleConsumer",
                     "--bootstrap-server", harness.needed("ASSAY_TEST_BROKERS"), "--topic", self.pipeline.prefix + topic,
                     "--from-beginning", "--isolation-level", "read_committed", "--timeout-ms", "4000"]
            done = subprocess.run([str(ROOT / "deploy" / "broker"), *words], capture_output=True, timeout=60)
            read = re.search(rb"Processed a total of (\d+) messages", done.stderr)
            self.assertTrue(read, f"{topic}: exit {done.returncode}\n{done.stderr.decode(errors='replace')[-2000:]}")
            running[topic] = int(read[1])
            if topic in TOPICS:
                wanted = sorted(record["payload"] for record in self.records[topic])
                self.assertEqual(sorted(done.stdout.decode().splitlines()), wanted)
        self.assertEqual(running, counts)

    def test_values_have_the_promised_members_in_canonical_form(self):
        for topic, (members, key_of) in TOPICS.items():
            with self.subTest(topic=topic):
                self.assertTrue(self.records[topic])
                for record in self.records[topic]:
                    value = json.loads(record["payload"])
                    self.assertEqual(audit_compat.canonical(audit_compat.DECODER.decode(record["payload"])), record["payload"])
                    if members:
                        self.assertEqual(set(value), members)
                    for component in value.get("components", []):
                        self.assertEqual(set(component), COMPONENT)
                    self.assertEqual(record["key"], key_of(value))

    def test_partitions_are_those_of_kafkas_hash(self):
        """librdkafka's own murmur2 partitioner is asked where the keys belong, on a topic of as many partitions."""
        topics = {"eval.scores.v1": lambda key: key, "eval.scores.live.v1": lambda key: key.rsplit("/", 1)[0],
                  "promotion.events.v1": lambda key: key, "allocation.events.v1": lambda key: key}
        keys = sorted({of(record["key"]) for topic, of in topics.items() for record in self.records[topic]})
        other = self.assay("kafka")
        other.ok("topics", "apply")
        scratch = other.prefix + REPORTS
        harness.kcat("-P", "-t", scratch, "-K", "\t", "-X", "topic.partitioner=murmur2",
                     data="".join(f"{key}\tx\n" for key in keys).encode())
        where = {record["key"]: record["partition"] for record in harness.kcat_records(scratch)}
        self.assertEqual(sorted(where), keys)
        self.assertEqual(set(where.values()), {0, 1, 2, 3}, "keys in a single partition say little")
        for topic, of in topics.items():
            with self.subTest(topic=topic):
                misplaced = {record["key"] for record in self.records[topic] if record["partition"] != where[of(record["key"])]}
                self.assertEqual(misplaced, set())

    def test_ids_are_unique_and_writers_count_without_holes(self):
        for topic in IDENTIFIED:
            with self.subTest(topic=topic):
                ids = [dict(headers_of(record))["assay-id"] for record in self.records[topic]]
                for one in ids:
                    self.assertRegex(one, r"\A[0-9a-f]{32}\Z")
                self.assertEqual(len(set(ids)), len(ids))
                if topic in ("promotion.events.v1", "allocation.events.v1"):
                    self.assertEqual(ids, [json.loads(record["payload"])["id"] for record in self.records[topic]])
                self.counts_from_zero(self.records[topic])
        records = []
        for line in self.dead("%p %o %h\n"):
            found = re.match(r"(\d+) (\d+) .*assay-writer=([^,]+)", line)
            self.assertTrue(found, line)
            records.append({"partition": int(found[1]), "offset": int(found[2]), "headers": ["assay-writer", found[3]]})
        self.counts_from_zero(records)

    def counts_from_zero(self, records):
        """Each writer numbers what it wrote to a partition 0, 1, 2 … over all its restarts."""
        counted = collections.defaultdict(list)
        for record in sorted(records, key=lambda record: (record["partition"], record["offset"])):
            names = [name for name, _ in headers_of(record)]
            self.assertEqual(len(set(names)), len(names), "a header stands twice")
            task, lineage, number = dict(headers_of(record))["assay-writer"].split("/")
            counted[record["partition"], task, lineage].append(int(number))
        for writer, numbers in counted.items():
            self.assertEqual(numbers, list(range(len(numbers))), writer)


if __name__ == "__main__":
    harness.main()
