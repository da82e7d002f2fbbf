#!/usr/bin/env python3
"""The three-window job, exactly once, on one broker and the same input: Kafka Streams, then Assay. One JSON line a figure.

Run by the bench beside a fresh broker (deploy/with --broker). What the environment chooses stands in bench --help.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEER = ROOT / "tests/bench/peer"
ASSAY = pathlib.Path(os.environ["ASSAY_BIN"]) / "assay"
BROKERS = os.environ["ASSAY_TEST_BROKERS"]
IN = "eval.reports.v1"
BAR = 4  # times the program written by hand, on the same JSON
DSL_BAR = 300


def say(*words):
    print("+", *map(str, words), file=sys.stderr)
    return [str(word) for word in words]


def classes():
    """The peer's jars and classes, made once per version of its sources."""
    sources = sorted(PEER.glob("*.java")) + [PEER / "pom.xml"]
    name = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
    home = pathlib.Path(os.environ.get("ASSAY_CACHE") or pathlib.Path.home() / ".cache/assay")
    there = home / f"bench-peer-{name}"
    if not there.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(tempfile.mkdtemp(prefix=f"bench-peer-{name}.", dir=home))
        maven = ["mvn", "-q", "-B", "-C", "-f", PEER / "pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={partial}/lib"]
        subprocess.run(say(*maven), check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        compiler = ["javac", "-cp", f"{partial}/lib/*", "-d", partial / "classes", *PEER.glob("*.java")]
        subprocess.run(say(*compiler), check=True, stdout=sys.stderr)
        partial.rename(there)
    return f"{there}/classes:{there}/lib/*"


def broker_cpu_seconds():
    """Processor time of the broker: of everything below the supervisor that deploy/with started."""
    supervisor = json.loads((pathlib.Path(os.environ["ASSAY_TEST_BROKER_DIR"]) / "pid.json").read_text())["pid"]
    parent, ticks = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parent[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    below = {supervisor}
    while more := {pid for pid, of in parent.items() if of in below} - below:
        below |= more
    return sum(ticks[pid] for pid in below & ticks.keys()) / os.sysconf("SC_CLK_TCK")


def measured(command):
    """What the command printed, how long it took, and the processor time of it and of the broker."""
    broker = broker_cpu_seconds()
    began = time.monotonic()
    child = subprocess.Popen(say(*command), stdout=subprocess.PIPE, cwd=ROOT)
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"bench: {command[0]}: exit {child.returncode}")
    return json.loads(printed), {"wallSeconds": time.monotonic() - began, "cpuSeconds": usage.ru_utime + usage.ru_stime,
                                 "brokerCpuSeconds": broker_cpu_seconds() - broker}


def figure(what, count, took, **more):
    row = {"what": what, "unit": "reports", "count": count, **took, **more}
    row["perSecond"] = count / took["wallSeconds"]
    row["perCpuSecond"] = count / (took["cpuSeconds"] + took["brokerCpuSeconds"])  # the broker shares the cores
    print(json.dumps(row), flush=True)
    return row["perSecond"]


def multiplied(given, copies, out):
    """The reports of a file (.zst recognised), each as often as said, from as many times the agents."""
    words = ["zstd", "-dcq", given] if str(given).endswith(".zst") else ["cat", given]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as lines, open(out, "wb") as to:
        for line in lines.stdout:
            for copy in range(copies):
                mark = b"%d-" % copy if copy else b""
                to.write(line.replace(b'"id":"', b'"id":"' + mark, 1).replace(b'"agentId":"', b'"agentId":"' + mark, 1))
    if lines.returncode != 0:
        sys.exit(f"bench: reading {given}: exit {lines.returncode}")
    return out


def main(directory):
    directory = pathlib.Path(directory)
    agents, form = os.environ.get("BENCH_AGENTS", "42"), os.environ.get("BENCH_FORMAT", "json")
    given, partitions = os.environ.get("BENCH_INPUT"), os.environ.get("BENCH_PARTITIONS", "2")
    reports = directory / "reports.jsonl"
    if given:
        reports = multiplied(given, int(os.environ.get("BENCH_COPIES", "1")), reports)
    else:
        count = os.environ.get("BENCH_REPORTS", "2000000")
        subprocess.run(say(ASSAY, "generate", "--agents", agents, "--reports", count, "--seed", 1, "--out", reports), check=True)
    assay = [ASSAY, "--data-dir", directory / "assay", "--brokers", BROKERS, "--set", f"topics.partitions={partitions}", "--set",
             "log.level=warn", "-o", "json"]
    sent = json.loads(subprocess.run(say(*assay, "produce", "--format", form, "--input", reports), check=True,
                                     stdout=subprocess.PIPE).stdout)["sent"]
    peer = ["java", "-Xmx1g", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classes(), "Peer"]

    def beside(kind, seconds):
        state = directory / kind
        told, took = measured([*peer, kind, BROKERS, IN, f"peer.{kind}", sent, partitions, state, seconds])
        shutil.rmtree(state, ignore_errors=True)
        what = {"dsl": "Kafka Streams, windowing DSL", "rings": "Kafka Streams, written by hand"}[kind]
        # Its own clock begins with its first report, so that the start of its virtual machine does not count.
        return figure(what, told["count"], {**took, "wallSeconds": told["wallSeconds"]})

    seconds = os.environ.get("BENCH_DSL_SECONDS", "30")
    dsl = beside("dsl", seconds) if seconds != "0" else None
    by_hand = beside("rings", 900)
    told, took = measured([*assay, "run", "--until-end", "--only", "scoring"])
    if told["delivered"] != sent:
        sys.exit(f"bench: assay folded {told['delivered']} of {sent} reports")
    more = {"timesByHand": sent / took["wallSeconds"] / by_hand}
    if dsl:
        more["timesDsl"] = sent / took["wallSeconds"] / dsl
    if form == "json":  # a peer's bar is only as good as its own parser
        more["bar"] = max(BAR * by_hand, DSL_BAR * (dsl or 0))
    figure("Assay, from its start to its end", sent, took, **more)


if __name__ == "__main__":
    main(sys.argv[1])
