# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/models/resnet50.h."""
import torch
import torch.nn.functional as F
from torch import nn

EXPANSION = 4


class Bottleneck(nn.Module):
    def __init__(self, in_channels, inner, stride):
        super().__init__()
        out = EXPANSION * inner
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner), nn.BatchNorm2d(out)
        self.projection = None
        if stride != 1 or in_channels != out:
            self.projection = nn.Conv2d(in_channels, out, 1, stride, bias=False)
            self.projection_bn = nn.BatchNorm2d(out)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.projection is None else self.projection_bn(self.projection(x))))


class ResNet50(nn.Module):
    def __init__(self, width=64, side=224, classes=1000):
        super().__init__()
        del side  # the data's
        self.conv = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList()
        in_channels, inner = width, width
        for stage, depth in enumerate((3, 4, 6, 3)):
            for block in range(depth):
                self.blocks.append(Bottleneck(in_channels, inner, 2 if stage and not block else 1))
                in_channels = EXPANSION * inner
            inner *= 2
        self.fc = nn.Linear(8 * EXPANSION * width, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn(self.conv(x))), 3, 2, padding=1)
        for block in self.blocks:
            x = block(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    @staticmethod
    def optimizer(parameters, fused):
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=fused)
