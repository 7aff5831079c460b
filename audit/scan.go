package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/stream"
)

// Scan calls each with every record that was committed on a topic when it was called, and not written long before since.
// topic is without prefix. Records of one partition come in order.
func Scan(ctx context.Context, k *stream.Kafka, topic string, since time.Time, each func(*kgo.Record)) error {
	var from int64
	if !since.IsZero() {
		from = since.UnixMilli()
	}
	ranges, err := letters.Span(ctx, k, from, topic)
	if err == nil {
		err = letters.Scan(ctx, k, ranges, func(r *kgo.Record) bool {
			each(r)
			return true
		})
	}
	if err != nil {
		return fmt.Errorf("read topic %s: %w", k.Topic(topic), err)
	}
	return nil
}
