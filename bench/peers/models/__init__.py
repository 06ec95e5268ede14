# SPDX-License-Identifier: Apache-2.0
"""The twins of bench/models in PyTorch: the same members in the same order, so that weights fit by name. Each has
`optimizer(parameters, fused)`, and takes its keys (width=.., depth=..) as integers."""
from models.cnn import Cnn
from models.gpt import Gpt
from models.lstm import Lstm
from models.mlp import Mlp
from models.resnet import ResNet
from models.resnet50 import ResNet50

MODELS = {"mlp": Mlp, "cnn": Cnn, "resnet": ResNet, "resnet50": ResNet50, "lstm": Lstm, "gpt": Gpt}
