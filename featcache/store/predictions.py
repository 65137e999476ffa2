"""Files of predictions: a line for each image, kept as it comes, found again later.

CSV and JSON lines are appended to, and what a killed process left of a line is cut off.
Parquet has its index at its end, so that a killed writer leaves nothing that opens:
its rows are JSON lines in ``NAME.parquet.partial`` until the work is done.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from featcache.core.errors import DataError, SpecError
from featcache.core.libraries import optional
from featcache.core.predictions import Entry, ImageFile
from featcache.core.text import shown
from featcache.store.files import (
    replacing,
    require_file_name,
    storing,
    sync_folder,
    write_at,
)
from featcache.store.lock import writing
from featcache.store.prediction_lines import KINDS, TAIL, Lines, described

_GROUP = 16_384  # rows of one group of a Parquet file
_BUSY = "wait for it to end, or choose another file with --out"
_REMEDY = "choose another file with --out, or pass --overwrite"


class PredictionFile:
    """A file of predictions, open for more of them.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.jsonl`` or ``.parquet``.
    model : str
        Fingerprint of the model; each row carries it.
    top : int
        K, classes of each image.
    overwrite : bool
        Whether what is there is removed first.

    Raises
    ------
    SpecError
        When the name has another ending.
    DependencyError
        When Parquet is wanted and pyarrow is not there.
    StorageError
        On entering, when the file cannot be written.
    CacheBusyError
        On entering, when another process writes it.
    DataError
        On entering, when the file holds something else, or what another model said.
    """

    def __init__(
        self, path: Path, model: str, top: int, *, overwrite: bool = False
    ) -> None:
        require_file_name(path)
        kind = KINDS.get(path.suffix.lower())
        if kind is None:
            raise SpecError(
                f"{shown(path)} must end with {', '.join(KINDS)}, which says what is "
                "written"
            )
        self.path = path
        self._model, self._top, self._overwrite = model, top, overwrite
        self._lines: Lines = kind(model, top)
        self._parquet: Any = None
        self._journal = path
        if path.suffix.lower() == ".parquet":
            self._parquet = optional("pyarrow.parquet", "Parquet", extra="export")
            self._journal = path.with_name(f"{path.name}.partial")
        self._known: dict[str, tuple[int, int, bool]] = {}
        self._added = self._forgetful = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(writing(self.path, remedy=_BUSY))
            with storing(self.path):
                self._begin()
                self._file = stack.enter_context(self._journal.open("r+b", 0))
                self._end = self._file.seek(0, os.SEEK_END)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def is_known(self, file: ImageFile) -> bool:
        """Tell whether the file has a row of this image as it is now.

        Parameters
        ----------
        file : ImageFile
            Any.

        Returns
        -------
        bool
            False for an image that has changed since.
        """
        known = self._known.get(shown(file.name))
        return known is not None and known[:2] == (file.size, file.mtime_ns)

    def is_bad(self, file: ImageFile) -> bool:
        """Tell whether the file says that an image could not be used.

        Parameters
        ----------
        file : ImageFile
            Any.

        Returns
        -------
        bool
            True where its row has an error and the image is the same.
        """
        return self.is_known(file) and self._known[shown(file.name)][2]

    def forget(self) -> None:
        """Know no image any more, nor those to come: a third of a kilobyte each."""
        self._known.clear()
        self._forgetful = True

    def append(self, entries: Sequence[Entry]) -> None:
        """Write rows behind the others, on the disk when this returns.

        Parameters
        ----------
        entries : sequence of Entry
            In order.

        Raises
        ------
        StorageError
            When the disk is full or fails.
        """
        if not entries:
            return
        data = "".join(map(self._lines.line, entries)).encode()
        with storing(self.path):
            try:
                write_at(self._file.fileno(), data, self._end)
                os.fsync(self._file.fileno())
            except BaseException:  # a full disk, or Ctrl-C: no part of a line stays
                os.ftruncate(self._file.fileno(), self._end)
                raise
        self._end += len(data)
        self._added = True
        for entry in () if self._forgetful else entries:
            self._note(entry)

    def entries(self) -> Iterator[Entry]:
        """Yield every row of the file; memory stays bounded.

        Yields
        ------
        Entry
            In the order of the rows.
        """
        with self._journal.open("rb") as file:
            for line in islice(file, bool(self._lines.header), None):
                yield self._lines.entry(line.decode())[0]

    def finish(self) -> None:
        """Give a Parquet file its final form; others have it already.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        if self._parquet is None:
            return
        if self._added or not self.path.exists():
            self._write_parquet()
        with storing(self.path):
            self._file.close()  # Windows removes no file that is open
            self._journal.unlink()

    def _begin(self) -> None:
        """Make ready a journal of whole lines, and know what they say."""
        if self._overwrite:
            self.path.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
        if self._parquet is not None and not self._journal.exists():
            self._unpack_parquet()
        if self._journal.exists():
            self._read()
        if not self._journal.exists() or not self._journal.stat().st_size:
            self._journal.write_text(self._lines.header, "utf-8", newline="")
            sync_folder(self._journal.parent)

    def _read(self) -> None:
        whole, header = 0, self._lines.header.encode()
        with self._journal.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                if number > 1 or not header:
                    self._take(number, line)
                elif line != header:
                    self._refuse(number)
                whole += len(line)
            else:
                return
        start = self._lines.start.encode()
        if not (whole or start.startswith(line) or line.startswith(start)):
            self._refuse(1)  # not what is left of a line of ours
        os.truncate(self._journal, whole)

    def _take(self, number: int, line: bytes) -> None:
        try:
            entry, model = self._lines.entry(line.decode())
        except (ValueError, LookupError, TypeError, csv.Error, RecursionError):
            self._refuse(number)
        if model != self._model:
            raise DataError(
                f"{shown(self.path)} holds what another model said ({shown(model)}; "
                f"this one is {self._model}); {_REMEDY}"
            )
        self._note(entry)

    def _refuse(self, number: int) -> None:
        raise DataError(
            f"line {number:,} of {shown(self._journal)} is not what 'featcache predict "
            f"--top {self._top}' writes; {_REMEDY}"
        )

    def _note(self, entry: Entry) -> None:
        known = (entry.size, entry.mtime_ns, bool(entry.error))
        self._known[entry.path] = known

    def _unpack_parquet(self) -> None:
        """Make the journal of a Parquet file that is there."""
        if not self.path.exists():
            return
        pyarrow = optional("pyarrow", "Parquet", extra="export")
        try:
            with replacing(self._journal) as temporary, temporary.open("w") as out:
                table = self._parquet.ParquetFile(self.path)
                for batch in table.iter_batches(_GROUP):
                    out.writelines(f"{json.dumps(r)}\n" for r in batch.to_pylist())
                table.close()
        except pyarrow.ArrowException as error:
            raise DataError(
                f"{shown(self.path)} is no Parquet file; {_REMEDY}"
            ) from error

    def _write_parquet(self) -> None:
        pyarrow = optional("pyarrow", "Parquet", extra="export")
        schema = _schema(pyarrow, self._top)
        with (
            replacing(self.path) as temporary,
            self._parquet.ParquetWriter(temporary, schema) as out,
        ):
            entries = self.entries()
            while group := list(islice(entries, _GROUP)):
                rows = [described(e, self._top, self._model) for e in group]
                out.write_table(pyarrow.Table.from_pylist(rows, schema))


def _schema(pyarrow: Any, top: int) -> Any:  # noqa: ANN401 - arrow's
    text, number, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    ranked = pyarrow.list_(pyarrow.struct([("label", text), ("probability", real)]))
    more = [("top", ranked)] if top > 1 else []
    tail = zip(TAIL, (text, number, number, text), strict=True)
    return pyarrow.schema(
        [("path", text), ("label", text), ("probability", real), *more, *tail]
    )
