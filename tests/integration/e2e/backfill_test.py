"""`replay backfill` against an installation that had the mended rules from the start: what it corrects, once, and what stays."""
import json
import pathlib
import random
import re
import shlex
import subprocess
import time

import harness
from what_if_test import rules, stream

ROOT = pathlib.Path(__file__).resolve().parents[3]
WRONG = rules(high=9.0, grace="10m")
MENDED = rules()
WORDS = ("computedAt", "configVersion", "rationale", "corrects")


def window(score):
    return score["agentId"], score["window"], score["windowEnd"]


def content(score):
    return {name: value for name, value in score.items() if name not in WORDS}


class Backfill(harness.EndToEnd):
    other = None  # the scores of an installation that had the mended rules from the start

    def world(self, here, text):
        here.config = here.directory / "rules.toml"
        here.config.write_text(text)
        here.produce(stream(5))
        here.fold()
        return here

    def installation(self, log):
        return self.assay(log, sets=["topics.partitions=2", "log.level=error", f"archive.url=file://{self.directory}/archive-{log}"])

    def scores(self, here):
        """(originals by window, corrections in order), each (id, value)."""
        originals, corrections = {}, []
        for record in here.read("eval.scores.v1"):
            score, own = json.loads(record.value), dict(record.headers)["assay-id"].decode()
            if "corrects" in score:
                corrections.append((own, score))
            else:
                self.assertNotIn(window(score), originals)
                originals[window(score)] = own, score
        return originals, corrections

    def expected(self, originals):
        """What must be told of each window, from an installation that never knew other rules."""
        if Backfill.other is None:
            Backfill.other, _ = self.scores(self.world(self.assay(sets=["topics.partitions=2", "log.level=error"]), MENDED))
        other = Backfill.other
        changed = {w for w in originals.keys() & other.keys() if content(originals[w][1]) != content(other[w][1])}
        return {w: other[w][1] for w in changed | (other.keys() - originals.keys())}, originals.keys() - other.keys()

    def check(self, here):
        originals, corrections = self.scores(here)
        told, withdrawn = self.expected(originals)
        self.assertGreater(len(told), 600)
        self.assertEqual(len({own for own, _ in corrections}), len(corrections))
        self.assertEqual(sorted(window(score) for _, score in corrections), sorted(told.keys() | withdrawn))
        for own, score in corrections:
            original = originals.get(window(score))
            self.assertEqual(score["corrects"], original and original[0])
            if window(score) in told:
                self.assertEqual(content(score), content(told[window(score)]))
            else:
                self.assertEqual((score["score"], score["samples"], score["components"]), (None, 0, []))
        return originals, corrections

    def mended(self, here):
        path = here.directory / "mended.toml"
        path.write_text(MENDED)
        return path

    def test_what_the_mended_rules_say_is_written_once(self):
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                here = self.world(self.installation(log), WRONG)
                words = ("replay", "backfill", "--with", self.mended(here))
                before, digests = here.read("eval.scores.v1"), here.digests()
                promotions = here.read("promotion.events.v1")
                dry = here.json(*words, "--dry-run", "--limit", 0)
                self.assertEqual((dry["dryRun"], dry["auditRows"], dry["corrections"]), (True, 0, len(dry["rows"])))
                self.assertTrue(dry["from"].startswith("log+archive:file://"), dry["from"])
                self.assertEqual(here.read("eval.scores.v1"), before)
                one = here.json(*words, "--dry-run", "--limit", 0, "--agent", "agent-3")
                self.assertEqual(one["rows"], [row for row in dry["rows"] if row["agentId"] == "agent-3"])
                middle = sorted(row["windowEnd"] for row in dry["rows"])[len(dry["rows"]) // 2]
                parts = [here.json(*words, "--dry-run", "--limit", 0, flag, middle)["rows"] for flag in ("--until", "--since")]
                self.assertEqual(sorted(map(str, parts[0] + parts[1])), sorted(map(str, dry["rows"])))
                self.assertLess(max(row["windowEnd"] for row in parts[0]), min(row["windowEnd"] for row in parts[1]))
                self.assertIn("--reason", here.ok(*words, code=2).err)
                self.assertIn("behind the log", here.ok(*words, "--from", "archive", "--reason", "r", code=2).err)
                self.assertEqual(here.read("eval.scores.v1"), before)

                done = here.json(*words, "--reason", "limits of another unit", "--by", "ann", "--limit", 0)
                self.assertEqual(done["rows"], dry["rows"])
                self.assertGreaterEqual(done["auditRows"], 2)
                originals, corrections = self.check(here)
                by_id = {own: score for own, score in corrections}
                for row in done["rows"]:
                    score, original = by_id[row["id"]], originals.get(window(row))
                    kind = "added" if original is None else "withdrawn" if score["samples"] == 0 else "changed"
                    self.assertEqual((row["change"], row["was"], row["is"]), (kind, original and original[1]["score"], score["score"]))
                again = here.json(*words, "--reason", "again")
                self.assertEqual((again["corrections"], again["auditRows"], again["rows"]), (0, 0, []))
                self.assertEqual(len(here.read("eval.scores.v1")), len(before) + len(corrections))

                # The pipeline goes on: nothing that was decided changes, and everything can be folded again.
                here.fold()
                self.assertEqual(here.read("promotion.events.v1"), promotions)
                self.assertEqual({task for task, digest in here.digests().items() if digest == digests[task]} & {"scoring-0", "scoring-1"},
                                 {"scoring-0", "scoring-1"})
                here.ok("replay", "verify")
                here.ok("replay", "verify", "--from", "archive")
                out = self.directory / f"export-{log}"
                here.ok("audit", "export", "--out", out)
                here.ok("audit", "verify", "--archive", out, "--signers", out / "signers.json")
                rows = [json.loads(record.value) for record in here.read("audit-events")]
                rows = [row for row in rows if row["eventType"] == "eval.scores.corrected"]
                self.assertEqual({(row["actor"], row["data"]["reason"]) for row in rows}, {("user:ann", "limits of another unit")})
                named = [one["id"] for row in rows for one in row["data"]["corrections"]]
                self.assertEqual(sorted(named), sorted(by_id))

                # A correction leads to what it corrects, the audit row to its corrections.
                own, score = next((own, score) for own, score in corrections if score["corrects"] and score["samples"])
                tree = here.json("replay", "explain", own)
                self.assertEqual((tree["kind"], tree["agrees"], tree["causes"][0]["id"]), ("correction", None, score["corrects"]))
                self.assertEqual(tree["causes"][0]["agrees"], True)
                row = here.json("replay", "explain", rows[0]["id"])
                self.assertEqual((row["kind"], row["agrees"], row["reason"]), ("audit", True, "limits of another unit"))

                # By the rules that were in force nothing was wrong, so the first scores stand again.
                back = here.json("replay", "backfill", "--reason", "taken back")
                self.assertEqual(back["corrections"], done["corrections"])
                last = {}
                for record in here.read("eval.scores.v1"):
                    last[window(json.loads(record.value))] = json.loads(record.value)
                for name, (_, original) in originals.items():
                    self.assertEqual(content(last[name]), content(original))

    def test_kill_9_and_run_again(self):
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                here = self.world(self.installation(log), WRONG)
                rng = random.Random(3)
                words = ("replay", "backfill", "--with", self.mended(here), "--reason", "limits")
                began = time.monotonic()
                here.json(*words, "--dry-run")
                whole_s = time.monotonic() - began
                for _ in range(3):
                    process = here.start(*words)
                    time.sleep(whole_s * rng.uniform(0.5, 1.3))
                    process.kill()
                here.ok(*words)
                self.check(here)
                here.fold()
                here.ok("replay", "verify")

    def test_the_page_is_done_as_it_stands(self):
        here = self.world(self.installation("embedded"), WRONG)
        words = " ".join(shlex.quote(word) for word in here.command()[1:])
        shell = f'assay() {{ command "{harness.BIN}/assay" {words} "$@"; }}\n'
        env = {**harness.clean_environment(), "MENDED": str(self.mended(here)), "WHO": "Ada", "WHY": "limits of another unit"}
        page = (ROOT / "runbooks" / "scoring_backfill.md").read_text()
        said = []
        for line in "\n".join("mend" if drill else block.strip() for drill, block in
                              re.findall(r"<!-- drill: (the rules .*?) -->|```sh\n(.*?)```", page, re.DOTALL)).splitlines():
            if line == "mend":
                here.config.write_text(MENDED)
                continue
            done = subprocess.run(["bash", "-c", shell + line], env=env, capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}\n{done.stderr}")
            if "finds nothing" in line:
                said.append("; 0 corrections (" in done.stderr)
            if "audit verify" in line:
                said.append("Audit chain verified" in done.stdout)
        self.assertEqual(said, [True, True])

    def test_beside_a_running_pipeline(self):
        """A broker has room for both; a directory belongs to one process."""
        alone = self.world(self.installation("embedded"), WRONG)
        alone.start_service()
        words = ("replay", "backfill", "--with", self.mended(alone), "--reason", "limits")
        self.assertIn("held by process", alone.ok(*words, code=5).err)
        here = self.world(self.installation("kafka"), WRONG)
        here.start_service()
        words = ("replay", "backfill", "--with", self.mended(here), "--reason", "limits")
        done = here.json(*words)
        self.assertGreater(done["corrections"], 600)
        self.check(here)
        harness.wait_until("the pipeline past the corrections", lambda: all(
            row["recordsBehind"] == 0 for row in json.loads(here.call("lag", "-o", "json").out) if not row["group"].endswith("archive")))


if __name__ == "__main__":
    harness.main()
