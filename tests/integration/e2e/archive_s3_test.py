"""An archive in S3, behind a proxy that fails now and then; run by s3/world.py."""

import pathlib
import random
import shutil

import harness


class ArchiveInS3(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.env = {"S3_ENDPOINT": harness.needed("ASSAY_TEST_S3_FAULTY"), "S3_REGION": "eu-central-1",
                    "S3_ACCESS_KEY": harness.needed("ASSAY_TEST_S3_ACCESS_KEY"), "S3_SECRET": harness.needed("ASSAY_TEST_S3_SECRET")}
        self.faults = pathlib.Path(harness.needed("ASSAY_TEST_S3_FAULTS"))
        self.faults.write_text("")
        self.addCleanup(self.faults.write_text, "")

    def fail_now_and_then(self, seed, calls=400):
        chance = random.Random(seed)
        self.faults.write_text(" ".join(chance.choice(["ok"] * 12 + ["500", "503", "drop", "half", "lost"]) for _ in range(calls)))

    def reports(self, count):
        return [{"agentId": f"a{n % 5}", "id": f"r{n}", "metricSet": {"quality": n % 9 / 9},
                 "timestamp": f"2026-05-01T{n // 60 % 24:02}:{n % 60:02}:00Z"} for n in range(count)]

    def test_everything_but_the_bucket_is_deleted(self):
        place = "s3://locked/" + harness.unique("fleet")
        key = self.directory / "signer.key"
        here = self.assay("embedded", sets=(f"archive.url={place}", f"audit.signer_key={key}", "topics.partitions=2", "archive.lock=governance",
                                            "archive.lock_for=1d"))
        self.fail_now_and_then(1)
        here.produce(self.reports(300), env=self.env)
        here.fold(env=self.env)
        here.produce(self.reports(600)[300:], env=self.env)
        here.fold(env=self.env)
        digests = {row["task"]: row["digest"] for row in here.json("state", "digest", "--recompute", env=self.env)}
        shutil.rmtree(here.data)
        self.fail_now_and_then(2, 2000)
        rows = here.json("replay", "run", "--from", f"archive:{place}", "--into", self.directory / "rebuilt", env=self.env)
        self.assertEqual({row["task"]: row["digest"] for row in rows}, digests)
        self.assertTrue(here.json("replay", "plan", "--from", "archive", env=self.env)["whole"])

    def test_a_bucket_that_stays_away_stops_nothing_else(self):
        here = self.assay("embedded", sets=("archive.url=s3://plain/" + harness.unique("away"), "run.patience=2s"))
        here.produce(self.reports(100), env=self.env)
        self.faults.write_text("500 " * 100000)
        done = here.call("run", "--until-end", env=self.env)
        self.assertEqual(done.code, 6, done.err)
        self.assertIn("archiving to the end", done.err)
        self.assertIn("the last: 500", done.err)
        service = here.start("run", env=self.env)
        harness.wait_until("a ready pipeline", lambda: here.http("/ready")[0] == 200)
        harness.wait_until("its trouble", lambda: '"retrying"' in here.http("/ready")[1])
        self.assertRegex(here.http("/metrics")[1], r'assay_archive_errors_total\{error="unreachable"\} [1-9]')
        self.faults.write_text("")
        harness.wait_until("the archive", lambda: '"archiving"' in here.http("/ready")[1])
        self.assertEqual(service.terminate()[0], 0)
        here.fold(env=self.env)
        here.ok("replay", "verify", "--from", "archive", env=self.env)

    def test_keys_and_places(self):
        here = self.assay("embedded", sets=("archive.url=s3://plain/x",))
        done = here.call("run", "--until-end")
        self.assertEqual(done.code, 2, done.err)
        self.assertIn("S3_ACCESS_KEY", done.err)
        self.assertNotIn(self.env["S3_SECRET"], here.ok("config", "show", "-o", "json", env=self.env).out.decode())
        done = here.call("replay", "plan", "--from", "archive:s3://plain/nothing-there", env=self.env)
        self.assertEqual(done.code, 8, done.err)
        done = here.call("replay", "plan", "--from", "archive:s3://nobodys/x", env=self.env)
        self.assertEqual(done.code, 5, done.err)
        done = here.call("replay", "plan", "--from", "archive", env={**self.env, "S3_SECRET": "not it"})
        self.assertEqual(done.code, 5, done.err)


if __name__ == "__main__":
    harness.main()
