"""Whether files that are parts of something are all of its parts, and of one thing."""

from collections.abc import Sequence

from featcache.core.errors import CacheMismatchError, CacheNotFoundError
from featcache.core.shards import Shard, ShardRecord
from featcache.core.text import listed, plural, shown
from featcache.store.reader import FeatureCache

_NAMED = 8  # missing parts in the text of an error


def require_whole_set(parts: Sequence[FeatureCache]) -> bool:
    """Refuse some of the parts that 'extract --shard' made, or parts of two sets.

    Parameters
    ----------
    parts : sequence of FeatureCache
        Files that are to be read as one; those that are no parts may be among them.

    Returns
    -------
    bool
        Whether there are such parts.

    Raises
    ------
    CacheMismatchError
        When two are of different counts, or of different states of a folder, or the
        same part.
    CacheNotFoundError
        Naming the parts that are missing.
    """
    found = [
        (part, record)
        for part in parts
        if (record := ShardRecord.read(part.provenance)) is not None
    ]
    if not found:
        return False
    by_index: dict[int, FeatureCache] = {}
    first, of = found[0]
    for part, record in found:
        _require_one_set(part, record, first, of)
        known = by_index.setdefault(record.index, part)
        if known is not part:
            raise CacheMismatchError(
                f"{shown(known.path)} and {shown(part.path)} are both "
                f"{record.shard.words}; leave one of them out"
            )
    missing = [i for i in range(1, of.count + 1) if i not in by_index]
    if missing:
        names = listed((shown(Shard(i, of.count).words) for i in missing), _NAMED)
        raise CacheNotFoundError(
            f"{names} is missing beside {shown(first.path)}; make it with 'featcache "
            f"extract --shard {missing[0]}/{of.count}', or name a single file to do "
            "with that alone"
        )
    return True


def _require_one_set(
    part: FeatureCache, record: ShardRecord, first: FeatureCache, of: ShardRecord
) -> None:
    a, b = shown(first.path), shown(part.path)
    if record.count != of.count:
        raise CacheMismatchError(
            f"{a} is {of.shard.words}, but {b} is {record.shard.words}; leave out "
            "those of one count"
        )
    if record.whole != of.whole:
        raise CacheMismatchError(
            f"{a} and {b} are not of the same state of a folder: of "
            f"{plural(of.images, 'image')} and of {plural(record.images, 'image')}; "
            "run 'featcache extract --shard' again for every part, which computes new "
            "images only"
        )
