# SPDX-License-Identifier: Apache-2.0
# The options, and the flags that all of Loom's targets share. Nothing here reaches a project that embeds Loom.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  set(default_cpu_sets avx2 avx512)
endif()
option(LOOM_MPI "Ranks as MPI processes" ON)
set(LOOM_CUDA OFF CACHE STRING "GPUs of NVIDIA: ON (needs nvcc); EMULATED (a device that the host plays, for tests); OFF")
set_property(CACHE LOOM_CUDA PROPERTY STRINGS OFF ON EMULATED)
option(LOOM_ONEDNN "Products and convolutions on CPUs by oneDNN" OFF)
option(LOOM_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(LOOM_EXAMPLES "Build the examples" ${PROJECT_IS_TOP_LEVEL})
option(LOOM_BENCH "Build the benchmarks (needs google-benchmark)" OFF)
option(LOOM_WERROR "Warnings are errors" OFF)
set(LOOM_CPU_SETS "${default_cpu_sets}" CACHE STRING "Instruction sets with kernels of their own, besides the portable ones")
set(LOOM_SANITIZE "" CACHE STRING "Sanitizers: address,undefined or thread; empty: none")
unset(default_cpu_sets)

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
endif()

if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(CCACHE_PROGRAM ccache)
  mark_as_advanced(CCACHE_PROGRAM)
  if(CCACHE_PROGRAM)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  endif()
endif()

# Options structs are written with designated initialisers, which leave the rest at its defaults on purpose.
add_compile_options(-Wall -Wextra -Wnon-virtual-dtor -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Wrong alarms of g++ 12 in inlined std::string and std::vector.
  add_compile_options(-Wno-restrict -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread
                      -Wno-maybe-uninitialized -Wno-free-nonheap-object)
endif()
if(LOOM_WERROR)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Werror>)  # nvcc has a list of its own, below
endif()
if(LOOM_SANITIZE)
  add_compile_options(-fsanitize=${LOOM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${LOOM_SANITIZE})
endif()

# The library's own flags. Contraction stays off, and fast-math too: a loop's vector body and its scalar tail must round
# alike, for a sharded update is bit-equal to the whole one. Kernels that want a fused multiply-add write it.
set(LOOM_LIBRARY_FLAGS -fno-math-errno -fno-trapping-math -ffp-contract=off)
# One build for all machines: everything is compiled for the oldest processor; kernels also for these sets.
# -mtune=generic says so, though it is what -march=x86-64-v* implies: g++ 12 tuned for one machine (-march=native) costs
# matrix products 20-45 %. Left to itself g++ takes 256 bits where 512 are to be had. No -fopenmp-simd: nothing here is a
# pragma, and clang 16 refuses structured bindings in lambdas with it.
set(LOOM_CPU_FLAGS_avx2 -march=x86-64-v3 -mtune=generic)
set(LOOM_CPU_FLAGS_avx512 -march=x86-64-v4 -mtune=generic -mprefer-vector-width=512)

# CMake 3.25 has no name for CUDA's C++20. -fmad=false where bits must equal the CPU's stands with the file (random.cu).
if(LOOM_CUDA AND NOT LOOM_CUDA STREQUAL "EMULATED")
  find_program(LOOM_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin REQUIRED)
  mark_as_advanced(LOOM_NVCC)
  set(CMAKE_CUDA_COMPILER "${LOOM_NVCC}" CACHE FILEPATH "CUDA compiler")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
  endif()
  if(NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER AND CCACHE_PROGRAM)
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(LOOM_CUDA_FLAGS --expt-relaxed-constexpr --extended-lambda -lineinfo --compress-mode=size)
  if(LOOM_WERROR)
    list(APPEND LOOM_CUDA_FLAGS -Werror=all-warnings)
  endif()
endif()
