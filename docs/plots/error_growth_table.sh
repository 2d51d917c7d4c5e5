#!/bin/sh
# Prints a table of docs/numerics.md out of error_growth.csv beside it:
#   error_growth_table.sh TYPE COLUMN METHOD/CHUNK...
# One row per input: the effective number of keys and the column of each method, at the shortest and
# the longest length.
csv=$(dirname "$0")/error_growth.csv
dtype=$1
column=$2
shift 2
awk -F, -v dtype="$dtype" -v column="$column" -v methods="$*" '
  function short(x) { return sprintf("%.1e", x) }
  function count(x) { return sprintf(x < 10 ? "%.1f" : "%.0f", x) }
  NR == 1 { for (i = 1; i <= NF; i++) if ($i == column) field = i; next }
  $2 != dtype { next }
  !($1 in known) { known[$1] = 1; inputs[++n] = $1 }
  {
    if (shortest == 0 || $5 < shortest) shortest = $5
    if ($5 > longest) longest = $5
    value[$1, $3 "/" $4, $5] = $field
    keys[$1, $5] = $6
  }
  END {
    m = split(methods, method, " ")
    line = "| input | keys that count |"; rule = "|---|---|"
    for (j = 1; j <= m; j++) { line = line " " method[j] " |"; rule = rule "---|" }
    print line; print rule
    for (i = 1; i <= n; i++) {
      line = "| `" inputs[i] "` | " count(keys[inputs[i], shortest]) ", " count(keys[inputs[i], longest]) " |"
      for (j = 1; j <= m; j++)
        line = line " " short(value[inputs[i], method[j], shortest]) ", " short(value[inputs[i], method[j], longest]) " |"
      print line
    }
  }' "$csv"
