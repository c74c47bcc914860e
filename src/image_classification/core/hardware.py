"""The hardware that times and last digits depend on."""

import os
import platform
import re
from pathlib import Path


def hardware() -> str:
    """The processor and how many of its cores this process may use."""
    information = Path("/proc/cpuinfo")
    found = re.search(
        r"model name\s*: (.*)", information.read_text() if information.exists() else ""
    )
    processor = found[1] if found else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {cores} cores"
