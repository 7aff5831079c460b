package exchange

import (
	"sync"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
)

// Pipe carries requests to one authority through package wire. It is safe for concurrent use. As with Client, each class has
// connections of its own.
type Pipe struct{ bulk, urgent *wire.Client }

// NewPipe makes a pipe. It dials when there is something to send.
func NewPipe(o wire.Options) *Pipe { return &Pipe{bulk: wire.New(o), urgent: wire.New(o)} }

func (p *Pipe) of(class pb.Class) *wire.Client {
	if class == pb.Class_CLASS_URGENT {
		return p.urgent
	}
	return p.bulk
}

// batches are the scratch of Send.
var batches = sync.Pool{New: func() any { return new([]*wire.Request) }}

// Send carries a batch of one class, and returns at once.
func (p *Pipe) Send(batch []*senders.Request) {
	b := batches.Get().(*[]*wire.Request)
	for _, r := range batch {
		*b = append(*b, &r.Request)
	}
	p.of(batch[0].Delivery.GetClass()).Send(*b)
	clear(*b)
	*b = (*b)[:0]
	batches.Put(b)
}

// Retire lets no new request on the connection that an answer came on.
func (p *Pipe) Retire(class pb.Class, res *wire.Result) { p.of(class).Retire(res) }

// Close ends what is in flight with wire.ErrClosed, and waits for it.
func (p *Pipe) Close() {
	p.bulk.Close()
	p.urgent.Close()
}
