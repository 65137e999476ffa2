"""Extraction on a GPU, as a share of what its two halves reach alone.

For each network, precision and decoder: images a second from JPEG files to features in
memory, with the pipeline's own threads; the network alone, on pixels that lie on the
device; and reading, decoding and cropping alone. The share is the first over the lesser
of the other two. Ends with 2 where there is no CUDA device.

    python scripts/bench/gpu.py                 generated JPEGs of 500x375
    python scripts/bench/gpu.py FOLDER --backbones resnet50 --decoders gpu
"""

import argparse
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from featcache.core.blocks import Block, plan_blocks
from featcache.core.machine import cores
from featcache.core.progress import SILENT
from featcache.stages.sources import WeightsSource, find_weights
from featcache.vision.assembly import assemble
from featcache.vision.backbones import Backbone
from featcache.vision.decode import read_file
from featcache.vision.graph import PixelForward
from featcache.vision.lanes import CudaQueue
from featcache.vision.nvjpeg import JpegViews
from featcache.vision.pipeline import Extractor, one_core_each, run_blocks
from featcache.vision.rows import BlockRows

ROWS = 256  # of a block
DIFFERENT = 256  # pictures that are generated; each file is one with its own comment
DECODERS = {"cpu": "pillow", "gpu": "nvjpeg"}


@dataclass(frozen=True)
class Case:
    """What is measured."""

    files: list[Path]
    source: WeightsSource
    precision: str
    device: torch.device

    def extractor(self) -> Extractor:
        """Return our machinery, ready for a long run."""
        return assemble(
            Backbone(self.source.backbone, self.source.load()),
            self.source.view,
            device=str(self.device),
            precision=self.precision,
            expected=len(self.files),
        )


def generated(folder: Path, images: int) -> list[Path]:
    """Make JPEGs of 500x375, about 100 KB each, every file another one."""
    random = np.random.default_rng(0)
    bodies = []
    for _ in range(min(DIFFERENT, images)):
        coarse = random.integers(0, 256, (47, 63, 3), np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = random.normal(0, 12, (375, 500, 3))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        bodies.append(buffer.getvalue())
    files = []
    for number in range(images):
        body = bodies[number % len(bodies)]
        comment = b"\xff\xfe" + (10).to_bytes(2, "big") + number.to_bytes(8, "big")
        files.append(folder / f"{number:07}.jpg")
        files[-1].write_bytes(body[:2] + comment + body[2:])
    return files


def from_files(case: Case, extractor: Extractor) -> float:
    """Return images a second from files to features."""

    def work(block: Block, alive: Callable[[], None]) -> None:
        rows = BlockRows.pending(block.size, dim, "float32")
        extractor.fill(rows, case.files[block.rows], alive=alive)
        if rows.reasons:
            raise SystemExit(f"not usable: {rows.reasons}")

    dim = Backbone(case.source.backbone, case.source.load()).row_size(224)
    began = time.perf_counter()
    run_blocks(plan_blocks(len(case.files), ROWS), work, extractor.workers)
    return len(case.files) / (time.perf_counter() - began)


def network_alone(case: Case, batch_size: int, seconds: float = 2.0) -> float:
    """Return images a second of the plain network on pixels on the device."""
    view, device = case.source.view, case.device
    dtype = torch.bfloat16 if case.precision == "bfloat16" else torch.float32
    backbone = Backbone(case.source.backbone, case.source.load()).to(device, dtype)
    backbone = backbone.to(memory_format=torch.channels_last)
    forward = PixelForward(backbone, view, device, dtype)
    shape = (batch_size, view.crop, view.crop, 3)
    pixels = torch.zeros(shape, dtype=torch.uint8, device=device)

    def rate(batches: int) -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(batches):
                forward(pixels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return batches * batch_size / (time.perf_counter() - began)

    rate(3)
    return rate(max(3, int(rate(3) * seconds / batch_size)))


def decoding_alone(case: Case, batch_size: int, threads: int) -> float:
    """Return images a second of reading, decoding and cropping."""
    view, files = case.source.view, case.files
    parts = [files[at : at + batch_size] for at in range(0, len(files), batch_size)]

    def on_host(part: list[Path]) -> None:
        def nothing(pixels: np.ndarray) -> np.ndarray:
            return np.zeros((len(pixels), 1), np.float32)

        reader = Extractor(nothing, view, batch_size)
        reader.fill(BlockRows.pending(len(part), 1, "float32"), part)

    def on_device(part: list[Path]) -> None:
        queue = CudaQueue(case.device)
        shape = (len(part), view.crop, view.crop, 3)
        with queue.active(), torch.inference_mode():
            out = torch.empty(shape, dtype=torch.uint8, device=case.device)
            JpegViews(view, case.device)([read_file(file) for file in part], out)
        queue.wait()

    work = on_host if view.decoder == "pillow" else on_device
    with one_core_each(), ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(work, parts))
        return len(files) / (time.perf_counter() - began)


def measure(case: Case, repetitions: int) -> dict:
    """Take turns; return medians."""
    began = time.perf_counter()
    extractor = case.extractor()
    start = time.perf_counter() - began
    turns = []
    for _ in range(repetitions):
        network = network_alone(case, extractor.batch_size)
        decoding = decoding_alone(case, extractor.batch_size, cores())
        turns.append((from_files(case, extractor), network, decoding))
    ours, network, decoding = map(statistics.median, zip(*turns, strict=True))
    share = statistics.median(turn[0] / min(turn[1:]) for turn in turns)
    return {
        "backbone": case.source.backbone,
        "precision": case.precision,
        "decoder": case.source.view.decoder,
        "images": len(case.files),
        "batch_size": extractor.batch_size,
        "images_per_second": round(ours, 1),
        "network_alone": round(network, 1),
        "decoding_alone": round(decoding, 1),
        "share_of_the_lesser": round(share, 3),
        "start_seconds": round(start, 2),
        "pieces": dict(extractor.pieces),
    }


def show(results: list[dict], device: torch.device, repetitions: int) -> None:
    """Print the table and the JSON line."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else "CPU"
    print(
        f"{name}, {cores()} cores, torch {torch.__version__}, {results[0]['images']} "
        f"images, median of {repetitions}; images/s"
    )
    heads = ("from files", "network", "decoding", "share")
    print(f"{'':<28}" + "".join(f"{head:>12}" for head in heads))
    for row in results:
        label = f"{row['backbone']} {row['precision']} {row['decoder']}"
        rates = ("images_per_second", "network_alone", "decoding_alone")
        numbers = "".join(f"{row[key]:>12.0f}" for key in rates)
        print(f"{label:<28}{numbers}{row['share_of_the_lesser']:>12.0%}")
    for key, piece in results[-1]["pieces"].items():
        print(f"  {key}: {piece}")
    print(json.dumps({"device": name, "cores": cores(), "results": results}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, nargs="?", help="a folder with JPEGs")
    parser.add_argument("--backbones", default="resnet18,resnet50")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--decoders", default="cpu,gpu")
    parser.add_argument("--device", default="cuda", help="cpu tries the script out")
    parser.add_argument("--images", type=int, default=20_000, help="to generate")
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; nothing was measured", file=sys.stderr)
        raise SystemExit(2)
    if device.type == "cuda":
        device = torch.empty(0, device=device).device  # with its number
    with tempfile.TemporaryDirectory() as folder:
        files = (
            sorted(p for p in args.data.rglob("*") if p.suffix in (".jpg", ".jpeg"))
            if args.data
            else generated(Path(folder), args.images)
        )
        wanted = (args.backbones, args.precisions, args.decoders)
        results = []
        for backbone, precision, decoder in itertools.product(
            *(words.split(",") for words in wanted)
        ):
            source = find_weights(backbone, "random:0", progress=SILENT)
            view = replace(source.view, decoder=DECODERS[decoder])
            source = replace(source, view=view)
            results.append(
                measure(Case(files, source, precision, device), args.repetitions)
            )
        show(results, device, args.repetitions)


if __name__ == "__main__":
    main()
