package senders

import (
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// maxDelivery bounds a delivery's record, in bytes. The largest that the API lets through has a message of 256 KiB and
// variables that came in a body of 64 KiB.
const maxDelivery = 512 << 10

// unreadable is why a record is not a delivery of its lane. It names no content.
type unreadable struct{ reason, detail string }

// decode reads a delivery into j's parcel. One without its identity cannot be counted under any run, so it is not let in.
func (j *job) decode(t *stream.Task, p pb.Platform, c pb.Class) *unreadable {
	if len(t.Value) > maxDelivery {
		return &unreadable{"oversize", fmt.Sprintf("%d bytes; a delivery has at most %d", len(t.Value), maxDelivery)}
	}
	d, err := j.parcel.decode(t.Value)
	if err != nil {
		return &unreadable{"undecodable", "not a belfry.v1.Delivery: " + err.Error()}
	}
	if fault := incomplete(d, p, c); fault != "" {
		return &unreadable{"undecodable", fault}
	}
	j.task, j.delivery = t, d
	return nil
}

// incomplete says what a delivery lacks, or "".
func incomplete(d *pb.Delivery, p pb.Platform, c pb.Class) string {
	switch {
	case len(d.Id) != 16:
		return fmt.Sprintf("id has %d bytes, not 16", len(d.Id))
	case d.App == "" || d.Run == "" || d.Device == "":
		return "app, run or device is empty"
	case d.ExpiresAt <= 0:
		return "expires_at is not set"
	case schemas.TargetPlatform(d.Target) != p:
		return fmt.Sprintf("target is of %v, on a lane of %v", schemas.TargetPlatform(d.Target), p)
	case d.Class != c:
		return fmt.Sprintf("class is %v, on a lane of %v", d.Class, c)
	}
	return ""
}

// inlineMessages compiles the messages that deliveries carry. Those of a rule, or to a user with three devices, are the
// same bytes again and again, so the last ones are kept.
type inlineMessages struct {
	mu   sync.Mutex
	seen map[string]*message.Compiled // by the message's bytes and scope
}

// keepInline bounds what is kept, in messages. When it is full all are dropped: it fills again with those in use.
const keepInline = 256

// compile compiles the message that a delivery carries; value is the delivery's record.
func (c *inlineMessages) compile(value []byte, d *pb.Delivery) (*message.Compiled, error) {
	scope := message.Rule
	if d.Run == schemas.RunMessages {
		scope = message.Transactional
	}
	key := append(messageBytes(value), byte(scope))
	c.mu.Lock()
	m := c.seen[string(key)]
	c.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m, err := message.Compile(d.Message, scope)
	if err != nil {
		return nil, fmt.Errorf("compile the message of %s/%s: %w", d.App, d.Run, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil || len(c.seen) >= keepInline {
		c.seen = make(map[string]*message.Compiled, keepInline)
	}
	c.seen[string(key)] = m
	return m, nil
}

// messageField is Delivery.message.
var messageField = (&pb.Delivery{}).ProtoReflect().Descriptor().Fields().ByName("message").Number()

// messageBytes copies the message out of a delivery's record as it lies there: making it anew only to compare it would
// cost more than compiling it.
func messageBytes(value []byte) (found []byte) {
	for len(value) > 0 {
		field, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return found
		}
		value = value[n:]
		if n = protowire.ConsumeFieldValue(field, kind, value); n < 0 {
			return found
		}
		if field == messageField {
			found = append(found, value[:n]...) // a field that comes twice is merged, so both count
		}
		value = value[n:]
	}
	return found
}

// transactional says that no expander counted the delivery as planned.
func transactional(d *pb.Delivery) bool { return d.Message != nil || strings.HasPrefix(d.Run, "~") }
