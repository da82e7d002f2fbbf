#!/usr/bin/env python3
"""Chaos on the real thing: a broker, a database and several assay processes under a seeded schedule of faults, and a verdict.

  chaos.py --bin DIR --short [--seed S]         every kind of fault once
  chaos.py --bin DIR --minutes N [--seed S]     the same kinds again and again, in other orders and company
"""

import argparse
import collections
import concurrent.futures
import json
import pathlib
import random
import shlex
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
import faults
import schedule
import verdict
import world

# Reports a second, outages included: what was missed is made up for, so that a long run's number of reports is known before.
SHORT = {"agents": 96, "reports": 150000, "portion": 120, "rate": 200}
LONG = {"agents": 600, "portion": 2500, "rate": 1000}
RESERVE = 50000  # reports beyond that rate, for the faults that are in a hurry


class Runner:
    def __init__(self, options, directory):
        self.options = options
        self.world = world.World(directory, options.bin)
        self.began = time.monotonic()
        self.injected = []  # {"kind", "round", "arguments", "proof", "tookS", "said"}
        self.said = collections.Counter()

    def say(self, text):
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def load(self):
        shape = SHORT if self.options.short else LONG
        reports = self.options.reports or shape.get("reports") or int((self.options.minutes + 5) * 60 * shape["rate"]) + RESERVE
        path = self.world.directory / "reports.jsonl"
        self.world.call(self.world.directory / "producer", "generate", "--agents", shape["agents"], "--reports", reports, "--seed", self.options.seed,
                        "--bad", "0.01", "--late", "0.05", "--out", path)
        lines = path.read_bytes().splitlines(keepends=True)
        self.world.loader = world.Loader(self.world, lines, shape["portion"], shape["rate"])
        self.world.loader.start()

    def round(self, number, pause_s, steps):
        time.sleep(pause_s)
        self.say(schedule.text(number, pause_s, steps))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            tasks = [(step, pool.submit(self.inject, step)) for step in steps]
        done = [{"kind": step.kind, "round": number, "arguments": step.arguments, **task.result()} for step, task in tasks]
        self.world.loader.check()
        said = self.world.events()
        self.said += said
        for entry in done:
            entry["said"] = dict(said)
            self.injected.append(entry)
            self.say(f"      {entry['kind']}: {entry['proof']}")

    def inject(self, step):
        began = time.monotonic()
        proof = faults.FAULTS[step.kind][0](self.world, **step.arguments)
        return {"proof": proof, "tookS": round(time.monotonic() - began, 2)}

    def disturb(self):
        """Carries the schedule out; returns the kinds that it named."""
        if self.options.short:
            planned = schedule.cycle(self.options.seed)
            for number, (pause_s, steps) in enumerate(planned, 1):
                self.round(number, pause_s, steps)
            return collections.Counter(step.kind for _, steps in planned for step in steps)
        named = collections.Counter()
        until = self.began + self.options.minutes * 60
        for number, (pause_s, steps, last) in enumerate(schedule.rounds(self.options.seed), 1):
            named.update(step.kind for step in steps)
            self.round(number, pause_s, steps)
            if time.monotonic() > until and (last or self.options.minutes < 5):
                return named
        raise AssertionError("a schedule has no end")

    def run(self):
        self.say("starting broker, database and processes")
        self.world.up()
        self.load()
        time.sleep(1)
        self.world.events()
        named = self.disturb()
        self.say("faults stop")
        self.world.loader.stop()
        sent = self.world.loader.lines[:self.world.loader.sent]
        facts = verdict.Verdict(self.world, self.say).run(sent)
        self.said += self.world.events()
        happened = collections.Counter(entry["kind"] for entry in self.injected)
        if happened != named or (self.options.short and set(happened) != set(faults.FAULTS)):
            raise world.Failed(f"the schedule named {dict(named)}, injected were {dict(happened)}")
        return facts

    def table(self):
        by_kind = collections.defaultdict(list)
        for entry in self.injected:
            by_kind[entry["kind"]].append(entry)
        lines = [f"{'fault':32}{'times':>6}  what the system said meanwhile"]
        for kind in sorted(by_kind):
            said = collections.Counter()
            for entry in by_kind[kind]:
                said.update(entry["said"])
            words = ", ".join(f"{event} {count}" for event, count in said.most_common(5))
            lines.append(f"{kind:32}{len(by_kind[kind]):6}  {words or 'nothing'}")
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--short", action="store_true")
    length.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, help="another seed, another schedule; drawn and printed unless given")
    parser.add_argument("--reports", type=int, help="how many to make ready; unless told, as many as the time takes")
    parser.add_argument("--json", type=pathlib.Path, help="write what happened there as well")
    parser.add_argument("--keep", action="store_true", help="keep the directory of a run that passed, too")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 1 << 31)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="assay-chaos-"))
    directory.chmod(0o755)  # the database's user must reach its part
    again = f"./run chaos {'--short' if options.short else f'--minutes {options.minutes:g}'} --seed {options.seed}"
    if options.reports:
        again += f" --reports {options.reports}"
    print(f"seed {options.seed}; the same again: {again}", flush=True)
    for number, (pause_s, steps) in enumerate(schedule.cycle(options.seed), 1):
        print(schedule.text(number, pause_s, steps))
    runner = Runner(options, directory)
    facts, failure = {}, None
    try:
        facts = runner.run()
    except BaseException as error:
        failure = str(error) if isinstance(error, world.Failed) else traceback.format_exc()
        failure += "".join(f"\nprocess {name} is not there:\n{said}" for name, said in runner.world.ended().items())
    finally:
        runner.world.down(keep=failure is not None or options.keep)
    report = {"seed": options.seed, "passed": failure is None, "faults": len(runner.injected), "kinds": len({e["kind"] for e in runner.injected}),
              "seconds": round(time.monotonic() - runner.began, 1), **facts, "said": dict(runner.said.most_common()), "injected": runner.injected}
    print("\n" + runner.table() + "\n")
    for name, value in facts.items():
        print(f"{name:32}{value}")
    print("in all: " + ", ".join(f"{event} {count}" for event, count in runner.said.most_common()))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if failure:
        print(f"\nFAILED: {failure}\nkept: {shlex.quote(str(directory))}\nthe same again: {again}")
        return 1
    print(f"\npassed: {report['faults']} faults of {report['kinds']} kinds in {report['seconds']} s, seed {options.seed}")
    if options.keep:
        print(f"kept: {directory}")
    else:
        runner.world.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
