"""The whole pipeline against the reference fold: counts, scores at any instant, boards, closed windows and decisions.

Adversarial streams from seeds and generated fleets, graces of 45 and 10 minutes, one partition and four, on both logs.
"""
import contextlib
import io
import json
import pathlib
import random
import subprocess
import sys
import time

import harness

SOURCE = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(SOURCE / "tests" / "oracle"))
import compare
import reference
from reference import DAY, HOUR, MINUTE

LARGEST_RECORD_BYTES = 1048576
MAKE_REPORTS = SOURCE / "tests" / "oracle" / "make_reports.py"


def instants(fold, rng):
    """Times that the panes hold, that they let go of, before the first report, on boundaries and 1 ms beside them, after the end."""
    first = min(agent.times[0] for agent in fold.agents.values())
    last = max(agent.clock for agent in fold.agents.values())
    some = rng.choice(rng.choice(sorted(fold.agents.items()))[1].times)
    return [last - 2 * HOUR - 1, reference.last_boundary(last, HOUR), last + 3 * DAY, first - 1, reference.first_boundary_after(first, MINUTE),
            reference.first_boundary_after(some, HOUR), reference.first_boundary_after(some, 15 * MINUTE) - 1, (first + last) // 2]


class Oracle(harness.EndToEnd):
    def same(self, what, expected, actual, **options):
        with io.StringIO() as said, contextlib.redirect_stdout(said):
            found = compare.compare(expected, actual, **options)
            self.assertEqual(found, 0, f"{what}: {found} differences\n{said.getvalue()}")

    def same_decisions(self, what, expected, actual):
        """One entity's decisions, every field that the reference knows."""
        self.same(what, expected, actual)
        for want, got in zip(expected, actual):
            for field in ("status", "score", "confidence"):
                self.assertEqual(got[field], want[field], f"{what} {want['ts']} {field}")
            stopped = got["evidence"].get("stoppedBy")
            self.assertEqual(stopped and stopped.replace("-", "_"), want.get("reason"), f"{what} {want['ts']}")
            self.assertEqual(got["evidence"].get("wanted"), want.get("wanted"), f"{what} {want['ts']}")

    def reports(self, here, seed, grace, bad, reports):
        rules, lines = here.directory / "rules.toml", here.directory / "reports.jsonl"
        subprocess.run([sys.executable, "-B", MAKE_REPORTS, "--seed", str(seed), "--grace", grace, "--bad", str(bad), "--reports", str(reports),
                        "--days", "25", "--rules", rules, "--out", lines], check=True)
        return rules, lines

    def judge(self, here, rules, lines, seed):
        """Folds the lines with both, and compares everything that can be asked."""
        # What no topic takes is no report: the log refuses it while it is produced.
        taken = [line for line in lines.read_bytes().splitlines() if len(line) <= LARGEST_RECORD_BYTES]
        fold = reference.Fold(taken, reference.load_config(rules, record_time=time.time_ns() // 1_000_000))
        sent = here.json("produce", "--raw", "--input", str(lines))
        self.assertEqual((sent["sent"], sent["byReason"].get("TOO_LARGE", 0)), (fold.total, sent["refused"]))
        counted = here.json("run", "--until-end")
        self.same("counts", reference.counts(fold), {**counted, "in": counted["delivered"]})

        rng = random.Random(seed)
        self.same("scores", reference.scores(fold), here.json("scores"))
        for at in instants(fold, rng):
            text = reference.format_time(at)
            self.same(f"scores --at {text}", reference.scores(fold, at), here.json("scores", "--at", text))
        agent = rng.choice(sorted(fold.agents))
        self.assertEqual({row["agentId"] for row in here.json("scores", "--agent", agent)}, {agent})

        at = reference.format_time(rng.choice(instants(fold, rng)))
        division = rng.choice(sorted({report[2] for a in fold.agents.values() for report in a.accepted}))
        self.same("scoreboard", reference.scoreboard(fold, top=10), here.json("scoreboard"))
        self.same("scoreboard 1h", reference.scoreboard(fold, window="1h", division=division),
                  here.json("scoreboard", "--window", "1h", "--division", division, "--top", "1000"))
        self.same(f"scoreboard --at {at}", reference.scoreboard(fold, at=reference.parse_time(at), window="7d"),
                  here.json("scoreboard", "--window", "7d", "--at", at, "--top", "1000"))

        decisions = reference.promotions(fold)
        last = {event["entityId"]: event for event in decisions}
        self.same("promotions", [last[entity] for entity in sorted(last)], here.json("promotions"), per_entity=True)
        for entity in sorted(fold.agents):
            self.same_decisions(f"promotions --history {entity}", [event for event in decisions if event["entityId"] == entity],
                                here.json("promotions", "--history", entity) if entity in last or entity == agent else [])
        self.topics(here, fold, decisions)
        return decisions

    def topics(self, here, fold, decisions):
        """What stands on the topics, in the order of each partition."""
        expected = reference.closed(fold)
        actual = [json.loads(record.value) for record in here.read("eval.scores.v1")]
        self.same("eval.scores.v1", expected, actual, ordered=True)
        self.assertEqual(len(actual), len(expected))
        events = [json.loads(record.value) for record in here.read("promotion.events.v1")]
        self.same("promotion.events.v1", decisions, events, per_entity=True)
        if "topics.partitions=1" in here.sets:  # one partition causes everything in one order
            def place(row):
                return row["agentId"], row["window"], row["windowEnd"]

            self.assertEqual([place(row) for row in actual], [place(row) for row in expected])
            self.same("promotion.events.v1 in its order", decisions, events)

    def stream(self, log, seed, grace, partitions, bad, decided):
        with self.subTest(log=log, seed=seed, grace=grace, partitions=partitions):
            here = self.assay(log)
            rules, lines = self.reports(here, seed, grace, bad, 2500)
            here.config, here.sets = rules, [f"topics.partitions={partitions}", "log.level=warn"]
            decided |= {event["action"] for event in self.judge(here, rules, lines, seed)}

    def test_embedded(self):
        decided = set()
        for seed in range(1, 13):
            self.stream("embedded", seed, ("45m", "10m")[seed % 2], (1, 4)[seed // 2 % 2], (0, 0.02)[seed // 4 % 2], decided)
        self.assertEqual(decided, {"promote", "demote", "hold"}, "the streams no longer make every kind of decision")

    def test_kafka(self):
        self.stream("kafka", 21, "45m", 1, 0.01, set())
        self.stream("kafka", 22, "10m", 4, 0.01, set())

    def test_generated_fleet(self):
        for seed, late in ((1, "0.02"), (2, "0.3")):
            with self.subTest(seed=seed):
                here = self.assay()
                lines = here.directory / "fleet.jsonl"
                here.ok("generate", "--agents", "12", "--reports", "6000", "--seed", seed, "--late", late, "--bad", "0.01", "--out", lines)
                self.judge(here, None, lines, seed)


if __name__ == "__main__":
    harness.main()
