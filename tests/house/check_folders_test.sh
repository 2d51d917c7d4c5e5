#!/bin/sh
# The check itself is checked: each line below, put where it does not belong, must be found.
# Usage: check_folders_test.sh CHECK_SCRIPT SCRATCH_FOLDER
set -u
check=$1
scratch=$2
failed=0

# expect VERDICT FILE LINE: VERDICT is pass or fail.
expect() {
  rm -rf "$scratch"
  mkdir -p "$scratch/$(dirname "$2")"
  printf '%s\n' "$3" > "$scratch/$2"
  verdict=pass
  sh "$check" "$scratch" > /dev/null || verdict=fail
  if [ "$verdict" != "$1" ]; then
    echo "expected $1 for $2: $3"
    failed=1
  fi
}

expect fail core/a.h '#include <immintrin.h>'
expect fail launch/a.cpp 'find_backend("avx512");'
expect fail dist/a.cpp '// AVX2 is fast'
expect pass kernels/cpu/a.cpp '#include <immintrin.h>'
expect pass core/a.h '/// a parameter and its family'
expect fail launch/a.cpp '#include <mpi.h>'
expect fail kernels/a.h '#include "mpi.h"'
expect pass dist/a.cpp '#include <mpi.h>'
expect pass tests/dist/a.cpp '#include <mpi.h>'
expect fail proto/a.h '#include "proto/batch.pb.h"'
expect fail launch/a.cpp '#include "proto/batch.pb.h"'
expect pass proto/a.cpp '#include "proto/batch.pb.h"'
expect fail core/a.cpp '#include <fmt/format.h>'
expect fail core/a.cpp '#include <unistd.h>'
expect pass core/a.cpp '#include <vector>'
expect fail core/a.cpp '#include <sys/mman.h>'
expect pass core/huge_pages.cpp '#include <sys/mman.h>'
expect fail core/a.cpp '#include "kernels/backend.h"'
expect fail kernels/a.cpp '#include "dist/engine.h"'
expect fail kernels/a.cpp '#include "proto/batch_file.h"'
expect fail dist/a.cpp '#include "proto/batch_file.h"'
expect fail dist/a.cpp '#include "kernels/reference/oracle.h"'
expect pass dist/a.cpp '#include "kernels/backend.h"'
expect fail proto/a.cpp '#include "kernels/backend.h"'
expect fail launch/a.cpp '#include "tests/support/oracle.h"'
expect pass launch/a.cpp '#include "dist/engine.h"'
expect fail core/a.cpp '#include <cuda_runtime.h>'
expect fail launch/a.cpp '#include <cuda_runtime_api.h>'
expect fail kernels/cpu/a.cpp '#include <cuda.h>'
expect pass kernels/cuda/a.cpp '#include <cuda_runtime_api.h>'
expect pass kernels/cuda/sm90/a.cu '#include <cuda_bf16.h>'
expect fail kernels/cuda/simt/a.cu '#include <hip/hip_runtime.h>'
expect fail kernels/cuda/simt/a.cuh 'cudaStream_t stream;'
expect pass kernels/cuda/simt/gpu.h 'using Stream = cudaStream_t;'
rm -rf "$scratch"
exit "$failed"
