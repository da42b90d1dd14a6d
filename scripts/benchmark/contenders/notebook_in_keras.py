"""The teaching notebook's cells in Keras; after each epoch it looks at the test set, in time that is not counted.

Its last line is JSON: [[seconds since the start of the process, test accuracy], ...] of the epochs.
"""

import json
import sys
import time

import keras
from stopwatch import pictures, read
from with_keras import network


class Testing(keras.callbacks.Callback):
    def __init__(self, started: float, root: str) -> None:
        super().__init__()
        self.started = started  # moved by what is not counted
        pixels, self.labels = read(root, "test_batch")
        self.pixels = pixels.astype("float32") / 255
        self.reached: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch, logs=None) -> None:  # comes after the validation
        now = time.time()
        _, accuracy = self.model.evaluate(self.pixels, self.labels, batch_size=250, verbose=0)
        self.reached.append((now - self.started, accuracy))
        self.started += time.time() - now


def main(started: float, root: str, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    x, y, x_validation, y_validation = pictures(root)
    before = time.time()
    testing = Testing(started, root)
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
    print("\n" + json.dumps(testing.reached))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
