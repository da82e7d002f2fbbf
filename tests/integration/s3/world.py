#!/usr/bin/env python3
"""An S3 that nobody here wrote (moto as a server, which checks signatures), and before it a proxy that fails as it is told.

  world.py BUILD_DIR -- COMMAND...    runs COMMAND with ASSAY_TEST_S3_* in its environment, and takes all of it away again

The proxy takes one word from the fault file for each request: 500, 503, slow (no answer in time), half (of the answer's body),
drop (the connection), lost (done, and the answer was 500), gone (done, and the answer was 404), absent (HEAD says 404 whatever is there), ok. None left: it only passes on.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

SETUP = """
import boto3, json, sys
def client(name):
    return boto3.client(name, endpoint_url=sys.argv[1], region_name="eu-central-1", aws_access_key_id="setup", aws_secret_access_key="setup")
iam, s3 = client("iam"), client("s3")
where = {"LocationConstraint": "eu-central-1"}
s3.create_bucket(Bucket="plain", CreateBucketConfiguration=where)
s3.create_bucket(Bucket="locked", CreateBucketConfiguration=where, ObjectLockEnabledForBucket=True)
iam.create_user(UserName="assay")
allowed = ["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:AbortMultipartUpload", "s3:GetObjectRetention", "s3:ListMultipartUploadParts",
           "s3:ListBucketMultipartUploads"]
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}]}
iam.put_user_policy(UserName="assay", PolicyName="archive", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="assay")["AccessKey"]
print(json.dumps({"access": key["AccessKeyId"], "secret": key["SecretAccessKey"]}))
"""
SETUP_CALLS = 5
SLOW_S = 3


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Moto:
    def __init__(self, build_dir, directory):
        python = pathlib.Path(build_dir) / "aws" / "bin"
        if not (python / "moto_server").exists():
            raise RuntimeError(f"{python} has no moto: run tests/integration/aws_setup.sh {build_dir}")
        self.python, self.port = python / "python", free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = open(directory / "moto.log", "wb")
        self.child = subprocess.Popen([str(python / "moto_server"), "-H", "127.0.0.1", "-p", str(self.port)], stdout=self.log, stderr=self.log,
                                      env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(SETUP_CALLS), "MOTO_S3_DEFAULT_MAX_KEYS": "7",
                                           "PYTHONDONTWRITEBYTECODE": "1"})
        try:
            self.wait()
            done = subprocess.run([str(self.python), "-c", SETUP, self.endpoint], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"moto could not be set up: {done.stderr[-2000:]}")
            self.keys = json.loads(done.stdout)
        except BaseException:
            self.stop()
            raise

    def wait(self):
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.child.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"moto did not start: {pathlib.Path(self.log.name).read_text()[-2000:]}")

    def stop(self):
        self.child.kill()
        self.child.wait()
        self.log.close()


def proxy(target_port, faults, seen):
    """Serves on a port of its own; returns (server, port). What it was asked, and with which lock, it writes down."""
    lock = threading.Lock()

    def next_fault():
        with lock:
            words = faults.read_text().split() if faults.exists() else []
            if words:
                faults.write_text(" ".join(words[1:]))
            return words[0] if words else "ok"

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, status, headers, body, cut=None):
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if cut is None else cut))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def fail(self, status, code):
            self.answer(status, [], f"<Error><Code>{code}</Code><Message>told to</Message></Error>".encode())

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = next_fault()
            with lock, open(seen, "a", encoding="utf-8") as notes:
                notes.write(f"{self.command} {self.path} {self.headers.get('X-Amz-Object-Lock-Mode')}\n")
            if fault in ("500", "503"):
                return self.fail(int(fault), "InternalError" if fault == "500" else "SlowDown")
            if fault in ("drop", "slow"):
                time.sleep(SLOW_S if fault == "slow" else 0)
                self.close_connection = True
                return None
            if fault == "absent" and self.command == "HEAD":
                return self.answer(404, [], b"")
            onward = http.client.HTTPConnection("127.0.0.1", target_port, timeout=60)
            onward.request(self.command, self.path, body, dict(self.headers.items()))
            got = onward.getresponse()
            content = got.read()
            onward.close()
            if fault in ("lost", "gone"):
                return self.fail(500, "InternalError") if fault == "lost" else self.fail(404, "NoSuchUpload")
            if fault == "half" and content:
                self.close_connection = True
                return self.answer(got.status, got.getheaders(), content[:len(content) // 2], cut=len(content))
            return self.answer(got.status, got.getheaders(), content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_port


def main():
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        print(__doc__, file=sys.stderr)
        return 2
    directory = pathlib.Path(tempfile.mkdtemp(prefix="assay-s3-"))
    moto = None
    try:
        moto = Moto(sys.argv[1], directory)
        server, port = proxy(moto.port, directory / "faults", directory / "seen")
        environment = {"ASSAY_TEST_S3_ENDPOINT": moto.endpoint, "ASSAY_TEST_S3_FAULTY": f"http://127.0.0.1:{port}",
                       "ASSAY_TEST_S3_FAULTS": str(directory / "faults"), "ASSAY_TEST_S3_SEEN": str(directory / "seen"), "ASSAY_TEST_S3_ACCESS_KEY": moto.keys["access"],
                       "ASSAY_TEST_S3_SECRET": moto.keys["secret"], "ASSAY_TEST_AWS_PYTHON": str(moto.python)}
        code = subprocess.run(sys.argv[3:], env={**os.environ, **environment}, check=False).returncode
        server.shutdown()
        return code
    finally:
        if moto:
            moto.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
