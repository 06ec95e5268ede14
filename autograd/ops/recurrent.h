// The steps of recurrent layers, once the inputs' part of the gates is known.
#pragma once

#include <utility>

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/tensor.h>

namespace loom {

// gates [T, N, G * H]: the inputs' part, bias included, G = 1 (tanh, relu), 3 (gru: reset, update, candidate), 4 (lstm:
// in, forget, cell, out); w_hh [G * H, H], b_hh [G * H] or undefined, h_0 [N, H], c_0 [N, H] (lstm). The states after
// each step [T, N, H], where `reverse` steps from the last position to the first, and of an LSTM the last c [N, H]. All
// of one floating dtype; those of 16 bits are computed in f32 and rounded at the end.
std::pair<Tensor, Tensor> recurrent_steps(RecurrentCell cell, const Tensor& gates, const Tensor& w_hh,
                                          const Tensor& b_hh, const Tensor& h_0, const Tensor& c_0, bool reverse);

}  // namespace loom
