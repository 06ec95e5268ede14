# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/models/lstm.h."""
import torch


class Lstm(torch.nn.Module):
    def __init__(self, width=256, depth=2, sequence=64):
        del sequence  # the data's
        super().__init__()
        self.lstm = torch.nn.LSTM(64, width, num_layers=depth, batch_first=True)
        self.head = torch.nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])

    @staticmethod
    def optimizer(parameters, fused):
        return torch.optim.AdamW(parameters, lr=1e-3, fused=fused)
