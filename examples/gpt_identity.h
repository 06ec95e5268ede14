// What a checkpoint is of: it goes on with the same model over the same tokens, or not at all.
#pragma once

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include <loom/loom.h>

#include "gpt.h"
#include "gpt_text.h"

namespace loom {

// Some of the characters, quoted.
inline std::string quoted(const std::vector<std::string>& characters) {
  constexpr int64_t most = 10;
  std::string out;
  for (int64_t i = 0; i < std::min(most, std::ssize(characters)); ++i)
    out += str(i > 0 ? " " : "", '"', characters[static_cast<size_t>(i)], '"');
  return out + (std::ssize(characters) > most ? str(" and ", std::ssize(characters) - most, " more") : "");
}

// How two alphabets, given as texts, differ.
inline std::string alphabets_differ(const std::string& saved, const std::string& here) {
  const auto a = data::CharVocabulary(saved).characters(), b = data::CharVocabulary(here).characters();
  const auto only = [](const auto& one, const auto& other) {
    std::vector<std::string> out;
    std::ranges::set_difference(one, other, std::back_inserter(out));
    return out.empty() ? "none of them only" : str(quoted(out), " only");
  };
  return str("the text has ", a.size(), " characters in the checkpoint, ", only(a, b), " there, and ", b.size(),
             " here, ", only(b, a), " here");
}

// An entry of the run's checkpoints. Loading it changes nothing: it compares, and names what differs.
inline StateEntry identity_of(const GptConfig& config, const Vocabulary& vocabulary) {
  const StateDict here{{},
                       {{"--n-layer", std::to_string(config.n_layer)},
                        {"--n-head", std::to_string(config.n_head)},
                        {"--n-embd", std::to_string(config.n_embd)},
                        {"--block-size", std::to_string(config.block_size)},
                        {"--vocab", vocabulary.kind()},
                        {"alphabet", vocabulary.alphabet()}}};
  const auto compare = [here](const StateDict& saved, bool) {
    std::string wrong;
    for (const auto& [name, value] : here.values) {
      const std::string& there = saved.value(name);
      if (there == value) continue;
      if (name != "alphabet")
        wrong += str(wrong.empty() ? "" : "; ", name, " is ", there, " in the checkpoint and ", value, " here");
      else if (!there.empty() && !value.empty())
        wrong += str(wrong.empty() ? "" : "; ", alphabets_differ(there, value));
    }
    check(wrong.empty(), wrong);
  };
  return {[here] { return StateDict(here); }, compare, compare};
}

}  // namespace loom
