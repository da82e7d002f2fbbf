"""The audit chain as an auditor meets it: proven in the database, the archive and an export; any changed byte is named."""

import contextlib
import gzip
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys

import harness

ORACLE = pathlib.Path(__file__).resolve().parents[2] / "oracle" / "audit_compat.py"
TAMPERED, MISSING = 4, 8


def verify(directory, *flags):
    """assay-verify, which knows no log and no database."""
    done = subprocess.run([str(harness.BIN / "assay-verify"), str(directory), *map(str, flags)], capture_output=True,
                          env=harness.clean_environment(), timeout=60)
    return harness.Outcome(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))


def row_files(directory):
    return sorted((directory / "audit-events").rglob("*.jsonl.gz"))


def rows_of(directory):
    return [json.loads(line) for path in row_files(directory) for line in gzip.decompress(path.read_bytes()).splitlines()]


@contextlib.contextmanager
def kept(url, sequence):
    """Whatever happens to the row below this, it stands there again afterwards."""
    harness.psql(url, f"CREATE TABLE kept AS SELECT * FROM audit_log WHERE sequence = {sequence}")
    try:
        yield
    finally:
        harness.psql(url, f"DELETE FROM audit_log WHERE sequence = {sequence}; INSERT INTO audit_log SELECT * FROM kept; "
                          "DROP TABLE kept")


class Audit(harness.EndToEnd):

    def fleet(self, *flags, **options):
        """A pipeline that has folded 4000 reports of twenty agents, some of them bad; decisions were made on the way."""
        assay = self.assay(**options)
        reports = assay.directory / "reports.jsonl"
        assay.ok("generate", "--agents", 20, "--reports", 4000, "--seed", 5, "--bad", 0.02, "--late", 0.02, "--out", reports)
        assay.json("produce", "--raw", "--input", reports)
        folded = assay.fold()
        self.assertGreater(folded["accepted"], 3500)
        self.assertGreater(folded["deadLetters"], 20)
        self.assertTrue(assay.json("allocations"), "without decisions the chain says little")
        return assay

    def export(self, assay):
        out = assay.directory / "export"
        assay.ok("audit", "export", "--out", out)
        return out

    def proves(self, done, head):
        text = done.out if isinstance(done.out, str) else done.out.decode()
        self.assertEqual(done.code, 0, text + done.err)
        self.assertTrue(text.startswith("Audit chain verified\n"), text)
        self.assertRegex(text, rf"rows +{head['rows']}\n")
        self.assertIn(head["headId"], text)
        self.assertIn(head["headHash"], text)

    def test_a_chain_in_the_database(self):
        """Each accepted report has its own row here; what was proven is proven by four independent readers."""
        assay = self.fleet(database=True, sets=["audit.eval_submit=each"])
        export = self.export(assay)
        signers = export / "signers.json"
        words = ["--database-url", assay.database_url, "--signers", str(signers)]
        compat = subprocess.run([sys.executable, "-B", str(ORACLE), *words], capture_output=True, text=True, timeout=120)
        self.assertEqual(compat.returncode, 0, compat.stdout + compat.stderr)
        verdicts = re.findall(r"^ ?(\d+)  (\w+)", compat.stdout, re.MULTILINE)
        self.assertEqual([word for _, word in verdicts[:13]], ["ok"] * 13, compat.stdout)

        head = assay.json("audit", "head")
        stored = harness.psql(assay.database_url,
                              "SELECT id, hash, count(*) OVER () FROM audit_events ORDER BY created_at DESC LIMIT 1")
        self.assertEqual([head["headId"], head["headHash"], str(head["rows"])], stored[0])
        last = rows_of(export)[-1]
        self.assertEqual((head["headId"], head["headHash"], head["rows"]), (last["id"], last["hash"], len(rows_of(export))))
        self.assertEqual(head["signedThrough"], str(head["rows"]))
        kinds = {row["event_type"] for row in rows_of(export)}
        self.assertLessEqual({"eval.submit", "promotion.applied", "allocation.applied", "policy.decision"}, kinds)

        self.proves(assay.call("audit", "verify"), head)
        self.proves(assay.call("audit", "verify", "--signers", signers), head)
        self.proves(assay.call("audit", "verify", "--archive", export), head)
        self.proves(assay.call("audit", "verify", "--archive", export, "--signers", signers), head)
        self.proves(verify(export), head)
        pinned = verify(export, "--signers", signers)
        self.proves(pinned, head)
        self.assertNotIn("not pinned", pinned.out)
        names = ("id", "event_type", "payload", "prev_hash", "hash", "signature", "signer_kid")
        columns = ", ".join(f"'{name}', {name}" for name in names)
        stored = harness.psql(assay.database_url,
                              f"SELECT json_build_object({columns})::text FROM audit_events ORDER BY created_at")
        for (row,), exported in zip(stored, rows_of(export), strict=True):
            self.assertEqual(json.loads(row), {name: exported[name] for name in names})

    def test_an_edited_row_of_the_database_is_named(self):
        """The owner of the table can change anything in it, but not so that nobody sees it."""
        assay = self.fleet(database=True)
        url = assay.database_url
        rows = harness.psql(url, "SELECT sequence, id FROM audit_events ORDER BY sequence")
        rng = random.Random(11)
        edits = ("payload = replace(payload::text, '\"actor\":\"service:', '\"actor\":\"service;')::json",
                 "event_type = 'eval.nothing'",
                 "created_at = created_at - interval '1 hour'",
                 "prev_hash = hash",
                 "signature = translate(signature, 'ABab', 'BAba')",
                 "signer_kid = 'nobody'",
                 "hash = translate(hash, '01', '10')",
                 "id = id || 'x'")
        for edit in edits:
            sequence, event_id = rng.choice(rows)
            with self.subTest(edit=edit, sequence=sequence), kept(url, sequence):
                harness.psql(url, f"UPDATE audit_log SET {edit} WHERE sequence = {sequence}")
                done = assay.call("audit", "verify")
                self.assertEqual(done.code, TAMPERED, done.out.decode() + done.err)
                self.assertIn(event_id, done.out.decode())
        for sequence in (1, len(rows) // 2, len(rows)):
            with self.subTest(removed=sequence), kept(url, sequence):
                harness.psql(url, f"DELETE FROM audit_log WHERE sequence = {sequence}")
                done = assay.call("audit", "verify")
                self.assertIn(done.code, (TAMPERED, MISSING), done.out)
                self.assertRegex(done.out.decode(), rf"\b({sequence}|{sequence + 1})\b")
        self.assertEqual(assay.call("audit", "verify").code, 0)
        sequence, event_id = rng.choice(rows)
        with kept(url, sequence):
            harness.psql(url, f"UPDATE audit_log SET payload = (payload::text || ' ')::json WHERE sequence = {sequence}")
            done = assay.call("audit", "verify")
            self.assertEqual(done.code, 0, "a database keeps values, not bytes")
            self.assertRegex(done.out.decode(), rf"Equivalent: 1 row is .*{event_id}")

    def test_a_chain_without_a_database_and_every_changed_byte_of_it(self):
        """The archive of the pipeline itself, several files of a row per report, and an export, one file of ranges."""
        each = self.fleet(sets=["audit.eval_submit=each"])
        archive = each.data / "audit"
        self.assertGreater(len(row_files(archive)), 1)
        head = each.json("audit", "head")
        self.proves(each.call("audit", "verify"), head)
        self.proves(verify(archive), head)
        self.proves(verify(archive, "--signers", archive / "signers.json"), head)
        self.assertEqual(rows_of(self.export(each)), rows_of(archive))
        ranges = self.export(self.fleet())
        for directory, rounds in ((ranges, 90), (archive, 30)):
            with self.subTest(directory=directory.name):
                self.change_rows(directory, rounds)
                self.flip_bytes(directory, rounds)
                self.move_files(directory)
                self.assertEqual(verify(directory).code, 0, "what is compared with was never touched")

    def copy(self, directory):
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        return pathlib.Path(shutil.copytree(directory, copy))

    def change_rows(self, directory, rounds):
        """One byte of the rows' text becomes another one, in a file that is well packed: the row is named."""
        rng = random.Random(rounds)
        for turn in range(rounds):
            copy = self.copy(directory)
            path = rng.choice(row_files(copy))
            text = bytearray(gzip.decompress(path.read_bytes()))
            at = rng.randrange(len(text))
            line = text[:at].count(b"\n") + 1
            row = json.loads(bytes(text).splitlines()[line - 1])
            text[at] ^= rng.randrange(1, 256)
            path.write_bytes(gzip.compress(bytes(text)))
            sequence = int(path.name.split("-")[0]) + line - 1
            done = verify(copy)
            place = f"{path.name} line {line} (sequence {sequence}), byte {at} is now {text[at]}, turn {turn}"
            self.assertEqual(done.code, TAMPERED, f"{place}\n{done.out}{done.err}")
            named = row["id"] in done.out or re.search(rf"row {sequence}\b|{re.escape(path.name)}:{line}\b", done.out)
            self.assertTrue(named, f"{place}\n{done.out}")

    def flip_bytes(self, directory, rounds):
        """One byte of a file as it lies on the disk: the file is named."""
        rng = random.Random(rounds + 1)
        names = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
        for turn in range(rounds):
            copy = self.copy(directory)
            name = rng.choice(names)
            data = bytearray((copy / name).read_bytes())
            at = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 12))])
            data[at] ^= rng.randrange(1, 256)
            (copy / name).write_bytes(data)
            done = verify(copy)
            place = f"{name} byte {at} is now {data[at]}, turn {turn}"
            self.assertEqual(done.code, TAMPERED, f"{place}\n{done.out}{done.err}")
            self.assertIn(str(name), done.out, place)

    def move_files(self, directory):
        for path in sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file()):
            with self.subTest(file=path.name):
                copy = self.copy(directory)
                (copy / path).unlink()
                done = verify(copy)
                self.assertIn(done.code, (TAMPERED, MISSING), done.out + done.err)
                self.assertIn(str(path), done.out + done.err)
                for kept in (0, 1, (directory / path).stat().st_size // 2, (directory / path).stat().st_size - 1):
                    copy = self.copy(directory)
                    with open(copy / path, "r+b") as file:
                        file.truncate(kept)
                    done = verify(copy)
                    self.assertEqual(done.code, TAMPERED, f"{path} cut to {kept}\n{done.out}{done.err}")
                    self.assertIn(str(path), done.out + done.err)
        folder = row_files(directory)[0].parent.relative_to(directory)
        for added in ("notes.txt", "audit-events/extra.jsonl.gz", str(folder / "000000900001-000000900002.jsonl.gz")):
            with self.subTest(added=added):
                copy = self.copy(directory)
                (copy / added).write_bytes(gzip.compress(b"{}\n"))
                done = verify(copy)
                self.assertEqual(done.code, TAMPERED, done.out + done.err)
                self.assertIn(added, done.out)

    def test_a_pinned_key_refuses_a_chain_that_another_key_signed(self):
        """Whoever signs a chain of his own has rows, files and keys that fit together; only keys from elsewhere tell."""
        mine, other = self.export(self.fleet()), self.export(self.fleet())
        self.assertEqual((verify(mine).code, verify(other).code), (0, 0))
        done = verify(other, "--signers", mine / "signers.json")
        self.assertEqual(done.code, TAMPERED, done.out + done.err)


if __name__ == "__main__":
    harness.main()
