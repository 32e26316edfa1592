# What several ranks that mpirun starts need (src/device/mpi_library.h), where MPI is.
if(MICA_MPI AND NOT MICA_FUZZ)
  find_package(MPI COMPONENTS CXX QUIET)
endif()

# mica_mpi_library(TARGET SOURCE...): beside the programs, which load it when mpirun has started them; nothing where
# there is no MPI. What it needs of our libraries the program has.
function(mica_mpi_library target)
  if(NOT MPI_CXX_FOUND)
    return()
  endif()
  add_library(${target} MODULE ${ARGN})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE MPI::MPI_CXX fmt::fmt nlohmann_json::nlohmann_json)
  target_compile_definitions(${target} PRIVATE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
endfunction()
