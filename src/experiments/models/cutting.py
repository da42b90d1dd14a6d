"""A network cut in two at its head, so that the layers before it can run once and the head alone can be trained.

cut = cut_at_head(model)
logits = cut.head(model)(cut.backbone(model)(images))     # the same as model(images)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd

from experiments.models import freezing
from experiments.models.classifier import Classifier

ROUNDING = (
    0.01  # largest difference of logits, relative to the largest: far above rounding, far below that of a dropout
)


@dataclass(frozen=True)
class Cut:
    """A network cut in two, at the input of its head: `front` has all layers before, `rest` the head and what follows it.

    Dropout directly before the head belongs to `rest`.
    """

    front: fx.Graph
    rest: fx.Graph

    def backbone(self, model: Classifier) -> Classifier:
        """Raw images to features, with the layers of `model`; in evaluation mode, which these layers then have."""
        front = fx.GraphModule(model.network, self.front)
        front.used_size = model.used_size  # type: ignore[assignment]
        return Classifier(model.normalize, front).eval()

    def head(self, model: Classifier) -> fx.GraphModule:
        """Features to logits, with the layers of `model`."""
        return fx.GraphModule(model.network, self.rest)


def cut_at_head(model: Classifier) -> Cut | None:
    """The cut; None if the network's code cannot be traced, or its logits depend on more than the input of the head."""
    training = model.training
    try:
        graph = _Tracer(model.head_prefix).trace(model.eval().network)
    except Exception:  # a network's code may raise anything when it gets symbols in place of tensors
        return None
    finally:
        model.train(training)
    heads = [node for node in graph.nodes if node.op == "call_module" and f"{node.target}." == model.head_prefix]
    if len(heads) != 1 or len(heads[0].all_input_nodes) != 1:
        return None
    return _cut_before(graph, _with_dropout(heads[0], model.network))


class _Tracer(fx.Tracer):
    """Looks only into the modules that contain the head."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not freezing.is_around_head(module_qualified_name, self.head)


def _with_dropout(head: fx.Node, network: nn.Module) -> fx.Node:
    """The first dropout layer between the head and the last layer that has parameters; without one, the head."""
    first = node = head
    while len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if len(node.users) > 1 or node.op in ("placeholder", "get_attr") or (module and module.state_dict()):
            break
        first = node if isinstance(module, _DropoutNd) else first
    return first


def _cut_before(graph: fx.Graph, first: fx.Node) -> Cut | None:
    (features,) = first.all_input_nodes
    front, rest = fx.Graph(), fx.Graph()
    before: dict[fx.Node, fx.Node] = {}
    after = {features: rest.placeholder("features")}
    for node in graph.nodes:
        if node is first:
            break
        before[node] = front.node_copy(node, before.__getitem__)
    front.output(before[features])
    front.eliminate_dead_code(_is_needed)
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node not in after and all(one in after for one in inputs) and (inputs or node.op == "get_attr"):
            after[node] = rest.node_copy(node, after.__getitem__)
        elif node.op == "output":
            return None
    rest.eliminate_dead_code(_is_needed)
    return Cut(front, rest)


def _is_needed(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output")


def noise(image_shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Two images that are always the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *image_shape), dtype=np.uint8)
    return torch.from_numpy(pixels).to(device)


@torch.no_grad()
def computes_the_same(model: Classifier, cut: Cut, autocast: torch.autocast, image_shape: tuple[int, int, int]) -> bool:
    """Whether both parts compute what the network does in training, with the dropout before the head switched off.

    They do not if the network draws random numbers elsewhere, computes other values in training mode, or was traced wrongly.
    """
    device, training = model.normalize.scale.device, model.training
    pixels, head = noise(image_shape, device), cut.head(model)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), autocast:
            found = head.eval()(cut.backbone(model)(pixels)).float()
            freezing.train(model, freezing.BACKBONE)
            head.eval()
            expected = model(pixels).float()
    except Exception:  # traced code may raise anything
        return False
    finally:
        model.train(training)
    return bool((found - expected).abs().max() <= ROUNDING * expected.abs().max())
