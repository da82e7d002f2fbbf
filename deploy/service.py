"""Starts a local server under a supervisor that stops it when asked, or when the process it serves has gone."""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """What was attempted, on what, and what came back."""


# A process is its pid and its start: a pid alone may belong to somebody else by now.

def identity(pid):
    """Identifies a living process, or returns None."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": pid, "start": int(fields[19]), "boot": boot}


def open_process(known):
    """Returns a pidfd of exactly that process, or None when it has gone."""
    try:
        fd = os.pidfd_open(known["pid"])
    except ProcessLookupError:
        return None
    if identity(known["pid"]) == known:  # the fd was taken first, so what it names is what was compared
        return fd
    os.close(fd)
    return None


def wait_gone(fd, timeout_s):
    return bool(select.select([fd], [], [], timeout_s)[0])


def die_with_parent(signum):
    parent = os.getpid()

    def before_exec():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


# Ports

def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no owner
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port():
    """Draws a port below the range that outgoing connections take theirs from."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(20000, 32000)
        if is_free(port):
            return port
    raise Failure("no free port between 20000 and 32000 on 127.0.0.1")


# Files

@contextlib.contextmanager
def locked(path):
    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def write_json(path, value):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    os.chmod(temporary, 0o600)
    temporary.rename(path)


def read_json(path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def tail(path, lines=15):
    try:
        return "\n".join("  " + line for line in path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "  (no output)"


class Service:
    """A server in a directory. A kind of server says how it is laid out, started and asked whether it is well."""

    name = ""
    port_count = 1
    stop_signal = signal.SIGTERM   # ends it in order
    death_signal = signal.SIGKILL  # sent by the kernel when the supervisor dies
    start_timeout_s = 120
    user = None                    # the server runs as this uid and gid, when set

    def __init__(self, directory):
        self.directory = pathlib.Path(directory).absolute()
        self.output = self.directory / f"{self.name}.out"

    def prepare(self, ports):
        """Lays out what the server needs; returns its command line."""
        raise NotImplementedError

    def healthy(self, ports):
        """True when this very server does its work; False when it does not yet."""
        raise NotImplementedError

    def address(self, ports):
        raise NotImplementedError

    def up(self, watch=None, ephemeral=False):
        """Starts the server, unless it runs, and returns its address once it is well.

        With `watch`, it ends when that process does; `ephemeral` removes the directory then.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with locked(self.directory / "lock"):
            ports = read_json(self.directory / "ports.json")
            if ports and self._running():
                return self.address(ports)
            if not ports or not all(map(is_free, ports)):
                ports = [free_port() for _ in range(self.port_count)]
            for attempt in range(5):
                if self._start(ports, watch, ephemeral):
                    return self.address(ports)
                if attempt < 4 and not all(map(is_free, ports)):  # somebody was quicker
                    ports = [free_port() for _ in range(self.port_count)]
                    continue
                raise Failure(f"starting {self.name} in {self.directory}: it ended; its last words were\n{tail(self.output)}")

    def down(self, now=False):
        """Stops the server, at once or in order, and waits until it has gone."""
        if not self.directory.is_dir():
            return
        with locked(self.directory / "lock"):
            self._stop(now)

    def restart(self, now=False):
        """Stops and starts it on the same port, under the same watch."""
        spec = read_json(self.directory / "spec.json")
        if not spec:
            raise Failure(f"restarting {self.name} in {self.directory}: it was never up")
        self.down(now)
        return self.up(spec["watch"], spec["ephemeral"])

    def _running(self):
        known = read_json(self.directory / "pid.json")
        return known is not None and identity(known["pid"]) == known

    def _stop(self, now):
        known = read_json(self.directory / "pid.json")
        fd = open_process(known) if known else None
        if fd is not None:
            signal.pidfd_send_signal(fd, signal.SIGINT if now else signal.SIGTERM)
            if not wait_gone(fd, 40):
                raise Failure(f"stopping {self.name} in {self.directory}: its supervisor did not end within 40 s")
            os.close(fd)
        (self.directory / "pid.json").unlink(missing_ok=True)

    def _start(self, ports, watch, ephemeral):
        argv = self.prepare(ports)
        spec = {"argv": argv, "user": self.user, "watch": watch, "ephemeral": ephemeral, "output": str(self.output),
                "directory": str(self.directory), "stop": int(self.stop_signal), "death": int(self.death_signal)}
        write_json(self.directory / "spec.json", spec)
        with open(self.directory / "supervisor.out", "ab") as log:
            supervisor = subprocess.Popen([sys.executable, "-B", __file__, str(self.directory / "spec.json")],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
        known = identity(supervisor.pid)
        if known:
            write_json(self.directory / "pid.json", known)
        deadline = time.monotonic() + self.start_timeout_s
        while supervisor.poll() is None:
            if self.healthy(ports):
                write_json(self.directory / "ports.json", ports)
                return True
            if time.monotonic() > deadline:
                self._stop(now=True)
                raise Failure(f"starting {self.name} in {self.directory}: not well after {self.start_timeout_s} s; "
                              f"its last words were\n{tail(self.output)}")
            time.sleep(0.1)
        return False


def supervise(spec_path):
    """Runs the server until it ends, a signal asks for its end, or the watched process has gone."""
    spec = json.loads(pathlib.Path(spec_path).read_text())
    wakeup, notify = os.pipe()
    os.set_blocking(notify, False)
    signal.set_wakeup_fd(notify)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(signum, lambda *_: None)

    watched = None
    if spec["watch"]:
        watched = open_process(spec["watch"])
        if watched is None:
            return
    user, group = spec["user"] or (None, None)
    with open(spec["output"], "wb") as output:
        server = subprocess.Popen(spec["argv"], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd="/",
                                  user=user, group=group, extra_groups=None if user is None else [],
                                  preexec_fn=die_with_parent(spec["death"]))
    caller_gone = False
    asked = None
    while server.poll() is None and asked is None:
        ready, _, _ = select.select([wakeup] + ([watched] if watched is not None else []), [], [])
        if watched in ready:
            caller_gone, asked = True, spec["death"]
        elif wakeup in ready:
            signals = os.read(wakeup, 64)
            if signal.SIGINT in signals:
                asked = spec["death"]
            elif signal.SIGTERM in signals:
                asked = spec["stop"]
    if asked is not None:
        server.send_signal(asked)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    if caller_gone and spec["ephemeral"]:
        remove(spec["directory"])


def remove(directory):
    """Removes a service's directory and what it keeps elsewhere."""
    data = pathlib.Path(directory) / "data"
    if data.is_symlink():
        shutil.rmtree(data.resolve(), ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def command_line(kind, usage, extra=None):
    """Runs `up DIR [--watch PID] [--ephemeral]`, `down DIR [--now]`, `restart DIR [--now]` of one kind of service."""
    words = sys.argv[1:]
    try:
        if extra and words and words[0] in extra:
            return extra[words[0]](words[1:])
        if len(words) < 2 or words[0] not in ("up", "down", "restart"):
            print(usage, file=sys.stderr)
            return 2
        service, flags = kind(words[1]), words[2:]
        if words[0] == "up":
            watch, ephemeral = None, False
            while flags:
                flag = flags.pop(0)
                if flag == "--ephemeral":
                    ephemeral = True
                elif flag == "--watch" and flags and flags[0].isdigit():
                    watch = identity(int(flags.pop(0)))
                    if watch is None:
                        raise Failure(f"starting {service.name}: the process to watch does not run")
                else:
                    print(usage, file=sys.stderr)
                    return 2
            print(f"{service.variable}={service.up(watch, ephemeral)}")
        elif set(flags) - {"--now"}:
            print(usage, file=sys.stderr)
            return 2
        elif words[0] == "down":
            service.down("--now" in flags)
        else:
            print(f"{service.variable}={service.restart('--now' in flags)}")
        return 0
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        print(f"{kind.name}: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    supervise(sys.argv[1])
