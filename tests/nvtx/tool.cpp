// SPDX-License-Identifier: Apache-2.0
// A tool that NVTX_INJECTION64_PATH names: it counts what it is told. Against the toolkit's headers, where they are, so
// that what Loom takes for NVTX is NVTX.
#include <nvtx3/nvToolsExt.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Heard {
  std::mutex mutex;
  std::vector<std::string> names;  // of ranges that began in the domain "loom"
  std::atomic<int> pops = 0, wrong = 0;
};
Heard& heard() {
  static Heard& one = *new Heard;  // ranges end while the process does
  return one;
}
int domain;  // its address is the handle
thread_local int depth = 0;

nvtxDomainHandle_t create(const char* name) {
  if (std::string(name) != "loom") ++heard().wrong;
  return reinterpret_cast<nvtxDomainHandle_t>(&domain);
}

bool is_right(nvtxDomainHandle_t given, const nvtxEventAttributes_t* a) {
  return given == reinterpret_cast<nvtxDomainHandle_t>(&domain) && a->version == NVTX_VERSION &&
         a->size == sizeof(nvtxEventAttributes_t) && a->colorType == NVTX_COLOR_ARGB &&
         a->payloadType == NVTX_PAYLOAD_UNKNOWN && a->messageType == NVTX_MESSAGE_TYPE_ASCII && a->category > 0;
}

int push(nvtxDomainHandle_t given, const nvtxEventAttributes_t* attributes) {
  if (!is_right(given, attributes)) ++heard().wrong;
  const std::lock_guard lock(heard().mutex);
  heard().names.emplace_back(attributes->message.ascii);
  return depth++;
}

int pop(nvtxDomainHandle_t) {
  if (depth == 0) ++heard().wrong;
  ++heard().pops;
  return --depth;
}

template <class F>
void set(NvtxFunctionTable table, size_t number, F* function) {
  *table[number] = reinterpret_cast<NvtxFunctionPointer>(function);
}

}  // namespace

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get) {
  const auto* const callbacks = static_cast<const NvtxExportTableCallbacks*>(get(NVTX_ETID_CALLBACKS));
  if (callbacks == nullptr || callbacks->struct_size < sizeof(NvtxExportTableCallbacks)) return 0;
  const auto* const info = static_cast<const NvtxExportTableVersionInfo*>(get(NVTX_ETID_VERSIONINFO));
  if (info == nullptr || info->struct_size < sizeof(NvtxExportTableVersionInfo) || info->version != NVTX_VERSION)
    return 0;
  const NvtxCallbackModule modules[] = {NVTX_CB_MODULE_CORE,   NVTX_CB_MODULE_CUDA,  NVTX_CB_MODULE_OPENCL,
                                        NVTX_CB_MODULE_CUDART, NVTX_CB_MODULE_CORE2, NVTX_CB_MODULE_SYNC};
  const unsigned sizes[] = {NVTX_CBID_CORE_SIZE,   NVTX_CBID_CUDA_SIZE,  NVTX_CBID_OPENCL_SIZE,
                            NVTX_CBID_CUDART_SIZE, NVTX_CBID_CORE2_SIZE, NVTX_CBID_SYNC_SIZE};
  for (size_t i = 0; i < std::size(modules); ++i) {
    NvtxFunctionTable table = nullptr;
    unsigned size = 0;
    if (callbacks->GetModuleFunctionTable(modules[i], &table, &size) == 0 || size != sizes[i]) return 0;
    if (table[size] != nullptr) return 0;
    if (modules[i] != NVTX_CB_MODULE_CORE2) continue;
    set(table, NVTX_CBID_CORE2_DomainCreateA, create);
    set(table, NVTX_CBID_CORE2_DomainRangePushEx, push);
    set(table, NVTX_CBID_CORE2_DomainRangePop, pop);
  }
  return 1;
}

// For the test: how many ranges have begun and ended, what was said that no tool expects, the name of the i-th range.
extern "C" int heard_pushes() {
  const std::lock_guard lock(heard().mutex);
  return static_cast<int>(heard().names.size());
}
extern "C" int heard_pops() { return heard().pops; }
extern "C" int heard_wrong() { return heard().wrong; }
extern "C" const char* heard_name(int i) {
  const std::lock_guard lock(heard().mutex);
  return heard().names[static_cast<size_t>(i)].c_str();
}
