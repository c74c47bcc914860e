from pathlib import Path

import keras
import pytest

from image_classification.training import precision
from image_classification.training.precision import computing_in, has_native_bfloat16


def test_a_layer_with_a_type_of_its_own_keeps_it() -> None:
    layers = [keras.layers.Dense(2), keras.layers.Dense(2, dtype="float64")]
    for wanted, inside in (("float32", "float32"), ("bfloat16", "bfloat16")):
        with computing_in(wanted, layers):
            assert [layer.compute_dtype for layer in layers] == [inside, "float64"]
        assert [layer.compute_dtype for layer in layers] == ["float32", "float64"]


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_bf16\n", True),
        ("Features\t: fp asimd sve bf16 i8mm\n", True),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni\n", False),
        ("flags\t\t: fpu sse2 avx2\n", False),
    ],
)
def test_bfloat16_is_native_where_the_processor_says_so(flags: str, native: bool) -> None:
    assert has_native_bfloat16(f"processor\t: 0\n{flags}") is native


@pytest.mark.parametrize(("flag", "used"), [("avx512_bf16", "bfloat16"), ("avx512f", "float32")])
def test_a_recipe_gets_bfloat16_only_where_it_is_native(
    flag: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text(f"flags : avx2 {flag}\n")
    monkeypatch.setattr(precision, "PROCESSOR", processor)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda _: [])

    assert precision.usable_precision("bfloat16") == used
    assert precision.usable_precision("float32") == "float32"


@pytest.mark.parametrize(("devices", "used"), [(["gpu:0"], "bfloat16"), (["cpu:0"], "float32")])
def test_on_jax_an_accelerator_computes_in_bfloat16_whatever_the_processor(
    devices: list[str], used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text("flags : avx2\n")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(precision, "PROCESSOR", processor)
    monkeypatch.setattr("keras.distribution.list_devices", lambda: devices)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda _: [])

    assert precision.usable_precision("bfloat16") == used
    assert precision.usable_precision("float32") == "float32"
