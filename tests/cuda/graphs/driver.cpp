// SPDX-License-Identifier: Apache-2.0
// Stands in for libcuda.so.1 where there is no driver: as much as cuDNN asks of it when it compiles a kernel and loads
// it, so that plans of such kernels can be made for a device that is described. Nothing can be run.
#include <cstddef>
#include <string_view>

namespace {

using Status = int;
constexpr Status success = 0, invalid = 1, no_device = 100, not_supported = 801;
constexpr int major_version = 75;  // an attribute of devices
int token;                         // what handles point at

Status give(void** handle) {
  *handle = &token;
  return success;
}
Status give(int* value, int number) {
  *value = number;
  return success;
}
Status give_text(const char** text) {
  *text = "no driver";
  return success;
}

}  // namespace

extern "C" {

Status cuInit(unsigned) { return no_device; }  // NVRTC asks no further then
Status cuDriverGetVersion(int* version) { return give(version, 13000); }
Status cuGetErrorName(Status, const char** text) { return give_text(text); }
Status cuGetErrorString(Status, const char** text) { return give_text(text); }
Status cuCtxGetCurrent(void** context) { return give(context); }
Status cuCtxGetDevice(int* device) { return give(device, 0); }
Status cuDeviceGet(int* device, int index) { return give(device, index); }
Status cuDeviceGetCount(int* count) { return give(count, 1); }
Status cuDeviceGetAttribute(int* value, int attribute, int) { return give(value, attribute == major_version ? 9 : 0); }
Status cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned) {
  return code != nullptr ? give(library) : invalid;
}
Status cuLibraryUnload(void*) { return success; }
Status cuLibraryGetKernel(void** kernel, void*, const char*) { return give(kernel); }
Status cuLibraryGetModule(void** module, void*) { return give(module); }
Status cuKernelGetFunction(void** function, void*) { return give(function); }
Status cuKernelGetAttribute(int* value, int, void*, int) { return give(value, 0); }
Status cuKernelSetAttribute(int, int, void*, int) { return success; }
Status cuFuncGetAttribute(int* value, int, void*) { return give(value, 0); }
Status cuFuncSetAttribute(void*, int, int) { return success; }
Status cuModuleLoadData(void** module, const void* image) { return image != nullptr ? give(module) : invalid; }
Status cuModuleGetFunction(void** function, void*, const char*) { return give(function); }
Status cuModuleUnload(void*) { return success; }

// What has to be there, and would be called to run something.
Status cuCtxGetLimit() { return not_supported; }
Status cuCtxPopCurrent() { return not_supported; }
Status cuCtxPushCurrent() { return not_supported; }
Status cuStreamGetCtx() { return not_supported; }
Status cuLinkCreate() { return not_supported; }
Status cuLinkAddData() { return not_supported; }
Status cuLinkComplete() { return not_supported; }
Status cuLinkDestroy() { return not_supported; }
Status cuLaunchKernel() { return not_supported; }
Status cuLaunchCooperativeKernel() { return not_supported; }
Status cuLaunchKernelEx() { return not_supported; }
Status cuLibraryLoadFromFile() { return not_supported; }
Status cuOccupancyMaxPotentialClusterSize() { return not_supported; }

Status cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* result) {
  const struct {
    std::string_view name;
    void* function;
  } table[] = {
      {"cuInit", reinterpret_cast<void*>(&cuInit)},
      {"cuDriverGetVersion", reinterpret_cast<void*>(&cuDriverGetVersion)},
      {"cuGetErrorName", reinterpret_cast<void*>(&cuGetErrorName)},
      {"cuGetErrorString", reinterpret_cast<void*>(&cuGetErrorString)},
      {"cuCtxGetCurrent", reinterpret_cast<void*>(&cuCtxGetCurrent)},
      {"cuCtxGetDevice", reinterpret_cast<void*>(&cuCtxGetDevice)},
      {"cuDeviceGet", reinterpret_cast<void*>(&cuDeviceGet)},
      {"cuDeviceGetCount", reinterpret_cast<void*>(&cuDeviceGetCount)},
      {"cuDeviceGetAttribute", reinterpret_cast<void*>(&cuDeviceGetAttribute)},
      {"cuLibraryLoadData", reinterpret_cast<void*>(&cuLibraryLoadData)},
      {"cuLibraryUnload", reinterpret_cast<void*>(&cuLibraryUnload)},
      {"cuLibraryGetKernel", reinterpret_cast<void*>(&cuLibraryGetKernel)},
      {"cuKernelGetFunction", reinterpret_cast<void*>(&cuKernelGetFunction)},
      {"cuGetProcAddress", reinterpret_cast<void*>(&cuGetProcAddress_v2)},
  };
  *function = reinterpret_cast<void*>(&cuLaunchKernel);  // one of those that do nothing
  for (const auto& entry : table)
    if (entry.name == name) *function = entry.function;
  if (result != nullptr) *result = 0;
  return success;
}

}  // extern "C"
