"""Several processes share the partitions of one pipeline: answers are whole or exit 8, and nothing shows of who folded what."""

import json
import signal
import subprocess

import frozen_broker
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
        members = self.group(3, config=self.session_of("25000"))
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
        done = members[rest[0]].call("scores", "-o", "json")  # it waits less long than the session lasts
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
        # What it wrote into its own directory were commits that the log had acknowledged: no store of it was put aside.
        zombie = services[frozen].err()
        self.assertRegex(zombie, r"group\.revoked .*lost=true|task\.fenced|group\.failed")
        self.assertNotIn("store.replaced", zombie)
        self.assertNotIn("task.halted", zombie)
        alone.produce(fleet(22, 300, hours=3))
        alone.fold()
        self.assertEqual(members[0].digests(), alone.digests())
        for member in members:
            member.close()

    def session_of(self, milliseconds):
        """A configuration with another session timeout than the default of 10 s."""
        path = self.directory / f"session-{milliseconds}.toml"
        path.write_text(f'[kafka.properties]\n"session.timeout.ms" = "{milliseconds}"\n')
        return path

    def test_who_leaves_is_replaced_and_who_comes_back_shares_again(self):
        members = self.group(3, config=self.session_of("6000"))
        services = [member.start_service() for member in members]
        self.settle(members)
        members[0].produce(fleet(23, 600))
        self.folded(members[0], 600)
        self.assertEqual(services[2].terminate()[0], 0)
        rest = members[:2]
        self.settle(rest)
        members[0].produce(fleet(24, 300, hours=3))
        self.folded(members[1], 900)
        answer = members[0].json("scores")
        services[2] = members[2].start_service()
        self.settle(members)
        for member in members:
            self.assertEqual(member.json("scores"), answer)
        members[2].produce(fleet(25, 300, hours=3))
        self.folded(members[2], 1200)
        alone = self.assay()
        for seed, count, hours in ((23, 600, 30), (24, 300, 3), (25, 300, 3)):
            alone.produce(fleet(seed, count, hours=hours))
        alone.fold()
        self.assertEqual(members[2].digests(), alone.digests())
        for service in services:
            self.assertEqual(service.terminate()[0], 0)
            self.assertNotIn("task.halted", service.err())

    def test_processes_with_different_secrets_give_each_other_nothing(self):
        members = self.group(2)
        members[0].sets = ["peers.secret=aaaaaaaaaaaaaaaaaaaaaaaa"]
        members[1].sets = ["peers.secret=bbbbbbbbbbbbbbbbbbbbbbbb"]
        for member in members:
            member.start_service()
        self.settle(members)
        for member in members:
            done = member.call("scores", "-o", "json")
            self.assertEqual((done.code, done.out), (8, b""), done.err)
            self.assertRegex(done.err, r"the state of scoring-\d cannot be had: .*MAC of peers\.secret")
        # One secret, and both answer again.
        members[1].close()
        members[1].sets = members[0].sets
        members[1].start_service()
        self.settle(members)
        self.assertEqual(members[0].json("scores"), members[1].json("scores"))

    def test_a_frozen_broker_keeps_nobody(self):
        broker = frozen_broker.FrozenBroker()
        self.addCleanup(broker.close)
        service_home, run_home = self.assay("kafka", brokers=broker.address), self.assay("kafka", brokers=broker.address)
        run_home.sets = ["run.patience=3s"]
        service_home.produce(fleet(26, 300))
        service = service_home.start_service()
        run_home.produce(fleet(27, 300))
        run = run_home.start("run", "--until-end")
        harness.wait_until("a member", lambda: "group.assigned" in run.err())
        broker.freeze()
        self.assertEqual(service.terminate(timeout_s=30)[0], 0, service.err()[-3000:])
        self.assertEqual(run.child.wait(timeout=90), 6, run.err()[-3000:])
        self.assertIn("no answer for 3 s", run.err())
        # Thawed, it goes on as if nothing had been.
        broker.thaw()
        self.assertEqual(run_home.fold()["delivered"], 300)
        self.assertEqual(service_home.fold()["delivered"], 300)

    def test_whoever_asked_a_broker_that_was_away_lives_when_it_is_back(self):
        broker = frozen_broker.FrozenBroker()
        self.addCleanup(broker.close)
        probe = subprocess.Popen([harness.BIN / "log_probe", "kafka", broker.address, "members"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        self.addCleanup(probe.kill)

        def asked(group):
            probe.stdin.write(group + "\n")
            probe.stdin.flush()
            return probe.stdout.readline().rstrip("\n")

        harness.wait_until("a first answer", lambda: asked("somebody") == "0")
        broker.stop()
        self.assertIn("asking for the members of group somebody", asked("somebody"))
        broker.start()
        # What waited for the coordinator in vain finds it now.
        harness.wait_until("an answer", lambda: asked("somebody") == "0")
        probe.stdin.close()
        self.assertEqual(probe.wait(60), 0)
        probe.stdout.close()

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
