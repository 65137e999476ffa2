"""Lines of a file of predictions: an entry as CSV or JSON, and back."""

import csv
import io
import json
from collections.abc import Iterable
from typing import Any, Protocol

from featcache.core.predictions import Entry, Ranked
from featcache.core.text import shown

TAIL = ("error", "size", "mtime_ns", "model")  # columns behind the classes


class Lines(Protocol):
    """How an entry is one line of text, and back."""

    header: str  # the first line, or nothing
    start: str  # what every file begins with

    def line(self, entry: Entry) -> str:
        """Return the line, with its end."""

    def entry(self, line: str) -> tuple[Entry, str]:
        """Return the entry, and the model it came from; any error is a bad line."""


class _Csv:
    def __init__(self, model: str, top: int) -> None:
        self._model, self._top = model, top
        ranks = ("", *(f"_{rank}" for rank in range(2, top + 1)))
        classes = [f"{name}{r}" for r in ranks for name in ("label", "probability")]
        self._columns = ["path", *classes, *TAIL]
        self.header = self.start = self._line(self._columns)

    def line(self, entry: Entry) -> str:
        told = [x for label, p in entry.ranked for x in (shown(label), p)]
        told += [""] * (2 * self._top - len(told))
        tail = (entry.error, entry.size, entry.mtime_ns, self._model)
        return self._line([entry.path, *told, *tail])

    def entry(self, line: str) -> tuple[Entry, str]:
        (fields,) = csv.reader([line])
        path, *classes, error, size, mtime_ns, model = fields
        if len(fields) != len(self._columns):
            raise ValueError(line)
        labels, values = classes[::2], classes[1::2]
        pairs = zip(labels, values, strict=True)
        ranked = () if error else tuple((label, float(p)) for label, p in pairs)
        return Entry(path, ranked, error, int(size), int(mtime_ns)), model

    def _line(self, fields: Iterable[object]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(fields)
        return text.getvalue()


class _Json:
    header, start = "", '{"path": "'

    def __init__(self, model: str, top: int) -> None:
        self._model, self._top = model, top

    def line(self, entry: Entry) -> str:
        return json.dumps(described(entry, self._top, self._model)) + "\n"

    def entry(self, line: str) -> tuple[Entry, str]:
        told = json.loads(line)
        top = told["top"] if self._top > 1 else [told]
        ranked: Ranked = ()
        if told["error"] is None:
            ranked = tuple((t["label"], float(t["probability"])) for t in top)
            if len(ranked) != self._top:
                raise ValueError(line)
        size, mtime_ns = int(told["size"]), int(told["mtime_ns"])
        found = Entry(told["path"], ranked, told["error"] or "", size, mtime_ns)
        return found, str(told["model"])


def described(entry: Entry, top: int, model: str) -> dict[str, Any]:
    """Return an entry as JSON has it.

    Parameters
    ----------
    entry : Entry
        Any.
    top : int
        K; above 1 there is a list of the K most probable classes.
    model : str
        Fingerprint of the model.

    Returns
    -------
    dict
        What is not known is None.
    """
    label, probability = entry.ranked[0] if entry.ranked else (None, None)
    told: dict[str, Any] = {
        "path": entry.path,
        "label": label,
        "probability": probability,
    }
    if top > 1:
        told["top"] = [{"label": c, "probability": p} for c, p in entry.ranked]
    return told | dict(
        zip(
            TAIL,
            (entry.error or None, entry.size, entry.mtime_ns, model),
            strict=True,
        )
    )


# By what a file's name ends with; Parquet is made of JSON lines in the end.
KINDS: dict[str, type[_Csv] | type[_Json]] = {
    ".csv": _Csv,
    ".jsonl": _Json,
    ".parquet": _Json,
}
