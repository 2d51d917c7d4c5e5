# Installs the command, the headers and the libraries, with a package file for find_package(meshmla).
include(CMakePackageConfigHelpers)

# mla_targets_under(out types folder...): our targets of those types made in the folders and below.
function(mla_targets_under out types)
  set(found)
  foreach(folder ${ARGN})
    get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target ${targets})
      get_target_property(type ${target} TYPE)
      if(type IN_LIST types)
        list(APPEND found ${target})
      endif()
    endforeach()
    get_property(below DIRECTORY ${folder} PROPERTY SUBDIRECTORIES)
    if(below)
      mla_targets_under(more "${types}" ${below})
      list(APPEND found ${more})
    endif()
  endforeach()
  set(${out} ${found} PARENT_SCOPE)
endfunction()

# mla_packages_of(out target...): the packages that the imported targets they link come from.
function(mla_packages_of out)
  set(known OpenMP MPI Threads Protobuf fmt spdlog nlohmann_json CLI11 xxHash)
  set(packages)
  foreach(target ${ARGN})
    get_target_property(libraries ${target} LINK_LIBRARIES)
    get_target_property(interface ${target} INTERFACE_LINK_LIBRARIES)
    foreach(library ${libraries} ${interface})
      foreach(package ${known})
        string(TOLOWER "${library}" lower_library)
        string(TOLOWER "${package}::" lower_package)
        string(FIND "${lower_library}" "${lower_package}" at)
        if(NOT at EQUAL -1)
          list(APPEND packages ${package})
        endif()
      endforeach()
    endforeach()
  endforeach()
  list(REMOVE_DUPLICATES packages)
  list(SORT packages)
  set(${out} ${packages} PARENT_SCOPE)
endfunction()

mla_targets_under(libraries "STATIC_LIBRARY;OBJECT_LIBRARY;INTERFACE_LIBRARY" core kernels proto dist)
mla_targets_under(commands "EXECUTABLE" launch)
mla_packages_of(packages ${libraries})
set(MLA_DEPENDENCIES)
foreach(package ${packages})
  string(APPEND MLA_DEPENDENCIES "find_dependency(${package})\n")
endforeach()

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/meshmla)
set_target_properties(meshmla_flags PROPERTIES EXPORT_NAME flags)
install(TARGETS meshmla_flags ${libraries} EXPORT meshmla_targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS ${commands} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
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
