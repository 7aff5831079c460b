package stream

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// packBytes is where the joined values of Append outputs are cut into a next record. It is well below a broker's default
// message.max.bytes, 1 MiB, whatever an entry adds.
const packBytes = 512 << 10

// outputs are what the tasks done since the last commit left behind.
type outputs struct {
	whole   []Output
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
	o.whole = slices.Grow(o.whole, len(outs))
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
			o.whole = append(o.whole, *out)
		}
	}
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

// produce hands every record to yield, whole ones in the order of Done. They are allocated together, and of one time:
// the client would look at the clock for each.
func (o *outputs) produce(k *Kafka, now time.Time, yield func(*kgo.Record)) {
	records := make([]kgo.Record, len(o.whole))
	var name, topic string
	for i := range o.whole {
		out, r := &o.whole[i], &records[i]
		if out.Topic != name {
			name, topic = out.Topic, k.Topic(out.Topic)
		}
		r.Topic, r.Key, r.Value, r.Headers, r.Timestamp = topic, out.Key, out.Value, out.Headers, now
		yield(r)
	}
	for _, key := range o.order {
		p := o.packs[key]
		for _, v := range p.values {
			yield(&kgo.Record{Topic: k.Topic(key.topic), Key: []byte(key.key), Value: v, Headers: p.headers, Timestamp: now})
		}
	}
}
