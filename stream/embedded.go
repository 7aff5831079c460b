package stream

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Embedded is a Kafka in this process, for one machine and for development: kfake, which speaks the whole protocol that
// Belfry uses, transactions and groups included.
type Embedded struct {
	cluster *kfake.Cluster
	dir     string // "" is memory
	lock    *os.File
}

// StartEmbedded starts a broker on a free loopback port. Its log lies in dir and survives SIGKILL of the process; a second
// process in the same dir is refused. With dir "" everything is in memory.
func StartEmbedded(dir string) (*Embedded, error) {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		// Small segments: retention and compaction work on whole ones.
		kfake.BrokerConfigs(map[string]string{"log.segment.bytes": "16777216"}),
	}
	e := &Embedded{dir: dir}
	killed := false
	if dir != "" {
		err := e.acquire(dir)
		if err == nil {
			killed, err = wasKilled(dir)
		}
		if err != nil {
			e.release()
			return nil, err
		}
		opts = append(opts, kfake.DataDir(dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		e.release()
		return nil, fmt.Errorf("start embedded broker in %q: %w", dir, err)
	}
	e.cluster = cluster
	FillFetches(cluster)
	if killed {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := endDangling(ctx, e.Addrs()); err != nil {
			cluster.Close()
			e.release()
			return nil, fmt.Errorf("embedded broker in %q: end the transactions that a kill left open: %w", dir, err)
		}
	}
	return e, nil
}

// FillFetches lifts the bound that a fetch sets for all of its partitions together; each one's own still holds. At that
// bound kfake breaks off before it has said which of the last partition's transactions were aborted, and their records are
// taken for committed ones (01_fetch.go, "break full").
func FillFetches(cluster *kfake.Cluster) {
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		req.(*kmsg.FetchRequest).MaxBytes = math.MaxInt32
		return nil, nil, false
	})
}

func (e *Embedded) acquire(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("data folder %s is in use by another belfry: stop that one, or set data_dir to another folder", dir)
	}
	e.lock = f
	return nil
}

func (e *Embedded) release() {
	if e.lock != nil {
		e.lock.Close() // closing gives the lock back
	}
}

// Addrs is where the broker listens.
func (e *Embedded) Addrs() []string { return e.cluster.ListenAddrs() }

// Cluster is the broker itself, for tests that forge its answers.
func (e *Embedded) Cluster() *kfake.Cluster { return e.cluster }

// Close stops the broker. Clients see it gone.
func (e *Embedded) Close() {
	e.cluster.Close()
	if e.dir != "" {
		_ = noteClosed(e.dir) // without it the next start looks for open transactions, and finds none
	}
	e.release()
}
