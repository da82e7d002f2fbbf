"""The self-test of audit_compat.py: a small valid chain with its own keys, then one planted violation of each rule."""
import base64
import hashlib
import json
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit_compat import DECODER, RULES, Audit, canonical, ecmascript_number, row_of_line

# Bits of a double and how ECMAScript prints it (RFC 8785, appendix B).
NUMBERS = {"0000000000000000": "0", "8000000000000000": "0", "0000000000000001": "5e-324", "8000000000000001": "-5e-324",
           "7fefffffffffffff": "1.7976931348623157e+308", "4340000000000000": "9007199254740992",
           "c340000000000000": "-9007199254740992",
           "4430000000000000": "295147905179352830000", "44b52d02c7e14af5": "9.999999999999997e+22", "44b52d02c7e14af6": "1e+23",
           "44b52d02c7e14af7": "1.0000000000000001e+23", "444b1ae4d6e2ef4e": "999999999999999700000", "444b1ae4d6e2ef50": "1e+21",
           "3eb0c6f7a0b5ed8c": "9.999999999999997e-7", "3eb0c6f7a0b5ed8d": "0.000001", "41b3de4355555553": "333333333.3333332",
           "41b3de4355555554": "333333333.33333325", "becbf647612f3696": "-0.0000033333333333333333"}

PAYLOADS = (
    '{"eventId":"av-1","eventType":"promotion","data":{"score":0.875,"n":12,"z":[1,true,null,"x"]}}',
    '{"\U0001d518":1,"\uf000":2,"10":3,"9":4,"a":"\\u0007 \\n </script>& \u007f \u2028 \u20ac","b":1.0,"c":1e21,"d":-0,"e":1e-7}',
    '{"eventId":"av-3","offset":"9007199254740993"}', '{"eventId":"av-4","empty":{},"list":[]}')


class Chain:
    """A chain as lines of a dump, each part of which a case may make wrong."""

    def __init__(self):
        self.ed, self.rsa = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(public_exponent=65537, key_size=2048)
        raw = self.ed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        pem = self.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.registry = {"signers": [{"signerId": "ed-1", "publicKey": base64.b64encode(raw).decode(), "algorithm": "ed25519"},
                                     {"signer_kid": "rsa-1", "public_key_pem": pem, "alg": "rsa-sha256", "revoked": False}]}

    def sign_right(self, signer, preimage, digest):
        return self.rsa.sign(preimage, padding.PKCS1v15(), hashes.SHA256()) if signer == "rsa-1" else self.ed.sign(digest)

    def rows(self, payloads=PAYLOADS, sign=None, change=None, **options):
        lines, previous = [], b""
        for n, text in enumerate(payloads):
            payload = DECODER.decode(text)
            preimage = canonical(payload, **options).encode("utf-8", "surrogatepass") + previous
            digest = hashlib.sha256(preimage).digest()
            signer = "rsa-1" if n % 2 else "ed-1"
            signature = (sign or self.sign_right)(signer, preimage, digest)
            row = {"id": f"id-{n}", "event_type": "test", "created_at": f"2026-05-01T00:00:00.{n:06}Z",
                   "prev_hash": previous.hex() or None,
                   "hash": digest.hex(), "signature": base64.b64encode(signature).decode(), "signer_kid": signer}
            if change:
                change(n, row)
            previous = digest
            if "payload" not in row:
                lines.append(json.dumps(row)[:-1] + f', "payload": {text}}}')
            else:
                lines.append(json.dumps(row))
        return [row_of_line(line) for line in lines]


def at(position, **values):
    return lambda n, row: row.update(values) if n == position else None


def drop(field):
    return lambda n, row: row.pop(field)


def cases(chain):
    """(rule, what is wrong, rows, registry)"""
    rows, registry, right = chain.rows, chain.registry, chain.sign_right
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    yield 1, "no rows", [], registry
    yield 1, "no signature column", rows(change=drop("signature")), registry
    yield 2, "one instant for two rows", rows(change=at(2, created_at="2026-05-01T00:00:00.000001Z")), registry
    yield 2, "an instant that falls", rows(change=at(2, created_at="2026-04-01T00:00:00.000009Z")), registry
    yield 2, "no instant", rows(change=at(1, created_at=None)), registry
    yield 3, "payload is text", rows(change=at(1, payload=PAYLOADS[1])), registry
    yield 3, "payload is a list", rows((*PAYLOADS, "[1]")), registry
    yield 4, "an upper-case hash", rows(change=lambda n, row: row.update(hash=row["hash"].upper())), registry
    yield 4, "a first prev_hash", rows(change=at(0, prev_hash="0" * 64)), registry
    yield 4, "no later prev_hash", rows(change=at(2, prev_hash=None)), registry
    yield 4, "a row cut out", rows()[:1] + rows()[2:], registry
    yield 5, "no signature", rows(change=at(3, signature=None)), registry
    yield 6, "base64 of URLs", rows(change=lambda n, row: row.update(signature="-_" + row["signature"][2:])), registry
    yield 6, "base64 without its end", rows(change=lambda n, row: row.update(signature=row["signature"].rstrip("="))), registry
    yield 7, "another payload", rows(change=at(1, payload={"other": 1})), registry
    yield 7, "one digit of a hash", rows(change=lambda n, row: row.update(hash=("1" if row["hash"][0] == "0" else "0")
                                                                          + row["hash"][1:])), registry
    for what, ed in (("the hex text signed", lambda p, d: d.hex().encode()), ("the preimage signed", lambda p, d: p)):
        yield 8, what, rows(sign=lambda s, p, d, ed=ed: chain.ed.sign(ed(p, d)) if s == "ed-1" else right(s, p, d)), registry
    for what, scheme in (("PSS", lambda p, d: (p, pss)), ("hashed twice", lambda p, d: (d, padding.PKCS1v15()))):
        yield 9, what, rows(sign=lambda s, p, d, scheme=scheme: chain.rsa.sign(*scheme(p, d), hashes.SHA256()) if s == "rsa-1" else
                            right(s, p, d)), registry
    yield 10, "code point order", rows(order=lambda key: [ord(c) for c in key]), registry
    yield 10, "unsorted", rows(order=None), registry
    yield 10, "ASCII only", rows(string=json.dumps), registry
    yield 11, "numbers as written", rows(number=str), registry
    yield 11, "2^53 + 1", rows(('{"n":9007199254740993}',)), registry
    yield 12, "U+0000", rows(('{"s":"a\\u0000b"}',)), registry
    yield 12, "a lone surrogate", rows(('{"s":"\\ud800"}',), string=json.dumps), registry
    yield 12, "1e400", rows(('{"n":1e400}',), number=str), registry
    yield 13, "an unknown signer", rows(change=at(1, signer_kid="rsa-0")), registry
    yield 13, "signer_id wins", rows(change=at(0, signer_id="nobody")), registry
    good = registry["signers"]
    for what, bad in (("ED25519", [{**good[0], "algorithm": "ED25519"}, good[1]]),
                      ("no algorithm", [{**good[0], "algorithm": None}, good[1]]),
                      ("an id used again", [*good, {**good[1], "signer_kid": "ed-1"}]),
                      ("a broken key", [{**good[0], "publicKey": "AAAA"}, good[1]]),
                      ("keys exchanged", [{**good[0], "algorithm": "rsa-sha256"}, good[1]]), ("no signers", [])):
        yield 13, what, rows(), {"signers": bad}


def self_test():
    problems = 0
    for bits, text in NUMBERS.items():
        got = ecmascript_number(repr(struct.unpack(">d", bytes.fromhex(bits))[0]))
        if got != text:
            problems += 1
            print(f"number {bits}: want {text}, got {got}")
    chain = Chain()
    audit = Audit(chain.registry)
    if not audit.check(chain.rows()):
        problems += 1
        print("the valid chain is refused:", {rule: found for rule, found in audit.violations.items() if found})
    hexed = chain.rows(change=lambda n, row: row.update(signature=base64.b64decode(row["signature"]).hex()))
    if not Audit(chain.registry).check(hexed):
        problems += 1
        print("signatures in hex are refused")
    seen = set()
    for rule, what, rows, registry in cases(chain):
        audit = Audit(registry)
        fine = audit.check(rows)
        found = audit.violations[rule]
        verdict = "found" if not fine and found else "MISSED"
        problems += verdict == "MISSED"
        seen.add(rule)
        print(f"{rule:>2}  {verdict:<6}  {what}: {found[0] if found else {r: f for r, f in audit.violations.items() if f}}")
    problems += seen != set(RULES)
    print(f"{len(seen)} rules, {problems} problems")
    return 4 if problems else 0
