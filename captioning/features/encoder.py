"""The encoder: a frozen image classifier without its head.

Normalised images `[b 3 h w]` enter, features `[b d]` or `[b r d]` leave; pictures become such
images by its `preprocess`. Next: store.py, which does this once for every picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.functional import adaptive_avg_pool2d
from torchvision import models

from captioning import UserError
from captioning.features.efficientnet_lite import EfficientNetLite
from captioning.features.images import Preprocess
from captioning.features.onnx import onnx_runtime
from captioning.features.weights import LITES, find_weights, load_weights, weights_sha256

MANY = 1000  # images from which the seconds of getting ONNX Runtime ready come back
FLOAT16_MAX = 65504  # the feature store keeps half precision


class Encoder(nn.Module):
    """A classifier up to its last map, frozen and in eval mode for good.

    `name` is efficientnet_lite0, efficientnet_lite2 or any classifier of torchvision. `weights` is
    "package" (for the two), a torchvision name such as "imagenet_v1", the path of a state dict, or
    None for random numbers from a fixed seed. `features` is "pooled", the mean over the last map
    before the network's own pooling, `[d]` an image; or "grid", the regions of that map row by
    row, `[r d]`. A ViT has no such map: pooled is its class token. `image_size` is the published
    one unless given; `crop` cuts out the centre as the evaluation on ImageNet does, otherwise the
    whole picture is seen.

    `identity` is all that decides the numbers, in plain types; `feature_shape` is (d,) or (r, d).
    Raises UserError for what it cannot build, and for weights that are not on this machine.
    """

    def __init__(
        self,
        name: str,
        weights: str | None,
        features: str = "pooled",
        image_size: int | None = None,
        crop: bool = False,
    ):
        super().__init__()
        if features not in ("pooled", "grid"):
            raise UserError(f"encoder.features={features}: it is pooled or grid")
        file, published = find_weights(name, weights)
        image_size = image_size or published.image_size
        resize = round(published.resize * image_size / published.image_size) if crop else None
        self.preprocess = Preprocess(
            image_size, resize, published.mean, published.std, published.interpolation
        )
        body = cut_before_pooling(classifier(name, image_size))
        if file:
            load_weights(body, file)
        self.identity = {
            "name": name,
            "weights": weights_sha256(body),
            "features": features,
            "crop": crop,
            **asdict(self.preprocess),
        }
        self.features = features
        # Batch norms folded into the convolutions, channels last: 1.4 to 1.8 times as fast on a
        # CPU. Hashed before, as folding rounds.
        self.body = fuse(body, inplace=True, no_trace=True).to(memory_format=torch.channels_last)
        self._engine: Callable[[Tensor], Tensor] | None = None
        self.requires_grad_(False)
        self.train(False)
        self.feature_shape = self._try_out(image_size)

    def train(self, mode: bool = True) -> Encoder:
        """Stay in eval mode: batch statistics would drift, and each batch change the features."""
        return super().train(False)

    @torch.inference_mode()
    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch feature"] | Float[Tensor, "batch region feature"]:
        """Encode preprocessed images on whichever device the encoder is."""
        if self._engine:
            return self.select(self._engine(images))
        return self.select(self.body(images.contiguous(memory_format=torch.channels_last)))

    def prepare_for(self, images: int) -> None:
        """Get ready for that many images: many on a CPU are encoded by ONNX Runtime.

        The features are the same to 1e-4 of the largest. Without, or on a GPU, torch does it.
        """
        on_cpu = next(self.body.parameters()).device.type == "cpu"
        if on_cpu and images >= MANY and not self._engine:
            self._engine = onnx_runtime(self.body, self._noise())

    def select(self, maps: Tensor) -> Tensor:
        """Return the features `[b d]` or `[b r d]` of what the body makes, `[b d h w]`."""
        if self.features == "grid":
            return maps.flatten(2).transpose(1, 2)
        return maps.mean((2, 3)) if maps.ndim == 4 else maps

    def _noise(self) -> Float[Tensor, "2 3 height width"]:
        size, generator = self.preprocess.image_size, torch.Generator().manual_seed(0)
        return torch.randn(2, 3, size, size, generator=generator)

    @torch.inference_mode()
    def _try_out(self, image_size: int) -> tuple[int, ...]:
        """Encode noise once: what cannot work shows here, not after an hour of encoding."""
        name = self.identity["name"]
        try:
            maps = self.body(self._noise()[:1])
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"{name} cannot read {image_size} x {image_size} pixels: {error}"
            ) from None
        if self.features == "grid" and maps.ndim != 4:
            raise UserError(f"{name} has no map of regions; type encoder.features=pooled")
        features = self.select(maps)[0]
        largest = features.abs().max().item()
        if not 1e-4 < largest < FLOAT16_MAX:
            raise UserError(
                f"{name} makes no usable features with these weights (at most {largest:.1e}); "
                "random weights suit resnet18 and its like, not every network"
            )
        return tuple(features.shape)


def classifier(name: str, image_size: int) -> nn.Module:
    """Make the whole network with random weights that are the same in every run."""
    options: dict[str, int | bool] = {}
    if name.startswith("vit"):
        options = {"image_size": image_size}
    elif name in ("googlenet", "inception_v3"):  # their published weights expect this
        options = {"transform_input": True, "init_weights": False}
    with torch.random.fork_rng(devices=[]):  # building must not move the run's own random numbers
        torch.default_generator.manual_seed(0)
        if lite := LITES.get(name):
            model = EfficientNetLite(lite.width, lite.depth)
        else:
            model = models.get_model(name, **options)
    return model.eval()


def cut_before_pooling(model: nn.Module) -> fx.GraphModule:
    """Keep what comes before the last global pooling or, in a ViT, before the last linear layer."""
    traced = fx.symbolic_trace(model)
    modules = dict(traced.named_modules())

    def last(kind: type[nn.Module], *functions: object) -> fx.Node | None:
        found = [
            node
            for node in traced.graph.nodes
            if node.target in functions
            or (node.op == "call_module" and isinstance(modules[node.target], kind))
        ]
        return found[-1] if found else None

    head = last(nn.AdaptiveAvgPool2d, adaptive_avg_pool2d, "mean") or last(nn.Linear)
    output = next(node for node in traced.graph.nodes if node.op == "output")
    output.args = (head.args[0],)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
