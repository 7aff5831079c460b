package registry

import (
	"cmp"
	"strconv"
	"strings"
)

// compareVersions orders two versions by Semantic Versioning 2.0 section 11, and takes what stores have besides: a "v" in
// front, and any count of numbers, where missing ones are 0. ok is false unless both are versions.
func compareVersions(a, b string) (order int, ok bool) {
	aNumbers, aPre, aOK := splitVersion(a)
	bNumbers, bPre, bOK := splitVersion(b)
	if !aOK || !bOK {
		return 0, false
	}
	for order == 0 && (aNumbers != "" || bNumbers != "") {
		var x, y uint64
		if x, aNumbers, aOK = nextNumber(aNumbers); !aOK {
			return 0, false
		}
		if y, bNumbers, bOK = nextNumber(bNumbers); !bOK {
			return 0, false
		}
		order = cmp.Compare(x, y)
	}
	if order == 0 {
		order = comparePreReleases(aPre, bPre)
	}
	return order, validNumbers(aNumbers) && validNumbers(bNumbers)
}

// isVersion tells whether s can be compared.
func isVersion(s string) bool {
	_, ok := compareVersions(s, s)
	return ok
}

// splitVersion cuts off the "v" and the build, and parts the numbers from the pre-release.
func splitVersion(s string) (numbers, pre string, ok bool) {
	s = strings.TrimPrefix(s, "v")
	s, _, _ = strings.Cut(s, "+")
	numbers, pre, dashed := strings.Cut(s, "-")
	return numbers, pre, numbers != "" && !strings.HasSuffix(numbers, ".") && (pre != "") == dashed
}

// nextNumber takes the first number off; there is always one more, 0.
func nextNumber(numbers string) (n uint64, rest string, ok bool) {
	if numbers == "" {
		return 0, "", true
	}
	first, rest, _ := strings.Cut(numbers, ".")
	n, err := strconv.ParseUint(first, 10, 64)
	return n, rest, err == nil
}

// validNumbers reads the numbers after those that decided.
func validNumbers(numbers string) bool {
	ok := true
	for numbers != "" && ok {
		_, numbers, ok = nextNumber(numbers)
	}
	return ok
}

func comparePreReleases(a, b string) int {
	if a == "" || b == "" {
		// A release comes after its pre-releases.
		return cmp.Compare(len(b), len(a))
	}
	for a != "" && b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if order := comparePart(x, y); order != 0 {
			return order
		}
	}
	return cmp.Compare(len(a), len(b))
}

// comparePart: numbers by their size and before words, words by their bytes.
func comparePart(a, b string) int {
	x, errA := strconv.ParseUint(a, 10, 64)
	y, errB := strconv.ParseUint(b, 10, 64)
	switch {
	case errA == nil && errB == nil:
		return cmp.Compare(x, y)
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	}
	return strings.Compare(a, b)
}
