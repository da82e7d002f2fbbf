"""The end of a run: faults have stopped, everything is folded, and all that was promised is counted, by clients and an oracle of other hands."""

import collections
import contextlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tomllib

from world import ROOT, SESSION_S, Failed, wait_until

sys.path.insert(0, str(ROOT / "tests" / "oracle"))
import compare
import reference

SETTLE_S = 90
LARGEST_RECORD_BYTES = 1048576
SCORE_AGENTS = 60  # whose every closed window is computed again in exact rationals; of the others, how many there are
TOPICS = ("eval.scores.v1", "eval.scores.live.v1", "promotion.events.v1", "allocation.events.v1", "audit-events")
DEAD = "eval.reports.v1.dlq"
HOLDING = ("reserved", "pending_finance", "funded", "infra_requested", "applied", "settled", "preempting")


def demand(holds, what):
    if not holds:
        raise Failed(what)


def same(what, expected, actual, **options):
    with io.StringIO() as said, contextlib.redirect_stdout(said):
        found = compare.compare(expected, actual, **options)
        demand(found == 0, f"{what}: {found} differences from the oracle\n{said.getvalue()}")


# ------------------------------------------------------------------------------------------------- topics, as kcat reads them


@contextlib.contextmanager
def kcat(topic, *flags):
    """What a client that nobody here wrote reads of the committed records."""
    words = ["kcat", "-b", os.environ["ASSAY_TEST_BROKERS"], "-C", "-t", topic, "-e", "-q", "-X", "isolation.level=read_committed", *flags]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield child.stdout
    told = child.stderr.read().decode(errors="replace")
    demand(child.wait() == 0, f"kcat {topic}: exit {child.returncode}: {told}")


def raw_values(topic):
    """{partition: [value]} in the order of the log; values may be any bytes."""
    found = collections.defaultdict(list)
    with kcat(topic, "-f", "%p %o %S %s") as out:
        while True:
            head = b""
            while head.count(b" ") < 3:
                byte = out.read(1)
                if not byte:
                    demand(not head, f"kcat {topic}: ends within a record")
                    break
                head += byte
            if not head:
                break
            partition, offset, size = map(int, head.split())
            found[partition].append((offset, out.read(max(0, size))))
    for records in found.values():
        records.sort()  # kcat takes partitions as they come, and a partition in its order
    return {partition: [value for _, value in records] for partition, records in found.items()}


class Writers:
    """Every output record once: ids are unique, and each writer's numbers run from 0 without a hole."""

    def __init__(self, topic):
        self.topic, self.ids, self.next, self.count = topic, set(), {}, 0

    def see(self, partition, headers):
        self.count += 1
        if "assay-id" in headers:
            demand(headers["assay-id"] not in self.ids, f"{self.topic}: the record {headers['assay-id']} stands there twice")
            self.ids.add(headers["assay-id"])
        if self.topic == "audit-events" and not headers:
            return  # what no task wrote: that a log was restored
        task, lineage, number = headers["assay-writer"].split("/")
        writer = partition, task, lineage
        due = self.next.get(writer, 0)
        demand(int(number) == due, f"{self.topic}/{partition}: writer {task}/{lineage} sent {number} where {due} was due")
        self.next[writer] = due + 1


def records(topic):
    """Each record of a topic as (partition, key, value, headers); a partition's in its order."""
    with kcat(topic, "-J") as out:
        for line in out:
            row = json.loads(line)
            names = row.get("headers", [])
            yield row["partition"], row["key"], row["payload"], dict(zip(names[::2], names[1::2], strict=True))


# -------------------------------------------------------------------------------------------------------------------- checks


class Verdict:
    """The checks, in the order in which they are worth reading; `facts` is what they counted."""

    def __init__(self, world, say):
        self.world, self.say, self.facts = world, say, {}
        self.data = world.services[0].data

    def run(self, lines):
        for what, check in (("settled", self.settle), ("stores", self.stores), ("input", lambda: self.judge_input(lines)),
                            ("outputs", self.outputs), ("decisions", self.decisions), ("replay", self.replay), ("audit", self.audit)):
            self.say(f"      checking {what}")
            check()
        return self.facts

    def settle(self):
        """Left alone, the system comes to the end of everything by itself."""
        world = self.world
        for member in world.services:
            if member.stopped:
                member.signal(signal.SIGCONT)
            member.expect_alive()
        world.expect_ready(SETTLE_S, "the faults had stopped")

        def folded():
            for member in world.services:
                member.expect_alive()
            done = subprocess.run(world.command(world.directory / "onlooker", "lag", "-o", "json"), capture_output=True, timeout=60)
            rows = json.loads(done.stdout) if done.returncode in (0, 3) else None
            return rows and all(row["recordsBehind"] == 0 for row in rows)

        wait_until("everything to be folded once the faults had stopped", folded, SETTLE_S, 0.5)
        self.facts["left after SIGTERM in s"] = round(max(member.terminate(SESSION_S + 5) for member in world.services), 2)

    def stores(self):
        """Each directory in turn takes all tasks: whatever it went through, its stores are the same as everybody's."""
        accounts, digests = {}, {}
        for member in self.world.services:
            accounts[member.name] = self.world.json(member.data, "run", "--until-end")
            rows = self.world.json(member.data, "state", "digest")
            again = self.world.json(member.data, "state", "digest", "--recompute")
            demand(again == rows, f"stores of {member.name}: digests kept and recomputed differ:\n{rows}\n{again}")
            digests[member.name] = {row["task"]: row["digest"] for row in rows}
        first = next(iter(digests))
        for name in digests:
            demand(digests[name] == digests[first], f"stores of {name} and {first} differ:\n{digests[name]}\n{digests[first]}")
            demand(accounts[name] == accounts[first], f"{name} and {first} account differently:\n{accounts[name]}\n{accounts[first]}")
        self.digests, self.account = digests[first], accounts[first]

    def judge_input(self, lines):
        """Every line that was confirmed is on the log; what the log holds counts as the oracle says, and as if each line were sent once."""
        config = reference.load_config(str(self.world.directory / "assay.toml"), record_time=self.world.started_ms)
        taken = [line.rstrip(b"\n") for line in lines if len(line) <= LARGEST_RECORD_BYTES]
        by_partition = raw_values("eval.reports.v1")
        on_log = [value for partition in sorted(by_partition) for value in by_partition[partition]]
        sent, held = collections.Counter(taken), collections.Counter(on_log)
        missing = sent - held
        demand(not missing, f"input: {missing.total()} lines that were confirmed are not on the log, first {next(iter(missing), b'')[:200]!r}")
        demand(not held.keys() - sent.keys(), "input: the log holds lines that nobody sent")
        repeated = (held - sent).total()
        portions = self.world.loader.repeats
        demand(portions or not repeated, f"input: {repeated} lines are on the log more often than they were sent")
        self.fold = reference.Fold(on_log, config)
        counts = reference.counts(self.fold)
        same("counts", counts, {**self.account, "in": self.account["delivered"]})
        once = reference.counts(reference.Fold(taken, config))
        demand(once["agents"] == counts["agents"], "input: lines sent once and the log's content make different accepted reports")
        self.facts.update({"reports": len(taken), "on the log": len(on_log), "sent again": repeated, **{
            word: counts[word] for word in ("accepted", "filtered", "deadLetters")}})

    def outputs(self):
        """Each output record once, and each the one that the oracle wants."""
        agents = sorted(self.fold.agents)
        step = max(1, len(agents) // SCORE_AGENTS)
        sample = set(agents[::step][:SCORE_AGENTS])
        expected = collections.Counter(agent.id for agent, _, _ in self.fold.closed())
        actual, scores, self.events = collections.Counter(), [], {}
        for topic in TOPICS:
            writers = Writers(topic)
            rows = self.events.setdefault(topic, [])
            for partition, _, value, headers in records(topic):
                writers.see(partition, headers)
                if topic == "eval.scores.v1":
                    row = json.loads(value)
                    actual[row["agentId"]] += 1
                    if row["agentId"] in sample:
                        scores.append(row)
                elif topic in ("promotion.events.v1", "allocation.events.v1"):
                    rows.append(json.loads(value))
                elif topic == "audit-events":
                    rows.append(headers.get("assay-id"))
            demand(writers.count, f"{topic} is empty, which compares nothing")
            self.facts[topic] = writers.count
        demand(actual == expected, f"eval.scores.v1: closed windows by agent differ: {(actual - expected) + (expected - actual)}")
        part = self.fold.steps
        self.fold.steps = [entry for entry in part if entry[0].id in sample]
        same("eval.scores.v1", reference.closed(self.fold), scores, ordered=True)
        self.fold.steps = part
        self.dead_letters()

    def dead_letters(self):
        writers, reasons, places = Writers(DEAD), collections.Counter(), set()
        with kcat(DEAD, "-f", "%p %h\n") as out:
            for line in out.read().decode(errors="replace").split("\n")[:-1]:
                headers = dict(re.findall(r"(assay-(?:writer|reason|source))=([^,\n]+)", line))
                if "assay-writer" not in headers:
                    continue  # a value's own line break
                writers.see(int(line.split(" ", 1)[0]), headers)
                reasons[headers["assay-reason"]] += 1
                places.add(headers["assay-source"])
        wanted = {reason: count for reason, count in self.fold.counts.items() if reason not in reference.FILTERED}
        demand(reasons == wanted, f"{DEAD}: reasons {dict(reasons)}, the oracle wants {wanted}")
        demand(len(places) == writers.count, f"{DEAD}: {writers.count} letters for {len(places)} places")

    def decisions(self):
        """The oracle's promotions; and no pool above its capacity or a division's quota, after any event."""
        same("promotion.events.v1", reference.promotions(self.fold), self.events["promotion.events.v1"], per_entity=True)
        pools = {pool["name"]: pool for pool in tomllib.loads((self.world.directory / "assay.toml").read_text())["allocation"]["pool"]}
        held, most = {}, collections.Counter()
        for event in self.events["allocation.events.v1"]:  # of one pool: in the order of its partition
            pool = pools[event["pool"]]
            if event["state"] in HOLDING:
                held[event["allocationId"]] = event["pool"], event["divisionId"], event[pool["unit"]]
            else:
                held.pop(event["allocationId"], None)
            used = collections.Counter()
            for name, division, units in held.values():
                used[name] += units
                used[name, division] += units
            most[event["pool"]] = max(most[event["pool"]], used[event["pool"]])
            demand(used[event["pool"]] <= pool["capacity"], f"pool {event['pool']}: {used[event['pool']]} units in use after {event}")
            for division, quota in pool["quotas"].items():
                demand(used[event["pool"], division] <= quota, f"pool {event['pool']}: {division} above its quota after {event}")
        for row in self.world.json(self.data, "pools"):
            used = sum(units for name, _, units in held.values() if name == row["pool"])
            demand(row["used"] + row["reserved"] == used, f"pools says {row}, its events {used} in use")
        demand(most.total(), "no pool was ever in use, which proves nothing of its capacity")
        self.facts["most in use of a pool"] = dict(most)

    def replay(self):
        """A fresh directory, folded from the log alone, is the same."""
        into = self.world.directory / "rebuilt"
        rebuilt = {row["task"]: row["digest"] for row in self.world.json(self.data, "replay", "run", "--from", "log", "--into", into, database=False)}
        demand(rebuilt == self.digests, f"a fresh replay's digests differ:\n{rebuilt}\n{self.digests}")
        self.world.call(self.data, "replay", "verify", "--into", into)

    def audit(self):
        """The chain holds every audit record once, and four readers prove it."""
        export = self.world.directory / "export"
        self.world.call(self.data, "audit", "export", "--out", export)
        signers = export / "signers.json"
        said = self.world.call(self.data, "audit", "verify", "--signers", signers).decode()
        demand(said.startswith("Audit chain verified\n"), said)
        head = self.world.json(self.data, "audit", "head")
        wanted = len(self.events["audit-events"])
        demand(head["rows"] == wanted, f"the chain has {head['rows']} rows, audit-events has {wanted} records")
        for words in ([str(self.world.bin / "assay-verify"), str(export), "--signers", str(signers)],
                      [sys.executable, "-B", str(pathlib.Path(compare.__file__).with_name("audit_compat.py")), "--database-url", self.world.database_url,
                       "--signers", str(signers)]):
            done = subprocess.run(words, capture_output=True, text=True, timeout=600)
            demand(done.returncode == 0, f"{words[0]}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        self.facts["audit rows"] = head["rows"]
