// All optimizers and schedulers.
#pragma once

#include <loom/nn/optim/adagrad.h>
#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/cosine.h>
#include <loom/nn/optim/decay.h>
#include <loom/nn/optim/one_cycle.h>
#include <loom/nn/optim/plateau.h>
#include <loom/nn/optim/rmsprop.h>
#include <loom/nn/optim/sequential_schedule.h>
#include <loom/nn/optim/sgd.h>
