"""Weights that PyTorch saved, read without PyTorch and without running what the file may hold."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = 0x1950A86A20F9469CFC6C  # the first object of a file that PyTorch saved before its 1.6
PROTOCOL = 1001
TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}  # of PyTorch, as NumPy calls them


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dictionary, by their names.

    The format: pickled, one after the other, a magic number, the version, the sizes of types, the
    dictionary, and the keys of the stored arrays; then these arrays, each as its length (8 bytes)
    and its numbers, all little-endian (torch.serialization, `_legacy_load`).

    Raises:
        ValueError, pickle.UnpicklingError: it holds anything else.
    """
    with path.open("rb") as stream:
        if (_plain(stream), _plain(stream)) != (MAGIC, PROTOCOL):
            raise ValueError("it is not a file in PyTorch's legacy format")
        _plain(stream)
        tensors = _Tensors(stream, path.stat().st_size)
        found = tensors.load()
        for key in _plain(stream):
            array = tensors.stored[key]
            if np.fromfile(stream, "<i8", 1) != len(array):
                raise ValueError("an array does not have the declared length")
            array[:] = np.fromfile(stream, array.dtype, len(array))
    return dict(found)


def _plain(stream: BinaryIO) -> Any:
    return _Plain(stream).load()


class _Plain(pickle.Unpickler):
    """Reads numbers, texts, lists and dictionaries."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class and function; the unpickler calls this."""
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not a tensor")


class _Tensors(_Plain):
    """Reads a dictionary of tensors, whose numbers follow later in the file (`stored`)."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        super().__init__(stream)
        self.stored: dict[str, NDArray[Any]] = {}
        self._left = most  # bytes that all arrays may have

    def find_class(self, module: str, name: str) -> Any:
        """Allow what a dictionary of tensors is made of; the unpickler calls this."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in TYPES:
            return TYPES[name]
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """The array that is meant, still without its numbers; the unpickler calls this."""
        kind, dtype, key, _, length, view = pid
        if kind != "storage" or dtype not in TYPES.values() or view is not None:
            raise pickle.UnpicklingError("it refers to something that is not an array")
        if key not in self.stored:
            self._left -= length * np.dtype(dtype).itemsize
            if length < 0 or self._left < 0:
                raise pickle.UnpicklingError("it declares more numbers than it has")
            self.stored[key] = np.zeros(length, dtype)
        return self.stored[key]


def _tensor(
    stored: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> NDArray[Any]:
    """A view of a stored array; `strides` count numbers."""
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if min(offset, *shape, *strides, 0) < 0 or (0 not in shape and last >= len(stored)):
        raise pickle.UnpicklingError("a tensor reaches beyond its array")
    steps = [step * stored.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(stored[offset:], shape, steps, writeable=False)
