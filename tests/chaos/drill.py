#!/usr/bin/env python3
"""Loses everything but the archive, on a real broker and a real database, gets it back, and counts.

  drill.py --bin DIR [--minutes N] [--seed S]   under load: what the archive had not taken yet is found missing and sent again
  drill.py --bin DIR --input FILE               the reports of a file, with three kill -9; all of it is archived, all of it must come back
"""

import argparse
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
import verdict
import world
from world import Failed, harness, service, wait_until

SHORT_S, RATE, PORTION, AGENTS = 6, 250, 125, 24
SEGMENT_AGE_S = 2
PAGE = world.ROOT / "runbooks" / "drill.md"
ROWS = "SELECT id, hash FROM audit_events ORDER BY created_at"
VIEWS = ("scores", "scoreboard", "promotions", "allocations", "pools")


def produce(world_, data, *flags):
    """`assay produce` to its end; its counts."""
    done = subprocess.run(world_.command(world_.directory / "producer", "produce", "--raw", "-o", "json", *flags), input=data, capture_output=True,
                          timeout=600, env=harness.clean_environment())
    verdict.demand(done.returncode == 0, f"produce: exit {done.returncode}: {done.stderr.decode(errors='replace')[-1000:]}")
    return json.loads(done.stdout)


class Client(world.Loader):
    """A producer that knows only what it was told: it repeats what is not confirmed, and keeps all that was, with the hour."""

    def __init__(self, world_, lines):
        super().__init__(world_, lines, PORTION, RATE)
        self.child = None
        self.confirmed = [(time.monotonic(), 0)]  # (when, how many lines by then)
        self.door = threading.Event()             # closed: nobody listens at the broker's address for it
        self.door.set()

    def shut_out(self):
        """Nothing of it reaches the broker any more, not even what is on its way."""
        self.door.clear()
        if self.child is not None:
            self.child.kill()

    def _produce(self, lines, data):
        if not self.door.wait(0.1):
            return 6, b"", b"nobody listens there"
        self.child = subprocess.Popen(self.world.command(self.world.directory / "producer", "produce", "--raw", "-o", "json"), stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.clean_environment())
        if not self.door.is_set():
            self.child.kill()
        out, err = self.child.communicate(data, timeout=120)
        return self.child.returncode, out, err

    def _send(self, lines):
        super()._send(lines)
        self.confirmed.append((time.monotonic(), self.sent))


class World(world.World):
    """Servers and one process of assay; the archive and the signer's key lie elsewhere, as they must."""

    def __init__(self, directory, bin_dir):
        super().__init__(directory, bin_dir, services=1)
        self.safe = self.directory / "safe"
        self.safe.mkdir()
        self.generation = 0
        self.settings()

    def settings(self):
        """Each log has an archive of its own."""
        self.generation += 1
        self.archive = self.safe / f"archive-{self.generation}"
        text = world.CONFIG.replace("SIGNER", str(self.safe / "signer.key")).replace("192MiB", "256MiB")  # an archive needs its share
        text += f'[archive]\nurl = "file://{self.archive}"\nsegment_age = "{SEGMENT_AGE_S}s"\n'
        self.directory.joinpath("assay.toml").write_text(text)

    def mount_small(self):
        self.small.mkdir(exist_ok=True)

    def lose_everything(self):
        """kill -9 of every process, then no byte of theirs is left; what is in `safe` is elsewhere."""
        for member in self.services:
            member.kill()
        self.broker.down(now=True)
        self.database.down(now=True)
        for member in self.services:
            shutil.rmtree(member.data)
        shutil.rmtree(self.broker.directory)
        service.remove(self.database.directory)

    def new_servers(self):
        self.settings()
        self.broker = world.server("broker", "Broker", self.directory / "broker")
        self.broker.advertised = self.kafka.port
        self.broker.jvm = ("-XX:TieredStopAtLevel=1",)
        self.database = world.server("postgres", "Postgres", self.directory / "postgres")
        starts = [threading.Thread(target=self._guarded, args=(start,)) for start in (self.start_broker, self.start_database)]
        self._failures = []
        for thread in starts:
            thread.start()
        for thread in starts:
            thread.join()
        if self._failures:
            raise self._failures[0]


class Drill:
    def __init__(self, options, directory):
        self.options = options
        self.world = World(directory, options.bin)
        self.data = self.world.services[0].data
        self.began = time.monotonic()
        self.steps = []  # (what, seconds)
        self.facts = {}

    def say(self, text):
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", file=sys.stderr, flush=True)

    def step(self, what, do, *arguments, **options):
        began = time.monotonic()
        done = do(*arguments, **options)
        self.steps.append((what, round(time.monotonic() - began, 2)))
        self.say(f"{what}: {self.steps[-1][1]} s")
        return done

    def command(self, *words):
        """The command as a person types it, which is then run by them."""
        self.say("$ assay " + shlex.join(map(str, words)))
        return self.world.json(self.data, *words)

    # ---------------------------------------------------------------------------------------------------- what both forms share

    def rehearse(self, archive, marks):
        """Does what the page says: what a mark names is done here, and every command is run as it stands there."""
        out = self.world.directory / "out"
        out.mkdir()
        words = [word for word in self.world.command(self.data)[1:] if word not in ("--database-url", self.world.database_url)]
        shell = f'assay() {{ command "{self.world.bin}/assay" {shlex.join(words)} "$@"; }}\n'
        env = {**harness.clean_environment(), "EVAL_DATABASE_URL": self.world.database_url, "OLD": str(archive), "DATA": str(self.data), "OUT": str(out)}
        marked = set()
        for mark, block in re.findall(r"<!-- drill: (.*?) -->|```sh\n(.*?)```", PAGE.read_text(), re.DOTALL):
            if mark:
                marked.add(mark)
                self.step(mark, marks[mark])
            for line in block.strip().splitlines():
                command, _, _ = line.partition("  # ")
                done = self.step("$ " + command.strip(), subprocess.run, ["bash", "-c", shell + line], env=env, capture_output=True, text=True)
                fine = (0, 8) if "replay plan" in line else (0,)  # 8: the end of some partition was not archived any more
                verdict.demand(done.returncode in fine, f"{PAGE.name}: {line}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        verdict.demand(marked == set(marks), f"{PAGE.name} names {marked}, the drill knows {set(marks)}")
        done = json.loads((out / "restored.json").read_text())
        self.facts["records restored"] = sum(row["records"] for row in done["partitions"])
        self.facts["records left out of torn commits"] = sum(row["leftOut"] for row in done["partitions"])
        self.facts["commits left out"] = sum(row["leftOut"] for row in done["tornTasks"])
        return done

    def rows(self):
        return [tuple(row) for row in harness.psql(self.world.database_url, ROWS)]

    def same_chain(self, before):
        """The rows of before, as far as the archive had them, hash by hash; then one that says that the log was restored."""
        now = self.rows()
        same = next((n for n, (a, b) in enumerate(zip(before, now)) if a != b), min(len(before), len(now)))
        verdict.demand(same > 0, "no audit row is what it was")
        self.facts["audit rows as before"] = f"{same} of {len(before)}"
        last = harness.psql(self.world.database_url, "SELECT event_type FROM audit_events ORDER BY created_at DESC LIMIT 1")
        verdict.demand(last == [["lineage.opened"]], f"the last audit row after a restore is {last}")
        return same, len(now)

    # ------------------------------------------------------------------------------------------------------------- under load

    def lines(self, count):
        path = self.world.directory / "reports.jsonl"
        self.world.call(self.world.directory / "producer", "generate", "--agents", AGENTS, "--reports", count, "--seed", self.options.seed,
                        "--bad", "0.01", "--late", "0.05", "--out", path)
        return path.read_bytes().splitlines(keepends=True)

    def under_load(self):
        seconds = self.options.minutes * 60 if self.options.minutes else SHORT_S
        self.say("starting broker, database and pipeline")
        self.world.up()
        client = self.world.loader = Client(self.world, self.lines(int(RATE * (2.2 * seconds + 60))))
        client.start()
        time.sleep(seconds)
        wait_until("segments in the archive", lambda: len(list(self.world.archive.glob("entries/audit-events/0/*.json"))) > 1, 60)
        time.sleep(2 * SEGMENT_AGE_S)  # what the first of these rows came from is archived as well by then, on a slow machine too
        client.check()

        # All is lost. A witness remembers the rows that people had seen.
        before = self.rows()
        archive = self.world.archive
        client.shut_out()
        lost_at = time.monotonic()
        self.step("everything but the archive is deleted", self.world.lose_everything)
        self.step("a new broker and a new database", self.world.new_servers)
        self.rehearse(archive, {
            "clients send again what is missing": lambda: (self.same_chain(before), self.reconcile(client, lost_at)),
            "the service starts, and clients are let in": lambda: (self.start(), self.let_in(client))})
        self.facts["RTO in s"] = round(self.back_at - lost_at, 1)
        time.sleep(seconds)
        client.stop()
        self.facts.update(verdict.Verdict(self.world, self.say).run(client.lines[:client.sent]))

    def let_in(self, client):
        client.door.set()
        wait_until("a report of the client, which noticed nothing", lambda: client.sent > self.known, 60, 0.01)
        self.back_at = time.monotonic()

    def start(self):
        self.world.services[0].start()
        self.world.expect_ready(60, "the restore")

    def reconcile(self, client, lost_at):
        """What was confirmed and is not on the restored log; the client sends it again, and some more around it."""
        self.known = client.sent
        held = set()
        for values in verdict.raw_values("eval.reports.v1").values():
            held.update(values)
        missing = [n for n, line in enumerate(client.lines[:self.known]) if line.rstrip(b"\n") not in held]
        self.facts["confirmed before the loss"] = self.known
        self.facts["RPO in reports"] = len(missing)
        self.facts["RPO in s"] = 0.0
        if not missing:
            return
        # Confirmed by then were all lines before: whatever was confirmed later may be missing.
        self.facts["RPO in s"] = round(lost_at - max(when for when, count in client.confirmed if count <= missing[0]), 2)
        again = client.lines[max(0, missing[0] - PORTION):self.known]
        self.facts["sent by the client once more"] = produce(self.world, b"".join(again))["sent"]
        client.repeats[missing[0]] += 1

    # --------------------------------------------------------------------------------------------------- the reports of a file

    def of_a_file(self):
        self.say("starting broker, database and pipeline")
        self.world.up()
        self.world.services[0].kill()
        self.step("three kill -9 while the file comes in", self.crashes)
        accounts = self.step("run to the end", self.command, "run", "--until-end")
        before = {"digests": self.command("state", "digest", "--recompute"), **{name: self.command(name) for name in VIEWS}}
        chain = self.rows()
        archive = self.world.archive
        lost_at = time.monotonic()
        self.step("everything but the archive is deleted", self.world.lose_everything)
        self.step("a new broker and a new database", self.world.new_servers)
        again = {}

        def nothing_is_missing():
            same, rows = self.same_chain(chain)
            verdict.demand(same == len(chain) == rows - 1, f"{same} of {len(chain)} audit rows are what they were; there are {rows} now")
            for name in VIEWS:
                verdict.demand(self.command(name) == before[name], f"{name}: not what it was")

        def goes_on():
            again.update(self.command("run", "--until-end"))
            self.facts["RTO in s"] = round(time.monotonic() - lost_at, 1)
            self.start()

        done = self.rehearse(archive, {"clients send again what is missing": nothing_is_missing,
                                       "the service starts, and clients are let in": goes_on})
        self.world.services[0].terminate(30)
        verdict.demand(done["tornTasks"] == [], f"all was archived, and these tasks were cut: {done['tornTasks']}")
        verdict.demand(again == accounts, f"the accounts were {accounts}, and are {again}")
        digests = {row["task"]: row["digest"] for row in self.command("state", "digest", "--recompute")}
        wanted = {row["task"]: row["digest"] for row in before["digests"]}
        verdict.demand(digests == wanted, f"the digests were {wanted}, and are {digests}")
        self.facts.update({name: accounts[name] for name in ("delivered", "accepted", "filtered", "deadLetters")})
        self.facts.update({name: len(before[name]) for name in VIEWS}, digests=len(digests))

    def crashes(self):
        """The file comes in by four portions; after each of the first three the pipeline is killed while it folds."""
        reader = {".zst": ["zstd", "-dcq"], ".gz": ["gzip", "-dc"]}.get(self.options.input.suffix, ["cat"])
        lines = subprocess.run([*reader, str(self.options.input)], stdout=subprocess.PIPE, check=True).stdout.splitlines(keepends=True)
        delivered = re.compile(r'^assay_records_delivered_total\{task="scoring-\d+"\} [1-9]', re.MULTILINE)
        member = self.world.services[0]
        times = ["--record-time", self.options.record_time] if self.options.record_time else []
        self.facts["sent"] = 0
        for part in range(4):
            portion = b"".join(lines[len(lines) * part // 4:len(lines) * (part + 1) // 4])
            self.facts["sent"] += produce(self.world, portion, *times)["sent"]
            if part == 3:
                return
            member.start()

            def committed():
                member.expect_alive()
                return delivered.search(member.http("/metrics")[1])

            wait_until("a commit", committed, 60, 0.005)
            member.kill()

    def table(self):
        wide = max(len(name) for name in [*self.facts, *(what for what, _ in self.steps)]) + 2
        return "\n".join([*(f"{what:{wide}}{took:8.2f} s" for what, took in self.steps), "",
                          *(f"{name:{wide}}{value}" for name, value in self.facts.items())])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", type=float, help="of load before and after the loss; some seconds unless told")
    parser.add_argument("--seed", type=int, default=1, help="of the generated reports")
    parser.add_argument("--input", type=pathlib.Path, help="a file of reports (.zst and .gz are recognised) instead of a load")
    parser.add_argument("--record-time", help="with --input: the field that becomes the record's timestamp")
    parser.add_argument("-o", dest="format", choices=("table", "json"), default="table")
    parser.add_argument("--keep", action="store_true", help="keep the directory of a drill that passed, too")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="assay-drill-"))
    directory.chmod(0o755)  # the database's user must reach its part
    drill = Drill(options, directory)
    failure = None
    try:
        drill.of_a_file() if options.input else drill.under_load()
    except BaseException as error:
        failure = str(error) if isinstance(error, Failed) else traceback.format_exc()
        failure += "".join(f"\nprocess {name} is not there:\n{said}" for name, said in drill.world.ended().items())
    finally:
        drill.world.down(keep=failure is not None or options.keep)
    if options.format == "json":
        print(json.dumps({"passed": failure is None, "steps": [{"step": what, "tookS": took} for what, took in drill.steps], **drill.facts}, indent=1))
    elif drill.steps:
        print(drill.table())
    if failure:
        print(f"\nFAILED: {failure}\nkept: {shlex.quote(str(directory))}", file=sys.stderr)
        return 1
    print(f"\nThe drill passed: {drill.facts['RTO in s']} s until it ran again" +
          (f", {drill.facts['RPO in reports']} confirmed reports had to be sent again." if "RPO in reports" in drill.facts else "."), file=sys.stderr)
    if options.keep:
        print(f"kept: {directory}", file=sys.stderr)
    else:
        drill.world.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
