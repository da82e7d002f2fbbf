#!/usr/bin/env python3
"""Checks a hash chain against the thirteen rules by which the original verifier accepts it, with nothing of the project.

    audit_compat.py --signers signers.json (--database-url URL | --rows FILE.jsonl[.gz] …)
    audit_compat.py --self-test

Prints one line per rule: ok, or violated with the first row (and how many). Exit 0, 4 when a rule is violated, 2 unusable.
Needs `cryptography` (Debian: python3-cryptography) and, for a database, the `psql` program.
"""
import argparse
import base64
import binascii
import csv
import datetime
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

RULES = {
    1: "relation audit_events, read in created_at order, columns id payload prev_hash hash signature signer_kid",
    2: "created_at not null, unique, strictly rising",
    3: "payload is json or jsonb and an object",
    4: "hash, prev_hash 64 lower-case hex digits and linked, the first prev_hash NULL",
    5: "no visible row without a signature",
    6: "signature in standard base64 or hex",
    7: "hash = SHA-256(canonical(payload) || raw prev_hash)",
    8: "Ed25519 signs the 32 digest bytes",
    9: "RSA is PKCS1-v1_5 with SHA-256 over the preimage",
    10: "canonical strings and key order as RFC 8785",
    11: "canonical numbers as ECMAScript, and held exactly by a double",
    12: "nothing that jsonb refuses",
    13: "signer registry: id, key and lower-case algorithm, ids never reused, every signer in it",
}
COLUMNS = ("id", "created_at", "payload", "prev_hash", "hash", "signature", "signer_kid")

# ------------------------------------------------------------------------------------------------------- canonical JSON


class Number(str):
    """A number as it was written."""


class Unfit(Exception):
    """A document that cannot be read, or holds a key twice."""


def object_of(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unfit("an object holds a key twice")
    return members


def refuse_constant(token):
    raise Unfit(f"{token} is no JSON")


DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=refuse_constant, object_pairs_hook=object_of)
SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


LONG = {short: f"\\u{ord(c):04x}" for c, short in SHORT.items()}


def quote(text):
    return '"' + "".join(SHORT.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


def ecmascript_number(token):
    """ECMA-262 Number::toString of the double; Python's repr gives the same shortest digits in another dress."""
    value = float(token)
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    _, digits, exponent = Decimal(repr(abs(value))).as_tuple()
    digits = "".join(map(str, digits))
    stripped = digits.rstrip("0")
    exponent += len(digits) - len(stripped)
    point = len(stripped) + exponent  # value = 0.stripped * 10^point
    if len(stripped) <= point <= 21:
        body = stripped + "0" * (point - len(stripped))
    elif 0 < point <= 21:
        body = stripped[:point] + "." + stripped[point:]
    elif -6 < point <= 0:
        body = "0." + "0" * -point + stripped
    else:
        body = stripped[0] + ("." + stripped[1:] if len(stripped) > 1 else "") + f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + body


def utf16(key):
    return key.encode("utf-16-be", "surrogatepass")


def canonical(value, order=utf16, string=quote, number=ecmascript_number):
    if isinstance(value, dict):
        keys = sorted(value, key=order) if order else list(value)
        return "{" + ",".join(string(k) + ":" + canonical(value[k], order, string, number) for k in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item, order, string, number) for item in value) + "]"
    if isinstance(value, Number):
        return number(value)
    return string(value) if isinstance(value, str) else {None: "null", True: "true", False: "false"}[value]


# Canonical forms that people get wrong: tried when a hash does not fit, to name the rule that was broken.
def integers_first(key):
    return (0, int(key), b"") if re.fullmatch(r"0|[1-9]\d{0,9}", key) else (1, 0, utf16(key))


def escaping(pattern, form="\\u{:04x}"):
    return lambda text: re.sub(pattern, lambda m: "".join(form.format(u) for u in units(m[0])), quote(text))


def units(text):
    raw = utf16(text)
    return [raw[i] << 8 | raw[i + 1] for i in range(0, len(raw), 2)]


MISTAKES = (
    (10, "keys in code point order", {"order": lambda key: [ord(c) for c in key]}),
    (10, "integer-like keys first", {"order": integers_first}),
    (10, "keys unsorted", {"order": None}),
    (10, "non-ASCII escaped", {"string": escaping(r"[^\x00-\x7f]")}),
    (10, "non-ASCII and U+007F escaped", {"string": escaping(r"[^\x00-\x7e]")}),
    (10, "U+007F escaped", {"string": escaping("\x7f")}),
    (10, "U+2028/9 escaped", {"string": escaping("[\u2028\u2029]")}),
    (10, "<, > or & escaped", {"string": escaping("[<>&]")}),
    (10, "/ escaped", {"string": escaping("/", "\\/")}),
    (10, "upper-case escapes", {"string": lambda text: re.sub(r"(?<=\\u)00[01][0-9a-f]", lambda m: m[0].upper(), quote(text))}),
    (10, "long escapes", {"string": lambda text: re.sub(r"\\[bfnrt]", lambda m: LONG[m[0]], quote(text))}),
    (11, "numbers as they were written", {"number": str}),
    (11, "numbers as Python prints", {"number": lambda token: repr(float(token))}),
    (11, "minus zero kept", {"number": lambda t: "-0" if float(t) == 0 and t.startswith("-") else ecmascript_number(t)}),
)

# --------------------------------------------------------------------------------------------------------------- inputs


@dataclass
class Row:
    fields: dict         # column -> text or None
    payload_text: str
    payload_type: str    # json, jsonb, or what the column is


def rows_of_file(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8", errors="surrogateescape") as file:
        return [row_of_line(line) for line in file if line.strip()]


def row_of_line(line):
    document = DECODER.decode(line)
    payload = document.get("payload")
    return Row({**document, "payload": None}, canonical(payload, None, quote, str), "text" if isinstance(payload, str) else "json")


def rows_of_database(url):
    def psql(query):
        done = subprocess.run(["psql", "-X", "--csv", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", query], capture_output=True,
                              text=True, env={**os.environ, "PGTZ": "UTC", "PGCLIENTENCODING": "UTF8"}, check=False)
        if done.returncode:
            raise SystemExit(f"audit_compat: psql could not run {query!r}: {done.stderr.strip()}")
        return list(csv.reader(io.StringIO(done.stdout)))

    csv.field_size_limit(1 << 30)
    present = psql("SELECT * FROM audit_events LIMIT 0")[0]
    wanted = [c for c in (*COLUMNS, "signer_id") if c in present]
    rendered = {"created_at": """to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""}
    # A mark before each value keeps NULL apart from the empty string.
    columns = [f"'=' || {rendered.get(c, c + '::text')}" for c in wanted] + ["pg_typeof(payload)::text"]
    rows = []
    for *values, kind in psql(f"SELECT {', '.join(columns)} FROM audit_events ORDER BY audit_events.created_at")[1:]:
        fields = {c: v[1:] if v else None for c, v in zip(wanted, values)}
        rows.append(Row(fields, fields.get("payload") or "null", kind))
    return rows


def microseconds(text):
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        return None
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


# --------------------------------------------------------------------------------------------------------------- checks


class Audit:
    def __init__(self, registry):
        self.violations = {rule: [] for rule in RULES}
        self.keys = self.read_registry(registry)

    def violate(self, rule, where, why):
        self.violations[rule].append(f"{where}: {why}")

    def read_registry(self, registry):
        keys = {}
        signers = registry.get("signers") if isinstance(registry, dict) else None
        if not isinstance(signers, list) or not signers:
            self.violate(13, "signers.json", 'no list "signers"')
            return keys
        for n, signer in enumerate(signers):
            first = lambda *names: next((signer[name] for name in names if signer.get(name)), None)
            name, text, algorithm = (first("signerId", "signer_kid", "id"), first("publicKey", "public_key_pem", "key"),
                                     first("algorithm", "alg"))
            where = f"signer {name or n}"
            if not name or not text:
                self.violate(13, where, "an id or a key is missing")
                continue
            if name in keys:
                self.violate(13, where, "the id is there twice")
                continue
            keys[name] = None
            if algorithm not in ("ed25519", "rsa-sha256"):
                self.violate(13, where, f"algorithm {algorithm!r}: want ed25519 or rsa-sha256, in lower case")
                continue
            try:
                key = load_pem_public_key(text.encode()) if text.lstrip().startswith("-----BEGIN PUBLIC KEY") else \
                    ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
            except (ValueError, binascii.Error) as error:
                self.violate(13, where, f"the key is neither 32 bytes in base64 nor a PEM SPKI: {error}")
                continue
            if isinstance(key, ed25519.Ed25519PublicKey) != (algorithm == "ed25519"):
                self.violate(13, where, f"the key is not one of {algorithm}")
                continue
            keys[name] = key
        return keys

    def check(self, rows):
        if not rows:
            self.violate(1, "audit_events", "no row at all")
        previous_hash = previous_time = None
        for position, row in enumerate(rows):
            fields = row.fields
            where = f"row {position} ({fields.get('id')})"
            for column in COLUMNS:
                if column not in fields and not (column == "signer_kid" and "signer_id" in fields):
                    self.violate(1, where, f"no column {column}")
            if not fields.get("id"):
                self.violate(1, where, "no id")
            previous_time = self.check_time(where, fields.get("created_at"), previous_time)
            payload = self.check_payload(where, row)
            self.check_links(where, position, fields, previous_hash)
            previous_hash = fields.get("hash")
            if payload is not None:
                self.check_hash_and_signature(where, fields, payload)
        return not any(self.violations.values())

    def check_time(self, where, text, previous):
        time = microseconds(text)
        if time is None:
            self.violate(2, where, f"created_at {text!r} is no instant")
        elif previous is not None and time <= previous:
            self.violate(2, where, f"created_at {text} is not later than the row before")
        return previous if time is None else time

    def check_payload(self, where, row):
        if row.payload_type not in ("json", "jsonb"):
            self.violate(3, where, f"payload is {row.payload_type}")
        try:
            payload = DECODER.decode(row.payload_text)
        except (ValueError, Unfit) as error:
            self.violate(12, where, f"payload cannot be read: {error}")
            return None
        if isinstance(payload, str) and row.payload_type not in ("json", "jsonb"):
            return payload
        if not isinstance(payload, dict):
            self.violate(3, where, "payload is no object")
        return payload if self.check_values(where, payload) else None

    def check_values(self, where, value):
        """Walks the payload; False when it has no canonical form at all."""
        if isinstance(value, dict):
            return all([self.check_values(where, part) for pair in value.items() for part in pair])
        if isinstance(value, list):
            return all([self.check_values(where, item) for item in value])
        if isinstance(value, Number):
            if abs(float(value)) == float("inf"):
                self.violate(12, where, f"the number {value[:40]} is beyond a double")
                return False
            if Decimal(value) != Decimal(repr(float(value))):
                self.violate(11, where, f"the number {value[:40]} is not what a double prints: {ecmascript_number(value)}")
        elif isinstance(value, str):
            if "\0" in value:
                self.violate(12, where, "a string holds U+0000")
            if any("\ud800" <= c <= "\udfff" for c in value):
                self.violate(12, where, "a string holds a lone surrogate")
                return False
        return True

    def check_links(self, where, position, fields, previous_hash):
        own, previous = fields.get("hash"), fields.get("prev_hash")
        if not re.fullmatch(r"[0-9a-f]{64}", own or ""):
            self.violate(4, where, f"hash {own!r} is not 64 lower-case hex digits")
        if position == 0:
            if previous is not None:
                self.violate(4, where, "the first row's prev_hash is not NULL")
        elif not re.fullmatch(r"[0-9a-f]{64}", previous or ""):
            self.violate(4, where, f"prev_hash {previous!r} is not 64 lower-case hex digits")
        elif previous != previous_hash:
            self.violate(4, where, "prev_hash is not the hash of the row before")

    def check_hash_and_signature(self, where, fields, payload):
        previous = fields.get("prev_hash") or ""
        raw_previous = bytes.fromhex(previous) if re.fullmatch(r"(?:[0-9A-Fa-f]{2})*", previous) else b""
        preimage = canonical(payload).encode() + raw_previous
        digest = hashlib.sha256(preimage).digest()
        if digest.hex() != (fields.get("hash") or "").lower():
            self.violate(*self.why_hash(where, fields, payload, raw_previous))
        signature = fields.get("signature")
        if not signature:
            self.violate(5, where, "no signature")
            return
        signature = self.signature_bytes(where, signature)
        signer = fields.get("signer_id") or fields.get("signer_kid")
        if signer not in self.keys:
            self.violate(13, where, f"signer {signer!r} is not in the registry")
        elif signature is not None and self.keys[signer] is not None:
            self.check_signature(where, self.keys[signer], signature, preimage, digest)

    def why_hash(self, where, fields, payload, raw_previous):
        hashed = (fields.get("hash") or "").lower()
        for rule, name, options in MISTAKES:
            try:
                if hashlib.sha256(canonical(payload, **options).encode() + raw_previous).hexdigest() == hashed:
                    return rule, where, f"hashed with {name}"
            except UnicodeEncodeError:
                continue
        text = canonical(payload).encode()
        others = {"the hex text of prev_hash": text + (fields.get("prev_hash") or "").encode(),
                  "prev_hash first": raw_previous + text,
                  "zeros for the genesis": text + bytes(32), "prev_hash left out": text}
        name = next((name for name, other in others.items() if hashlib.sha256(other).hexdigest() == hashed), None)
        return 7, where, f"hashed with {name}" if name else "hash does not fit the payload and prev_hash"

    def signature_bytes(self, where, text):
        if re.fullmatch(r"(?:[0-9A-Fa-f]{2}){64,}", text) and len(text) in (128, 512, 768, 1024):
            return bytes.fromhex(text)
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            self.violate(6, where, f"signature is neither standard base64 nor hex: {error}")
            return None

    def check_signature(self, where, key, signature, preimage, digest):
        if isinstance(key, rsa.RSAPublicKey):
            rule, right = 9, lambda: key.verify(signature, preimage, padding.PKCS1v15(), hashes.SHA256())
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
            wrong = {"PSS": lambda: key.verify(signature, preimage, pss, hashes.SHA256()),
                     "the digest hashed again": lambda: key.verify(signature, digest, padding.PKCS1v15(), hashes.SHA256())}
        else:
            rule, right = 8, lambda: key.verify(signature, digest)
            wrong = {"the hex text": lambda: key.verify(signature, digest.hex().encode()),
                     "the preimage": lambda: key.verify(signature, preimage)}
        if not holds(right):
            name = next((name for name, attempt in wrong.items() if holds(attempt)), None)
            self.violate(rule, where, f"the signature is over {name}" if name else "the signature does not verify")


def holds(verify):
    try:
        verify()
        return True
    except InvalidSignature:
        return False


def report(audit, rows):
    for rule, title in RULES.items():
        found = audit.violations[rule]
        print(f"{rule:>2}  {'violated' if found else 'ok':<8}  {title}")
        if found:
            print(f"              {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""))
    print(f"{len(rows)} rows, {sum(map(bool, audit.violations.values()))} rules violated")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url")
    parser.add_argument("--rows", nargs="+", metavar="FILE", help="JSON lines in chain order, plain or .gz")
    parser.add_argument("--signers", metavar="FILE")
    parser.add_argument("--self-test", action="store_true", help="shows that each rule's violation is found")
    options = parser.parse_args()
    if options.self_test:
        from audit_compat_selftest import self_test
        raise SystemExit(self_test())
    if not options.signers or bool(options.rows) == bool(options.database_url):
        parser.error("want --signers FILE and one of --database-url and --rows")
    with open(options.signers, encoding="utf-8") as file:
        audit = Audit(json.load(file))
    try:
        rows = rows_of_database(options.database_url) if options.database_url else [
                                r for f in options.rows for r in rows_of_file(f)]
    except (ValueError, Unfit) as error:
        print(f"audit_compat: the rows cannot be read: {error}")
        raise SystemExit(4) from error
    fine = audit.check(rows)
    report(audit, rows)
    raise SystemExit(0 if fine else 4)


if __name__ == "__main__":
    sys.exit(main())
