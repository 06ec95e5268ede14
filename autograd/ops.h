// All differentiable functions on tensors.
#pragma once

#include <loom/autograd/ops/convolution.h>
#include <loom/autograd/ops/elementwise.h>
#include <loom/autograd/ops/fused.h>
#include <loom/autograd/ops/index.h>
#include <loom/autograd/ops/matmul.h>
#include <loom/autograd/ops/neural.h>
#include <loom/autograd/ops/recurrent.h>
#include <loom/autograd/ops/reduce.h>
#include <loom/autograd/ops/shape.h>
