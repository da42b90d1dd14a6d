"""Keras on TensorFlow, as in the notebook: arrays of float32 from 0 to 1, and `fit`."""

import os
from collections.abc import Mapping

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from keras import layers
from stopwatch import Request, Stopwatch, load_images


class Timer(keras.callbacks.Callback):
    async_safe = True  # otherwise Keras waits after every batch for the metrics

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.watch.step()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # after the validation
        assert logs is not None
        self.watch.epoch(float(logs["val_accuracy"]))


def network() -> keras.Sequential:
    """The notebook's network, not compiled."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, (4, 4), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(32, (4, 4), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )


def main(request: Request) -> None:
    watch = Stopwatch(request.started)
    if request.threads:
        tf.config.threading.set_intra_op_parallelism_threads(request.threads)
    if request.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    if request.precision == "bf16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(888)
    x, y, x_validation, y_validation = load_images(request.data, request.held_out, request.images, request.validation)
    model = network()
    model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x.astype("float32") / 255,
        y,
        batch_size=request.batch,
        epochs=request.epochs,
        validation_data=(x_validation.astype("float32") / 255, y_validation),
        callbacks=[Timer(watch)],
        verbose=2,  # a line per epoch; the bar would take longer
    )
    watch.report(keras=keras.__version__, tensorflow=tf.__version__)


if __name__ == "__main__":
    main(Request.read())
