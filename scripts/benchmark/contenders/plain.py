"""A plain PyTorch loop, as tutorials have it: a Dataset of PIL pictures, ToTensor, a DataLoader, one number read a step."""

import numpy as np
import torch
from notebook_network import network
from PIL import Image
from stopwatch import Asked, Stopwatch, pictures
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset):
    """What torchvision.datasets.CIFAR10 gives, of the pictures asked for."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int):
        return self.transform(Image.fromarray(self.pixels[row])), int(self.labels[row])


def main(asked: Asked) -> None:
    watch = Stopwatch(asked.started)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    torch.manual_seed(888)
    device = "cuda" if asked.device == "auto" and torch.cuda.is_available() else asked.device.replace("auto", "cpu")
    x, y, x_validation, y_validation = pictures(asked.root, asked.images, asked.validation)
    training = DataLoader(Pictures(x, y, transforms.ToTensor()), asked.batch, shuffle=True)
    validation = DataLoader(Pictures(x_validation, y_validation, transforms.ToTensor()), asked.batch)
    model = network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()
    autocast = torch.autocast(device, torch.bfloat16, enabled=asked.precision == "bf16")
    for _ in range(asked.epochs):
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
        right = 0
        with torch.no_grad(), autocast:
            for images, labels in validation:
                logits = model(images.to(device))
                right += (logits.argmax(1) == labels.to(device)).sum().item()
        watch.epoch(right / len(y_validation))
    watch.tell(torch=torch.__version__)


if __name__ == "__main__":
    main(Asked.read())
