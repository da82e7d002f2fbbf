#!/usr/bin/env python3
"""Makes small adversarial streams of EvalReports for differential tests: the same bytes for the same arguments.

Every agent draws its own manners: dense phases of good and bad hours (so that promotions, demotions and holds happen), bursts of
equal timestamps, steps onto exact minute, hour and day boundaries and 1 ms beside them, jumps of weeks, reports at the exact edge
of the grace and of the duplicate memory, conflicting ids, redeliveries in another spelling, values at the limits and on halves
of 10^-6. `--rules` writes a configuration that fits. What the documents leave open is not made (see README.md).
"""
import argparse
import json
import random
import sys

from reference import DAY, HOUR, MAX_VALUE, MINUTE, SECOND, format_time, parse_duration

START = 19_700 * DAY  # a day boundary in December 2023


class Agent:
    def __init__(self, name, rng, options):
        self.name, self.rng, self.options = name, rng, options
        self.clock = START + rng.choice([0, 1, rng.randrange(DAY), rng.randrange(30) * HOUR])
        self.number = 0
        self.sent = []  # reports that may come again
        self.manner = rng.choice(["steady", "steady", "steady", "sparse", "wild"])
        self.level, self.level_until = 0.95, self.clock
        self.division = f"division-{rng.randrange(3)}"
        self.metrics = rng.sample(["success", "quality.ratio", "tool_use"], rng.randint(1, 3))

    def step(self):
        rng, clock = self.rng, self.clock
        kind = rng.random()
        unit = rng.choice([MINUTE, 15 * MINUTE, HOUR, HOUR, DAY])
        if kind < 0.04:
            return (clock // unit + 1) * unit + rng.choice([-1, 0, 0, 1])  # beside or on a boundary
        if kind < 0.06:
            grace = self.options.grace
            return ((clock - grace) // unit + 1) * unit + grace + rng.choice([-1, 0, 0, 1])  # closes, or just not
        if kind < 0.12:
            return clock  # a burst
        if self.manner == "steady":
            if kind > 0.9985:
                return clock + rng.choice([3 * HOUR, 26 * HOUR, 8 * DAY])
            return clock + rng.randrange(1, 18 * MINUTE)
        if self.manner == "sparse":
            return clock + rng.randrange(1, 7 * HOUR)
        return clock + rng.choice([1, SECOND, rng.randrange(HOUR), rng.randrange(DAY), rng.randrange(3) * 7 * DAY + 1, 7 * DAY])

    def value(self, name, time):
        rng = self.rng
        if time >= self.level_until:
            self.level = rng.choice([0.97, 0.95, 0.9, 0.84, 0.6, 0.3]) if self.level < 0.8 or rng.random() < 0.5 else 0.3
            self.level_until = time + rng.choice([2, 4, 9, 20, 40]) * HOUR + rng.randrange(HOUR)
        if name.endswith("_latency_ms"):
            return round(5 * (1 - self.level) * rng.uniform(0.9, 1.1), rng.choice([2, 6, 12]))
        kind = rng.random()
        if kind < 0.1:
            return (2 * rng.randrange(64) + 1) / 128  # exactly half of 10^-6 too many
        if kind < 0.2:
            return rng.choice([0, 1, 1.0, 0.0, -0.0, 5e-7, 1.5e-6, 1e-300])
        return min(1.0, max(0.0, rng.gauss(self.level, 0.02)))

    def metric_set(self, time):
        rng = self.rng
        metrics = {name: self.value(name, time) for name in self.metrics if rng.random() < 0.95}
        if rng.random() < 0.3:
            metrics["p95_latency_ms"] = self.value("p95_latency_ms", time)
        if rng.random() < 0.03 or not metrics:
            metrics[rng.choice(["edge.a", "edge.b", "größe", "𝔘"])] = rng.choice(
                [MAX_VALUE, -MAX_VALUE, 999999999999.9999, -0.0000005, 0.5, 123456789012.123456, -1])
        return metrics

    def report(self, time):
        self.number += 1
        document = {"id": f"{self.name}/{self.number}", "agentId": self.name, "divisionId": self.division,
                    "metricSet": self.metric_set(time), "timestamp": format_time(time), "source": "make_reports"}
        if self.rng.random() < 0.1:
            document["metadata"] = {"dataset": "d", "jobId": self.number, "nested": {"b": [1, 2.5, None], "a": True}}
        if self.rng.random() < self.options.no_division:
            del document["divisionId"]
        return document

    def respelled(self, document):
        """The same report in another JSON: other order, snake_case, another zone, other spelling of numbers."""
        rng = self.rng
        snake = {"agentId": "agent_id", "divisionId": "division_id", "metricSet": "metric_set"}
        items = [(snake.get(key, key) if rng.random() < 0.5 else key, value) for key, value in document.items()]
        rng.shuffle(items)
        copy = dict(items)
        if rng.random() < 0.5:
            copy["timestamp"] = copy["timestamp"].replace("Z", "999+00:00")  # cut to ms
        key = "metric_set" if "metric_set" in copy else "metricSet"
        copy[key] = dict(reversed(list(copy[key].items())))
        return copy

    def again(self):
        """A redelivery or a conflict, possibly at the edge of the duplicate memory."""
        rng, options = self.rng, self.options
        time, document = rng.choice(self.sent[-400:])
        if rng.random() < 0.3:  # move the clock so that this id is remembered for the last time, or forgotten just now
            edge = time + max(options.dedupe, options.grace) + rng.choice([-1, 0, 1])
            if edge > self.clock:
                self.clock = edge
                yield self.report(edge)
        if rng.random() < 0.5:
            yield self.respelled(document)
        else:
            changed = self.report(self.clock + rng.choice([0, 1, MINUTE, -MINUTE]))
            yield {**changed, "id": document["id"]}

    def late(self):
        grace = self.options.grace
        offset = self.rng.choice([grace, grace, grace + 1, grace - 1, self.rng.randrange(1, grace + 2),
                                  self.rng.randrange(grace, grace + DAY)])
        return max(0, self.clock - offset)

    def next_reports(self):
        rng, options = self.rng, self.options
        if rng.random() < options.division_changes:
            self.division = f"division-{rng.randrange(3)}"
        if self.sent and rng.random() < options.dups:
            yield from self.again()
            return
        if self.sent and rng.random() < options.late:
            time = self.late()
        else:
            time = self.step()
            if time > START + options.days * DAY:
                time = self.clock  # the end of the days: a last burst
            self.clock = max(self.clock, time)
        document = self.report(time)
        self.sent.append((time, document))
        yield document


BAD = (b"", b"not json", b'{"agentId":"a"', b"[]", b'{"agentId":7,"metricSet":{"m":1},"timestamp":"2024-01-01T00:00:00Z"}',
       b'{"metricSet":{"m":1},"timestamp":"2024-01-01T00:00:00Z"}',
       b'{"agentId":"a","metricSet":{},"timestamp":"2024-01-01T00:00:00Z"}',
       b'{"agentId":"a","metricSet":{"m":1}}', b'{"agentId":"a","metricSet":{"m":1e13},"timestamp":"2024-01-01T00:00:00Z"}',
       b'{"agentId":"a","metricSet":{"m":"1"},"timestamp":"2024-01-01T00:00:00Z"}',
       b'{"agentId":"a","metricSet":{"m":1},"timestamp":"2024-01-01 00:00:00"}',
       b'{"agentId":"a","metricSet":{"m":1},"timestamp":"2024-02-30T00:00:00Z"}',
       b'{"agentId":"a\\u0000b","metricSet":{"m":1},"timestamp":"2024-01-01T00:00:00Z"}',
       b'{"agentId":"' + b"x" * 257 + b'","metricSet":{"m":1},"timestamp":"2024-01-01T00:00:00Z"}', b"[" * 5000)


def stream(options):
    rng = random.Random(options.seed)
    agents = [Agent(f"agent-{n:03}", rng, options) for n in range(options.agents)]
    singles = [agent for agent in agents if len(agents) > 2 and rng.random() < 0.15]  # one report ever
    for agent in singles:
        yield encode(agent.report(agent.clock), rng)
    busy = [agent for agent in agents if agent not in singles] or agents
    weights = [rng.choice([1, 3, 10]) for _ in busy]
    made = len(singles)
    while made < options.reports:
        if rng.random() < options.bad:
            made += 1
            yield rng.choice(BAD)
            continue
        agent = rng.choices(busy, weights)[0]
        for document in agent.next_reports():
            made += 1
            yield encode(document, rng)


def encode(document, rng):
    separators = rng.choice([(",", ":"), (", ", ": ")])
    return json.dumps(document, ensure_ascii=rng.random() < 0.5, separators=separators).encode()


RULES = """[scoring]
grace = "{grace}m"
dedupe = "{dedupe}m"
[[scoring.metric]]
division = "division-2"
window = "24h"
metric = "success"
low = 0.05
high = 0.99
weight = 3.0
[[scoring.metric]]
metric = "*_latency_ms"
direction = "down"
low = 0.0
high = 5.0
weight = 0.5
[[scoring.metric]]
metric = "edge.?"
low = -1000.0
high = 1000000.0
weight = 0.0
[promotion]
enter = {enter}
leave = {leave}
min_samples = {min_samples}
cooldown = "{cooldown}h"
max_per_week = {max_per_week}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--reports", type=int, default=4000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--late", type=float, default=0.06, help="share of reports sent behind the agent's clock")
    parser.add_argument("--dups", type=float, default=0.05, help="share of redelivered and conflicting ids")
    parser.add_argument("--bad", type=float, default=0.0, help="share of broken lines")
    parser.add_argument("--division-changes", type=float, default=0.01, help="chance per report that the agent's division changes")
    parser.add_argument("--no-division", type=float, default=0.02, help="share of reports without divisionId")
    parser.add_argument("--grace", type=parse_duration, default=45 * MINUTE, help="the edge that late reports aim at")
    parser.add_argument("--dedupe", type=parse_duration, default=24 * HOUR, help="the edge that redeliveries aim at")
    parser.add_argument("--rules", metavar="FILE", help="write a fitting configuration there")
    parser.add_argument("--out", default="-")
    options = parser.parse_args()
    if options.rules:
        rng = random.Random(options.seed + 1)
        enter = rng.choice([0.8, 0.85, 0.9])
        with open(options.rules, "w", encoding="utf-8") as file:
            file.write(RULES.format(grace=options.grace // MINUTE, dedupe=max(options.dedupe, options.grace) // MINUTE, enter=enter,
                                    leave=enter - rng.choice([0.0, 0.05, 0.2]), min_samples=rng.choice([1, 2, 5]),
                                    cooldown=rng.choice([1, 6, 24]), max_per_week=rng.choice([1, 2, 4])))
    out = sys.stdout.buffer if options.out == "-" else open(options.out, "wb")
    with out:
        for line in stream(options):
            out.write(line + b"\n")


if __name__ == "__main__":
    main()
