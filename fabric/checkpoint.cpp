// fabric.save and fabric.load: one safetensors file. Tensors are named "entry/name", small values stand under the same
// names in the metadata; "loom.entries" lists the entries.
#include <algorithm>
#include <sstream>

#include <loom/fabric/directory_lock.h>
#include <loom/fabric/fabric.h>
#include <loom/tensor/context.h>
#include <loom/tensor/raw.h>
#include <loom/tensor/safetensors.h>

namespace loom {

namespace {

constexpr const char* entries_key = "loom.entries";
constexpr const char* format_key = "loom.format";
constexpr const char* format_value = "checkpoint 1";
constexpr const char* own_prefix = "loom.";  // entries that Fabric adds by itself

// What f does wrong on any rank is raised on all.
void together(Communicator& ranks, const std::function<void()>& f) {
  std::string error;
  try {
    f();
  } catch (const std::exception& e) {
    error = e.what()[0] ? e.what() : "an exception without a text";
  }
  ranks.agree(error);
}

struct File {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

void add_entry(File& file, const std::string& name, const StateDict& state) {
  check(name.find('/') == std::string::npos, "save: the name '", name, "' of an entry must not contain '/'");
  auto& list = file.metadata[entries_key];
  list += (list.empty() ? "" : "/") + name;
  for (const auto& [key, tensor] : state.tensors)
    file.tensors.emplace(name + "/" + key, raw::to_device(tensor.detach(), Device::cpu));
  for (const auto& [key, value] : state.values) file.metadata.emplace(name + "/" + key, value);
}

std::vector<std::string> entry_names(const File& file) {
  std::vector<std::string> names;
  std::istringstream list(file.metadata.count(entries_key) ? file.metadata.at(entries_key) : "");
  for (std::string name; std::getline(list, name, '/');) names.push_back(name);
  return names;
}

StateDict entry_of(const File& file, const std::string& name) {
  StateDict out;
  const std::string prefix = name + "/";
  for (auto it = file.tensors.lower_bound(prefix); it != file.tensors.end() && it->first.starts_with(prefix); ++it)
    out.tensors.emplace(it->first.substr(prefix.size()), it->second);
  for (auto it = file.metadata.lower_bound(prefix); it != file.metadata.end() && it->first.starts_with(prefix); ++it)
    out.values.emplace(it->first.substr(prefix.size()), it->second);
  return out;
}

File read_file(const std::filesystem::path& path) {
  check(std::filesystem::exists(path), "load: checkpoint file not found: ", path.string());
  SafetensorsFile read = load_safetensors(path);
  return {std::move(read.tensors), std::move(read.metadata)};
}

StateDict deep_copy(StateDict state) {
  for (auto& [name, tensor] : state.tensors) tensor = raw::clone(tensor);
  return state;
}

// Loads all entries or none: what was replaced is put back when a later one does not fit.
void load_entries(const File& file, const State& state, bool strict) {
  const auto names = entry_names(file);
  std::vector<std::pair<const StateEntry*, StateDict>> replaced;
  for (const auto& [name, entry] : state) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      check(!strict || name.starts_with(own_prefix), "load: the requested state contains a key '", name,
            "' that does not exist in the loaded checkpoint; to disable strict loading, set strict=false");
      continue;
    }
    StateDict before = deep_copy(entry.save());
    try {
      entry.load(entry_of(file, name), strict);
      replaced.emplace_back(&entry, std::move(before));
    } catch (const std::exception& error) {
      for (auto it = replaced.rbegin(); it != replaced.rend(); ++it) it->first->load(it->second, true);
      fail("load: entry '", name, "': ", error.what());
    }
  }
}

}  // namespace

// Every rank's random state (equal in most programs, but not in all), the step and where the loaders are. Collective.
State Fabric::with_own_state(State state) {
  StateDict random;
  const Generator& mine = context().generator;
  const auto all = communicator().all_gather_bytes(str(mine.seed, " ", mine.offset));
  for (size_t r = 0; r < all.size(); ++r) random.values["rank " + std::to_string(r)] = all[r];
  const auto save_random = [random] { return random; };
  const auto load_random = [this](const StateDict& saved, bool) {
    const auto mine = saved.values.find("rank " + std::to_string(global_rank()));
    const std::string& text = mine != saved.values.end() ? mine->second : saved.values.at("rank 0");
    std::istringstream(text) >> context().generator.seed >> context().generator.offset;
  };
  state.emplace_back("loom.random", StateEntry(save_random, load_random));
  state.emplace_back("loom.step", StateEntry(global_step_));
  for (size_t i = 0; i < loaders_.size(); ++i) state.emplace_back("loom.loader " + std::to_string(i), loaders_[i]);
  return state;
}

void Fabric::note_loader(StateEntry position) { loaders_.push_back(std::move(position)); }

void Fabric::lock_directory(const std::filesystem::path& directory) {
  const bool held =
      std::any_of(locks_.begin(), locks_.end(), [&](const auto& l) { return l->directory() == directory; });
  if (!held) locks_.push_back(std::make_shared<DirectoryLock>(directory));
}

void Fabric::save(const std::filesystem::path& path, const State& state) {
  require_launched("save");
  File file;
  file.metadata[format_key] = format_value;
  for (const auto& [name, entry] : with_own_state(state)) add_entry(file, name, entry.save());
  together(communicator(), [&] {
    if (!is_global_zero()) return;
    const auto directory = std::filesystem::absolute(path).parent_path();
    lock_directory(directory);
    save_safetensors(path, file.tensors, file.metadata);
  });
}

std::vector<std::string> Fabric::load(const std::filesystem::path& path, const State& state, bool strict) {
  require_launched("load");
  File file;
  together(communicator(), [&] {
    file = read_file(path);
    const auto format = file.metadata.find(format_key);
    check(format != file.metadata.end() && format->second == format_value, "load: ", path.string(),
          " is not a checkpoint of fabric.save; a file of one module's tensors is read by load_raw");
  });
  const State complete = with_own_state(state);
  together(communicator(), [&] { load_entries(file, complete, strict); });
  std::vector<std::string> rest;
  for (const std::string& name : entry_names(file)) {
    const bool known =
        std::any_of(complete.begin(), complete.end(), [&](const auto& entry) { return entry.first == name; });
    if (!known && !name.starts_with(own_prefix)) rest.push_back(name);
  }
  return rest;
}

void Fabric::load_raw(const std::filesystem::path& path, const StateEntry& entry, bool strict) {
  require_launched("load_raw");
  together(communicator(), [&] {
    File file = read_file(path);
    entry.load({std::move(file.tensors), std::move(file.metadata)}, strict);
  });
}

}  // namespace loom
