package datadir

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Stop is how the folder's last broker ended.
type Stop string

// The ways to end.
const (
	Orderly Stop = "orderly"    // all is on the disk, and nothing may differ from it
	Killed  Stop = "killed"     // what was being written may be cut off
	Power   Stop = "power lost" // the system has started anew: what was not on the disk yet may be gone
)

// Report is what [Check] has found.
type Report struct {
	Dir  string
	Stop Stop
	// Empty is a folder that no broker has had yet.
	Empty      bool
	Topics     int
	Partitions int
	Records    int64 // offsets in use, those of markers included
	Bytes      int64 // of records
	Positions  int   // of groups in partitions
	Tears      []Tear
	Faults     []Fault

	mu    sync.Mutex
	note  *note
	files map[string]noted
	// logs are the partitions by folder.
	logs map[string]*log
	// repaired is what earlier repairs have left.
	repaired repaired
}

// Tear is an end that the last stop has left unfinished. Nothing of it was acknowledged.
type Tear struct {
	File string
	At   int64 // byte
	What string
	// mend is done before the broker starts.
	mend func() error
}

// Fault is damage.
type Fault struct {
	File string
	At   int64 // byte, -1 for all of it
	What string
	// Loss is what is lost for good when it is repaired.
	Loss string
	// repair does so; what it replaces it has put aside.
	repair func(aside func(path string) error) error
	// lost is a groups.log without its positions.
	lost bool
}

func (f Fault) String() string {
	if f.At < 0 {
		return fmt.Sprintf("%s: %s", f.File, f.What)
	}
	return fmt.Sprintf("%s, byte %d: %s", f.File, f.At, f.What)
}

// Err refuses a damaged folder, naming the damage and the way out; nil for a sound one.
func (r *Report) Err() error {
	if len(r.Faults) == 0 {
		return nil
	}
	const most = 10
	var lines []string
	for _, f := range r.Faults[:min(len(r.Faults), most)] {
		lines = append(lines, "  "+f.String())
	}
	if more := len(r.Faults) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", more))
	}
	return fmt.Errorf("the embedded Kafka's folder %s is damaged, and nothing in it was changed:\n%s\n"+
		"Restore a backup (belfry data restore), or let belfry data repair say what would be lost without what is damaged", r.Dir, strings.Join(lines, "\n"))
}

func (r *Report) fault(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Faults = append(r.Faults, f)
}

func (r *Report) tear(t Tear) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Tears = append(r.Tears, t)
}

func (r *Report) sort() {
	slices.SortFunc(r.Faults, func(a, b Fault) int { return strings.Compare(a.File, b.File) })
	slices.SortFunc(r.Tears, func(a, b Tear) int { return strings.Compare(a.File, b.File) })
}
