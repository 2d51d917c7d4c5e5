# Run by every build: writes OUTPUT from TEMPLATE, and leaves it untouched if nothing changed.
# In: SOURCE_DIR, TEMPLATE, OUTPUT, MLA_VERSION, MLA_COMPILER, MLA_BUILD_TYPE, MLA_COMPILE_FLAGS.
set(MLA_GIT_REVISION "")
find_program(GIT git)
if(GIT)
  # Only a checkout of our own counts, not a repository that these sources were copied into.
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} rev-parse --show-cdup
    OUTPUT_VARIABLE above OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed AND above STREQUAL "")
    execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} describe --always --dirty --abbrev=12 --exclude=*
      OUTPUT_VARIABLE MLA_GIT_REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()
string(REPLACE "\\" "\\\\" MLA_COMPILE_FLAGS "${MLA_COMPILE_FLAGS}")
string(REPLACE "\"" "\\\"" MLA_COMPILE_FLAGS "${MLA_COMPILE_FLAGS}")
configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
