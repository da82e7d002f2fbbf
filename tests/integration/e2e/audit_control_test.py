"""Who signs the chain, and what rests: signer loss, pause, rotation, emergency, compromise, on a real SoftHSM and a real PostgreSQL;
and the runbooks of these, executed command by command as they stand on their pages."""

import datetime
import itertools
import json
import pathlib
import re
import socket
import subprocess
import sys

import harness

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIGNERS = ROOT / "tests" / "integration" / "signers"
ORACLE = ROOT / "tests" / "oracle" / "audit_compat.py"
sys.path.insert(0, str(SIGNERS))
import world  # noqa: E402

REFUSED, PARITY, TAMPERED, INCOMPLETE = 5, 7, 4, 8


class World:
    """An installation whose rows a SoftHSM token signs, with an approved signing proxy to stand in, on a database of its own."""

    def __init__(self, test, sets=(), log="embedded"):
        self.test = test
        directory = pathlib.Path(test.directory) / harness.unique("world")
        self.token = world.softhsm(directory / "hsm")
        self.tokens = directory / "hsm" / "tokens"
        self.proxy = world.ProxyServer(directory / "proxy")
        self.proxy.start()
        test.addCleanup(self.proxy.stop)
        where = self.proxy.directory
        self.env = {"AUDIT_SIGNER_PIN": world.PIN, "REQUIRE_KMS": "true", "USER": "operator", **self.token}
        self.assay = test.assay(log, database=True, sets=[
            "audit.signer=pkcs11", "audit.signer_id=v1", f"audit.pkcs11.module={world.MODULE}", "audit.pkcs11.token=assay",
            "audit.pkcs11.create=true", "audit.sign_attempts=1", "audit.emergency.signer=proxy", "audit.emergency.signer_id=proxy-v1",
            f"audit.proxy.url=https://127.0.0.1:{self.proxy.port}", f"audit.proxy.ca={where}/ca.pem",
            f"audit.proxy.cert={where}/client.pem", f"audit.proxy.key={where}/client.key", "audit.rotation.overlap=0s", *sets])
        self.url = self.assay.database_url
        self.service = None
        self.seed = 0

    def start(self):
        self.service = self.assay.start("run", env=self.env)

        def ready():
            if not self.service.alive():
                raise AssertionError(f"run ended with {self.service.child.returncode}\n{self.service.err()[-4000:]}")
            return self.assay.http("/ready")[0] == 200

        harness.wait_until("a ready pipeline", ready)

    def audit(self, *args, code=0):
        return self.assay.ok("audit", *args, code=code, env=self.env)

    def json(self, *args, code=0):
        return self.assay.json("audit", *args, code=code, env=self.env)

    def head(self):
        return self.json("head")

    def events(self, count=3):
        """Events of people onto the chain, as many as asked: a resumption while nothing is paused changes nothing and is a row."""
        before = self.head()["rows"]
        for _ in range(count):
            self.assay.call("audit", "resume", "--wait", "0", "--reason", "a row", env=self.env)
        harness.wait_until("the rows", lambda: self.head()["rows"] >= before + count)

    def signed(self):
        def all_signed():
            head = self.head()
            return head["signedThrough"] == str(head["rows"]) and head
        return harness.wait_until("every signature", all_signed)

    def signer_away(self):
        self.tokens.rename(self.tokens.with_name("away"))

    def signer_back(self):
        self.tokens.with_name("away").rename(self.tokens)

    def proves(self):
        """Our verifier, pinned; the original's rules; and an export."""
        out = self.assay.directory / harness.unique("export")
        self.audit("export", "--out", out)
        signers = out / "signers.json"
        done = subprocess.run([str(harness.BIN / "assay-verify"), str(out), "--signers", str(signers)], capture_output=True, text=True,
                              timeout=60)
        self.test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.audit("verify", "--signers", signers)
        compat = subprocess.run([sys.executable, "-B", str(ORACLE), "--database-url", self.url, "--signers", str(signers)],
                                capture_output=True, text=True, timeout=120)
        self.test.assertEqual(compat.returncode, 0, compat.stdout + compat.stderr)
        return {entry["signerId"]: entry for entry in json.loads(signers.read_text())["signers"]}

    def kids(self):
        return [row[0] for row in harness.psql(self.url, "SELECT signer_kid FROM audit_events ORDER BY sequence")]


class AuditControl(harness.EndToEnd):

    def test_a_lost_token_stages_rows_and_they_are_signed_in_order_when_it_is_back(self):
        here = World(self)
        here.start()
        here.events()
        before = here.signed()["rows"]
        here.signer_away()
        here.events(5)
        head = here.head()
        self.assertEqual(head["signedThrough"], str(before))
        self.assertEqual(harness.psql(here.url, "SELECT count(*) FROM audit_events"), [[str(before)]])
        self.assertEqual(harness.psql(here.url, "SELECT DISTINCT status FROM audit_staging"), [["pending_signature"]])
        here.audit("verify")
        harness.wait_until("the gauge", lambda: re.search(r"^audit_stager_pending(?:\{\})? [1-9]", here.assay.http("/metrics")[1], re.MULTILINE))
        here.service.kill()
        self.assertEqual(here.assay.call("run", "--until-end", env=here.env).code, REFUSED, "REQUIRE_KMS: no start without a signer")
        here.signer_back()
        here.start()
        self.assertGreaterEqual(here.signed()["rows"], before + 5)
        self.assertEqual(harness.psql(here.url, "SELECT count(*) FROM audit_staging"), [["0"]])
        self.assertGreater(int(harness.psql(here.url, "SELECT count(*) FROM audit_signatures")[0][0]), 4)
        here.proves()

    def test_pause_holds_and_safe_mode_stages(self):
        here = World(self)
        here.start()
        here.audit("pause", "--reason", "maintenance")
        held = here.head()["rows"]
        here.assay.call("audit", "safe-mode", "off", "--wait", "0", "--reason", "x", env=here.env)
        here.assay.call("audit", "safe-mode", "off", "--wait", "0", "--reason", "y", env=here.env)
        row, = [row for row in here.assay.json("lag", env=here.env) if row["topic"].endswith("audit-events")]
        self.assertEqual(here.head()["rows"], held)
        self.assertGreaterEqual(row["recordsBehind"], 2)
        self.assertIn(row["state"], ("ok", "paused"))
        status = here.json("rotate", "status")
        self.assertTrue(status["paused"])
        here.service.kill()
        here.start()
        self.assertEqual(here.head()["rows"], held, "also after a restart")
        here.audit("resume", "--reason", "done")
        self.assertGreaterEqual(here.signed()["rows"], held + 3)
        here.audit("safe-mode", "on", "--reason", "rebuild")
        signed = here.head()["signedThrough"]
        here.events(3)
        self.assertEqual(here.head()["signedThrough"], signed)
        here.audit("safe-mode", "off", "--reason", "rebuilt")
        here.signed()
        here.proves()

    def test_a_rotation_outlives_a_crash_at_each_step(self):
        here = World(self)
        here.start()
        here.events()
        steps = (("start", "--to", "v2"), ("test",), ("promote",), ("revoke",))
        for done, step in enumerate(steps):
            for other in steps[done + 1:]:
                self.assertEqual(here.assay.call("audit", "rotate", *other, env=here.env).code, REFUSED, other)
            # The event is on the log, and the process that would fold it dies at once; then the command is given again.
            here.assay.call("audit", "rotate", *step, "--wait", "0", env=here.env)
            here.service.kill()
            here.start()
            here.events(2)
            plan = [row["state"] for row in here.json("rotate", "plan")]
            finished = {0: 3, 1: 4, 2: 5, 3: 0}[done]
            self.assertEqual(plan.count("done"), finished, plan)
            self.assertEqual(here.assay.call("audit", "rotate", *step, env=here.env).code, 0 if step[0] == "start" and done == 0 else REFUSED)
            here.signed()
            here.proves()
        signers = here.proves()
        kids = here.kids()
        self.assertEqual(sorted(set(kids)), ["v1", "v2"])
        self.assertEqual(kids, sorted(kids), "first the old key, then the new one")
        self.assertEqual(int(signers["v1"]["lastSequence"]), self.sequence_of(here, "audit.key_revoked") - 1)
        self.assertEqual(int(signers["v2"]["firstSequence"]), self.sequence_of(here, "audit.key_staged"))
        self.assertEqual(kids.index("v2") + 1, self.sequence_of(here, "audit.key_promoted"))
        self.assertEqual(here.assay.call("audit", "rotate", "start", "--to", "v1", env=here.env).code, REFUSED, "ids are never reused")
        # A row of the retired key behind its last one is not believed.
        sequence = len(kids)
        harness.psql(here.url, f"UPDATE audit_log SET signer_kid = 'v1' WHERE sequence = {sequence}")
        done = here.assay.call("audit", "verify", env=here.env)
        self.assertEqual(done.code, TAMPERED)
        self.assertIn("retired", done.out.decode())

    def test_an_emergency_outlives_a_restart_while_the_token_is_away(self):
        here = World(self)
        here.start()
        here.events()
        here.signed()
        here.signer_away()
        here.audit("emergency", "--reason", "token away")
        here.signed()
        here.service.kill()
        here.start()
        here.events()
        here.signed()
        here.service.kill()
        here.proxy.stop()
        self.assertEqual(here.assay.call("run", "--until-end", env=here.env).code, REFUSED, "neither key signs")
        here.proxy.start()
        here.start()
        here.signer_back()
        here.audit("emergency", "--end", "--reason", "token back")
        here.events()
        here.signed()
        self.assertEqual([kid for kid, _ in itertools.groupby(here.kids())], ["v1", "proxy-v1", "v1"])
        here.proves()

    def sequence_of(self, here, event_type):
        return int(harness.psql(here.url, f"SELECT sequence FROM audit_events WHERE event_type = '{event_type}'")[0][0])

    def test_the_overlap_is_waited_for_and_a_schedule_does_what_is_due(self):
        here = World(self, ["audit.rotation.overlap=1h", "audit.rotation.every=1s"])
        here.start()
        here.events()
        due = datetime.datetime.fromisoformat(here.json("rotate", "status")["due"])
        harness.wait_until("the due time", lambda: datetime.datetime.now(datetime.timezone.utc) > due)
        for made_up in ("v2", "v3", "v4"):  # a schedule knows nothing of the rotation that it began
            here.audit("rotate", "next", "--to", made_up, "--reason", "schedule")
        status = here.json("rotate", "status")
        self.assertEqual((status["rotation"], status["to"], status["active"]), ("tested", "v2", "v1"))
        refused = here.assay.call("audit", "rotate", "promote", env=here.env)
        self.assertEqual(refused.code, REFUSED)
        self.assertIn("overlap", refused.err)
        here.audit("rotate", "cancel", "--reason", "changed our mind")
        here.signed()
        self.assertTrue(here.proves()["v2"]["revoked"])
        harness.wait_until("the gauge", lambda: re.search(r"^assay_audit_key_overdue_seconds(?:\{\})? [1-9]", here.assay.http("/metrics")[1], re.MULTILINE))

    def test_rows_that_do_not_hold_are_not_attested(self):
        here = World(self)
        here.start()
        here.events()
        here.signed()
        revoke = ("compromised", "v1", "--revoke", "--successor", "v2", "--reason", "laptop stolen")
        kept, = harness.psql(here.url, "SELECT payload FROM audit_log WHERE sequence = 3")[0]
        self.assertEqual(self.compared(here), (200, ""))
        for payload, code, status in ((kept.replace("user:", "user;"), TAMPERED, (500, "PARITY_MISMATCH")), (kept, 0, (200, ""))):
            quoted = payload.replace("'", "''")
            harness.psql(here.url, f"UPDATE audit_log SET payload = '{quoted}' WHERE sequence = 3")
            self.assertEqual(self.compared(here), status)
            self.assertEqual(here.assay.call("audit", *revoke, env=here.env).code, code)

    def compared(self, here):
        """What the running process says of the chain and its log: status and the error's word."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(here.assay.data / "control.sock"))
            sock.sendall(b"POST /audit/compare HTTP/1.1\r\nHost: assay\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            head, body = b"".join(iter(lambda: sock.recv(1 << 16), b"")).split(b"\r\n\r\n", 1)
        return int(head.split(b" ", 2)[1]), json.loads(body).get("error", {}).get("code", "")


class Runbooks(harness.EndToEnd):
    """The pages cannot rot: every command on them is run, in order, and must end as the page says."""

    def drills(self, here):
        def tamper():
            here.events(4)
            here.signed()
            self.kept = harness.psql(here.url, "SELECT payload FROM audit_log WHERE sequence = 3")[0][0]
            harness.psql(here.url, "UPDATE audit_log SET payload = replace(payload::text, 'user:', 'user;')::json WHERE sequence = 3")

        def stop():
            if here.assay.log == "embedded":
                here.service.terminate()

        def restore():
            quoted = self.kept.replace("'", "''")
            harness.psql(here.url, f"UPDATE audit_log SET payload = '{quoted}' WHERE sequence = 3")
            if not here.service.alive():
                here.start()

        def paused():
            here.events(2)
            here.audit("pause", "--by", "Eve", "--reason", "a look")
            here.audit("resume", "--by", "Eve", "--reason", "looked")
            here.signed()

        return {"reports come in, and Eve pauses and resumes": paused,
                "reports come in": lambda: (here.events(3), here.signed()),
                "the signer goes away, and reports come in": lambda: (here.events(2), here.signed(), here.signer_away(), here.events(4)),
                "the signer is back": lambda: (here.signer_back(), here.signed()),
                "reports come in, and a row is changed in the database": tamper,
                "the service is stopped where the log is embedded": stop,
                "the row is put back by the owner, and the service runs": restore}

    def rehearse(self, page, log="embedded", sets=()):
        here = World(self, log=log, sets=sets)
        here.start()
        drills = self.drills(here)
        out = here.assay.directory / "out"
        out.mkdir()
        rebuilt = harness.fresh_database()
        # The database by its variable, as an installation has it, so that a command of a page can name another one.
        words = [word for word in here.assay.command()[1:] if word not in ("--database-url", here.url)]
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
        shell = f'assay() {{ command "{harness.BIN}/assay" {words} "$@"; }}\n'
        env = {**harness.clean_environment(here.env), "EVAL_DATABASE_URL": here.url, "DB": here.url, "REBUILT": rebuilt, "OUT": str(out),
               "NEW": "v2", "OLD": "v1", "WHO": "Ada", "WHY": "rehearsal"}
        text = (ROOT / "runbooks" / page).read_text()
        blocks = re.findall(r"<!-- drill: (.*?) -->|```sh\n(.*?)```", text, re.DOTALL)
        self.assertGreater(sum(1 for _, block in blocks if block), 1)
        ran = 0
        for drill, block in blocks:
            if drill:
                drills[drill]()
                continue
            for line in block.strip().splitlines():
                wanted = re.search(r"# exit (\d+)", line)
                done = subprocess.run(["bash", "-c", shell + line], env=env, capture_output=True, text=True, timeout=120)
                self.assertEqual(done.returncode, int(wanted[1]) if wanted else 0, f"{page}: {line}\n{done.stdout}\n{done.stderr}")
                ran += 1
                if line.startswith("assay audit verify") and not wanted:
                    self.assertIn("Audit chain verified", done.stdout)
        self.assertGreater(ran, 4)
        here.signed()
        return here

    def test_kms_outage(self):
        here = self.rehearse("kms_outage.md")
        self.assertEqual(set(here.kids()), {"v1"})
        here.proves()

    def test_emergency_signer(self):
        here = self.rehearse("emergency_signer.md")
        signers = here.proves()
        self.assertEqual(signers["proxy-v1"]["provider"], "emergency")
        self.assertEqual([kid for kid, _ in itertools.groupby(here.kids())], ["v1", "proxy-v1", "v1"])

    def test_key_rotation(self):
        here = self.rehearse("key_rotation.md")
        published = json.loads((here.assay.directory / "out" / "published" / "signers.json").read_text())["signers"]
        self.assertLessEqual({"v1", "v2"}, {entry["signerId"] for entry in published}, "both keys are out before the new one signs")
        self.assertNotIn("v2", [row[0] for row in harness.psql(
            here.url, "SELECT signer_kid FROM audit_events WHERE sequence < "
            "(SELECT sequence FROM audit_events WHERE event_type = 'audit.key_promoted')")])
        here.proves()

    def test_key_compromise(self):
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                self.attested(self.rehearse("key_compromise.md", log))

    def attested(self, here):
        lost = here.proves()["v1"]
        self.assertTrue(lost["revoked"])
        self.assertEqual(int(lost["attestedBy"]), int(lost["attestedThrough"]) + 1)
        runs = here.json("compromised", "v1")
        self.assertTrue(all(run["attested"] for run in runs))
        harness.psql(here.url, f"UPDATE audit_log SET signer_kid = 'v1' WHERE sequence = {len(here.kids())}")
        self.assertEqual(here.assay.call("audit", "verify", env=here.env).code, TAMPERED, "a revoked key signs nothing any more")

    def test_legal_hold(self):
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                self.rehearse("legal_hold.md", log, sets=['audit.personal.fields=["actor", "reason"]']).proves()

    def test_audit_integrity(self):
        for log in ("embedded", "kafka"):
            with self.subTest(log=log):
                self.rehearse("audit_integrity.md", log).proves()


if __name__ == "__main__":
    harness.main()
