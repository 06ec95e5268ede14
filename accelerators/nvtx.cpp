// NVTX's side of a program, version 3, as its headers have it (nvtxDetail/nvtxTypes.h of the CUDA toolkit): a tool's
// library is loaded and given tables of pointers, in which it puts its functions. Written here because those headers
// come with the toolkit alone, and a program on CPUs is profiled as well.
#include <loom/accelerators/nvtx.h>

#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <iostream>

#include <loom/accelerators/error.h>

namespace loom::nvtx {

namespace {

using Function = void (*)();

// Pointers to the functions of a module, by number; the last is null.
template <size_t count>
struct Table {
  std::array<Function, count> functions{};
  std::array<Function*, count + 1> pointers{};
  Table() {
    for (size_t i = 0; i < count; ++i) pointers[i] = &functions[i];
  }
};

// The modules by number from 1: core, CUDA, OpenCL, CUDA runtime, core2 (domains), synchronisation. Tools fill them
// all; what is used here is in core2.
struct Tables {
  Table<16> core, core2;
  Table<9> cuda;
  Table<15> opencl;
  Table<7> runtime, synchronisation;
};
enum : size_t { domain_range_push = 4, domain_range_pop = 5, domain_name_category = 8, domain_create = 12 };

Tables& tables() {
  static Tables& one = *new Tables;  // the tool may call while the process ends
  return one;
}

template <size_t count>
int hand_out(Table<count>& table, Function*** out, unsigned* size) {
  if (size != nullptr) *size = count;
  if (out != nullptr) *out = table.pointers.data();
  return 1;
}

int module_table(int module, Function*** out, unsigned* size) {
  Tables& all = tables();
  switch (module) {
    case 1:
      return hand_out(all.core, out, size);
    case 2:
      return hand_out(all.cuda, out, size);
    case 3:
      return hand_out(all.opencl, out, size);
    case 4:
      return hand_out(all.runtime, out, size);
    case 5:
      return hand_out(all.core2, out, size);
    case 6:
      return hand_out(all.synchronisation, out, size);
    default:
      return 0;
  }
}

struct Callbacks {
  size_t struct_size;
  int (*module_table)(int, Function***, unsigned*);
};
struct VersionInfo {
  size_t struct_size;
  uint32_t version, reserved;
  void (*set_injection_version)(uint32_t);
};
constexpr uint32_t version = 3;

const void* export_table(uint32_t which) {
  static constexpr Callbacks callbacks{sizeof(Callbacks), module_table};
  static constexpr VersionInfo info{sizeof(VersionInfo), version, 0, [](uint32_t) {}};
  return which == 1 ? static_cast<const void*>(&callbacks) : which == 3 ? static_cast<const void*>(&info) : nullptr;
}

// nvtxEventAttributes_t
struct Attributes {
  uint16_t version, size;
  uint32_t category;
  int32_t color_type;
  uint32_t color;
  int32_t payload_type, reserved;
  uint64_t payload;
  int32_t message_type;
  const char* message;
};
static_assert(sizeof(Attributes) == 48);
constexpr int32_t argb = 1, ascii = 1;

struct Domain {
  void* handle = nullptr;
  int (*push)(void*, const Attributes*) = nullptr;
  int (*pop)(void*) = nullptr;
};
Domain domain;

template <class F>
F function(size_t number) {
  return reinterpret_cast<F>(tables().core2.functions[number]);
}

bool load(const char* file) {
  void* const library = dlopen(file, RTLD_LAZY);
  using Entry = int (*)(const void* (*)(uint32_t));
  const auto entry = library != nullptr ? reinterpret_cast<Entry>(dlsym(library, "InitializeInjectionNvtx2")) : nullptr;
  if (entry == nullptr) {
    const char* const why = dlerror();
    std::cerr << str("loom: NVTX_INJECTION64_PATH: ", why != nullptr ? why : file, "; no tool is told of ranges\n");
    return false;
  }
  return entry(export_table) != 0;
}

constexpr int activities = static_cast<int>(Activity::user) + 1;

}  // namespace

bool attach() {
  const char* const file = std::getenv("NVTX_INJECTION64_PATH");
  if (file == nullptr || *file == '\0' || !load(file)) return false;
  domain.push = function<int (*)(void*, const Attributes*)>(domain_range_push);
  domain.pop = function<int (*)(void*)>(domain_range_pop);
  const auto create = function<void* (*)(const char*)>(domain_create);
  if (domain.push == nullptr || domain.pop == nullptr || create == nullptr) return false;
  domain.handle = create("loom");
  if (const auto name = function<void (*)(void*, uint32_t, const char*)>(domain_name_category))
    for (int i = 0; i < activities; ++i)
      name(domain.handle, static_cast<uint32_t>(i + 1), std::string(to_string(static_cast<Activity>(i))).c_str());
  return true;
}

void push(const std::string& name, Activity activity) {
  constexpr uint32_t colors[] = {0xff4c78a8, 0xfff58518, 0xff54a24b, 0xffe45756, 0xff9d755d,
                                 0xffb279a2, 0xff72b7b2, 0xffeeca3b, 0xffbab0ac, 0xffff9da6};
  static_assert(std::size(colors) == activities);
  const auto kind = static_cast<uint32_t>(activity);
  const Attributes attributes{.version = version,
                              .size = sizeof(Attributes),
                              .category = kind + 1,
                              .color_type = argb,
                              .color = colors[kind],
                              .payload_type = 0,
                              .reserved = 0,
                              .payload = 0,
                              .message_type = ascii,
                              .message = name.c_str()};
  (void)domain.push(domain.handle, &attributes);
}

void pop() { (void)domain.pop(domain.handle); }

}  // namespace loom::nvtx
