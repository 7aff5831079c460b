package senders

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// maxDelivery bounds a delivery's record, in bytes. The largest that the API lets through has a message of 256 KiB and
// variables that came in a body of 64 KiB.
const maxDelivery = 512 << 10

// unreadable is why a record is not a delivery of its lane. It names no content.
type unreadable struct{ reason, detail string }

// look decodes a delivery and checks it. One without its identity cannot be counted under any run, so it is not let in.
func (p *parcel) look(value []byte, platform pb.Platform, c pb.Class) (*pb.Delivery, *unreadable) {
	if len(value) > maxDelivery {
		return nil, &unreadable{"oversize", fmt.Sprintf("%d bytes; a delivery has at most %d", len(value), maxDelivery)}
	}
	d, err := p.decode(value)
	if err != nil {
		return nil, &unreadable{"undecodable", "not a belfry.v1.Delivery: " + err.Error()}
	}
	if fault := incomplete(d, platform, c); fault != "" {
		return nil, &unreadable{"undecodable", fault}
	}
	return d, nil
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

// inlineMessages reads and compiles the messages that deliveries carry. Those of a rule, or to a user with three devices,
// are the same bytes again and again, so the last ones are kept.
type inlineMessages struct {
	mu   sync.Mutex
	seen map[inlineKey]*message.Compiled
}

type inlineKey struct {
	scope message.Scope
	bytes string
}

// keepInline bounds what is kept, in messages. When it is full all are dropped: it fills again with those in use.
const keepInline = 256

// errMessage is a message that cannot be compiled.
var errMessage = errors.New("the delivery's message cannot be compiled")

// compile compiles a message that a delivery under this account carries. The error is errMessage, or one of decoding.
func (c *inlineMessages) compile(run string, inline []byte) (*message.Compiled, error) {
	scope := message.Rule
	if run == schemas.RunMessages {
		scope = message.Transactional
	}
	c.mu.Lock()
	m := c.seen[inlineKey{scope, string(inline)}] // does not allocate the key
	c.mu.Unlock()
	if m != nil {
		return m, nil
	}
	p := &pb.Message{}
	if err := proto.Unmarshal(inline, p); err != nil {
		return nil, err
	}
	m, err := message.Compile(p, scope)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil || len(c.seen) >= keepInline {
		c.seen = make(map[inlineKey]*message.Compiled, keepInline)
	}
	c.seen[inlineKey{scope, string(inline)}] = m
	return m, nil
}

// transactional says that no expander counted the delivery as planned.
func transactional(d *pb.Delivery) bool { return d.Message != nil || strings.HasPrefix(d.Run, "~") }
