"""Repair: one task or processor rebuilt by itself, and dead letters sent back byte for byte in their order."""
import json
import random

import harness
from what_if_test import stream


class Repair(harness.EndToEnd):
    def test_one_task_or_one_processor(self):
        here = self.assay(sets=["log.level=error"])
        here.produce(stream(3))
        here.fold()
        live = {row["task"]: row["digest"] for row in here.json("state", "digest")}
        for only, tasks in ((["scoring-2"], {"scoring-2"}), (["promotion"], {f"promotion-{n}" for n in range(4)}),
                            (["allocation-0", "scoring-0"], {"allocation-0", "scoring-0"})):
            with self.subTest(only):
                words = [word for one in only for word in ("--only", one)]
                into = self.directory / only[0]
                rebuilt = {row["task"]: row["digest"] for row in here.json("replay", "run", "--into", into, *words)}
                self.assertEqual(rebuilt, {task: live[task] for task in tasks})
                self.assertEqual({path.name for path in (into / "state").iterdir() if "." not in path.name}, tasks)
                self.assertFalse((into / "audit").exists())
                self.assertEqual({row["task"] for row in here.json("replay", "verify", *words)}, tasks)
        # It takes the place of what was lost.
        (here.data / "state" / "scoring-2").rename(self.directory / "lost")
        (self.directory / "scoring-2" / "state" / "scoring-2").rename(here.data / "state" / "scoring-2")
        self.assertEqual({row["task"]: row["digest"] for row in here.json("state", "digest", "--recompute")}, live)
        here.ok("replay", "verify")
        self.assertIn("scoring-9", here.ok("replay", "verify", "--only", "scoring-9", code=2).err)

    def test_one_agent(self):
        here = self.assay(sets=["log.level=error", f"archive.url=file://{self.directory}/archive"])
        lines = stream(3)
        here.produce(lines)
        here.fold()
        whole = self.directory / "whole"
        here.ok("replay", "run", "--into", whole)
        for source in ("log", "archive"):
            into = self.directory / f"from-{source}"
            rows = here.json("replay", "run", "--from", source, "--only", "agent=agent-4", "--into", into)
            scores, = (row for row in rows if row["task"].startswith("scoring-"))
            self.assertEqual(scores["records"], sum('"agentId": "agent-4"' in line for line in lines))
            written = [json.loads(record.value) for record in here.read("eval.scores.v1") if record.key == b"agent-4"]
            self.assertEqual(scores["outputs"], len(written))
            decided, = (row for row in rows if row["task"].startswith("promotion-"))
            self.assertEqual(decided["records"], len(written))
            self.assertEqual(here.json("replay", "verify", "--from", source, "--only", "agent=agent-4", "--into", whole), rows)
            self.assertFalse((into / "audit").exists())
            self.assertEqual(here.call("replay", "promote", "--into", into).code, 5, "one agent is not the whole task")
            self.assertEqual(here.call("replay", "run", "--from", source, "--only", "agent=agent-4", "--into", into).code, 5)
        # Another agent's rows are another digest; a running store that has a row otherwise is told.
        self.assertNotEqual(here.json("replay", "verify", "--only", "agent=agent-5")[0]["digest"], rows[0]["digest"])
        other = self.assay(sets=["log.level=error"])
        other.produce([line.replace('"success": 0.9', '"success": 0.8') if "agent-4" in line else line for line in lines])
        other.fold()
        wrong = here.ok("replay", "verify", "--only", "agent=agent-4", "--into", other.data, code=7).err
        self.assertRegex(wrong, "comparing agent-4 in scoring-.*: digest .* of agent agent-4")
        here.ok("replay", "verify", "--only", "agent=agent-5", "--into", other.data)
        # What nobody has ever heard of has nothing, and that is no error; words that do not go together are one.
        self.assertEqual({row["records"] for row in here.json("replay", "verify", "--only", "agent=nobody")}, {0})
        for words in (("--only", "agent="), ("--only", "agent=a", "--only", "scoring"), ("--only", "agent=a", "--until", "2026-01-01T00:00:00Z")):
            self.assertEqual(here.call("replay", "verify", *words).code, 2, words)

    @harness.both_logs
    def test_dead_letters_go_back_byte_for_byte_in_order(self, here):
        rng = random.Random(4)
        here.produce([{"agentId": "a", "metricSet": {"m": 0.5}, "timestamp": "2026-01-01T00:00:00Z"}])
        records = []
        for n in range(300):
            key = rng.choice([None, b"", b"agent-1", b"agent-2", "größe".encode(), b"\xff\x00\x01"])
            value = rng.choice([None, b"", b"{broken %d" % n, bytes(rng.randrange(256) for _ in range(40)), b'{"agentId":"b"}'])
            headers = [("h", rng.choice([None, b"", b"\xfe", str(n).encode()])) for _ in range(rng.randrange(3))]
            records.append((rng.randrange(4) if key is None else -1, 1_767_225_600_000 + n, key, value, headers))
        here.send(records)
        counted = here.fold()
        self.assertEqual(counted["deadLetters"], len(records))

        def places():
            """What stands in each partition, in order; the system's own headers, if any, would show."""
            out = {}
            for record in here.read("eval.reports.v1"):
                out.setdefault(record.partition, []).append((record.key, record.value, record.headers))
            return out

        before = places()
        sent = here.json("dlq", "redrive", "--all")
        self.assertEqual((sent["sent"], sent["refused"]), (len(records), 0))
        after = places()
        for partition, rows in before.items():
            dead = [row for row in rows if b'"metricSet":{"m":0.5}' not in (row[1] or b"").replace(b" ", b"")]
            self.assertEqual(after[partition], rows + dead, f"partition {partition}")
        # Nothing was mended, so the same become dead letters again, for the same reasons.
        again = here.fold()
        self.assertEqual(again["deadLetters"], 2 * len(records))
        self.assertEqual(again["byReason"], {reason: 2 * count for reason, count in counted["byReason"].items()})


if __name__ == "__main__":
    harness.main()
