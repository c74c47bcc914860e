"""The same cnn, dcnn and nn in plain PyTorch on the CPU: Adam at its defaults, batches of 32.

Prints one line of JSON: seconds of each epoch, and its training loss.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn


def convolution(before: int, after: int) -> list[nn.Module]:
    """A 3x3 convolution that keeps the size, and ReLU."""
    return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]


def build(name: str) -> nn.Module:
    """The architecture of that name, from images (n, 1, 28, 28) to logits (n, 10)."""
    head = [
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 400),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(400, 10),
    ]
    pool = nn.MaxPool2d(2)
    architectures: dict[str, list[nn.Module]] = {
        "nn": [nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 10)],
        "cnn": [*convolution(1, 64), pool, *convolution(64, 32), pool, *head],
        "dcnn": [
            *(*convolution(1, 64), *convolution(64, 64), pool, nn.Dropout(0.25)),
            *(*convolution(64, 32), *convolution(32, 32), pool, *head),
        ],
    }
    return nn.Sequential(*architectures[name])


def main() -> None:
    """Train one model on the first examples of the project's split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["nn", "cnn", "dcnn"])
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    options = parser.parse_args()
    pixels = np.load("data/split/train_images.npy")[: options.examples]
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / np.float32(255))
    labels = torch.from_numpy(
        np.load("data/split/train_labels.npy")[: options.examples].astype(int)
    )

    torch.manual_seed(0)
    model = build(options.model)
    if options.model != "nn":  # faster there on a CPU
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = nn.CrossEntropyLoss()
    seconds, losses = [], []
    for _ in range(options.epochs):
        start, total = time.perf_counter(), 0.0
        for batch in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            loss = loss_of(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        seconds.append(time.perf_counter() - start)
        losses.append(total / len(labels))
    print(json.dumps({"seconds": seconds, "loss": losses}))


if __name__ == "__main__":
    main()
