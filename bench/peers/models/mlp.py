# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/models/mlp.h."""
import torch
import torch.nn.functional as F


class Mlp(torch.nn.Module):
    def __init__(self, widths=(784, 128, 10)):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)

    @staticmethod
    def optimizer(parameters, fused):
        return torch.optim.SGD(parameters, lr=0.01, fused=fused)
