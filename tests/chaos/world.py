"""What is put under fault: a real broker and a real database behind our proxies, several assay processes, and a load that never rests."""

import collections
import concurrent.futures
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy"), str(ROOT / "tests" / "integration" / "e2e")]
import harness
import proxy
import service

SESSION_S = 3.0
TMPFS_MIB = 192
HIT_S = 45  # how long a fault may wait for its chance: the system may still be busy with the one before
HURRY = 10  # times as many lines in a portion
LOG_LINE = re.compile(r"(\S+Z) (debug|info|warning|error) (\S+)(.*)")
# Small pools, so that requests wait; a short session, so that a dead member's work moves on while it is looked at.
CONFIG = f"""\
memory = "192MiB"
[promotion]
enter = 0.8
leave = 0.75
cooldown = "2h"
max_per_week = 10
[allocation.grant]
pool = "small"
gpu = 1
[[allocation.pool]]
name = "small"
unit = "gpu"
capacity = 3
quotas = {{ research = 2, operations = 1 }}
[audit]
signer_key = "SIGNER"
[kafka.properties]
"session.timeout.ms" = "{int(SESSION_S * 1000)}"
"heartbeat.interval.ms" = "500"
"""


class Failed(Exception):
    """What was promised and did not hold, or a fault that could not be made."""


def wait_until(what, look, timeout_s, every_s=0.1):
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout_s} s for {what}; last seen: {seen!r}")
        time.sleep(every_s)


def server(name, kind, directory):
    """One of deploy's servers, whose programs have no .py in their names."""
    loader = importlib.machinery.SourceFileLoader(f"deploy_{name}", str(ROOT / "deploy" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return getattr(module, kind)(directory)


def children_of(pid):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


class Member:
    """An assay process with a data directory of its own; each start of it writes on to the same log file."""

    def __init__(self, world, name, data=None):
        self.world, self.name = world, name
        self.data = data or world.directory / name
        self.log = world.directory / f"{name}.log"
        self.child = None
        self.stopped = False  # by SIGSTOP
        self.seen = 0         # bytes of the log that were counted

    def start(self, *flags):
        self.data.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            # The kernel takes the thread that forked for the parent: one that stays.
            self.child = self.world.starter.submit(
                subprocess.Popen, self.world.command(self.data, "run", *flags), env=harness.clean_environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=service.die_with_parent(signal.SIGKILL)).result()

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def expect_alive(self):
        if not self.alive():
            raise Failed(f"process {self.name} ended by itself with {self.child.returncode}:\n{service.tail(self.log, 8)}")

    def signal(self, signum):
        self.child.send_signal(signum)
        self.stopped = signum == signal.SIGSTOP or (self.stopped and signum != signal.SIGCONT)

    def kill(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.stopped = False

    def terminate(self, timeout_s):
        """SIGTERM; returns the seconds that it took. Leaving late, or with another code than 0, is a failure."""
        began = time.monotonic()
        self.child.terminate()
        try:
            code = self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"process {self.name} did not leave within {timeout_s} s of SIGTERM:\n{service.tail(self.log, 8)}") from None
        if code != 0:
            raise Failed(f"process {self.name} left after SIGTERM with {code}:\n{service.tail(self.log, 8)}")
        return time.monotonic() - began

    def http(self, path):
        return harness.http_get(path, unix=str(self.data / "assay.sock"), timeout_s=5)

    def events(self):
        """What the process has said since it was last asked: {event: how often}."""
        if not self.log.exists():
            return collections.Counter()
        with open(self.log, "rb") as log:
            log.seek(self.seen)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        self.seen += whole
        said = collections.Counter()
        for line in text[:whole].decode(errors="replace").splitlines():
            match = LOG_LINE.fullmatch(line)
            if not match:
                continue
            _, level, event, rest = match.groups()
            detail = re.search(r' (?:error|outcome|halt)=("[^"]*"|\S+)', rest)
            word = f"{event} {detail[1].strip(chr(34))}" if detail else event
            if level in ("warning", "error") or event in ("task.recovered", "group.revoked"):
                said[word] += 1
        return said


class Loader:
    """Sends the fleet's reports in portions, one `assay produce` each, and repeats a portion that was not confirmed."""

    def __init__(self, world, lines, portion, rate):
        self.world, self.lines, self.portion, self.rate = world, lines, portion, rate
        self.sent = 0               # lines that are confirmed
        self.repeats = collections.Counter()  # index of a portion's first line -> attempts that may have left something
        self.hurry = False          # sends much more, without a pause
        self.strike_next = None     # (what is done to a producer in mid-batch, a threading.Event that is set when it was)
        self.failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        """Ends the load with the portion under way; what is confirmed by then is what was sent."""
        self._stop.set()
        self._thread.join(180)
        if self._thread.is_alive():
            raise Failed("the load did not end: a portion cannot be sent")
        self.check()

    def check(self):
        if self.failure:
            raise Failed(f"the load ended: {self.failure}")

    def _run(self):
        due = time.monotonic()
        try:
            while not self._stop.is_set() and self.sent < len(self.lines):
                hurry = self.hurry
                before = self.sent
                self._send(self.lines[before:before + self.portion * (HURRY if hurry else 1)])
                if not hurry:  # what is sent in a hurry comes on top
                    due += (self.sent - before) / self.rate
                    self._stop.wait(max(0.0, due - time.monotonic()))
        except Exception as failure:  # told by check(), where somebody can act on it
            self.failure = failure

    def _send(self, lines):
        data = b"".join(lines)
        while True:
            code, out, err = self._produce(lines, data)
            if code == 0:
                counts = json.loads(out)
                if counts["sent"] + counts["refused"] != len(lines):
                    raise Failed(f"produce counts {counts} of {len(lines)} lines")
                self.sent += len(lines)
                return
            self.repeats[self.sent] += 1
            if code == -signal.SIGKILL:
                continue
            if code not in (1, 6):
                raise Failed(f"produce: exit {code}: {err.decode(errors='replace')[-500:]}")
            time.sleep(0.5)

    def _produce(self, lines, data):
        strike, self.strike_next = self.strike_next, None
        child = subprocess.Popen(self.world.command(self.world.directory / "producer", "produce", "--raw", "-o", "json"),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.clean_environment())
        try:
            if strike:
                self._strike(child, lines[:len(lines) // 2], *strike)
                data = b"".join(lines[len(lines) // 2:])
            out, err = child.communicate(data, timeout=120)
            return child.returncode, out, err
        finally:
            child.kill()
            child.wait()

    def _strike(self, child, lines, what, done):
        """Half of the portion goes into the pipe; when the broker has been sent some of it, it happens."""
        frames = self.world.kafka.frames
        before = frames.get("InitProducerId", 0)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(b"".join(lines))
            child.stdin.flush()
        # Its own id, then at least one write; other producers' frames may be counted too, which only strikes sooner.
        wait_until("a producer at work", lambda: frames.get("InitProducerId", 0) > before or child.poll() is not None, HIT_S, 0.01)
        time.sleep(0.05)
        if child.poll() is not None:  # it found no broker: the next one then
            self.strike_next = what, done
            return
        what(child)
        done.set()


class World:
    """Everything that runs, in one directory."""

    def __init__(self, directory, bin_dir, services=3):
        self.directory, self.bin = pathlib.Path(directory), pathlib.Path(bin_dir)
        self.watch = service.identity(os.getpid())
        self.started_ms = time.time_ns() // 1_000_000
        self.starter = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        harness.BIN = self.bin
        self.kafka, self.postgres = proxy.KafkaProxy(0), proxy.PostgresProxy(0)
        self.broker = server("broker", "Broker", self.directory / "broker")
        self.broker.advertised = self.kafka.port
        self.broker.jvm = ("-XX:TieredStopAtLevel=1",)  # it starts often and lives shortly: less than half of the time to start
        self.database = server("postgres", "Postgres", self.directory / "postgres")
        self.database_url = None
        self.small = self.directory / "small"  # a file system that can be filled
        self.services = [Member(self, f"service-{index}", self.small / "data" if index == services - 1 else None) for index in range(services)]
        self.guests = []
        self.loader = None
        self.directory.joinpath("assay.toml").write_text(CONFIG.replace("SIGNER", str(self.directory / "signer.key")))

    # Servers

    def start_broker(self):
        self.kafka.target_port = int(self.broker.up(self.watch).rsplit(":", 1)[1])

    def start_database(self):
        url = self.database.up(self.watch)
        port = re.search(r":(\d+)/", url)[1]
        self.postgres.target_port = int(port)
        self.database_url = url.replace(f":{port}/", f":{self.postgres.port}/")

    def database_pids(self):
        """The server's own process first, then what it has made."""
        pid = int((self.database.data / "postmaster.pid").read_text().split("\n", 1)[0])
        return [pid, *children_of(pid)]

    def database_sessions(self):
        """Its processes that serve assay's connections."""
        return [pid for pid in self.database_pids()[1:] if b"assay" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]

    def database_answers(self):
        try:
            return harness.psql(self.database_url.replace(f":{self.postgres.port}/", f":{self.postgres.target_port}/"), "SELECT 1")
        except AssertionError:
            return False

    def broker_pid(self):
        supervisor = service.read_json(self.broker.directory / "pid.json")["pid"]
        return children_of(supervisor)[0]

    def mount_small(self):
        self.small.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m,mode=755", "tmpfs", str(self.small)], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"mounting a tmpfs of {TMPFS_MIB} MiB on {self.small} for the fault disk_full: exit {done.returncode}: "
                         f"{done.stderr.strip()}; it needs root and leave to mount")

    def up(self):
        starts = [threading.Thread(target=self._guarded, args=(start,)) for start in (self.start_broker, self.start_database)]
        self._failures = []
        for thread in starts:
            thread.start()
        self.mount_small()
        for thread in starts:
            thread.join()
        if self._failures:
            raise self._failures[0]
        os.environ["ASSAY_TEST_BROKERS"] = f"127.0.0.1:{self.kafka.port}"
        # Topics, rules, the signer's key and the tables, before anybody needs them at once.
        self.call(self.services[0].data, "run", "--until-end")
        for member in self.services:
            member.start()
        self.expect_ready(60, "the start")

    def _guarded(self, start):
        try:
            start()
        except Exception as failure:
            self._failures.append(failure)

    def down(self, keep):
        """Ends everything that was started; `keep` saves what lies in memory only."""
        for member in [*self.services, *self.guests]:
            member.kill()
        self.broker.down(now=True)
        self.database.down(now=True)
        self.kafka.close()
        self.postgres.close()
        if self.small.is_mount():
            if keep:
                shutil.copytree(self.small, self.directory / "small-kept", ignore=shutil.ignore_patterns("*.sock", "filler"))
            subprocess.run(["umount", "-l", str(self.small)], check=True)

    def remove(self):
        service.remove(self.database.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    # Processes

    def command(self, data, *args, database=True):
        words = [str(self.bin / "assay"), "--config", str(self.directory / "assay.toml"), "--data-dir", str(data),
                 "--brokers", f"127.0.0.1:{self.kafka.port}"]
        if database:
            words += ["--database-url", self.database_url]
        return words + [str(arg) for arg in args]

    def call(self, data, *args, code=0, timeout_s=300, **options):
        """Runs a command to its end; another exit code than the expected one is a failure, told with what it said."""
        done = subprocess.run(self.command(data, *args, **options), capture_output=True, env=harness.clean_environment(), timeout=timeout_s)
        if done.returncode != code:
            raise Failed(f"assay {' '.join(map(str, args))} on {data}: exit {done.returncode}, wanted {code}\n"
                         f"{done.stderr.decode(errors='replace')[-3000:]}{done.stdout.decode(errors='replace')[-1500:]}")
        return done.stdout

    def json(self, data, *args, **options):
        return json.loads(self.call(data, *args, "-o", "json", **options))

    def unready(self):
        """What each process that is not ready says of itself."""
        for member in self.services:
            member.expect_alive()
        answers = {member.name: member.http("/ready") for member in self.services}
        return {name: text for name, (status, text) in answers.items() if status != 200}

    def expect_ready(self, timeout_s, when):
        deadline = time.monotonic() + timeout_s
        while waiting := self.unready():
            if time.monotonic() > deadline:
                raise Failed(f"not ready {timeout_s} s after {when}: " + "\n".join(f"{name}: {text}" for name, text in waiting.items()))
            time.sleep(0.2)

    def ended(self):
        """What the services that do not run said last: often why nothing came by any more."""
        return {member.name: service.tail(member.log, 8) for member in self.services if member.child is not None and not member.alive()}

    def events(self):
        said = collections.Counter()
        for member in [*self.services, *self.guests]:
            said += member.events()
        return said

    def guest(self):
        """A further process that joins the groups as a member without a name."""
        member = Member(self, f"guest-{len(self.guests)}")
        self.guests.append(member)
        return member
