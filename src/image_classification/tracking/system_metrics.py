"""System metrics: what processor, memory, disk, network and GPU do during a run."""

import contextlib
from collections.abc import Iterable
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

PREFIX = "system/"  # under which MLflow's pages show them


def system_monitors() -> list[Any]:
    """MLflow's monitors of this machine, for `sample`."""
    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # of several types, where there is no such accelerator
        monitors.append(GPUMonitor())
    return monitors


def sample(monitors: Iterable[Any]) -> dict[str, float]:
    """What the monitors measure now, under the names that MLflow's pages know."""
    values = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values.update(monitor.aggregate_metrics())
        monitor.clear_metrics()
    return {PREFIX + name: float(value) for name, value in values.items()}
