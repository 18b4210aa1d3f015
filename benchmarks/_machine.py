"""Which machine and which versions a table was measured with."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

import jax


def header() -> list[str]:
    """Lines of Markdown: date, processor, cores, memory, accelerator, versions."""
    devices = ", ".join(sorted({d.device_kind for d in jax.devices()}))
    versions = [f"Python {platform.python_version()}"]
    for name in ("jax", "jaxlib", "numpy", "equinox", "diffrax", "embreex"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    return [
        f"- {datetime.date.today().isoformat()}, backend {jax.default_backend()} ({devices})",
        f"- {_processor()}, {cores()} cores, {_memory_gib():.0f} GiB, load {os.getloadavg()[0]:.1f} at the start",
        f"- {', '.join(versions)}",
    ]


def write_results(name: str, page: str) -> None:
    """Keep a page in `results`, told apart by backend where that is not the processor."""
    backend = jax.default_backend()
    file = f"{name}.md" if backend == "cpu" else f"{name}_{backend}.md"
    (Path(__file__).resolve().parent / "results" / file).write_text(page)


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
