package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestProcessHasAClockOfItsOwn: the wall clock is off by what is asked for, and time that passes is measured rightly.
func TestProcessHasAClockOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	files, err := overlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(dir, "main.go")
	const source = `package main

import (
	"os"
	"time"
)

func main() {
	began := time.Now()
	<-time.After(time.Millisecond)
	if passed := time.Since(began); passed < time.Millisecond || passed > time.Minute {
		panic(passed)
	}
	os.Stdout.WriteString(time.Now().Format(time.RFC3339))
}
`
	if err := os.WriteFile(main, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if _, err := command(dir, nil, "go", "build", "-overlay", files, "-o", program, main); err != nil {
		t.Fatal(err)
	}
	for _, off := range []time.Duration{0, -2 * time.Hour, 3 * time.Hour} {
		before := time.Now()
		out, err := command(dir, []string{"BELFRY_CLOCK_SKEW=" + strconv.Itoa(int(off.Seconds()))}, program)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, out)
		if err != nil {
			t.Fatal(err)
		}
		// It was asked between two moments, and says whole seconds.
		if told := at.Add(-off); told.Before(before.Add(-2*time.Second)) || told.After(time.Now()) {
			t.Errorf("%v off it says %v at %v", off, at, before)
		}
	}
}
