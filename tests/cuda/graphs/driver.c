/* SPDX-License-Identifier: Apache-2.0
 * Stands in for libcuda.so.1 where there is no driver: as much as cuDNN asks of it when it compiles a kernel and loads
 * it, so that plans of such kernels can be made for a device that is described. Nothing can be run. */
#include <stddef.h>
#include <string.h>

typedef int Status;
typedef unsigned long long Flags;

static int token; /* what handles point at */

Status cuInit(unsigned flags) { return (void)flags, 100; /* no device: NVRTC asks no further */ }
Status cuDriverGetVersion(int* version) { return *version = 13000, 0; }
Status cuGetErrorName(Status status, const char** text) { return (void)status, *text = "no driver", 0; }
Status cuGetErrorString(Status status, const char** text) { return (void)status, *text = "no driver", 0; }
Status cuCtxGetCurrent(void** context) { return *context = &token, 0; }
Status cuCtxGetDevice(int* device) { return *device = 0, 0; }
Status cuDeviceGet(int* device, int index) { return *device = index, 0; }
Status cuDeviceGetCount(int* count) { return *count = 1, 0; }
Status cuDeviceGetAttribute(int* value, int attribute, int device) {
  return (void)device, *value = attribute == 75 ? 9 : 0, 0; /* the major number of the compute capability */
}
Status cuLibraryLoadData(void** library, const void* code, void* a, void* b, unsigned c, void* d, void* e, unsigned f) {
  (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
  return *library = &token, code == NULL;
}
Status cuLibraryUnload(void* library) { return (void)library, 0; }
Status cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  return (void)library, (void)name, *kernel = &token, 0;
}
Status cuLibraryGetModule(void** module, void* library) { return (void)library, *module = &token, 0; }
Status cuKernelGetFunction(void** function, void* kernel) { return (void)kernel, *function = &token, 0; }
Status cuKernelGetAttribute(int* value, int attribute, void* kernel, int device) {
  return (void)attribute, (void)kernel, (void)device, *value = 0, 0;
}
Status cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
  return (void)attribute, (void)value, (void)kernel, (void)device, 0;
}
Status cuFuncGetAttribute(int* value, int attribute, void* function) {
  return (void)attribute, (void)function, *value = 0, 0;
}
Status cuFuncSetAttribute(void* function, int attribute, int value) {
  return (void)function, (void)attribute, (void)value, 0;
}
Status cuModuleLoadData(void** module, const void* image) { return *module = &token, image == NULL; }
Status cuModuleGetFunction(void** function, void* module, const char* name) {
  return (void)module, (void)name, *function = &token, 0;
}
Status cuModuleUnload(void* module) { return (void)module, 0; }

/* What has to be there, and is called only to run something. */
static Status missing(void) { return 801; /* not supported */ }
#define MISSING(name) \
  Status name(void) { return missing(); }
MISSING(cuCtxGetLimit)
MISSING(cuCtxPopCurrent)
MISSING(cuCtxPushCurrent)
MISSING(cuStreamGetCtx)
MISSING(cuLinkCreate)
MISSING(cuLinkAddData)
MISSING(cuLinkComplete)
MISSING(cuLinkDestroy)
MISSING(cuLaunchKernel)
MISSING(cuLaunchCooperativeKernel)
MISSING(cuLaunchKernelEx)
MISSING(cuLibraryLoadFromFile)
MISSING(cuOccupancyMaxPotentialClusterSize)

Status cuGetProcAddress_v2(const char* name, void** function, int version, Flags flags, int* result) {
  (void)version, (void)flags;
  const struct {
    const char* name;
    void* function;
  } table[] = {{"cuInit", cuInit},
               {"cuDriverGetVersion", cuDriverGetVersion},
               {"cuGetErrorName", cuGetErrorName},
               {"cuGetErrorString", cuGetErrorString},
               {"cuCtxGetCurrent", cuCtxGetCurrent},
               {"cuCtxGetDevice", cuCtxGetDevice},
               {"cuDeviceGet", cuDeviceGet},
               {"cuDeviceGetCount", cuDeviceGetCount},
               {"cuDeviceGetAttribute", cuDeviceGetAttribute},
               {"cuLibraryLoadData", cuLibraryLoadData},
               {"cuLibraryUnload", cuLibraryUnload},
               {"cuLibraryGetKernel", cuLibraryGetKernel},
               {"cuKernelGetFunction", cuKernelGetFunction},
               {"cuGetProcAddress", cuGetProcAddress_v2}};
  *function = missing;
  for (size_t i = 0; i < sizeof table / sizeof *table; ++i)
    if (strcmp(name, table[i].name) == 0) *function = table[i].function;
  if (result != NULL) *result = 0;
  return 0;
}
