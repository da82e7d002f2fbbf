"""TCP proxies before Kafka and PostgreSQL that know where a request, an answer and a COMMIT begin, and lose them when told to.

They rewrite nothing: what is not lost passes byte for byte. A rule says what is lost next and knows when it was.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time

# The Kafka protocol's numbers of the requests that a transactional pipeline sends.
KINDS = {0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator",
         11: "JoinGroup", 12: "Heartbeat", 13: "LeaveGroup", 14: "SyncGroup", 22: "InitProducerId", 24: "AddPartitionsToTxn",
         25: "AddOffsetsToTxn", 26: "EndTxn", 28: "TxnOffsetCommit"}
ERROR_AFTER_THROTTLE = ("AddOffsetsToTxn", "EndTxn")  # their answer is: correlation id, throttle time, error code
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
CHUNK = 1 << 16


class Rule:
    """What is to happen to the next `count` frames of some kinds; safe to look at from any thread."""

    def __init__(self, kinds, action, count, delay_s=0.0, effective=False, then=None):
        self.kinds, self.action, self.left, self.delay_s, self.effective = frozenset(kinds), action, count, delay_s, effective
        self.then = then  # called at each hit, in that instant
        self.hits = 0
        self.done = threading.Event()

    def hit(self):
        self.hits += 1
        self.left -= 1
        if self.then:
            self.then()
        if self.left <= 0:
            self.done.set()


class Proxy:
    """One listening port before one server, in a thread with a loop of its own."""

    def __init__(self, target_port):
        self.target_port = target_port
        self.rules = []
        self.frames = {}         # kind -> how many passed or were lost
        self._open = set()       # pairs of transports
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._accept, sock=self._listener, limit=1 << 20))
        self._loop.run_forever()

    def close(self):
        self._call(self._shut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _call(self, function):
        """Runs it in the proxy's thread and returns what it returns."""
        done, box = threading.Event(), []

        def run():
            try:
                box.append(function())
            finally:
                done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(30) or not box:
            raise RuntimeError("the proxy's thread does not answer")
        return box[0]

    def _shut(self):
        self._listener.close()
        return self._cut()

    def add(self, rule):
        self._call(lambda: self.rules.append(rule))
        return rule

    def remove(self, rule):
        self._call(lambda: self.rules.remove(rule) if rule in self.rules else None)

    @contextlib.contextmanager
    def ruled(self, *args, **options):
        """A rule for as long as the block lasts."""
        rule = self.add(Rule(*args, **options))
        try:
            yield rule
        finally:
            self.remove(rule)

    def cut(self):
        """Resets every connection; returns how many there were."""
        return self._call(self._cut)

    def _cut(self):
        pairs = list(self._open)
        for pair in pairs:
            self._reset(pair)
        return len(pairs)

    def _reset(self, pair):
        """Both sides see a reset, not an end: what was under way is simply gone."""
        self._open.discard(pair)
        for writer in pair:
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def _taken(self, kind, action, answer=None):
        """The first rule that wants this frame."""
        for rule in self.rules:
            if rule.left > 0 and rule.action == action and kind in rule.kinds and (not rule.effective or effective(kind, answer)):
                return rule
        return None

    async def _accept(self, reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port, limit=1 << 20)
        except OSError:
            self._reset((writer,))
            return
        pair = (writer, server_writer)
        self._open.add(pair)
        state = self.new_state()
        flows = [asyncio.ensure_future(self._flow(pair, self.requests(state, reader, server_writer, pair))),
                 asyncio.ensure_future(self._flow(pair, self.answers(state, server_reader, writer, pair)))]
        await asyncio.wait(flows, return_when=asyncio.ALL_COMPLETED)

    async def _flow(self, pair, flow):
        """One direction; when it ends, however it ends, so does the connection."""
        try:
            await flow
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(pair)
            for writer in pair:
                with contextlib.suppress(Exception):
                    writer.close()

    async def lose(self, rule, pair):
        """Takes the frame out; and unless it is to vanish in silence, the connection with it."""
        rule.hit()
        if rule.delay_s:
            await asyncio.sleep(rule.delay_s)
        self._reset(pair)
        raise OSError("cut by rule")


def effective(kind, answer):
    """Whether the broker did what it was asked: what the answer to be lost would have said."""
    if kind not in ERROR_AFTER_THROTTLE:
        return True
    return len(answer) >= 10 and struct.unpack_from(">h", answer, 8)[0] == 0


class KafkaProxy(Proxy):
    """Actions: `drop` (the answer is lost and the connection reset), `mute` (the answer is lost, the connection stays), `delay`
    (the answer is held), `tear` (half of the request is passed on, then a reset)."""

    def new_state(self):
        return {}  # correlation id -> kind of request

    async def requests(self, state, reader, writer, pair):
        while True:
            head = await reader.readexactly(4)
            (size,) = struct.unpack(">i", head)
            frame = await reader.readexactly(size)
            key, _, correlation = struct.unpack_from(">hhi", frame)
            kind = KINDS.get(key, f"request {key}")
            self.frames[kind] = self.frames.get(kind, 0) + 1
            state[correlation] = kind
            torn = self._taken(kind, "tear")
            if torn:
                writer.write(head + frame[:size // 2])
                await writer.drain()
                await self.lose(torn, pair)
            writer.write(head + frame)
            await writer.drain()

    async def answers(self, state, reader, writer, pair):
        while True:
            head = await reader.readexactly(4)
            (size,) = struct.unpack(">i", head)
            frame = await reader.readexactly(size)
            kind = state.pop(struct.unpack_from(">i", frame)[0], None)
            dropped = self._taken(kind, "drop", frame)
            if dropped:
                await self.lose(dropped, pair)
            muted = self._taken(kind, "mute", frame)
            if muted:
                muted.hit()
                continue
            held = self._taken(kind, "delay", frame)
            if held:
                held.hit()
                await asyncio.sleep(held.delay_s)
            writer.write(head + frame)
            await writer.drain()


class PostgresProxy(Proxy):
    """Actions on the kind "COMMIT": `drop` (passed on, its answer lost, a reset), `tear` (never passed on, a reset), `mark` (passed
    on; what the rule calls then can act in that instant)."""

    def new_state(self):
        return {"losing": None}

    async def requests(self, state, reader, writer, pair):
        while True:  # untyped messages, until the one that names the protocol
            head = await reader.readexactly(8)
            size, code = struct.unpack(">ii", head)
            writer.write(head + await reader.readexactly(size - 8))
            await writer.drain()
            if code not in (SSL_REQUEST, GSS_REQUEST):
                break
        while True:
            head = await reader.readexactly(5)
            size = struct.unpack_from(">i", head, 1)[0] - 4
            # Rows of COPY are many and of no interest.
            body = await reader.readexactly(size)
            kind = "COMMIT" if head[:1] in b"QP" and b"COMMIT" in body[:64].upper() else head[:1].decode("latin-1")
            self.frames[kind] = self.frames.get(kind, 0) + 1
            torn = self._taken(kind, "tear")
            if torn:
                await self.lose(torn, pair)
            state["losing"] = self._taken(kind, "drop")
            marked = self._taken(kind, "mark")
            writer.write(head + body)
            await writer.drain()
            if marked:
                marked.hit()

    async def answers(self, state, reader, writer, pair):
        while True:
            data = await reader.read(CHUNK)
            if not data:
                return
            if state["losing"]:
                await self.lose(state["losing"], pair)
            writer.write(data)
            await writer.drain()


def wait(rule, timeout_s, alive=lambda: None):
    """Waits until the rule has done all that it was asked for; false when it has not."""
    until = time.monotonic() + timeout_s
    while not rule.done.wait(0.05):
        alive()
        if time.monotonic() > until:
            return False
    return True
