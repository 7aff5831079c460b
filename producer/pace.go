package producer

import (
	"context"
	"fmt"
	"io"
	"time"
)

// leastRate is what a bulk stream must bring, in bytes a second of the time that it is waited for. Waiting for Kafka, or for the
// client to read its answers, does not count.
const leastRate = 128

var errSlow = fmt.Errorf("it brought less than %d bytes a second: send what you have, end the stream, and begin another when there is more", leastRate)

// pacedBody reads a stream's body, and fails with errSlow when the client is slower than leastRate. It has some time in hand, which
// grows with what it sends and shrinks while it is waited for, so that it may pause.
type pacedBody struct {
	in       io.Reader
	deadline func(time.Time) error // of in
	ctx      context.Context
	// hand is the time in hand, at most most.
	hand, most time.Duration
}

func newPacedBody(ctx context.Context, in io.Reader, deadline func(time.Time) error, most time.Duration) *pacedBody {
	return &pacedBody{in: in, deadline: deadline, ctx: ctx, hand: most, most: most}
}

func (b *pacedBody) Read(p []byte) (int, error) {
	begun := time.Now()
	_ = b.deadline(begun.Add(b.hand))
	if b.ctx.Err() != nil { // what ended it set a deadline too, perhaps just before this one
		return 0, b.ctx.Err()
	}
	n, err := b.in.Read(p)
	b.hand = min(b.hand-time.Since(begun)+time.Duration(n)*time.Second/leastRate, b.most)
	if b.hand <= 0 { // whatever err is: net/http ends the request's context, too, when its deadline passes
		return n, errSlow
	}
	return n, err
}
