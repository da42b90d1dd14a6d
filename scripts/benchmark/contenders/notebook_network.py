"""The notebook's network as a tutorial writes it in PyTorch: ReLU, then pooling; Glorot-uniform weights, zero biases."""

from torch import nn


def network() -> nn.Sequential:
    """Pictures (batch, 3, 32, 32) to logits (batch, 10); 225,610 parameters."""
    made = nn.Sequential(
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
    for layer in made:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return made
