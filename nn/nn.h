// All layers.
#pragma once

#include <loom/nn/activations.h>
#include <loom/nn/attention.h>
#include <loom/nn/batch_norm.h>
#include <loom/nn/conv.h>
#include <loom/nn/dropout.h>
#include <loom/nn/embedding.h>
#include <loom/nn/flatten.h>
#include <loom/nn/functional_call.h>
#include <loom/nn/init.h>
#include <loom/nn/layer_norm.h>
#include <loom/nn/linear.h>
#include <loom/nn/losses.h>
#include <loom/nn/module.h>
#include <loom/nn/module_range.h>
#include <loom/nn/pooling.h>
#include <loom/nn/recurrent.h>
#include <loom/nn/sequential.h>
