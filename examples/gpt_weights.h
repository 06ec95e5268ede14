// GPT-2's weights in the files that Hugging Face's transformers reads and writes.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include <loom/loom.h>

#include "gpt.h"

namespace loom {

// With or without the prefix of a model that has a head. A table of more positions than the model's is cut.
inline void load_gpt2(Gpt& net, const std::filesystem::path& path) {
  const SafetensorsReader file(path);
  std::map<std::string, Tensor> values;
  for (const auto& [key, entry] : file.entries()) {
    std::string name = key;
    if (name.starts_with("transformer.")) name = name.substr(std::string_view("transformer.").size());
    // Masks that old versions saved, which are no weights.
    if (name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))) continue;
    values[name] = file.read(key);
  }
  if (const auto head = values.find("lm_head.weight"); head != values.end()) {
    const auto table = values.find("wte.weight");
    check(table != values.end() && head->second.shape() == table->second.shape() &&
              all(head->second == table->second).item<bool>(),
          "--init ", path.string(),
          ": lm_head.weight differs from wte.weight; GPT-2's output layer is its token table");
    values.erase(head);
  }
  if (const auto positions = values.find("wpe.weight");
      positions != values.end() && positions->second.dim() == 2 && positions->second.size(0) > net.config.block_size)
    positions->second = positions->second.narrow(0, 0, net.config.block_size);
  try {
    nn::load_state_dict(net, values);
  } catch (const Error& error) {
    fail("--init ", path.string(), ": ", error.what());
  }
}

// Rank 0 writes; all ranks call, which a model in pieces needs.
template <class Model>
void save_gpt2(Fabric& fabric, Model& model, const std::filesystem::path& path) {
  const StateDict state = StateEntry(model).save();
  if (fabric.is_global_zero()) save_safetensors(path, state.tensors, {{"format", "pt"}});
}

}  // namespace loom
