"""Lightning: a LightningModule, torchvision's v2 transforms, the default Trainer, loss and accuracy logged to CSV."""

from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from notebook_network import network
from plain import PILImages
from stopwatch import Request, Stopwatch, load_images
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.transforms import v2


class Notebook(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def _loss(self, batch: list[torch.Tensor], name: str) -> torch.Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({f"{name}_loss": loss, f"{name}_accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self._loss(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001)


class Timer(lightning.Callback):
    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_batch_end(self, *_: Any) -> None:
        self.watch.step()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:  # comes after the validation
        self.watch.epoch(trainer.callback_metrics["val_accuracy"].item())


def main(request: Request) -> None:
    watch = Stopwatch(request.started)
    if request.threads:
        torch.set_num_threads(request.threads)
    lightning.seed_everything(888)
    x, y, x_validation, y_validation = load_images(request.data, request.held_out, request.images, request.validation)
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    trainer = lightning.Trainer(
        accelerator=request.device,
        precision="bf16-mixed" if request.precision == "bf16" else "32-true",
        max_epochs=request.epochs,
        logger=CSVLogger(request.folder),
        callbacks=[Timer(watch)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Notebook(),
        DataLoader(PILImages(x, y, transform), request.batch, shuffle=True),
        DataLoader(PILImages(x_validation, y_validation, transform), request.batch),
    )
    watch.report(lightning=lightning.__version__, torch=torch.__version__)


if __name__ == "__main__":
    main(Request.read())
