"""Copies of stores kept warm by other processes: a takeover finds one and rebuilds nothing, and a copy never speaks for its task."""

import json
import re
import signal

import group
import harness
from operations_test import fleet

RECOVERED = re.compile(r'task\.recovered task=(\S+) outcome="?([a-zA-Z_ ]+?)"? detail="([^"]*)"')


class Standby(group.Group):

    def ready(self, member):
        status, text = member.http("/ready")
        return json.loads(text) if status else None

    def standbys(self, member):
        """{task: row} of the copies that this process keeps, by its own word."""
        said = self.ready(member)
        return {} if said is None else {row["task"]: row for row in said["standbys"]}

    def warm(self, members, tasks=9):
        """Waits until each task has its copy in a process that does not own it, and every copy stands where its owner does."""
        digests = {row["task"]: int(row["sequence"]) for row in members[0].json("state", "digest")}

        def look():
            copies = [self.standbys(member) for member in members]
            owned = [self.owned(member) for member in members]
            if sum(map(len, copies)) != tasks or None in owned or any(set(c) & o for c, o in zip(copies, owned)):
                return None
            behind = [row for rows in copies for row in rows.values() if row["sequence"] != digests[row["task"]] or row["detail"]]
            return None if behind else copies

        return harness.wait_until("a warm copy of each store", look, timeout_s=90)

    def recoveries(self, service, since):
        return [match.groups() for match in RECOVERED.finditer(service.err()[since:])]

    def test_a_killed_owner_is_replaced_by_its_copy_without_a_rebuild(self):
        members = self.group(3, sets=["state.checkpoint_interval=1d"])
        services = [member.start_service() for member in members]
        self.settle(members)
        members[0].produce(fleet(31, 1500))
        self.folded(members[0], 1500)
        copies = self.warm(members)
        # A copy says nothing: each task is answered for by its owner alone, and no more tasks than there are.
        for member in members:
            self.assertEqual(len(json.loads(member.http("/query/digest")[1])), 9)
        # While records flow, the owner of scoring-0 is killed.
        victim = next(i for i in range(3) if "scoring-0" in self.owned(members[i]))
        rest = [i for i in range(3) if i != victim]
        lost = self.owned(members[victim]) - {"audit-0"}
        keepers = {task: i for i in rest for task in copies[i] if task in lost}
        self.assertEqual(set(keepers), lost)
        members[rest[0]].produce(fleet(32, 500, hours=3))
        marks = {i: len(services[i].err()) for i in rest}
        services[victim].child.send_signal(signal.SIGKILL)
        services[victim].child.wait()
        self.settle([members[i] for i in rest])
        self.folded(members[rest[0]], 2000)
        for task, keeper in keepers.items():
            self.assertIn(task, self.owned(members[keeper]), "the assignor gives it to the one who kept the copy")
            outcomes = [(outcome, detail) for name, outcome, detail in self.recoveries(services[keeper], marks[keeper]) if name == task]
            self.assertTrue(outcomes, services[keeper].err()[-3000:])
            for outcome, detail in outcomes:
                if outcome == "clean":
                    continue
                self.assertEqual(outcome, "catch up", detail)
                come, to = map(int, re.fullmatch(r"from manifest (\d+) to (\d+)", detail).groups())
                self.assertLess(to - come, 40, f"{task}: a few commits, no rebuild")
                self.assertGreater(come, 1)
        # What came of it is what one process makes of the same reports, and what a replay makes of the log.
        alone = self.assay()
        alone.produce(fleet(31, 1500))
        alone.produce(fleet(32, 500, hours=3))
        alone.fold()
        self.assertEqual(members[rest[0]].digests(), alone.digests())
        for i in rest:
            self.assertEqual(services[i].terminate()[0], 0)
        verified = members[rest[0]].call("replay", "verify", "-o", "json")
        self.assertEqual(verified.code, 0, verified.err[-2000:])

    def test_two_processes_without_copies_keep_none(self):
        members = self.group(2, sets=["run.standbys=0"])
        services = [member.start_service() for member in members]
        self.settle(members)
        members[0].produce(fleet(33, 200))
        self.folded(members[0], 200)
        for member, service in zip(members, services):
            self.assertEqual(self.standbys(member), {})
            self.assertNotIn("standby.", service.err())


if __name__ == "__main__":
    harness.main()
