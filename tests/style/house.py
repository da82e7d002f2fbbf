"""The rules of the house as functions from a tree of files to a list of problems; style_test.py applies them and shows that each can fail."""

import fnmatch
import os
import re
import subprocess

LAYERS = ["schemas", "state", "processors", "streams", "replay", "tools"]
FOLDERS = LAYERS + ["deploy", "tests", "runbooks"]

# Who may know which library: headers -> files. Other files see the adapter's own header only.
THIRD_PARTY = {
    "simdjson.h": ["schemas/json_parse.cc"],
    "google/protobuf/*": ["schemas/eval_report_protobuf.cc"],
    "*.pb.h": ["schemas/*_protobuf.cc"],
    "xxhash.h": ["schemas/hash.cc"],
    "openssl/*": ["schemas/hash.cc", "streams/rsa_key.cc"],
    "rocksdb/*": ["state/rocksdb_store.cc"],
    "boost/multiprecision/*": ["processors/exact.cc"],
    "librdkafka/*": ["streams/kafka_*.cc", "streams/kafka_log_client.h", "streams/kafka_log_parts.h"],
    "pqxx/*": ["streams/postgres_sink.cc"],
    "sodium.h": ["streams/signer_sodium.cc"],
    "p11-kit/*": ["streams/signer_pkcs11.cc"],
    "curl/*": ["streams/https_client.cc"],
    "spdlog/*": ["streams/logging.cc"],
    "prometheus/*": ["streams/metrics.cc"],
    "boost/asio/*": ["streams/http_server.cc", "streams/http_client.cc"],
    "boost/beast/*": ["streams/http_server.cc", "streams/http_client.cc"],
    "boost/context/*": ["replay/sim_fiber.cc"],
    "zlib.h": ["streams/gzip.cc", "tools/gzip_source.cc"],
    "zstd.h": ["streams/zstd.cc", "tools/zstd_source.cc"],
    "CLI/*": ["tools/cli.cc", "tools/assay_verify.cc"],
    "toml++/*": ["tools/toml_text.cc"],
}
TEST_LIBRARIES = ["gtest/*", "gmock/*"]

POSIX = ["sys/*", "netinet/*", "arpa/*", "linux/*", "unistd.h", "malloc.h", "fcntl.h", "poll.h", "signal.h", "dirent.h", "netdb.h", "termios.h",
         "dlfcn.h", "pwd.h", "pthread.h", "sched.h", "spawn.h", "immintrin.h"]

TEXT = (".h", ".cc", ".proto", ".py", ".sh", ".md", ".yml", ".yaml", ".toml", ".sql", ".html", ".js", ".css", ".txt", ".cmake", ".scenario")
PROPER_NAMES = {"README.md", "ARCHITECTURE.md", "FAULTS.md", "LICENSE", "CMakeLists.txt", "CMakePresets.json", "Dockerfile", "Makefile"}

# Written in pieces, so that this file does not hold them itself.
FORBIDDEN = ["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK", r"st" + r"ub(?:s|bed)?", "not " + "implemented", "coming " + "soon"]
SKIPS = ["GTEST_" + "SKIP", r"\bDISABLED" + r"_\w", r"\bunittest\.sk" + r"ip", r"pytest\.mark\.(?:sk" + r"ip|xf" + r"ail)", "self.sk" + "ipTest",
         r"PROPERTIES[^)]*\b(?:DISABLED|WILL_" + r"FAIL)\b"]
MACHINE_PATH = r"(?<![\w.$}])/(?:wo" + r"rk|ro" + r"ot|Users|home/[a-z]\w*)/\w"

# The verbs of the command.
VERBS = {"generate", "produce", "run", "scores", "scoreboard", "promotions", "allocations", "pools", "state", "lag", "audit", "replay", "dlq",
         "config", "topics", "doctor", "scenario", "demo", "explain", "witness"}


class Tree:
    """Files of a repository, or of a made-up one: path -> text."""

    def __init__(self, files):
        self.files = files

    @classmethod
    def of(cls, root):
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True)
        if listed.returncode == 0:
            paths = [p for p in listed.stdout.decode().split("\0") if p]
        else:  # an archive without its history
            paths = [os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs]
            paths = [p for p in paths if not p.startswith(("build/", ".git/", ".cache/"))]
        files = {}
        for path in paths:
            full = os.path.join(root, path)
            if os.path.isfile(full):
                with open(full, "rb") as f:
                    files[path] = f.read().decode("utf-8", "replace")
        return cls(files)

    def code(self):
        return {p: t for p, t in self.files.items() if p.endswith((".h", ".cc"))}

    def text(self):
        return {p: t for p, t in self.files.items() if p.endswith(TEXT) or "." not in os.path.basename(p)}


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


def includes(text):
    return re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', text, re.M)


def include_direction(tree):
    """schemas <- state <- processors <- streams <- replay <- tools: an include may only point to the left."""
    problems = []
    for path, text in sorted(tree.code().items()):
        folder = path.split("/")[0]
        for kind, name in includes(text):
            if kind == "<" or name.endswith(".pb.h"):
                continue
            target = name.split("/")[0]
            if "/" not in name or target.startswith("."):
                problems.append(f"{path} includes {name}: write the path from the root, so that the layer shows")
            elif folder == "tests":
                if target not in LAYERS + ["tests"]:
                    problems.append(f"{path} includes {name}: no layer of that name")
            elif folder not in LAYERS or target not in LAYERS:
                problems.append(f"{path} includes {name}: no layer of that name")
            elif LAYERS.index(target) > LAYERS.index(folder):
                problems.append(f"{path} includes {name}: {target} stands to the right of {folder}")
    return problems


def third_party(tree):
    """A library's headers stand in its adapter's files alone, and a private header of an adapter is seen by that adapter alone."""
    problems = []
    private = {}  # header -> files that may include it
    for path, text in sorted(tree.code().items()):
        for kind, name in includes(text):
            if kind == '"' and not name.endswith(".pb.h"):
                continue
            if "/" not in name and "." not in name or matches(name, POSIX):
                continue  # the language's own, and the system's
            if path.startswith("tests/"):
                known = TEST_LIBRARIES + list(THIRD_PARTY)
                if not matches(name, known) or path.endswith(".h") and not matches(name, TEST_LIBRARIES):
                    problems.append(f"{path} includes {name}: a library that no adapter adapts")
                continue
            allowed = [files for pattern, files in THIRD_PARTY.items() if fnmatch.fnmatchcase(name, pattern)]
            if not any(matches(path, files) for files in allowed):
                where = ", ".join(sum(allowed, [])) or "no file: give it an adapter and a line in THIRD_PARTY"
                problems.append(f"{path} includes {name}: allowed in {where}")
            elif path.endswith(".h"):
                private.setdefault(path, set()).update(sum(allowed, []))
    pending = list(private)
    while pending:
        header = pending.pop()
        for path, text in sorted(tree.code().items()):
            if not any(kind == '"' and name == header for kind, name in includes(text)):
                continue
            if not matches(path, private[header]):
                problems.append(f"{path} includes {header}: that header holds a library and belongs to {', '.join(sorted(private[header]))}")
            elif path.endswith(".h") and path not in private:  # it hands the library on
                private[path] = private[header]
                pending.append(path)
    return problems


def headers(tree):
    """A header says in its first line what it is for, and guards itself."""
    problems = []
    for path, text in sorted(tree.code().items()):
        if not path.endswith(".h"):
            continue
        if not re.match(r"// \S.*[^\s]", text):
            problems.append(f"{path} does not begin with a sentence that says what it is for")
        if "#pragma once" not in text:
            problems.append(f"{path} has no #pragma once")
    return problems


def readmes(tree):
    """Every folder has its page once the house has its own, and a page is a page."""
    problems = []
    if "README.md" in tree.files:
        for folder in FOLDERS:
            if f"{folder}/README.md" not in tree.files:
                problems.append(f"{folder}/ has no README.md")
    for path, text in sorted(tree.files.items()):
        if path.endswith("/README.md") and text.count("\n") > 40:
            problems.append(f"{path} has {text.count(chr(10))} lines, more than 40")
    return problems


def file_sizes(tree):
    return [f"{path} has {text.count(chr(10))} lines, more than 800" for path, text in sorted(tree.text().items()) if text.count("\n") > 800]


def _grep(tree, pattern, what):
    problems = []
    regex = re.compile(pattern)
    for path, text in sorted(tree.text().items()):
        if not regex.search(text):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if regex.search(line):
                problems.append(f"{path}:{number} {what}: {line.strip()[:100]}")
    return problems


def forbidden_words(tree):
    return _grep(tree, r"(?i:\b(?:%s)\b)" % "|".join(FORBIDDEN[4:]) + r"|\b(?:%s)\b" % "|".join(FORBIDDEN[:4]), "holds a forbidden word")


def skipped_tests(tree):
    return _grep(tree, "|".join(SKIPS), "leaves a test out")


def machine_paths(tree):
    return _grep(tree, MACHINE_PATH, "names a path of one machine")


def file_names(tree):
    """snake_case, also for folders; the names that tools ask for are kept."""
    problems = []
    for path in sorted(tree.files):
        for part in path.split("/"):
            if part in PROPER_NAMES or part.startswith(".") or part.endswith(".java"):  # Java names a file after its class
                continue
            if not re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)*(?:\.[a-z0-9_]+)*", part):
                problems.append(f"{path}: {part} is not snake_case")
    return problems


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def catalogue(tree):
    """Metric enumerator -> (name, counts a failure)."""
    text = tree.files.get("streams/metric_catalogue.h", "")
    found = re.findall(r'\{\s*Metric::(k\w+),\s*"([^"]+)",\s*MetricKind::\w+,\s*(true|false)', text)
    return {enumerator: (name, failure == "true") for enumerator, name, failure in found}


def alert_rules(tree):
    """Alerts and recording rules of rules.yml, which keeps to a plain form: name -> {expr, runbook}."""
    rules, current = {}, None
    for line in tree.files.get("deploy/prometheus/rules.yml", "").split("\n"):
        if m := re.match(r"\s+- (alert|record): (\S+)$", line):
            current = rules[m[2]] = {"kind": m[1], "expr": "", "runbook": None}
            in_expr = False
        elif m := re.match(r"\s+expr: (.*)$", line):
            current["expr"], in_expr = m[1].strip("'"), True
        elif m := re.match(r"\s+runbook: (\S+)$", line):
            current["runbook"], in_expr = m[1], False
        elif re.match(r"\s*(?:- )?(for|labels|annotations|summary|name|rules):", line):
            in_expr = False
        elif current is not None and in_expr:
            current["expr"] += " " + line.strip()
    return rules


def metrics_in(expr):
    expr = re.sub(r'"[^"]*"', "", expr)
    expr = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expr)
    expr = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", expr)
    words = re.findall(r"\b[a-z_][a-zA-Z0-9_:]*\b(?!\s*\()", expr)
    words = [w for w in words if w not in {"or", "and", "unless", "offset", "bool", "by", "on", "ignoring", "group_left", "group_right", "m", "h", "d"}]
    return {re.sub(r"_(?:bucket|sum|count)$", "", w) for w in words}


def alerts(tree):
    """Every alert asks for metrics that exist and has its page; every failure counter has an alert; every alert is tested both ways."""
    metrics, rules = catalogue(tree), alert_rules(tree)
    if not metrics and not rules:
        return []
    problems = []
    names = {name for name, _ in metrics.values()}
    enumerators = re.search(r"enum class Metric[^{]*\{(.*?)\};", tree.files.get("streams/metric_catalogue.h", ""), re.S)
    listed = set(re.findall(r"\bk[A-Z]\w*", enumerators[1])) if enumerators else set()
    for missing in sorted(listed ^ set(metrics)):
        problems.append(f"streams/metric_catalogue.h: {missing} could not be read from the table: an entry has lost its form")
    recorded = {name for name, rule in rules.items() if rule["kind"] == "record"}
    watched = set()
    tests = "\n".join(text for path, text in sorted(tree.files.items()) if fnmatch.fnmatch(path, "deploy/prometheus/rules*_test.yml"))
    for name, rule in sorted(rules.items()):
        for metric in sorted(metrics_in(rule["expr"])):
            watched.add(metric)
            if metric not in names | recorded | {"up"}:
                problems.append(f"rules.yml: {name} asks for {metric}, which no metric of the catalogue is called")
        if rule["kind"] == "record":
            continue
        page = f"runbooks/{snake(name)}.md"
        if rule["runbook"] != page:
            problems.append(f"rules.yml: {name} names the page {rule['runbook']} and not {page}")
        if page not in tree.files:
            problems.append(f"rules.yml: {name} has no page {page}")
        for kind in ("fires", "is quiet"):
            if f"name: {name} {kind}\n" not in tests:
                problems.append(f"no rules*_test.yml shows that {name} {kind}")
    for enumerator, (name, failure) in sorted(metrics.items()):
        if failure and name not in watched:
            problems.append(f"{name} counts a failure and no alert watches it")
    return problems


def runbooks(tree):
    """A page of an alert is short, bears its name and tells commands that exist; an error line names a page that exists."""
    problems = []
    alert_names = {name for name, rule in alert_rules(tree).items() if rule["kind"] == "alert"}
    for path, text in sorted(tree.files.items()):
        if not path.startswith("runbooks/") or not path.endswith(".md") or path.endswith("README.md"):
            continue
        title = text.split("\n")[0].removeprefix("# ")
        stem = path.removeprefix("runbooks/").removesuffix(".md")
        if " " not in title:  # a procedure has a sentence for a title
            if title not in alert_names or snake(title) != stem:
                problems.append(f"{path}: its title {title} is no alert of that name")
            if text.count("\n") > 30:
                problems.append(f"{path} has {text.count(chr(10))} lines, more than 30")
        for verb in re.findall(r"(?:^|`)assay ([a-z]+)", text, re.M):
            if verb not in VERBS:
                problems.append(f"{path} tells to run 'assay {verb}', which does not exist")
    for path, text in sorted(tree.code().items()):
        if path.startswith("tests/"):
            continue
        for event, page in re.findall(r'\blog_error\(\s*"([^"]*)",\s*"([^"]*)"', text):
            if f"runbooks/{page}.md" not in tree.files:
                problems.append(f"{path}: the error {event} names runbooks/{page}.md, which does not exist")
    return problems


def metrics_counted(tree):
    """A metric that nobody counts tells that all is well. Asked once the front door counts its answers: that is wired last."""
    used = set()
    for path, text in tree.code().items():
        if not path.startswith("tests/") and path not in ("streams/metric_catalogue.h", "streams/metrics.cc", "streams/lag.cc"):
            used.update(re.findall(r"\bMetric::(k\w+)", text))
    if "kHttpRequests" in catalogue(tree) and "kHttpRequests" not in used:
        return []
    used.update(re.findall(r"\bMetric::(k\w+)", tree.files.get("streams/lag.cc", "")))
    return [f"{name} ({enumerator}) is in the catalogue and nothing counts it"
            for enumerator, (name, _) in sorted(catalogue(tree).items()) if enumerator not in used]


PLANTED_IN = "tests/simulation/CMakeLists.txt"


def planted_bugs(tree):
    """A planted bug is compiled into the one binary of its test: its switch is thrown there alone, and every source that has a place for
    one is compiled there a second time. A header must not have one: both kinds of objects would define its functions."""
    problems = []
    switch = "ASSAY_" + "PLANTED_BUGS"
    listed = tree.files.get(PLANTED_IN, "")
    for path, text in sorted(tree.text().items()):
        if switch in text and path.endswith((".txt", ".cmake")) and path != PLANTED_IN:
            problems.append(f"{path} plants bugs; only {PLANTED_IN} may")
        elif switch in text and path != "schemas/planted.h" and not path.startswith("tests/"):
            problems.append(f"{path} throws the switch of the planted bugs")
        if not path.startswith("tests/") and path.endswith((".h", ".cc")) and '"schemas/planted.h"' in text:
            if path.endswith(".h"):
                problems.append(f"{path} is a header with a planted bug")
            elif "/" + path not in listed:
                problems.append(f"{path} has a planted bug and is not compiled for its test in {PLANTED_IN}")
    return problems


CHECKS = [planted_bugs, include_direction, third_party, headers, readmes, file_sizes, forbidden_words, skipped_tests, machine_paths, file_names, alerts,
          runbooks, metrics_counted]
