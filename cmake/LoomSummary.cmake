# SPDX-License-Identifier: Apache-2.0
# One block that says what was configured; only where Loom is the project, not a part of one.
if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()
get_property(counts GLOBAL PROPERTY LOOM_SOURCE_COUNTS)
list(JOIN counts ", " counts)
if(LOOM_MPI)
  set(mpi_text "ON (MPI ${MPI_CXX_VERSION})")
else()
  set(mpi_text OFF)
endif()
if(TARGET loom_command)
  set(command_text ON)
else()
  set(command_text "OFF (no CLI11)")
endif()
set(sets_text portable ${LOOM_CPU_SETS})
list(JOIN sets_text ", " sets_text)
if(NOT LOOM_SANITIZE)
  set(sanitize_text none)
else()
  set(sanitize_text ${LOOM_SANITIZE})
endif()
message(STATUS "
  Loom ${PROJECT_VERSION}
    compiler       ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, ${CMAKE_BUILD_TYPE}, launcher: ${CMAKE_CXX_COMPILER_LAUNCHER}
    LOOM_CPU_SETS  ${sets_text}
    LOOM_MPI       ${mpi_text}
    LOOM_CUDA      ${LOOM_CUDA}
    LOOM_ONEDNN    ${LOOM_ONEDNN}
    LOOM_SANITIZE  ${sanitize_text}
    LOOM_WERROR    ${LOOM_WERROR}
    programs       loom ${command_text}, tests ${LOOM_TESTS}, examples ${LOOM_EXAMPLES}, bench ${LOOM_BENCH}
    sources        ${counts}
    found          fmt ${fmt_VERSION}, nlohmann_json ${nlohmann_json_VERSION}, zlib ${ZLIB_VERSION_STRING}
")
