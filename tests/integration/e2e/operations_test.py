"""What an operator leans on: exit codes, health, metrics, queries while it runs and after, exact lag, and leaving on time."""

import json
import pathlib
import random
import re
import signal
import socket
import sys
import threading
import time

import harness

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "chaos"))
import proxy

HOUR_MS = 3600 * 1000
START_MS = 1772323200000  # 2026-03-01T00:00:00Z


def at(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def fleet(seed, count, hours=30):
    """Reports of eight agents over some hours, half of them good enough to be promoted; in rising time, ids unique."""
    rng = random.Random(seed)
    lines = []
    for index in range(count):
        agent = rng.randrange(8)
        ms = START_MS + hours * HOUR_MS * index // count
        score = rng.uniform(0.9, 1.0) if agent < 4 else rng.uniform(0.2, 0.6)
        lines.append(json.dumps({"id": f"{seed}-{index}", "agentId": f"agent-{agent}", "divisionId": f"d{agent % 2}",
                                 "metricSet": {"win": round(score, 6)}, "timestamp": at(ms)}))
    return lines


def parse_exposition(text):
    """{(name, labels): value} of the Prometheus text form; any line that is none of it fails."""
    samples, typed = {}, {}
    for line in text.splitlines():
        if not line:
            continue
        if line.startswith("#"):
            _, kind, name, rest = line.split(" ", 3)
            assert kind in ("HELP", "TYPE"), line
            if kind == "TYPE":
                assert name not in typed, f"{name} is declared twice"
                typed[name] = rest
            continue
        match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)', line)
        assert match, f"no sample: {line!r}"
        base = re.sub(r"_(bucket|sum|count)$", "", match[1])
        assert match[1] in typed or base in typed, f"{match[1]} has no TYPE"
        key = (match[1], match[2] or "")
        assert key not in samples, f"{key} stands twice"
        samples[key] = float(match[3])
    return samples


def total(samples, name, *pieces):
    return sum(value for (sample, labels), value in samples.items() if sample == name and all(piece in labels for piece in pieces))


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ExitCodes(harness.EndToEnd):

    def test_an_unreachable_broker_is_6_and_named(self):
        assay = self.assay()
        address = f"127.0.0.1:{closed_port()}"
        for words in (["lag"], ["topics", "plan"], ["produce"], ["run", "--until-end"], ["dlq", "ls"]):
            with self.subTest(words=words):
                done = assay.call("--brokers", address, *words)
                self.assertEqual(done.code, 6, done.err)
                self.assertEqual(done.out, b"")
                self.assertIn(address, done.err)

    def test_an_unreachable_database_is_6_and_nothing_of_its_password_shows(self):
        assay = self.assay()
        url = f"postgresql://assay:hush@127.0.0.1:{closed_port()}/assay"
        for words in (["audit", "verify"], ["audit", "head"]):
            with self.subTest(words=words):
                done = assay.call("--database-url", url, *words)
                self.assertEqual(done.code, 6, done.err)
                self.assertNotIn("hush", done.err)

    def test_a_service_outlives_a_database_that_comes_late(self):
        """Reports are folded and decided while the database is away; its rows follow when it is there."""
        url = harness.fresh_database()
        name = url.rsplit("/", 1)[1]
        away = name + "_away"
        server = harness.needed("ASSAY_TEST_DATABASE_URL")
        assay = self.assay()
        assay.produce(fleet(1, 300))
        assay.database_url = url
        harness.psql(server, f"ALTER DATABASE {name} RENAME TO {away}")
        process = assay.start("run")
        harness.wait_until("300 folded reports", lambda: self.tally(assay, process).get("delivered") == 300)
        self.assertNotIn("assay:", process.err().split("\n")[0])
        harness.psql(server, f"ALTER DATABASE {away} RENAME TO {name}")
        harness.wait_until("audit rows", lambda: assay_rows(url) > 0)
        self.assertEqual(process.terminate()[0], 0)
        assay.fold()
        self.assertIn("Audit chain verified", assay.ok("audit", "verify").out.decode())

    def test_a_service_waits_for_a_broker_that_comes_late_and_leaves_in_order_meanwhile(self):
        assay = self.assay()
        assay.prefix = harness.unique() + "."
        door = proxy.KafkaProxy(closed_port())  # takes connections, and has nowhere to lead them to
        self.addCleanup(door.close)
        real = int(harness.needed("ASSAY_TEST_BROKERS").rsplit(":", 1)[1])
        words = ["--brokers", f"127.0.0.1:{door.port}", "run"]
        for comes in (False, True):
            process = assay.start(*words)
            harness.wait_until("it to say that nobody is there", lambda: "log.unreachable" in process.err() or not process.alive())
            self.assertTrue(process.alive(), process.err())
            if comes:
                door.target_port = real
                harness.wait_until("a ready pipeline", lambda: assay.http("/ready")[0] == 200)
            self.assertEqual(process.terminate()[0], 0, process.err()[-2000:])

    def tally(self, assay, process):
        if not process.alive():
            raise AssertionError(f"run ended with {process.child.returncode}\n{process.err()[-3000:]}")
        status, text = assay.http("/query/tally")
        return json.loads(text) if status == 200 else {}

    def test_a_second_process_on_a_data_directory_is_5_and_names_it(self):
        assay = self.assay()
        service = assay.start_service()
        for words in (["run", "--until-end"], ["run"], ["produce"]):
            with self.subTest(words=words):
                done = assay.call(*words)
                self.assertEqual(done.code, 5, done.err)
                self.assertIn(str(assay.data), done.err)
                self.assertIn(str(service.child.pid), done.err)
        self.assertTrue(service.alive())
        self.assertEqual(service.terminate()[0], 0)
        assay.ok("run", "--until-end")

    def test_a_missing_partition_is_8_and_never_a_silent_part(self):
        assay = self.assay()
        assay.produce(fleet(2, 400))
        assay.fold()
        whole = assay.json("scores")
        (assay.data / "state" / "scoring-2").rename(assay.directory / "aside")
        for words in (["scores"], ["scoreboard"], ["state", "digest"]):
            with self.subTest(words=words):
                done = assay.call(*words, "-o", "json")
                self.assertEqual((done.code, done.out), (8, b""), done.err)
                self.assertIn("scoring-2", done.err)
        assay.fold()
        self.assertEqual(assay.json("scores"), whole, "what was lost is folded again")


def assay_rows(url):
    try:
        return int(harness.psql(url, "SELECT count(*) FROM audit_events")[0][0])
    except AssertionError:
        return 0  # not migrated yet


class Service(harness.EndToEnd):

    def test_health_ready_and_metrics_over_tcp_and_socket(self):
        assay = self.assay("kafka")
        port = closed_port()
        service = assay.start_service("--http", f"127.0.0.1:{port}")
        for path, key, value in (("/health", "status", "ok"), ("/ready", "status", "ready")):
            status, text = harness.http_get(path, port=port)
            self.assertEqual((status, json.loads(text)[key]), (200, value), path)
        self.assertEqual(harness.http_get("/nowhere", port=port)[0], 404)
        before = parse_exposition(harness.http_get("/metrics", port=port)[1])
        lines = fleet(3, 500)
        assay.produce(lines + lines[-7:] + ["{broken"], "--raw")
        self.assertEqual(total(before, "eval_engine_eval_submissions_total"), 0)

        def counted():
            now = parse_exposition(harness.http_get("/metrics", port=port)[1])
            sampled = ("assay_queue_depth_records", f'group="{assay.prefix}assay.scoring"') in now
            return now if sampled and total(now, "assay_records_delivered_total", 'task="scoring-') == 508 else None

        after = harness.wait_until("508 delivered records", counted)
        self.assertEqual(total(after, "eval_engine_eval_submissions_total", 'outcome="accepted"'), 500)
        self.assertEqual(total(after, "eval_engine_eval_submissions_total", 'outcome="filtered"'), 7)
        self.assertEqual(total(after, "eval_engine_eval_submissions_total", 'outcome="dead_letter"'), 1)
        self.assertEqual(total(after, "assay_records_filtered_total", 'reason="DUPLICATE"'), 7)
        self.assertEqual(total(after, "assay_dead_letters_total", 'topic="eval.reports.v1"', 'reason="NOT_JSON"'), 1)
        self.assertGreater(total(after, "assay_commits_total"), 0)
        self.assertGreater(total(after, "assay_http_requests_total", 'code="200"'), 0)
        self.assertEqual(total(after, "assay_http_requests_total", 'code="404"'), 1)
        parts = ("process", "stores", "agents", "commits", "reading", "writing", "audit")
        self.assertLessEqual(sum(total(after, "assay_memory_budget_bytes", f'part="{part}"') for part in parts), 1 << 30)
        for part in (*parts[:6], "memtables"):
            self.assertGreater(total(after, "assay_memory_budget_bytes", f'part="{part}"'), 0, part)
            self.assertIn(("assay_memory_used_bytes", f'part="{part}"'), after)
        self.assertGreater(total(after, "assay_memory_used_bytes", 'part="process"'), 1 << 20)
        state = json.loads(harness.http_get("/debug/state", port=port)[1])
        self.assertEqual(state["pending"], {"promotions": [], "allocations": [], "missing": []})
        self.assertEqual(len(state["tasks"]), 10)
        over_socket = parse_exposition(assay.http("/metrics")[1])
        self.assertEqual(total(over_socket, "assay_records_delivered_total", 'task="scoring-'), 508)
        code, took_s = service.terminate()
        self.assertEqual(code, 0)
        self.assertLess(took_s, 5)
        self.assertEqual(harness.http_get("/health", port=port)[0], 0)

    def test_the_latency_of_every_report_is_observed(self):
        assay = self.assay()
        assay.produce(fleet(9, 100))
        port = closed_port()
        service = assay.start_service("--http", f"0.0.0.0:{port}")
        harness.wait_until("no lag", lambda: all(row["recordsBehind"] == 0 for row in assay.json("lag")))
        samples = parse_exposition(assay.http("/metrics")[1])
        self.assertEqual(total(samples, "eval_engine_eval_submission_latency_seconds_count"), 100)
        # A door that others can reach says nothing of what is pending.
        status, text = harness.http_get("/debug/state", port=port)
        self.assertEqual((status, json.loads(text)["error"]["code"]), (403, "FORBIDDEN"))
        self.assertIn(str(assay.data / "control.sock"), json.loads(text)["error"]["message"])
        self.assertEqual(harness.http_get("/debug/state", unix=str(assay.data / "control.sock"))[0], 200)
        self.assertEqual(service.terminate()[0], 0)

    @harness.both_logs
    def test_queries_say_the_same_while_it_runs_and_after(self, assay):
        assay.produce(fleet(4, 2000))
        service = assay.start_service()
        harness.wait_until("all lag gone", lambda: all(row["recordsBehind"] == 0 for row in assay.json("lag")))
        questions = (["scores"], ["scores", "--at", at(START_MS + 20 * HOUR_MS)], ["scores", "--agent", "agent-[0-3]"],
                     ["scoreboard"], ["scoreboard", "--window", "1h", "--division", "d1"], ["promotions"],
                     ["promotions", "--history", "agent-1"], ["allocations"], ["pools"], ["state", "digest"],
                     ["state", "digest", "--recompute"])
        running = [assay.json(*words) for words in questions]
        self.assertEqual(service.terminate()[0], 0)
        self.assertFalse((assay.data / "assay.sock").exists())
        for words, said in zip(questions, running):
            with self.subTest(words=words):
                self.assertEqual(assay.json(*words), said)
        self.assertTrue(running[0] and running[3] and running[5] and running[7], "an empty answer compares nothing")
        # A socket that a killed process left is no obstacle.
        service = assay.start_service()
        service.kill()
        self.assertEqual(assay.json("scoreboard"), running[3])

    @harness.both_logs
    def test_lag_is_exact_in_records_and_in_time(self, assay):
        assay.produce(fleet(5, 100))
        assay.fold()
        reports = "eval.reports.v1"
        clean = assay.json("lag")
        self.assertEqual({row["recordsBehind"] for row in clean}, {0})
        self.assertEqual({row["timeBehindMs"] for row in clean}, {0})
        self.assertEqual({row["state"] for row in clean}, {"ok"})
        now_ms = int(time.time() * 1000)
        arrived_ms = [now_ms - 3 * HOUR_MS + 1000 * index for index in range(40)]
        late = [{"id": f"late-{index}", "agentId": "one-agent", "metricSet": {"win": 0.5}, "timestamp": at(ms),
                 "metadata": {"arrivedAt": at(ms)}} for index, ms in enumerate(arrived_ms)]
        assay.produce(late, "--record-time", "metadata.arrivedAt")
        asked_ms = int(time.time() * 1000)
        rows = assay.json("lag", code=3)
        answered_ms = int(time.time() * 1000)
        behind = [row for row in rows if row["recordsBehind"]]
        self.assertEqual([(row["topic"].removeprefix(assay.prefix), row["group"], row["recordsBehind"]) for row in behind],
                         [(reports, assay.prefix + "assay.scoring", 40)])
        self.assertTrue(asked_ms - arrived_ms[0] <= behind[0]["timeBehindMs"] <= answered_ms - arrived_ms[0], behind)
        self.assertNotIn(behind[0]["state"], ("ok", "catching up"))
        self.assertTrue(behind[0]["rule"])
        self.assertIsInstance(behind[0]["endOffset"], str)
        # A fresh one keeps its state for a minute: news, not trouble.
        assay.fold()
        assay.produce([{"id": "now", "agentId": "one-agent", "metricSet": {"win": 0.5}, "timestamp": at(now_ms)}])
        rows = assay.json("lag")
        self.assertEqual(sum(row["recordsBehind"] for row in rows), 1)
        assay.fold()
        self.assertEqual({row["recordsBehind"] for row in assay.json("lag")}, {0})

    def test_lag_watch_goes_on_until_it_is_stopped(self):
        assay = self.assay()
        assay.produce(fleet(6, 50))
        assay.fold()
        watching = assay.start("lag", "--watch")
        harness.wait_until("three looks", lambda: watching.out().count("eval.reports.v1") >= 12, timeout_s=20)
        self.assertTrue(watching.alive())
        watching.child.send_signal(signal.SIGINT)
        self.assertIn(watching.child.wait(timeout=10), (0, -signal.SIGINT))

    def test_sigterm_under_load_leaves_within_5_s_and_a_restart_ends_at_the_same_totals(self):
        lines = fleet(7, 12000)
        calm = self.assay("kafka")
        calm.produce(lines)
        wanted, digests = calm.fold(), calm.digests()
        self.assertEqual(wanted["accepted"], len(lines))

        busy = self.assay("kafka")
        busy.ok("topics", "apply")
        chunks = [lines[at:at + 400] for at in range(0, len(lines), 400)]

        def send():
            for chunk in chunks:
                busy.produce(chunk)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            stops = 0
            while stops < 3:
                service = busy.start_service()
                time.sleep(0.7)
                code, took_s = service.terminate()
                self.assertEqual(code, 0, service.err()[-2000:])
                self.assertLess(took_s, 5)
                stops += 1
                behind = busy.call("lag", "-o", "json")
                self.assertIn(behind.code, (0, 3), behind.err)
        finally:
            sender.join()
        self.assertEqual(busy.fold(), wanted)
        self.assertEqual(busy.digests(), digests)
        self.assertEqual(busy.json("scoreboard"), calm.json("scoreboard"))

    @harness.both_logs
    def test_stdout_carries_results_alone(self, assay):
        lines = fleet(8, 300)
        for words, options in ((["produce"], {"data": "\n".join(lines)}), (["run", "--until-end"], {})):
            done = assay.ok(*words, "-o", "json", **options)
            self.assertIsInstance(json.loads(done.out), dict)
        for words in (["scores"], ["scoreboard"], ["promotions"], ["allocations"], ["pools"], ["lag"], ["dlq", "ls"], ["state", "digest"]):
            with self.subTest(words=words):
                done = assay.ok(*words, "-o", "json")
                rows = json.loads(done.out)
                self.assertIsInstance(rows, list)
                self.assertEqual(done.err, "")
                csv_lines = assay.ok(*words, "-o", "csv").out.decode().splitlines()
                if rows:
                    self.assertEqual(len(csv_lines), 1 + len(rows))


if __name__ == "__main__":
    harness.main()
