package stream

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/failpoint"
	"github.com/belfry/belfry/schemas"
)

const (
	// repairKeys is how many families a repair holds in memory at once, some 500 bytes each. More takes it more readings.
	repairKeys = 200_000
	// repairBatch is how many go home in one transaction, for whose time their topic's readers wait.
	repairBatch = 2000
	// repairHeader marks what a repair has written: a copy at home, or the tombstone of a stray, which is no word of anybody's.
	repairHeader = "belfry-repair"
)

func repaired(headers []kgo.RecordHeader) bool {
	return slices.ContainsFunc(headers, func(h kgo.RecordHeader) bool { return h.Key == repairHeader })
}

// family names the keys whose records must keep their order among each other: those of one device.
func (s spread) family(key []byte) []byte {
	if s.topic == schemas.TopicDevices {
		return schemas.DeviceOf(key)
	}
	return key
}

// suspects lists the hashes of the families that have strays, or had some, sorted.
func (s spread) suspects(ctx context.Context, k *Kafka) ([]uint64, error) {
	var hashes []uint64
	err := scan(ctx, k, s.topic, func(r ViewRecord) {
		if s.home(r.Key) != r.Partition && !repaired(r.Headers) {
			hashes = append(hashes, xxhash.Sum64(s.family(r.Key)))
		}
	})
	slices.Sort(hashes)
	return slices.Compact(hashes), err
}

// repair is that of one topic. It brings families home in transactions, each of which is committed only if nobody has written
// of them since they were read. So it may be killed between any two, and others may write at any time.
type repair struct {
	k      *Kafka
	spread spread
	write  bool
	moves  map[KeyMove]int // keys, by where they go
	stale  int

	suspects []uint64 // of this part, sorted

	mu       sync.Mutex // guards families
	families map[string]family
}

// family holds what lies of its keys.
type family map[string]*entry

// entry is what lies of one key: the last on its own partition, and the last on each other.
type entry struct {
	home   *lying
	strays map[int32]*lying
}

// lying is one record.
type lying struct {
	partition int32
	at        time.Time
	value     []byte // nil is a tombstone
}

// run does one part: those families.
func (r *repair) run(ctx context.Context, suspects []uint64) error {
	r.suspects, r.families = suspects, map[string]family{}
	view := newRawView(r.k, r.spread.topic, r.take)
	return view.during(ctx, func(ctx context.Context) error {
		if err := view.CatchUp(ctx); err != nil {
			return err
		}
		r.count()
		if !r.write {
			return nil
		}
		return r.bringHome(ctx, view)
	})
}

func (r *repair) take(rec ViewRecord) {
	if _, suspect := slices.BinarySearch(r.suspects, xxhash.Sum64(r.spread.family(rec.Key))); !suspect {
		return
	}
	name, key := string(r.spread.family(rec.Key)), string(rec.Key)
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.families[name]
	if f == nil {
		f = family{}
		r.families[name] = f
	}
	e := f[key]
	if e == nil {
		e = &entry{strays: map[int32]*lying{}}
		f[key] = e
	}
	switch l := (&lying{rec.Partition, rec.Timestamp, bytes.Clone(rec.Value)}); { // a value keeps the whole fetch in memory
	case r.spread.home(rec.Key) == rec.Partition:
		e.home = l
	case repaired(rec.Headers):
		delete(e.strays, rec.Partition)
	default:
		e.strays[rec.Partition] = l
	}
}

// newest is what should lie at home.
func (e *entry) newest() *lying {
	newest := e.home
	for _, partition := range slices.Sorted(maps.Keys(e.strays)) {
		if s := e.strays[partition]; newest == nil || s.at.After(newest.at) {
			newest = s
		}
	}
	return newest
}

// count tells what becomes of the keys that have strays.
func (r *repair) count() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		for key, e := range f {
			if len(e.strays) == 0 {
				continue
			}
			if newest := e.newest(); newest != e.home {
				r.moves[KeyMove{From: newest.partition, To: r.spread.home([]byte(key))}]++
			} else {
				r.stale++
			}
		}
	}
}

// bringHome goes on until no family has strays.
func (r *repair) bringHome(ctx context.Context, view *View) error {
	client, err := r.k.Client(
		// Of two repairs at once the first one ends: this fences it.
		kgo.TransactionalID(r.k.Prefix+"topics.repair"),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		read := view.positions()
		records := r.next()
		if len(records) == 0 {
			return nil
		}
		if err := r.commit(ctx, client, read, records); err != nil {
			return err
		}
		if err := view.CatchUp(ctx); err != nil {
			return err
		}
	}
}

// next is what brings some families home: the newest of each of their keys, in the order of their times, so that a
// registration never comes behind the word that its device is gone; and a tombstone for each stray.
func (r *repair) next() (records []*kgo.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, f := range r.families {
		if f.home() {
			continue
		}
		records = append(records, f.records(r.k.Topic(r.spread.topic), r.spread)...)
		if n++; n == repairBatch {
			break
		}
	}
	return records
}

// home says that nothing of it lies elsewhere.
func (f family) home() bool {
	for _, e := range f {
		if len(e.strays) > 0 {
			return false
		}
	}
	return true
}

func (f family) records(topic string, s spread) []*kgo.Record {
	var homes, ends []*kgo.Record
	mark := []kgo.RecordHeader{{Key: repairHeader}}
	for key, e := range f {
		if newest := e.newest(); newest != nil {
			homes = append(homes, &kgo.Record{
				Topic: topic, Partition: s.home([]byte(key)), Key: []byte(key), Value: newest.value, Timestamp: newest.at, Headers: mark,
			})
		}
		for partition := range e.strays {
			ends = append(ends, &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Headers: mark})
		}
	}
	slices.SortFunc(homes, func(a, b *kgo.Record) int {
		return cmp.Or(a.Timestamp.Compare(b.Timestamp), bytes.Compare(a.Key, b.Key))
	})
	return append(homes, ends...)
}

// commit writes records in one transaction, if nobody has written of their families since read.
func (r *repair) commit(ctx context.Context, client *kgo.Client, read map[int32]int64, records []*kgo.Record) error {
	if err := client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	err := client.ProduceSync(ctx, records...).FirstErr()
	var disturbed bool
	if err == nil {
		failpoint.Hit(failpoint.Produced)
		disturbed, err = r.disturbed(ctx, read, records)
	}
	if err != nil || disturbed {
		// What cannot be aborted here Kafka aborts when its time is over, or when the next repair begins.
		return errors.Join(err, client.EndTransaction(ctx, kgo.TryAbort))
	}
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	failpoint.Hit(failpoint.AfterCommit)
	return nil
}

// disturbed reports whether another has written of the families of records between read and them, if only in a transaction
// that is not over.
func (r *repair) disturbed(ctx context.Context, read map[int32]int64, records []*kgo.Record) (bool, error) {
	families, from, left := map[string]bool{}, map[int32]kgo.Offset{}, map[int32]int64{}
	for _, rec := range records {
		families[string(r.spread.family(rec.Key))] = true
		from[rec.Partition] = kgo.NewOffset().AtStart() // nothing was there
		if at, ok := read[rec.Partition]; ok {
			from[rec.Partition] = kgo.NewOffset().At(at)
		}
		left[rec.Partition] = max(left[rec.Partition], rec.Offset)
	}
	client, err := r.k.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.k.Topic(r.spread.topic): from}))
	if err != nil {
		return false, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return false, fmt.Errorf("look who else writes: %w", err)
		}
		for rec := range fetches.RecordsAll() {
			if families[string(r.spread.family(rec.Key))] && !repaired(rec.Headers) && rec.Offset < left[rec.Partition] {
				return true, nil
			}
			if rec.Offset >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
		}
	}
	return false, nil
}
