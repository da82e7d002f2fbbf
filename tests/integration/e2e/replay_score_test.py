"""`replay score` against the reference fold: any agent, any instant, with all that is known now or with what had arrived by then."""
import contextlib
import io
import json
import pathlib
import random
import shutil
import subprocess
import sys

import harness

SOURCE = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(SOURCE / "tests" / "oracle"))
import compare
import reference
from reference import DAY, HOUR, MINUTE

PAIRS = 50
PARTITIONS = 4


def with_arrivals(lines, rng):
    """Each report with the instant at which it arrived: mostly soon after, some before earlier ones, some long after."""
    out, newest = [], 0
    for text in lines:
        document = json.loads(text)
        timestamp = reference.parse_time(document.get("timestamp"))
        newest = max(newest, timestamp)
        arrived = rng.choice([timestamp, newest, newest + rng.randrange(MINUTE), newest + rng.randrange(2 * HOUR), timestamp + 3 * HOUR])
        document["metadata"] = {**document.get("metadata", {}), "arrivedAt": reference.format_time(arrived)}
        out.append(json.dumps(document, ensure_ascii=False))
    return out


class ReplayScore(harness.EndToEnd):
    def made(self, seed, log="embedded"):
        here = self.assay(log, sets=["log.level=warn", f"topics.partitions={PARTITIONS}"])
        here.archive = here.directory / "archive"
        here.sets.append(f"archive.url=file://{here.archive}")
        rules, lines = here.directory / "rules.toml", here.directory / "reports.jsonl"
        subprocess.run([sys.executable, "-B", SOURCE / "tests" / "oracle" / "make_reports.py", "--seed", str(seed), "--bad", "0", "--reports",
                        "3000", "--days", "25", "--rules", rules, "--out", lines], check=True)
        here.config = rules
        reports = with_arrivals(lines.read_text(encoding="utf-8").splitlines(), random.Random(seed))
        sent = here.produce(reports, "--record-time", "metadata.arrivedAt")
        self.assertEqual(sent["refused"], 0)
        here.fold()
        return here, [line.encode() for line in reports], reference.load_config(rules, record_time="metadata.arrivedAt")

    def same(self, what, fold, agent, at, rows):
        expected = [row for row in reference.scores(fold, at) if row["agentId"] == agent]
        with io.StringIO() as said, contextlib.redirect_stdout(said):
            self.assertEqual(compare.compare(expected, rows), 0, f"{what}\n{said.getvalue()}")
        return len(expected)

    def judge(self, here, lines, config, source, seed):
        rng = random.Random(seed)
        fold = reference.Fold(lines, config)
        arrivals = sorted(reference.decode(line, config.record_time).record_time for line in lines)
        # Records that are the newest of their partition when they come: known by their own instant, and the last that is.
        newest, edges = {}, []
        for line in lines:
            report = reference.decode(line, config.record_time)
            place = reference.partition_of(report.agent, PARTITIONS)
            if report.record_time > newest.get(place, 0):
                newest[place] = report.record_time
                edges.append(report)
        rows = older = 0
        for pair in range(PAIRS):
            agent = rng.choice(sorted(fold.agents))
            at = rng.choice(fold.agents[agent].times) + rng.choice([0, MINUTE, HOUR, DAY, 5 * DAY])
            edge = rng.choice(edges)
            if pair % 2:
                agent, at = edge.agent, reference.first_boundary_after(edge.timestamp, HOUR)
            words = ["replay", "score", "--from", source, "--agent", agent, "--at", reference.format_time(at)]
            now = here.json(*words)
            rows += self.same(f"{agent} at {at}", fold, agent, at, now)
            by = edge.record_time if pair % 2 else rng.choice([rng.choice(arrivals), at, at + rng.randrange(HOUR)])
            then = reference.Fold(reference.known(lines, config, by, PARTITIONS), config)
            said = here.json(*words, "--known-by", reference.format_time(by))
            self.same(f"{agent} at {at} known by {by}", then, agent, at, said)
            older += [row["samples"] for row in said] != [row["samples"] for row in now]
        self.assertGreater(rows, PAIRS, "too few windows hold a report to compare anything")
        self.assertGreater(older, 5, "what was known then hardly ever differs from what is known now")

    def test_log(self):
        self.judge(*self.made(31), "log", 1)

    def test_archive(self):
        """By the index of an archive, when the log is gone altogether."""
        here, lines, config = self.made(33)
        shutil.rmtree(here.data)
        self.judge(here, lines, config, f"archive:{here.archive}", 2)
        for words in (["explain", "0" * 32], ["what-if", "--with", here.config]):
            said = here.call("replay", words[0], "--from", f"archive:{here.archive}", *words[1:], "-o", "json")
            self.assertEqual(said.code, 2 if words[0] == "explain" else 0, said.err)
        self.assertEqual(json.loads(said.out)["differences"], 0)

    def test_it_says_what_scores_at_says(self):
        here, lines, config = self.made(32)
        at = reference.format_time(sorted(reference.decode(line).timestamp for line in lines)[len(lines) // 2])
        whole = here.json("scores", "--at", at)
        agents = sorted({row["agentId"] for row in whole})
        self.assertGreater(len(agents), 1)
        for agent in agents:
            rows = here.json("replay", "score", "--agent", agent, "--at", at)
            for row in rows:
                row.pop("computedAt")
            self.assertEqual(rows, [{k: v for k, v in row.items() if k != "computedAt"} for row in whole if row["agentId"] == agent])

    def test_words_that_cannot_be_read_and_agents_nobody_knows(self):
        here = self.assay()
        here.produce([{"agentId": "a", "metricSet": {"m": 0.5}, "timestamp": "2026-01-01T00:00:00Z"}])
        here.fold()
        self.assertEqual(here.json("replay", "score", "--agent", "nobody", "--at", "2026-01-01T01:00:00Z"), [])
        self.assertEqual(len(here.json("replay", "score", "--agent", "a", "--at", "2026-01-01T01:00:00Z")), 3)
        self.assertEqual(here.json("replay", "score", "--agent", "a", "--at", "2026-01-01T00:00:00Z"), [])
        for words in (["--at", "yesterday"], ["--at", "2026-01-01T01:00:00Z", "--known-by", "2026-01-01"]):
            done = here.ok("replay", "score", "--agent", "a", *words, code=2)
            self.assertIn(words[-1], done.err)
        self.assertIn("--from tape", here.ok("replay", "score", "--from", "tape", "--agent", "a", "--at", "2026-01-01T01:00:00Z", code=2).err)

    def test_records_that_are_gone_are_named(self):
        here = self.assay(sets=["topics.partitions=1"])
        here.produce([{"agentId": "a", "metricSet": {"m": 0.5}, "timestamp": f"2026-01-01T00:00:{n:02}Z"} for n in range(9)])
        here.fold()
        here.cut("eval.reports.v1", 0, 5)
        done = here.ok("replay", "score", "--agent", "a", "--at", "2026-01-01T01:00:00Z", code=8)
        self.assertIn("records 0 to 4", done.err)
        self.assertIn("eval.reports.v1-0", done.err)


if __name__ == "__main__":
    harness.main()
