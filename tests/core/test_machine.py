"""The machine: as many cores as this process may use."""

import os

import pytest

from featcache.core.machine import cores


@pytest.mark.parametrize(
    ("count", "expected"),
    [pytest.param(6, 6, id="known"), pytest.param(None, 1, id="unknown")],
)
def test_a_system_without_affinity_is_asked_for_all_cores(monkeypatch, count, expected):
    """macOS and Windows tell no more."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cores() == expected


def test_a_process_may_be_kept_to_some_cores(monkeypatch):
    """As a container or ``taskset`` does."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5}, raising=False)
    assert cores() == 2
