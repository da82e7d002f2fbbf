#!/usr/bin/env python3
"""The reference fold: recomputes what the pipeline says from the EvalReports alone, from scratch and in exact rationals.

It is written to be read as the specification. It keeps no panes, no store and no running sums: it lists the accepted
reports, and every window is computed anew from that list. Times are integers (ms since the Unix epoch), metric values
integers (10^-6), everything between them `Fraction`s; floats appear only where a record would hold one.
Python 3.11 standard library only; `.zst` is read through `zstd -dc`. Imports nothing of the project.
"""
import argparse
import datetime
import gzip
import json
import math
import re
import subprocess
import sys
import tomllib
from bisect import bisect_left
from dataclasses import dataclass, field
from fractions import Fraction

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
FUTURE_TOLERANCE = 5 * MINUTE
MICRO = 10**6
MAX_VALUE = 1e12
MAX_METRICS, MAX_ID_BYTES, MAX_DEPTH = 256, 256, 64


@dataclass(frozen=True)
class Window:
    name: str
    size: int   # covers [E - size, E)
    pane: int   # an end E is a multiple of it
    emit: int   # closed windows become records only where E is a multiple of it


WINDOWS = {w.name: w for w in (Window("1h", HOUR, MINUTE, HOUR), Window("24h", DAY, 15 * MINUTE, HOUR),
                               Window("7d", 7 * DAY, HOUR, DAY))}
CLOSING_ORDER = ("7d", "24h", "1h")  # at equal E: the 1h score, which decides, comes when its 24h score is known

# ---------------------------------------------------------------------------------------------------------------- time


def parse_duration(text):
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text)
    if not match:
        raise SystemExit(f"reference: cannot read the duration {text!r}: want a count and one of ms s m h d")
    return int(match[1]) * {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}[match[2]]


RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()


def parse_time(text):
    """RFC 3339 with a zone, cut to ms; None when it is anything else. A leap second is the last ms of its minute."""
    match = RFC3339.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    ms = int(((match[7] or "") + "000")[:3])
    if second == 60:
        second, ms = 59, 999
    zone = 0
    if match[8]:
        zone_hour, zone_minute = int(match[9]), int(match[10])
        if zone_hour > 23 or zone_minute > 59:
            return None
        zone = (zone_hour * 60 + zone_minute) * MINUTE * (1 if match[8] == "+" else -1)
    if hour > 23 or minute > 59 or second > 59:
        return None
    try:
        days = datetime.date(year, month, day).toordinal() - EPOCH_DAY
    except ValueError:
        return None
    return days * DAY + hour * HOUR + minute * MINUTE + second * SECOND + ms - zone


def format_time(ms):
    days, rest = divmod(ms, DAY)
    return (f"{datetime.date.fromordinal(days + EPOCH_DAY).isoformat()}T{rest // HOUR:02}:{rest // MINUTE % 60:02}:"
            f"{rest // SECOND % 60:02}.{rest % SECOND:03}Z")


def last_boundary(time, step):
    return time // step * step


def first_boundary_after(time, step):
    return time // step * step + step


# ------------------------------------------------------------------------------------------------------- configuration


def glob_regex(pattern):
    """'*' any run, '?' one byte, everything else itself ('[' too)."""
    parts = {b"*": b".*", b"?": b"."}
    return re.compile(b"".join(parts.get(c, re.escape(c)) for c in (bytes([b]) for b in pattern.encode())), re.DOTALL)


@dataclass
class Rule:
    division: str = "*"
    window: str = "*"
    metric: str = "*"
    direction: str = "up"
    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0

    def __post_init__(self):
        if self.direction not in ("up", "down") or not self.high > self.low or not 0 <= self.weight < math.inf:
            raise SystemExit(f"reference: {self} is no rule: want up or down, low < high, weight >= 0")
        self.globs = [glob_regex(p) for p in (self.division, self.window, self.metric)]

    def matches(self, *names):
        return all(glob.fullmatch(name.encode()) for glob, name in zip(self.globs, names))


@dataclass
class Config:
    grace: int = 45 * MINUTE
    dedupe: int = 24 * HOUR
    rules: list = field(default_factory=list)
    enter: float = 0.85
    leave: float = 0.80
    min_samples: int = 5
    cooldown: int = 24 * HOUR
    max_per_week: int = 2
    record_time: str = None  # path of the field that gave each record its Kafka timestamp, or an instant in ms that all
    #                          records share; none: no check of the future
    rule_cache: dict = field(default_factory=dict)

    def rule(self, division, window, metric):
        key = (division, window, metric)
        if key not in self.rule_cache:
            self.rule_cache[key] = next((rule for rule in self.rules if rule.matches(*key)), None)
        return self.rule_cache[key]


def load_config(path=None, grace=None, record_time=None):
    config = Config(record_time=record_time)
    document = {}
    if path:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    scoring, promotion = dict(document.get("scoring", {})), dict(document.get("promotion", {}))
    config.rules = [Rule(**rule) for rule in scoring.pop("metric", [])]
    for key in ("grace", "dedupe"):
        if key in scoring:
            setattr(config, key, parse_duration(scoring.pop(key)))
    if "cooldown" in promotion:
        config.cooldown = parse_duration(promotion.pop("cooldown"))
    for key in ("enter", "leave", "min_samples", "max_per_week"):
        setattr(config, key, promotion.pop(key, getattr(config, key)))
    if scoring or promotion:
        raise SystemExit(f"reference: {path} has keys that this reference does not know: {[*scoring, *promotion]}")
    if grace is not None:
        config.grace = grace
    config.dedupe = max(config.dedupe, config.grace)  # never less than the grace
    return config


# ------------------------------------------------------------------------------------------- one report: decode, validate


class Rejected(Exception):
    """A dead letter or a filtered report; args[0] is the reason."""


@dataclass(slots=True)
class Report:
    id: str            # None: not given
    agent: str
    division: str      # None: not given
    timestamp: int
    metrics: dict      # name -> value in 10^-6
    record_time: int   # None: not known
    canonical: tuple   # what two deliveries of the same report share, whatever their encoding


def to_micro(value):
    """The double's exact value, in 10^-6, rounded half to even."""
    numerator, denominator = value.as_integer_ratio()
    quotient, rest = divmod(numerator * MICRO, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient & 1))


def not_json(_):
    raise Rejected("NOT_JSON")


DECODER = json.JSONDecoder(parse_int=float, parse_constant=not_json)  # a JSON number is a double; NaN is no JSON


def parse_json(line):
    if not line.strip():
        raise Rejected("EMPTY")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and depth(line) > MAX_DEPTH:
        raise Rejected("TOO_DEEP")
    try:
        return DECODER.decode(line.decode())
    except ValueError as error:  # not UTF-8 or not JSON
        raise Rejected("NOT_JSON") from error


def depth(line):
    deepest = level = 0
    for bracket in re.findall(rb"[\[\]{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest


def control(character):
    return character < " " or "\x7f" <= character <= "\x9f"


def well_formed(text):
    try:
        return 1 <= len(text.encode()) <= MAX_ID_BYTES and (text.isprintable() or not any(map(control, text)))
    except UnicodeEncodeError:  # a lone surrogate
        return False


def plain(value):
    """JSON with sorted keys and no sign on zero, to compare free-form parts by."""
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def decode(line, record_time_path=None):
    doc = parse_json(line)
    if not isinstance(doc, dict):
        raise Rejected("WRONG_TYPE")

    def take(camel, snake, kind, required=False):
        value = doc.get(camel)
        if value is None:
            value = doc.get(snake)
        if value is None:
            if required:
                raise Rejected("MISSING_FIELD")
        elif not isinstance(value, kind):
            raise Rejected("WRONG_TYPE")
        return value

    agent = take("agentId", "agent_id", str, required=True)
    metric_set = take("metricSet", "metric_set", dict, required=True)
    timestamp = take("timestamp", "timestamp", str, required=True)
    report_id = take("id", "id", str)
    division = take("divisionId", "division_id", str)
    source = take("source", "source", str)
    computed = take("computedScore", "computed_score", float)
    window = take("window", "window", str)
    metadata = take("metadata", "metadata", dict)

    for text in (agent, report_id, division):
        if text is not None and not well_formed(text):
            raise Rejected("BAD_ID")
    if not 1 <= len(metric_set) <= MAX_METRICS or not all(map(well_formed, metric_set)):
        raise Rejected("BAD_METRICS")
    metrics = {}
    for name, value in metric_set.items():
        if not isinstance(value, float):
            raise Rejected("WRONG_TYPE")
        if not math.isfinite(value):
            raise Rejected("VALUE_NOT_FINITE")
        if abs(value) > MAX_VALUE:
            raise Rejected("VALUE_OUT_OF_RANGE")
        metrics[name] = to_micro(value)
    if computed is not None and not math.isfinite(computed):
        raise Rejected("VALUE_NOT_FINITE")
    time = parse_time(timestamp)
    if time is None or time < 0:
        raise Rejected("BAD_TIMESTAMP")

    record_time = record_time_path if isinstance(record_time_path, int) else None
    if isinstance(record_time_path, str):
        value = doc
        for step in record_time_path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        record_time = parse_time(value) if isinstance(value, str) else None
        if record_time is None:
            raise SystemExit(f"reference: no time at {record_time_path} in {line[:200]!r}")
    canonical = (report_id, agent, division, time, metrics, source or "", computed, window or "", metadata or {})
    return Report(report_id, agent, division, time, metrics, record_time, canonical)


def same(a, b):
    return a[:8] == b[:8] and json.dumps(plain(a[8])) == json.dumps(plain(b[8]))


# ------------------------------------------------------------------------------------ the fold: which reports are accepted


class Agent:
    def __init__(self, agent_id):
        self.id = agent_id
        self.clock = None     # greatest accepted timestamp; nobody else's reports move it
        self.remembered = {}  # id -> (timestamp, canonical) of the last accepted report of that id
        self.accepted = []    # (timestamp, id, division, metrics), sorted by `Fold.finish`

    def check(self, report, config):
        """Future, duplicate, late: in this order. Raises the reason that keeps the report out."""
        if report.record_time is not None and report.timestamp > report.record_time + FUTURE_TOLERANCE:
            raise Rejected("TIMESTAMP_IN_FUTURE")
        if self.clock is None:
            return
        known = self.remembered.get(report.id) if report.id is not None else None
        if known and known[0] >= self.clock - config.dedupe:
            raise Rejected("DUPLICATE" if same(known[1], report.canonical) else "CONFLICTING_DUPLICATE")
        if report.timestamp < self.clock - config.grace:
            raise Rejected("LATE")

    def accept(self, report):
        if report.id is not None:
            self.remembered[report.id] = (report.timestamp, report.canonical)
        self.accepted.append((report.timestamp, report.id or "", report.division or "default", report.metrics))
        self.clock = report.timestamp if self.clock is None else max(self.clock, report.timestamp)

    def sort(self):
        self.accepted.sort(key=lambda report: report[:2])
        self.times = [report[0] for report in self.accepted]
        self.series = {}  # metric -> (times, values), sorted by time
        for timestamp, _, _, metrics in self.accepted:
            for name, value in metrics.items():
                times, values = self.series.setdefault(name, ([], []))
                times.append(timestamp)
                values.append(value)
        self.names = sorted(self.series)

    def holds_report(self, begin, end):
        return bisect_left(self.times, begin) < bisect_left(self.times, end)


def murmur2(data):
    """Kafka's hash of a key, as its protocol documents it."""
    mask = 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at:at + 4], "little") * 0x5BD1E995 & mask
        h = (h * 0x5BD1E995 & mask) ^ ((k ^ k >> 24) * 0x5BD1E995 & mask)
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return h ^ h >> 15


def partition_of(agent_id, partitions):
    return (murmur2(agent_id.encode()) & 0x7FFFFFFF) % partitions


def known(lines, config, known_by, partitions):
    """The lines that had arrived by an instant: of each partition those before its first with a later record time."""
    over = set()
    for line in lines:
        report = decode(line, config.record_time)
        place = partition_of(report.agent, partitions)
        if report.record_time > known_by:
            over.add(place)
        if place not in over:
            yield line


class Fold:
    """Every report in arrival order; afterwards the accepted ones of each agent and every step that a clock made."""

    def __init__(self, lines, config):
        self.config = config
        self.agents = {}
        self.counts = {}
        self.total = 0
        self.steps = []  # (agent, clock before, clock after), in arrival order
        for line in lines:
            self.total += 1
            try:
                report = decode(line, config.record_time)
                agent = self.agents.get(report.agent) or Agent(report.agent)
                agent.check(report, config)
            except Rejected as rejected:
                reason = rejected.args[0]
                self.counts[reason] = self.counts.get(reason, 0) + 1
                continue
            self.agents[report.agent] = agent  # only now: a rejected report makes no agent
            before = agent.clock
            agent.accept(report)
            if before is not None and agent.clock > before:
                self.steps.append((agent, before, agent.clock))
        for agent in self.agents.values():
            agent.sort()

    def closed(self):
        """(agent, window, E) for each eval.scores.v1 record, in the order in which they are caused.

        A closed window never changes, so the final list of accepted reports gives what it held when it closed.
        No window that ends later than 7 d after the old clock can hold a report, however far the clock jumps.
        """
        for agent, before, after in self.steps:
            end = first_boundary_after(before - self.config.grace, HOUR)
            while end <= min(after - self.config.grace, before + 7 * DAY):
                for name in CLOSING_ORDER:
                    window = WINDOWS[name]
                    if end % window.emit == 0 and agent.holds_report(end - window.size, end):
                        yield agent, window, end
                end += HOUR


# ------------------------------------------------------------------------------------------------- one window: AgentScore


def rounded(value):
    return float(round(value, 9))  # Fraction rounds half to even


def clip(value):
    return min(max(value, Fraction(0)), Fraction(1))


def square_root(value):
    """To 30 decimals, which is far below what nine of them can show."""
    return Fraction(math.isqrt(value.numerator * 10**60 // value.denominator), 10**30)


@dataclass
class Component:
    metric: str
    count: int
    mean: Fraction
    variance: Fraction  # None for n < 2
    min: int
    max: int
    rule: Rule          # None: unconfigured

    @property
    def weight(self):
        return Fraction(self.rule.weight) if self.rule else Fraction(0)

    @property
    def span(self):
        return Fraction(self.rule.high) - Fraction(self.rule.low)

    @property
    def normalized(self):
        if not self.rule:
            return None
        up = (self.mean - Fraction(self.rule.low)) / self.span
        return clip(up if self.rule.direction == "up" else 1 - up)

    @property
    def variance_or_largest(self):
        return self.variance if self.variance is not None else (self.span / 2) ** 2


DEFAULT_RULE = Rule()


def component(agent, metric, begin, end, division, window, config):
    times, values = agent.series[metric]
    inside = values[bisect_left(times, begin):bisect_left(times, end)]
    if not inside:
        return None
    n, total, low, high = len(inside), sum(inside), min(inside), max(inside)
    variance = Fraction(n * sum(x * x for x in inside) - total * total, n * (n - 1) * MICRO**2) if n >= 2 else None
    rule = config.rule(division, window.name, metric)
    if rule is None and low >= 0 and high <= MICRO:
        rule = DEFAULT_RULE
    return Component(metric, n, Fraction(total, n * MICRO), variance, low, high, rule)


def agent_score(agent, window, end, config):
    """The AgentScore row of [end - size, end), or None when no accepted report lies in it."""
    begin = end - window.size
    first, last = bisect_left(agent.times, begin), bisect_left(agent.times, end)
    if first == last:
        return None
    division = agent.accepted[last - 1][2]  # that of the greatest (timestamp, id) in the window
    parts = [c for name in agent.names if (c := component(agent, name, begin, end, division, window, config))]
    weighted = [part for part in parts if part.weight > 0]
    weights = sum(part.weight for part in weighted)
    score = lower = upper = confidence = None
    if weighted:
        exact = sum(part.weight * part.normalized for part in weighted) / weights
        squared_error = sum((part.weight / part.span) ** 2 * part.variance_or_largest / part.count
                            for part in weighted) / weights**2
        margin = Fraction(196, 100) * square_root(squared_error)
        exact_lower, exact_upper = clip(exact - margin), clip(exact + margin)
        score, lower, upper = rounded(exact), rounded(exact_lower), rounded(exact_upper)
        confidence = rounded(1 - (exact_upper - exact_lower))

    def component_row(part):
        return {"metric": part.metric, "count": part.count, "mean": float(part.mean),
                "variance": None if part.variance is None else float(part.variance), "min": part.min / MICRO,
                "max": part.max / MICRO,
                "normalized": rounded(part.normalized) if part.rule else None, "weight": float(part.weight),
                "contribution": rounded(part.weight * part.normalized / weights) if part.weight else 0.0}

    return {"agentId": agent.id, "divisionId": division, "window": window.name, "windowStart": format_time(begin),
            "windowEnd": format_time(end), "score": score, "lower": lower, "upper": upper, "confidence": confidence,
            "samples": last - first, "components": [component_row(part) for part in parts],
            "unconfigured": [part.metric for part in parts if part.rule is None]}


# --------------------------------------------------------------------------------------------------------------- queries


def scores(fold, at=None, windows=tuple(WINDOWS)):
    rows = []
    for agent_id in sorted(fold.agents):
        agent = fold.agents[agent_id]
        for window in (WINDOWS[name] for name in windows):
            end = first_boundary_after(agent.clock, window.pane) if at is None else last_boundary(at, window.pane)
            row = agent_score(agent, window, end, fold.config)
            rows += [row] if row else []
    return rows


def board(fold, window, end, division):
    """Rows of all agents in the one window that ends at `end`, best first, ties by id."""
    rows = [row for agent in fold.agents.values() if (row := agent_score(agent, window, end, fold.config))]
    rows = [row for row in rows if row["score"] is not None and division in (None, row["divisionId"])]
    return sorted(rows, key=lambda row: (-row["score"], row["agentId"]))


def scoreboard(fold, at=None, window="24h", division=None, top=None):
    window = WINDOWS[window]
    if at is None:
        clocks = [agent.clock for agent in fold.agents.values() if division in (None, agent.accepted[-1][2])]
        if not clocks:
            return []
        end = first_boundary_after(max(clocks), window.pane)
    else:
        end = last_boundary(at, window.pane)
    earlier = {row["agentId"]: rank for rank, row in enumerate(board(fold, window, end - HOUR, division), 1)}
    return [{"rank": rank, **{key: row[key] for key in ("agentId", "divisionId", "window", "windowEnd", "score", "lower", "upper",
                                                        "samples")},
             "movement": earlier[row["agentId"]] - rank if row["agentId"] in earlier else None}
            for rank, row in enumerate(board(fold, window, end, division), 1)][:top]


def closed(fold, windows=tuple(WINDOWS)):
    return [agent_score(agent, window, end, fold.config) for agent, window, end in fold.closed() if window.name in windows]


@dataclass
class Entity:
    hourly: dict = field(default_factory=dict)  # E -> closed 1h score
    promoted: bool = False
    applied: list = field(default_factory=list)  # E of every promote and demote
    held: tuple = None                           # (wanted action, reason) that was said last


def allow_everything(action, row):
    """The default policy gate: the reason to stop, or None."""
    return None


def wanted_action(fold, agent, entity, end):
    """What the rule asks for at the closed 1h score that ends at `end`, gates aside."""
    config = fold.config
    last_three = [entity.hourly.get(end - n * HOUR) for n in range(3)]
    if not all(row and row["score"] is not None for row in last_three):
        return None
    if entity.promoted:
        return "demote" if all(row["score"] < config.leave for row in last_three) else None
    if not all(row["samples"] >= config.min_samples and row["score"] >= config.enter for row in last_three):
        return None
    day = agent_score(agent, WINDOWS["24h"], end, config)
    return "promote" if day["lower"] is not None and day["lower"] >= config.enter else None


def promotions(fold, gate=allow_everything):
    config, entities, events = fold.config, {}, []
    for agent, window, end in fold.closed():
        if window.name != "1h":
            continue
        entity = entities.setdefault(agent.id, Entity())
        row = entity.hourly[end] = agent_score(agent, window, end, config)
        action = wanted_action(fold, agent, entity, end)
        if action is None:
            entity.held = None
            continue
        reason = gate(action, row)
        if reason is None and entity.applied and end - entity.applied[-1] < config.cooldown:
            reason = "cooldown"
        if reason is None and sum(end - 7 * DAY < e <= end for e in entity.applied) >= config.max_per_week:
            reason = "rate_limit"
        event = {"entityId": agent.id, "divisionId": row["divisionId"], "action": action, "status": "applied",
                 "score": row["score"],
                 "confidence": row["confidence"], "ts": format_time(end)}
        if reason is None:
            entity.promoted = action == "promote"
            entity.applied.append(end)
            entity.held = None
            events.append(event)
        elif entity.held != (action, reason):
            entity.held = (action, reason)
            events.append({**event, "action": "hold", "status": "rejected", "wanted": action, "reason": reason})
    return events


FILTERED = ("DUPLICATE", "LATE")


def counts(fold):
    filtered = sum(fold.counts.get(reason, 0) for reason in FILTERED)
    rejected = sum(fold.counts.values())
    return {"in": fold.total, "accepted": fold.total - rejected, "filtered": filtered, "deadLetters": rejected - filtered,
            "byReason": dict(sorted(fold.counts.items())),
            "agents": {agent_id: len(agent.accepted) for agent_id, agent in sorted(fold.agents.items())}}


# ----------------------------------------------------------------------------------------------------------- command line


def read_lines(path):
    if path == "-":
        source, child = sys.stdin.buffer, None
    elif path.endswith(".zst"):
        child = subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE)
        source = child.stdout
    else:
        source, child = (gzip.open if path.endswith(".gz") else open)(path, "rb"), None
    for line in source:
        yield line.rstrip(b"\r\n")
    if child and child.wait():
        raise SystemExit(f"reference: zstd -dc {path} ended with {child.returncode}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("scores", "scoreboard", "closed", "promotions", "counts"))
    parser.add_argument("--input", required=True, metavar="FILE", help="JSON lines, plain, .zst, .gz or -")
    parser.add_argument("--config", metavar="FILE", help="TOML with [scoring] and [promotion]; other tables are not looked at")
    parser.add_argument("--grace", type=parse_duration, metavar="D", help="stands over the file's")
    parser.add_argument("--record-time", metavar="FIELD", help="field with the record's own timestamp, e.g. metadata.arrivedAt")
    parser.add_argument("--at", action="append", default=[], metavar="T", help="RFC 3339; repeat it for rows of several instants")
    parser.add_argument("--known-by", metavar="T", help="only what had arrived by then; needs --record-time and decodable lines")
    parser.add_argument("--partitions", type=int, default=4, help="of the reports topic, for --known-by (4)")
    parser.add_argument("--window", choices=tuple(WINDOWS), help="only this one (scoreboard: 24h unless told)")
    parser.add_argument("--division", help="scoreboard: agents of this division")
    parser.add_argument("--top", type=int, help="scoreboard: best rows only")
    options = parser.parse_args(arguments)
    instants = [parse_time(text) for text in options.at] or [None]
    if options.at and None in instants:
        parser.error(f"--at {options.at[instants.index(None)]}: want RFC 3339 with a zone")
    config, lines = load_config(options.config, options.grace, options.record_time), read_lines(options.input)
    if options.known_by:
        if not options.record_time or parse_time(options.known_by) is None:
            parser.error("--known-by: want RFC 3339 with a zone, and --record-time")
        lines = known(lines, config, parse_time(options.known_by), options.partitions)
    fold = Fold(lines, config)
    windows = (options.window,) if options.window else tuple(WINDOWS)
    result = {"counts": lambda: counts(fold), "promotions": lambda: promotions(fold), "closed": lambda: closed(fold, windows),
              "scores": lambda: [row for at in instants for row in scores(fold, at, windows)],
              "scoreboard": lambda: [row for at in instants
                                     for row in scoreboard(fold, at, options.window or "24h", options.division, options.top)],
              }[options.what]()
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
