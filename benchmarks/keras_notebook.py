"""The Keras notebook's own training step, for `python -m benchmarks --keras PYTHON`.

Runs under an interpreter that has tensorflow-cpu, and prints target words per second: every caption
of 32 images cut into its prefixes, each padded to the longest caption, one-hot targets.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from keras import Input, Model, layers, utils

WORDS, FEATURE, SIZE, LONGEST, IMAGES = 8768, 2048, 256, 38, 32


def merge_model() -> Model:
    """Return the notebook's model, compiled as there."""
    image, prefix = Input((FEATURE,)), Input((LONGEST,))
    image_dense = layers.Dense(SIZE, activation="relu")(layers.Dropout(0.5)(image))
    embedded = layers.Dropout(0.5)(layers.Embedding(WORDS, SIZE, mask_zero=True)(prefix))
    both = layers.Dense(SIZE, activation="relu")(
        layers.add([image_dense, layers.LSTM(SIZE)(embedded)])
    )
    model = Model([image, prefix], layers.Dense(WORDS, activation="softmax")(both))
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


def step_data(captions: list[list[int]]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return features and prefixes, and one-hot targets, of all prefixes of the captions."""
    random = np.random.default_rng(0)
    features, prefixes, targets = [], [], []
    for number, tokens in enumerate(captions):
        if number % 5 == 0:
            image = random.random(FEATURE, dtype=np.float32)
        for end in range(1, len(tokens)):
            features.append(image)
            prefixes.append([0] * (LONGEST - end) + tokens[:end])
            targets.append(tokens[end])
    one_hot = utils.to_categorical(targets, WORDS)
    return [np.array(features), np.array(prefixes)], one_hot


if __name__ == "__main__":
    captions = json.load(sys.stdin)[: 5 * IMAGES]
    model, speeds = merge_model(), []
    model.train_on_batch(*step_data(captions))
    for _ in range(int(sys.argv[1])):
        start = time.perf_counter()
        inputs, one_hot = step_data(captions)
        model.train_on_batch(inputs, one_hot)
        speeds.append(len(one_hot) / (time.perf_counter() - start))
    print(json.dumps(speeds))
