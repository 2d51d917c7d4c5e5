# Installs the command, the headers and the libraries, with a package file for find_package(meshmla).
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/meshmla)
set_target_properties(meshmla_flags PROPERTIES EXPORT_NAME flags)
install(TARGETS meshmla_flags meshmla_core meshmla_kernels meshmla_c meshmla_proto meshmla_dist
  EXPORT meshmla_targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/meshmla)
install(TARGETS meshmla RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(PROGRAMS launch/meshmla-mpirun DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES launch/slurm/decode.sbatch DESTINATION ${CMAKE_INSTALL_DATADIR}/meshmla)
install(DIRECTORY core kernels proto dist DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/meshmla
  FILES_MATCHING PATTERN "*.h")
install(EXPORT meshmla_targets NAMESPACE meshmla:: FILE meshmla-targets.cmake
  DESTINATION ${package_folder})
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/meshmla-config.cmake.in ${PROJECT_BINARY_DIR}/meshmla-config.cmake
  INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/meshmla-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/meshmla-config.cmake ${PROJECT_BINARY_DIR}/meshmla-config-version.cmake
  DESTINATION ${package_folder})
