"""Under load and short of everything: memory stays within its budget, and what is slow, poisoned, halted or hot stops nothing else."""

import collections
import hashlib
import json
import os
import random
import subprocess
import sys

import harness
from operations_test import at, fleet, parse_exposition, total

MIB = 1 << 20
NOW_MS = 1772366400000  # 2026-03-01T12:00:00Z
REPORTS, DEAD = "eval.reports.v1", "eval.reports.v1.dlq"
BUDGET_MIB = 112    # what one partition needs at least: 5 MiB more on the embedded log than on Kafka
STACK_KIB = 256     # of each thread, which counts as data although hardly any of it is ever used
THREADS_MAX = 128


def report(agent, index, **changes):
    return {"id": f"{agent}-{index}", "agentId": agent, "divisionId": "d", "metricSet": {"win": 0.5}, "timestamp": at(NOW_MS - 600000 + index),
            **changes}


def peak_mib(process):
    """The most that the process ever had in RAM."""
    with open(f"/proc/{process.child.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def threads_of(process):
    return len(os.listdir(f"/proc/{process.child.pid}/task"))


class Load(harness.EndToEnd):

    def lag(self, assay):
        return {(row["topic"].removeprefix(assay.prefix), row["partition"], row["group"].removeprefix(assay.prefix)): row["recordsBehind"]
                for row in json.loads(assay.call("lag", "-o", "json").out or "[]")}

    def tally(self, assay):
        status, text = assay.http("/query/tally")
        return json.loads(text) if status == 200 else {}

    def folded(self, assay, count, timeout_s=60):
        harness.wait_until(f"{count} reports to be folded", lambda: self.tally(assay).get("delivered") == count, timeout_s)

    def no_lag(self, assay):
        harness.wait_until("no lag", lambda: not any((self.lag(assay) or {None: 1}).values()), 60)

    # ------------------------------------------------------------------------------------------------------------- memory

    def limited(self, assay, *args):
        """Runs it where the system refuses every page of data beyond the budget and the stacks of its threads: RLIMIT_DATA counts
        all private memory that can be written, used or not, and holds in any container, for root as well."""
        limit = (BUDGET_MIB << 20) + THREADS_MAX * (STACK_KIB << 10)
        words = ["prlimit", f"--data={limit}", f"--stack={STACK_KIB << 10}", "--core=0", *assay.command(*args)]
        process = harness.Process(words, harness.clean_environment())
        assay.processes.append(process)
        return process

    @harness.both_logs
    def test_memory_stays_within_its_budget_under_a_hard_limit(self, assay):
        """Far more of everything than fits: agents, dead letters of the largest size, records of the largest size."""
        assay.database_url = harness.fresh_database()
        assay.sets += ["topics.partitions=1", f"memory={BUDGET_MIB}MiB"]
        assay.ok("topics", "apply")
        rng = random.Random(1)
        large, agents = 50, 6000
        pads = [rng.randbytes(MIB // 2 - 1024).hex().encode() for _ in range(4)]  # nothing that compression would make small
        bad = [b"{" + pads[index % 4] + b"%d" % index for index in range(large)]
        good = [json.dumps(report("big", index, metadata={"pad": pads[index % 4].decode()})).encode() for index in range(large)]
        assay.ok("produce", "--raw", data=b"".join(line + b"\n" for pair in zip(bad, good) for line in pair))
        wide = {f"metric-{index}": 0.5 for index in range(20)}
        assay.produce([report(f"agent-{index}", index, metricSet=wide) for index in range(agents)])
        process = self.limited(assay, "run")
        most, threads = 0.0, 0

        def done():
            nonlocal most, threads
            if not process.alive():
                raise AssertionError(f"run ended with {process.child.returncode}\n{process.err()[-4000:]}")
            most, threads = max(most, peak_mib(process)), max(threads, threads_of(process))
            return self.tally(assay).get("delivered") == 2 * large + agents

        harness.wait_until("everything to be folded within the budget", done, 120)
        self.no_lag(assay)
        most = max(most, peak_mib(process))
        print(f"{assay.log}: {most:.0f} MiB at most of {BUDGET_MIB}, {threads} threads", file=sys.stderr)
        self.assertLess(threads, THREADS_MAX, "the limit leaves the stacks of so many out")
        self.assertLess(most, BUDGET_MIB)
        self.assertEqual(process.terminate()[0], 0, process.err()[-3000:])
        self.assertEqual(self.dead_values(assay), collections.Counter(bad))

    def dead_values(self, assay):
        return collections.Counter(letter.value for letter in assay.read(DEAD))

    # ------------------------------------------------------------------------------------------- what is slow, bad or halted

    def test_a_database_that_does_not_answer_stops_the_chain_alone(self):
        assay = self.assay("kafka", database=True, sets=["audit.eval_submit=each"])
        assay.ok("run", "--until-end")  # the tables
        service = assay.start_service()
        url = assay.database_url
        holder = subprocess.Popen(["psql", url, "-X", "-q", "-A", "-t"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.kill)
        holder.stdin.write("BEGIN; LOCK TABLE audit_chain_head IN ACCESS EXCLUSIVE MODE; SELECT 'locked';\n")
        holder.stdin.flush()
        self.assertEqual(holder.stdout.readline(), "locked\n")
        count = 12000
        assay.produce(fleet(31, count))
        self.folded(assay, count)

        def all_but_the_chain():
            lag = self.lag(assay)
            return lag and all((behind == 0) == (topic != "audit-events") for (topic, _, _), behind in lag.items()) and lag

        lag = harness.wait_until("no lag but the chain's", all_but_the_chain, 60)
        self.assertGreater(lag["audit-events", 0, "assay.audit"], count // 2)
        self.assertTrue(assay.json("promotions"), "decisions are made meanwhile")
        self.assertTrue(assay.json("allocations"))
        self.assertEqual(assay.http("/health")[0], 200)
        holder.stdin.write("COMMIT;\n")
        holder.stdin.close()
        holder.wait()
        self.no_lag(assay)
        self.assertEqual(service.terminate()[0], 0)
        self.assertIn("Audit chain verified", assay.ok("audit", "verify").out.decode())
        self.assertEqual(int(assay.json("audit", "head")["rows"]), len(assay.read("audit-events")))

    @harness.both_logs
    def test_a_poison_storm_stops_nothing_and_every_dead_letter_is_there(self, assay):
        """Every second record is bad, in each partition and in many ways, some of them as large as a record may be."""
        rng = random.Random(7)
        good = fleet(41, 6000)
        ways = (lambda n: b"{broken %d" % n, lambda n: b"%d" % n, lambda n: json.dumps(report(f"a{n}", n, metricSet={})).encode(),
                lambda n: json.dumps(report(f"a{n}", n, timestamp="once")).encode(), lambda n: bytes([255, 254]) + b"%d" % n,
                lambda n: json.dumps(report("", n)).encode(), lambda n: b"[" * 200 + b"%d" % n)
        bad = [rng.choice(ways)(n) for n in range(5970)] + [b"{" + rng.randbytes(MIB // 2 - 100).hex().encode() for _ in range(30)]
        rng.shuffle(bad)
        assay.ok("produce", "--raw", data=b"".join(line + b"\n" for pair in zip((text.encode() for text in good), bad) for line in pair))
        sums = assay.fold()
        self.assertEqual((sums["delivered"], sums["accepted"], sums["deadLetters"]), (12000, 6000, 6000))
        self.assertEqual(self.dead_values(assay), collections.Counter(bad))
        calm = self.assay()
        calm.produce(good)
        calm.fold()
        # Ids come from places, and instants from the clock: those alone may differ.
        for question, names in ((["scores"], ("agentId", "window", "score", "lower", "upper", "samples", "components")),
                                (["promotions"], ("entityId", "action", "status", "score", "confidence", "ts"))):
            mine, theirs = ([{name: row[name] for name in names} for row in of.json(*question)] for of in (assay, calm))
            self.assertTrue(mine)
            self.assertEqual(mine, theirs, "the good ones count as if nothing had been")

    def test_dead_letters_near_their_limit_are_whole_or_say_what_is_missing(self):
        """On Kafka, where others send what they like; from the largest record of ours to more than any dead letter holds."""
        assay = self.assay("kafka", sets=["topics.partitions=1"])
        assay.ok("topics", "apply")
        limit = MIB + 65536
        sizes = [MIB - 1, MIB, MIB + 1, *range(limit - 4500, limit - 3500, 100), limit - 1, limit, limit + 1, 2 * MIB - 4096]
        rng = random.Random(3)
        sent = []
        for size in sizes:
            path = self.directory / f"value-{size}"
            sent.append(b"{" + rng.randbytes(size // 2).hex().encode()[:size - 1])
            path.write_bytes(sent[-1])
            harness.kcat("-P", "-t", assay.prefix + REPORTS, "-p", "0", "-X", "message.max.bytes=4000000", str(path))
        assay.send([(0, NOW_MS, b"after", json.dumps(report("after", 1)).encode(), [])])
        sums = assay.fold()
        self.assertEqual((sums["accepted"], sums["deadLetters"]), (1, len(sizes)))
        letters = assay.read(DEAD)
        self.assertEqual(len(letters), len(sizes))
        whole = [letter for letter in letters if letter.value == sent[letters.index(letter)]]
        self.assertEqual([len(letter.value) for letter in whole], sizes[:len(whole)], "up to some size whole, beyond it none")
        self.assertGreater(len(whole[-1].value), limit - 4500)
        for letter, value in list(zip(letters, sent))[len(whole):]:
            headers = {name: text for name, text in letter.headers}
            self.assertEqual(letter.value, value[:65536])
            self.assertEqual((headers["assay-truncated"], headers["assay-original-size"], headers["assay-original-sha256"]),
                             (b"1", str(len(value)).encode(), hashlib.sha256(value).hexdigest().encode()))

    def test_a_halted_partition_stops_no_other(self):
        assay = self.assay("kafka")
        first, then = fleet(51, 1500), fleet(52, 1500, hours=60)
        assay.produce(first)
        service = assay.start_service()
        self.folded(assay, 1500)
        self.no_lag(assay)
        scores = assay.read("eval.scores.v1")
        last = [record for record in scores if record.partition == scores[0].partition][-1]
        victim = last.partition
        stamp = dict(last.headers)["assay-writer"]
        writer, number = stamp.rsplit(b"/", 1)
        # A number left out: what was between is missing for ever, and who folds on decides without it.
        assay.send([(victim, NOW_MS, last.key, last.value, [(name, b"%s/%d" % (writer, int(number) + 5) if name == "assay-writer" else text)
                                                            for name, text in last.headers])], "eval.scores.v1")
        halted = f"promotion-{victim}"

        def tasks():
            return {row["task"]: row for row in json.loads(assay.http("/ready")[1] or "{}").get("tasks", [])}

        harness.wait_until("the halt", lambda: tasks().get(halted, {}).get("state") == "halted", 60)
        self.assertIn("INPUT_GAP", tasks()[halted]["detail"])
        assay.produce(then)
        self.folded(assay, 3000)
        behind = harness.wait_until("no lag but one partition's", lambda: {key for key, count in self.lag(assay).items() if count} ==
                                    {("eval.scores.v1", victim, "assay.promotion")}, 60)
        self.assertTrue(behind)
        self.assertEqual({name for name, row in tasks().items() if row["state"] != "running"}, {halted})
        samples = parse_exposition(assay.http("/metrics")[1])
        self.assertEqual(total(samples, "assay_task_halted", f'task="{halted}"', 'halt="INPUT_GAP"'), 1)
        self.assertTrue(service.alive())
        calm = self.assay()
        calm.produce(first + then)
        calm.fold()
        mine = {record.key.decode(): record.partition for record in scores}
        wanted, found = ([row for row in of.json("promotions") if mine.get(row["entityId"]) != victim] for of in (calm, assay))
        self.assertTrue(wanted)
        self.assertEqual(found, wanted)
        self.assertEqual(service.terminate()[0], 0)

    @harness.both_logs
    def test_a_hot_key_is_exact_and_starves_nobody(self, assay):
        """One agent sends 19 of 20 reports, ever faster ones, ahead of all others in its partition."""
        rng = random.Random(5)
        count = 30000
        agents = ["hot" if index < count * 9 // 10 or rng.random() < 0.5 else f"cool-{rng.randrange(50)}" for index in range(count)]
        assay.produce([report(agent, index) for index, agent in enumerate(agents)])
        sums = assay.fold()
        self.assertEqual((sums["delivered"], sums["accepted"]), (count, count))
        rows = {row["agentId"]: row["samples"] for row in assay.json("scores", "--window", "24h")}
        self.assertEqual(rows, dict(collections.Counter(agents)))

if __name__ == "__main__":
    harness.main()
