#!/usr/bin/env python3
"""A signing proxy as streams/signer_proxy.h describes it: the reference for whoever writes one, and the tests' own.

  signing_proxy.py DIR      DIR has ca.pem, server.pem, server.key; keys are made in DIR as ID.ed25519.pem or ID.rsa.pem

Prints "PORT=n" when it listens. What stands in DIR/fault is done to each answer to /sign: "503", "403", "slow", "forge", "short".
"""

import base64
import json
import pathlib
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

DIGESTS_MAX = 256


def load_keys(directory):
    """id -> private key"""
    keys = {}
    for path in sorted(directory.glob("*.pem")):
        name, _, kind = path.name.removesuffix(".pem").rpartition(".")
        if kind in ("ed25519", "rsa"):
            keys[name] = serialization.load_pem_private_key(path.read_bytes(), None)
    return keys


def make_key(directory, name, kind):
    path = directory / f"{name}.{kind}.pem"
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 2048)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def public_of(key):
    public = key.public_key()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return base64.b64encode(raw).decode(), "ed25519"
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode(), "rsa-sha256"


def sign(key, digest):
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(digest)
    return key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.removeprefix("/keys/")
        key = self.server.keys.get(name)
        if not self.path.startswith("/keys/") or key is None:
            return self.fail(404, "NOT_FOUND", f"there is no key {name}")
        public, algorithm = public_of(key)
        return self.answer(200, {"signerId": name, "publicKey": public, "algorithm": algorithm})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = self.server.fault()
        if fault.isdigit():
            return self.fail(int(fault), "FAULT", "as the test asked")
        if fault == "slow":
            time.sleep(3)
        try:
            asked = json.loads(body)
            key = self.server.keys[asked["signerId"]]
            digests = [bytes.fromhex(text) for text in asked["digests"]]
            if self.path != "/sign" or not 0 < len(digests) <= DIGESTS_MAX or any(len(digest) != 32 for digest in digests):
                raise ValueError("want 1 to 256 digests of 32 bytes")
        except (KeyError, TypeError, ValueError) as error:
            return self.fail(400, "BAD_REQUEST", str(error))
        with open(self.server.directory / "calls", "a", encoding="utf-8") as calls:
            calls.write(f"{len(digests)}\n")
        if fault == "forge":
            digests = [bytes(32) for _ in digests]
        signatures = [base64.b64encode(sign(key, digest)).decode() for digest in digests]
        return self.answer(200, {"signerId": asked["signerId"], "signatures": signatures[1:] if fault == "short" else signatures})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, code, message):
        self.answer(status, {"ok": False, "error": {"code": code, "message": message}})

    def log_message(self, *_):
        pass


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, directory, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.directory, self.keys = directory, load_keys(directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        context.load_verify_locations(directory / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED  # who has no certificate of ours is not even heard
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def fault(self):
        path = self.directory / "fault"
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    def handle_error(self, request, client_address):
        pass  # a handshake that failed is the caller's to report


def main():
    directory = pathlib.Path(sys.argv[1])
    proxy = Proxy(directory, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"PORT={proxy.server_port}", flush=True)
    proxy.serve_forever()


if __name__ == "__main__":
    main()
