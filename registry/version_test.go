package registry

import "testing"

func TestVersionsInOrder(t *testing.T) {
	// Each comes before the next. The first lines are Semantic Versioning's own examples.
	order := []string{
		"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
		"1.0.0.1", "1.2", "1.9.9", "1.10", "2.0-0", "v2", "2024.11.3", "18446744073709551615",
	}
	for i, a := range order {
		for j, b := range order {
			got, ok := compareVersions(a, b)
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if !ok || got != want {
				t.Errorf("%s to %s: %d, %v; want %d", a, b, got, ok, want)
			}
		}
	}
	for _, pair := range [][2]string{{"3", "3.0.0"}, {"v3.2", "3.2"}, {"1.0+a", "1.0+b"}, {"1.0-rc+a", "1.0-rc"}, {"01.2", "1.2"}} {
		if got, ok := compareVersions(pair[0], pair[1]); !ok || got != 0 {
			t.Errorf("%s and %s: %d, %v; want the same", pair[0], pair[1], got, ok)
		}
	}
	for _, s := range []string{"", "v", "new", "1.", ".1", "1..2", "1.x", "1-", "-1", "1 (45)", "3,2", "18446744073709551616", "2.1.x"} {
		if isVersion(s) {
			t.Errorf("%q was taken for a version", s)
		}
		if _, ok := compareVersions("1.0", s); ok {
			t.Errorf("%q was compared with a version", s)
		}
	}
}
