"""The tables of docs/scale.md: arithmetic on what was measured, docs/scale/*.json.

    python scripts/scale_tables.py          # writes them into docs/scale.md, between its markers

GPU figures are arithmetic: peak speeds and links as their makers state them, and assumed utilisations.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
STEPS, BATCH, CLIPS = 30_000, 144, 230_160  # the paper's training and data
PEAK = {"A100": 312e12, "H100": 989e12}  # FLOP/s, bf16 dense
UTILISATION = (0.25, 0.30, 0.35, 0.40, 0.45)
ASSUMED = 0.35  # where one value has to do
STATE = 4 + 4 + 8 + 4  # bytes per trained number: weight, gradient, AdamW's two moments, moving average
NVLINK = {"A100": 300e9, "H100": 450e9}  # bytes/s and direction of one GPU
LINKS = {"8 x 400 Gb/s": 8 * 50e9, "8 x 200 Gb/s": 8 * 25e9, "1 x 400 Gb/s": 50e9, "1 x 200 Gb/s": 25e9}  # of a node
NODES, PER_NODE, PER_GPU = 8, 8, 2  # 64 GPUs, two clips each
DECODED = 48  # frames of a 24 fps video that 16 frames at 8 fps span
GIB = 2**30


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def trained(row: Any) -> int:
    return sum(row["parameters"][k] for k in ("ref", "encoder", "control"))


def step_flops(row: Any) -> int:
    return row["flops"]["forward"] + row["flops"]["backward"]


def parameters(found: Any) -> str:
    names = {"base": "base, frozen", "ref": "32 reference attentions", "encoder": "motion encoder",
             "control": "ControlNet"}  # fmt: skip
    row = found["variants"]["paper"]
    rows = [[names[k], f"{n:,}"] for k, n in row["parameters"].items()]
    return table(["part", "parameters"], [*rows, ["trained in all", f"{trained(row):,}"]])


def flops(found: Any) -> str:
    f = found["variants"]["paper"]["flops"]
    recomputing = f["forward"] + f["backward_recomputing"]
    rows = [
        ("base UNet, forward", f["base"]), ("reference attention, forward", f["reference"]),
        ("motion module, forward", f["motion"]), ("subject pass (one frame, no gradient)", f["subject"]),
        ("forward in all", f["forward"]), ("backward", f["backward"]),
        ("training step", step_flops(found["variants"]["paper"])),
        ("training step with gradient checkpointing", recomputing),
    ]  # fmt: skip
    return table(["of one clip", "TFLOP"], [[name, f"{n / 1e12:.2f}"] for name, n in rows])


def memory(found: Any) -> str:
    row = found["variants"]["paper"]
    n = trained(row)
    states = 2 * row["parameters"]["base"] + STATE * n + 2 * n
    rows = [
        ["base, bf16", 2 * row["parameters"]["base"]], ["adapter's weights, fp32", 4 * n],
        ["their bf16 copies of a pass", 2 * n], ["gradients, fp32", 4 * n], ["AdamW's moments, fp32", 8 * n],
        ["moving average, fp32", 4 * n], ["**independent of the batch**", states],
        ["each clip", found["bytes"]["clip"]],
        ["each clip, with gradient checkpointing", found["bytes_recomputing"]["clip"]],
    ]  # fmt: skip
    return table(["of one GPU", "GiB"], [[name, f"{size / GIB:.2f}"] for name, size in rows])


def fitting(found: Any) -> str:
    """Whole clips beside the states, a tenth of the card left for workspaces and fragmentation."""
    row = found["variants"]["paper"]
    states = 2 * row["parameters"]["base"] + (STATE + 2) * trained(row)
    rows = []
    for card in (24, 40, 80):
        room = 0.9 * card * GIB - states
        clips = [int(max(0, room // found[k]["clip"])) for k in ("bytes", "bytes_recomputing")]
        rows.append([f"{card} GiB", *map(str, clips)])
    return table(["card", "clips at once", "with gradient checkpointing"], rows)


def hours(found: Any) -> str:
    row = found["variants"]["paper"]
    total = step_flops(row) * STEPS * BATCH
    rows = []
    for share in UTILISATION:
        cells = [f"{share:.0%}"]
        for peak in PEAK.values():
            seconds = total / (share * peak)
            cells += [f"{seconds / 3600:,.0f}", f"{seconds / 3600 / 8:.1f}", f"{STEPS * BATCH / seconds * 8:.0f}"]
        rows.append(cells)
    head = ["MFU"]
    for gpu in PEAK:
        head += [f"{gpu} GPU-hours", f"hours on 8 x {gpu}", "clips/s on 8"]
    return table(head, rows)


def samples(found: Any) -> str:
    """Four examples of 50 steps in two branches, every 1,000 steps, on one GPU while the others wait."""
    f = found["variants"]["paper"]["flops"]
    drawn = 4 * 50 * 2 * (f["base"] + f["reference"] + f["motion"])
    rows = []
    for gpus in (8, 64):
        trained_meanwhile = 1000 * BATCH * step_flops(found["variants"]["paper"]) / gpus
        rows.append([f"{gpus} GPUs", f"{drawn / trained_meanwhile:.1%}"])
    return table(["drawing samples", "of the training's time"], rows)


def network(found: Any) -> str:
    """Ring all-reduce: within a node each GPU sends 2 (n - 1) / n of the bytes, and so does each node between nodes."""
    n = trained(found["variants"]["paper"])
    rows = []
    for name, link in LINKS.items():
        cells = [name]
        for size in (2, 4):
            inside = 2 * (PER_NODE - 1) / PER_NODE * size * n / NVLINK["H100"]
            between = 2 * (NODES - 1) / NODES * size * n / link
            cells.append(f"{1e3 * (inside + between):.0f}")
        rows.append(cells)
    return table(["links of a node", "bf16 gradients, ms", "fp32 gradients, ms"], rows)


def overlap(found: Any) -> str:
    row = found["variants"]["paper"]
    rows = []
    for gpu, peak in PEAK.items():
        speed = ASSUMED * peak / PER_GPU / 1e3  # FLOP per ms and clip
        f = row["flops"]
        rows.append([gpu, f"{step_flops(row) / speed:.0f}", f"{f['backward'] / speed:.0f}",
                     f"{f['motion_backward'] / speed:.0f}"])  # fmt: skip
    return table(["GPU, two clips", "step, ms", "backward, ms", "its last part (motion module), ms"], rows)


def data(found: Any) -> str:
    d, row = found["data"], found["variants"]["paper"]
    frames, variants = found["trained"][0], 4
    encoding = d["autoencoder, FLOPs"] * (frames + variants) * CLIPS
    busiest = 64 * UTILISATION[-1] * PEAK["H100"] / step_flops(row)
    on_eight = busiest / 8
    decoding = DECODED * d["decoded frame, CPU seconds"] + frames * d["fitted frame, CPU seconds"]
    video = 1e6 / 8 * 10
    rows = [
        ["cached clip (latents, 4 subjects, text)", f"{d['cached clip, bytes'] / 1e3:.0f} kB"],
        [f"cache of {CLIPS:,} clips", f"{d['cached clip, bytes'] * CLIPS / 1e9:.0f} GB"],
        ["the same as video, 10 s at 1 Mbit/s (assumed)", f"{video * CLIPS / 1e9:.0f} GB"],
        ["filling the cache: autoencoder", f"{encoding / 1e18:.2f} EFLOP"],
        ["the same, of the whole training", f"{encoding / (step_flops(row) * STEPS * BATCH):.1%}"],
        [
            "encoding anew in every step, of its FLOPs",
            f"{d['autoencoder, FLOPs'] * (frames + 1) / step_flops(row):.0%}",
        ],
        ["reading a cached clip and drawing its masks", f"{1e3 * d['cached clip, CPU seconds']:.1f} CPU ms"],
        ["decoding and resizing a clip", f"{1e3 * decoding:.0f} CPU ms"],
        ["cores of the loader, 8 x H100 at 45 %, cached", f"{on_eight * d['cached clip, CPU seconds']:.1f}"],
        ["the same, decoding", f"{on_eight * decoding:.1f}"],
        ["reading from the cache, 8 x H100 at 45 %", f"{on_eight * d['cached clip, bytes'] / 1e6:.0f} MB/s"],
        ["the same, 64 x H100", f"{busiest * d['cached clip, bytes'] / 1e6:.0f} MB/s"],
    ]
    return table(["data", "amount"], rows)


def sizes(found: Any) -> str:
    n = trained(found["variants"]["paper"])
    rows = [["adapter as exported, fp16", 2 * n], ["resumable checkpoint (weights, moments, average)", 16 * n]]
    return table(["file", "GB"], [[name, f"{size / 1e9:.2f}"] for name, size in rows])


def steps(found: Any) -> str:
    rows = []
    for row in found["steps"]:
        frames, width, height, _ = row["trained"]
        seconds = row["CPU seconds"]
        rows.append([f"{frames} x {width}x{height}", "yes" if row["recompute"] else "no",
                     *(f"{row[f'GiB {k}']:.1f}" for k in ("with weights", "in forward", "in backward",
                                                          "in optimizer")),
                     *(f"{seconds[k]:.0f}" for k in ("forward", "backward", "optimizer"))])  # fmt: skip
    head = ["clip", "checkpointing", "GiB, weights", "in forward", "in backward", "in optimiser", "CPU s, forward",
            "backward", "optimiser"]  # fmt: skip
    return table(head, rows)


def variants(found: Any) -> str:
    rows = []
    for name, row in found["variants"].items():
        n = trained(row)
        rows.append([name, f"{n / 1e6:.1f} M", f"{STATE * n / GIB:.2f} GiB", f"{4 * n / 1e6:,.0f} MB",
                     f"{2 * n / 1e6:,.0f} MB", f"{step_flops(row) / 1e12:.1f}"])  # fmt: skip
    head = ["setting of the adapter", "trained", "states", "gradients, fp32", "file, fp16", "TFLOP of a step"]
    return table(head, rows)


TABLES = (parameters, flops, memory, fitting, hours, samples, network, overlap, data, sizes, variants, steps)


def filled(text: str, found: Any) -> str:
    """The document with every table between ``<!-- table NAME -->`` and ``<!-- end -->`` made anew."""
    for make in TABLES:
        marked = re.compile(rf"(<!-- table {make.__name__} -->\n).*?(<!-- end -->)", re.DOTALL)
        body = make(found)
        text, count = marked.subn(lambda m, body=body: f"{m[1]}{body}\n{m[2]}", text)
        if count != 1:
            raise ValueError(f"docs/scale.md has {count} places for the table {make.__name__}; it must have one.")
    return text


def measured() -> dict[str, Any]:
    folder = DOCS / "scale"
    lines = (folder / "steps.jsonl").read_text().splitlines()
    return {
        **json.loads((folder / "count.json").read_text()),
        "data": json.loads((folder / "data.json").read_text()),
        "steps": [json.loads(line) for line in lines],
    }


def main() -> None:
    found = measured()
    document = DOCS / "scale.md"
    document.write_text(filled(document.read_text(), found))


if __name__ == "__main__":
    main()
