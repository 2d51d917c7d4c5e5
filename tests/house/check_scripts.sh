#!/bin/bash
# Checks our shell scripts: usage check_scripts.sh SOURCE_FOLDER. Their syntax, and what shellcheck finds where it is
# installed.
set -u
cd "$1" || exit 2
mapfile -t scripts < <(grep -rlE --exclude-dir=build '^#!/bin/(ba)?sh' launch tests .ci 2> /dev/null |
  grep -vE '\.(cpp|h)$')
if [ ${#scripts[@]} -eq 0 ]; then
  echo "there are no scripts"
  exit 1
fi

broken=0
for script in "${scripts[@]}"; do
  "$(sed -n '1s/^#!//p' "$script")" -n "$script" || broken=1
done
if command -v shellcheck > /dev/null; then
  shellcheck -x --severity=warning "${scripts[@]}" || broken=1
else
  echo "shellcheck is not installed: only the syntax was checked"
fi
exit $broken
