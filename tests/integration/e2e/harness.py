"""What every end-to-end test needs: one installation of assay in a directory of its own, on either log, seen from outside only."""

import argparse
import base64
import collections
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

BIN = None  # the folder of the binaries; set by main()

# Variables that the product reads: what stands in the caller's environment must not change a test.
_MEANINGFUL = ("ASSAY_", "EVAL_", "AUDIT_", "RESOURCE_ALLOCATOR_", "DEV_", "REQUIRE_", "KERNEL_", "SENTINELNET_", "FINANCE_", "ALLOC_",
               "S3_", "SIGNING_", "AWS_", "SOFTHSM2_")
_MEANINGFUL_NAMES = ("NODE_ENV", "MODE", "PORT")

Outcome = collections.namedtuple("Outcome", "code out err")
Record = collections.namedtuple("Record", "partition offset timestamp_ms key value headers")


def main():
    """Takes --bin off the command line and runs the tests of the calling file."""
    global BIN
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bin", required=True)
    known, rest = parser.parse_known_args()
    BIN = pathlib.Path(known.bin).resolve()
    if not (BIN / "assay").exists():
        sys.exit(f"{BIN}: no assay there")
    unittest.main(module="__main__", argv=[sys.argv[0], *rest], verbosity=2)


def needed(variable):
    """The address of a server that `deploy/with` started. A test without it has tested nothing, so it fails."""
    value = os.environ.get(variable, "")
    if not value:
        raise AssertionError(f"{variable} is not set: run this below `deploy/with --broker --database --`")
    return value


def unique(word="e2e"):
    return f"{word}-{uuid.uuid4().hex[:12]}"


def clean_environment(extra=None):
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(_MEANINGFUL) and name not in _MEANINGFUL_NAMES}
    return {**kept, **(extra or {})}


def fresh_database():
    """Creates a database of its own on the shared server; returns its URL."""
    server = needed("ASSAY_TEST_DATABASE_URL")
    name = unique("e2e").replace("-", "_")
    psql(server, f"CREATE DATABASE {name}")
    return server.rsplit("/", 1)[0] + "/" + name


def psql(url, statement):
    """Rows of one statement, each a list of texts."""
    done = subprocess.run(["psql", url, "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", statement],
                          capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise AssertionError(f"psql {statement}: {done.stderr}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def wait_until(what, look, timeout_s=60, every_s=0.05):
    """Looks until it sees something true, and returns that."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}; last seen: {seen!r}")
        time.sleep(every_s)


def kcat(*args, data=None, timeout_s=60):
    done = subprocess.run(["kcat", "-b", needed("ASSAY_TEST_BROKERS"), *args], input=data, capture_output=True, timeout=timeout_s)
    if done.returncode != 0:
        raise AssertionError(f"kcat {' '.join(args)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def kcat_records(topic):
    """Every committed record of the topic, as a client that nobody here wrote reads it; values and keys must be UTF-8."""
    out = kcat("-C", "-t", topic, "-e", "-q", "-X", "isolation.level=read_committed", "-J")
    return [json.loads(line) for line in out.splitlines()]


def _hex(value):
    return "-" if value is None else "=" + value.hex()


class Process:
    """A running assay. It dies with the test, whatever happens."""

    def __init__(self, command, env):
        self.stdout = tempfile.TemporaryFile()
        self.stderr = tempfile.TemporaryFile()
        self.child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=self.stdout, stderr=self.stderr)

    def out(self):
        return os.pread(self.stdout.fileno(), 1 << 26, 0).decode(errors="replace")

    def err(self):
        return os.pread(self.stderr.fileno(), 1 << 26, 0).decode(errors="replace")

    def alive(self):
        return self.child.poll() is None

    def kill(self):
        """kill -9 and wait until it is gone."""
        if self.alive():
            self.child.kill()
        return self.child.wait()

    def close(self):
        self.kill()
        self.stdout.close()
        self.stderr.close()

    def terminate(self, timeout_s=30):
        """SIGTERM; returns (exit code, seconds that it took)."""
        began = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(timeout=timeout_s), time.monotonic() - began


class Assay:
    """One installation: a data directory, a log, perhaps a database."""

    def __init__(self, log, directory, database=False, sets=(), config=None, brokers=None):
        self.log = log
        self.directory = pathlib.Path(directory)
        self.data = self.directory / "data"
        self.prefix = unique() + "." if log == "kafka" else ""
        self.database_url = fresh_database() if database else None
        self.sets = list(sets)
        self.config = config
        self.brokers = brokers  # none: the shared one
        self.processes = []

    def command(self, *args):
        words = [str(BIN / "assay"), "--data-dir", str(self.data)]
        if self.config:
            words += ["--config", str(self.config)]
        if self.log == "kafka":
            words += ["--brokers", self.brokers or needed("ASSAY_TEST_BROKERS")]
        if self.prefix:
            words += ["--set", f"topics.prefix={self.prefix}"]
        if self.database_url:
            words += ["--database-url", self.database_url]
        for pair in self.sets:
            words += ["--set", pair]
        return words + [str(word) for word in args]

    def call(self, *args, data=None, env=None, timeout_s=120):
        """Runs the command to its end, whatever its exit code; bytes out."""
        if isinstance(data, str):
            data = data.encode()
        done = subprocess.run(self.command(*args), input=data if data is not None else b"", capture_output=True,
                              env=clean_environment(env), timeout=timeout_s)
        return Outcome(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def ok(self, *args, code=0, **options):
        """The same; any other exit code fails the test with what stood on stderr."""
        done = self.call(*args, **options)
        if done.code != code:
            raise AssertionError(f"assay {' '.join(map(str, args))}: exit {done.code}, wanted {code}\n{done.err[-4000:]}"
                                 f"{done.out[-2000:].decode(errors='replace')}")
        return done

    def json(self, *args, code=0, **options):
        """What it printed as one JSON document; anything beside that document fails here."""
        return json.loads(self.ok(*args, "-o", "json", code=code, **options).out)

    def start(self, *args, env=None):
        process = Process(self.command(*args), clean_environment(env))
        self.processes.append(process)
        return process

    def start_service(self, *flags):
        """`run` as a service; returns it once its socket answers ready."""
        process = self.start("run", *flags)

        def ready():
            if not process.alive():
                raise AssertionError(f"run ended with {process.child.returncode}\n{process.err()[-4000:]}")
            return self.http("/ready")[0] == 200

        wait_until("a ready pipeline", ready)
        return process

    def http(self, path, timeout_s=20):
        """GET over DIR/assay.sock; (status, text), or (0, why) when nobody answers."""
        return http_get(path, unix=str(self.data / "assay.sock"), timeout_s=timeout_s)

    def produce(self, reports, *flags, **options):
        """Reports are dicts, or lines as they are."""
        lines = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in reports)
        return self.json("produce", *flags, data=lines, **options)

    def fold(self, *flags, **options):
        """run --until-end; its accounting."""
        return self.json("run", "--until-end", *flags, **options)

    def send(self, records, topic="eval.reports.v1"):
        """Puts records onto the log byte for byte: (partition or -1, timestamp_ms, key, value, [(name, value)]); None is null."""
        lines = []
        for partition, timestamp_ms, key, value, headers in records:
            words = [self.prefix + topic, str(partition), str(timestamp_ms), _hex(key), _hex(value)]
            words += [name.encode().hex() + _hex(text) for name, text in headers]
            lines.append(" ".join(words))
        self._probe("produce", data=("\n".join(lines) + "\n").encode())

    def read(self, topic):
        """Every committed record of a topic, by partition and offset. The embedded log must have no writer."""
        records = []
        for line in self._probe("read", self.prefix + topic).decode().splitlines():
            words = line.split(" ")
            plain = [None if word == "-" else bytes.fromhex(word[1:]) for word in words[3:5]]
            headers = []
            for word in words[5:]:
                cut = min(at for at in (word.find("="), word.find("-")) if at >= 0)
                headers.append((bytes.fromhex(word[:cut]).decode(), None if word[cut] == "-" else bytes.fromhex(word[cut + 1:])))
            records.append(Record(int(words[0]), int(words[1]), int(words[2]), *plain, headers))
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def cut(self, topic, partition, offset):
        """Takes away the records before the offset, as retention does."""
        self._probe("cut", self.prefix + topic, str(partition), str(offset))

    def _probe(self, *args, data=b""):
        where = (self.brokers or needed("ASSAY_TEST_BROKERS")) if self.log == "kafka" else str(self.data / "log")
        done = subprocess.run([str(BIN / "log_probe"), self.log, where, *args], input=data, capture_output=True, timeout=120)
        if done.returncode != 0:
            raise AssertionError(f"log_probe {' '.join(args)}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def dead_letters(self):
        return self.json("dlq", "ls")

    def dead_letter(self, dead_id):
        """Row, key, value (bytes or None) and headers of one dead letter."""
        row = self.json("dlq", "show", dead_id)
        plain = {name: None if row[name] is None else base64.b64decode(row[name]) for name in ("keyBase64", "valueBase64")}
        return row, plain["keyBase64"], plain["valueBase64"], [(h["name"], h["value"]) for h in row["headers"]]

    def digests(self):
        """{task: digest} of the tasks that are the same on every log: scoring and promotion."""
        rows = self.json("state", "digest")
        return {row["task"]: row["digest"] for row in rows if row["task"].startswith(("scoring", "promotion"))}

    def close(self):
        for process in self.processes:
            process.close()


def http_get(path, unix=None, port=None, timeout_s=20):
    """A GET by hand: the standard library's client speaks no unix sockets."""
    sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(unix if unix else ("127.0.0.1", port))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: assay\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := sock.recv(1 << 16):
            answer += chunk
    except OSError as failure:
        return 0, str(failure)
    finally:
        sock.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return 0, f"no answer: {answer[:80]!r}"
    return int(head.split(b" ", 2)[1]), body.decode()


class EndToEnd(unittest.TestCase):
    """Gives each test a directory that goes away and ends what the test started."""

    maxDiff = 4000

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="assay-e2e-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def assay(self, log="embedded", **options):
        made = Assay(log, tempfile.mkdtemp(dir=self.directory), **options)
        self.addCleanup(made.close)
        return made


def both_logs(test):
    """Runs a test method once on each log; it gets an Assay first."""

    def run(self):
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                test(self, self.assay(log))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
