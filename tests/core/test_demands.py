"""What an actor asks of a cluster: small enough to fit, large enough to use it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.demands import Demand, Node, suitable
from featcache.core.errors import DeviceError

cpus = st.integers(1, 128).map(float)
clusters = st.lists(cpus, min_size=1, max_size=6).map(
    lambda owned: [Node(f"10.0.0.{i}", cpu) for i, cpu in enumerate(owned)]
)


@given(clusters)
def test_an_actor_always_fits_and_little_is_left_over(nodes):
    """At least one has room, and more than nine tenths of the CPUs are asked for."""
    demand = suitable(nodes, "auto")
    room = demand.room(nodes)
    assert room >= 1
    assert 1 <= demand.cpus <= 8
    assert room * demand.cpus >= 0.9 * sum(node.cpus for node in nodes)


@given(st.floats(0.01, 64), clusters)
def test_what_has_room_is_what_each_node_holds(wanted, nodes):
    """No actor is spread over two machines."""
    demand = Demand(wanted)
    assert demand.room(nodes) == sum(demand.room([node]) for node in nodes)
    for node in nodes:
        assert demand.room([node]) * wanted <= node.cpus + wanted * 1e-5


@pytest.mark.parametrize(
    ("owned", "expected"),
    [
        ([(1, 0), (1, 0)], Demand(1.0)),
        ([(2, 0), (64, 0)], Demand(8.0)),
        ([(4, 0), (4, 0)], Demand(4.0)),
        ([(0, 0), (10, 0)], Demand(5.0)),
        ([(0.5, 0)], Demand(0.5)),
        ([(0, 0)], Demand(1.0)),
        ([], Demand(1.0)),
        ([(8, 0), (64, 8), (48, 8)], Demand(6.0, 1)),
        ([(2, 4)], Demand(0.5, 1)),
        ([(128, 1)], Demand(8.0, 1)),
        ([(0, 1)], Demand(1.0, 1)),
    ],
)
def test_examples(owned, expected):
    """A GPU where there is one; its share of the CPUs; never more than 8."""
    nodes = [Node("n", cpu, gpu) for cpu, gpu in owned]
    assert suitable(nodes, "auto") == expected
    assert suitable(nodes, "cpu", 2.5) == Demand(2.5)


def test_room_on_gpus_is_bounded_by_both():
    """By the GPUs of a machine, and by its CPUs."""
    nodes = [Node("a", 4, 8), Node("b", 64, 2), Node("c", 64)]
    assert Demand(1, 1).room(nodes) == 4 + 2
    assert Demand(0.1).room([Node("a", 1)]) == 10


def test_threads_and_words():
    """A fraction of a CPU is still a thread."""
    assert [Demand(c).threads for c in (0.2, 1, 2.9, 8)] == [1, 1, 2, 8]
    assert [str(Demand(c)) for c in (0.5, 1, 2)] == ["0.5 CPUs", "1 CPU", "2 CPUs"]
    assert str(Demand(2, 1)) == "2 CPUs and a GPU"


def test_gpus_that_nobody_has():
    """What there is, and what to do."""
    with pytest.raises(DeviceError, match=r"no machine .* GPU .*2 nodes.*--device cpu"):
        suitable([Node("a", 4), Node("b", 4)], "cuda")


def test_a_node_as_ray_describes_it():
    """What is not named is not there."""
    said = {"CPU": 4.0, "memory": 1e9, "node:10.0.0.1": 1.0}
    assert Node.of("10.0.0.1", said) == Node("10.0.0.1", 4.0, 0.0)
