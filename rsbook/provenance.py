"""What ran and on what, without names of people, hosts or folders."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = (  # those that can change a number
    *("torch", "torchvision", "timm", "torchmetrics", "lightning-fabric", "numpy", "rasterio"),
    *("scipy", "scikit-image", "scikit-learn", "kornia", "captum", "segmentation-models-pytorch"),
)


def provenance(device: str) -> dict[str, Any]:
    """Commit, lock file, versions, device, driver, system.

    uncommitted_changes: whether files of the project differ from the commit or are new; None without a git checkout.
    """
    top = _git("rev-parse", "--show-toplevel")
    ours = top is not None and Path(top).resolve() == ROOT.resolve()  # not one in which we are merely installed
    return {
        "commit": _git("rev-parse", "--verify", "HEAD") if ours else None,
        "uncommitted_changes": bool(_git("status", "--porcelain")) if ours else None,
        "lock": lock_hash(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        "driver": _driver() if device == "cuda" else None,
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def duration(seconds: float) -> str:
    """Seconds as "1 h 15 min", "2 min 3 s" or "4 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def lock_hash() -> str | None:
    """The sha256 of the lock file, None where there is none."""
    path = ROOT / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def locked_versions() -> dict[str, str]:
    """The versions in the lock file of the libraries that can change a number; of one that is not there, none."""
    path = ROOT / "requirements.lock"
    return _locked(path.read_text("utf-8")) if path.is_file() else {}


@functools.cache
def _locked(text: str) -> dict[str, str]:
    found = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
    return {name: found[name] for name in sorted(LIBRARIES) if name in found}


def device_name(device: str) -> str:
    """What the processor or the GPU is called."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def forget_peak_memory(device: str) -> None:
    """Begin to measure the peak of memory anew, where the system can."""
    with suppress(OSError):  # only Linux has it; elsewhere the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5")
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> dict[str, int | None]:
    """The most memory in use since it was forgotten, in megabytes (10⁶ bytes): of the process, and on the GPU."""
    on_gpu = None
    if device == "cuda":
        import torch

        on_gpu = round(torch.cuda.max_memory_allocated() / 1e6)
    return {"process_megabytes": _peak_of_process(), "gpu_megabytes": on_gpu}


def _peak_of_process() -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
        return round(int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024 / 1e6)
    except (OSError, TypeError):
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0] if lines else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # a downloaded copy has no history
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
