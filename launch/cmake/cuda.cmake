# Whether the GPU backends are built: by default, if there is a CUDA compiler.
include(CheckLanguage)
if(NOT DEFINED MLA_WITH_CUDA OR MLA_WITH_CUDA)
  check_language(CUDA)
endif()
set(cuda_found OFF)
if(CMAKE_CUDA_COMPILER)
  set(cuda_found ON)
endif()
option(MLA_WITH_CUDA "Build the GPU backends (needs a CUDA 12 toolkit or newer)" ${cuda_found})
if(MLA_WITH_CUDA AND NOT cuda_found)
  message(FATAL_ERROR "MLA_WITH_CUDA is ON, but no CUDA compiler was found: put nvcc of a CUDA 12 "
    "toolkit or newer on the PATH, name it with -D CMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc, or "
    "configure with -D MLA_WITH_CUDA=OFF")
endif()
if(MLA_WITH_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # each set of kernels names its own
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 12.0 REQUIRED)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
    message(FATAL_ERROR "MLA_WITH_CUDA is ON, but ${CMAKE_CUDA_COMPILER} is of CUDA "
      "${CMAKE_CUDA_COMPILER_VERSION}: CUDA 12 or newer is needed, or -D MLA_WITH_CUDA=OFF")
  endif()
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
endif()
