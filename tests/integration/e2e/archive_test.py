"""The archive alone is enough: everything else is deleted, and state, decisions and audit rows come out of it again."""

import datetime
import errno
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

import harness

ROWS = "SELECT id, prev_hash, hash, payload, created_at, signature FROM audit_events ORDER BY created_at"


class Archive(harness.EndToEnd):
    def archiving(self, log, **options):
        """An installation with an archive and a signing key that do not lie in its data directory."""
        self.archive = self.directory / f"archive-{log}"
        key = self.directory / f"signer-{log}.key"
        sets = ("log.level=info", f"archive.url=file://{self.archive}", f"audit.signer_key={key}", "commit.max_records=97", "commit.interval_ms=20")
        return self.assay(log, sets=sets, **options)

    def fleet(self, reports, seed=11):
        path = self.directory / f"fleet-{seed}.jsonl"
        self.assay().ok("generate", "--agents", 12, "--reports", reports, "--seed", seed, "--bad", "0.01", "--late", "0.1", "--out", path)
        return path.read_bytes().splitlines(keepends=True)

    def crash(self, here):
        """Starts the service and kills it once something was committed."""
        service = here.start("run")

        def committed():
            self.assertTrue(service.alive(), service.err())
            return re.search(r'^assay_records_delivered_total\{task="scoring-\d+"\} [1-9]', here.http("/metrics")[1], re.MULTILINE)

        harness.wait_until("a commit", committed, every_s=0.005)
        service.kill()

    def chain_of(self, directory):
        return [json.loads(line) for path in sorted(pathlib.Path(directory).glob("audit-events/*/*/*/*.jsonl.gz"))
                for line in gzip.decompress(path.read_bytes()).splitlines()]

    def segments(self):
        return sorted(self.archive.glob("segments/*/*/*.seg"))

    def entries(self):
        return sorted(self.archive.glob("entries/*/*/*.json"))

    def test_everything_but_the_archive_is_deleted(self):
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                here = self.archiving(log, database=log == "kafka")
                lines = self.fleet(4000)
                sent = 0
                for part in range(4):
                    portion = b"".join(lines[len(lines) * part // 4:len(lines) * (part + 1) // 4])
                    sent += here.json("produce", "--raw", data=portion)["sent"]
                    if part < 3:
                        self.crash(here)
                self.assertEqual(here.fold()["delivered"], sent)
                digests = {row["task"]: row["digest"] for row in here.json("state", "digest", "--recompute")}
                chain = harness.psql(here.database_url, ROWS) if here.database_url else self.chain_of(here.data / "audit")
                self.assertGreater(len(chain), 20)
                here.ok("replay", "verify", "--from", "archive")
                here.ok("replay", "verify", "--from", f"log+archive:{self.archive}")

                # Stores, log and database are gone; what is left has no broker to ask.
                shutil.rmtree(here.data)
                if here.database_url:
                    harness.psql(harness.needed("ASSAY_TEST_DATABASE_URL"), f"DROP DATABASE {here.database_url.rsplit('/', 1)[1]}")
                other = self.assay("embedded", database=log == "kafka", sets=here.sets)
                other.prefix = here.prefix
                into = self.directory / f"rebuilt-{log}"
                rows = other.json("replay", "run", "--from", f"archive:{self.archive}", "--into", into)
                self.assertEqual({row["task"]: row["digest"] for row in rows}, digests)
                again = harness.psql(other.database_url, ROWS) if other.database_url else self.chain_of(into / "audit")
                self.assertEqual(again, chain)
                other.ok("replay", "verify", "--from", f"archive:{self.archive}", "--into", into)

    def test_until_an_instant_or_an_offset(self):
        here = self.archiving("embedded")
        here.produce(self.small(200))
        here.fold()
        def run(name, *until):
            return {row["task"]: row for row in here.json("replay", "run", "--from", "archive", "--into", self.directory / name, *until)}
        whole = run("whole")
        none = run("none", "--until", "2001-01-01T00:00:00Z")
        self.assertEqual({row["manifests"] for row in none.values()}, {0})
        part = run("part", "--until", "eval.reports.v1/0=20")
        self.assertLess(part["scoring-0"]["records"], whole["scoring-0"]["records"])
        self.assertEqual(part["scoring-1"], whole["scoring-1"])
        for words in ("yesterday", "eval.reports.v1/4=1", "eval.report/0=1", "eval.reports.v1/0=", "eval.reports.v1=3"):
            self.assertEqual(here.call("replay", "run", "--from", "archive", "--into", self.directory / "x", "--until", words).code, 2, words)

    def small(self, count):
        return [{"agentId": f"a{n % 7}", "id": f"r{n}", "metricSet": {"quality": n % 10 / 10}, "timestamp": f"2026-05-01T{n // 60 % 24:02}:{n % 60:02}:00Z"}
                for n in range(count)]

    def test_each_harm_has_its_exit_code(self):
        here = self.archiving("embedded")
        here.produce(self.small(300))
        here.fold()
        kept = self.directory / "kept"
        shutil.copytree(self.archive, kept)
        entry = next(path for path in self.entries() if "eval.reports.v1/" in str(path))
        segment = self.archive / json.loads(entry.read_bytes())["object"]

        def harm(path, change):
            def do():
                path.write_bytes(change(path.read_bytes()))
            return do

        def forge(**members):
            return lambda text: json.dumps({**json.loads(text), **members}, separators=(",", ":"), sort_keys=True).encode()

        root = self.archive / "archive.json"
        harms = {
            "a flipped bit": (harm(segment, lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:]), 4, "not the segment that was signed"),
            "a cut segment": (harm(segment, lambda b: b[:-40]), 4, "not the segment that was signed"),
            "a missing segment": (segment.unlink, 8, "the segment is missing"),
            "an unsigned entry": (harm(entry, forge(signature="")), 4, str(entry.relative_to(self.archive))),
            "an altered entry": (harm(entry, forge(maxTimestamp="1")), 4, str(entry.relative_to(self.archive))),
            "an entry of another cluster": (harm(entry, forge(cluster="other")), 4, "cluster other"),
            "no entry": (entry.unlink, 8, "no manifest"),
            "a newer format": (harm(root, forge(format=2)), 5, "format is 2"),
            "no archive": (root.unlink, 8, "there is none"),
        }
        for name, (do, code, words) in harms.items():
            with self.subTest(name):
                shutil.rmtree(self.archive)
                shutil.copytree(kept, self.archive)
                do()
                into = self.directory / ("into " + name)
                for command in (("run", "--into", into), ("verify",)):
                    done = here.call("replay", *command, "--from", "archive")
                    self.assertEqual(done.code, code, (name, done.err))
                    if name != "no entry":
                        self.assertIn(words, done.err)
                    self.assertEqual(done.out, b"", "a partial result is never printed as a whole one")
        shutil.rmtree(self.archive)
        shutil.copytree(kept, self.archive)
        # Its own keys say nothing to somebody who has pinned others.
        other = self.directory / "signers.json"
        other.write_text((self.archive / "signers" / "eval-audit-signer-v1.json").read_text())
        here.ok("replay", "verify", "--from", "archive", "--signers", other)
        other.write_text('{"signers":[]}')
        self.assertEqual(here.call("replay", "verify", "--from", "archive", "--signers", other).code, 4)
        # An archive takes one log only.
        stranger = self.archiving("embedded")
        stranger.produce(self.small(5))
        done = stranger.call("run", "--until-end")
        self.assertEqual(done.code, 5, done.err)
        self.assertIn("it belongs to cluster", done.err)

    def test_a_plan_without_words_looks_at_what_is_there(self):
        here = self.archiving("embedded")
        url = f"file://{self.archive}"
        self.assertEqual(here.call("replay", "plan").code, 8, "neither is there")
        here.produce(self.small(300))
        self.assertEqual(here.json("replay", "plan")["from"], "log")
        here.fold()
        both = here.json("replay", "plan")
        self.assertEqual((both["from"], both["whole"]), (f"log+archive:{url}", True))
        self.assertEqual(both, here.json("replay", "plan", "--from", f"log+archive:{url}"))
        self.assertIn(url.encode(), here.ok("replay", "plan").out)
        for row in both["partitions"]:
            if row["topic"] == "eval.reports.v1" and row["archivedTo"]:
                here.cut("eval.reports.v1", row["partition"], int(row["archivedTo"]))
        self.assertTrue(here.json("replay", "plan")["whole"], "the log alone is not enough any more")
        self.assertEqual(here.call("replay", "plan", "--from", "log").code, 8)
        (here.data / "log").rename(self.directory / "away")
        alone = here.json("replay", "plan")
        self.assertEqual((alone["from"], alone["whole"]), (f"archive:{url}", True))
        here.sets = [pair for pair in here.sets if not pair.startswith("archive.")]
        (self.directory / "away").rename(here.data / "log")
        self.assertEqual(here.json("replay", "plan", code=8)["from"], "log")

    def test_the_audit_rows_end_where_the_commits_do(self):
        here = self.archiving("embedded")
        for part in range(3):
            here.produce(self.small(400)[part * 120:(part + 1) * 120])
            here.fold()
            time.sleep(0.01)
        for word in ("pause", "resume"):  # nobody runs who could fold them
            here.call("audit", word, "--reason", "a row of a person", "--by", "ann", "--wait", "0")
        here.fold()
        whole = self.chain_of(here.data / "audit")
        records = here.read("audit-events")
        instants = [record.timestamp_ms for record in records]
        self.assertEqual(len(whole), len(records))
        middle = sorted(instants)[len(instants) // 2]
        stamp = f"{datetime.datetime.fromtimestamp(middle // 1000, datetime.timezone.utc):%Y-%m-%dT%H:%M:%S}.{middle % 1000:03}Z"
        last = self.people(records)[0].timestamp_ms - 1
        before_people = f"{datetime.datetime.fromtimestamp(last // 1000, datetime.timezone.utc):%Y-%m-%dT%H:%M:%S}.{last % 1000:03}Z"
        cut = lambda wanted: next((n for n, at in enumerate(instants) if at > wanted), len(records))
        for name, until, rows in (("middle", stamp, cut(middle)), ("people", before_people, cut(last)), ("none", "2001-01-01T00:00:00Z", 0),
                                  ("all", "2101-01-01T00:00:00Z", len(records)), ("named", "audit-events/0=7", 7)):
            with self.subTest(name):
                into = self.directory / name
                here.ok("replay", "run", "--from", "archive", "--into", into, "--until", until)
                self.assertEqual(self.chain_of(into / "audit"), whole[:rows])
                here.ok("replay", "verify", "--into", into, "--until", until)
        # By an input's offset: the rows of the commits before the one that went past it.
        into = self.directory / "offset"
        here.ok("replay", "run", "--from", "log", "--into", into, "--until", "eval.reports.v1/0=60")
        sources = [json.loads(record.value)["source"] for record in records]
        first_left = next(n for n, source in enumerate(sources)
                          if (source.get("topic"), source.get("partition")) == ("eval.reports.v1", 0) and int(source["to"]) > 60)
        self.assertGreater(first_left, 1)
        self.assertEqual(self.chain_of(into / "audit"), whole[:first_left])
        # A chain that goes further already is no chain of that past.
        done = here.call("replay", "run", "--from", "archive", "--into", self.directory / "all", "--until", "audit-events/0=3")
        self.assertEqual(done.code, 5, done.err)
        self.assertIn("audit-events already", done.err)

    def people(self, records):
        return [record for record in records if "assay-writer" not in dict(record.headers)]

    def test_a_full_disk_holds_back_the_archive_alone_and_leaves_nothing_half(self):
        here = self.archiving("embedded")
        self.archive.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.archive], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.archive], check=True)
        filler, inside = self.archive / "filler", self.archive / "kept"
        here.sets = [pair for pair in here.sets if not pair.startswith("archive.")] + [f"archive.url=file://{inside}", "run.patience=1s", "archive.segment_age=1s"]
        here.produce(self.small(2500))
        known, codes = 0, set()
        # Pages that are left: none at all, for the first notes, for segments without their entries, for some partitions only.
        for free in (0, 3, 10, 20, 30):
            with self.subTest(free=free):
                filler.unlink(missing_ok=True)
                file = os.open(filler, os.O_WRONLY | os.O_CREAT)
                with self.assertRaises(OSError) as full:
                    while True:
                        os.write(file, b"x" * 4096)
                self.assertEqual(full.exception.errno, errno.ENOSPC)
                os.ftruncate(file, max(0, os.fstat(file).st_size - free * 4096))
                os.close(file)
                done = here.call("run", "--until-end")
                self.assertEqual(done.code, 6, done.err)
                self.assertRegex(done.err, r"archiving to the end: nothing was taken for 1 s: (writing|creating) \S+: No space left on device")
                self.assertEqual([path for path in inside.rglob(".tmp-*")], [])
                entries = [json.loads(path.read_bytes()) for path in inside.glob("entries/*/*/*.json")]
                for entry in entries:
                    self.assertEqual(hashlib.sha256((inside / entry["object"]).read_bytes()).hexdigest(), entry["sha256"])
                self.assertGreaterEqual(len(entries), known)
                known = len(entries)
                # Commits that folded what is not there cannot be rebuilt, and the plan says so before the replay does.
                plan = here.call("replay", "plan", "--from", "archive").code
                codes.add(plan)
                self.assertEqual(here.call("replay", "run", "--from", "archive", "--into", self.directory / f"into-{free}").code, plan)
        self.assertGreater(known, 0)
        self.assertIn(8, codes)
        # The pipeline itself is done with everything; the service says what is the matter, and goes on once there is room.
        self.assertEqual({row["recordsBehind"] for row in json.loads(here.call("lag", "-o", "json").out) if row["group"] != "assay.archive"}, {0})
        service = here.start("run")
        harness.wait_until("its trouble", lambda: '"retrying"' in here.http("/ready")[1] and "No space left" in here.http("/ready")[1])
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", self.archive], check=True)
        def missing():
            """Partitions whose records are not all in the archive, by the archive itself."""
            ends = {(row["topic"], row["partition"]): row["endOffset"] for row in json.loads(here.call("lag", "-o", "json").out)
                    if row["group"] == "assay.archive" and row["endOffset"] != "0"}
            plan = json.loads(here.call("replay", "plan", "--from", "archive", "-o", "json").out)
            kept = {(row["topic"], row["partition"]): row["archivedTo"] for row in plan["partitions"]}
            return {at: end for at, end in ends.items() if kept.get(at) != end}

        harness.wait_until("all of it in the archive", lambda: missing() == {}, timeout_s=40)
        self.assertIn('"archiving"', here.http("/ready")[1])
        self.assertEqual(service.terminate()[0], 0)
        here.fold()
        self.assertTrue(here.json("replay", "plan", "--from", "archive")["whole"])
        here.ok("replay", "verify", "--from", "archive")
        self.assertEqual(sum(row["records"] for row in here.json("replay", "plan", "--from", "archive")["partitions"]
                             if row["topic"] == "eval.reports.v1"), 2500)

    def test_a_plan_says_what_can_be_rebuilt(self):
        here = self.archiving("embedded")
        here.produce(self.small(300))
        here.fold()
        plan = here.json("replay", "plan", "--from", "archive")
        self.assertTrue(plan["whole"])
        proven = {row["task"]: (row["manifests"], row["records"]) for row in here.json("replay", "verify", "--from", "archive")}
        self.assertEqual({row["task"]: (row["manifests"], row["records"]) for row in plan["tasks"]}, proven)
        for row in plan["tasks"]:
            self.assertEqual((row["rebuildable"], row["problem"]), (row["manifests"], ""))
        self.assertEqual(sum(row["records"] for row in plan["partitions"] if row["topic"] == "eval.reports.v1"), 300)
        self.assertEqual(plan["bytes"], sum(path.stat().st_size for path in self.segments()))
        self.assertEqual(here.ok("replay", "plan", "--from", "archive").out.count(b"scoring-"), 4)
        # Retention takes what is archived: joined, all of it is still there; the log alone is not enough.
        for row in plan["partitions"]:
            if row["topic"] == "eval.reports.v1" and row["archivedTo"]:
                here.cut("eval.reports.v1", row["partition"], int(row["archivedTo"]))
        self.assertTrue(here.json("replay", "plan", "--from", "log+archive")["whole"])
        here.ok("replay", "verify", "--from", "log+archive")
        alone = here.json("replay", "plan", "--from", "log", code=8)
        self.assertIn("INPUT_GAP", next(row["problem"] for row in alone["tasks"] if row["task"] == "scoring-0"))
        self.assertEqual(here.call("replay", "verify", "--from", "log").code, 8)
        # A segment goes missing: what hangs on it is named, and what does not is still there.
        lost = next(path for path in self.segments() if "/eval.reports.v1/1/" in str(path))
        kept = lost.read_bytes()
        lost.unlink()
        plan = here.json("replay", "plan", "--from", "archive", code=8)
        tasks = {row["task"]: row for row in plan["tasks"]}
        self.assertIn("eval.reports.v1-1", tasks["scoring-1"]["problem"])
        self.assertEqual(tasks["scoring-0"]["problem"], "")
        lost.write_bytes(kept)
        entry = next(path for path in self.entries() if "/eval.reports.v1/1/" in str(path))
        entry.write_bytes(entry.read_bytes().replace(b'"signature":"', b'"signature":"A'))
        self.assertFalse(here.json("replay", "plan", "--from", "archive", code=4)["whole"])

    def test_a_replay_that_was_killed_goes_on(self):
        here = self.archiving("embedded")
        here.produce(self.small(2000))
        here.fold()
        digests = {row["task"]: row["digest"] for row in here.json("state", "digest")}
        into = self.directory / "rebuilt"
        slow = here.start("replay", "run", "--from", "archive", "--into", into, "--rate", "300", "--threads", "2")
        def begun():
            self.assertTrue(slow.alive(), slow.err())
            return len(list(into.glob("state/scoring-*/*.log"))) >= 2

        harness.wait_until("two stores", begun)
        time.sleep(1)
        slow.kill()
        rows = here.json("replay", "run", "--from", "archive", "--into", into)
        self.assertEqual({row["task"]: row["digest"] for row in rows}, digests)
        self.assertLess(sum(row["outputs"] for row in rows), sum(row["outputs"] for row in here.json("replay", "verify")), "it began anew")
        self.assertEqual(self.chain_of(into / "audit"), self.chain_of(here.data / "audit"))
        # Once more changes nothing; another history is not gone on with.
        here.ok("replay", "run", "--from", "archive", "--into", into)
        other = self.assay("embedded")
        other.produce(self.small(100))
        other.fold()
        done = other.call("replay", "run", "--from", "log", "--into", into)
        self.assertEqual(done.code, 5, done.err)
        self.assertIn("another history", done.err)

    def test_what_was_rebuilt_takes_the_place_of_what_was_lost(self):
        here, twin = self.archiving("embedded"), self.assay("embedded")
        for one in (here, twin):
            one.produce(self.small(900))
            one.fold()
        into = self.directory / "rebuilt"
        self.assertEqual(here.call("replay", "promote", "--into", into).code, 5, "nothing is there")
        here.ok("replay", "run", "--from", "archive", "--into", into)
        service = here.start_service()
        done = here.call("replay", "promote", "--into", into)
        self.assertEqual(done.code, 5, done.err)
        self.assertIn("stop it first", done.err)
        self.assertEqual(service.terminate()[0], 0)
        here.produce(self.small(950)[900:])
        twin.produce(self.small(950)[900:])
        here.fold()
        done = here.call("replay", "promote", "--into", into)
        self.assertEqual(done.code, 5, done.err)
        self.assertRegex(done.err, r"rebuilt up to manifest \d+, committed is \d+")
        shutil.rmtree(here.data / "state")
        shutil.rmtree(here.data / "audit")
        here.ok("replay", "run", "--from", "log+archive", "--into", into)
        here.ok("replay", "promote", "--into", into)
        twin.fold()
        self.assertEqual(here.digests(), twin.digests())
        for one in (here, twin):
            one.produce(self.small(1500)[950:])
            one.fold()
        self.assertEqual(here.digests(), twin.digests())
        self.assertEqual(here.json("promotions"), twin.json("promotions"))
        here.ok("replay", "verify", "--from", "log+archive")
        here.ok("audit", "verify")
        # A store that is not what its digest says is not promoted.
        again = self.directory / "again"
        here.ok("replay", "run", "--from", "archive", "--into", again)
        manifest = next((again / "state" / "scoring-0").glob("MANIFEST-*"))
        manifest.write_bytes(manifest.read_bytes()[:-20])
        self.assertIn(here.call("replay", "promote", "--into", again).code, (5, 7))
        self.assertEqual(here.digests(), twin.digests())

    def test_several_processes_keep_one_archive(self):
        here = self.archiving("kafka")
        other = self.assay("kafka", sets=here.sets)
        other.prefix = here.prefix
        here.produce(self.small(400))
        service = here.start_service()  # its segments are due in five minutes
        other.fold()
        self.assertTrue(other.json("replay", "plan", "--from", "archive")["whole"])
        state = json.loads(here.http("/ready")[1])["archive"]["state"]
        self.assertEqual(state, "archiving")
        rows = json.loads(here.call("lag", "-o", "json").out)
        rows = [row for row in rows if row["group"].endswith("assay.archive")]
        self.assertGreater(len(rows), 30)
        self.assertEqual({row["state"] for row in rows}, {"ok"}, rows)
        self.assertEqual(service.terminate()[0], 0)
        here.produce(self.small(800)[400:])
        here.fold()
        other.ok("replay", "verify", "--from", "archive")
        self.assertEqual(sum(row["records"] for row in other.json("replay", "plan", "--from", "archive")["partitions"]
                             if row["topic"] == "eval.reports.v1"), 800)

    def test_retention_that_overtakes_is_named_and_stops_nothing_else(self):
        here = self.archiving("embedded")
        here.produce(self.small(200))
        here.fold()
        archived, here.sets = here.sets, [pair for pair in here.sets if not pair.startswith("archive.")]
        here.produce(self.small(400)[200:])
        here.fold()  # nothing is archived
        end = max(record.offset for record in here.read("eval.reports.v1") if record.partition == 0) + 1
        here.cut("eval.reports.v1", 0, end - 3)
        here.sets = archived
        done = here.call("run", "--until-end")
        self.assertEqual(done.code, 8, done.err)
        self.assertRegex(done.err, r"INPUT_GAP: archiving eval.reports.v1-0: retention took offsets \d+ to \d+ before they were archived")
        rows = here.json("lag", code=3)
        row = next(row for row in rows if row["group"] == "assay.archive" and (row["topic"], row["partition"]) == ("eval.reports.v1", 0))
        self.assertEqual(row["state"], "at risk of loss")
        here.produce(self.small(500)[400:])
        service = here.start_service()
        gauge = 'assay_archive_halted{halt="INPUT_GAP",partition="0",topic="eval.reports.v1"} 1'
        harness.wait_until("the gauge", lambda: gauge in here.http("/metrics")[1])
        harness.wait_until("the scores", lambda: all(row["recordsBehind"] == 0 for row in json.loads(here.call("lag", "-o", "json").out)
                                                     if row["group"] != "assay.archive"))
        self.assertEqual(service.terminate()[0], 0)
        plan = here.json("replay", "plan", "--from", "log+archive", code=8)
        self.assertIn("INPUT_GAP", next(row["problem"] for row in plan["tasks"] if row["task"] == "scoring-0"))
        self.assertEqual(next(row["problem"] for row in plan["tasks"] if row["task"] == "scoring-1"), "")

    def test_words_that_name_no_source(self):
        here = self.archiving("embedded")
        here.produce(self.small(5))
        for words, code in (("broker", 2), ("log:x", 2), ("archive:ftp://x", 2), ("archive:/no/such", 8)):
            self.assertEqual(here.call("replay", "verify", "--from", words).code, code, words)
        here.sets = []
        self.assertEqual(here.call("replay", "verify", "--from", "archive").code, 2)
        here.sets = ["archive.url=here"]
        self.assertEqual(here.call("run", "--until-end").code, 2)


if __name__ == "__main__":
    harness.main()
