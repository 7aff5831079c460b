package stream

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/stream/datadir"
)

const (
	// syncEvery is how much a power loss may take.
	syncEvery = time.Second
	// compactEvery is how long superseded records and expired ones may stay.
	compactEvery = time.Hour
	// A disk is full for records when it has less room left than one in reserveShare, or than reserveMost: what ends
	// transactions and stops in good order still has to be written.
	reserveShare = 10
	reserveMost  = 64 << 20
)

// embeddedHealth is what ails an embedded broker.
type embeddedHealth struct {
	full, unsynced, unsaved atomic.Bool
}

// Health says why nothing can be written to the embedded Kafka, and what mends it; nil when all is well. It is safe for
// concurrent use.
func (e *Embedded) Health() error {
	if err := e.refuses(); err != nil {
		return err
	}
	if e.health.unsynced.Load() {
		return fmt.Errorf("what is written to %s does not reach the disk: see the log", e.o.Dir)
	}
	return nil
}

// refuses is why nothing new is taken, or nil.
func (e *Embedded) refuses() error {
	if e.health.full.Load() {
		return fmt.Errorf("the disk of %s is full: nothing new is taken until there is room", e.o.Dir)
	}
	return nil
}

// startKeeping looks after the folder for as long as the broker runs.
func (e *Embedded) startKeeping() error {
	e.keep = datadir.NewKeeper(e.o.Dir)
	if err := e.keep.Sync(); err != nil {
		return err
	}
	e.measure()
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.kept.Go(func() { e.keepOn(ctx) })
	return nil
}

func (e *Embedded) keepOn(ctx context.Context) {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for compacted := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e.measure()
		err := e.keep.Sync()
		if err == nil && time.Since(compacted) > compactEvery && !e.health.full.Load() {
			compacted = time.Now()
			err = e.keep.Compact(e.cluster.Compact) // of superseded records, and of expired ones
		}
		e.synced(err)
	}
}

// synced says once that the disk takes nothing, and once that it does again.
func (e *Embedded) synced(err error) {
	if e.health.unsynced.Swap(err != nil) == (err != nil) {
		return
	}
	if err != nil {
		e.o.Log.Error("what the embedded Kafka writes does not reach the disk, so that a power loss would take it: look at the disk", "err", err)
		return
	}
	e.o.Log.Info("what the embedded Kafka writes reaches the disk again", "dir", e.o.Dir)
}

// measure looks how much room the disk has. kfake would go on in memory with what it could not write whole.
func (e *Embedded) measure() {
	var s syscall.Statfs_t
	if err := syscall.Statfs(e.o.Dir, &s); err != nil {
		return // what is wrong with the folder the next write says
	}
	free := s.Bavail * uint64(s.Bsize)
	reserve := min(reserveMost, s.Blocks*uint64(s.Bsize)/reserveShare)
	full := free < reserve || s.Files > 0 && s.Ffree == 0
	if e.health.full.Swap(full) == full {
		return
	}
	if full {
		e.o.Log.Error("the disk of the embedded Kafka is full: nothing new is taken until there is room, and then all goes on by itself",
			"dir", e.o.Dir, "free_bytes", free, "needed_bytes", reserve)
		return
	}
	e.o.Log.Info("the disk of the embedded Kafka has room again", "dir", e.o.Dir, "free_bytes", free)
}

// refuseWhenFull answers what would add records or positions as a broker does whose disk is broken: clients try again until
// it is taken.
func (e *Embedded) refuseWhenFull() {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.OffsetCommit, kmsg.TxnOffsetCommit} {
		e.cluster.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
			e.cluster.KeepControl()
			if e.measure(); !e.health.full.Load() { // a disk can be filled within a second
				return nil, nil, false
			}
			return Refuse(req, kerr.KafkaStorageError), nil, true
		})
	}
}

// brokerLog takes what kfake would print, and notes a state that it could not save as it stopped.
type brokerLog struct{ e *Embedded }

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	log := l.e.o.Log.With("part", "embedded-kafka")
	text := fmt.Sprintf(format, args...)
	switch {
	case level == kfake.LogLevelError && strings.HasPrefix(format, "persist to disk"):
		l.e.health.unsaved.Store(true)
		log.Error("the embedded Kafka could not save its state as it stopped: the next start takes it for a kill", "err", text)
	case strings.HasPrefix(format, "persist"), strings.HasPrefix(format, "rebuildSegments"), strings.HasPrefix(format, "endTx: failed"):
		log.Error("the embedded Kafka could not write: look at the disk", "err", text)
	default:
		log.Debug(text)
	}
}
