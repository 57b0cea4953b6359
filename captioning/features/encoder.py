"""The encoder: a frozen image classifier without its head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import chain

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.functional import adaptive_avg_pool2d

from captioning import UserError
from captioning.features.efficientnet_lite import VARIANTS, EfficientNetLite
from captioning.features.gpu import copy_to_host, full_float32
from captioning.features.onnx import to_onnx_runtime
from captioning.features.weights import find_weights, load_weights, weights_sha256

ONNX_MIN_IMAGES = 256  # from which the seconds of exporting to ONNX Runtime are won back


class Encoder(nn.Module):
    """A pretrained classifier up to its last feature map, frozen and always in eval mode.

    `name` is efficientnet_lite0, efficientnet_lite2 or any classifier of torchvision. `weights` is
    "package" (for the first two), a torchvision name such as "imagenet_v1", the path of a state
    dict, or None for random weights from a fixed seed. `features` is "pooled", the mean over the
    last map, `[d]` an image, or "grid", the regions of that map row by row, `[r d]`. A ViT has no
    such map: pooled is its class token. `image_size` is the published one unless given; `crop`
    takes the centre as the evaluation on ImageNet does, otherwise the whole image is encoded.

    `identity` holds all that decides the features, in plain types. Raises UserError for what cannot
    be built, and for weights that are not on this machine.
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
            raise UserError(f"encoder.features={features}: must be pooled or grid")
        file, published = find_weights(name, weights)
        image_size = image_size or published.image_size
        resize = round(published.resize * image_size / published.image_size) if crop else None
        self.preprocess = replace(published, image_size=image_size, resize=resize)
        body = cut_before_pooling(build_classifier(name, image_size))
        if file:
            load_weights(body, file)
        self.identity = {
            "name": name,
            "weights": weights_sha256(body.state_dict()),
            "features": features,
            "crop": crop,
            **asdict(self.preprocess),
        }
        self.features = features
        # Batch norms folded into the convolutions, channels last: 1.4 to 1.8 times as fast on a
        # CPU. After hashing, as folding rounds.
        self.body = fuse(body, inplace=True, no_trace=True).to(memory_format=torch.channels_last)
        self._onnx_runtime: Callable[[Tensor], Tensor] | None = None
        self.requires_grad_(False)
        self.eval()
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(2, 3, image_size, image_size, generator=generator)
        self.feature_shape = self._check_features()

    def train(self, mode: bool = True) -> Encoder:
        """Stay in eval mode, also within a module that trains."""
        return super().train(False)

    @torch.inference_mode()
    def forward(
        self,
        images: UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch feature"] | Float[Tensor, "batch region feature"]:
        """Return the features, on the encoder's device, of pixels or of normalized images."""
        images = images.to(self.device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = self.preprocess.normalize(images)
        if self._onnx_runtime and self.device.type == "cpu":
            return self.to_features(self._onnx_runtime(images))
        with full_float32(enabled=images.is_cuda):
            return self.to_features(self.body(images.to(memory_format=torch.channels_last)))

    @property
    def device(self) -> torch.device:
        """The device that the encoder is on."""
        return next(self.body.parameters()).device

    def prepare_for(self, images: int) -> None:
        """Switch to ONNX Runtime on a CPU if there are many images to encode."""
        if self.device.type == "cpu" and images >= ONNX_MIN_IMAGES and not self._onnx_runtime:
            self._onnx_runtime = to_onnx_runtime(self.body, self._noise)

    def to_features(self, maps: Tensor) -> Tensor:
        """Return features `[b d]` or `[b r d]` of the body's output `[b d h w]` (ViT: `[b d]`)."""
        if self.features == "grid":
            return maps.flatten(2).transpose(1, 2)
        return maps.mean((2, 3)) if maps.ndim == 4 else maps

    @torch.inference_mode()
    def _check_features(self) -> tuple[int, ...]:
        """Encode noise, so that what cannot work fails now; return the shape of the features."""
        name, size = self.identity["name"], self.preprocess.image_size
        try:
            maps = self.body(self._noise[:1])
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"{name} cannot read {size} x {size} pixels: {error}") from None
        if self.features == "grid" and maps.ndim != 4:
            raise UserError(f"{name} has no map of regions; type encoder.features=pooled")
        features = self.to_features(maps)[0]
        largest = features.abs().max().item()
        if not 1e-4 < largest < torch.finfo(torch.float16).max:  # as the feature store holds
            raise UserError(
                f"{name} makes no usable features with these weights (at most {largest:.1e}); "
                "random weights suit resnet18 and its like, not every network"
            )
        return tuple(features.shape)


def encode_ahead(
    encoder: Encoder, batches: Iterable[list[Tensor | str]]
) -> Iterator[tuple[list[Tensor | str], Tensor]]:
    """Yield each batch, and the float16 features of the images in it that could be read.

    Only when the next batch is on its way to a GPU is the result of one waited for.
    """
    on_gpu, pending = encoder.device.type == "cuda", None
    if on_gpu:  # or each process that has another one would also start the first
        torch.cuda.set_device(encoder.device)
    for images in chain(batches, [[]]):  # one turn more, for the last batch
        pixels = [image for image in images if isinstance(image, Tensor)]
        encoded = copy_to_host(torch.empty(0, *encoder.feature_shape))
        if pixels:
            stacked = torch.stack(pixels)
            encoded = copy_to_host(encoder(stacked.pin_memory() if on_gpu else stacked).half())
        if pending:
            yield pending[0], pending[1]()
        pending = images, encoded


def build_classifier(name: str, image_size: int) -> nn.Module:
    """Build the whole network with random weights from a fixed seed, in eval mode."""
    options: dict[str, int | bool] = {}
    if name.startswith("vit"):
        options = {"image_size": image_size}
    elif name in ("googlenet", "inception_v3"):  # their published weights expect this
        options = {"transform_input": True, "init_weights": False}
    with torch.random.fork_rng(devices=[]):  # the run's own random numbers do not change
        torch.default_generator.manual_seed(0)
        if name in VARIANTS:
            width, depth, *_ = VARIANTS[name]
            model = EfficientNetLite(width, depth)
        else:
            from torchvision import models  # which takes seconds, and Lite needs none of it

            model = models.get_model(name, **options)
    return model.eval()


def cut_before_pooling(model: nn.Module) -> fx.GraphModule:
    """Return what comes before the last global pooling or, in a ViT, the last linear layer."""
    traced = fx.symbolic_trace(model)
    modules = dict(traced.named_modules())
    operations = [(node, modules.get(node.target, node.target)) for node in traced.graph.nodes]
    pooling = [
        node
        for node, operation in operations
        if isinstance(operation, nn.AdaptiveAvgPool2d) or operation in (adaptive_avg_pool2d, "mean")
    ]
    linear = [node for node, operation in operations if isinstance(operation, nn.Linear)]
    head = (pooling or linear)[-1]
    traced.graph.output_node().args = (head.args[0],)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
