#!/bin/sh
# Checks who may know whom: usage check_folders.sh SOURCE_FOLDER. Prints every line that breaks a
# rule and fails if there is one.
set -u
cd "$1" || exit 2

# report RULE: what grep found on standard input breaks RULE.
report() {
  found=$(cat)
  [ -z "$found" ] || printf '%s:\n%s\n\n' "$1" "$found"
}

# lines PATTERN FOLDER...: the lines of our sources there that match.
lines() {
  pattern=$1
  shift
  for folder in "$@"; do
    [ -e "$folder" ] || continue
    grep -rnEi --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh' \
      --include='*.proto' --include='CMakeLists.txt' --include='*.cmake' -- "$pattern" "$folder"
  done
}

# includes_beside FOLDER ALLOWED: the project headers that FOLDER includes outside of ALLOWED.
includes_beside() {
  lines '^ *# *include +"' "$1" | grep -vE "include +\"($2)"
}

check_all() {
  lines 'avx2|avx512|\bamx|immintrin' core dist proto launch CMakeLists.txt \
    tests/core tests/proto tests/dist tests/launch tests/support tests/CMakeLists.txt |
    report "instruction sets are named only under kernels/"
  lines '<mpi\.h>|"mpi\.h"' core kernels proto launch tests/core tests/kernels tests/proto \
    tests/launch | report "mpi.h is included only under dist/"
  lines 'include.*\.pb\.h' core kernels dist launch proto tests | grep -vE '^proto/[^:]*\.cpp:' |
    report "*.pb.h is included only in proto/*.cpp"

  lines '^ *# *include +<(cuda|cooperative_groups|nv/|hip/|musa)' core dist proto launch tests/core \
    tests/proto tests/dist tests/launch tests/support |
    report "GPU toolkits are included only under kernels/"
  lines '^ *# *include +<(cuda|cooperative_groups|nv/|hip/|musa)' kernels |
    grep -vE '^kernels/cuda/' | report "GPU toolkits are included only under kernels/cuda/"
  lines '^ *# *include +<(cuda|cooperative_groups|nv/|hip/|musa)|\bcuda[A-Z]' kernels/cuda/simt |
    grep -vE '^kernels/cuda/simt/gpu\.h:' |
    report "kernels/cuda/simt/ names a vendor's functions in gpu.h alone"

  # One exception: advice on huge pages, which changes nothing but speed.
  lines '^ *# *include +<[^>]*[^a-z_0-9>]' core |
    grep -vE '^core/huge_pages\.cpp:[0-9]+:#include <sys/mman\.h>$' |
    report "core/ includes only the C++ standard library"
  includes_beside core 'core/' | report "core/ knows only itself"
  includes_beside kernels '(core|kernels)/' | report "kernels/ knows core/ and itself"
  includes_beside dist 'core/|dist/|kernels/[a-z_0-9]+\.h' |
    report "dist/ knows core/, itself and the top of kernels/, no single backend"
  includes_beside proto '(core|proto)/' | report "proto/ knows core/ and itself"
  includes_beside launch '(core|kernels|proto|dist|launch)/' | report "launch/ knows no tests"
}

broken=$(check_all)
if [ -n "$broken" ]; then
  printf '%s\n' "$broken"
  exit 1
fi
echo "The folders keep to their rules."
