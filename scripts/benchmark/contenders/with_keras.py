"""Keras on TensorFlow, the notebook's way: arrays of float32 from 0 to 1, and `fit`."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from keras import layers
from stopwatch import Asked, Stopwatch, pictures


class Watching(keras.callbacks.Callback):
    async_safe = True  # else Keras waits after every batch for what it would tell

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.watch.step()

    def on_epoch_end(self, epoch, logs=None) -> None:  # comes after the validation
        self.watch.epoch(float(logs["val_accuracy"]))


def network() -> keras.Sequential:
    """The notebook's, not compiled."""
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


def main(asked: Asked) -> None:
    watch = Stopwatch(asked.started)
    if asked.threads:
        tf.config.threading.set_intra_op_parallelism_threads(asked.threads)
    if asked.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    if asked.precision == "bf16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(888)
    x, y, x_validation, y_validation = pictures(asked.root, asked.images, asked.validation)
    model = network()
    model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x.astype("float32") / 255,
        y,
        batch_size=asked.batch,
        epochs=asked.epochs,
        validation_data=(x_validation.astype("float32") / 255, y_validation),
        callbacks=[Watching(watch)],
        verbose=2,  # a line an epoch: the bar would cost more
    )
    watch.tell(keras=keras.__version__, tensorflow=tf.__version__)


if __name__ == "__main__":
    main(Asked.read())
