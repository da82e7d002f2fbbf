"""What is missing for good, what must stay, and what is deleted: reconciliation, legal hold and erasure, on a real PostgreSQL."""

import json
import pathlib
import subprocess

import harness

REFUSED, TAMPERED, INCOMPLETE = 5, 4, 8
LOST = 5  # reports that retention took before anybody folded them
WHY = ("--reason", "disk of a broker lost", "--by", "Ada", "--approved-by", "Bob")


def reports(count):
    return [{"id": f"r{n}", "agentId": "a-1", "metricSet": {"success": 0.9}, "timestamp": f"2026-05-01T12:{n:02}:00Z"} for n in range(count)]


class Corrections(harness.EndToEnd):

    def world(self, log):
        here = self.assay(log, database=True, sets=["topics.partitions=1", 'audit.personal.fields=["actor", "reason"]'])
        here.produce(reports(40), "--record-time", "timestamp")
        here.cut("eval.reports.v1", 0, LOST)
        self.service = here.start_service()
        harness.wait_until("the reports' events", lambda: self.rows(here) > 0)
        return here

    def rows(self, here):
        done = here.call("audit", "head", "-o", "json")
        return json.loads(done.out)["rows"] if done.code == 0 else 0  # the database may have no chain yet

    def stop(self, here):
        """The embedded log belongs to the process that writes it."""
        self.service.terminate()

    def reconcile(self, here, first, end, *more, code=0):
        return here.ok("audit", "reconcile", "--topic", "eval.reports.v1", "--partition", 0, "--from", first, "--to", end, *(more or WHY),
                       code=code)

    def proves(self, here, *flags, code=0):
        out = here.directory / harness.unique("export")
        here.ok("audit", "export", "--out", out, *(["--with-personal"] if flags else []))
        words = [str(harness.BIN / "assay-verify"), str(out)]
        if flags:
            words += ["--personal", f"{out}.personal.jsonl"]
            self.assertEqual(pathlib.Path(words[-1]).stat().st_mode & 0o777, 0o600)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    @harness.both_logs
    def test_a_gap_is_reconciled_once_and_told_ever_after(self, here):
        here = self.world(here.log)
        gap, = harness.wait_until("the gap", lambda: self.gaps(here))
        self.assertEqual((gap["from"], gap["to"], gap["problem"]), ("0", str(LOST), "gone"))
        self.assertEqual(here.call("audit", "gap").code, INCOMPLETE)
        # What is not missing, and who has nobody with him.
        for first, end in ((0, LOST + 1), (LOST, LOST + 1), (39, 90)):
            self.assertIn("is not missing", self.reconcile(here, first, end, code=REFUSED).err)
        self.assertIn("another person", self.reconcile(here, 0, LOST, "--reason", "x", "--by", "Ada", "--approved-by", "Ada", code=REFUSED).err)
        done = self.reconcile(here, 0, LOST, "-o", "json", *WHY)
        event = json.loads(done.out)["eventId"]
        for first, end in ((0, LOST), (2, 3), (4, 9)):
            self.assertIn(f"were reconciled by event {event}", self.reconcile(here, first, end, code=REFUSED).err)
        self.assertEqual([(row["problem"], row["eventId"]) for row in here.json("audit", "gap")], [("reconciled", event)])
        said = harness.psql(here.database_url, "SELECT payload FROM audit_events WHERE event_type = 'audit.reconciliation'")
        data = json.loads(said[0][0])["data"]
        self.assertEqual(len(said), 1, "what was refused is no event")
        self.assertEqual((data["topic"], data["partition"], data["from"], data["to"]), ("eval.reports.v1", 0, "0", str(LOST)))
        told = f"Reconciled, not whole: offsets 0 to {LOST - 1} of eval.reports.v1/0"
        for text in (self.proves(here), here.ok("audit", "verify").out.decode()):
            self.assertIn(told, text)
            self.assertIn(event, text)
            self.assertIn("of which nothing is proven", text)
        self.stop(here)
        replayed = here.ok("replay", "verify")
        self.assertIn(told, replayed.err)
        self.assertIn(event, replayed.err)

    def gaps(self, here):
        done = here.call("audit", "gap", "-o", "json")
        rows = json.loads(done.out) if done.out else []
        return [row for row in rows if row["problem"] == "gone"]

    @harness.both_logs
    def test_what_is_held_stays_and_what_is_erased_leaves_the_chain_whole(self, here):
        here = self.world(here.log)
        url = here.database_url
        here.ok("audit", "pause", "--reason", "Ada has flu", "--by", "Ada")
        here.ok("audit", "resume", "--reason", "Bob is back", "--by", "Bob")
        chain = "SELECT string_agg(payload::text, '' ORDER BY sequence) FROM audit_log"
        for word in ("flu", "Ada", "Bob"):
            self.assertNotIn(word, harness.psql(url, chain)[0][0])
        self.assertEqual(harness.psql(url, "SELECT plaintext FROM audit_personal WHERE subject = 'user:Ada' ORDER BY field"),
                         [["user:Ada"], ["Ada has flu"]])
        erase = ("audit", "erase", "--subject", "user:Ada", "--reason", "asked for it", "--by", "Carl", "--approved-by", "Bob")
        first = harness.psql(url, "SELECT sequence FROM audit_log WHERE event_type = 'audit.paused'")[0][0]
        for hold, scope in (("CASE-1", ("--subject", "user:Ada")), ("CASE-2", ("--everything",)), ("CASE-3", ("--rows", f"{first}-{first}"))):
            here.ok("audit", "hold", hold, *scope, "--reason", "litigation", "--by", "Carl")
            self.assertIn(f"placing hold {hold}: it is in force already",
                          here.ok("audit", "hold", hold, *scope, "--reason", "again", "--by", "Carl", code=REFUSED).err)
            self.assertEqual([row["hold"] for row in here.json("audit", "holds")], [hold])
            self.assertIn(f"legal hold {hold}", here.ok(*erase, code=REFUSED).err)
            with self.assertRaisesRegex(AssertionError, f"legal hold {hold}"):
                harness.psql(url, "DELETE FROM audit_personal WHERE subject = 'user:Ada'")
            refused = ("SELECT payload->'data'->>'hold' FROM audit_log WHERE event_type = 'audit.erasure_refused' ORDER BY sequence DESC "
                       "LIMIT 1")
            harness.wait_until("the refusal in the chain", lambda: harness.psql(url, refused) == [[hold]])
            here.ok("audit", "release", hold, "--reason", "settled", "--by", "Carl", "--approved-by", "Carl", code=REFUSED)
            here.ok("audit", "release", hold, "--reason", "settled", "--by", "Carl", "--approved-by", "Bob")
            here.ok("audit", "release", hold, "--reason", "twice", "--by", "Carl", "--approved-by", "Bob", code=REFUSED)
            self.assertIn("never reused", here.ok("audit", "hold", hold, *scope, "--reason", "x", "--by", "Carl", code=REFUSED).err)
        self.assertEqual(here.json("audit", "holds"), [])
        # A hold on somebody else stands in nobody's way.
        here.ok("audit", "hold", "CASE-4", "--subject", "user:Eve", "--reason", "other", "--by", "Carl")
        hashes = "SELECT sequence, hash, prev_hash, payload FROM audit_log ORDER BY sequence"
        before = harness.psql(url, hashes)
        self.assertIn("fit their plaintexts, 0 have no plaintext", self.proves(here, "personal"))
        done = json.loads(here.ok(*erase, "-o", "json").out)
        self.assertEqual(done["erased"], 3, "what she said, and her name in a hold that is over")
        self.assertEqual(harness.psql(url, "SELECT count(*) FROM audit_personal WHERE subject = 'user:Ada'"), [["0"]])
        self.assertEqual(harness.psql(url, hashes)[:len(before)], before)
        self.assertEqual(here.call(*erase).code, INCOMPLETE, "nothing is left to erase")
        for text in (self.proves(here, "personal"), here.ok("audit", "verify", "--with-personal").out.decode()):
            self.assertIn("3 have no plaintext (3 were erased)", text)
        self.assertIn("3 were erased", self.proves(here))
        # A plaintext that is changed or lost beside the chain is found.
        harness.psql(url, "ALTER TABLE audit_personal DISABLE TRIGGER USER")
        harness.psql(url, "UPDATE audit_personal SET plaintext = 'user:Mallory' WHERE plaintext = 'user:Bob'")
        self.assertIn("is not what the row commits to", self.proves(here, "personal", code=TAMPERED))
        harness.psql(url, "DELETE FROM audit_personal WHERE plaintext = 'user:Mallory'")
        self.assertIn("no event says that it was erased", self.proves(here, "personal", code=INCOMPLETE))
        self.assertIn("Audit chain verified", self.proves(here))
        # Full replay: the same rows, from topics that never had a plaintext.
        self.stop(here)
        rebuilt = harness.fresh_database()
        words = [word for word in here.command("replay", "run", "--into", here.directory / "rebuilt")]
        words[words.index(url)] = rebuilt
        replayed = subprocess.run(words, capture_output=True, text=True, timeout=120, env=harness.clean_environment())
        self.assertEqual(replayed.returncode, 0, replayed.stderr)
        self.assertEqual(harness.psql(rebuilt, hashes), harness.psql(url, hashes))
        self.assertEqual(harness.psql(rebuilt, "SELECT count(*) FROM audit_personal"), [["0"]])
        for record in here.read("audit-events"):
            self.assertNotRegex(record.value.decode(), "flu|user:Ada|Mallory")


if __name__ == "__main__":
    harness.main()
