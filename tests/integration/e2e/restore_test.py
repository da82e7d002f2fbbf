"""Everything but the archive is deleted; its topics are put back into an empty log, and the system goes on there as if nothing had been."""

import gzip
import json
import pathlib
import re
import shutil
import signal

import harness

ROWS = "SELECT id, prev_hash, hash, payload, created_at, signature FROM audit_events ORDER BY created_at"


class Restore(harness.EndToEnd):
    def archiving(self, log, name, key="signer", **options):
        """An installation whose archive and signing key do not lie in its data directory."""
        sets = ("log.level=info", f"archive.url=file://{self.directory / name}", f"audit.signer_key={self.directory / key}.key",
                "commit.max_records=97", "commit.interval_ms=20")
        return self.assay(log, sets=sets, **options)

    def fleet(self, reports):
        path = self.directory / "fleet.jsonl"
        self.assay().ok("generate", "--agents", 12, "--reports", reports, "--seed", 11, "--bad", "0.01", "--late", "0.1", "--out", path)
        return path.read_bytes().splitlines(keepends=True)

    def crash(self, here):
        """Starts the service and kills it once something was committed."""
        service = here.start("run")

        def committed():
            self.assertTrue(service.alive(), service.err())
            return re.search(r'^assay_records_delivered_total\{task="scoring-\d+"\} [1-9]', here.http("/metrics")[1], re.MULTILINE)

        harness.wait_until("a commit", committed, every_s=0.005)
        service.kill()

    def chain(self, here):
        if here.database_url:
            return harness.psql(here.database_url, ROWS)
        return [json.loads(line) for path in sorted(pathlib.Path(here.data / "audit").glob("audit-events/*/*/*/*.jsonl.gz"))
                for line in gzip.decompress(path.read_bytes()).splitlines()]

    def views(self, here):
        """What people see: scores, decisions and pools."""
        return {name: here.json(name) for name in ("scores", "scoreboard", "promotions", "allocations", "pools")}

    def everything_deleted(self, here):
        shutil.rmtree(here.data)
        if here.database_url:
            harness.psql(harness.needed("ASSAY_TEST_DATABASE_URL"), f"DROP DATABASE {here.database_url.rsplit('/', 1)[1]}")
        if here.prefix:  # its topics are on the shared broker; nobody reads them again
            here.prefix = "gone." + here.prefix

    def test_the_archive_alone_brings_everything_back(self):
        lines = self.fleet(4000)
        early, late = lines[:3000], lines[3000:]
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                here = self.archiving(log, f"archive-{log}", database=log == "kafka")
                sent = 0
                for part in range(4):
                    sent += here.json("produce", "--raw", data=b"".join(early[len(early) * part // 4:len(early) * (part + 1) // 4]))["sent"]
                    if part < 3:
                        self.crash(here)
                accounts = here.fold()
                digests = {row["task"]: row["digest"] for row in here.json("state", "digest", "--recompute")}
                chain, views = self.chain(here), self.views(here)
                self.assertGreater(len(chain), 20)
                self.everything_deleted(here)

                other = self.archiving(log, f"archive-{log}-2", database=log == "kafka")
                done = other.json("replay", "run", "--from", f"archive:{self.directory}/archive-{log}", "--into-log", "--into", other.data)
                self.assertEqual((done["lineage"], done["tornTasks"]), ("1", []))
                self.assertEqual({row["task"]: row["digest"] for row in done["tasks"]}, digests)
                self.assertEqual(sum(row["records"] for row in done["partitions"] if row["topic"] == "eval.reports.v1"), sent)
                restored = self.chain(other)
                self.assertEqual(restored[:-1], chain, "the chain is the same, and one row says that it was restored")
                self.assertIn("lineage.opened", json.dumps(restored[-1]))
                self.assertEqual(self.views(other), views)
                other.ok("replay", "verify")
                self.assertEqual(other.fold(), accounts)
                self.assertEqual({row["task"]: row["digest"] for row in other.json("state", "digest", "--recompute")}, digests)

                # A client that sends again what it had sent, and then what is new; the twin never lost anything.
                twin = self.assay(log)
                twin.json("produce", "--raw", data=b"".join(lines))
                twin.fold()
                self.resume(other, early[-200:], late)
                # Promotions hold ids of scores, which come from the places of their reports: those of the new lineage are others.
                digests, same = other.digests(), twin.digests()
                self.assertEqual(*[{task: digest for task, digest in one.items() if task.startswith("scoring")} for one in (digests, same)])
                said = ("ts", "entityId", "action", "status", "score", "rationale")
                self.assertEqual(*[[{name: row[name] for name in said} for row in one.json("promotions")] for one in (other, twin)])
                other.ok("replay", "verify")
                other.ok("replay", "verify", "--from", "archive")
                self.assertTrue(other.json("replay", "plan", "--from", "archive")["whole"])
                signers = self.directory / f"export-{log}"
                other.ok("audit", "export", "--out", signers)
                other.ok("audit", "verify", "--signers", signers / "signers.json")

    def resume(self, other, again, late):
        """What is broken is not sent again: it has no id by which it could be known."""
        other.json("produce", "--raw", data=b"".join(line for line in again if self.parses(line)))
        service = other.start_service()
        self.assertEqual(service.terminate()[0], 0)
        other.json("produce", "--raw", data=b"".join(late))
        other.fold()

    @staticmethod
    def parses(line):
        try:
            return bool(json.loads(line).get("id"))
        except (ValueError, AttributeError):
            return False

    def test_a_restore_that_was_killed_goes_on_and_nothing_runs_before_it_is_through(self):
        here = self.archiving("kafka", "archive", database=False)
        here.json("produce", "--raw", data=b"".join(self.fleet(2500)))
        here.fold()
        digests = {row["task"]: row["digest"] for row in here.json("state", "digest")}
        self.everything_deleted(here)
        other = self.archiving("kafka", "archive-2")
        words = ("replay", "run", "--from", f"archive:{self.directory}/archive", "--into-log", "--into", other.data)
        process = other.start(*words, "--threads", "1")

        def begun():
            self.assertTrue(process.alive(), process.err())
            try:
                return len(harness.kcat_records(other.prefix + "assay.lineage.v1"))
            except AssertionError:
                return 0  # not there yet

        harness.wait_until("the plan of the restore", begun, every_s=0.01)
        process.child.send_signal(signal.SIGKILL)
        process.child.wait()
        for command in (("run", "--until-end"), ("produce",), ("lag",)):
            done = other.call(*command, data=b"")
            self.assertEqual(done.code, 5, (command, done.err))
            self.assertIn("RESTORE_INCOMPLETE", done.err)
        done = other.json(*words)
        self.assertEqual({row["task"]: row["digest"] for row in done["tasks"]}, digests)
        self.assertFalse(done["wasOpen"])
        self.assertTrue(other.json(*words)["wasOpen"], "once more changes nothing")
        other.fold()
        # Kafka's own clients find each record's first place in its header.
        for record in harness.kcat_records(other.prefix + "eval.reports.v1"):
            names = dict(zip(record["headers"][::2], record["headers"][1::2]))
            self.assertRegex(names["assay-place"], rf"^0/eval.reports.v1/{record['partition']}/\d+$")

    def test_what_cannot_be_restored_is_refused(self):
        here = self.archiving("embedded", "archive")
        here.json("produce", "--raw", data=b"".join(self.fleet(300)))
        here.fold()
        source = f"archive:{self.directory}/archive"
        # A log that holds anything, its own among them.
        done = here.call("replay", "run", "--from", source, "--into-log", "--into", self.directory / "x")
        self.assertEqual(done.code, 5, done.err)
        self.assertIn("holds records up to offset", done.err)
        other = self.archiving("embedded", "archive-2")
        for words, code in ((("--from", "log"), 2), (("--from", f"log+{source}"), 2), (("--from", "archive:/no/such"), 8),
                            (("--from", source, "--lineage", "9000"), 2)):
            self.assertEqual(other.call("replay", "run", *words, "--into-log", "--into", other.data).code, code, words)
        # The archive of a log that is restored is not gone on with: it is another log.
        other.ok("replay", "run", "--from", source, "--into-log", "--into", other.data)
        other.sets = [pair if not pair.startswith("archive.url") else f"archive.url=file://{self.directory}/archive" for pair in other.sets]
        done = other.call("run", "--until-end")
        self.assertEqual(done.code, 5, done.err)
        self.assertIn("it belongs to cluster", done.err)
        # A bit of a segment is another one now.
        segment = next((self.directory / "archive").glob("segments/eval.reports.v1/*/*.seg"))
        segment.write_bytes(segment.read_bytes()[:200] + bytes([segment.read_bytes()[200] ^ 1]) + segment.read_bytes()[201:])
        third = self.archiving("embedded", "archive-3")
        self.assertEqual(third.call("replay", "run", "--from", source, "--into-log", "--into", third.data).code, 4)
        self.assertEqual(third.call("run", "--until-end").code, 5, "a part is not taken for the whole")


if __name__ == "__main__":
    harness.main()
