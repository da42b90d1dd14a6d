"""Lightning: a LightningModule with torchvision's v2 transforms, the Trainer as it is, loss and accuracy logged to CSV."""

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from notebook_network import network
from plain import Pictures
from stopwatch import Asked, Stopwatch, pictures
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.transforms import v2


class Notebook(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def _scored(self, batch, name: str) -> torch.Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({f"{name}_loss": loss, f"{name}_accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, _):
        return self._scored(batch, "train")

    def validation_step(self, batch, _):
        self._scored(batch, "val")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.001)


class Watching(lightning.Callback):
    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_batch_end(self, *_) -> None:
        self.watch.step()

    def on_train_epoch_end(self, trainer, *_) -> None:  # comes after the validation
        self.watch.epoch(trainer.callback_metrics["val_accuracy"].item())


def main(asked: Asked) -> None:
    watch = Stopwatch(asked.started)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    lightning.seed_everything(888)
    x, y, x_validation, y_validation = pictures(asked.root, asked.images, asked.validation)
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    trainer = lightning.Trainer(
        accelerator=asked.device,
        precision="bf16-mixed" if asked.precision == "bf16" else "32-true",
        max_epochs=asked.epochs,
        logger=CSVLogger(asked.folder),
        callbacks=[Watching(watch)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Notebook(),
        DataLoader(Pictures(x, y, transform), asked.batch, shuffle=True),
        DataLoader(Pictures(x_validation, y_validation, transform), asked.batch),
    )
    watch.tell(lightning=lightning.__version__, torch=torch.__version__)


if __name__ == "__main__":
    main(Asked.read())
