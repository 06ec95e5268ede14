// fabric.save and fabric.load: one safetensors file. Tensors are named "entry/name", small values stand under the same
// names in the metadata; "loom.entries" lists the entries.
#include <algorithm>
#include <sstream>

#include <loom/fabric/agreement.h>
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

struct File {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

void check_names(const State& state) {
  for (size_t i = 0; i < state.size(); ++i) {
    const std::string& name = state[i].first;
    check(!name.empty() && name.find('/') == std::string::npos && !name.starts_with(own_prefix), "the name '", name,
          "' of an entry must not be empty, contain '/' or start with '", own_prefix, "'");
    for (size_t k = 0; k < i; ++k) check(state[k].first != name, "the state has two entries named '", name, "'");
  }
}

void add_entry(File& file, const std::string& name, const StateDict& state) {
  auto& list = file.metadata[entries_key];
  list += (list.empty() ? "" : "/") + name;
  for (const auto& [key, tensor] : state.tensors)
    file.tensors.emplace(str(name, '/', key), raw::to_device(tensor.detach(), Device::cpu));
  for (const auto& [key, value] : state.values) file.metadata.emplace(str(name, '/', key), value);
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

File read_checkpoint(const std::filesystem::path& path) {
  File file = read_file(path);
  const auto format = file.metadata.find(format_key);
  check(format != file.metadata.end() && format->second == format_value, "load: ", path.string(),
        " is not a checkpoint of fabric.save; a file of one module's tensors is read by load_raw");
  return file;
}

StateDict deep_copy(StateDict state) {
  for (auto& [name, tensor] : state.tensors) tensor = raw::clone(tensor);
  return state;
}

// What loading has replaced, in the order of doing so.
using Replaced = std::vector<std::pair<StateEntry, StateDict>>;

void load_entries(const File& file, const State& state, bool strict, Replaced& replaced) {
  const auto names = entry_names(file);
  for (const auto& named : state) {
    const std::string& name = named.first;
    const StateEntry& entry = named.second;
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      check(!strict || name.starts_with(own_prefix), "the requested state contains a key '", name,
            "' that does not exist in the loaded checkpoint; to disable strict loading, set strict=false");
      continue;
    }
    StateDict before = deep_copy(entry.save());
    const std::string error = error_of([&] { entry.load(entry_of(file, name), strict); });
    check(error.empty(), "entry '", name, "': ", error);
    replaced.emplace_back(entry, std::move(before));
  }
}

void put_back(const Replaced& replaced) {
  for (auto it = replaced.rbegin(); it != replaced.rend(); ++it) it->first.load(it->second, true);
}

// A save that was killed has left its temporary, FILE.<numbers>.tmp. Only for who holds the directory's lock.
void remove_leftovers(const std::filesystem::path& path) {
  const std::string prefix = path.filename().string() + ".", suffix = ".tmp";
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::absolute(path).parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.size() > prefix.size() + suffix.size() && name.starts_with(prefix) && name.ends_with(suffix) &&
        name.find_first_not_of("0123456789.", prefix.size()) == name.size() - suffix.size() + 1)
      std::filesystem::remove(entry.path(), ignored);
  }
}

// One rank's generator.
StateEntry random_state(int rank, std::vector<std::string> all) {
  const auto save = [all = std::move(all)] {
    StateDict out;
    for (size_t r = 0; r < all.size(); ++r) out.values["rank " + std::to_string(r)] = all[r];
    return out;
  };
  // A checkpoint of fewer ranks: the draws of one rank differ from another's by its number, not by the generator.
  const auto load = [rank](const StateDict& saved, bool) {
    const std::string own = "rank " + std::to_string(rank);
    std::istringstream text(saved.value(saved.values.contains(own) ? own : "rank 0"));
    Generator read;
    check(static_cast<bool>(text >> read.seed >> read.offset), "'", text.str(), "' is no state of a generator");
    context().generator = read;
  };
  return {save, load};
}

}  // namespace

// Every rank's random state (equal in most programs, but not in all), the step and where the loaders are. Collective.
State Fabric::with_own_state(State state) {
  const Generator& mine = context().generator;
  state.emplace_back("loom.random",
                     random_state(global_rank(), communicator().all_gather_bytes(str(mine.seed, " ", mine.offset))));
  state.emplace_back("loom.step", StateEntry(global_step_));
  std::erase_if(loaders_, [](const auto& noted) { return noted.first.expired(); });
  for (size_t i = 0; i < loaders_.size(); ++i)
    state.emplace_back("loom.loader " + std::to_string(i), loaders_[i].second);
  return state;
}

void Fabric::note_loader(std::weak_ptr<void> loader, StateEntry position) {
  loaders_.emplace_back(std::move(loader), std::move(position));
}

void Fabric::lock_directory(const std::filesystem::path& path) {
  const auto directory = std::filesystem::weakly_canonical(std::filesystem::absolute(path).parent_path());
  const bool held =
      std::any_of(locks_.begin(), locks_.end(), [&](const auto& l) { return l->directory() == directory; });
  if (!held) locks_.push_back(std::make_shared<DirectoryLock>(directory));
}

void Fabric::save(const std::filesystem::path& path, const State& state) {
  require_launched("save");
  const State complete = with_own_state(state);
  File file;
  together(communicator(), [&] {
    check_names(state);
    file.metadata[format_key] = format_value;
    for (const auto& named : complete) {
      StateDict saved;
      const std::string error = error_of([&] { saved = named.second.save(); });
      check(error.empty(), "save: entry '", named.first, "': ", error);
      add_entry(file, named.first, saved);
    }
  });
  together(communicator(), [&] {  // once all ranks have what they need to
    if (!is_global_zero()) return;
    lock_directory(path);
    remove_leftovers(path);
    save_safetensors(path, file.tensors, file.metadata);
  });
}

std::vector<std::string> Fabric::load(const std::filesystem::path& path, const State& state, bool strict) {
  require_launched("load");
  File file;
  together(communicator(), [&] {
    check_names(state);
    file = read_checkpoint(path);
  });
  const State complete = with_own_state(state);
  Replaced replaced;
  try {
    together(communicator(), [&] {
      const std::string error = error_of([&] { load_entries(file, complete, strict, replaced); });
      check(error.empty(), "load: ", path.string(), ": ", error);
    });
  } catch (const AgreedError&) {  // of this rank or another: all entries are loaded on all ranks, or none on any
    put_back(replaced);
    throw;
  }
  std::vector<std::string> rest;
  for (const std::string& name : entry_names(file)) {
    const bool known = std::any_of(state.begin(), state.end(), [&](const auto& entry) { return entry.first == name; });
    if (!known && !name.starts_with(own_prefix)) rest.push_back(name);
  }
  return rest;
}

void Fabric::load_raw(const std::filesystem::path& path, const StateEntry& entry, bool strict) {
  require_launched("load_raw");
  Replaced replaced;
  try {
    together(communicator(), [&] {
      File file = read_file(path);
      StateDict before = deep_copy(entry.save());
      const std::string error = error_of([&] {
        entry.load({std::move(file.tensors), std::move(file.metadata)}, strict);
      });
      check(error.empty(), "load_raw: ", path.string(), ": ", error);
      replaced.emplace_back(entry, std::move(before));
    });
  } catch (const AgreedError&) {
    put_back(replaced);
    throw;
  }
}

}  // namespace loom
