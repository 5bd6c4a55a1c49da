# SPDX-License-Identifier: GPL-2.0-only
#
# plot.gp - the plots of a run: gnuplot -c bench/plot.gp DIR, of DIR/time.dat and DIR/rss.dat.
#
# A row of the benchmark is a place on the x axis, an allocator a kind of point, ours filled and
# red. Below 1 is faster, or leaner, than every peer.

dir = ARG1
set terminal svg size 1200,560 noenhanced font "sans-serif,12" background "white"
set datafile missing "NaN"
set logscale y
set ytics (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
set grid ytics xtics lc rgb "#dddddd"
set xtics rotate by 45 right font ",11"
set key outside right top
set bmargin 7
set offsets 0.5, 0.5, 0, 0

ours(name) = name eq "kmalloc" || name eq "kmalloc_nolock" || name eq "nolock-malloc"
names(file) = system("head -n 1 '" . file . "' | cut -d' ' -f2-")
kind(name) = name eq "kmalloc" ? 7 : name eq "kmalloc_nolock" ? 5 : name eq "nolock-malloc" ? 9 : -1
peer_points = "4 6 8 10 12 1 2 3 14"
peer_colours = "#1f77b4 #2ca02c #9467bd #8c564b #17becf #7f7f7f #bcbd22 #e377c2 #000000"
our_colours(name) = name eq "kmalloc" ? "#d62728" : name eq "kmalloc_nolock" ? "#ff7f0e" : "#b5179e"

do for [what in "time rss"] {
	file = dir . "/" . what . ".dat"
	if (system("test -s '" . file . "' && echo yes") ne "yes") { continue }
	list = names(file)
	set output dir . "/" . what . ".svg"
	set title (what eq "time" ? "Time, as a ratio to each row's fastest peer (medians)" \
				  : "Peak RSS, as a ratio to each row's leanest peer (medians)")
	n = 0
	array point[words(list)]
	array colour[words(list)]
	array size[words(list)]
	do for [i = 1:words(list)] {
		name = word(list, i)
		size[i] = ours(name) ? 0.9 : 0.7
		if (ours(name)) {
			point[i] = kind(name)
			colour[i] = our_colours(name)
		} else {
			n = n + 1
			point[i] = int(word(peer_points, n))
			colour[i] = word(peer_colours, n)
		}
	}
	plot 1 lc rgb "#444444" notitle, for [i = 1:words(list)] file \
		using 0:(column(i + 1)):xtic(1) every ::1 with points pt point[i] ps size[i] \
		lw 1.2 lc rgb colour[i] title word(list, i)
	unset output
	# What a file of the tree has: its licence, and no space at the end of a line.
	system("sed -i -e '1a<!-- SPDX-License-Identifier: GPL-2.0-only -->' -e 's/[[:blank:]]*$//' '" \
	       . dir . "/" . what . ".svg'")
}
