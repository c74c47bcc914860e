"""What a measurement depends on: the processor, its cores and memory, and the packages."""

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("keras", "tensorflow", "mlflow", "torch")

# Flags of /proc/cpuinfo and their names in a slug. The first that a processor has says how it
# multiplies matrices, which the speed of training depends on most.
CAPABILITIES = {
    **{"amx_bf16": "amx_bf16", "avx512_bf16": "avx512_bf16", "avx512f": "avx512", "avx2": "avx2"},
    **{"bf16": "bf16", "asimd": "asimd"},  # Arm
}
VECTORS = re.compile("amx|avx|fma|f16c|bf16|asimd|sve|i8mm")  # flags worth showing


@dataclass(frozen=True)
class Processor:
    """A processor as /proc/cpuinfo describes it."""

    name: str
    numbers: tuple[str, ...]  # that tell processors of one name apart, as "model 143"
    flags: tuple[str, ...]

    @property
    def capability(self) -> str:
        """The best that it has to multiply matrices, "" if nothing is known."""
        return next((name for flag, name in CAPABILITIES.items() if flag in self.flags), "")

    @property
    def slug(self) -> str:
        """Its name for a file: quite different processors of a cloud call themselves the same."""
        bare = re.sub(r"\(\w+\)|@.*|\bCPU\b|\b(\d+-Core )?Processor\b", " ", self.name)
        words = re.findall("[a-z0-9]+", " ".join([bare, *self.numbers]).lower())
        return "-".join([*words, *filter(None, [self.capability])])

    @property
    def vectors(self) -> str:
        """Its flags for vectors and matrices."""
        return " ".join(flag for flag in self.flags if VECTORS.search(flag))


def described(cpuinfo: str) -> Processor:
    """The first processor of a text like that of /proc/cpuinfo."""
    pairs = [line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    numbers = {
        **{"cpu family": "family", "model": "model"},
        **{"CPU implementer": "implementer", "CPU part": "part"},  # Arm, which gives no name
    }
    return Processor(
        fields.get("model name", "Arm" if "CPU part" in fields else "unknown"),
        tuple(f"{short} {fields[key]}" for key, short in numbers.items() if key in fields),
        tuple((fields.get("flags") or fields.get("Features") or "").split()),
    )


def processor() -> Processor:
    """This machine's."""
    return described(Path("/proc/cpuinfo").read_text())


def versions() -> dict[str, str]:
    """Of Python and of the packages that a measurement depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def memory() -> str:
    """How much this machine has."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{size:.0f} GiB"


def machine() -> str:
    """A line on what this was measured on."""
    python = platform.python_version()
    return f"{os.cpu_count()} cores of {processor().name}, {memory()}, Python {python}"
