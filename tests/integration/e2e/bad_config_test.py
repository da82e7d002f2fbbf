"""Bad configuration, commands and environments: everything that is wrong is named at once, with its place and the nearest cure."""

import re
import subprocess

import harness

BAD = """\
profile = "develpment"
memory = "12 bytes"
colour = "green"

[scoring]
grase = "45m"
dedupe = "ten"

[[scoring.metric]]
metric = "win"
direction = "up"
low = 1.0
high = 0.5

[[scoring.metric]]
metric = "lose"
direction = "sideways"
low = 0.0
high = 1.0
weight = -1.0

[promotion]
enter = 1.5
min_samples = "five"

[[allocation.pool]]
name = "gpus-us-east"
unit = "gpus"
capacity = -1

[topics]
partitions = 0
prefx = "x"
retention = "-3d"

[kafka]
brokers = "nowhere"

[http]
addr = 8050

[log]
level = "loud"
"""

# line, key, and a word of the reason
PROBLEMS = [
    (1, "profile", "production"),
    (2, "memory", "1GiB"),
    (3, "colour", "no such key"),
    (6, "scoring.grase", 'did you mean "grace"?'),
    (7, "scoring.dedupe", "45m"),
    (13, "scoring.metric[0].high", "greater"),
    (17, "scoring.metric[1].direction", '"up" or "down"'),
    (20, "scoring.metric[1].weight", "-1"),
    (23, "promotion.enter", "1.5"),
    (24, "promotion.min_samples", "whole number"),
    (28, "allocation.pool[0].unit", "gpu"),
    (29, "allocation.pool[0].capacity", "-1"),
    (32, "topics.partitions", "1000"),
    (33, "topics.prefx", 'did you mean "prefix"?'),
    (34, "topics.retention", "forever"),
    (37, "kafka.brokers", "HOST:PORT"),
    (40, "http.addr", "string"),
    (43, "log.level", '"warn"'),
]


class BadConfiguration(harness.EndToEnd):

    def run_plain(self, *words, env=None):
        """assay with these words alone."""
        done = subprocess.run([str(harness.BIN / "assay"), *map(str, words)], capture_output=True, text=True, timeout=60,
                              env=harness.clean_environment(env), cwd=self.directory)
        return harness.Outcome(done.returncode, done.stdout, done.stderr)

    def refused(self, *words, code=2, env=None):
        """Lines of stderr of a command that must refuse, with nothing on stdout and nothing made on disk."""
        before = sorted(self.directory.rglob("*"))
        done = self.run_plain(*words, env=env)
        self.assertEqual(done.code, code, done.err)
        self.assertEqual(done.out, "")
        self.assertEqual(sorted(self.directory.rglob("*")), before, "a refused command leaves nothing behind")
        self.assertTrue(done.err.startswith("assay: "), done.err)
        return done.err.splitlines()

    def test_every_problem_of_a_file_is_named_with_line_key_and_reason(self):
        file = self.directory / "bad.toml"
        file.write_text(BAD)
        for words in (["config", "check", file], ["--config", file, "run", "--until-end"], ["--config", file, "config", "show"]):
            with self.subTest(words=words):
                lines = self.refused(*words)[1:]
                seen = {}
                for line in lines:
                    match = re.fullmatch(re.escape(str(file)) + r":(\d+): (\S+): (.+)", line)
                    self.assertTrue(match, line)
                    seen[(int(match[1]), match[2])] = match[3]
                self.assertEqual(sorted(seen), sorted((line, key) for line, key, _ in PROBLEMS))
                self.assertEqual(list(seen), sorted(seen, key=lambda place: place[0]), "by line")
                for line, key, word in PROBLEMS:
                    self.assertIn(word, seen[(line, key)])
        self.assertIn(f"{len(PROBLEMS)} problems", self.refused("config", "check", file)[0])

    def test_one_problem_is_one_problem(self):
        """Taking the cure of all but one leaves exactly that one: no problem is an echo of another."""
        lines = BAD.splitlines()
        cures = {1: 'profile = "development"', 2: 'memory = "256MiB"', 3: "", 6: "", 7: "", 13: "high = 2.0", 17: 'direction = "down"',
                 20: "weight = 0.0", 23: "enter = 0.9", 24: "min_samples = 5", 28: 'unit = "gpu"', 29: "capacity = 4",
                 32: "partitions = 4", 33: "", 34: 'retention = "3d"', 37: 'brokers = ""', 40: 'addr = "127.0.0.1:0"', 43: 'level = "warn"'}
        self.assertEqual(sorted(cures), [line for line, *_ in PROBLEMS])
        file = self.directory / "one.toml"
        for number, key, _ in PROBLEMS:
            with self.subTest(key=key):
                file.write_text("\n".join(text if at == number else cures.get(at, text) for at, text in enumerate(lines, 1)))
                self.assertEqual([line.split(": ")[1] for line in self.refused("config", "check", file)[1:]], [key])
        file.write_text("\n".join(cures.get(at, text) for at, text in enumerate(lines, 1)))
        self.assertEqual(self.run_plain("config", "check", file).code, 0)

    def test_a_file_that_is_no_toml_or_no_file(self):
        file = self.directory / "broken.toml"
        file.write_text("[scoring]\ngrace = \n")
        (line,) = self.refused("--config", file, "pools")
        self.assertIn(f"{file}:2", line)
        (line,) = self.refused("--config", self.directory / "none.toml", "pools")
        self.assertIn("none.toml", line)

    def test_set_flags_and_environment_are_named_as_the_place(self):
        lines = self.refused("--set", "scoring.grase=1m", "--set", "nothing", "--set", "topics.partitions=0", "--brokers", "nowhere", "pools",
                             env={"PORT": "99999", "RESOURCE_ALLOCATOR_POOLS": "x", "RESOURCE_ALLOCATOR_MAX_DELTA": "-1", "REQUIRE_KMS": "perhaps"})
        self.assertIn("8 problems", lines[0])
        places = {"--set scoring.grase": 'did you mean "grace"?', "--set nothing": "KEY=VALUE", "--set topics.partitions": "1000",
                  "--brokers": "HOST:PORT", "environment PORT": "65535", "environment RESOURCE_ALLOCATOR_POOLS": "POOL:CAPACITY",
                  "environment RESOURCE_ALLOCATOR_MAX_DELTA": "count", "environment REQUIRE_KMS": "true or false"}
        for place, word in places.items():
            (line,) = [line for line in lines[1:] if line.startswith(place + ":")]
            self.assertIn(word, line)

    def test_the_environment_stands_over_the_file_and_flags_over_both(self):
        file = self.directory / "some.toml"
        file.write_text('data_dir = "from-file"\n[http]\naddr = "0.0.0.0:1"\n[audit]\nsigner_id = "from-file"\n')
        env = {"ASSAY_CONFIG": str(file), "ASSAY_DATA_DIR": "from-env", "PORT": "8123", "RESOURCE_ALLOCATOR_POOLS": "gpus-us-east:3,cpu-y:7",
               "RESOURCE_ALLOCATOR_DENY_POOLS": "cpu-*", "RESOURCE_ALLOCATOR_MAX_DELTA": "2", "EVAL_DATABASE_URL": "postgresql://u:hunter2@h/n"}
        done = self.run_plain("--data-dir", "from-flag", "config", "show", "-o", "json", env=env)
        self.assertEqual(done.code, 0, done.err)
        self.assertNotIn("hunter2", done.out + done.err)
        # -o json prints one document, whichever way its author lays it out: look for the values where they must be.
        self.assertRegex(done.out, r'"from-flag"')
        self.assertNotRegex(done.out, r'from-env"')
        self.assertRegex(done.out, r'0\.0\.0\.0:8123')
        for piece in ('"gpus-us-east"', '"cpu-y"', '"cpu-*"', '"from-file"'):
            self.assertIn(piece, done.out)

    def test_unknown_commands_and_flags(self):
        for words, wanted in (
                (["scorebord"], 'did you mean "scoreboard"?'),
                (["dlq", "lss"], 'did you mean "ls"?'),
                (["run", "--untl-end"], "did you mean --until-end?"),
                (["--data-dri", "x", "run"], "did you mean --data-dir?"),
                (["scoreboard", "--window", "2h"], "{1h,24h,7d}"),
                (["scoreboard", "--top", "many"], "--top"),
                (["scoreboard", "--top", "0"], "at least 1"),
                (["run", "--only", "scoring,promotions"], "promotions"),
                (["lag", "extra"], "extra"),
                (["dlq", "show"], "ID"),
                (["produce", "--format", "xml"], "xml"),
                (["-o", "yaml", "pools"], "yaml"),
                (["--data-dir", "a", "--data-dir", "b", "pools"], "--data-dir"),
        ):
            with self.subTest(words=words):
                self.assertIn(wanted, "\n".join(self.refused(*words)))
        plain = self.run_plain()
        self.assertEqual((plain.code, plain.out), (2, ""))
        self.assertIn("scoreboard", plain.err)
        help_text = self.run_plain("run", "--help")
        self.assertEqual((help_text.code, help_text.err), (0, ""))

    def test_production_guards_are_all_named(self):
        env = {"NODE_ENV": "production", "DEV_SKIP_MTLS": "true", "DEV_ALLOW_EPHEMERAL": "1", "DEV_OFF": "false", "REQUIRE_MTLS": "true",
               "KERNEL_API_URL": "http://127.0.0.1:1"}
        for words in (["run", "--until-end"], ["produce"], ["pools"]):
            with self.subTest(words=words):
                lines = self.refused("--data-dir", "d", *words, code=5, env=env)
                self.assertIn("5 guards", lines[0])
                guards = {line.split(":")[0].split("=")[0].split(" ")[0] for line in lines[1:]}
                self.assertEqual(guards, {"DEV_SKIP_MTLS", "DEV_ALLOW_EPHEMERAL", "REQUIRE_KMS", "REQUIRE_MTLS", "KERNEL_API_URL"})

    def test_a_waiver_in_production_is_named_and_ends(self):
        env = {"NODE_ENV": "production", "REQUIRE_KMS": "false"}
        (_, line) = self.refused("--data-dir", "d", "run", "--until-end", code=5, env=env)
        self.assertIn("audit.kms_waiver_by", line)
        waiver = ["--set", "audit.kms_waiver_by=Ada", "--set"]
        (_, line) = self.refused("--data-dir", "d", *waiver, "audit.kms_waiver_until=2020-01-01T00:00:00Z", "run", "--until-end", code=5, env=env)
        self.assertIn("Ada", line)
        self.assertIn("2020-01-01", line)
        done = self.run_plain("--data-dir", "d", *waiver, "audit.kms_waiver_until=2999-01-01T00:00:00Z", "run", "--until-end", env=env)
        self.assertEqual(done.code, 0, done.err)


if __name__ == "__main__":
    harness.main()
