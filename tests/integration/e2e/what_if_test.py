"""`replay what-if` against two runs that know nothing of each other: every difference, and nothing else; the same rules, none."""
import collections
import datetime
import json
import random
import re

import harness

HOUR = 3_600_000
KINDS = {"reserved": "reservation", "applied": "grant", "gated": "wait", "rejected": "rejection", "released": "release"}


def rules(grace="45m", enter=0.85, leave=0.8, min_samples=3, cooldown="8h", max_per_week=20, weight=1.0, high=5.0, capacity=2, quotas="{}",
          deny="[]", gpu=1):
    return f"""
[scoring]
grace = "{grace}"
[[scoring.metric]]
metric = "p95_latency_ms"
direction = "down"
high = {high}
weight = {weight}
[promotion]
enter = {enter}
leave = {leave}
min_samples = {min_samples}
cooldown = "{cooldown}"
max_per_week = {max_per_week}
[policy]
deny_pools = {deny}
[allocation.grant]
pool = "p"
gpu = {gpu}
[[allocation.pool]]
name = "p"
unit = "gpu"
capacity = {capacity}
quotas = {quotas}
"""


PRESENT = rules()
OTHERS = {"thresholds": rules(enter=0.9, leave=0.7), "samples": rules(min_samples=6), "cooldown": rules(cooldown="2d", max_per_week=1),
          "weights": rules(weight=20.0, high=2.0), "grace": rules(grace="10m"), "capacity": rules(capacity=1),
          "quotas": rules(quotas='{ "division-1" = 1, "division-2" = 0 }'), "policy": rules(deny='["p*"]'), "amount": rules(gpu=2)}


def stream(seed):
    """Agents with stretches of good, middling and bad hours, so that every kind of decision is made; some reports late or twice."""
    rng, lines = random.Random(seed), []
    for name in range(9):
        time, level, until = 1_767_225_600_000 + rng.randrange(HOUR), 0.95, 0
        while time < 1_767_225_600_000 + 6 * 24 * HOUR:
            if time > until:
                level, until = rng.choice([0.97, 0.97, 0.93, 0.87, 0.83, 0.4, 0.2]), time + rng.choice([4, 7, 12, 26, 40]) * HOUR
            time += rng.randrange(60_000, 19 * 60_000)
            at = time - (rng.randrange(2 * HOUR) if rng.random() < 0.05 else 0)
            metrics = {"success": round(min(1.0, max(0.0, rng.gauss(level, 0.01))), 6)}
            if rng.random() < 0.7:
                metrics["p95_latency_ms"] = round(5 * (1 - level) * rng.uniform(0.9, 1.1), 6)
            lines.append((time, json.dumps({"id": f"{name}/{len(lines)}", "agentId": f"agent-{name}", "divisionId": f"division-{name % 3}",
                                            "metricSet": metrics, "timestamp": stamp(at)})))
            if rng.random() < 0.02:
                lines.append((time + 1, lines[-1][1]))
    return [line for _, line in sorted(lines)]


def stamp(ms):
    return datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03}Z"


def milliseconds(text):
    return round(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def decision(event):
    """What makes two decisions the same, from the words of the contract: no score, no confidence, no sentence."""
    if "allocationId" in event:
        return (KINDS[event["state"]], event["entityId"], event["ts"], event["allocationId"], event["pool"], event["cpu"], event["gpu"],
                event["memoryMB"])
    stopped = event["evidence"].get("stoppedBy", "")
    kind = {"promote": "promotion", "demote": "demotion"}.get(event["action"]) or ("denial" if stopped.startswith("sentinel-") else "hold")
    return kind, event["entityId"], event["ts"], event["evidence"].get("wanted", ""), stopped


class WhatIf(harness.EndToEnd):
    def reports(self, seed):
        lines = self.directory / f"reports-{seed}.jsonl"
        lines.write_text("\n".join(stream(seed) + ["{broken"]) + "\n")
        return lines

    def run_with(self, lines, text, partitions):
        here = self.assay(sets=[f"topics.partitions={partitions}", "log.level=error"])
        here.config = here.directory / "rules.toml"
        here.config.write_text(text)
        here.ok("produce", "--raw", "--input", lines)
        here.fold()
        return here

    def decisions(self, here):
        events = [json.loads(record.value) for topic in ("promotion.events.v1", "allocation.events.v1") for record in here.read(topic)]
        return collections.Counter(map(decision, events))

    def other(self, here, text):
        path = here.directory / "other.toml"
        path.write_text(text)
        return path

    def test_it_says_what_two_separate_runs_differ_in(self):
        lines = self.reports(5)
        present = self.run_with(lines, PRESENT, 1)
        mine = self.decisions(present)
        kinds = {kind for kind, *_ in mine}
        self.assertLessEqual({"promotion", "demotion", "hold", "grant", "wait", "release"}, kinds, "the stream decides too little")
        digests = present.json("state", "digest")
        seen = set()
        for name, text in OTHERS.items():
            with self.subTest(name):
                theirs = self.decisions(self.run_with(lines, text, 1))
                said = present.json("replay", "what-if", "--from", "log", "--with", self.other(present, text), "--examples", "0")
                listed = collections.Counter((example["only"], decision(example["event"])) for example in said["examples"])
                expected = collections.Counter({("present", d): n for d, n in (mine - theirs).items()})
                expected.update({("other", d): n for d, n in (theirs - mine).items()})
                self.assertEqual(listed, expected)
                self.assertGreater(said["differences"], 0)
                self.assertEqual(said["differences"], sum(expected.values()))
                self.assertEqual(said["byKind"], dict(collections.Counter(d[0] for (_, d) in expected.elements())))
                for kind, row in said["totals"].items():
                    self.assertEqual(row["present"], sum(n for d, n in mine.items() if d[0] == kind), kind)
                    self.assertEqual(row["other"], sum(n for d, n in theirs.items() if d[0] == kind), kind)
                for by in ("byDivision", "byEntity"):
                    self.assertEqual(sum(n for row in said[by].values() for n in row.values()), said["differences"])
                for example in said["examples"]:
                    self.assertRegex(example["cause"], r"^by the (present|other) rules \w")
                seen |= set(said["byKind"])
        self.assertLessEqual({"promotion", "demotion", "hold", "denial", "reservation", "grant", "wait", "rejection", "release"}, seen)
        self.assertEqual(present.json("state", "digest"), digests, "a question changed what runs")
        present.ok("replay", "verify")

    def test_the_same_rules_differ_in_nothing(self):
        lines = self.reports(6)
        for partitions in (1, 4):
            here = self.run_with(lines, PRESENT, partitions)
            said = here.json("replay", "what-if", "--with", here.config)
            self.assertEqual((said["differences"], said["byKind"], said["examples"]), (0, {}, []))
            self.assertEqual(said["scores"]["changed"], 0)
            self.assertGreater(said["totals"]["grant"]["present"], 5)
            self.assertEqual({row["present"] for row in said["totals"].values()} , {row["other"] for row in said["totals"].values()})

    def test_four_partitions_decide_alike_about_agents(self):
        lines = self.reports(7)
        present, other = (self.run_with(lines, text, 4) for text in (PRESENT, OTHERS["thresholds"]))
        said = present.json("replay", "what-if", "--with", other.config, "--examples", "0")
        mine, theirs = ({d for d in self.decisions(run) if d[0] in ("promotion", "demotion", "hold", "denial")} for run in (present, other))
        listed = {decision(example["event"]) for example in said["examples"] if "allocationId" not in example["event"]}
        self.assertTrue(listed)
        self.assertEqual(listed, mine ^ theirs)

    def pools_of(self, run, text):
        """What one task makes of the promotions of all partitions when they reach it by their ts, then by partition."""
        parts = {}
        for record in run.read("promotion.events.v1"):
            parts.setdefault(record.partition, []).append(record)
        order = []
        while any(parts.values()):
            first = min((p for p in parts if parts[p]), key=lambda p: (json.loads(parts[p][0].value)["ts"], p))
            order.append(parts[first].pop(0))
        alone = self.assay(sets=["topics.partitions=1", "log.level=error"])
        alone.config = alone.directory / "rules.toml"
        alone.config.write_text(text)
        alone.fold()
        alone.send([(0, record.timestamp_ms, record.key, record.value, [h for h in record.headers if h[0] != "assay-writer"])
                    for record in order], topic="promotion.events.v1")
        alone.fold()
        return [json.loads(record.value) for record in alone.read("allocation.events.v1")]

    @staticmethod
    def use(events, end):
        """Unit hours, peak, waits and hours waited, from the words of the events alone; and the peak of each division."""
        held, out, now = {}, collections.Counter(), collections.Counter()
        for event in events:
            if event["state"] == "reserved":
                continue
            at, division = milliseconds(event["ts"]), event["divisionId"]
            if event["allocationId"] in held:
                since, amount, waits = held.pop(event["allocationId"])
                out["waitHours" if waits else "unitHours"] += (at - since) / HOUR * (1 if waits else amount)
                now.subtract({} if waits else {"": amount, division: amount})
            if event["state"] in ("applied", "gated"):
                waits = event["state"] == "gated"
                held[event["allocationId"]] = at, event["gpu"], waits
                out["waits"] += waits
                now.update({} if waits else {"": event["gpu"], division: event["gpu"]})
                for name in ("", division):
                    out["peak " + name] = max(out["peak " + name], now[name])
        for since, amount, waits in held.values():
            out["waitHours" if waits else "unitHours"] += (end - since) / HOUR * (1 if waits else amount)
        return out

    def test_four_partitions_share_pools_quotas_and_money_as_two_runs_would(self):
        lines = self.reports(8)
        present = self.run_with(lines, PRESENT, 4)
        mine = [json.loads(record.value) for record in present.read("promotion.events.v1")]
        pools = self.pools_of(present, PRESENT)
        self.assertGreater(len({record.partition for record in present.read("promotion.events.v1")}), 2)
        seen = set()
        for name in ("capacity", "quotas", "amount", "thresholds"):
            with self.subTest(name):
                run = self.run_with(lines, OTHERS[name], 4)
                theirs = [json.loads(record.value) for record in run.read("promotion.events.v1")]
                their_pools = self.pools_of(run, OTHERS[name])
                said = present.json("replay", "what-if", "--with", run.config, "--examples", "0", "--price", "gpu=2.5")
                one, two = (collections.Counter(map(decision, events)) for events in (mine + pools, theirs + their_pools))
                expected = collections.Counter({("present", d): n for d, n in (one - two).items()})
                expected.update({("other", d): n for d, n in (two - one).items()})
                listed = collections.Counter((example["only"], decision(example["event"])) for example in said["examples"])
                self.assertEqual(listed, expected)
                self.assertEqual(said["differences"], sum(expected.values()))
                self.assertGreater(sum("allocationId" in example["event"] for example in said["examples"]), 5)
                seen |= set(said["byKind"])
                end = max(milliseconds(event["ts"]) for event in mine + pools + theirs + their_pools)
                pool, = said["pools"]
                for side, events in (("present", pools), ("other", their_pools)):
                    use = self.use(events, end)
                    self.assertEqual((pool[side]["peakUsed"], pool[side]["waits"]), (use["peak "], use["waits"]))
                    for member in ("unitHours", "waitHours"):
                        self.assertAlmostEqual(pool[side][member], use[member], places=2)
                    self.assertAlmostEqual(said["money"][side], use["unitHours"] * 2.5, places=1)
                    for division, row in pool[side]["divisions"].items():
                        self.assertEqual(row["peakHeld"], use["peak " + division])
                        self.assertLessEqual(row["peakHeld"], pool[side]["capacity"] if row["quota"] is None else row["quota"])
                self.assertAlmostEqual(said["money"]["difference"], said["money"]["other"] - said["money"]["present"], places=2)
        self.assertLessEqual({"reservation", "grant", "wait", "rejection", "release"}, seen)

    def test_since_and_until_cut_what_is_told(self):
        here = self.run_with(self.reports(5), PRESENT, 1)
        other = self.other(here, OTHERS["capacity"])
        whole = here.json("replay", "what-if", "--with", other, "--examples", "0", "--price", "gpu=2.5")
        times = sorted(example["ts"] for example in whole["examples"])
        middle = times[len(times) // 2]
        self.assertLess(times[0], middle)
        early = here.json("replay", "what-if", "--with", other, "--until", middle, "--examples", "0", "--price", "gpu=2.5")
        late = here.json("replay", "what-if", "--with", other, "--since", middle, "--examples", "0", "--price", "gpu=2.5")
        self.assertEqual(early["examples"] + late["examples"], whole["examples"])
        for side in ("present", "other"):
            self.assertAlmostEqual(early["money"][side] + late["money"][side], whole["money"][side], places=1)
            self.assertAlmostEqual(whole["pools"][0][side]["unitHours"] * 2.5, whole["money"][side], places=1)
        self.assertGreater(whole["money"]["present"], whole["money"]["other"])
        self.assertEqual((whole["pools"][0]["present"]["peakUsed"], whole["pools"][0]["other"]["peakUsed"]), (2, 1))
        self.assertGreater(whole["pools"][0]["other"]["waitHours"], whole["pools"][0]["present"]["waitHours"])

    def test_the_page_needs_nothing_else(self):
        here = self.run_with(self.reports(5), PRESENT, 1)
        page = here.directory / "page.html"
        done = here.ok("replay", "what-if", "--with", self.other(here, OTHERS["thresholds"]), "--html", page, "--price", "gpu=1")
        self.assertIn("only by the", done.out.decode())
        text = page.read_text(encoding="utf-8")
        self.assertGreaterEqual(text.count("<svg"), 3)
        self.assertIn("promotion.enter", text)
        self.assertIn("prefers-color-scheme", text)
        self.assertFalse(re.findall(r"https?:|<script|<link|<img|@import|url\(", text))
        self.assertEqual(text.count("<table>"), text.count("</table>"))

    def test_what_cannot_be_asked(self):
        here = self.assay(sets=["topics.partitions=1"])
        here.produce([{"agentId": "a", "metricSet": {"m": 0.5}, "timestamp": "2026-01-01T00:00:00Z"}] * 9)
        here.fold()
        bad = self.other(here, "[promotion]\nentre = 0.9\n")
        self.assertIn("promotion.entre", here.ok("replay", "what-if", "--with", bad, code=2).err)
        good = self.other(here, "[promotion]\nenter = 0.9\n")
        self.assertIn("gold=1", here.ok("replay", "what-if", "--with", good, "--price", "gold=1", code=2).err)
        here.cut("eval.reports.v1", 0, 4)
        self.assertIn("records 0 to 3", here.ok("replay", "what-if", "--with", good, code=8).err)


if __name__ == "__main__":
    harness.main()
