#!/usr/bin/env python3
"""The signers of this world, for real: a SoftHSM token, a signing proxy behind mutual TLS, and AWS KMS as moto has it.

  world.py BUILD_DIR -- COMMAND...    runs COMMAND with ASSAY_TEST_* in its environment, and takes all of it away again

moto checks who signs and what the policy allows: the access key may do kms:Sign and kms:GetPublicKey, nothing else.
"""

import contextlib
import datetime
import ipaddress
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = pathlib.Path(__file__).resolve().parent
PIN = "1234"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"

# Run by moto's own Python, the one that has boto3. The number of calls is what INITIAL_NO_AUTH_ACTION_COUNT lets through unasked.
AWS_SETUP = """
import boto3, json, sys
def client(name):
    return boto3.client(name, endpoint_url=sys.argv[1], region_name="eu-central-1", aws_access_key_id="setup", aws_secret_access_key="setup")
iam, kms = client("iam"), client("kms")
rsa = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
second = kms.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
other = kms.create_key(KeySpec="SYMMETRIC_DEFAULT", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["KeyId"]
iam.create_user(UserName="assay")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["kms:Sign", "kms:GetPublicKey"], "Resource": "*"}]}
iam.put_user_policy(UserName="assay", PolicyName="sign", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="assay")["AccessKey"]
iam.create_user(UserName="stranger")
stranger = iam.create_access_key(UserName="stranger")["AccessKey"]
print(json.dumps({"rsa": rsa, "second": second, "other": other, "access": key["AccessKeyId"], "secret": key["SecretAccessKey"],
                  "strangerAccess": stranger["AccessKeyId"], "strangerSecret": stranger["SecretAccessKey"]}))
"""
AWS_SETUP_CALLS = 8


def write_key(path, key):
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    path.chmod(0o600)


def certificate(directory, name, issuer=None):
    """Makes NAME.pem and NAME.key; returns (certificate, key). Without an issuer it signs itself and may sign others."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer[0].subject if issuer else subject)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=2))
               .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
               .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                              critical=False))
    made = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (directory / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    write_key(directory / f"{name}.key", key)
    return made, key


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def softhsm(directory):
    """A fresh token; returns its environment. It has no keys: those are made through PKCS#11."""
    (directory / "tokens").mkdir(parents=True)
    conf = directory / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n")
    environment = {"SOFTHSM2_CONF": str(conf)}
    subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", "assay", "--pin", PIN, "--so-pin", "5678"],
                   env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
    return {**environment, "ASSAY_TEST_PKCS11_MODULE": MODULE, "ASSAY_TEST_PKCS11_TOKEN": "assay", "ASSAY_TEST_PKCS11_PIN": PIN}


class ProxyServer:
    """The reference proxy, which can be stopped and started again on the same port."""

    def __init__(self, directory):
        sys.path.insert(0, str(HERE))
        import signing_proxy
        self.directory, self.port, self.child = directory, 0, None
        directory.mkdir(parents=True)
        authority = certificate(directory, "ca")
        for name in ("server", "client"):
            certificate(directory, name, authority)
        certificate(directory, "stranger")  # signed by nobody the server knows
        for name, kind in (("proxy-v1", "ed25519"), ("proxy-v2", "ed25519"), ("proxy-rsa", "rsa")):
            signing_proxy.make_key(directory, name, kind)

    def start(self):
        self.child = subprocess.Popen([sys.executable, "-B", str(HERE / "signing_proxy.py"), str(self.directory), str(self.port)],
                                      stdout=subprocess.PIPE, text=True)
        line = self.child.stdout.readline()
        if not line.startswith("PORT="):
            raise RuntimeError("the signing proxy did not start")
        self.port = int(line.removeprefix("PORT="))

    def stop(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child.stdout.close()
            self.child = None

    def fault(self, what=""):
        (self.directory / "fault").write_text(what)

    def environment(self):
        return {"ASSAY_TEST_PROXY_URL": f"https://127.0.0.1:{self.port}", "ASSAY_TEST_PROXY_DIR": str(self.directory)}


class Kms:
    """moto as a server, with keys, a user who may sign and one who may not."""

    def __init__(self, build_dir, directory):
        python = pathlib.Path(build_dir) / "aws" / "bin"
        if not (python / "moto_server").exists():
            raise RuntimeError(f"{python} has no moto: run tests/integration/aws_setup.sh {build_dir}")
        directory.mkdir(parents=True)
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.log = open(directory / "moto.log", "wb")
        self.child = subprocess.Popen([str(python / "python"), str(HERE / "kms_server.py"), "-H", "127.0.0.1", "-p", str(port)], stdout=self.log, stderr=self.log,
                                      env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(AWS_SETUP_CALLS), "PYTHONDONTWRITEBYTECODE": "1"})
        try:
            self.wait(port)
            done = subprocess.run([str(python / "python"), "-c", AWS_SETUP, self.endpoint], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"moto could not be set up: {done.stderr[-2000:]}")
            self.keys = json.loads(done.stdout)
        except BaseException:
            self.stop()
            raise

    def wait(self, port):
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if self.child.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"moto did not start: {pathlib.Path(self.log.name).read_text()[-2000:]}")

    def stop(self):
        self.child.kill()
        self.child.wait()
        self.log.close()

    def environment(self):
        return {"ASSAY_TEST_KMS_ENDPOINT": self.endpoint, "ASSAY_TEST_KMS_KEYS": json.dumps(self.keys)}


def main():
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        print(__doc__, file=sys.stderr)
        return 2
    directory = pathlib.Path(tempfile.mkdtemp(prefix="assay-signers-"))
    proxy = kms = None
    try:
        environment = softhsm(directory / "hsm")
        proxy = ProxyServer(directory / "proxy")
        proxy.start()
        kms = Kms(sys.argv[1], directory / "kms")
        environment.update(proxy.environment(), **kms.environment())
        return subprocess.run(sys.argv[3:], env={**os.environ, **environment}, check=False).returncode
    finally:
        if proxy:
            proxy.stop()
        if kms:
            kms.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
