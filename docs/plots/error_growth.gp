# Draws docs/plots/error_growth.svg out of error_growth.csv beside it. From the repository's root:
#   gnuplot docs/plots/error_growth.gp
# Every backend in the file gets a line.
dir = "docs/plots/"
csv = dir."error_growth.csv"
set terminal svg size 1000,820 font "sans-serif,12" background "white"
set output dir."error_growth.svg"
set datafile separator ","
set logscale x 2
set logscale y
set format x "%.0f"
set format y "10^{%T}"
set xtics ("1K" 2**10, "4K" 2**12, "16K" 2**14, "64K" 2**16, "256K" 2**18, "1M" 2**20)
set xrange [2**10*0.8:2**20*1.25]
set grid ytics lc rgb "#dddddd"
set key off

# The lines of one curve: tokens and a column.
curve(input, dtype, method, chunk, column) = sprintf( \
  "< awk -F, '$1==\"%s\" && $2==\"%s\" && $3==\"%s\" && $4==\"%s\" {print $5 \",\" $%d}' %s", \
  input, dtype, method, chunk, column, csv)
methods(chunk) = system(sprintf( \
  "awk -F, '$3!~/^plain/ && $4==\"%s\" && !seen[$3]++ {print $3}' %s", chunk, csv))
colors = "#2471a3 #1e8449 #7d3c98 #117a65 #5d6d7e #212f3c"
in_chunks = methods("512")
in_one_chunk = methods("all")
kRms = 7
kLse = 17

set multiplot layout 2,2 margins 0.07,0.98,0.19,0.94 spacing 0.08,0.09
do for [panel=1:4] {
  input = word("random levels needle_first levels", panel)
  column = panel < 4 ? kRms : kLse
  set yrange [(panel < 4 ? 1e-8 : 1e-7):(panel < 4 ? 1e-1 : 1)]
  what = panel < 4 ? "out, relative RMS error: " : "lse, absolute error: "
  set title what.input noenhanced
  if (panel == 4) {
    set key at screen 0.5,0.01 center bottom vertical Left reverse maxrows 5 samplen 3 noenhanced font ",11"
  }
  plot curve(input, "bf16", "plain_fp32", "all", column) using 1:2 \
         with linespoints lw 2 dt 2 pt 4 lc rgb "#c0392b" title "plain fp32, one running sum", \
       curve(input, "bf16", "plain_16bit", "all", column) using 1:2 \
         with linespoints lw 2 dt 2 pt 6 lc rgb "#e67e22" title "plain, weights in bf16", \
       for [i=1:words(in_chunks)] curve(input, "bf16", word(in_chunks, i), "512", column) using 1:2 \
         with linespoints lw 2 pt 6+i lc rgb word(colors, i) title word(in_chunks, i), \
       for [i=1:words(in_one_chunk)] curve(input, "bf16", word(in_one_chunk, i), "all", column) using 1:2 \
         with linespoints lw 1.5 dt 3 pt 6+i lc rgb word(colors, i) title word(in_one_chunk, i)." (one chunk)"
}
unset multiplot
