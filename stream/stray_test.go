package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/belfry/belfry/schemas"
)

// TestRepairsEndRight drives repairs of a topic of devices that others write to meanwhile, at home and elsewhere: they are
// killed between any two transactions, begun anew, and Kafka compacts in between. Once one has ended, whoever reads only what
// lies at home finds of each key the newest, and a device that was removed is not there.
func TestRepairsEndRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &brokenTopic{spread: spread{topic: schemas.TopicDevices, over: 3}, truth: map[string]string{}}
		t.Repeat(map[string]func(*rapid.T){
			"write":   m.write,
			"compact": m.compact,
			"repair":  func(t *rapid.T) { m.repair(t, true) },
		})
		m.repair(t, false)
		m.check(t)
	})
}

type brokenTopic struct {
	spread spread
	logs   [5][]ViewRecord
	ends   [5]int64
	clock  int64 // ms
	truth  map[string]string
}

func (m *brokenTopic) append(partition int32, key, value string, at time.Time, headers []kgo.RecordHeader) {
	r := ViewRecord{Partition: partition, Offset: m.ends[partition], Key: []byte(key), Timestamp: at, Headers: headers}
	if value != "" {
		r.Value = []byte(value)
	}
	m.logs[partition] = append(m.logs[partition], r)
	m.ends[partition]++
}

// write is somebody's: a registration, a removal, or a provider's word; at home, or where another count puts it.
func (m *brokenTopic) write(t *rapid.T) {
	m.clock++
	key := rapid.SampledFrom([]string{"a/1", "a/2", "a/3"}).Draw(t, "key")
	value := rapid.SampledFrom([]string{"", fmt.Sprint("registered ", m.clock)}).Draw(t, "value")
	if rapid.IntRange(0, 2).Draw(t, "gone") == 0 {
		key, value = key+"#gone", fmt.Sprint("gone ", m.clock)
	}
	partition := m.spread.home([]byte(key))
	if rapid.Bool().Draw(t, "elsewhere") {
		partition = rapid.Int32Range(0, int32(len(m.logs))-1).Draw(t, "partition")
	}
	m.truth[key] = value
	m.append(partition, key, value, time.UnixMilli(m.clock), nil)
}

// compact leaves the newest of each key of one partition.
func (m *brokenTopic) compact(t *rapid.T) {
	p := rapid.IntRange(0, len(m.logs)-1).Draw(t, "partition")
	seen := map[string]bool{}
	var kept []ViewRecord
	for _, r := range slices.Backward(m.logs[p]) {
		if !seen[string(r.Key)] {
			seen[string(r.Key)] = true
			kept = append(kept, r)
		}
	}
	slices.Reverse(kept)
	m.logs[p] = kept
}

// repair reads, writes a family if nobody else has since, and reads again, as one process does.
func (m *brokenTopic) repair(t *rapid.T, disturbed bool) {
	r := &repair{k: &Kafka{}, spread: m.spread, suspects: m.suspects(), families: map[string]family{}}
	var read [5]int64
	for range 100 {
		for p, log := range m.logs {
			for _, rec := range log {
				if rec.Offset >= read[p] {
					r.take(rec)
				}
			}
			read[p] = m.ends[p]
		}
		records := r.next()
		if len(records) == 0 || disturbed && rapid.IntRange(0, 5).Draw(t, "killed") == 0 {
			return
		}
		if disturbed && rapid.Bool().Draw(t, "others write") {
			m.write(t)
			continue // the transaction is aborted
		}
		for _, rec := range records {
			m.append(rec.Partition, string(rec.Key), string(rec.Value), rec.Timestamp, rec.Headers)
		}
	}
	if !disturbed {
		t.Fatal("a repair that nobody disturbs does not end")
	}
}

func (m *brokenTopic) suspects() (hashes []uint64) {
	for _, log := range m.logs {
		for _, r := range log {
			if m.spread.home(r.Key) != r.Partition && !repaired(r.Headers) {
				hashes = append(hashes, xxhash.Sum64(m.spread.family(r.Key)))
			}
		}
	}
	slices.Sort(hashes)
	return slices.Compact(hashes)
}

func (m *brokenTopic) check(t *rapid.T) {
	there, last := map[string]string{}, map[string]string{}
	for p, log := range m.logs {
		for _, r := range log {
			key, value := string(r.Key), string(r.Value)
			if m.spread.home(r.Key) != int32(p) {
				continue
			}
			last[key] = value
			fold(there, key, value)
		}
	}
	want := map[string]string{}
	for key, value := range m.truth {
		if last[key] != value {
			t.Fatalf("%s: at home lies %q, and %q is the newest", key, last[key], value)
		}
		if !strings.HasSuffix(key, "#gone") {
			fold(want, key, value)
		}
	}
	for key, value := range m.truth {
		if strings.HasSuffix(key, "#gone") {
			fold(want, key, value)
		}
	}
	if fmt.Sprint(want) != fmt.Sprint(there) {
		t.Fatalf("who reads what lies at home has %v, and right is %v", there, want)
	}
}

// fold is what the registry makes of a record.
func fold(devices map[string]string, key, value string) {
	device, gone := strings.CutSuffix(key, "#gone")
	switch {
	case !gone && value == "":
		delete(devices, device)
	case !gone:
		devices[device] = value
	case at(devices[device]) < at(value):
		delete(devices, device)
	}
}

// at is the time in a value.
func at(value string) (ms int) {
	_, _ = fmt.Sscan(value[strings.LastIndex(value, " ")+1:], &ms)
	return ms
}
