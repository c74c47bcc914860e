import keras

from image_classification.training.precision import computing_in


def test_a_layer_with_a_type_of_its_own_keeps_it() -> None:
    layers = [keras.layers.Dense(2), keras.layers.Dense(2, dtype="float64")]
    for precision, inside in (("float32", "float32"), ("bfloat16", "bfloat16")):
        with computing_in(precision, layers):
            assert [layer.compute_dtype for layer in layers] == [inside, "float64"]
        assert [layer.compute_dtype for layer in layers] == ["float32", "float64"]
