"""Reading ahead: what comes over a network is asked for before it is needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial

from featcache.core.locations import Location
from featcache.vision.reading import is_remote

_AHEAD = 16  # images that are on their way, for each worker

Read = Callable[[], bytes]


@contextmanager
def reading(
    read: Callable[[Location], bytes], files: Sequence[Location]
) -> Iterator[Iterator[Read]]:
    """Give what reads each image; those of stores are read ahead, on threads.

    Parameters
    ----------
    read : callable
        From where an image lies to its bytes.
    files : sequence of Path, Member, Cell or Object
        In the order in which they are wanted.

    Yields
    ------
    iterator of callable
        One for each; it waits where an image is on its way, and the callable returns
        the bytes, or raises what ``read`` does.
    """
    if not any(map(is_remote, files)):
        yield (partial(read, file) for file in files)
        return
    pool = ThreadPoolExecutor(_AHEAD, "featcache-requests")
    try:
        requests = (partial(pool.submit, read, file) for file in files)
        yield _ahead(requests)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ahead(requests: Iterable[Callable[[], Future[bytes]]]) -> Iterator[Read]:
    pending: deque[Future[bytes]] = deque()
    for request in requests:
        pending.append(request())
        if len(pending) > _AHEAD:
            yield _arrived(pending.popleft())
    while pending:
        yield _arrived(pending.popleft())


def _arrived(future: Future[bytes]) -> Read:
    wait([future])
    return future.result
