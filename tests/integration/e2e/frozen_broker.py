"""A broker of a test's own that can be frozen (connections stand, and nothing answers) or be away (there is nobody to connect to)."""

import importlib.machinery
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

DEPLOY = pathlib.Path(__file__).resolve().parents[3] / "deploy"
sys.path.append(str(DEPLOY))
import service  # noqa: E402


class FrozenBroker:

    def __init__(self):
        loader = importlib.machinery.SourceFileLoader("broker", str(DEPLOY / "broker"))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("broker", loader))
        loader.exec_module(module)
        directory = tempfile.mkdtemp(prefix="assay-frozen-")
        os.chmod(directory, 0o755)
        self.server = module.Broker(directory)
        self.start()

    def start(self):
        """Where it was before, when it was."""
        self.address = self.server.up(service.identity(os.getpid()), ephemeral=True)
        supervisor = service.read_json(self.server.directory / "pid.json")["pid"]
        self.pid = int(subprocess.run(["pgrep", "-P", str(supervisor)], capture_output=True, text=True, check=True).stdout.split()[0])

    def stop(self):
        self.server.down(now=True)

    def freeze(self):
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def close(self):
        self.thaw()
        self.stop()
        service.remove(self.server.directory)
