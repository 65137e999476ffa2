"""Ray hosts in network namespaces of this machine, each with its own address.

They hang on a switch in a namespace of its own, so nothing of this machine's network is
touched, and a cut cable loses packets without a word, as a real one does.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ray_cluster import OBJECT_STORE, QUIET, gone, kill

RAY = str(Path(sys.executable).with_name("ray"))
# Ray's own values take 65 s to declare a silent host dead.
HASTY = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


class Hosts:
    """Hosts 0 to count - 1 at 10.77.0.1 and so on; a Ray head runs on host 0."""

    def __init__(self, count: int, settings: Mapping[str, str]) -> None:
        self._name = f"fc{os.getpid()}"
        self._count = count
        self._settings = settings
        self._rays: dict[int, subprocess.Popen[bytes]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        # Sockets lie below it, whose paths may have 107 letters.
        self.folder = Path(tempfile.mkdtemp(prefix="fc", dir="/tmp"))

    @property
    def address(self) -> str:
        """Where the head listens."""
        return "10.77.0.1:6379"

    def build(self) -> None:
        """Make the switch, the hosts and their cables."""
        for name in ip("netns", "list").split():
            owner = re.fullmatch(r"fc(\d+)(s|h\d+)", name)
            if owner and not Path(f"/proc/{owner[1]}").exists():
                take_down(name)  # of a test that was killed
        switch = f"{self._name}s"
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for i in range(self._count):
            host, port = self._host(i), f"port{i}"
            ip("netns", "add", host)
            ip("-n", switch, "link", "add", port, "type", "veth", *_end("eth0", host))
            ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", host, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", "eth0", "up")
            # Ray finds its own address by the way to the outside.
            ip("-n", host, "route", "add", "default", "dev", "eth0")

    def start(self, i: int, cpus: float = 1) -> None:
        """Start Ray on a host, or start it again."""
        role = [f"--address={self.address}"]
        if i == 0:
            role = ["--head", "--port=6379", "--include-dashboard=false"]
        with (self.folder / f"ray-{i}.log").open("ab") as log:
            self._rays[i] = self.popen(
                i,
                [
                    *(RAY, "start", "--block", *role, f"--num-cpus={cpus}"),
                    f"--node-ip-address=10.77.0.{i + 1}",
                    f"--object-store-memory={OBJECT_STORE}",
                    f"--temp-dir={self.folder / str(i)}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def popen(
        self, i: int, command: Sequence[str], **options: object
    ) -> subprocess.Popen[bytes]:
        """Start a command on a host, which has a name of its own."""
        named = f'hostname host{i} && exec "$@"'
        environment = {**os.environ, **QUIET}
        if i == 0:
            environment |= self._settings
        environment.pop("RAY_ADDRESS", None)
        process = subprocess.Popen(
            [
                *("ip", "netns", "exec", self._host(i)),
                *("unshare", "--uts", "sh", "-c", named, "sh", *command),
            ],
            env=environment,
            **options,  # type: ignore[call-overload]
        )
        self._started.append(process)
        return process

    def cut(self, i: int) -> None:
        """Pull the host's cable out of the switch."""
        ip("-n", f"{self._name}s", "link", "set", f"port{i}", "down")

    def mend(self, i: int) -> None:
        """Put the cable back."""
        ip("-n", f"{self._name}s", "link", "set", f"port{i}", "up")

    def is_up(self, i: int) -> bool:
        """Return whether Ray still runs on a host."""
        return self._rays[i].poll() is None

    def close(self) -> None:
        """Kill what runs on the hosts, and take them down."""
        for name in [*map(self._host, range(self._count)), f"{self._name}s"]:
            take_down(name)
        for process in self._started:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _host(self, i: int) -> str:
        return f"{self._name}h{i}"


def take_down(name: str) -> None:
    """Kill what runs in a namespace, and delete it, if it is there."""
    pids = [int(pid) for pid in ip("netns", "pids", name, must=False).split()]
    kill(pids)
    gone(pids)
    ip("netns", "delete", name, must=False)


def _end(name: str, host: str) -> list[str]:
    return ["peer", "name", name, "netns", host]


def ip(*words: str, must: bool = True) -> str:
    """Run iproute2's command and return what it prints."""
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if must and ran.returncode:
        raise OSError(f"ip {' '.join(words)}: {ran.stderr.strip()}")
    return ran.stdout


def require_hosts() -> None:
    """Skip a test where there can be no such hosts."""
    pytest.importorskip("ray", reason="no Ray here: pip install 'featcache[ray]'")
    if os.geteuid() != 0:
        pytest.skip("network namespaces are for root")
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("no ip or no unshare here: apt-get install iproute2 util-linux")
    tried = f"fc{os.getpid()}t"
    try:
        ip("netns", "add", tried)
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    ip("netns", "delete", tried)


@contextmanager
def hosts(
    count: int = 3, cpus: float = 1, settings: Mapping[str, str] = HASTY
) -> Iterator[Hosts]:
    """Start Ray on hosts of this machine; taken down whatever happens."""
    require_hosts()
    made = Hosts(count, settings)
    try:
        made.build()
        for i in range(count):
            made.start(i, cpus)
            if i == 0:
                _listens(made)
        yield made
    finally:
        made.close()


def _listens(made: Hosts, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    ask = [RAY, "health-check", "--address", made.address]
    while made.popen(0, ask, stderr=subprocess.DEVNULL).wait():
        if time.monotonic() > end or not made.is_up(0):
            log = (made.folder / "ray-0.log").read_text("utf-8", "replace")
            raise TimeoutError(f"no Ray head: {log}")
        time.sleep(0.2)
