"""Checkpoints as those meet them who do not trust the chain's owner: witnesses, proofs in a mail, notes kept elsewhere, gaps."""

import base64
import json
import pathlib
import re
import shutil
import subprocess

import harness

TAMPERED, MISSING, UNHEALTHY, USAGE, REFUSED = 4, 8, 3, 2, 5
TOPIC = "assay.checkpoints.v1"


def verify(*words):
    """assay-verify, which knows no log, no database and no network."""
    done = subprocess.run([str(harness.BIN / "assay-verify"), *map(str, words)], capture_output=True, text=True,
                          env=harness.clean_environment(), timeout=60)
    return harness.Outcome(done.returncode, done.stdout, done.stderr)


def reports(count, first=0, quality=0.9):
    return [{"agentId": f"agent-{n % 5}", "id": f"r{n}", "metricSet": {"quality": quality},
             "timestamp": f"2026-05-{1 + n // 1440:02}T{n // 60 % 24:02}:{n % 60:02}:00Z"} for n in range(first, first + count)]


def newest(assay):
    """(rows, names below it, text) of the newest checkpoint."""
    text = (assay.data / "checkpoints" / "checkpoint").read_text()
    body, _, signatures = text.rpartition("\n\n")
    return int(body.splitlines()[1]), re.findall(r"^\u2014 (\S+) ", signatures, re.M), text


class Checkpoints(harness.EndToEnd):

    def log_key(self, assay):
        return re.search(r"^log (\S+)", (assay.data / "checkpoints" / "policy").read_text(), re.M)[1]

    def witness(self, assay, listen="127.0.0.1:0"):
        """Somebody else's server: its process, its key and its port."""
        elsewhere = harness.Assay("embedded", self.directory / "somebody-else")
        self.addCleanup(elsewhere.close)
        process = elsewhere.start("witness", "--name", "example.org/w1", "--log", self.log_key(assay), "--listen", listen, "-o", "json")
        said = json.loads(harness.wait_until("a witness", process.out))
        return process, said["key"], said["port"]

    def counted(self, assay, metric, labels=""):
        found = re.search(rf"^{metric}{re.escape(labels)} (\S+)$", assay.http("/metrics")[1], re.M)
        return float(found[1]) if found else 0.0

    def test_on_a_schedule_beside_a_pipeline_that_waits_for_nobody(self):
        archive, policy = self.directory / "archive", self.directory / "witnesses"
        assay = self.assay("kafka", database=True, sets=[f"archive.url=file://{archive}", "archive.segment_age=1s"])
        assay.produce(reports(60))
        assay.fold()
        rows, names, _ = newest(assay)
        self.assertEqual(rows, assay.json("audit", "head")["rows"], "a run to the end is sealed")
        self.assertEqual(names, ["assay.local/audit"])

        there, key, port = self.witness(assay)
        policy.write_text(f"witness w1 {key} http://127.0.0.1:{port}\nquorum w1\n")
        assay.sets += ["audit.checkpoint_interval=1s", f"audit.checkpoint_policy={policy}"]
        service = assay.start_service()
        cosigned = ["assay.local/audit", "example.org/w1"]
        harness.wait_until("a cosignature", lambda: newest(assay)[1] == cosigned)

        # The witness goes away: rows go on, and so do checkpoints.
        there.kill()
        assay.produce(reports(60, 60))
        harness.wait_until("a checkpoint that nobody cosigned", lambda: newest(assay)[0] > rows and newest(assay)[1] == cosigned[:1])
        harness.wait_until("the absence in the metrics", lambda: self.counted(assay, "assay_audit_witness_failures_total",
                                                                             '{witness="w1"}') >= 1)
        self.assertEqual(assay.http("/ready")[0], 200)
        assay.ok("lag")
        between = newest(assay)[0]

        # It comes back and cosigns what there is; a person asks the process for one more.
        self.witness(assay, f"127.0.0.1:{port}")
        assay.produce(reports(60, 120))
        harness.wait_until("the witness again", lambda: newest(assay)[0] > between and newest(assay)[1] == cosigned)
        harness.wait_until("every row in a checkpoint",
                           lambda: assay.json("audit", "checkpoint")["rows"] == str(assay.json("audit", "head")["rows"]))
        said = assay.json("audit", "checkpoint")
        self.assertEqual((said["new"], said["cosignatures"], said["quorum"], said["logKey"]), (False, 1, True, self.log_key(assay)))
        for words in (["--every", "1m"], ["--publish", self.directory / "x"], ["--origin", "other"]):
            self.assertEqual(assay.call("audit", "checkpoint", *words).code, USAGE)
        self.assertEqual(self.counted(assay, "assay_audit_checkpoint_rows"), int(said["rows"]))
        self.assertEqual(service.terminate()[0], 0)

        # Where the owner of the database has no hand: the topic, the archive, and whoever was mailed a proof.
        rows, _, note = newest(assay)
        last = harness.kcat_records(assay.prefix + TOPIC)[-1]
        self.assertEqual((last["key"], last["payload"]), ("assay.local/audit", note))
        kept = [path for path in (archive / "checkpoints").iterdir() if path.read_text() == note]
        self.assertEqual(len(kept), 1)
        self.assertTrue(kept[0].name.startswith(f"{rows:012}-"))
        self.proofs_hold(assay)
        self.gaps_are_named(assay)
        self.a_cut_tail_is_seen(assay, kept[0])
        self.another_chain_is_refused(assay, kept[0])

    def export(self, assay, name):
        out = self.directory / name
        assay.ok("audit", "export", "--out", out)
        return out

    def proofs_hold(self, assay):
        policy = assay.data / "checkpoints" / "policy"
        out = self.export(assay, "chain")
        head = assay.json("audit", "head")
        done = verify(out, "--policy", policy, "--signers", out / "signers.json", "--json")
        verdict = json.loads(done.out)
        self.assertEqual((done.code, verdict["witnessedRows"], verdict["witnesses"]), (0, str(head["rows"]), "w1"), done)
        self.assertEqual(verify(out, "--links", "--policy", policy).code, 0)
        sizes = sorted(int(path.stem) for path in (out / "checkpoints").iterdir())
        self.assertGreater(len(sizes), 2)
        proofs = {
            "by id": ["--id", head["headId"]],
            "by number": ["--sequence", 1],
            "by id, exported": ["--id", head["headId"], "--archive", out],
            "in an older checkpoint, exported": ["--sequence", 1, "--to", sizes[0], "--archive", out],
            "consistency": ["--from", sizes[0]],
            "consistency of old ones": ["--from", sizes[0], "--to", sizes[1]],
        }
        for name, words in proofs.items():
            with self.subTest(name):
                # Those who have not cosigned everything are not asked about every checkpoint.
                log_only = self.directory / "log-only"
                log_only.write_text(f"log {self.log_key(assay)}\nquorum none\n")
                trusted = log_only if "old" in name or name == "consistency" else policy
                proof = self.directory / "proof.json"
                proof.write_bytes(assay.ok("audit", "prove", *words).out)
                done = verify("--proof", proof, "--policy", trusted, "--signers", out / "signers.json")
                self.assertEqual(done.code, 0, done)
                self.assertTrue(done.out.startswith("Proof verified\n"), done.out)
                text = proof.read_text()
                at = text.index('"path":["') + 12
                proof.write_text(text[:at] + ("B" if text[at] != "B" else "C") + text[at + 1:])
                self.assertEqual(verify("--proof", proof, "--policy", trusted).code, TAMPERED)
        self.assertEqual(assay.call("audit", "prove", "--id", "av-" + 32 * "0").code, 1, "there is no such row")

    def gaps_are_named(self, assay):
        """Exactly once: a range that no event covers and one that two cover are named, each with its place."""
        self.assertEqual(assay.json("audit", "gap"), [])
        submits = harness.psql(assay.database_url,
                               "SELECT sequence, id, payload->'source'->>'partition', payload->'source'->>'from', payload->'source'->>'to' "
                               "FROM audit_log WHERE payload->>'eventType' = 'eval.submit' ORDER BY sequence")
        sequence, event, partition, begin, end = submits[len(submits) // 2]
        place = {"topic": "eval.reports.v1", "partition": int(partition)}
        harness.psql(assay.database_url, f"CREATE TABLE kept AS SELECT * FROM audit_log WHERE sequence = {sequence}")
        harness.psql(assay.database_url, f"DELETE FROM audit_log WHERE sequence = {sequence}")
        found = assay.json("audit", "gap", code=UNHEALTHY)
        self.assertEqual(found, [{**place, "from": begin, "to": end, "problem": "missing", "eventId": ""}])
        harness.psql(assay.database_url, "INSERT INTO audit_log SELECT * FROM kept")
        # The same range under another event: two speak of it, and what the other one covered is missing.
        other = next(row for row in submits if row[2] == partition and row[0] != sequence)
        harness.psql(assay.database_url,
                     f"UPDATE audit_log SET payload = (SELECT payload FROM kept) WHERE sequence = {other[0]}")
        found = assay.json("audit", "gap", code=UNHEALTHY)
        self.assertEqual({(row["problem"], row["from"], row["to"]) for row in found},
                         {("twice", begin, end), ("missing", other[3], other[4])}, found)
        self.assertEqual({row["eventId"] for row in found if row["problem"] == "twice"} - {event, other[1]}, set())
        harness.psql(assay.database_url, f"DELETE FROM audit_log WHERE sequence IN ({other[0]}, {sequence}); "
                                         "INSERT INTO audit_log SELECT * FROM kept; DROP TABLE kept")
        found = assay.json("audit", "gap", code=UNHEALTHY)
        self.assertEqual([(row["problem"], row["from"], row["to"]) for row in found], [("missing", other[3], other[4])])

    def a_cut_tail_is_seen(self, assay, note):
        """Rows are gone from the database: the checkpoint that lies elsewhere tells, and no new one is signed over what is left."""
        harness.psql(assay.database_url, "DELETE FROM audit_log WHERE sequence > (SELECT max(sequence) - 5 FROM audit_log)")
        done = assay.call("audit", "checkpoint")
        self.assertEqual(done.code, TAMPERED, done)
        shutil.rmtree(assay.data / "checkpoints")  # the owner of the machine makes it forget
        done = assay.call("run", "--until-end", "--only", "audit")
        self.assertEqual(done.code, TAMPERED, "the topic has not forgotten\n" + done.err)
        self.assertIn("audit_checkpoint_errors", done.err)

    def another_chain_is_refused(self, assay, note):
        """He holds every key of the service, and writes the history anew: the witness does not sign it, and who asks for the
        witness's word is not fooled."""
        policy, signers = self.directory / "chain" / "policy", self.directory / "chain" / "signers.json"
        forger = self.assay(sets=[pair for pair in assay.sets if "checkpoint_policy" in pair])
        forger.data.mkdir()
        for key in ("audit-signer.key", "checkpoint-signer.key"):
            shutil.copy2(assay.data / key, forger.data / key)
        forger.produce(reports(120, quality=0.1))
        done = forger.call("run", "--until-end")
        self.assertEqual(done.code, TAMPERED, done)
        self.assertRegex(done.err, "witness w1 (refused|has cosigned another chain)")
        out = self.export(forger, "forged")
        self.assertEqual(verify(out, "--signers", signers).code, 0, "the keys are the right ones")
        done = verify(out, "--signers", signers, "--policy", policy)
        self.assertEqual(done.code, MISSING, done)
        self.assertIn("too few witnesses", done.out)
        done = verify(out, "--signers", signers, "--policy", policy, "--checkpoint", note)
        self.assertEqual(done.code, TAMPERED, done)
        self.assertIn(str(note), done.out)
        proof = self.directory / "proof.json"
        proof.write_bytes(forger.ok("audit", "prove", "--sequence", 1).out)
        self.assertEqual(verify("--proof", proof, "--policy", policy).code, MISSING)


if __name__ == "__main__":
    harness.main()
