# SPDX-License-Identifier: GPL-2.0-only
# words.pl - what `make bench` has Perl do: count made-up words, sort them, join them, split again.
use strict;
use warnings;

my (%count, %first, $seed);
$seed = 12345;
for my $i (1 .. 60000) {
	$seed = ($seed * 1103515245 + 12345) % 2147483648;
	my $word = join '', map { chr(97 + ($seed >> $_) % 26) } 3, 7, 11, 15 + $i % 5;
	$count{$word}++;
	push @{ $first{ substr $word, 0, 2 } }, $i;
}
my @words = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
my $text = join ' ', map { "$_=$count{$_}" } @words;
my $sum = 0;
$sum += (split /=/)[1] for split / /, $text;
die "lost words: $sum\n" if $sum != 60000;
print scalar(@words), ' ', scalar(keys %first), "\n";
