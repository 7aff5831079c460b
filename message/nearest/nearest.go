// Package nearest finds the word that somebody meant to write: the suggestion in an error about an unknown name.
package nearest

// Word returns the known word nearest to given, or "" when none is near enough to have been meant: at most two edits
// away, and no more than a third of its letters.
func Word(given string, known []string) string {
	best, distance := "", min(2, (len(given)+2)/3)+1
	for _, k := range known {
		if d := edits(given, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance in bytes; a swap of neighbours counts as one, for it is the commonest slip.
func edits(a, b string) int {
	before, prev := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j+1]+1, row[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, prev = prev, row
	}
	return prev[len(b)]
}
