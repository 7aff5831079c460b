package senders

import (
	"errors"
	"testing"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func inlineDelivery(run, title string) *pb.Delivery {
	d := delivery(run, "d", "w")
	d.Message = &pb.Message{Content: &pb.Content{Title: title}}
	return d
}

func TestInlineMessagesAreCompiledOnce(t *testing.T) {
	var c inlineMessages
	compile := func(d *pb.Delivery) any {
		m, err := c.compile(d.Run, encode(d.Message))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := compile(inlineDelivery(schemas.RunMessages, "one"))
	second := inlineDelivery(schemas.RunMessages, "one")
	second.Device, second.Attempt = "another", 3
	if compile(second) != first {
		t.Error("the same message was compiled twice")
	}
	if compile(inlineDelivery(schemas.RunMessages, "two")) == first {
		t.Error("another message was taken for the first")
	}
	if compile(inlineDelivery(schemas.RunRule("hello"), "one")) == first {
		t.Error("a rule's message was compiled with the variables of an API call")
	}
	for i := range 2 * keepInline {
		compile(inlineDelivery(schemas.RunMessages, string(rune('a'+i))))
	}
	if len(c.seen) > keepInline {
		t.Errorf("%d messages are kept", len(c.seen))
	}
	d := inlineDelivery(schemas.RunMessages, "{{ nonsense }}")
	if _, err := c.compile(d.Run, encode(d.Message)); err == nil {
		t.Error("a message with an unknown variable compiled")
	}
	if _, err := c.compile("", []byte{0xff}); err == nil || errors.Is(err, errMessage) {
		t.Errorf("what is no message: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(delivery("spring", "d", "w")))
	f.Add(encode(inlineDelivery(schemas.RunMessages, "one")))
	f.Add([]byte("\xff\xff"))
	f.Fuzz(func(t *testing.T, value []byte) {
		var p parcel
		d, bad := p.look(value, fcm, bulk)
		if (d == nil) == (bad == nil) {
			t.Fatal("neither a delivery nor a reason")
		}
		if d != nil {
			encode(d) // what was let in can be written again
		}
	})
}
