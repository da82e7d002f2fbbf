"""Each kind of fault: what it does to a world, and the proof that it was done. A fault that cannot prove itself fails the run."""

import contextlib
import os
import shutil
import signal
import threading
import time

import proxy
from world import HIT_S, SESSION_S, Failed, wait_until

LEAVE_S = 15     # how long a process may take to leave after SIGTERM under fault
SENT_IN_TRANSACTIONS = ("EndTxn", "AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "Produce", "Fetch")

# Kind: (function, what it takes hold of, what the seed chooses). Faults that take hold of the same thing do not overlap.
FAULTS = {}
ABOUT = {}


def fault(takes, **choices):
    def enter(function):
        FAULTS[function.__name__] = (function, takes, choices)
        ABOUT[function.__name__] = function.__doc__
        return function
    return enter


def struck(rule, what, world):
    """The rule's proof, in words."""
    if not proxy.wait(rule, HIT_S, world.loader.check):
        raise Failed(f"{what}: {rule.hits} of {rule.hits + rule.left} came by within {HIT_S} s")
    return f"{rule.hits} × {what}"


# ------------------------------------------------------------------------------------------------------ assay's processes


@fault("service", service=range(3), down_s=(0.0, 2.0))
def process_kill(world, service, down_s):
    """kill -9 of a process, and a new start"""
    member = world.services[service]
    member.expect_alive()
    member.kill()
    time.sleep(down_s)
    member.start()
    return member.name


@fault("service", service=range(3), down_s=(0.0, 1.0))
def process_restart(world, service, down_s):
    """SIGTERM, exit 0 in time, and a new start"""
    member = world.services[service]
    member.expect_alive()
    took_s = member.terminate(LEAVE_S)
    time.sleep(down_s)
    member.start()
    return f"{member.name} left in {took_s:.1f} s"


@fault("service+kafka", service=range(3), request=("AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn"))
def process_restart_unanswered(world, service, request):
    """SIGTERM while no such request is answered, exit 0 in time, and a new start"""
    member = world.services[service]
    with world.kafka.ruled((request,), "mute", 1000, effective=True) as rule:
        wait_until(f"{request} to be asked for", lambda: world.loader.check() or rule.hits >= 4, HIT_S)
        member.expect_alive()
        took_s = member.terminate(LEAVE_S)
    member.start()
    return f"{member.name} left in {took_s:.1f} s, {rule.hits} × {request} never answered"


@fault("service", service=range(3), stopped_s=(0.5, 0.6 * SESSION_S))
def process_pause(world, service, stopped_s):
    """SIGSTOP for less than the session"""
    return pause(world, service, stopped_s)


@fault("service", service=range(3), stopped_s=(SESSION_S + 2, SESSION_S + 5))
def process_zombie(world, service, stopped_s):
    """SIGSTOP for longer than the session, then SIGCONT: it wakes up in a world that moved on"""
    return pause(world, service, stopped_s)


def pause(world, service, stopped_s):
    member = world.services[service]
    member.expect_alive()
    member.signal(signal.SIGSTOP)
    time.sleep(stopped_s)
    member.signal(signal.SIGCONT)
    member.expect_alive()
    return f"{member.name} for {stopped_s:.1f} s"


@fault("service", service=range(3))
def data_wiped(world, service):
    """kill -9, the whole data directory removed, and a new start: every store is folded again"""
    member = world.services[service]
    member.expect_alive()
    member.kill()
    shutil.rmtree(member.data)
    member.start()
    return member.name


@fault("service", full_s=(2.0, 4.0))
def disk_full(world, full_s):
    """the tmpfs under one process's data is filled to the last byte, and emptied again"""
    member = world.services[-1]
    filler = world.small / "filler"
    said = member.log.stat().st_size
    member.expect_alive()
    try:
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * (64 << 10))
        with open(filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0")
        left = os.statvfs(world.small).f_bavail
        if left:
            raise Failed(f"disk_full: {left} blocks are still free")

        def noticed():
            with open(member.log, "rb") as log:
                log.seek(said)
                return b"No space left" in log.read() or not member.alive()

        world.loader.hurry = True  # what the stores have allocated ahead is to be used up
        wait_until(f"{member.name} to run out of disk", noticed, 3 * HIT_S)
        world.loader.hurry = False
        time.sleep(full_s)
    finally:
        world.loader.hurry = False
        filler.unlink(missing_ok=True)
    if not member.alive():
        if member.child.returncode < 0:
            raise Failed(f"{member.name} died of signal {-member.child.returncode} on a full disk")
        member.start()
        return f"{member.name} ended and was started again"
    return f"{member.name} lived on"


@fault("guest", leave=("SIGTERM", "SIGKILL"), stay_s=(3.0, 6.0))
def member_joins_and_leaves(world, leave, stay_s):
    """a further process joins the groups without a static name, works, and leaves (in order, or by kill -9)"""
    guest = world.guest()
    guest.start("--until-end")
    time.sleep(stay_s)
    if not guest.alive():  # everything was folded for a moment, which is how it ends
        if guest.child.returncode:
            guest.expect_alive()
        return f"{guest.name} ended by itself"
    if leave == "SIGTERM":
        guest.terminate(LEAVE_S)
    else:
        guest.kill()
    return f"{guest.name} left by {leave}"


@fault("load")
def producer_kill(world):
    """kill -9 of a producer in mid-batch; then the whole batch is sent again"""
    in_mid_batch(world, lambda child: child.kill())
    return "half a portion sent, then the whole"


@fault("load", stopped_s=(1.0, SESSION_S + 2))
def producer_pause(world, stopped_s):
    """SIGSTOP of a producer in mid-batch, then SIGCONT: it goes on where it was"""
    def pause_it(child):
        child.send_signal(signal.SIGSTOP)
        time.sleep(stopped_s)
        child.send_signal(signal.SIGCONT)

    in_mid_batch(world, pause_it)
    return f"for {stopped_s:.1f} s"


def in_mid_batch(world, strike):
    done = threading.Event()
    world.loader.strike_next = strike, done
    until = time.monotonic() + 2 * HIT_S
    while not done.wait(0.05):
        world.loader.check()
        if time.monotonic() > until:
            raise Failed(f"no producer was at work within {2 * HIT_S} s")


# ------------------------------------------------------------------------------------------------------------- the broker


@fault("broker", down_s=(0.0, 1.0))
def broker_restart(world, down_s):
    """the broker stops in order and starts again"""
    world.broker.down()
    time.sleep(down_s)
    world.start_broker()
    return f"down for {down_s:.1f} s and its own time"


@fault("broker", down_s=(0.0, 1.0))
def broker_crash(world, down_s):
    """kill -9 of the broker, and a new start"""
    world.broker.down(now=True)
    time.sleep(down_s)
    world.start_broker()
    return f"down for {down_s:.1f} s and its own time"


@fault("broker", stopped_s=(1.0, SESSION_S + 2))
def broker_freeze(world, stopped_s):
    """SIGSTOP of the broker: connections stand and nothing answers"""
    pid = world.broker_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(stopped_s)
    finally:
        os.kill(pid, signal.SIGCONT)
    return f"for {stopped_s:.1f} s"


@fault("kafka")
def kafka_connections_cut(world):
    """every connection to the broker is reset at once"""
    cut = world.kafka.cut()
    if cut < 10:
        raise Failed(f"kafka_connections_cut: only {cut} connections were open")
    return f"{cut} connections"


@fault("kafka", delay_s=(0.3, 1.5), count=range(5, 21))
def kafka_answers_delayed(world, delay_s, count):
    """answers of the requests of transactions and of heartbeats are held"""
    with world.kafka.ruled((*SENT_IN_TRANSACTIONS, "Heartbeat"), "delay", count, delay_s=delay_s) as rule:
        return struck(rule, f"held for {delay_s:.1f} s", world)


@fault("kafka", count=range(1, 4))
def kafka_request_torn(world, count):
    """half of a request reaches the broker, then the connection is reset"""
    with world.kafka.ruled(("Produce", "AddPartitionsToTxn", "TxnOffsetCommit", "EndTxn"), "tear", count) as rule:
        return struck(rule, "torn", world)


@fault("kafka", request=("EndTxn", "TxnOffsetCommit", "AddPartitionsToTxn", "AddOffsetsToTxn"))
def kafka_answer_muted(world, request):
    """an answer vanishes and the connection stays: the request runs into its time-out"""
    with world.kafka.ruled((request,), "mute", 1, effective=True) as rule:
        return struck(rule, f"{request} never answered", world)


def losing(request):
    def lost(world, count):
        with world.kafka.ruled((request,), "drop", count, effective=True) as rule:
            return struck(rule, f"{request} answered to nobody", world)

    lost.__name__ = f"lost_answer_{request}"
    lost.__doc__ = f"{request} takes effect, its answer is lost with the connection"
    fault("kafka", count=range(1, 4))(lost)


for name in SENT_IN_TRANSACTIONS:
    losing(name)


# ----------------------------------------------------------------------------------------------------------- the database


def in_commit(world, strike):
    """Passes the next COMMIT on, and strikes in that instant."""
    with world.postgres.ruled(("COMMIT",), "mark", 1, then=strike) as rule:
        return struck(rule, "in mid-COMMIT", world)


def strike_all(pids, signum):
    """Returns those that were there."""
    struck_pids = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
            struck_pids.append(pid)
    return struck_pids


@fault("database", down_s=(0.0, 2.0))
def database_crash_in_commit(world, down_s):
    """immediate stop of PostgreSQL in mid-COMMIT, and a new start"""
    server = world.database_pids()[:1]
    proof = in_commit(world, lambda: strike_all(server, signal.SIGQUIT))
    world.database.down(now=True)
    time.sleep(down_s)
    world.start_database()
    return proof


@fault("database")
def database_backend_kill(world):
    """kill -9 of PostgreSQL's processes in mid-COMMIT: it recovers by itself"""
    # Known before, to be quick; whoever writes the chain by then may have another one.
    known = wait_until("a session of the database", world.database_sessions, HIT_S)
    killed = []
    proof = in_commit(world, lambda: killed.extend(strike_all(known, signal.SIGKILL) or strike_all(world.database_sessions(), signal.SIGKILL)))
    if not killed:
        raise Failed("database_backend_kill: a COMMIT without a session")
    wait_until("the database to recover", lambda: world.database_answers(), 30)
    return proof


@fault("database", stopped_s=(1.0, 4.0))
def database_freeze(world, stopped_s):
    """SIGSTOP of all of PostgreSQL"""
    pids = world.database_pids()
    strike_all(pids, signal.SIGSTOP)
    try:
        time.sleep(stopped_s)
    finally:
        strike_all(pids, signal.SIGCONT)
    return f"{len(pids)} processes for {stopped_s:.1f} s"


@fault("database", count=range(1, 4))
def database_commit_answer_lost(world, count):
    """COMMIT takes effect, its answer is lost with the connection"""
    with world.postgres.ruled(("COMMIT",), "drop", count) as rule:
        return struck(rule, "COMMIT answered to nobody", world)


@fault("database", count=range(1, 4))
def database_connections_reset(world, count):
    """sessions are reset: all that are open, then some in the instant of a COMMIT that never arrives"""
    cut = world.postgres.cut()
    with world.postgres.ruled(("COMMIT",), "tear", count) as rule:
        return f"{cut} open ones, " + struck(rule, "before COMMIT arrived", world)
