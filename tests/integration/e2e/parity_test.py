"""One input has one history: whatever the log, the size of the commits and the crashes.

Equal are digests, scores, decisions and their ids; what merges partitions (allocation, the chain) equals its own replay.
"""
import gzip
import json
import re

import harness

SMALL_POOLS = """
[promotion]
enter = 0.8
leave = 0.75
cooldown = "2h"
max_per_week = 10
[allocation.grant]
pool = "small"
gpu = 1
[[allocation.pool]]
name = "small"
unit = "gpu"
capacity = 3
quotas = { research = 2, operations = 1 }
[[allocation.pool]]
name = "other"
unit = "cpu"
capacity = 8
"""


def values(records):
    """Records without what a commit's instant or place puts in: ids and causes stay."""
    rows = []
    for record in sorted(records, key=lambda record: record[:2]):
        value = json.loads(record.value)
        value.pop("computedAt", None)
        headers = {name: text for name, text in record.headers if name in ("assay-id", "assay-cause")}
        rows.append((record.partition, record.key, value, headers))
    return rows


class Parity(harness.EndToEnd):
    def fleet(self, reports, seed=5, agents=16, bad="0.01"):
        path = self.directory / f"fleet-{seed}.jsonl"
        if not path.exists():
            self.assay().ok("generate", "--agents", agents, "--reports", reports, "--seed", seed, "--bad", bad, "--late", "0.1", "--out", path)
        return path

    def installation(self, log, name, commit=(), **options):
        config = self.directory / "rules.toml"
        config.write_text(SMALL_POOLS)
        here = self.assay(log, config=config, sets=("log.level=warn", *(f"commit.{pair}" for pair in commit)), **options)
        here.name = name
        return here

    def outcome(self, here):
        """All that must not depend on how it came about."""
        scores = here.json("scores")
        for row in scores:
            del row["computedAt"]
        promotions = here.json("promotions")
        return {"digests": here.digests(), "scores": scores, "promotions": promotions,
                "histories": {row["entityId"]: here.json("promotions", "--history", row["entityId"]) for row in promotions},
                "eval.scores.v1": values(here.read("eval.scores.v1")), "promotion.events.v1": values(here.read("promotion.events.v1")),
                "eval.reports.v1.dlq": sorted(map(repr, (record[:1] + record[3:5] for record in here.read("eval.reports.v1.dlq"))))}

    def behind(self, here):
        """Records of the reports that nobody has committed yet."""
        rows = json.loads(here.call("lag", "-o", "json").out)
        return sum(int(row["recordsBehind"]) for row in rows if row["topic"].endswith("eval.reports.v1"))

    def crash(self, here):
        """Starts the service and kills it once a commit is out; true when that hit the middle: some is committed, some is not."""
        before = self.behind(here)
        service = here.start("run")

        def committed():
            self.assertTrue(service.alive(), service.err())
            return re.search(r'^assay_records_delivered_total\{task="scoring-\d+"\} [1-9]', here.http("/metrics")[1], re.MULTILINE)

        harness.wait_until("a commit", committed, every_s=0.002)
        service.kill()
        left = self.behind(here)
        self.assertLess(left, before, "a record counted as committed is not")
        return left > 0

    def assert_replayed(self, here):
        """The stores and the chain come out of the log again, in place and in a directory of their own."""
        here.ok("replay", "verify")
        into = self.directory / f"rebuilt-{here.name}"
        live = {row["task"]: row["digest"] for row in here.json("state", "digest", "--recompute")}
        database, here.database_url = here.database_url, harness.fresh_database() if here.database_url else None
        rebuilt = {row["task"]: row["digest"] for row in here.json("replay", "run", "--from", "log", "--into", into)}
        self.assertEqual(rebuilt, live)
        if database:
            columns = "SELECT id, prev_hash, hash, payload, created_at, signature FROM audit_events ORDER BY created_at"
            again = harness.psql(here.database_url, columns)
            self.assertEqual(again, harness.psql(database, columns))
        else:
            again = self.rows_of(into / "audit")
            self.assertEqual(again, self.rows_of(here.data / "audit"))
        self.assertGreater(len(again), 10)
        other, here.database_url = here.database_url, database
        here.ok("replay", "verify", "--into", into)
        if database:
            here.ok("replay", "verify", "--rebuilt-database-url", other)
            tampered = again[len(again) // 2][0]
            harness.psql(other, f"""UPDATE audit_log SET payload = replace(payload::text, '"actor":"', '"actor":"no')::json WHERE id = '{tampered}'""")
            said = here.ok("replay", "verify", "--rebuilt-database-url", other, code=7).err
            self.assertIn(tampered, said)
            self.assertRegex(said, r'of its payload actor is "noservice:[a-z-]+" stored and "service:')
            here.ok("replay", "verify")
        return len(again)

    def rows_of(self, directory):
        return [line for path in sorted(directory.glob("audit-events/*/*/*/*.jsonl.gz")) for line in gzip.decompress(path.read_bytes()).splitlines()]

    def feed(self, here, fleet, crashes):
        """Puts the whole input onto the log, with a crash after each portion until enough hit the middle; returns how many records."""
        lines = [line + b"\n" for line in fleet.read_bytes().split(b"\n")[:-1]]
        portions = 12 if crashes else 1
        sent = hits = 0
        for part in range(portions):
            portion = b"".join(lines[len(lines) * part // portions:len(lines) * (part + 1) // portions])
            sent += here.json("produce", "--raw", data=portion)["sent"]
            if hits < crashes:
                hits += self.crash(here)
        self.assertEqual(hits, crashes, f"of {portions} crashes too few hit the middle")
        return sent

    def test_logs_commits_and_crashes(self):
        fleet = self.fleet(6000)
        plans = (("embedded", "whole", ("max_records=20000",), 0, True), ("embedded", "torn", ("max_records=23", "interval_ms=5"), 3, False),
                 ("kafka", "kafka-whole", ("max_records=1777", "interval_ms=1000"), 0, False),
                 ("kafka", "kafka-torn", ("max_records=61", "interval_ms=20"), 3, True))
        first = None
        for log, name, commit, crashes, database in plans:
            with self.subTest(name):
                here = self.installation(log, name, commit, database=database)
                sent = self.feed(here, fleet, crashes)
                counted = here.fold()
                self.assertEqual(counted["delivered"], sent)
                found = {"counts": counted, **self.outcome(here)}
                self.assertGreater(len(found["promotions"]), 3)
                self.assertGreater(len(found["eval.scores.v1"]), 1000)
                self.assertTrue(found["promotion.events.v1"] and found["eval.reports.v1.dlq"], "empty topics compare nothing")
                self.assert_replayed(here)
                here.ok("audit", "verify")
                first = first or found
                for part, expected in first.items():
                    self.assertEqual(found[part], expected, f"{part}: {name} differs from {plans[0][1]}")


if __name__ == "__main__":
    harness.main()
