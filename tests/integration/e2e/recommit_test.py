"""Offsets that were lost are committed again from the last manifest, by the command that the runbook names, and only when it is safe."""

import json

import harness
from operations_test import fleet


class Recommit(harness.EndToEnd):

    def test_offsets_that_another_consumer_set_are_committed_again(self):
        home = self.assay("kafka")
        home.produce(fleet(41, 400))
        home.fold()
        sound = home.json("state", "recommit", "scoring-0")
        self.assertFalse(sound["written"], "nothing was lost")
        # Somebody reads the topic under the group's name, and the offsets are his from then on.
        home.produce(fleet(42, 200, hours=3))
        harness.kcat("-G", home.prefix + "assay.scoring", "-e", "-q", home.prefix + "eval.reports.v1")
        halted = home.call("run", "--until-end")
        self.assertEqual(halted.code, 8, halted.err)
        self.assertIn("OFFSETS_LOST", halted.err)
        # Not while a process owns the task, even one that stands at the halt.
        service = home.start("run")
        harness.wait_until("the halt", lambda: "task.halted" in service.err())
        other = self.assay("kafka")
        other.prefix = home.prefix
        for asked in (home, other):
            refused = asked.call("state", "recommit", "scoring-0")
            self.assertEqual(refused.code, 5, refused.err)
        self.assertIn("assay@127.0.0.1", refused.err)
        service.terminate()
        service.close()

        def free():
            done = other.call("state", "recommit", "scoring-0", "-o", "json")  # no directory is needed for it
            self.assertIn(done.code, (0, 5), done.err)
            return json.loads(done.out) if done.code == 0 else None

        first = harness.wait_until("the session's end", free, timeout_s=60, every_s=1)
        self.assertTrue(first["written"])
        self.assertEqual(first["metadata"], sound["metadata"], "the mark of the last commit, as it was")
        self.assertEqual([row["offset"] for row in first["offsets"]], [row["offset"] for row in sound["offsets"]])
        for task in ("scoring-1", "scoring-2", "scoring-3"):
            home.ok("state", "recommit", task)
        for task in ("promotion-0", "allocation-0"):
            self.assertFalse(home.json("state", "recommit", task)["written"])
        self.assertEqual(home.fold()["delivered"], 600)
        alone = self.assay()
        alone.produce(fleet(41, 400))
        alone.produce(fleet(42, 200, hours=3))
        alone.fold()
        self.assertEqual(home.digests(), alone.digests())
        verified = home.call("replay", "verify")
        self.assertEqual(verified.code, 0, verified.err)

    def test_it_names_what_it_does_not_know(self):
        home = self.assay()
        home.produce(fleet(43, 50))
        self.assertEqual(home.call("state", "recommit", "scoring-0").code, 8, "it never committed")
        self.assertEqual(home.call("state", "recommit", "scoring-9").code, 2)
        self.assertEqual(home.call("state", "recommit").code, 2)


if __name__ == "__main__":
    harness.main()
