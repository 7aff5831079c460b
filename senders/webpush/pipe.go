package webpush

import (
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
)

// pipe sends by package wire: requests in a row to the same origin get its header together, are encrypted by the sealers,
// and go on to the origin's client. What wire is not for goes by the library.
func (a *app) pipe(batch []*senders.Request, s *sealers) {
	urgent := batch[0].Delivery.GetClass() == pb.Class_CLASS_URGENT
	now := time.Now()
	for len(batch) > 0 {
		origin, n := batch[0].Origin, 1
		for n < len(batch) && batch[n].Origin == origin {
			n++
		}
		a.pipeTo(origin, batch[:n], urgent, s, now)
		batch = batch[n:]
	}
}

func (a *app) pipeTo(origin string, batch []*senders.Request, urgent bool, s *sealers, now time.Time) {
	client := a.clients.of(origin, urgent, now)
	if client == nil {
		a.client.Carry(batch, a.post)
		return
	}
	authorization, err := a.vapid.authorization(origin, now)
	if err != nil {
		senders.Fail(batch, err)
		return
	}
	for _, r := range batch {
		r.Authorize(authorization, wire.Shared)
	}
	s.seal(batch, urgent, a.padding, client.Send)
}
