# SPDX-License-Identifier: Apache-2.0
# Headers, library and package files. Folders that belong to one backend are private: their headers are not installed.
include(CMakePackageConfigHelpers)
get_property(folders GLOBAL PROPERTY LOOM_FOLDERS)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Loom")

install(FILES "${PROJECT_SOURCE_DIR}/loom.h" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/loom" OPTIONAL)
foreach(folder IN LISTS folders)
  if(IS_DIRECTORY "${PROJECT_SOURCE_DIR}/${folder}")
    install(DIRECTORY "${PROJECT_SOURCE_DIR}/${folder}/" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/loom/${folder}"
            FILES_MATCHING PATTERN "*.h" PATTERN "*.def"
            REGEX "/(accelerators/(cpu|cuda|onednn)|distributed/(mpi|nccl))$" EXCLUDE)
  endif()
endforeach()

list(TRANSFORM folders PREPEND loom_ OUTPUT_VARIABLE aliases)
list(TRANSFORM aliases APPEND _alias)
install(TARGETS loom ${aliases} EXPORT LoomTargets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
get_property(plugins GLOBAL PROPERTY LOOM_PLUGINS)
if(plugins)
  install(TARGETS ${plugins} LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
endif()
install(EXPORT LoomTargets NAMESPACE Loom:: DESTINATION "${package_dir}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/LoomConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/LoomConfig.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/LoomConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/LoomConfig.cmake" "${PROJECT_BINARY_DIR}/LoomConfigVersion.cmake"
        DESTINATION "${package_dir}")
