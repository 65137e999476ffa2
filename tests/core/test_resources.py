"""How much memory is free: the machine's, or what a container leaves of it."""

import pytest

from featcache.core.resources import Resources, available_memory

GB = 1 << 30


@pytest.fixture
def machine(tmp_path):
    """/proc and /sys/fs/cgroup of a machine with 8 GiB free."""
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = f"MemTotal: 99999999 kB\nMemAvailable: {8 * GB >> 10} kB\n"
    (tmp_path / "proc/meminfo").write_text(lines)
    return tmp_path


def group(machine, folder, **files):
    """Make a control group."""
    own = machine / "cgroups" / folder
    own.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (own / name.replace("__", ".")).write_text(f"{value}\n")


def found(machine) -> float:
    """Return what is free, in GiB."""
    return available_memory(machine / "proc", machine / "cgroups") / GB


def test_the_machine_tells_where_nothing_limits(machine):
    """No control group at all."""
    assert found(machine) == 8


def test_a_container_of_version_2_limits(machine):
    """Its limit, less what is used but not only cached files; parents count, too."""
    (machine / "proc/self/cgroup").write_text("0::/a/b\n")
    cached = f"inactive_file {GB}"
    group(machine, "a/b", memory__max="max", memory__current=GB)
    group(machine, "a", memory__max=4 * GB, memory__current=2 * GB, memory__stat=cached)
    assert found(machine) == 3


def test_a_container_of_version_1_limits(machine):
    """The group may lie at the root, where its path is the host's."""
    (machine / "proc/self/cgroup").write_text("5:cpu,memory:/host/x\n2:pids:/\n")
    group(
        machine,
        "memory",
        memory__limit_in_bytes=2 * GB,
        memory__usage_in_bytes=GB,
        memory__stat="total_inactive_file 0",
    )
    assert found(machine) == 1


def test_a_limit_that_is_none_is_none(machine):
    """What version 1 writes where there is none."""
    (machine / "proc/self/cgroup").write_text("5:memory:/\n")
    group(
        machine,
        "memory",
        memory__limit_in_bytes=9223372036854771712,
        memory__usage_in_bytes=GB,
        memory__stat="total_inactive_file 0",
    )
    assert found(machine) == 8


def test_where_nothing_tells_there_is_a_guess(tmp_path):
    """Systems without /proc."""
    assert available_memory(tmp_path, tmp_path) > 0


def test_half_of_what_is_free_is_taken_unless_told(monkeypatch):
    """An amount is taken as it is."""
    monkeypatch.setattr("featcache.core.resources.available_memory", lambda: 8 * GB)
    assert Resources().budget() == 4 * GB
    assert Resources(memory=5).budget() == 5
