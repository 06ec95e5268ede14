# SPDX-License-Identifier: Apache-2.0
# What becomes of each top-level folder. Sources are found by glob: adding a file is all that it takes.

# loom_folder(NAME [DEPS target...] [FEATURES name...] [PLUGINS name...])
# The sources of folder NAME become the object library loom_NAME, a part of libloom; Loom::NAME is its public alias.
# A feature f is built (f/*.cpp, f.cpp, f_*.cpp) where LOOM_F is on; else no_f.cpp stands in for it. What lies in the folder
# of a plugin is not part of libloom.
function(loom_folder name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEPS;FEATURES;PLUGINS")
  add_library(loom_${name}_alias INTERFACE)
  add_library(Loom::${name} ALIAS loom_${name}_alias)
  set_target_properties(loom_${name}_alias PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(loom_${name}_alias INTERFACE loom)
  set_property(GLOBAL APPEND PROPERTY LOOM_FOLDERS ${name})

  file(GLOB_RECURSE sources RELATIVE "${PROJECT_SOURCE_DIR}/${name}" CONFIGURE_DEPENDS
       "${PROJECT_SOURCE_DIR}/${name}/*.cpp")
  foreach(feature IN LISTS arg_FEATURES)
    string(TOUPPER ${feature} option)
    if(LOOM_${option})
      list(FILTER sources EXCLUDE REGEX "^no_${feature}\\.cpp$")
    else()
      list(FILTER sources EXCLUDE REGEX "^${feature}[/_.]")
    endif()
  endforeach()
  foreach(plugin IN LISTS arg_PLUGINS)
    list(FILTER sources EXCLUDE REGEX "^${plugin}/")
  endforeach()
  list(LENGTH sources count)
  set_property(GLOBAL APPEND PROPERTY LOOM_SOURCE_COUNTS "${name} ${count}")
  if(count EQUAL 0)
    return()
  endif()

  list(TRANSFORM sources PREPEND "${PROJECT_SOURCE_DIR}/${name}/")
  add_library(loom_${name} OBJECT ${sources})
  set_target_properties(loom_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(loom_${name} PRIVATE "${LOOM_INCLUDE_DIR}")
  target_compile_options(loom_${name} PRIVATE ${LOOM_LIBRARY_FLAGS})
  target_link_libraries(loom_${name} PRIVATE ${arg_DEPS})
  target_sources(loom PRIVATE $<TARGET_OBJECTS:loom_${name}>)
  target_link_libraries(loom PRIVATE ${arg_DEPS})
endfunction()

# loom_find_onednn(OUT): oneDNN's target. Its own package file asks for those of OpenCL, of which nothing is needed here.
# Where ONEDNN_ROOT says, or where the system has it.
function(loom_find_onednn out)
  find_path(LOOM_ONEDNN_INCLUDE_DIR oneapi/dnnl/dnnl.hpp HINTS ENV ONEDNN_ROOT PATH_SUFFIXES include REQUIRED)
  find_library(LOOM_ONEDNN_LIBRARY dnnl HINTS ENV ONEDNN_ROOT PATH_SUFFIXES lib lib64 REQUIRED)
  mark_as_advanced(LOOM_ONEDNN_INCLUDE_DIR LOOM_ONEDNN_LIBRARY)
  add_library(loom_onednn_library INTERFACE)
  target_include_directories(loom_onednn_library SYSTEM INTERFACE "${LOOM_ONEDNN_INCLUDE_DIR}")
  target_link_libraries(loom_onednn_library INTERFACE "${LOOM_ONEDNN_LIBRARY}")
  set(${out} loom_onednn_library PARENT_SCOPE)
  set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON PARENT_SCOPE)  # where the loader does not look by itself
endfunction()

# loom_cpu_kernels(FOLDER)
# The kernels in FOLDER once more for each of LOOM_CPU_SETS, as libloom_cpu_<set>.so beside libloom. Nothing of a plugin
# but its entry is visible, so that no other code can end up with an inline function compiled for a newer processor.
function(loom_cpu_kernels folder)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
  foreach(set IN LISTS LOOM_CPU_SETS)
    if(NOT DEFINED LOOM_CPU_FLAGS_${set})
      message(FATAL_ERROR "LOOM_CPU_SETS: expected some of avx2, avx512, got ${set}")
    endif()
    add_library(loom_cpu_${set} MODULE ${sources})
    set_target_properties(loom_cpu_${set} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
                          INSTALL_RPATH "$ORIGIN")
    target_compile_options(loom_cpu_${set} PRIVATE ${LOOM_LIBRARY_FLAGS} ${LOOM_CPU_FLAGS_${set}})
    target_link_libraries(loom_cpu_${set} PRIVATE loom)
    set_property(GLOBAL APPEND PROPERTY LOOM_PLUGINS loom_cpu_${set})
  endforeach()
endfunction()

# Loops of tiles begin with a line of the cache: elsewhere SSE's took up to 30 % longer, as chance would have it.
set_source_files_properties(accelerators/cpu/gemm_tile.cpp accelerators/cpu/direct_conv.cpp
                            accelerators/cpu/direct_conv_weight.cpp PROPERTIES COMPILE_OPTIONS -falign-loops=64)

# What libloom and a plugin must agree on: a digest of the headers that both are compiled from.
function(loom_interface out)
  set(headers "")
  foreach(folder IN LISTS ARGN)
    file(GLOB found CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.h" "${PROJECT_SOURCE_DIR}/${folder}/*.def")
    list(APPEND headers ${found})
  endforeach()
  set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${headers})
  set(digests "")
  foreach(header IN LISTS headers)
    file(SHA256 "${header}" digest)
    string(APPEND digests "${digest}")
  endforeach()
  string(SHA256 digest "${digests}")
  set(${out} ${digest} PARENT_SCOPE)
endfunction()

loom_interface(LOOM_INTERFACE accelerators)
set_source_files_properties(accelerators/cuda.cpp accelerators/cuda/plugin.cpp PROPERTIES COMPILE_DEFINITIONS
                            "LOOM_INTERFACE=\"${LOOM_INTERFACE}\"")
loom_interface(LOOM_RANKS_INTERFACE accelerators distributed)
set_source_files_properties(distributed/nccl.cpp distributed/nccl/plugin.cpp PROPERTIES COMPILE_DEFINITIONS
                            "LOOM_RANKS_INTERFACE=\"${LOOM_RANKS_INTERFACE}\"")

# loom_cuda_plugin(FOLDER): the sources in FOLDER as libloom_cuda.so beside libloom, where LOOM_CUDA is ON.
function(loom_cuda_plugin folder)
  if(NOT LOOM_CUDA OR LOOM_CUDA STREQUAL "EMULATED")
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp" "${PROJECT_SOURCE_DIR}/${folder}/*.cu")
  find_package(CUDAToolkit REQUIRED)
  # cuDNN has no package file: beside the toolkit, or where CUDNN_ROOT says.
  find_path(LOOM_CUDNN_INCLUDE_DIR cudnn.h HINTS ENV CUDNN_ROOT ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
  find_library(LOOM_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ENV CUDNN_ROOT ${CUDAToolkit_LIBRARY_DIR}
               PATH_SUFFIXES lib lib64)
  mark_as_advanced(LOOM_CUDNN_INCLUDE_DIR LOOM_CUDNN_LIBRARY)
  if(LOOM_CUDNN_INCLUDE_DIR AND LOOM_CUDNN_LIBRARY)
    list(FILTER sources EXCLUDE REGEX "/no_dnn\\.cpp$")
  else()
    list(FILTER sources EXCLUDE REGEX "/dnn_(functions|library|plan|operations)\\.cpp$")
  endif()
  set(CUDAToolkit_INCLUDE_DIRS "${CUDAToolkit_INCLUDE_DIRS}" PARENT_SCOPE)
  set(CUDAToolkit_LIBRARY_DIR "${CUDAToolkit_LIBRARY_DIR}" PARENT_SCOPE)
  add_library(loom_cuda MODULE ${sources})
  set_target_properties(loom_cuda PROPERTIES CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden
                        VISIBILITY_INLINES_HIDDEN ON INSTALL_RPATH "$ORIGIN")
  target_compile_options(loom_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${LOOM_LIBRARY_FLAGS}>
                         "$<$<COMPILE_LANGUAGE:CUDA>:${LOOM_CUDA_FLAGS}>")
  # What has the CPU's bits: products and sums are rounded one after the other.
  foreach(name random dropout optimizer)
    set_source_files_properties("${PROJECT_SOURCE_DIR}/${folder}/${name}.cu" PROPERTIES COMPILE_OPTIONS -fmad=false)
  endforeach()
  target_link_libraries(loom_cuda PRIVATE loom CUDA::cudart CUDA::cublasLt)
  if(LOOM_CUDNN_INCLUDE_DIR AND LOOM_CUDNN_LIBRARY)
    target_include_directories(loom_cuda PRIVATE "${LOOM_CUDNN_INCLUDE_DIR}")
    target_link_libraries(loom_cuda PRIVATE ${CMAKE_DL_LIBS})
    # Loaded when it is first asked for: a GPU without cuDNN does the rest.
    cmake_path(GET LOOM_CUDNN_LIBRARY PARENT_PATH cudnn_folder)
    set_target_properties(loom_cuda PROPERTIES BUILD_RPATH "${cudnn_folder}")
  endif()
  set_property(GLOBAL APPEND PROPERTY LOOM_PLUGINS loom_cuda)
endfunction()

# loom_nccl_plugin(FOLDER): the sources in FOLDER as libloom_nccl.so beside libloom, where LOOM_CUDA is ON and NCCL is
# found: beside the toolkit, or where NCCL_ROOT says.
function(loom_nccl_plugin folder)
  if(NOT TARGET loom_cuda)
    return()
  endif()
  find_path(LOOM_NCCL_INCLUDE_DIR nccl.h HINTS ENV NCCL_ROOT ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
  find_library(LOOM_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ENV NCCL_ROOT ${CUDAToolkit_LIBRARY_DIR}
               PATH_SUFFIXES lib lib64)
  mark_as_advanced(LOOM_NCCL_INCLUDE_DIR LOOM_NCCL_LIBRARY)
  if(NOT LOOM_NCCL_INCLUDE_DIR OR NOT LOOM_NCCL_LIBRARY)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
  add_library(loom_nccl MODULE ${sources} "${PROJECT_SOURCE_DIR}/accelerators/cuda/runtime.cpp")
  set_target_properties(loom_nccl PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
                        INSTALL_RPATH "$ORIGIN")
  target_compile_options(loom_nccl PRIVATE ${LOOM_LIBRARY_FLAGS})
  target_include_directories(loom_nccl SYSTEM PRIVATE "${LOOM_NCCL_INCLUDE_DIR}")
  target_link_libraries(loom_nccl PRIVATE loom CUDA::cudart "${LOOM_NCCL_LIBRARY}")
  set_property(GLOBAL APPEND PROPERTY LOOM_PLUGINS loom_nccl)
endfunction()

# loom_programs(FOLDER): every FOLDER/*.cpp is one executable, at <build>/FOLDER/.
function(loom_programs folder)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
  if(NOT sources)
    return()
  endif()
  find_package(CLI11 REQUIRED)
  foreach(source IN LISTS sources)
    cmake_path(GET source STEM name)
    add_executable(${name} "${source}")
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/${folder}")
    target_link_libraries(${name} PRIVATE Loom::loom CLI11::CLI11)
  endforeach()
endfunction()

# loom_command(FOLDER): all of FOLDER/*.cpp is the one executable `loom`, which is installed; none without CLI11.
function(loom_command folder)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
  find_package(CLI11 QUIET)
  if(NOT CLI11_FOUND)
    return()
  endif()
  add_executable(loom_command ${sources})
  set_target_properties(loom_command PROPERTIES OUTPUT_NAME loom INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}"
                        RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/${folder}")
  target_compile_definitions(loom_command PRIVATE LOOM_VERSION="${PROJECT_VERSION}")
  target_link_libraries(loom_command PRIVATE Loom::loom CLI11::CLI11)
  install(TARGETS loom_command RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endfunction()

# loom_bench(FOLDER): all of FOLDER/*.cpp and FOLDER/micro/*.cpp is the one executable `loom_bench`.
function(loom_bench folder)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp" "${PROJECT_SOURCE_DIR}/${folder}/micro/*.cpp")
  if(NOT sources)
    return()
  endif()
  find_package(benchmark REQUIRED)
  add_executable(loom_bench ${sources})
  set_target_properties(loom_bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/${folder}")
  target_link_libraries(loom_bench PRIVATE Loom::loom benchmark::benchmark)
endfunction()
