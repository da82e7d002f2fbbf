"""The audit chain in its archive, a directory or a bucket behind a proxy that fails; run by s3/world.py."""

import gzip
import json
import pathlib
import random
import shutil
import subprocess
import time

import harness

COPY = """
import boto3, os, pathlib, sys
bucket, prefix, out = sys.argv[1:4]
s3 = boto3.client("s3", endpoint_url=os.environ["ASSAY_TEST_S3_ENDPOINT"], region_name="eu-central-1",
                  aws_access_key_id=os.environ["ASSAY_TEST_S3_ACCESS_KEY"], aws_secret_access_key=os.environ["ASSAY_TEST_S3_SECRET"])
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
    for found in page.get("Contents", []):
        path = pathlib.Path(out) / found["Key"][len(prefix) + 1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read())
"""
TAMPERED, MISSING = 4, 8


class AuditArchive(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.env = {"S3_ENDPOINT": harness.needed("ASSAY_TEST_S3_FAULTY"), "S3_REGION": "eu-central-1",
                    "S3_ACCESS_KEY": harness.needed("ASSAY_TEST_S3_ACCESS_KEY"), "S3_SECRET": harness.needed("ASSAY_TEST_S3_SECRET")}
        self.faults = pathlib.Path(harness.needed("ASSAY_TEST_S3_FAULTS"))
        self.seen = pathlib.Path(harness.needed("ASSAY_TEST_S3_SEEN"))
        self.faults.write_text("")
        self.addCleanup(self.faults.write_text, "")

    def installation(self, place, *sets, **options):
        return self.assay("embedded", sets=(f"archive.audit_url={place}", "archive.segment_age=1s", "audit.eval_submit=each", *sets), **options)

    def produce(self, here, count):
        begin = getattr(self, "sent", 0)
        self.sent = begin + count
        here.produce([{"agentId": f"a{n % 5}", "id": f"r{n}", "metricSet": {"quality": n % 9 / 9},
                       "timestamp": f"2026-05-01T{n // 60 % 24:02}:{n % 60:02}:00Z"} for n in range(begin, begin + count)], env=self.env)

    def requests(self):
        return self.seen.read_text().splitlines() if self.seen.exists() else []

    def copy(self, place):
        """The place as whoever looks at it has it: a directory."""
        if place.startswith("file://"):
            return pathlib.Path(place.removeprefix("file://"))
        out = self.directory / harness.unique("copy")
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        done = subprocess.run([harness.needed("ASSAY_TEST_AWS_PYTHON"), "-c", COPY, bucket, prefix, str(out)], capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def prove(self, directory, *flags):
        done = subprocess.run([str(harness.BIN / "assay-verify"), str(directory), *map(str, flags)], capture_output=True,
                              env=harness.clean_environment(), timeout=60)
        return harness.Outcome(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))

    def lines(self, directory):
        return [line for path in sorted(directory.glob("audit-events/*/*/*/*-*.jsonl.gz"), key=lambda path: path.name)
                for line in gzip.decompress(path.read_bytes()).splitlines()]

    def whole(self, here, place):
        """Every row of the chain is in the place, once, in order, and is proven there by nothing but the files."""
        copy = self.copy(place)
        done = self.prove(copy)
        self.assertEqual(done.code, 0, done.out + done.err)
        self.assertTrue(done.out.startswith("Audit chain verified\n"), done.out)
        head = here.json("audit", "head", env=self.env)
        export = self.directory / harness.unique("export")
        here.ok("audit", "export", "--out", export, env=self.env)
        self.assertEqual(self.lines(copy), self.lines(export))
        self.assertEqual(len(self.lines(copy)), head["rows"])
        self.assertIn(head["headHash"], done.out)
        pinned = self.prove(copy, "--signers", export / "signers.json")
        self.assertEqual(pinned.code, 0, pinned.out)
        return copy

    def killed_at_each_step(self, here, place, moments):
        """Lets the service come to some point of an upload, and kills it there."""
        for moment in moments:
            self.produce(here, 40)
            there = moment()
            service = here.start("run", env=self.env)
            harness.wait_until("that point", there, every_s=0.002)
            self.assertTrue(service.alive(), service.err())
            service.kill()
        self.faults.write_text("")
        self.produce(here, 40)
        here.fold(env=self.env)
        return self.whole(here, place)

    def test_killed_in_the_midst_with_a_bucket(self):
        place = "s3://locked/" + harness.unique("audit")
        here = self.installation(place, "archive.lock=governance", "archive.lock_for=1d")

        def after(requests, fault):
            def arm():
                before, enough = len(self.requests()), time.monotonic() + 6  # one round more or less has fewer
                self.faults.write_text("ok " * requests + fault)
                return lambda: len(self.requests()) > before + requests or time.monotonic() > enough
            return arm

        # Listing, reading and finding what is there; then HEAD and PUT of keys, of what tells of the batch, and of its rows.
        self.killed_at_each_step(here, place, [after(n, fault) for n, fault in ((2, "lost"), (4, "slow"), (5, "slow"), (5, "lost"), (6, "lost"),
                                                                               (7, "slow"), (7, "lost"))])
        stored = [line.split() for line in self.requests() if line.startswith("PUT") and place.removeprefix("s3://") in line]
        self.assertGreater(len(stored), 10)
        self.assertEqual({lock for _, _, lock in stored}, {"GOVERNANCE"})

    def test_killed_in_the_midst_with_a_directory(self):
        where = self.directory / "archive"
        here = self.installation(f"file://{where}")
        chance = random.Random(3)

        def grown():
            objects = {path for path in where.rglob("*") if path.is_file()} if where.exists() else set()
            more = chance.randrange(1, 3)
            return lambda: len({path for path in where.rglob("*") if path.is_file()} - objects) >= more

        self.killed_at_each_step(here, f"file://{where}", [grown] * 4)

    def test_answers_that_fail_now_and_then(self):
        place = "s3://plain/" + harness.unique("audit")
        here = self.installation(place)
        chance = random.Random(5)
        for _ in range(4):
            self.produce(here, 60)
            self.faults.write_text(" ".join(chance.choice(["ok", "ok", "ok", "500", "503", "drop", "half", "lost"]) for _ in range(60)))
            here.fold(env=self.env)
        self.faults.write_text("")
        self.whole(here, place)
        summary = here.json("audit", "upload", env=self.env)
        self.assertEqual(summary["rows"], here.json("audit", "head", env=self.env)["rows"], "all is there already")

    def test_a_bucket_that_stays_away_is_told_and_stops_nothing(self):
        place = "s3://plain/" + harness.unique("audit")
        here = self.installation(place, "run.patience=2s")
        self.produce(here, 50)
        self.faults.write_text("500 " * 100000)
        done = here.call("run", "--until-end", env=self.env)
        self.assertEqual(done.code, 6, done.err)
        self.assertIn("archiving the audit chain to its end", done.err)
        service = here.start("run", env=self.env)
        harness.wait_until("its trouble", lambda: '"retrying"' in here.http("/ready")[1])
        self.assertRegex(here.http("/metrics")[1], r'audit_archive_upload_failures_total\{error="unreachable"\} [1-9]')
        self.faults.write_text("")
        rows = here.json("audit", "head", env=self.env)["rows"]
        harness.wait_until("the archive", lambda: json.loads(here.http("/ready")[1])["auditArchive"] ==
                           {"state": "archiving", "rows": rows, "detail": ""})
        self.assertEqual(service.terminate()[0], 0)
        self.whole(here, place)

    def test_what_is_changed_in_the_place_is_named(self):
        where = self.directory / "archive"
        here = self.assay("embedded", sets=(f"archive.url=file://{where}", "audit.eval_submit=each"), database=True)
        for _ in range(3):
            self.produce(here, 50)
            here.fold(env=self.env)
        copy = self.whole(here, f"file://{where}/audit")
        files = sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
        rows = [path for path in files if path.suffix == ".gz"]
        self.assertEqual(len(rows), 3)
        for path in files:
            sound = (copy / path).read_bytes()
            (copy / path).write_bytes(sound[:len(sound) // 2] + bytes([sound[len(sound) // 2] ^ 1]) + sound[len(sound) // 2 + 1:])
            done = self.prove(copy)
            self.assertEqual(done.code, TAMPERED, f"{path}: {done.out}")
            self.assertIn(str(path), done.out)
            (copy / path).unlink()
            done = self.prove(copy)
            self.assertEqual(done.code, MISSING if path.suffix == ".gz" or path.parts[0] == "signers" else TAMPERED, f"{path}: {done.out}")
            (copy / path).write_bytes(sound)
        # A row changed in the database is not archived, and the reason stands in the log of the run.
        self.produce(here, 50)
        here.ok("run", "--until-end", "--only", "scoring,promotion,allocation", env=self.env)
        here.ok("--set", "archive.url=", "run", "--until-end", env=self.env)
        last = int(here.json("audit", "head", env=self.env)["signedThrough"])
        kept = harness.psql(here.database_url, f"SELECT signature FROM audit_log WHERE sequence = {last - 5}")[0][0]
        harness.psql(here.database_url, f"UPDATE audit_log SET signature = upper(signature) WHERE sequence = {last - 5}")
        before = self.lines(copy)
        done = here.call("audit", "upload", env=self.env)
        self.assertEqual(done.code, TAMPERED, done.err)
        self.assertIn(f"sequence {last - 5}", done.err)
        self.assertEqual(self.lines(copy), before)
        harness.psql(here.database_url, f"UPDATE audit_log SET signature = '{kept}' WHERE sequence = {last - 5}")
        self.assertEqual(here.json("audit", "upload", env=self.env)["rows"], last)
        self.whole(here, f"file://{where}/audit")
        shutil.rmtree(copy)
        self.assertEqual(here.json("audit", "upload", "--to", self.directory / "other", env=self.env)["rows"], last)
        self.whole(here, f"file://{self.directory / 'other'}")

    def test_a_part_of_the_chain(self):
        for database in (False, True):
            here = self.assay("embedded", sets=("audit.eval_submit=each",), database=database)
            self.produce(here, 200)
            here.fold(env=self.env)
            out = self.directory / f"part-{database}"
            summary = here.json("audit", "export", "--out", out, "--from", 31, "--to", 130)
            self.assertEqual(summary["rows"], 100)
            done = self.prove(out)
            self.assertEqual(done.code, 0, done.out)
            self.assertIn("Rows 31 to 130 are whole and signed; what stands before row 31 was not looked at", done.out)
            whole = self.directory / f"whole-{database}"
            here.ok("audit", "export", "--out", whole)
            rows = [json.loads(line) for line in self.lines(whole)]
            self.assertEqual(self.lines(out), self.lines(whole)[30:130])
            instant = rows[80]["created_at"][:23] + "Z"  # of a millisecond; rows have microseconds
            later = self.directory / f"later-{database}"
            here.ok("audit", "export", "--out", later, "--from", instant, "--to", 130)
            self.assertEqual([json.loads(line)["id"] for line in self.lines(later)],
                             [row["id"] for row in rows[:130] if row["created_at"] >= instant[:-1] + "000Z"])
            for wrong in (("--from", 31, "--to", 9999), ("--from", "yesterday"), ("--from", 9, "--to", 8)):
                done = here.call("audit", "export", "--out", self.directory / "none", *wrong)
                self.assertEqual(done.code, 2, done.err)


if __name__ == "__main__":
    harness.main()
