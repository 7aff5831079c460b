package stream

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// packBytes is where the joined values of Append outputs are cut into a next record. It is well below a broker's default
// message.max.bytes, 1 MiB, whatever an entry adds.
const packBytes = 512 << 10

// recordSlab is how many records are allocated together, at least.
const recordSlab = 16

// outputs are what the tasks done since the last commit left behind.
type outputs struct {
	// whole are the records of Whole outputs, in the order of Done. None moves: a client that has one keeps it.
	whole [][]kgo.Record
	// lent says that a client was given them, and may have them still, whatever became of its transaction.
	lent    bool
	packs   map[packKey]*pack
	order   []packKey
	records int
	bytes   int64
}

type packKey struct{ topic, key string }

type pack struct {
	headers []kgo.RecordHeader
	values  [][]byte
}

func (o *outputs) add(outs []Output) {
	for i := range outs {
		out := &outs[i]
		o.records++
		o.bytes += int64(len(out.Key) + len(out.Value))
		switch out.Mode {
		case Append:
			o.pack(out).append(out.Value)
		case Latest:
			p := o.pack(out)
			p.headers, p.values = out.Headers, append(p.values[:0], out.Value)
		default:
			r := o.record(len(outs) - i)
			r.Topic, r.Key, r.Value, r.Headers = out.Topic, out.Key, out.Value, out.Headers
		}
	}
}

// record is one more of whole. As many as room may follow.
func (o *outputs) record(room int) *kgo.Record {
	n := len(o.whole) - 1
	if n < 0 || len(o.whole[n]) == cap(o.whole[n]) {
		o.whole = append(o.whole, make([]kgo.Record, 0, max(room, recordSlab)))
		n++
	}
	slab := &o.whole[n]
	*slab = (*slab)[:len(*slab)+1]
	return &(*slab)[len(*slab)-1]
}

func (o *outputs) pack(out *Output) *pack {
	if p := o.packs[packKey{out.Topic, string(out.Key)}]; p != nil { // does not allocate the key
		return p
	}
	if o.packs == nil {
		o.packs = map[packKey]*pack{}
	}
	k, p := packKey{out.Topic, string(out.Key)}, &pack{headers: out.Headers}
	o.packs[k] = p
	o.order = append(o.order, k)
	return p
}

func (p *pack) append(value []byte) {
	n := len(p.values)
	if n == 0 || len(p.values[n-1])+len(value) > packBytes {
		p.values = append(p.values, make([]byte, 0, 4<<10))
		n++
	}
	p.values[n-1] = append(p.values[n-1], value...)
}

// produce hands every record to yield, whole ones in the order of Done. All are of the time now: the client would look at
// the clock for each.
func (o *outputs) produce(k *Kafka, now time.Time, yield func(*kgo.Record)) {
	var name, topic string
	for i, slab := range o.whole {
		if o.lent {
			slab = again(slab)
			o.whole[i] = slab
		}
		for i := range slab {
			r := &slab[i]
			if r.Topic != name {
				name, topic = r.Topic, k.Topic(k.bare(r.Topic))
			}
			r.Topic, r.Timestamp = topic, now
			yield(r)
		}
	}
	o.lent = true
	for _, key := range o.order {
		p := o.packs[key]
		for _, v := range p.values {
			yield(&kgo.Record{Topic: k.Topic(key.topic), Key: []byte(key.key), Value: v, Headers: p.headers, Timestamp: now})
		}
	}
}

// again makes the records anew, without what a client has written into them.
func again(records []kgo.Record) []kgo.Record {
	fresh := make([]kgo.Record, len(records))
	for i := range records {
		r := &records[i]
		fresh[i] = kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	return fresh
}
