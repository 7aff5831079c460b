package bench

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Bench is one measurement.
type Bench interface {
	// Run measures. The Report can be marshalled to JSON.
	Run(ctx context.Context, e *Env) (Report, error)
}

// Report is what a measurement found.
type Report interface {
	// Print writes it for people.
	Print(w io.Writer) error
}

// Env is where a measurement is made.
type Env struct {
	// Belfry is the binary that runs the roles, and the embedded Kafka and Redis, in processes of their own.
	Belfry string
	// Kafka and Redis are real ones, host:port. None: embedded ones, in a process of their own. What a measurement makes
	// there is under names of its own, and removed.
	Kafka, Redis []string
	// Profile is a file for a CPU profile of this process during the engine's first round. "": none.
	Profile string
	// Dir is for files; whoever made it removes it.
	Dir string
	// Say tells a person what happens.
	Say func(format string, args ...any)
}

// file writes one of the measurement's.
func (e *Env) file(name, content string) (path string, err error) {
	path = filepath.Join(e.Dir, name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// kind says what Kafka it was.
func (e *Env) kind() string {
	if len(e.Kafka) == 0 {
		return "with an embedded Kafka, in a process of its own"
	}
	return "with a real Kafka"
}

// joined adds what closing something brought to an error.
func joined(err error, close func() error) error { return errors.Join(err, close()) }
