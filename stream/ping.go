package stream

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pingNext is how long one broker has to answer before the next is asked too.
const pingNext = 250 * time.Millisecond

// Ping is nil as soon as any broker answers, else what the last one failed with, or ctx's error. It asks one more each 250 ms, and
// waits for all of them: the client's own Ping asks one after another, and one broker that stands still takes all of ctx's time, while
// the others answer (franz-go 1.22).
func Ping(ctx context.Context, client *kgo.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	brokers := append(client.DiscoveredBrokers(), client.SeedBrokers()...)
	answers := make(chan error, len(brokers))
	asked, waiting := 0, 0
	next := time.NewTimer(0)
	defer next.Stop()
	var last error
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-answers:
			if err == nil {
				return nil
			}
			last = err
			waiting--
			next.Reset(0)
		case <-next.C:
			if asked == len(brokers) {
				if waiting == 0 {
					return last
				}
				continue
			}
			b := brokers[asked]
			asking.Go(func() {
				_, err := b.Request(ctx, anyAnswer())
				answers <- err
			})
			asked++
			waiting++
			next.Reset(pingNext)
		}
	}
}

// anyAnswer asks for metadata of no topic.
func anyAnswer() kmsg.Request {
	r := kmsg.NewPtrMetadataRequest()
	r.Topics = []kmsg.MetadataRequestTopic{}
	return r
}
