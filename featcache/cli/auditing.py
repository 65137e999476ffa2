"""The command that looks for what is wrong with a data set: audit.

Stages are imported inside the command, so that help and completion stay instant.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.cli.options import FILE, json_option
from featcache.cli.progress import Terminal
from featcache.cli.render import interval, percent, print_fields, print_json
from featcache.core.text import plural, shown

if TYPE_CHECKING:
    from featcache.core.audits import AuditReport, SplitAccuracy

_TITLES = {
    "label": "likely wrong labels",
    "outlier": "outliers",
    "leak": "of train in val or test",
    "near_duplicate": "near duplicates",
    "duplicate": "exact duplicates",
}


@click.command()
@click.argument("cache", type=FILE, required=False)
@click.option(
    "--near",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.92,
    show_default=True,
    help="Cosine of two features from which on images are near duplicates.",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many findings of each kind are shown; --json and --csv have all.",
)
@click.option(
    "--csv", type=FILE, default=None, metavar="FILE", help="Write all findings there."
)
@json_option
def audit(
    cache: Path | None, near: float, top: int, csv: Path | None, as_json: bool
) -> None:
    """Look for copies, leaks, outliers and wrong labels, from the cache alone.

    CACHE is a file that extract made, or a pattern; without it the newest one in
    cache/. No image is read. Findings are images to look at, not verdicts.
    """
    from featcache.stages.auditing import audit as run

    report = run(cache, near=near, csv=csv, progress=Terminal())
    if as_json:
        print_json(report.to_json())
        return
    _show(report, top)
    if csv is not None:
        click.echo(f"\n{shown(csv)}: {plural(len(report.findings), 'finding')}")


def _show(report: "AuditReport", top: int) -> None:
    click.echo(
        f"{shown(report.cache)}: {plural(report.images, 'image')} of "
        f"{plural(len(report.classes), 'class')}, {report.backbone}, skipped "
        f"{report.skipped:,}; {report.seconds:.1f} s"
    )
    click.echo()
    fields: dict[str, object] = {
        title: f"{report.counts[kind]:,}" for kind, title in _TITLES.items()
    }
    fields["class sizes in train"] = _sizes(report)
    for split in report.accuracies:
        fields[f"{split.split} accuracy (ridge)"] = _accuracy(split)
    print_fields(fields)
    for note in report.notes:
        click.echo(f"note: {note}")
    for line in _lists(report, top):
        click.echo(line)


def _sizes(report: "AuditReport") -> str:
    order = sorted(report.classes, key=lambda count: count.train)
    least, most = order[0], order[-1]
    ratio = "" if report.imbalance is None else f", 1 to {report.imbalance:.3g}"
    return f"{least.train:,} ({least.name}) to {most.train:,} ({most.name}){ratio}"


def _accuracy(split: "SplitAccuracy") -> str:
    line = f"{percent(split.accuracy)} of {split.images:,} ({interval(split.interval)})"
    if not split.leaks:
        return f"{line}; no leaks"
    without = f"{line}; without {plural(split.leaks, 'leak')} "
    if split.clean_interval is None:
        return f"{without}nothing is left"
    clean = f"{percent(split.clean_accuracy)} ({interval(split.clean_interval)})"
    return without + clean


def _lists(report: "AuditReport", top: int) -> Iterator[str]:
    """Yield the first findings of each kind, under its title."""
    for kind, title in _TITLES.items():
        found = report.of(kind)
        if not found or not top:
            continue
        yield f"\n{title}"
        width = min(50, max(len(finding.path) for finding in found[:top]))
        for finding in found[:top]:
            line = f"  {finding.score:6.3f}  {finding.path:<{width}}"
            yield f"{line}  {finding.reason}"
        if len(found) > top:
            yield f"  and {len(found) - top:,} more: see --top, --csv or --json"
