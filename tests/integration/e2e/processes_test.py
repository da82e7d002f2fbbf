"""Several processes share the partitions of one pipeline: answers are whole or exit 8, and nothing shows of who folded what."""

import json
import signal

import group
import harness
from operations_test import fleet

QUESTIONS = (["scores"], ["scoreboard"], ["scoreboard", "--window", "1h", "--division", "d1"], ["promotions"], ["allocations"],
             ["pools"], ["state", "digest", "--recompute"])


class Processes(group.Group):

    def test_any_process_answers_for_all_and_a_lost_one_is_exit_8(self):
        lines = fleet(21, 1500)
        alone = self.assay()
        alone.produce(lines)
        alone.fold()
        members = self.group(3)
        services = [member.start_service() for member in members]
        self.settle(members)
        members[0].produce(lines)
        self.folded(members[1], 1500)
        self.assertEqual(members[2].digests(), alone.digests(), "one process or three: one state")
        stranger = self.group(1)[0]
        stranger.prefix = members[0].prefix
        for words in QUESTIONS:
            answers = [member.json(*words) for member in (*members, stranger)]
            self.assertTrue(answers[0], words)
            for answer in answers[1:]:
                self.assertEqual(answer, answers[0], words)
        # A frozen owner: exit 8 names the task and its owner, until the others have taken it over.
        frozen = next(index for index in range(3) if any(t.startswith("scoring") for t in self.owned(members[index])))
        rest = [index for index in range(3) if index != frozen]
        lost = self.owned(members[frozen])
        before = members[rest[0]].json("scores")
        services[frozen].child.send_signal(signal.SIGSTOP)
        done = members[rest[0]].call("scores", "-o", "json")
        if done.code != 0:  # the group may have moved on meanwhile
            self.assertEqual((done.code, done.out), (8, b""), done.err)
            self.assertRegex(done.err, r"scoring-\d.*assay@127\.0\.0\.1:\d+")
            self.assertTrue(any(task in done.err for task in lost), done.err)
        self.settle([members[index] for index in rest])
        self.assertEqual(members[rest[0]].json("scores"), before)
        # It comes back as if nothing had been, and says nothing of the past.
        members[rest[0]].produce(fleet(22, 300, hours=3))
        self.folded(members[rest[0]], 1800)
        services[frozen].child.send_signal(signal.SIGCONT)
        answers = {member.call("scores", "-o", "json").out for member in members}
        self.assertLessEqual(len(answers - {b""}), 1, "whole or nothing, never the past")
        self.settle(members)
        self.assertEqual(len({json.dumps(member.json("scores")) for member in members}), 1)
        alone.produce(fleet(22, 300, hours=3))
        alone.fold()
        self.assertEqual(members[0].digests(), alone.digests())
        for member in members:
            member.close()

    def test_a_quick_restart_moves_nothing(self):
        members = self.group(2)
        services = [member.start_service() for member in members]
        owned = self.settle(members)
        name = (members[0].data / "process.json").read_text()
        revoked = services[1].err().count("group.revoked")
        services[0].kill()
        services[0] = members[0].start_service()
        self.assertEqual(self.settle(members), owned)
        self.assertEqual((members[0].data / "process.json").read_text(), name)
        self.assertEqual(services[1].err().count("group.revoked"), revoked, services[1].err()[-3000:])
        second = members[0].call("run")
        self.assertEqual(second.code, 5, second.err)
        for service in services:
            self.assertEqual(service.terminate()[0], 0)


if __name__ == "__main__":
    harness.main()
