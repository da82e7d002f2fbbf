"""`replay explain` from every kind of record back to the reports, against the reference fold; and what was tampered with, named."""
import json
import pathlib
import random
import sys

import harness

SOURCE = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(SOURCE / "tests" / "oracle"))
import reference
from what_if_test import PRESENT, stream


def walk(tree):
    yield tree
    for cause in tree.get("causes", []):
        yield from walk(cause)


class Explain(harness.EndToEnd):
    def world(self, partitions=2, **sets):
        here = self.assay(sets=[f"topics.partitions={partitions}", "log.level=error", *(f"{key}={value}" for key, value in sets.items())])
        here.config, lines = here.directory / "rules.toml", here.directory / "reports.jsonl"
        here.config.write_text(PRESENT)
        lines.write_text("\n".join(stream(5) + ["{broken"]) + "\n")
        here.ok("produce", "--raw", "--input", lines)
        here.fold()
        return here, lines.read_bytes().splitlines()

    def check_score(self, node, fold, reports):
        """The reports that it names are those that the reference accepts in that window, and they stand where it says."""
        begin, end = (reference.parse_time(node[key]) for key in ("windowStart", "windowEnd"))
        agent = fold.agents[node["agentId"]]
        expected = sorted(report_id for time, report_id, _, _ in agent.accepted if begin <= time < end)
        self.assertEqual(sorted(report["id"] for report in node["reports"]), expected)
        self.assertEqual(node["samples"], len(expected))
        for report in node["reports"] + [node["closedBy"]]:
            document = json.loads(reports[report["partition"], int(report["offset"])].value)
            self.assertEqual(document["id"], report["id"])
        self.assertGreaterEqual(reference.parse_time(node["closedBy"]["timestamp"]), end + fold.config.grace)

    def test_every_step_is_made_again_and_ends_at_the_reports(self):
        here, lines = self.world()
        fold = reference.Fold(lines, reference.Config(grace=45 * reference.MINUTE))
        reports = {(record.partition, record.offset): record for record in here.read("eval.reports.v1")}
        rng = random.Random(1)
        promotions, allocations = here.read("promotion.events.v1"), here.read("allocation.events.v1")
        kinds = set()
        for record in rng.sample(promotions, 12) + rng.sample(allocations, 12):
            event = json.loads(record.value)
            tree = here.json("replay", "explain", "--from", "log", event["id"])
            kinds.add((tree["kind"], event.get("state") or event["action"]))
            self.assertEqual((tree["id"], tree["partition"], tree["offset"]), (event["id"], record.partition, str(record.offset)))
            for node in walk(tree):
                self.assertIsNot(node["agrees"], False, node)
                if node["kind"] == "score":
                    self.check_score(node, fold, reports)
                if node["kind"] == "promotion":
                    self.assertEqual((node["rules"]["enter"], node["rules"]["min_samples"]), (0.85, 3))
                    self.assertEqual(node["policy"]["decision"], "allow")
                    self.assertGreaterEqual(len(node["causes"]), 3)
                    self.assertEqual(sorted(cause["window"] for cause in node["causes"])[:3], ["1h"] * 3)
                if node["kind"] == "allocation":
                    self.assertEqual(node["poolBefore"]["capacity"], 2)
                    self.assertEqual(node["causes"][0]["entityId"], node["entityId"])
            if event.get("state") == "applied":
                # Whoever is served after a wait gets what another gave back: then nothing changes in sum.
                self.assertIn(tree["poolAfter"]["used"] - tree["poolBefore"]["used"], (0, 1))
        self.assertLessEqual({"promotion", "allocation"}, {kind for kind, _ in kinds})
        self.assertGreater(len(kinds), 5, kinds)

        scores = here.read("eval.scores.v1")
        for record in rng.sample(scores, 6):
            row = json.loads(record.value)
            by_id = here.json("replay", "explain", dict(record.headers)["assay-id"].decode())
            by_name = here.json("replay", "explain", f"{row['agentId']}/{row['window']}/{row['windowEnd']}")
            self.assertEqual(by_id, by_name)
            self.assertTrue(by_id["agrees"])
            self.check_score(by_id, fold, reports)

        types = set()
        for record in here.read("audit-events"):
            event = json.loads(record.value)
            if event["eventType"] in types and event["eventType"] != "eval.submit":
                continue
            types.add(event["eventType"])
            tree = here.json("replay", "explain", event["id"])
            self.assertTrue(tree["agrees"], tree)
            if event["eventType"] == "eval.submit":
                source = event["source"]
                self.assertEqual([int(report["offset"]) for report in tree["reports"]],
                                 [offset for partition, offset in sorted(reports) if partition == source["partition"]
                                  and int(source["from"]) <= offset < int(source["to"])])
            else:
                self.assertTrue(any(node["kind"] == "score" and node["reports"] for node in walk(tree)), tree)
        self.assertLessEqual({"eval.submit", "policy.decision", "promotion.applied", "promotion.hold", "allocation.applied"}, types)
        text = here.ok("replay", "explain", json.loads(promotions[0].value)["id"]).out.decode()
        self.assertIn("└─ ", text)
        self.assertIn("recomputed: agrees", text)

    def test_one_audit_event_a_report(self):
        here = self.assay(sets=["topics.partitions=1", "audit.eval_submit=each"])
        here.produce([{"id": f"r{n}", "agentId": "a", "metricSet": {"m": 0.5}, "timestamp": f"2026-01-01T00:00:0{n}Z"} for n in range(3)])
        here.fold()
        row = json.loads(here.read("audit-events")[1].value)
        tree = here.json("replay", "explain", row["id"])
        self.assertEqual((tree["agrees"], tree["evalId"], [report["offset"] for report in tree["reports"]]), (True, "r1", ["1"]))

    def test_what_was_not_made_by_the_rules_is_7(self):
        here, _ = self.world(partitions=1)
        real = next(r for r in here.read("promotion.events.v1") if json.loads(r.value)["action"] == "promote")
        event = json.loads(real.value)

        def forge(changed, record_id):
            here.send([(0, real.timestamp_ms, real.key, json.dumps(changed, separators=(",", ":"), sort_keys=True).encode(),
                        [("assay-id", record_id.encode()), ("assay-cause", dict(real.headers)["assay-cause"])])], "promotion.events.v1")

        self.assertTrue(here.json("replay", "explain", event["id"])["agrees"])
        other = "0" * 31 + "1"
        forge({**event, "id": other}, other)
        tree = here.json("replay", "explain", other, code=7)
        self.assertIs(tree["agrees"], False)
        forge({**event, "score": 0.123}, event["id"])
        done = here.ok("replay", "explain", event["id"], "-o", "json", code=7)
        self.assertRegex(json.loads(done.out)["difference"], r"^score is 0\.123 on the log and 0\.\d+ folded again$")
        self.assertIn(event["id"], done.err)

    def test_what_nobody_made_and_what_is_gone(self):
        here, _ = self.world(partitions=1)
        for name in ("f" * 32, "av-" + "f" * 32, "nobody/1h/2026-01-01T00:00:00Z"):
            self.assertIn(name, here.ok("replay", "explain", name, code=2).err)
        event = json.loads(here.read("promotion.events.v1")[0].value)
        here.cut("eval.reports.v1", 0, 10)
        self.assertIn("records 0 to 9", here.ok("replay", "explain", event["id"], code=8).err)


if __name__ == "__main__":
    harness.main()
