"""The connection to a Ray cluster: found, refused in plain words, and let go of."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from typing import Any

from featcache.core.demands import Node
from featcache.core.errors import DependencyError, DeviceError
from featcache.core.machine import CHILD, connected_mark

AUTO, LOCAL = "auto", "local"
_SECONDS = 5.0  # for a port to answer
_TELLS = "print_to_stdstream"
_TOKEN = token_hex(32)  # Ray reads a process's token once
_EXPECTED = (
    "start one with 'ray start --head', name one with --address HOST:PORT, or pass "
    "--address local for one of this machine alone"
)


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Join a cluster, and leave it.

    Parameters
    ----------
    address : str
        ``HOST:PORT``; ``auto`` for what ``RAY_ADDRESS`` or ``ray start`` on this
        machine says; ``local`` for a cluster of this machine that ends with the work.

    Yields
    ------
    module
        ``ray``, connected. A connection that the caller has made before is used, and
        kept.

    Raises
    ------
    DependencyError
        When Ray is not installed.
    DeviceError
        When there is no such cluster, or its versions are others.
    """
    ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    require_cluster(address)
    with _own_token() if address == LOCAL else nullcontext():
        try:
            before = signal.getsignal(signal.SIGTERM)
            _join(ray, address)
            with _hushed(), _ended_by_sigterm(before), _marked():
                yield ray
        finally:
            ray.shutdown()


def nodes_alive(ray: ModuleType) -> list[Node]:
    """Return the machines of the cluster.

    Parameters
    ----------
    ray : module
        Connected.

    Returns
    -------
    list of Node
        Those alive, with all that they have, in use or not.
    """
    return [
        Node.of(node["NodeManagerAddress"], node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def _imported() -> Any:  # noqa: ANN401 - a module
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked
    try:
        import ray
    except ImportError:
        raise DependencyError(
            "--engine ray needs Ray: pip install 'featcache[ray]', the same version on "
            "every node of the cluster"
        ) from None
    return ray


def require_cluster(address: str) -> None:
    """Refuse at once an address at which nobody listens: Ray asks for minutes.

    Parameters
    ----------
    address : str
        As `connected` takes it.

    Raises
    ------
    DependencyError
        When Ray is not installed.
    DeviceError
        When it is no address, or nobody answers.
    """
    if _imported().is_initialized():
        return
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address in (AUTO, LOCAL):
        return
    if "://" in address:
        raise DeviceError(
            f"--address {address}: Ray's client sends all features through a proxy; "
            "run the command on a node of the cluster, or with 'ray job submit', and "
            "pass --address auto"
        )
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 1 << 16):
        raise DeviceError(
            f"--address {address!r}: expected HOST:PORT, such as 10.0.0.1:6379, "
            f"{AUTO} or {LOCAL}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except OSError as error:
        reason = error.strerror or f"nobody answers within {_SECONDS:g} s"
        raise DeviceError(
            f"--address {address}: there is no Ray cluster ({reason}); {_EXPECTED}"
        ) from None


def _join(ray: Any, address: str) -> None:  # noqa: ANN401 - a module
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        quiet["include_dashboard"] = False
    try:
        ray.init(address, namespace="featcache", **quiet)
    except Exception as error:
        # Ray raises what it likes; its own words, without the advice, are the reason.
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        if isinstance(error, ConnectionError) and address == AUTO:
            raise DeviceError(
                f"no Ray cluster is running on this machine; {_EXPECTED}"
            ) from None
        if "ersion mismatch" in str(error):
            said = " ".join(str(error).split())
        raise DeviceError(
            f"--address {address}: the Ray cluster does not let this process join: "
            f"{said or type(error).__name__}"
        ) from None


@contextmanager
def _own_token() -> Iterator[None]:
    """Have a cluster for one command use a secret of its own.

    Without one Ray writes a token into the home folder, which from then on every
    cluster of this user asks for.
    """
    if "RAY_AUTH_MODE" in os.environ or "RAY_AUTH_TOKEN" in os.environ:
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = _TOKEN
    try:
        yield
    finally:
        os.environ.pop("RAY_AUTH_TOKEN", None)
        os.environ.pop("RAY_AUTH_MODE", None)  # Ray sets it


@contextmanager
def _ended_by_sigterm(before: Any) -> Iterator[None]:  # noqa: ANN401 - as signal has it
    """Have SIGTERM end the work in order, with a shell's exit code; Ray's is 15."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ray has put no handler in the place of another
        return
    signal.signal(signal.SIGTERM, _leave if before == signal.SIG_DFL else before)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)


@contextmanager
def _marked() -> Iterator[None]:
    """Let the process that looks after this one know why it may end."""
    if CHILD not in os.environ:
        yield
        return
    mark = connected_mark(Path(os.environ[CHILD]))
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what Ray tells of its machines off stdout, which is for results."""
    worker: Any = import_module("ray._private.worker")
    told = getattr(worker, _TELLS, None)  # private: another Ray may not have it
    if told is not None:
        setattr(worker, _TELLS, _say_nothing)
    try:
        yield
    finally:
        if told is not None:
            setattr(worker, _TELLS, told)


def _say_nothing(*_: object, **__: object) -> None:
    """Stand in for what prints stack traces of machines that are lost."""
