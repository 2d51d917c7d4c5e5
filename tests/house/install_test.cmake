# Installs the build in BINARY_DIR into a fresh folder, then configures, builds and runs the project
# in CONSUMER_DIR against it.
file(REMOVE_RECURSE ${SCRATCH_DIR})

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "${command}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${SCRATCH_DIR}/prefix)
run(${CMAKE_COMMAND} -S ${CONSUMER_DIR} -B ${SCRATCH_DIR}/build -G ${GENERATOR}
  -D CMAKE_PREFIX_PATH=${SCRATCH_DIR}/prefix
  -D CMAKE_CXX_COMPILER=${CXX_COMPILER}
  -D CMAKE_C_FLAGS=${CXX_FLAGS}
  -D CMAKE_CXX_FLAGS=${CXX_FLAGS}
  -D CMAKE_BUILD_TYPE=${BUILD_TYPE})
run(${CMAKE_COMMAND} --build ${SCRATCH_DIR}/build)
run(${SCRATCH_DIR}/build/c_consumer)
if(NOT output MATCHES "portable")
  message(FATAL_ERROR "The consumer in C printed: ${output}")
endif()
run(${SCRATCH_DIR}/build/consumer)
if(NOT output MATCHES "4 chunks on rank 0, 4 on rank 1")
  message(FATAL_ERROR "The consumer printed: ${output}")
endif()
