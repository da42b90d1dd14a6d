"""The notebook's network in PyTorch as in tutorials: ReLU, then pooling; Glorot-uniform weights, zero biases."""

from torch import nn


def network() -> nn.Sequential:
    """Images (batch, 3, 32, 32) to logits (batch, 10); 225,610 parameters."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return model
