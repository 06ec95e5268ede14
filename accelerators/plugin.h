// Parts of Loom that are loaded when needed: shared objects beside the library.
#pragma once

#include <string>
#include <string_view>

namespace loom {

// Where lib<name>.so would be: in the folder of Loom's library.
std::string plugin_path(std::string_view name);
// The address of `symbol` in lib<name>.so, which lies in the folder of Loom's library; it stays loaded. Null, and the
// reason in `why`, when there is none.
void* plugin_symbol(std::string_view name, const char* symbol, std::string& why);
// The same of a file, wherever it lies.
void* plugin_symbol_in(const std::string& file, const char* symbol, std::string& why);

}  // namespace loom
