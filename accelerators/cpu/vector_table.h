// SPDX-License-Identifier: Apache-2.0
// erfc, GELU and powers of floats from tables in registers: no division, and few steps. Coefficients: least squares,
// weighted until the error is even, each rounded before the next is fitted; of what the last place counts in erfc and
// powers. A piece of erfc has its `at` where the value and the slope are nearly floats.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include <loom/accelerators/cpu/lookup.h>
#include <loom/accelerators/cpu/vector_erfc.h>
#include <loom/accelerators/cpu/vector_pow.h>

namespace loom::cpu::vector_math {

// The piece of a is the whole number next to (a + 2)^2, as their slope and curvature ask for.
inline constexpr Pieces<32, 6> erfc_pieces = {
    {3.65635729f,  3.74407005f,  3.83067083f, 3.91585732f, 0.0f,        0.233279213f, 0.447372407f, 0.644009054f,
     0.827095747f, 0.998921633f, 1.16142309f, 1.31570947f, 1.46327066f, 1.60478258f,  1.74102163f,  1.87262022f,
     1.99949014f,  2.12246203f,  2.24235225f, 2.35856843f, 2.47180915f, 2.58231139f,  2.6898942f,   2.79538059f,
     2.89863467f,  2.99999166f,  3.09845805f, 3.19580984f, 3.29120088f, 3.38506222f,  3.47687817f,  3.5676949f},
    {{2.33006546e-07f, 1.19072013e-07f, 6.04764665e-08f, 3.0619244e-08f,  1.0f,
      0.741470516f,    0.526942551f,    0.362418503f,    0.242125735f,    0.157747328f,
      0.100486368f,    0.0627873763f,   0.0385107026f,   0.0232376158f,   0.0138096726f,
      0.00809013098f,  0.00468828296f,  0.0026855194f,   0.00151828898f,  0.000851401943f,
      0.000472880172f, 0.000260266912f, 0.000142329387f, 7.70919287e-05f, 4.14422248e-05f,
      2.2091659e-05f,  1.17658856e-05f, 6.19689808e-06f, 3.24829443e-06f, 1.69123518e-06f,
      8.78588992e-07f, 4.52378259e-07f},
     {-1.76357707e-06f, -9.21485935e-07f, -4.78190429e-07f, -2.47178207e-07f, -1.12837923f,     -1.0686146f,
      -0.923707485f,    -0.74530226f,     -0.569324255f,    -0.416003257f,    -0.292842209f,    -0.199825823f,
      -0.132605225f,    -0.0859022811f,   -0.0544553548f,   -0.0338463448f,   -0.0207091719f,   -0.0124745732f,
      -0.00739196735f,  -0.00433054101f,  -0.00250602304f,  -0.00143362384f,  -0.000813025108f, -0.00045583921f,
      -0.000253207632f, -0.000139260024f, -7.63899006e-05f, -4.13921916e-05f, -2.22933759e-05f, -1.19131946e-05f,
      -6.34464413e-06f, -3.34626861e-06f},
     {6.44826741e-06f, 3.45010767e-06f, 1.83178997e-06f, 9.67914502e-07f, 6.76702984e-06f, 0.249285594f,
      0.413241535f,    0.479981005f,    0.470885664f,    0.415554613f,    0.340113521f,    0.26291275f,
      0.194037423f,    0.137854487f,    0.0948079452f,   0.0633813366f,   0.0414077863f,   0.0264767986f,
      0.0165753942f,   0.0102138761f,   0.00619441178f,  0.00370206358f,  0.00218695123f,  0.00127424404f,
      0.000733956287f, 0.000417778909f, 0.000236690932f, 0.000132281566f, 7.33719789e-05f, 4.03269041e-05f,
      2.20595539e-05f, 1.19384649e-05f},
     {-1.51302065e-05f, -8.30443605e-06f, -4.51857386e-06f, -2.44440798e-06f, 0.375871032f,     0.317434371f,
      0.184654206f,     0.0423592553f,    -0.0698702335f,   -0.138069302f,    -0.165729642f,    -0.164002419f,
      -0.145084456f,    -0.118850231f,    -0.0918901116f,   -0.0678439736f,   -0.0482932776f,   -0.0333058126f,
      -0.0223145857f,   -0.0146165676f,   -0.00937225297f,  -0.00589537947f,  -0.00365076796f,  -0.00222271727f,
      -0.00133391051f,  -0.000789134239f, -0.000463453965f, -0.000268033269f, -0.000153556466f, -8.70347867e-05f,
      -4.90172351e-05f, -2.7279697e-05f},
     {2.55122086e-05f, 1.43966226e-05f, 8.04427327e-06f, 4.4634844e-06f,  0.00423659151f,  -0.120123424f,
      -0.179122448f,   -0.173517674f,   -0.128063694f,   -0.0695433021f,  -0.0170548651f,  0.0202423185f,
      0.0414275713f,   0.0494117774f,   0.0483915471f,   0.0424024388f,   0.034477517f,    0.0265254527f,
      0.0194937345f,   0.0138333738f,   0.00951754767f,  0.00637755729f,  0.00418135943f,  0.00268196687f,
      0.00168873346f,  0.00104444288f,  0.000639083039f, 0.000384209154f, 0.000228236648f, 0.000133868627f,
      7.7861725e-05f,  4.46844315e-05f},
     {-3.2848191e-05f,  -1.91165218e-05f, -1.09988514e-05f, -6.27423469e-06f, -0.14516741f,     -0.0836781561f,
      -0.0233727023f,   0.0318763182f,    0.063166149f,     0.0690336004f,    0.057584051f,     0.0385152884f,
      0.0193007514f,    0.00396824628f,   -0.00608654926f,  -0.0113933431f,   -0.0130680576f,   -0.0125207817f,
      -0.0107895648f,   -0.0086667221f,   -0.00660238788f,  -0.00482083298f,  -0.00340608926f,  -0.0023340648f,
      -0.0015594149f,   -0.00101801974f,  -0.000653992407f, -0.000411399611f, -0.000254869752f, -0.000155450587f,
      -9.37764344e-05f, -5.57062594e-05f},
     {3.28595343e-05f, 1.98175858e-05f, 1.17802911e-05f, 6.93723905e-06f, 0.0959312022f,    0.0385549329f,
      0.0554373823f,   0.0308550913f,   0.0163526069f,   -0.00578238536f, -0.0254701357f,   -0.021135252f,
      -0.0153176021f,  -0.0151278945f,  -0.0097333556f,  -0.00505809067f, -0.000344468921f, 0.000843843154f,
      0.00281789224f,  0.0029496206f,   0.0030714788f,   0.00249575172f,  0.00188178674f,   0.00144686445f,
      0.00102565542f,  0.000737476221f, 0.000506895187f, 0.000332076859f, 0.000217831737f,  0.000138934469f,
      8.73134632e-05f, 5.3895852e-05f}}};
inline constexpr float erfc_end = 3.95f;  // of its last piece

// erfc(x) where x > erfc_end, or NaN; else y.
[[gnu::noinline]] inline Vec<float> erfc_beyond_pieces(Vec<float> x, Vec<float> y) {
  float from[lanes<float>], to[lanes<float>];
  store(from, x);
  store(to, y);
  for (int i = 0; i < lanes<float>; ++i) to[i] = from[i] <= erfc_end ? to[i] : erfc_in_float(from[i]);
  return load(to);
}

// To 0.81 units in the last place. Below -erfc_end it is 2.
struct ErfcByTable {
  template <int count>
  [[gnu::always_inline]] void operator()(Vec<float> (&y)[count], const Vec<float> (&x)[count]) const {
    Vec<float> a[count];
    Vec<uint32_t> piece[count];
    for (int v = 0; v < count; ++v) {
      a[v] = magnitude_up_to(x[v], erfc_end);
      const Vec<float> shifted = a[v] + 2.0f;
      piece[v] = (Vec<uint32_t>)fma(shifted, shifted, broadcast(rounder<float>));
    }
    in_pieces(y, erfc_pieces, a, piece);
    for (int v = 0; v < count; ++v) y[v] = x[v] < 0.0f ? 2.0f - y[v] : y[v];
    if (!all_up_to(x, erfc_end)) [[unlikely]]
      for (int v = 0; v < count; ++v) y[v] = erfc_beyond_pieces(x[v], y[v]);
  }
};
inline void erfc_by_table(float* y, const float* x, int64_t n) { map_pairs(y, x, n, ErfcByTable()); }

// A piece's number is the whole number next to a (slope + bend a).
struct GeluPieces {
  float slope, bend, end;  // what is at `end` or further is in the last piece
  Pieces<16, 4> pieces;
};
// Phi(a) - 1/2, 1/2 in the last piece.
inline constexpr GeluPieces gelu_pieces = {
    4.296296f,
    -0.2983539f,
    5.7f,
    {{0.0f, 0.237688228f, 0.48278448f, 0.737182498f, 1.00203109f, 1.2787379f, 1.56905854f, 1.87523186f, 2.20018935f,
      2.54790092f, 2.92398071f, 3.33684492f, 3.80021501f, 4.33962727f, 5.01629686f, 5.40000105f},
     {{0.0f, 0.0939385444f, 0.185375616f, 0.269494325f, 0.341835707f, 0.399505317f, 0.441682845f, 0.469619572f,
       0.486103266f, 0.494581342f, 0.498272061f, 0.49957633f, 0.4999277f, 0.499992877f, 0.499999732f, 0.5f},
      {0.398942143f, 0.387830138f, 0.355055928f, 0.304021299f, 0.241479665f, 0.176132351f, 0.116495356f, 0.0687568709f,
       0.0354599804f, 0.0155319963f, 0.00555056892f, 0.00152383547f, 0.000291460135f, 3.24081811e-05f, 1.35353389e-06f,
       0.0f},
      {1.11558738e-05f, -0.0460916013f, -0.0857077911f, -0.112064265f, -0.120983861f, -0.112613179f, -0.0913929269f,
       -0.0644663721f, -0.0390095189f, -0.01978793f, -0.00811494514f, -0.00254333392f, -0.000553343853f,
       -7.07429717e-05f, -3.29779004e-06f, 0.0f},
      {-0.0667741299f, -0.060831286f, -0.0452892669f, -0.0231335852f, 7.24402853e-05f, 0.0184943154f, 0.0282332227f,
       0.0287423152f, 0.0226731263f, 0.0142478477f, 0.00703788362f, 0.00261861342f, 0.000674655137f, 0.000102445651f,
       6.40364215e-06f, 0.0f},
      {0.00285910303f, 0.0112875169f, 0.0197060276f, 0.0231554173f, 0.0200409498f, 0.0128029119f, 0.00410605036f,
       -0.00274988962f, -0.00593865709f, -0.00572798634f, -0.00376639143f, -0.00173321692f, -0.000547164818f,
       -9.45553329e-05f, -7.64301603e-06f, 0.0f}}}};
// Phi to 5e-8
inline void gelu_by_table(float* y, const float* x, int64_t n) {
  const auto gelu = [](Vec<float> v) __attribute__((always_inline)) {
    constexpr const GeluPieces& f = gelu_pieces;
    const Vec<float> a[] = {magnitude_up_to(v, f.end)}, rise = fma(a[0], broadcast(f.bend), broadcast(f.slope));
    const Vec<uint32_t> piece[] = {(Vec<uint32_t>)fma(a[0], rise, broadcast(rounder<float>))};
    Vec<float> size[1];
    in_pieces(size, f.pieces, a, piece);
    return v * (0.5f + (Vec<float>)((Vec<uint32_t>)size[0] | ((Vec<uint32_t>)v & 0x80000000u)));
  };
  map_vectors(y, n, gelu, x);
}

// x = 2^e z, log2(z) = log_high + log_low + log2(1 + r), r = z * inverse - 1; 2^(j / 16) = root (1 + root_low)
struct PowerTables {
  alignas(64) float inverse[32], log_high[32], log_low[32], root[16], root_low[16];
};
// Short numbers, so that r, and e + log_high, are exact. z = 1 has an inverse of 1.
inline constexpr PowerTables power_tables = {
    {1.390625f, 1.359375f,  1.328125f, 1.3125f,  1.28125f,  1.25f,      1.234375f,  1.203125f,
     1.1875f,   1.15625f,   1.140625f, 1.125f,   1.109375f, 1.078125f,  1.0625f,    1.046875f,
     1.03125f,  1.015625f,  1.0f,      0.96875f, 0.9375f,   0.9140625f, 0.890625f,  0.859375f,
     0.84375f,  0.8203125f, 0.796875f, 0.78125f, 0.765625f, 0.7421875f, 0.7265625f, 0.7109375f},
    {-0.475738525f,  -0.442947388f,  -0.409393311f,  -0.392318726f,  -0.357559204f, -0.321929932f, -0.303787231f,
     -0.266784668f,  -0.247924805f,  -0.209457397f,  -0.189819336f,  -0.169921875f, -0.149749756f, -0.108520508f,
     -0.0874633789f, -0.0660858154f, -0.0443878174f, -0.0223693848f, 0.0f,          0.0458068848f, 0.0931091309f,
     0.129638672f,   0.167114258f,   0.218643188f,   0.245117188f,   0.285751343f,  0.327575684f,  0.356140137f,
     0.385284424f,   0.430145264f,   0.460845947f,   0.492202759f},
    {5.09442407e-06f,
     3.89184652e-06f,
     2.37440918e-06f,
     1.30280716e-06f,
     7.19948366e-06f,
     1.83675331e-06f,
     6.48326841e-06f,
     -1.8727261e-06f,
     -2.70875603e-06f,
     4.03183185e-06f,
     -5.22294249e-06f,
     -3.12644238e-06f,
     2.63635479e-06f,
     -3.94896551e-06f,
     5.37655922e-07f,
     -3.37502797e-06f,
     -6.30197565e-06f,
     1.57173713e-06f,
     0.0f,
     -3.19515243e-06f,
     2.73532095e-07f,
     -3.39145845e-06f,
     -4.2719771e-06f,
     -2.90200114e-06f,
     -4.68966346e-06f,
     3.13956048e-06f,
     -1.02556521e-06f,
     3.67350663e-06f,
     5.73205671e-06f,
     -8.72002829e-07f,
     -4.75837351e-06f,
     2.60101228e-06f},
    {1.0f, 1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f, 1.29683959f, 1.35425556f, 1.41421354f,
     1.47682619f, 1.54221082f, 1.61049032f, 1.68179286f, 1.75625217f, 1.8340081f, 1.91520655f},
    {0.0f, 4.62854715e-08f, -1.19921575e-08f, 4.72978243e-08f, 3.19341815e-08f, 3.62105723e-08f, -3.09907193e-08f,
     -7.47521334e-09f, 1.71142709e-08f, -3.04768335e-08f, 5.23333421e-09f, 6.10759177e-09f, -1.47196051e-08f,
     -5.25879518e-09f, -6.12825968e-09f, 5.14060927e-09f}};
inline constexpr float by_table_limit = 32.0f;  // of |y|: further up log2(x) would have to be more exact

// |x|^y, 0.62 units in the last place (0.78 of subnormal results), for |y| up to by_table_limit; plain: all x are
// normal and positive. Else what it gives for zeros, infinities and NaN is of no use.
template <bool plain>
[[gnu::always_inline]] inline Vec<float> power_by_table(Vec<float> x, Vec<float> y) {
  constexpr const PowerTables& t = power_tables;
  constexpr uint32_t least = 0x3f360000;  // the bits of 0.7109375, where z begins
  Vec<float> size = x;
  [[maybe_unused]] Vec<float> shift{};
  if constexpr (!plain) {
    const auto a = (Vec<float>)((Vec<uint32_t>)x & 0x7fffffffu);
    const auto tiny = a < std::numeric_limits<float>::min();
    size = tiny ? a * 0x1p23f : a;
    shift = tiny ? broadcast(23 * 0x1p23f) : Vec<float>{};
  }
  const Vec<uint32_t> bits = (Vec<uint32_t>)size - least, power = bits & 0xff800000u, i = bits >> 18;
  Vec<float> e = __builtin_convertvector((Vec<int32_t>)power, Vec<float>);  // times 2^23
  if constexpr (!plain) e -= shift;
  const Vec<float> r = fma((Vec<float>)((Vec<uint32_t>)size - power), lookup(t.inverse, i), broadcast(-1.0f));
  const Vec<float> whole = fma(e, broadcast(0x1p-23f), lookup(t.log_high, i)), unit = broadcast(1.44269502f);
  const Vec<float> high = fma(r, unit, whole), lost = fma(r, unit, whole - high);
  const Vec<float> bend = fma(r, fma(r, broadcast(-0.360787749f), broadcast(0.481039733f)), broadcast(-0.721347511f));
  const Vec<float> low = lost + fma(r, fma(r, bend, broadcast(5.4095679e-09f)), lookup(t.log_low, i));
  // y (high + low) = n + u, n in sixteenths
  const Vec<float> shifted = fma(high, y, broadcast(0x1.8p19f)), n = shifted - 0x1.8p19f;
  const Vec<float> u = fma(low, y, fma(high, y, -n)), root = lookup(t.root, (Vec<uint32_t>)shifted);
  const Vec<float> q = fma(u, fma(u, broadcast(0.055503618f), broadcast(0.240235925f)), broadcast(0.693147182f));
  return times_power_of_two(fma(root, fma(u, q, lookup(t.root_low, (Vec<uint32_t>)shifted)), root), n);
}

// x^y of any numbers; the same for ordinary ones.
[[gnu::noinline]] inline Vec<float> any_power_by_table(Vec<float> x, Vec<float> y) {
  constexpr int n = lanes<float>;
  float base[n], exponent[n], result[n];
  store(base, x);
  store(exponent, y);
  store(result, power_by_table<false>(x, y));
  for (int i = 0; i < n; ++i) result[i] = power_of_finite(result[i], base[i], exponent[i]);
  uint32_t large = 0, larger = 0;
  for (int i = 0; i < n; ++i) {
    large |= magnitude(exponent[i]) <= by_table_limit ? 0 : 1;
    larger |= magnitude(exponent[i]) <= power_limit ? 0 : 1;
  }
  if (large != 0)
    for (int i = 0; i < n; ++i)
      result[i] = magnitude(exponent[i]) <= by_table_limit ? result[i] : power(base[i], exponent[i]);
  if (larger != 0)
    for (int i = 0; i < n; ++i)
      if (!(magnitude(exponent[i]) <= power_limit)) result[i] = std::pow(base[i], exponent[i]);
  return load(result);
}

[[gnu::always_inline]] inline Vec<float> one_power_by_table(Vec<float> x, Vec<float> y) {
  if (all_plain(x, y, by_table_limit)) [[likely]]
    return power_by_table<true>(x, y);
  return any_power_by_table(x, y);
}

// x[i]^exponent[i], x[i]^exponent
inline void powers_by_table(float* y, const float* x, int64_t n, const float* exponent) {
  const auto power = [](Vec<float> v, Vec<float> e) __attribute__((always_inline)) { return one_power_by_table(v, e); };
  map_vectors(y, n, power, x, exponent);
}
inline void powers_by_table(float* y, const float* x, int64_t n, float exponent) {
  const Vec<float> e = broadcast(exponent);
  const auto power = [=](Vec<float> v) __attribute__((always_inline)) { return one_power_by_table(v, e); };
  map_vectors(y, n, power, x);
}

// 2^x to two units in the last place, for |x| below 2^17.
[[gnu::always_inline]] inline Vec<float> exp2_by_table(Vec<float> x) {
  const Vec<float> shifted = x + 0x1.8p19f, n = shifted - 0x1.8p19f, u = x - n;  // n in sixteenths
  const Vec<float> q = fma(u, fma(u, broadcast(0.055503618f), broadcast(0.240235925f)), broadcast(0.693147182f));
  const Vec<float> root = lookup(power_tables.root, (Vec<uint32_t>)shifted);
  return times_power_of_two(fma(root * u, q, root), n);
}

// x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))); NaN of -infinity, as the formula gives.
inline void gelu_tanh_by_table(float* y, const float* x, int64_t n) {
  const auto gelu = [](Vec<float> v) __attribute__((always_inline)) {
    const Vec<float> power = v * fma(v * v, broadcast(-0.10294324f), broadcast(-2.3022082f));
    return v / (1.0f + exp2_by_table(within(power, -64.0f, 128.0f)));
  };
  map_vectors(y, n, gelu, x);
}

}  // namespace loom::cpu::vector_math
