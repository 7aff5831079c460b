package stream

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// packBytes is where the joined values of Append outputs are cut into a next record. It is well below a broker's default
// message.max.bytes, 1 MiB, whatever an entry adds.
const packBytes = 512 << 10

// slab is records that are allocated together, 43 KB, and used again once a commit stands: a fan-out would leave a third of
// its garbage in them.
type slab [256]kgo.Record

var slabs = sync.Pool{New: func() any { return new(slab) }}

// outputs are what the tasks done since the last commit left behind.
type outputs struct {
	// whole are the records of Whole outputs, n of them, in the order of Done. None moves: a client that has one keeps it.
	whole []*slab
	n     int
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
			if o.n%len(slab{}) == 0 {
				o.whole = append(o.whole, slabs.Get().(*slab))
			}
			r := o.record(o.n)
			r.Topic, r.Key, r.Value, r.Headers = out.Topic, out.Key, out.Value, out.Headers
			o.n++
		}
	}
}

func (o *outputs) record(i int) *kgo.Record { return &o.whole[i/len(slab{})][i%len(slab{})] }

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
	if o.lent {
		o.renew()
	}
	o.lent = true
	var name, topic string
	for i := range o.n {
		r := o.record(i)
		if r.Topic != name {
			name, topic = r.Topic, k.Topic(k.bare(r.Topic))
		}
		r.Topic, r.Timestamp = topic, now
		yield(r)
	}
	for _, key := range o.order {
		p := o.packs[key]
		for _, v := range p.values {
			yield(&kgo.Record{Topic: k.Topic(key.topic), Key: []byte(key.key), Value: v, Headers: p.headers, Timestamp: now})
		}
	}
}

// first is one of the records, made anew, or nil.
func (o *outputs) first(k *Kafka) *kgo.Record {
	if o.n > 0 {
		r := o.record(0)
		return &kgo.Record{Topic: k.Topic(k.bare(r.Topic)), Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	for _, key := range o.order {
		if p := o.packs[key]; len(p.values) > 0 {
			return &kgo.Record{Topic: k.Topic(key.topic), Key: []byte(key.key), Value: p.values[0], Headers: p.headers}
		}
	}
	return nil
}

// join adds what others are. Of Latest ones that both have it keeps all values: a reader takes the last.
func (o *outputs) join(others *outputs) {
	for i := range others.n {
		r := others.record(i)
		o.add([]Output{{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}})
	}
	for _, key := range others.order {
		p := others.packs[key]
		mine := o.pack(&Output{Topic: key.topic, Key: []byte(key.key), Headers: p.headers})
		mine.values = append(mine.values, p.values...)
		for _, v := range p.values {
			o.bytes += int64(len(v))
		}
	}
	o.records += others.records - others.n
}

// renew makes the records anew, without what a client has written into them, or still may.
func (o *outputs) renew() {
	for i, old := range o.whole {
		fresh := new(slab)
		for j := range min(len(old), o.n-i*len(old)) {
			r := &old[j]
			fresh[j] = kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
		}
		o.whole[i] = fresh
	}
}

// free gives the records back. The transaction they were in has been committed, so no client has them.
func (o *outputs) free() {
	for i, s := range o.whole {
		clear(s[:min(len(s), o.n-i*len(s))])
		slabs.Put(s)
	}
	*o = outputs{}
}
