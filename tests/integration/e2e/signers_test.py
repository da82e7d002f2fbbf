"""The chain signed by each kind of signer, for real: SoftHSM, a signing proxy behind mutual TLS, AWS KMS as moto has it."""

import pathlib
import re
import subprocess
import sys

import harness

SIGNERS = pathlib.Path(__file__).resolve().parents[1] / "signers"
ORACLE = pathlib.Path(__file__).resolve().parents[2] / "oracle" / "audit_compat.py"
sys.path.insert(0, str(SIGNERS))
import world  # noqa: E402

REFUSED = 5


def verify(directory, *flags):
    done = subprocess.run([str(harness.BIN / "assay-verify"), str(directory), *map(str, flags)], capture_output=True, text=True,
                          env=harness.clean_environment(), timeout=60)
    return harness.Outcome(done.returncode, done.stdout, done.stderr)


class Signers(harness.EndToEnd):

    def token(self, algorithm="ed25519"):
        """Settings and environment of a fresh SoftHSM token that makes its key on first use."""
        environment = world.softhsm(self.directory / "hsm")
        return ["audit.signer=pkcs11", "audit.signer_id=hsm-v1", f"audit.pkcs11.module={world.MODULE}", "audit.pkcs11.token=assay",
                "audit.pkcs11.create=true", f"audit.pkcs11.algorithm={algorithm}"], {"AUDIT_SIGNER_PIN": world.PIN, **environment}

    def proxy(self, key):
        proxy = world.ProxyServer(self.directory / "proxy")
        proxy.start()
        self.addCleanup(proxy.stop)
        where = proxy.directory
        return proxy, [f"audit.proxy.ca={where}/ca.pem", f"audit.proxy.cert={where}/client.pem", f"audit.proxy.key={where}/client.key",
                       "audit.sign_timeout=2s", "audit.sign_attempts=1"], {
                           "SIGNING_PROXY_URL": f"https://127.0.0.1:{proxy.port}", "AUDIT_SIGNER_KID": key}

    def kms(self):
        kms = world.Kms(harness.BIN.parent, self.directory / "kms")
        self.addCleanup(kms.stop)
        return kms, {"AUDIT_SIGNING_KMS_KEY_ID": kms.keys["rsa"], "AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL_KMS": kms.endpoint,
                     "AWS_ACCESS_KEY_ID": kms.keys["access"], "AWS_SECRET_ACCESS_KEY": kms.keys["secret"], "AUDIT_SIGNER_KID": "kms-v1"}

    def chain_holds(self, sets, env, algorithm, signer_id):
        """A pipeline with REQUIRE_KMS=true, its chain in PostgreSQL; three readers prove it, one of them by the original's rules."""
        env = {**env, "REQUIRE_KMS": "true"}
        assay = self.assay(database=True, sets=sets)
        assay.json("produce", "--input", self.reports(), env=env)
        assay.json("run", "--until-end", env=env)
        rows = assay.json("audit", "head", env=env)
        self.assertGreater(rows["rows"], 3)
        self.assertEqual(rows["signedThrough"], str(rows["rows"]))
        export = assay.directory / "export"
        assay.ok("audit", "export", "--out", export, env=env)
        signers = export / "signers.json"
        self.assertIn(f'"algorithm":"{algorithm}"', signers.read_text())
        self.assertIn(f'"signerId":"{signer_id}"', signers.read_text())
        proven = verify(export, "--signers", signers)
        self.assertEqual(proven.code, 0, proven.out + proven.err)
        self.assertIn("Audit chain verified", assay.ok("audit", "verify", "--signers", signers, env=env).out.decode())
        compat = subprocess.run([sys.executable, "-B", str(ORACLE), "--database-url", assay.database_url, "--signers", str(signers)],
                                capture_output=True, text=True, timeout=120)
        self.assertEqual(compat.returncode, 0, compat.stdout + compat.stderr)
        verdicts = re.findall(r"^ ?(\d+)  (\w+)", compat.stdout, re.MULTILINE)
        self.assertEqual([word for _, word in verdicts[:13]], ["ok"] * 13, compat.stdout)
        harness.psql(assay.database_url, "UPDATE audit_log SET signature = translate(signature, 'ABab', 'BAba') WHERE sequence = 2")
        self.assertEqual(assay.call("audit", "verify", env=env).code, 4, "signatures are looked at")
        return assay

    def reports(self):
        path = self.directory / "reports.jsonl"
        maker = harness.Assay("embedded", self.directory / "maker")
        maker.ok("generate", "--agents", 6, "--reports", 600, "--seed", 9, "--out", path)
        return path

    def test_a_token_signs_by_ed25519(self):
        self.chain_holds(*self.token(), "ed25519", "hsm-v1")

    def test_a_token_signs_by_rsa(self):
        self.chain_holds(*self.token("rsa-sha256"), "rsa-sha256", "hsm-v1")

    def test_a_proxy_signs_many_rows_with_one_call(self):
        proxy, sets, env = self.proxy("proxy-v1")
        (proxy.directory / "calls").write_text("")
        assay = self.chain_holds(sets + ["audit.eval_submit=each"], env, "ed25519", "proxy-v1")
        calls = [int(line) for line in (proxy.directory / "calls").read_text().splitlines()]
        rows = int(harness.psql(assay.database_url, "SELECT count(*) FROM audit_log")[0][0])
        self.assertGreaterEqual(sum(calls), rows)
        self.assertLess(len(calls), rows / 5, "digests travel together")

    def test_a_kms_signs(self):
        _, env = self.kms()
        self.chain_holds([], env, "rsa-sha256", "kms-v1")

    def refused(self, words, sets, env):
        assay = self.assay(sets=sets)
        done = assay.call("run", "--until-end", env={"REQUIRE_KMS": "true", **env})
        self.assertEqual(done.code, REFUSED, done.err)
        for word in words:
            self.assertIn(word, done.err)
        self.assertFalse((assay.data / "log").exists(), "nothing was begun")
        return done.err

    def test_a_signer_that_does_not_work_refuses_the_start(self):
        """A probe is signed and checked: being configured is not enough. Every guard that failed is named, not the first alone."""
        sets, env = self.token()
        self.refused(["REQUIRE_KMS=true", "audit.pkcs11.pin"], sets, {k: v for k, v in env.items() if k != "AUDIT_SIGNER_PIN"})
        self.refused(["REQUIRE_KMS=true", "no such token"], sets + ["audit.pkcs11.token=no such token"], env)
        proxy, sets, env = self.proxy("proxy-v1")
        proxy.fault("403")
        self.refused(["REQUIRE_KMS=true", "proxy-v1", "403"], sets, env)
        proxy.fault("forge")
        self.refused(["REQUIRE_KMS=true", "not that of proxy-v1"], sets, env)
        proxy.stop()
        text = self.refused(["3 guards failed", "DEV_SKIP_MTLS", "KERNEL_API_URL", "REQUIRE_KMS=true"], sets,
                            {**env, "NODE_ENV": "production", "DEV_SKIP_MTLS": "1", "KERNEL_API_URL": "https://k"})
        self.assertIn(f"127.0.0.1:{proxy.port}", text)
        kms, env = self.kms()
        self.refused(["REQUIRE_KMS=true", "AccessDenied"], [],
                     {**env, "AWS_ACCESS_KEY_ID": kms.keys["strangerAccess"], "AWS_SECRET_ACCESS_KEY": kms.keys["strangerSecret"]})
        self.refused(["audit.signer"], [], {})

    def test_credentials_of_a_file_are_read_again(self):
        kms, env = self.kms()
        keys = self.directory / "credentials"
        keys.write_text(f"[other]\naws_access_key_id = x\n[default]\naws_access_key_id = {kms.keys['access']}\n"
                        f"aws_secret_access_key={kms.keys['secret']}\n")
        bare = {name: value for name, value in env.items() if not name.startswith("AWS_ACCESS") and not name.startswith("AWS_SECRET")}
        self.chain_holds([f"audit.kms.credentials={keys}"], bare, "rsa-sha256", "kms-v1")
        self.refused(["AWS_ACCESS_KEY_ID"], [], bare)


if __name__ == "__main__":
    harness.main()
