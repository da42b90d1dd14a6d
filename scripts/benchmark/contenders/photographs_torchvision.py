"""Random resized crops as in tutorials: torchvision's ImageFolder, RandomResizedCrop and a DataLoader."""

import json
import sys
import time

from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

SCALE = (0.35, 1.0)


def main(root: str, size: int, batch: int, epochs: int, workers: int) -> None:
    transform = transforms.Compose([transforms.RandomResizedCrop(size, SCALE), transforms.ToTensor()])
    loader = DataLoader(
        ImageFolder(root, transform), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    seconds = []
    for _ in range(1 + epochs):
        start, images = time.perf_counter(), 0
        for pixels, _ in loader:
            images += len(pixels)
        seconds.append((time.perf_counter() - start) / images)
    print(json.dumps({"speed": 1 / min(seconds[1:])}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
