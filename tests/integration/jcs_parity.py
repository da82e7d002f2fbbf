"""Compares our RFC 8785 form with implementations that nobody here wrote: Node.js for numbers and grammar, rfc8785 of PyPI
for whole documents. Usage: jcs_parity.py JCS_DRIVER; exit 0 when all agree. jcs_setup.sh installs both."""
import json
import math
import pathlib
import random
import struct
import subprocess
import sys

import rfc8785

DOCUMENTS = 20_000
POINTS = [0x00, 0x01, 0x08, 0x09, 0x0A, 0x0C, 0x0D, 0x1F, 0x20, 0x22, 0x2F, 0x30, 0x39, 0x41, 0x5C, 0x61, 0x7F, 0x80, 0xE9,
          0x7FF, 0x800, 0x2028, 0x20AC, 0xD7FF, 0xE000, 0xFB33, 0xFFFD, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF]


def text(rng):
    return "".join(chr(rng.choice(POINTS)) for _ in range(rng.randrange(6)))


def number(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randrange(-(2**53) + 1, 2**53)
    if kind == 1:
        return round(rng.uniform(-1e6, 1e6), rng.randrange(8))
    value = struct.unpack("<d", rng.randbytes(8))[0]
    return value if math.isfinite(value) else -0.0


def document(rng, depth):
    kind = rng.randrange(7 if depth > 0 else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind in (1, 2):
        return number(rng)
    if kind in (3, 4):
        return text(rng)
    if kind == 5:
        return [document(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {text(rng): document(rng, depth - 1) for _ in range(rng.randrange(8))}


def main():
    driver = sys.argv[1]
    rng = random.Random(8785)
    documents = [{"d": document(rng, 5), text(rng): document(rng, 3)} for _ in range(DOCUMENTS)]
    lines = [json.dumps(d, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (" , ", " : ")])) for d in documents]
    run = subprocess.run([driver, "document"], input="\n".join(lines).encode(), stdout=subprocess.PIPE, check=True)
    answers = run.stdout.split(b"\n")[:-1]
    if len(answers) != len(documents):
        sys.exit(f"asked {len(documents)} documents, got {len(answers)} answers")
    differ = 0
    for line, expected, actual in zip(lines, map(rfc8785.dumps, documents), answers):
        if expected != actual:
            differ += 1
            if differ <= 10:
                print(f"document {line}\n  rfc8785 says {expected!r}\n  we say       {actual!r}", file=sys.stderr)
    print(f"{len(documents)} documents: {differ} differ")
    numbers = subprocess.run(["node", str(pathlib.Path(__file__).with_name("jcs_numbers.mjs")), driver])
    sys.exit(0 if differ == 0 and numbers.returncode == 0 else 1)


if __name__ == "__main__":
    main()
