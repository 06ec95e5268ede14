// fabric.save and fabric.load: one safetensors file. Tensors are named "entry/name", small values stand under the same
// names in the metadata; "loom.entries" lists the entries.
#include <algorithm>
#include <optional>
#include <span>
#include <sstream>

#include <loom/accelerators/profile.h>
#include <loom/fabric/agreement.h>
#include <loom/fabric/directory_lock.h>
#include <loom/fabric/fabric.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>
#include <loom/tensor/safetensors.h>

namespace loom {

namespace {

constexpr const char* entries_key = "loom.entries";
constexpr const char* format_key = "loom.format";
constexpr const char* format_value = "checkpoint 2";
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

// A checkpoint that is read entry by entry, so that loading needs room for one entry besides what it fills.
class SavedFile {
 public:
  explicit SavedFile(const std::filesystem::path& path) : reader_(existing(path)), path_(path) {}

  // Every tensor under the prefix and every value; complete: else large tensors have a shape and a dtype alone.
  StateDict entry(const std::string& prefix, bool complete) const {
    StateDict out;
    const auto& tensors = reader_.entries();
    for (auto it = tensors.lower_bound(prefix); it != tensors.end() && it->first.starts_with(prefix); ++it)
      out.tensors.emplace(it->first.substr(prefix.size()), complete ? reader_.read(it->first) : sketch(it->first));
    const auto& values = reader_.metadata();
    for (auto it = values.lower_bound(prefix); it != values.end() && it->first.starts_with(prefix); ++it)
      out.values.emplace(it->first.substr(prefix.size()), it->second);
    return out;
  }

  std::vector<std::string> entry_names() const {
    std::vector<std::string> names;
    const auto found = reader_.metadata().find(entries_key);
    std::istringstream list(found == reader_.metadata().end() ? "" : found->second);
    for (std::string name; std::getline(list, name, '/');) names.push_back(name);
    return names;
  }

  void check_format() const {
    const auto format = reader_.metadata().find(format_key);
    check(format != reader_.metadata().end(), "load: ", path_.string(),
          " is not a checkpoint of fabric.save; a file of one module's tensors is read by load_raw");
    check(format->second == format_value, "load: ", path_.string(), " is a '", format->second,
          "' of another version of Loom, this one reads '", format_value, "'");
  }

 private:
  static const std::filesystem::path& existing(const std::filesystem::path& path) {
    check(std::filesystem::exists(path), "load: checkpoint file not found: ", path.string());
    return path;
  }
  // What a tensor is, for verify. A boolean is read as a whole: not every byte is one.
  Tensor sketch(const std::string& name) const {
    const Dims shape = reader_.shape(name);
    if (shape.numel() <= 1 || reader_.dtype(name) == boolean) return reader_.read(name);
    return raw::expand(zeros({}, {reader_.dtype(name), Device::cpu}), shape);
  }

  SafetensorsReader reader_;
  std::filesystem::path path_;
};

// One thing to be loaded from a file.
struct Wanted {
  std::string label, prefix;  // "entry 'model': ", "model/"
  StateEntry entry;
};

// How many of the entries the user has named, which must be the same on all ranks. They come first.
template <class T, class Name>
size_t named_alike(Communicator& ranks, const std::string& where, const std::vector<T>& all, const Name& name) {
  const auto end = std::ranges::find_if(all, [&](const T& x) { return name(x).starts_with(own_prefix); });
  std::string names;
  for (auto it = all.begin(); it != end; ++it) names += str(names.empty() ? "'" : ", '", name(*it), "'");
  check_same_on_ranks(ranks, where + "the ranks' entries differ", names.empty() ? "none" : names);
  return static_cast<size_t>(end - all.begin());
}

// f with each thing that the user names, the first of `all`: it may communicate, so ranks agree after each, lest one
// waits for another that has failed. What Fabric adds, which may be more on one rank (its loaders), in one go.
template <class T, class F>
void each_together(Communicator& ranks, const std::vector<T>& all, size_t named, const F& f) {
  for (size_t i = 0; i < named; ++i) together(ranks, [&] { f(all[i]); });
  together(ranks, [&] { std::for_each(all.begin() + static_cast<std::ptrdiff_t>(named), all.end(), f); });
}

// What loading replaces by something else, and what it was.
using Replaced = std::pair<Wanted, StateDict>;

StateDict deep_copy(StateDict state) {
  for (auto& [name, tensor] : state.tensors) tensor = raw::clone(tensor);
  return state;
}

template <class F>
void labelled(const std::string& label, const F& f) {
  const std::string error = error_of(f);
  check(error.empty(), label, error);
}

void put_back(Communicator& ranks, std::span<const Replaced> replaced, const std::string& cause) {
  for (auto it = replaced.rbegin(); it != replaced.rend(); ++it)
    together(ranks, [&] {
      labelled(str(cause, "; it cannot be undone: ", it->first.label), [&] { it->first.entry.load(it->second, true); });
    });
}

// Loads all on all ranks, or nothing on any: whatever can be verified is verified before anything is loaded, and what
// cannot is loaded before the rest, and undone. What is left to go wrong is that the file, verified, cannot be read.
// named: how many of the entries are the user's, the same on all ranks.
void load_all(Communicator& ranks, const SavedFile& file, const std::vector<Wanted>& wanted, size_t named,
              const std::string& where, bool strict) {
  each_together(ranks, wanted, named, [&](const Wanted& w) {
    if (w.entry.verify) labelled(where + w.label, [&] { w.entry.verify(file.entry(w.prefix, false), strict); });
  });
  std::vector<Replaced> replaced;
  each_together(ranks, wanted, named, [&](const Wanted& w) {
    if (!w.entry.verify) labelled(where + w.label, [&] { replaced.emplace_back(w, deep_copy(w.entry.save())); });
  });
  for (size_t i = 0; i < replaced.size(); ++i) {
    const auto& [label, prefix, entry] = replaced[i].first;
    try {
      together(ranks, [&] { labelled(where + label, [&] { entry.load(file.entry(prefix, true), strict); }); });
    } catch (const AgreedError& error) {
      put_back(ranks, std::span(replaced).first(i + 1), error.what());
      throw;
    }
  }
  each_together(ranks, wanted, named, [&](const Wanted& w) {
    if (w.entry.verify)
      labelled(str(where, "what is loaded is incomplete, load again or start anew: ", w.label),
               [&] { w.entry.load(file.entry(w.prefix, true), strict); });
  });
}

std::vector<Wanted> wanted_entries(const State& state, const std::vector<std::string>& names, const std::string& where,
                                   bool strict) {
  std::vector<Wanted> out;
  for (const auto& [name, entry] : state) {
    if (std::find(names.begin(), names.end(), name) != names.end())
      out.push_back({str("entry '", name, "': "), name + "/", entry});
    else
      check(!strict || name.starts_with(own_prefix), where, "the requested state contains a key '", name,
            "' that does not exist in the loaded checkpoint; to disable strict loading, set strict=false");
  }
  return out;
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
  const auto read = [rank](const StateDict& saved) {
    const std::string own = "rank " + std::to_string(rank);
    std::istringstream text(saved.value(saved.values.contains(own) ? own : "rank 0"));
    Generator generator;
    check(static_cast<bool>(text >> generator.seed >> generator.offset), "'", text.str(),
          "' is no state of a generator");
    return generator;
  };
  return {save, [read](const StateDict& saved, bool) { read(saved); },
          [read](const StateDict& saved, bool) { context().generator = read(saved); }};
}

}  // namespace

StateEntry Fabric::precision_entry() const {
  return {[this] { return precision_->state_dict(); },
          [this](const StateDict& s, bool) { precision_->check_state_dict(s); },
          [this](const StateDict& s, bool) { precision_->load_state_dict(s); }};
}

// Every rank's random state (equal in most programs, but not in all), the step and where the loaders are. Collective.
State Fabric::with_own_state(State state) {
  const Generator& mine = context().generator;
  state.emplace_back("loom.random",
                     random_state(global_rank(), communicator().all_gather_bytes(str(mine.seed, " ", mine.offset))));
  state.emplace_back("loom.step", steps_.entry());
  std::erase_if(loaders_, [](const auto& noted) { return noted.first.expired(); });
  if (const StateDict kept = precision_->state_dict(); !kept.tensors.empty() || !kept.values.empty())
    state.emplace_back("loom.precision", precision_entry());
  for (size_t i = 0; i < loaders_.size(); ++i)
    state.emplace_back("loom.loader " + std::to_string(i), loaders_[i].second);
  return state;
}

void Fabric::lock_directory(const std::filesystem::path& path) {
  const auto directory = std::filesystem::weakly_canonical(std::filesystem::absolute(path).parent_path());
  const bool held =
      std::any_of(locks_.begin(), locks_.end(), [&](const auto& l) { return l->directory() == directory; });
  if (!held) locks_.push_back(std::make_shared<DirectoryLock>(directory));
}

void Fabric::save(const std::filesystem::path& path, const State& state) {
  require_launched("save");
  const profile::Range range(Activity::fabric, "Fabric.save");
  warn_of_gradients();
  const State complete = with_own_state(state);
  File file;
  file.metadata[format_key] = format_value;
  together(communicator(), [&] { check_names(state); });
  const size_t named = named_alike(communicator(), "save: ", complete, [](const auto& entry) { return entry.first; });
  each_together(communicator(), complete, named, [&](const auto& entry) {
    labelled(str("save: entry '", entry.first, "': "), [&] {
      const StateDict saved = entry.second.saved_for(0);
      if (is_global_zero()) add_entry(file, entry.first, saved);
    });
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
  const profile::Range range(Activity::fabric, "Fabric.load");
  const std::string where = str("load: ", path.string(), ": ");
  std::optional<SavedFile> file;
  together(communicator(), [&] {
    check_names(state);
    file.emplace(path);
    file->check_format();
  });
  const State complete = with_own_state(state);
  std::vector<Wanted> wanted;
  together(communicator(), [&] { wanted = wanted_entries(complete, file->entry_names(), where, strict); });
  const auto name = [](const Wanted& w) { return w.prefix.substr(0, w.prefix.size() - 1); };
  const size_t named = named_alike(communicator(), where, wanted, name);
  load_all(communicator(), *file, wanted, named, where, strict);
  std::vector<std::string> rest;
  for (const std::string& name : file->entry_names()) {
    const bool known = std::any_of(state.begin(), state.end(), [&](const auto& entry) { return entry.first == name; });
    if (!known && !name.starts_with(own_prefix)) rest.push_back(name);
  }
  return rest;
}

void Fabric::load_raw(const std::filesystem::path& path, const StateEntry& entry, bool strict) {
  require_launched("load_raw");
  std::optional<SavedFile> file;
  together(communicator(), [&] { file.emplace(path); });
  load_all(communicator(), *file, {{"", "", entry}}, 1, str("load_raw: ", path.string(), ": "), strict);
}

}  // namespace loom
