# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/models/resnet.h."""
import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    def __init__(self, in_channels, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.projection = None
        if stride != 1 or in_channels != out:
            self.projection = nn.Conv2d(in_channels, out, 1, stride, bias=False)
            self.projection_bn = nn.BatchNorm2d(out)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.projection is None else self.projection_bn(self.projection(x))))


class ResNet(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList()
        in_channels = width
        for stage in range(4):
            for block in range(2):
                out = width << stage
                self.blocks.append(BasicBlock(in_channels, out, 2 if stage and not block else 1))
                in_channels = out
        self.fc = nn.Linear(8 * width, 10)

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    @staticmethod
    def optimizer(parameters, fused):
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=fused)
