"""A fresh place for each end-to-end test: a directory, names of its own on the shared servers, and readers that are not ours."""
import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[3]
BIN = None  # the directory of the binaries, from --bin
Record = collections.namedtuple("Record", "topic partition offset key value headers")
_numbers = itertools.count()


def server(name):
    try:
        return os.environ[name]
    except KeyError:
        raise AssertionError(f"{name} is not set: run under `deploy/with --broker --database -- …`, as ./run test does") from None


def finish(command, code=0, timeout=180, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=timeout, **options)
    if code is not None and done.returncode != code:
        said = (done.stdout[-2000:] + done.stderr[-4000:]).decode(errors="replace")
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}, expected {code}\n{said}")
    return done


class Place:
    """Settings of one pipeline and ways to run the binary with them."""

    def __init__(self, directory, brokers=None, database=None):
        self.dir, self.data = directory, directory / "data"
        self.brokers, self.database, self.config = brokers, database, None
        self.sets = {"log.level": "warn"}
        if brokers:
            self.sets["topics.prefix"] = f"e2e-{os.getpid()}-{next(_numbers)}."

    def command(self, *arguments, data=None):
        words = [BIN / "assay", "--data-dir", data or self.data, "-q"]
        for flag, value in (("--config", self.config), ("--brokers", self.brokers), ("--database-url", self.database)):
            words += [flag, value] if value else []
        for key, value in self.sets.items():
            words += ["--set", f"{key}={value}"]
        return [str(word) for word in (*words, *arguments)]

    def run(self, *arguments, code=0, data=None):
        return finish(self.command(*arguments, data=data), code)

    def json(self, *arguments, **options):
        return json.loads(self.run(*arguments, "-o", "json", **options).stdout)

    def read_topic(self, name):
        """Every committed record, partition by partition, through kcat."""
        topic = self.sets["topics.prefix"] + name
        out = finish(["kcat", "-C", "-q", "-e", "-b", self.brokers, "-t", topic, "-o", "beginning", "-X", "isolation.level=read_committed",
                      "-f", "%p %o %K %S\n%k%s\n%h\n"]).stdout
        records, at = [], 0

        def take(size):
            nonlocal at
            if size < 0:
                return None
            at += size
            return out[at - size:at]

        def line():
            return take(out.index(b"\n", at) - at + 1)[:-1]

        while at < len(out):
            partition, offset, key_size, value_size = map(int, line().split())
            key, value = take(key_size), take(value_size)
            assert take(1) == b"\n"
            headers = dict(header.split("=", 1) for header in line().decode().split(",") if header)
            records.append(Record(topic, partition, offset, key, value, headers))
        return sorted(records, key=lambda record: record[1:3])


@contextlib.contextmanager
def fresh(brokers=False, database=False):
    """A place that is gone afterwards. Its topics go with the broker."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="assay-e2e-"))
    admin, name = server("ASSAY_TEST_DATABASE_URL") if database else None, f"e2e_{os.getpid()}_{next(_numbers)}"
    try:
        if admin:
            finish(["psql", admin, "-qc", f"CREATE DATABASE {name}"])
        yield Place(directory, server("ASSAY_TEST_BROKERS") if brokers else None, admin and admin.rsplit("/", 1)[0] + "/" + name)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if admin:
            finish(["psql", admin, "-qc", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"], code=None)


def main():
    global BIN
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="directory of assay and assay-verify")
    options, rest = parser.parse_known_args()
    BIN = options.bin.resolve()
    unittest.main("__main__", argv=[sys.argv[0], *rest])
