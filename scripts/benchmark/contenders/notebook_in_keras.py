"""The teaching notebook's cells in Keras, evaluated on the test set after every epoch, outside the counted time.

Its last line is JSON: [[seconds since the start of the process, test accuracy], ...], one element per epoch.
"""

import json
import sys
import time
from collections.abc import Mapping

import keras
from stopwatch import load_images, read
from with_keras import network


class Testing(keras.callbacks.Callback):
    def __init__(self, started: float, data: str) -> None:
        super().__init__()
        self.started = started  # moved later by the time that is not counted
        pixels, self.labels = read(data, "test_batch")
        self.pixels = pixels.astype("float32") / 255
        self.epochs: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # after the validation
        now = time.time()
        _, accuracy = self.model.evaluate(self.pixels, self.labels, batch_size=250, verbose=0)
        self.epochs.append((now - self.started, accuracy))
        self.started += time.time() - now


def main(started: float, data: str, held_out: int, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    x, y, x_validation, y_validation = load_images(data, held_out)
    before = time.time()
    testing = Testing(started, data)
    testing.started += time.time() - before
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x.astype("float32") / 255,
        y,
        batch_size=32,
        epochs=25,
        validation_data=(x_validation.astype("float32") / 255, y_validation),
        callbacks=[keras.callbacks.EarlyStopping(patience=2), testing],
        verbose=2,
    )
    print("\n" + json.dumps(testing.epochs))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
