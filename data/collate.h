// Samples to a batch, as torch.utils.data.default_collate: tensors are stacked, numbers become a tensor (integers i64,
// floating ones f32, bool boolean), texts a vector; tuples, pairs, arrays, vectors and plain structs go member by
// member. A struct whose members are all tensors stays that struct; another becomes the tuple of its members' batches.
#pragma once

#include <array>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/tensor/create.h>
#include <loom/tensor/nested.h>
#include <loom/tensor/tensor.h>

namespace loom::data {

// One tensor of shape [samples, ...]. All samples have one shape, dtype and device, else Error.
Tensor stack_samples(std::span<const Tensor> samples);

namespace collate_detail {

template <class T>
inline constexpr bool is_array = false;
template <class T, size_t n>
inline constexpr bool is_array<std::array<T, n>> = true;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_tuple = false;
template <class... T>
inline constexpr bool is_tuple<std::tuple<T...>> = true;
template <class A, class B>
inline constexpr bool is_tuple<std::pair<A, B>> = true;

template <class Tuple>
inline constexpr bool all_tensors = false;
template <class... T>
inline constexpr bool all_tensors<std::tuple<T&...>> = (std::is_same_v<std::remove_const_t<T>, Tensor> && ...);

template <class T>
auto column(std::span<const T> samples, const auto& member) {
  std::vector<std::remove_cvref_t<decltype(member(samples[0]))>> out;
  out.reserve(samples.size());
  for (const T& sample : samples) out.push_back(member(sample));
  return out;
}

template <class T>
Tensor numbers(std::span<const T> samples) {
  using Stored = std::conditional_t<std::is_floating_point_v<T>, float,
                                    std::conditional_t<std::is_same_v<T, bool>, uint8_t, int64_t>>;
  std::vector<Stored> values;
  values.reserve(samples.size());
  for (const T value : samples) values.push_back(static_cast<Stored>(value));
  const DType dtype = std::is_same_v<T, bool> ? DType::boolean : dtype_of<Stored>();
  return from_vector(values, Dims{static_cast<int64_t>(values.size())}, {dtype, Device::cpu});
}

}  // namespace collate_detail

struct DefaultCollate {
  template <class T>
  auto operator()(std::span<const T> samples) const {
    using namespace collate_detail;
    if constexpr (std::is_same_v<T, Tensor>)
      return stack_samples(samples);
    else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>)
      return numbers(samples);
    else if constexpr (std::is_same_v<T, std::string>)
      return std::vector<std::string>(samples.begin(), samples.end());
    else if constexpr (is_tuple<T>)
      return tuples(samples, std::make_index_sequence<std::tuple_size_v<T>>());
    else if constexpr (is_array<T>)
      return arrays(samples);
    else if constexpr (is_vector<T>)
      return vectors(samples);
    else
      return structs(samples);
  }

 private:
  template <class T>
  auto of(const std::vector<T>& samples) const {
    if constexpr (std::is_same_v<T, bool>)
      return of_booleans(samples);
    else
      return (*this)(std::span<const T>(samples));
  }
  static Tensor of_booleans(const std::vector<bool>& samples) {  // packed: there is no span of bool
    const std::vector<uint8_t> bytes(samples.begin(), samples.end());
    return from_vector(bytes, Dims{static_cast<int64_t>(bytes.size())}, {DType::boolean, Device::cpu});
  }
  template <class T, size_t... i>
  auto tuples(std::span<const T> samples, std::index_sequence<i...>) const {
    const auto member = [&]<size_t at>() {
      return of(collate_detail::column(samples, [](const T& sample) { return std::get<at>(sample); }));
    };
    if constexpr (requires(T t) { t.first; }) {
      return std::pair{member.template operator()<0>(), member.template operator()<1>()};
    } else {
      return std::tuple{member.template operator()<i>()...};
    }
  }
  template <class T>
  auto arrays(std::span<const T> samples) const {
    using Member = decltype(of(collate_detail::column(samples, [](const T& sample) { return sample[0]; })));
    std::array<Member, std::tuple_size_v<T>> out;
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = of(collate_detail::column(samples, [i](const T& sample) { return sample[i]; }));
    return out;
  }
  template <class T>
  auto vectors(std::span<const T> samples) const {
    using Value = typename T::value_type;
    std::vector<decltype(of(std::vector<Value>()))> out;
    for (size_t k = 0; k < samples.size(); ++k)
      check(samples[k].size() == samples[0].size(), "collate: sample ", k, " is a list of ", samples[k].size(),
            ", sample 0 one of ", samples[0].size(), "; give the loader a collate function");
    for (size_t i = 0; !samples.empty() && i < samples[0].size(); ++i)
      out.push_back(of(collate_detail::column(samples, [i](const T& sample) -> Value { return sample[i]; })));
    return out;
  }
  template <class T>
  auto structs(std::span<const T> samples) const {
    static_assert(OpenStruct<T>,
                  "no default collation for this type of sample, which is no struct of 1 to 8 members "
                  "without arrays and base classes: give the loader a collate function");
    using Members = decltype(tie_members(std::declval<const T&>()));
    return [&]<size_t... i>(std::index_sequence<i...>) {
      const auto member = [&]<size_t at>() {
        return of(collate_detail::column(samples, [](const T& s) { return std::get<at>(tie_members(s)); }));
      };
      if constexpr (collate_detail::all_tensors<Members>)
        return T{member.template operator()<i>()...};
      else
        return std::tuple{member.template operator()<i>()...};
    }(std::make_index_sequence<std::tuple_size_v<Members>>());
  }
};

}  // namespace loom::data
