# SPDX-License-Identifier: Apache-2.0
"""The twins of bench/models in PyTorch: the same members in the same order, so that weights fit by name. Each has
`optimizer(parameters, fused)`, and takes its keys (width=.., depth=..) as integers."""
from models.cnn import Cnn
from models.gpt import Gpt
from models.lstm import Lstm
from models.mlp import Mlp
from models.resnet import ResNet

MODELS = {"mlp": Mlp, "cnn": Cnn, "resnet": ResNet, "lstm": Lstm, "gpt": Gpt}
