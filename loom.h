// Loom: tensors, gradients, networks, and Fabric. One include for programs; each header also stands alone.
#pragma once

#include <loom/accelerators/memory.h>
#include <loom/accelerators/profiler.h>
#include <loom/accelerators/threads.h>
#include <loom/autograd/checkpoint.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/parameter.h>
#include <loom/data/data_loader.h>
#include <loom/data/dataset.h>
#include <loom/data/fashion_mnist.h>
#include <loom/data/readers/csv.h>
#include <loom/data/readers/idx.h>
#include <loom/data/readers/text.h>
#include <loom/distributed/ddp.h>
#include <loom/fabric/csv_logger.h>
#include <loom/fabric/fabric.h>
#include <loom/fabric/progress.h>
#include <loom/nn/nn.h>
#include <loom/nn/optim/optim.h>
#include <loom/tensor/create.h>
#include <loom/tensor/dlpack.h>
#include <loom/tensor/npy.h>
#include <loom/tensor/safetensors.h>
