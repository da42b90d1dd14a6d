"""A plain PyTorch loop, as in tutorials: a Dataset of PIL images, ToTensor, a DataLoader, the loss read in every step."""

from collections.abc import Callable

import numpy as np
import torch
from notebook_network import network
from PIL import Image
from stopwatch import Request, Stopwatch, load_images
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class PILImages(Dataset):
    """What torchvision.datasets.CIFAR10 returns, for the requested images."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Callable) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def main(request: Request) -> None:
    watch = Stopwatch(request.started)
    if request.threads:
        torch.set_num_threads(request.threads)
    torch.manual_seed(888)
    device = "cuda" if request.device == "auto" and torch.cuda.is_available() else request.device.replace("auto", "cpu")
    x, y, x_validation, y_validation = load_images(request.data, request.held_out, request.images, request.validation)
    training = DataLoader(PILImages(x, y, transforms.ToTensor()), request.batch, shuffle=True)
    validation = DataLoader(PILImages(x_validation, y_validation, transforms.ToTensor()), request.batch)
    model = network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()
    autocast = torch.autocast(device, torch.bfloat16, enabled=request.precision == "bf16")
    for _ in range(request.epochs):
        model.train()
        running = 0.0
        for images, labels in training:
            images, labels = images.to(device), labels.to(device)
            with autocast:
                loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
            watch.step()
        model.eval()
        correct = 0
        with torch.no_grad(), autocast:
            for images, labels in validation:
                logits = model(images.to(device))
                correct += (logits.argmax(1) == labels.to(device)).sum().item()
        watch.epoch(correct / len(y_validation))
    watch.report(torch=torch.__version__)


if __name__ == "__main__":
    main(Request.read())
