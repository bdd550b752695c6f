"""The benchmark's figures as markdown."""

from __future__ import annotations

from tools.benchmarks.timing import PHASES

COLUMNS = ("clips/s", "times stock", *(f"{phase} s" for phase in PHASES), "step s", "wait", "peak GiB", "utilisation")


def markdown(results: dict) -> str:
    """Every figure of `tools/benchmark.py`; what was not measured says so."""
    about = results["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [
        f"{about['device']}, {about['threads']} torch threads; {versions}; {about['date']}\n\n`{about['command']}` "
        f"(stage 2 computes blocks again: ours {about['gradient_checkpointing']}, stock every)",
        _shares(results["operations"]),
    ]
    if any(stage in results for stage in ("stage1", "stage2")):
        parts.append(_loops(results))
    if once := results.get("encode_once"):
        parts.append(f"Encoding a clip once, into the cache: {once['seconds_per_clip']:.3g} s.")
    if loader := results.get("loader"):
        height, width, frames = loader["size"]
        parts.append(
            f"Loader alone, clips of {height} x {width} x {frames}, stride {loader['stride']}, page cache, "
            f"{loader['workers']} workers: {loader['ours_fps']:.0f} frames/s with targets made. A serial reader that "
            f"stacks the files' arrays: {loader['serial_fps']:.0f} frames/s; ours is {loader['ratio']:.2f} times that. "
            f"The same files, each read and dropped: {loader['only_reading_fps']:.0f} frames/s."
        )
    rate = results["matmul_flops_per_s"]
    measured = "not measured (no GPU)" if rate is None else f"{rate / 1e12:.0f} TFLOP/s"
    parts.append(f"Matrix product on the GPU, bf16: {measured}.")
    return "\n\n".join(parts)


def _shares(operations: dict[str, dict[str, int]]) -> str:
    rows = ["| operations of a clip, counted | 5B at 480 x 480 x 49 | measured here |", "| --- | --- | --- |"]
    names = {
        "dit": "DiT, whole forward",
        "dit_to_last_tap": "DiT to the last tap",
        "heads": "heads, forward",
        "vae": "VAE encode, clip and first frame",
        "text": "text encoder",
    }
    for key, name in names.items():
        cells = [f"{_flop(part[key])}, {part[key] / part['dit']:.2f} x DiT" for part in operations.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    per_pixel = [f"{part['dit'] / part['pixels'] / 1e6:.2g} MFLOP" for part in operations.values()]
    rows.append(f"| DiT for each pixel of the clip | {' | '.join(per_pixel)} |")
    return "\n".join(rows)


def _flop(count: float) -> str:
    return f"{count / 1e12:.3g} TFLOP" if count >= 1e11 else f"{count / 1e9:.3g} GFLOP"


def _loops(results: dict) -> str:
    lines = [f"| stage | way | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for stage in ("stage1", "stage2"):
        ways = results.get(stage, {})
        stock = ways.get("stock", {}).get("clips_per_s")
        for way, row in ways.items():
            name = f"{way}, {row['batch_size']} clips" if way == "batched" else way
            seconds, used = row["seconds"], row["utilisation"]
            cells = [
                f"{row['clips_per_s']:.3g}",
                "-" if stock is None else f"{row['clips_per_s'] / stock:.2f}",
                *(f"{seconds[phase]:.3g}" for phase in PHASES),
                f"{seconds['step']:.3g}",
                f"{row['data_wait']:.1%}",
                f"{row['peak_memory_gib']:.2f}",
                "not measured" if used is None else f"{used:.0%}",
            ]
            lines.append(f"| {stage[-1]} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
