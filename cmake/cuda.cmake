# The CUDA back end, where there is a compiler for it: sets MICA_WITH_CUDA and finds the toolkit's libraries.
set(MICA_WITH_CUDA OFF)
if(MICA_CUDA AND NOT MICA_SANITIZE AND NOT MICA_FUZZ)
  include(CheckLanguage)
  find_program(MICA_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(MICA_NVCC AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${MICA_NVCC})
  endif()
  if(MICA_NVCC)
    set(CMAKE_CUDA_ARCHITECTURES ${MICA_CUDA_ARCHITECTURES})
    enable_language(CUDA)
    # CMake 3.25 does not know yet that nvcc has C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    find_package(CUDAToolkit 12 REQUIRED)
    set(MICA_WITH_CUDA ON)
    # fmt 9 takes nvcc for a compiler without constexpr; 10 and later know better.
    add_compile_definitions($<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1>)
  elseif(NOT MICA_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "MICA_CUDA is ${MICA_CUDA}, but there is no nvcc; install the CUDA toolkit (12 or 13) or put its bin directory into PATH")
  endif()
endif()

# mica_cuda_library(TARGET SOURCE...): the back end, beside the programs, which load it when a GPU is asked for
# (src/device/cuda_back_end.h). It names no library of ours: what it needs of them the program that loads it has.
function(mica_cuda_library target)
  add_library(${target} MODULE ${ARGN})
  target_link_libraries(${target} PRIVATE CUDA::cudart_static CUDA::cublas CUDA::cublasLt CUDA::cusolver)
  # CUDA's libraries are looked for in LD_LIBRARY_PATH, then where the build found them and where they usually are.
  # What is in it of CUDA's runtime is for itself.
  target_link_options(${target} PRIVATE LINKER:--enable-new-dtags LINKER:--exclude-libs,ALL)
  set_target_properties(${target} PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
    BUILD_RPATH "/usr/local/cuda-${CUDAToolkit_VERSION_MAJOR}/lib64;/usr/local/cuda/lib64")
endfunction()

# mica_loads_cuda(PROGRAM): the program can load the back end. It holds the whole of the libraries that the back end
# stands on, also what it does not call itself, and exports their symbols. The back end is built before it.
function(mica_loads_cuda program)
  target_link_libraries(${program} PRIVATE mica_ops)
  foreach(library base device format ops)
    list(APPEND archives $<TARGET_FILE:mica_${library}>)
  endforeach()
  list(JOIN archives "," archives)
  target_link_options(${program} PRIVATE "LINKER:--export-dynamic-symbol=_Z*4mica*" "LINKER:--whole-archive,${archives},--no-whole-archive")
  foreach(back_end mica_cuda mica_mpi)
    if(TARGET ${back_end})
      add_dependencies(${program} ${back_end})
    endif()
  endforeach()
endfunction()
