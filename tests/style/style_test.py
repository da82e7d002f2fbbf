#!/usr/bin/env python3
"""The house keeps its rules; and each rule, broken in a made-up tree, is seen to be broken."""

import os
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import house  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

CATALOGUE = """// Metrics.
#pragma once
enum class Metric { kBad };
  {Metric::kBad, "bad_total", MetricKind::kCounter, true, {},
   "Bad."},
"""
RULES = """groups:
  - name: assay
    rules:
      - alert: BadThing
        expr: sum by (task) (increase(bad_total{task="x"}[10m])) > 0
        labels: {severity: page}
        annotations:
          summary: 'bad'
          runbook: runbooks/bad_thing.md
"""
RULES_TEST = "  - name: BadThing fires\n  - name: BadThing is quiet\n"
PAGE = "# BadThing\n\n```\nassay lag\n```\n"
SOUND = {
    "schemas/a.h": '// A.\n#pragma once\n#include <string>\n#include <sys/stat.h>\n',
    "streams/b.h": '// B.\n#pragma once\n#include "schemas/a.h"\n#include "state/s.h"\n',
    "streams/logging.cc": '#include "streams/b.h"\n#include <spdlog/logger.h>\nlog_error("x.failed", "bad_thing", {});\n',
    "tests/unit/b_test.cc": '#include <gtest/gtest.h>\n#include "streams/b.h"\n#include "tests/unit/help.h"\n',
    "streams/metric_catalogue.h": CATALOGUE,
    "streams/task.cc": "metrics.increment(Metric::kBad);\n",
    "deploy/prometheus/rules.yml": RULES,
    "deploy/prometheus/rules_test.yml": RULES_TEST,
    "runbooks/bad_thing.md": PAGE,
    "README.md": "# House\n",
    **{f"{folder}/README.md": "# Room\n" for folder in house.FOLDERS},
}


def join(*parts):
    return "".join(parts)


# (rule, what is changed in the sound tree, a part of the complaint); None takes a file away.
BROKEN = [
    (house.include_direction, {"schemas/a.h": '// A.\n#pragma once\n#include "streams/b.h"\n'}, "streams stands to the right of schemas"),
    (house.include_direction, {"streams/b.h": '// B.\n#include "b_private.h"\n'}, "from the root"),
    (house.include_direction, {"streams/b.h": '// B.\n  #  include "../state/s.h"\n'}, "from the root"),
    (house.include_direction, {"streams/b.h": '// B.\n#include "vendor/x.h"\n'}, "no layer"),
    (house.include_direction, {"extra/x.cc": '#include "schemas/a.h"\n'}, "no layer"),
    (house.planted_bugs, {"streams/a.cc": '#include "schemas/planted.h"\n'}, "is not compiled for its test"),
    (house.planted_bugs, {"streams/a.h": '// A.\n#pragma once\n#include "schemas/planted.h"\n'}, "is a header"),
    (house.planted_bugs, {"streams/CMakeLists.txt": join("add_compile_definitions(ASSAY_", "PLANTED_BUGS)\n")}, "plants bugs"),
    (house.planted_bugs, {"streams/a.cc": join("#define ASSAY_", "PLANTED_BUGS\n")}, "throws the switch"),
    (house.third_party, {"streams/b.h": "// B.\n#include <spdlog/logger.h>\n"}, "allowed in streams/logging.cc"),
    (house.third_party, {"streams/task.cc": "#include <boost/asio/io_context.hpp>\n"}, "allowed in streams/http_server.cc"),
    (house.third_party, {"streams/task.cc": "#include <uv/uv.h>\n"}, "give it an adapter"),
    (house.third_party, {"streams/task.cc": '#include "schemas/proto/x.pb.h"\n'}, "allowed in schemas/"),
    (house.third_party, {"tests/unit/b_test.cc": "#include <uv/uv.h>\n"}, "no adapter adapts"),
    (house.third_party, {"streams/kafka_log_client.h": "// K.\n#include <librdkafka/rdkafka.h>\n",
                         "streams/task.cc": '#include "streams/kafka_log_client.h"\n'}, "belongs to streams/kafka_"),
    (house.third_party, {"streams/kafka_log_client.h": "// K.\n#include <librdkafka/rdkafka.h>\n",
                         "streams/kafka_log_parts.h": '// P.\n#include "streams/kafka_log_client.h"\n',
                         "streams/kafka_log.cc": '#include "streams/kafka_log_parts.h"\n',
                         "streams/task.cc": '#include "streams/kafka_log_parts.h"\n'}, "task.cc includes streams/kafka_log_parts.h"),
    (house.headers, {"schemas/a.h": "#pragma once\n"}, "does not begin with a sentence"),
    (house.headers, {"schemas/a.h": "// A.\n"}, "no #pragma once"),
    (house.readmes, {"state/README.md": None}, "state/ has no README.md"),
    (house.readmes, {"state/README.md": "x\n" * 41}, "41 lines"),
    (house.file_sizes, {"schemas/a.cc": "x\n" * 801}, "801 lines"),
    (house.forbidden_words, {"schemas/a.cc": join("// TO", "DO: later\n")}, "schemas/a.cc:1"),
    (house.forbidden_words, {"run": join("# fine\n# a st", "ub\n")}, "run:2"),
    (house.forbidden_words, {"README.md": join("Not imple", "mented yet\n")}, "README.md:1"),
    (house.skipped_tests, {"tests/unit/b_test.cc": join("GTEST_", "SKIP();\n")}, "b_test.cc:1"),
    (house.skipped_tests, {"tests/unit/b_test.cc": join("TEST(B, DISABLED_", "Works) {}\n")}, "b_test.cc:1"),
    (house.skipped_tests, {"tests/unit/CMakeLists.txt": join("set_tests_properties(b PROPERTIES WILL_", "FAIL ON)\n")}, "CMakeLists.txt:1"),
    (house.skipped_tests, {"tests/x.py": join("@unittest.sk", "ipIf(True)\n")}, "x.py:1"),
    (house.machine_paths, {"run": join("cd /wo", "rk/assay\n")}, "run:1"),
    (house.machine_paths, {"README.md": join("see /ho", "me/anna/assay\n")}, "README.md:1"),
    (house.file_names, {"schemas/BigName.cc": ""}, "BigName.cc is not snake_case"),
    (house.file_names, {"Tools/a.cc": ""}, "Tools is not snake_case"),
    (house.file_names, {"tools/a-b.cc": ""}, "a-b.cc is not snake_case"),
    (house.alerts, {"deploy/prometheus/rules.yml": RULES.replace("> 0", "> bed_total")}, "asks for bed_total"),
    (house.alerts, {"deploy/prometheus/rules.yml": RULES.replace("bad_total", "up")}, "no alert watches it"),
    (house.alerts, {"deploy/prometheus/rules.yml": RULES.replace("runbooks/bad", "runbooks/sad")}, "names the page runbooks/sad_thing.md"),
    (house.alerts, {"runbooks/bad_thing.md": None}, "has no page"),
    (house.alerts, {"deploy/prometheus/rules_test.yml": "  - name: BadThing fires\n"}, "BadThing is quiet"),
    (house.alerts, {"streams/metric_catalogue.h": CATALOGUE.replace("kBad }", "kBad, kWorse }")}, "kWorse could not be read"),
    (house.runbooks, {"runbooks/bad_thing.md": PAGE.replace("# BadThing", "# GoodThing")}, "no alert of that name"),
    (house.runbooks, {"runbooks/bad_thing.md": PAGE + "x\n" * 30}, "more than 30"),
    (house.runbooks, {"runbooks/bad_thing.md": PAGE.replace("assay lag", "assay repair")}, "assay repair"),
    (house.runbooks, {"streams/task.cc": 'log_error("x.failed",\n  "no_page");'}, "runbooks/no_page.md"),
    (house.metrics_counted, {"streams/metric_catalogue.h": CATALOGUE + '{Metric::kWorse, "worse_total", MetricKind::kCounter, true'},
     "worse_total (kWorse)"),
]


class RulesCanFail(unittest.TestCase):
    def test_the_sound_tree_passes_every_rule(self):
        for check in house.CHECKS:
            self.assertEqual(check(house.Tree(SOUND)), [], check.__name__)

    def test_each_breach_is_found_and_nothing_else(self):
        for check, change, complaint in BROKEN:
            files = {p: t for p, t in {**SOUND, **change}.items() if t is not None}
            problems = check(house.Tree(files))
            self.assertTrue(any(complaint in p for p in problems), f"{check.__name__} {change}: {problems}")
            self.assertEqual(len(problems), 1, f"{check.__name__} {change}: {problems}")

    def test_every_rule_is_broken_once(self):
        self.assertEqual({check for check, _, _ in BROKEN}, set(house.CHECKS))


class TheHouse(unittest.TestCase):
    """One test a rule, so that the name of the failing one says which."""


def applied(check):
    def test(self):
        tree = house.Tree.of(ROOT)
        self.assertGreater(len(tree.files), 50, "the tree was not found")
        problems = check(tree)
        self.assertEqual(problems, [], "\n" + "\n".join(problems))
    test.__doc__ = check.__doc__
    return test


for rule in house.CHECKS:
    setattr(TheHouse, f"test_{rule.__name__}", applied(rule))

if __name__ == "__main__":
    unittest.main(verbosity=1)
