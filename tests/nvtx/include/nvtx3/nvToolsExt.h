// SPDX-License-Identifier: Apache-2.0
// What a tool needs of NVTX 3, where the CUDA toolkit's headers are not at hand.
#pragma once

#include <cstddef>
#include <cstdint>

enum { NVTX_VERSION = 3 };
enum { NVTX_COLOR_ARGB = 1, NVTX_MESSAGE_TYPE_ASCII = 1, NVTX_PAYLOAD_UNKNOWN = 0 };
enum { NVTX_ETID_CALLBACKS = 1, NVTX_ETID_VERSIONINFO = 3 };
enum NvtxCallbackModule {
  NVTX_CB_MODULE_CORE = 1,
  NVTX_CB_MODULE_CUDA = 2,
  NVTX_CB_MODULE_OPENCL = 3,
  NVTX_CB_MODULE_CUDART = 4,
  NVTX_CB_MODULE_CORE2 = 5,
  NVTX_CB_MODULE_SYNC = 6
};
enum {
  NVTX_CBID_CORE_SIZE = 16,
  NVTX_CBID_CUDA_SIZE = 9,
  NVTX_CBID_OPENCL_SIZE = 15,
  NVTX_CBID_CUDART_SIZE = 7,
  NVTX_CBID_CORE2_SIZE = 16,
  NVTX_CBID_SYNC_SIZE = 7
};
enum { NVTX_CBID_CORE2_DomainRangePushEx = 4, NVTX_CBID_CORE2_DomainRangePop = 5, NVTX_CBID_CORE2_DomainCreateA = 12 };

using nvtxDomainHandle_t = struct nvtxDomainRegistration_st*;
struct nvtxEventAttributes_t {
  uint16_t version, size;
  uint32_t category;
  int32_t colorType;
  uint32_t color;
  int32_t payloadType, reserved0;
  union {
    uint64_t ullValue;
  } payload;
  int32_t messageType;
  union {
    const char* ascii;
  } message;
};

using NvtxFunctionPointer = void (*)();
using NvtxFunctionTable = NvtxFunctionPointer**;
using NvtxGetExportTableFunc_t = const void* (*)(uint32_t);
struct NvtxExportTableCallbacks {
  size_t struct_size;
  int (*GetModuleFunctionTable)(NvtxCallbackModule, NvtxFunctionTable*, unsigned*);
};
struct NvtxExportTableVersionInfo {
  size_t struct_size;
  uint32_t version, reserved0;
  void (*SetInjectionNvtxVersion)(uint32_t);
};
