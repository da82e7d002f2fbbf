#!/usr/bin/env python3
"""kill -9 in the midst of folding, with more and more state: from the start of the next process to its first commit of new records.

  recovery.py DIRECTORY embedded|kafka MIB...        one JSON line a size; kafka beside deploy/with --broker

One task owns all of the state. The process is killed some moments after a commit, five times for each size, and each time reports
wait for the next one. What is timed ends when the log acknowledged a commit that holds new records, so one commit interval (100 ms)
of folding is in it.
"""

import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

ASSAY = pathlib.Path(os.environ["ASSAY_BIN"]) / "assay"
KILLS = 5
BAR_SECONDS = 1
START_MS = 1767225600000  # 2026-01-01


def stamp(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"


class Fleet:
    """Agents that send a report a minute for an hour and are heard of no more: each report adds a pane that nothing merges."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.agents = 0

    def metrics(self, count):
        return ",".join(f'"m{i}":{self.random.uniform(1e9, 1e12):.4f}' for i in range(count)).encode()

    def lines(self, count, metrics):
        """About 50 bytes of state a metric: large values, which leave nothing to compress."""
        sets = [self.metrics(metrics) for _ in range(64)]
        minutes = [stamp(START_MS + 60000 * minute).encode() for minute in range(60)]
        while count > 0:
            self.agents += 1
            agent = b"agent-%d" % self.agents
            for minute in minutes[:count]:
                yield b'{"id":"%s-%s","agentId":"%s","timestamp":"%s","metricSet":{%s}}\n' % (
                    agent, minute, agent, minute, self.random.choice(sets))
            count -= 60


class Pipeline:
    def __init__(self, directory, kind):
        self.data = directory / "assay"
        self.command = [ASSAY, "--data-dir", self.data, "--set", "topics.partitions=1"]
        if kind == "kafka":
            self.command += ["--brokers", os.environ["ASSAY_TEST_BROKERS"], "--set", f"topics.prefix={directory.name}."]
        self.fleet = Fleet(1)

    def send(self, count, metrics):
        child = subprocess.Popen([*self.command, "--set", "log.level=warn", "-o", "json", "produce", "--record-time", "timestamp"],
                                 stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for line in self.fleet.lines(count, metrics):
            child.stdin.write(line)
        child.stdin.close()
        if child.wait() != 0:
            sys.exit(f"bench: producing reports: exit {child.returncode}")

    def fold_all(self):
        subprocess.run([*self.command, "--set", "log.level=warn", "run", "--until-end", "--only", "scoring"], check=True,
                       stdout=subprocess.DEVNULL)

    def state_bytes(self):
        files = (path for path in (self.data / "state").rglob("*") if path.is_file())
        return sum({(status := path.stat()).st_ino: status.st_size for path in files}.values())  # a checkpoint's links count once

    def run_and_kill(self, after_s):
        """Seconds from its start until a commit of new records was acknowledged; it is killed some moments later."""
        began = time.monotonic()
        child = subprocess.Popen([*self.command, "--set", "log.level=debug", "run", "--only", "scoring"], stderr=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, text=True)
        said = []
        for line in child.stderr:
            said.append(line)
            if "commit.acknowledged" in line and "task=scoring-0" in line and "delivered=0" not in line:
                took = time.monotonic() - began
                time.sleep(after_s)
                child.kill()
                child.wait()
                return took
        sys.exit(f"bench: the pipeline ended with exit {child.wait()}\n{''.join(said[-20:])}")


def main(directory, kind, sizes):
    for mib in map(int, sizes):
        place = pathlib.Path(directory) / f"recovery-{kind}-{mib}"
        place.mkdir(parents=True)
        pipeline = Pipeline(place, kind)
        held, sent = 0, 0
        while held < 0.95 * mib * 2**20:  # what was sent tells about how much more is needed; the store packs it as it grows
            more = int((mib * 2**20 - held) * sent / held) + 1000 if held else 3000
            pipeline.send(more, 100)
            pipeline.fold_all()
            held, sent = pipeline.state_bytes(), sent + more
        pipeline.send(20000, 2)
        pipeline.run_and_kill(0.2)
        took = []
        for kill in range(KILLS):
            pipeline.send(20000, 2)
            took.append(pipeline.run_and_kill(0.05 + 0.07 * kill))
        print(json.dumps({"what": f"{held / 2**20:,.0f} MiB of state: first commit, median", "unit": "kills", "count": KILLS,
                          "stateBytes": held, "wallSeconds": statistics.median(took), "maxSeconds": max(took), "barSeconds": BAR_SECONDS}),
              flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
