// Compares our number printing, number reading and JSON grammar with ECMAScript's own, as Node.js has them.
// Usage: node jcs_numbers.mjs JCS_DRIVER; exit 0 when all agree.
import { spawnSync } from "node:child_process";

const driver = process.argv[2];

// xorshift128: the same numbers in every run, whatever the version of Node.
const s = new Uint32Array([0x8785, 0x12345678, 0x9abcdef0, 0x0badcafe]);
function word() {
  let t = s[3];
  t ^= t << 11;
  t ^= t >>> 8;
  s[3] = s[2];
  s[2] = s[1];
  s[1] = s[0];
  s[0] = t ^ s[0] ^ (s[0] >>> 19);
  return s[0];
}
const below = (n) => word() % n;

const view = new DataView(new ArrayBuffer(8));
function fromWords(high, low) {
  view.setUint32(0, high);
  view.setUint32(4, low);
  return view.getFloat64(0);
}
function ulps(value, steps) {
  view.setFloat64(0, value);
  view.setBigInt64(0, view.getBigInt64(0) + BigInt(steps));
  return view.getFloat64(0);
}

function ask(mode, input) {
  const run = spawnSync(driver, [mode], { input, maxBuffer: 1 << 30 });
  if (run.status !== 0) throw new Error(`${driver} ${mode}: exit ${run.status} ${run.error ?? ""} ${run.stderr}`);
  const lines = run.stdout.toString("utf8").split("\n");
  lines.pop();
  return lines;
}

let failures = 0;
function check(what, input, expected, actual) {
  if (expected === actual) return;
  if (++failures <= 20) console.error(`${what}: ${input}: ECMAScript says ${expected}, we say ${actual}`);
}

// 1. Printing.
const values = [];
const add = (x) => { if (Number.isFinite(x)) values.push(x); };
for (let i = 0; i < 800_000; ++i) add(fromWords(word(), word()));                                    // any bit pattern
for (let e = -324; e <= 308; ++e) for (let k = -40; k <= 40; ++k) add(ulps(Number(`1e${e}`), k));      // powers of ten
for (let e = -1074; e <= 1023; ++e) for (let k = -5; k <= 5; ++k) add(ulps(2 ** e, k));               // powers of two
for (let i = 0; i < 100_000; ++i) add((2 ** 53 - 50_000 + i) * (i % 2 ? 1 : -1));                      // integers near 2^53
for (let i = 0; i < 100_000; ++i) add(fromWords(word() & 0x800fffff, word()));                        // subnormals
for (let i = 0; i < 60_000; ++i) add(below(1e9) / 10 ** below(12));                                   // what people write
for (let k = 0; k < 3000; ++k) { add(fromWords(0, k)); add(ulps(Number.MAX_VALUE, -k)); }
if (values.length < 1_000_000) throw new Error(`only ${values.length} doubles`);
const printed = ask("print", Buffer.from(Float64Array.from(values).buffer));
if (printed.length !== values.length) throw new Error(`asked ${values.length} doubles, got ${printed.length} answers`);
for (let i = 0; i < values.length; ++i) check("print", values[i], JSON.stringify(values[i]), printed[i]);

// 2. Reading: long and short decimals, at and around the halfway points.
const texts = [];
for (let i = 0; i < 60_000; ++i) texts.push(values[below(values.length)].toPrecision(1 + below(40)));
for (let i = 0; i < 60_000; ++i) texts.push(values[below(values.length)].toExponential(below(20)));
for (let i = 0; i < 60_000; ++i) {
  let digits = String(1 + below(9));
  for (let n = below(30); n > 0; --n) digits += below(10);
  if (below(2)) digits += "." + String(below(1e9)) + "0".repeat(below(5));
  texts.push((below(2) ? "-" : "") + digits + (below(2) ? `e${below(700) - 350}` : ""));
}
for (let i = 0; i < 20_000; ++i) {
  const m = 2n ** 53n + BigInt(below(2 ** 31)) * 2n + 1n;  // exactly between two doubles, and one away from there
  const shift = BigInt(below(60));
  texts.push(((m << shift) + BigInt(below(3) - 1)).toString());
}
const read = ask("read", texts.join("\n") + "\n");
if (read.length !== texts.length) throw new Error(`asked ${texts.length} numbers, got ${read.length} answers`);
for (let i = 0; i < texts.length; ++i) {
  const value = Number(texts[i]);
  view.setFloat64(0, value);
  const bits = view.getBigUint64(0).toString(16).padStart(16, "0");
  if (Number.isFinite(value)) check("read", texts[i], bits, read[i]);
  else check("read", texts[i], "refused", read[i].slice(0, 7));
}

// 3. Grammar: broken documents are taken by both or by neither.
const tokens = [
  "{", "}", "[", "]", ",", ":", '"', '"a"', '"b"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\n"', "\\", "\\u12",
  "true", "false", "null", "nul",
  "1", "-0", "0", "1.5", "1e3", "1e400", "01", "-", ".", "+", "e", "E-2", "NaN", " ", "\t", "é", "\u0001",
];
function random(depth) {
  switch (below(depth > 0 ? 8 : 5)) {
    case 0: return "null";
    case 1: return below(2) ? "true" : "false";
    case 2: return String(values[below(values.length)]);
    case 3: case 4: return JSON.stringify(["", "a", "é\n", "\u0000", "😀"][below(5)]);
    case 5: case 6: return "[" + Array.from({ length: below(4) }, () => random(depth - 1)).join(below(2) ? "," : " , ") + "]";
    default: return "{" + Array.from({ length: below(4) }, (_, i) => `"k${i}" : ${random(depth - 1)}`).join(",") + "}";
  }
}
const documents = [];
for (let i = 0; i < 80_000; ++i) {
  let text = i % 4 ? random(4) : "";
  for (let n = i % 4 ? below(4) : 1 + below(8); n > 0; --n) {
    const at = below(text.length + 1);
    text = text.slice(0, at) + tokens[below(tokens.length)] + text.slice(at + (i % 4 ? below(3) : 0));
  }
  documents.push(Buffer.from(text).toString());  // a cut may have halved a surrogate pair, which UTF-8 cannot carry
}
function holdsWhatWeRefuse(value) {
  if (typeof value === "number") return !Number.isFinite(value);
  if (typeof value === "string") return /\p{Surrogate}/u.test(value);
  if (value === null || typeof value !== "object") return false;
  return Object.entries(value).some(([name, member]) => holdsWhatWeRefuse(name) || holdsWhatWeRefuse(member));
}
const verdicts = ask("document", documents.join("\n") + "\n");
if (verdicts.length !== documents.length) throw new Error(`asked ${documents.length} documents, got ${verdicts.length} answers`);
let taken = 0, refused = 0;
for (let i = 0; i < documents.length; ++i) {
  const ours = !verdicts[i].startsWith("refused: ");
  if (verdicts[i].endsWith("stands twice")) continue;  // ECMAScript lets the last one win
  let theirs = true, parsed;
  try { parsed = JSON.parse(documents[i]); } catch { theirs = false; }
  if (theirs && holdsWhatWeRefuse(parsed)) theirs = false;
  check("grammar", JSON.stringify(documents[i]), theirs ? "taken" : "refused", ours ? "taken" : "refused");
  if (ours) ++taken;
  else ++refused;
}
if (taken < 10_000 || refused < 10_000) throw new Error(`the documents are one-sided: ${taken} taken, ${refused} refused`);

const asked = `${values.length} doubles printed, ${texts.length} numbers read, ${documents.length} documents judged`;
console.log(`${asked}: ${failures} differ`);
process.exit(failures === 0 ? 0 : 1);
