# Sourced by the scripts beside it, after they changed to the repository's root.

# Open MPI refuses to start as root, as in most containers, unless told twice.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# Containers often forbid the system call behind single-copy messages; it would only print warnings.
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}

# Several sources are compiled as one, which halves the time of a whole build.
build_options=(-D CMAKE_UNITY_BUILD=ON)
if command -v ccache > /dev/null; then
  build_options+=(-D CMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi

# step TEXT COMMAND...: runs a command, its output kept for the case that it fails, and says in one
# line what it does and how long it took.
step() {
  local text=$1 log start=$SECONDS status=0
  shift
  log=$(mktemp)
  printf '%s ... ' "$text"
  "$@" > "$log" 2>&1 || status=$?
  if [ "$status" -eq 0 ]; then
    echo "$((SECONDS - start)) s"
  else
    echo "failed with $status after $((SECONDS - start)) s: $*"
    tail -n 60 "$log"
  fi
  rm -f "$log"
  return "$status"
}
