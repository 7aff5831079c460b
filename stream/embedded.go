package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/listen"
	"github.com/belfry/belfry/stream/datadir"
)

// EmbeddedOptions say how an embedded Kafka is kept.
type EmbeddedOptions struct {
	// Dir is its folder. "" is memory.
	Dir string
	// SyncAlways has each write reach the disk before it is acknowledged; else all do within a second.
	SyncAlways bool
	// Listen opens its listener, on a free loopback port if it is not set.
	Listen func(address string) (net.Listener, error)
	// Log is slog.Default, if not set.
	Log *slog.Logger
}

// Embedded is a Kafka in this process, for one machine and for development: kfake, which speaks the whole protocol that
// Belfry uses, transactions and groups included.
type Embedded struct {
	o       EmbeddedOptions
	cluster *kfake.Cluster
	lock    *os.File
	health  embeddedHealth
	// stop ends the keeping of the folder, and kept waits for it.
	stop func()
	kept sync.WaitGroup
	keep *datadir.Keeper
	// endings has the commit that is being made (datadir.Endings).
	endings *datadir.Endings
	// detach takes back Attach.
	detach func()
}

// StartEmbedded starts a broker on a free loopback port. Its log lies in dir and survives SIGKILL of the process; a second
// process in the same dir is refused. With dir "" everything is in memory.
func StartEmbedded(dir string) (*Embedded, error) { return OpenEmbedded(EmbeddedOptions{Dir: dir}) }

// OpenEmbedded starts a broker. It refuses a folder that another process has, or that is damaged, before it changes anything
// in it.
func OpenEmbedded(o EmbeddedOptions) (_ *Embedded, err error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Listen == nil {
		o.Listen = func(address string) (net.Listener, error) {
			return listen.On(address, listen.Options{Name: "the embedded Kafka", Log: o.Log})
		}
	}
	e := &Embedded{o: o, stop: func() {}, detach: func() {}}
	defer func() {
		if err != nil {
			e.release()
		}
	}()
	killed := false
	if o.Dir != "" {
		if killed, err = e.open(); err != nil {
			return nil, err
		}
	}
	if o.Dir != "" {
		if e.endings, err = datadir.OpenEndings(o.Dir, o.SyncAlways); err != nil {
			return nil, err
		}
	}
	if e.cluster, err = kfake.NewCluster(e.options()...); err != nil {
		return nil, fmt.Errorf("start embedded broker in %q: %w", o.Dir, err)
	}
	e.control()
	if killed {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := endDangling(ctx, e.Addrs()); err != nil {
			e.cluster.Close()
			return nil, fmt.Errorf("embedded broker in %q: end the transactions that a kill left open: %w", o.Dir, err)
		}
	}
	if o.Dir != "" {
		if err := e.startKeeping(); err != nil {
			e.cluster.Close()
			return nil, err
		}
	}
	return e, nil
}

func (e *Embedded) options() []kfake.Opt {
	// Small segments: retention and compaction work on whole ones.
	configs := map[string]string{"log.segment.bytes": "16777216"}
	if e.o.Dir != "" {
		configs["log.cleaner.backoff.ms"] = "315360000000" // keepOn says when to compact
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.BrokerConfigs(configs),
		kfake.ListenFn(func(_, address string) (net.Listener, error) { return e.o.Listen(address) }),
		kfake.WithLogger(brokerLog{e}),
	}
	if e.o.Dir != "" {
		opts = append(opts, kfake.DataDir(e.o.Dir), named())
	}
	if e.o.SyncAlways {
		opts = append(opts, kfake.SyncWrites())
	}
	return opts
}

// open takes the folder, and sees that it is whole. It says whether the last broker in it was killed.
func (e *Embedded) open() (killed bool, err error) {
	dir := e.o.Dir
	if e.lock, err = datadir.Lock(dir); err != nil {
		return false, err
	}
	back, err := datadir.Recover(dir)
	if err != nil {
		return false, fmt.Errorf("data folder: %w", err)
	}
	for _, folder := range back {
		e.o.Log.Info("a compaction that was cut off is taken back: nothing is lost", "partition", folder)
	}
	report, err := datadir.Check(dir)
	if err != nil {
		return false, err
	}
	if err := report.Mend(); err != nil {
		return false, err
	}
	completed, err := report.Complete()
	if err != nil {
		return false, err
	}
	if completed {
		e.o.Log.Warn("a commit that the last stop cut in two is made whole: nothing of it is lost, or done again")
	}
	for _, t := range report.Tears {
		e.o.Log.Warn("what the last stop left unfinished in the embedded Kafka's folder is mended: nothing acknowledged was in it",
			"file", t.File, "byte", t.At, "what", t.What, "stop", report.Stop)
	}
	return !report.Empty && report.Stop != datadir.Orderly, datadir.Opened(dir)
}

// control answers some requests in kfake's place.
func (e *Embedded) control() {
	FillFetches(e.cluster)
	if e.o.Dir != "" {
		e.refuseWhenFull()
		e.noteEndings()
	}
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

func (e *Embedded) release() {
	if e.endings != nil {
		_ = e.endings.Close() // what it has is written
	}
	if e.lock != nil {
		e.lock.Close() // closing gives the lock back
	}
}

// Addrs is where the broker listens.
func (e *Embedded) Addrs() []string { return e.cluster.ListenAddrs() }

// Attach makes it the cluster of k, before anything else uses that: what ails the broker then ails k too.
func (e *Embedded) Attach(k *Kafka) {
	k.Brokers = e.Addrs()
	e.detach = k.embeds(e)
}

// Cluster is the broker itself, for tests that forge its answers.
func (e *Embedded) Cluster() *kfake.Cluster { return e.cluster }

// Close stops the broker. Clients see it gone. A stop that could not be noted is logged, and the next start takes it for a
// kill, after which nothing is lost either.
func (e *Embedded) Close() {
	e.detach()
	e.stop()
	e.kept.Wait()
	e.cluster.Close()
	if e.endings != nil {
		if err := e.endings.Over(); err != nil && !errors.Is(err, os.ErrNotExist) {
			e.o.Log.Warn("the embedded Kafka's note of its last commit is still there: it does no harm", "dir", filepath.Clean(e.o.Dir), "err", err)
		}
		e.endings = nil
	}
	if e.keep != nil && !e.health.unsaved.Load() {
		if err := e.keep.Close(); err != nil && !errors.Is(err, os.ErrNotExist) {
			e.o.Log.Warn("the embedded Kafka's stop could not be noted: the next start takes it for a kill", "dir", filepath.Clean(e.o.Dir), "err", err)
		}
	}
	e.release()
}
