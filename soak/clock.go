package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A clock of its own for a process is more than an operating system gives without root. So the roles are built with a
// package time whose Now is off by BELFRY_CLOCK_SKEW, in seconds: the wall clock, of all code in the process, as on a
// machine whose clock is off. Timers and what was measured by the monotonic clock are right, as they are there.

// mostSkew is how far a role's clock is off, either way. Together with the providers' it stays below the minute that Apple
// and Google let a token's time be off.
const mostSkew = 30 * time.Second

// skewed is the file that is added to the package.
const skewed = `package time

import "syscall"

var skew = func() int64 {
	s, set := syscall.Getenv("BELFRY_CLOCK_SKEW")
	if !set {
		return 0
	}
	n, err := atoi(s)
	if err != nil {
		panic("BELFRY_CLOCK_SKEW is no number of seconds: " + s)
	}
	return int64(n)
}()
`

// overlay writes the package's files that are different into a folder, and returns the name of go build's -overlay.
func overlay(dir string) (string, error) {
	root, err := command("", nil, "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	of := func(name string) string { return filepath.Join(root, "src", "time", name) }
	source, err := os.ReadFile(of("time.go"))
	if err != nil {
		return "", err
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), now) != 1 {
		return "", fmt.Errorf("%s: time.Now is not what it was in Go 1.26, and cannot be skewed; look at it and mend overlay", of("time.go"))
	}
	replace := map[string]string{}
	for name, text := range map[string]string{"time.go": strings.Replace(string(source), now, now+"\tsec += skew\n", 1), "skew.go": skewed} {
		replace[of(name)] = filepath.Join(dir, name)
		if err := os.WriteFile(replace[of(name)], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, list, 0o600)
}

// drawSkew draws how far off a process's clock is that starts. They start one after another, so a seed draws the same.
func (w *world) drawSkew() time.Duration {
	s := time.Duration(w.clocks.IntN(2*int(mostSkew/time.Second)+1))*time.Second - mostSkew
	w.skews = append(w.skews, s)
	return s
}

// skewsDrawn says how far off the clocks were.
func (w *world) skewsDrawn() string {
	return fmt.Sprintf("%d starts of a role's process, each with a clock of its own: from %v to %v off", len(w.skews), slices.Min(w.skews), slices.Max(w.skews))
}

// start starts the instance, with a clock that is off.
func (i *instance) start(more ...string) error {
	return i.process.start(append(more, fmt.Sprintf("BELFRY_CLOCK_SKEW=%d", i.w.drawSkew()/time.Second))...)
}
