// SPDX-License-Identifier: Apache-2.0
// exp, sigmoid, SiLU and tanh of floats from tables in registers. Coefficients as in vector_table.h.
#pragma once

#include <cstdint>

#include <loom/accelerators/cpu/lookup.h>
#include <loom/accelerators/cpu/vector_table.h>

namespace loom::cpu::vector_math {

// exp(x) = size 2^power, power in sixteenths of which what is no whole number counts nothing.
struct TableExp {
  Vec<float> size, power;
};

// To one unit in the last place, of -104 <= x <= 104; NaN stays NaN.
[[gnu::always_inline]] inline TableExp exp_of_bounded(Vec<float> x) {
  const Vec<float> shifted = fma(x, broadcast(1.44269504f), broadcast(0x1.8p19f)), n = shifted - 0x1.8p19f;
  const Vec<float> u = fma(n, broadcast(1.90465432e-9f), fma(n, broadcast(-0.693147181f), x));
  const Vec<float> excess = fma(u * u, fma(u, broadcast(0.16666719f), broadcast(0.50001622f)), u);
  const Vec<float> root = lookup(power_tables.root, (Vec<uint32_t>)shifted);
  return {fma(root, excess, root), n};
}

// Overflows to infinity, underflows through the subnormals to 0.
inline void exp_by_table(float* y, const float* x, int64_t n) {
  const auto exp = [](Vec<float> v) __attribute__((always_inline)) {
    const TableExp e = exp_of_bounded(within(v, -104.0f, 104.0f));
    return times_power_of_two(e.size, e.power);
  };
  map_vectors(y, n, exp, x);
}

// (1 + exp(-x)) / 2: halved, exp(89) is a float. Sigmoid and SiLU are right to 3.2 units in the last place, and 0 below
// -89.4, where the first's exact results are subnormal.
[[gnu::always_inline]] inline Vec<float> half_logistic_by_table(Vec<float> x) {
  const TableExp e = exp_of_bounded(within(-x, -104.0f, 104.0f));
  return 0.5f + times_power_of_two(e.size, e.power - 1.0f);
}
inline void sigmoid_by_table(float* y, const float* x, int64_t n) {
  const auto sigmoid = [](Vec<float> v) __attribute__((always_inline)) { return 0.5f / half_logistic_by_table(v); };
  map_vectors(y, n, sigmoid, x);
}
inline void silu_by_table(float* y, const float* x, int64_t n) {
  const auto silu = [](Vec<float> v) __attribute__((always_inline)) { return 0.5f * v / half_logistic_by_table(v); };
  map_vectors(y, n, silu, x);
}

// A piece's number is the whole number next to a (slope + bend a); from `end` on tanh is 1.
struct TanhPieces {
  float slope, bend, end;
  Pieces<32, 4> pieces;
};
inline constexpr TanhPieces tanh_pieces = {
    6.8499999f,
    -0.374000013f,
    9.02f,
    {{0.0f,        0.147420809f, 0.297091931f, 0.449178964f, 0.603414237f, 0.76260829f, 0.923541009f, 1.08874106f,
      1.25278282f, 1.42492175f,  1.60067737f,  1.77962124f,  1.96094f,     2.15053892f, 2.34764338f,  2.5470674f,
      2.74894667f, 2.96421361f,  3.18164325f,  3.40672946f,  3.64398456f,  3.89380693f, 4.16459465f,  4.43991995f,
      4.72276545f, 5.02707863f,  5.37124205f,  5.74111557f,  6.17253304f,  6.66072941f, 7.27790308f,  8.31761551f},
     {{0.0f,         0.146362036f, 0.288649082f, 0.421223879f, 0.539474607f, 0.642610729f, 0.727568269f, 0.79641819f,
       0.849062145f, 0.890621185f, 0.921770453f, 0.944654405f, 0.961161494f, 0.973254621f, 0.981889009f, 0.987809539f,
       0.991842628f, 0.994688809f, 0.996558547f, 0.997804642f, 0.998633504f, 0.999170661f, 0.999517381f, 0.999721706f,
       0.999841928f, 0.99991399f,  0.999956787f, 0.999979377f, 0.999991298f, 0.999996722f, 0.999999046f, 0.999999881f},
      {1.0f,
       0.978577316f,
       0.91668123f,
       0.822570562f,
       0.708967745f,
       0.587052226f,
       0.470645159f,
       0.365718573f,
       0.279093802f,
       0.206794009f,
       0.150339216f,
       0.107627966f,
       0.0761684701f,
       0.0527753234f,
       0.0358938724f,
       0.0242322311f,
       0.0162481293f,
       0.0105941193f,
       0.00687101902f,
       0.0043858639f,
       0.00273110019f,
       0.00165797281f,
       0.000964993204f,
       0.000556503248f,
       0.000316111575f,
       0.000172007072f,
       8.64223621e-05f,
       4.12435256e-05f,
       1.7402901e-05f,
       6.55575241e-06f,
       1.90790706e-06f,
       2.36186992e-07f},
      {9.70744804e-06f,  -0.143209726f,   -0.264595717f,    -0.346485555f,    -0.382469267f,    -0.377247214f,
       -0.342427552f,    -0.291266888f,   -0.236967668f,    -0.184175387f,    -0.1385784f,      -0.101671346f,
       -0.0732104853f,   -0.0513639003f,  -0.0352435112f,   -0.0239365641f,   -0.0161155723f,   -0.0105377203f,
       -0.00684735691f,  -0.00437629502f, -0.00272741471f,  -0.0016566246f,   -0.000964465842f, -0.000556317915f,
       -0.000316066929f, -0.00017200553f, -8.64297981e-05f, -4.12460176e-05f, -1.74020461e-05f, -6.52301151e-06f,
       -1.916153e-06f,   -2.37496252e-07f},
      {-0.334134191f,   -0.304512769f,   -0.228820637f,   -0.128318667f,   -0.0303859115f,  0.046233017f,
       0.091803968f,    0.109755404f,    0.107993014f,    0.095039919f,    0.077632308f,    0.0602104962f,
       0.0450294726f,   0.032449495f,    0.0226834882f,   0.015601391f,    0.0105945105f,   0.00696947193f,
       0.00454728166f,  0.0029143896f,   0.00181994133f,  0.00110700692f,  0.000645141059f, 0.00037243127f,
       0.000211839128f, 0.000115375005f, 5.80317537e-05f, 2.77582003e-05f, 1.17444151e-05f, 4.41368866e-06f,
       1.2996137e-06f,  1.78784788e-07f},
      {0.0187940635f,    0.0892719552f,    0.153243676f,     0.169035584f,     0.143371299f,     0.0960657671f,
       0.047450494f,     0.0100295562f,    -0.0127927819f,   -0.0231898688f,   -0.0253071692f,   -0.0229332298f,
       -0.0187934265f,   -0.0144184101f,   -0.0105479304f,   -0.00745417271f,  -0.00512290839f,  -0.00342755928f,
       -0.0022445647f,   -0.00143819069f,  -0.000900582236f, -0.000549977762f, -0.000327310961f, -0.00018891877f,
       -0.000105713101f, -5.68230425e-05f, -2.86851973e-05f, -1.37333982e-05f, -5.91898333e-06f, -2.59399508e-06f,
       -5.96466919e-07f, -8.64317613e-08f}}}};

// To 2.5 units in the last place, 1 where an odd polynomial is taken.
inline void tanh_by_table(float* y, const float* x, int64_t n) {
  const auto tanh = [](Vec<float> v) __attribute__((always_inline)) {
    constexpr const TanhPieces& f = tanh_pieces;
    const auto sign = (Vec<uint32_t>)v & 0x80000000u;
    const Vec<float> a[] = {at_most((Vec<float>)((Vec<uint32_t>)v ^ sign), f.end)};
    const Vec<float> rise = fma(a[0], broadcast(f.bend), broadcast(f.slope));
    const Vec<uint32_t> piece[] = {(Vec<uint32_t>)fma(a[0], rise, broadcast(rounder<float>))};
    Vec<float> size[1];
    in_pieces(size, f.pieces, a, piece);
    return (Vec<float>)((Vec<uint32_t>)size[0] | sign);
  };
  map_vectors(y, n, tanh, x);
}

}  // namespace loom::cpu::vector_math
