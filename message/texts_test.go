package message

import (
	"sync"
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// A payload has the fields that a device's rendered content has, so a shape must say the same as Content does.
func TestShapeIsWhatContentHas(t *testing.T) {
	texts := []string{
		"", "plain", "{{ user }}", "{{ user | 'x' }}", "{{ user }}{{ locale }}", "{{ user }} {{ locale }}", `{{ "" }}`,
		"https://x/a.png", "http://x", "https://{{ user }}", "{{ user }}s://x", "http{{ user | 's' }}://x", "{{ user | 'https://x' }}",
		"https:{{ user }}", "ftp://{{ user }}",
	}
	variables := []map[string]string{
		nil, {"user": "u"}, {"locale": "fr"}, {"user": "https://x", "locale": "fr"}, {"user": "http"}, {"user": "s"}, {"user": "//x"}, {"user": "ftp"},
	}
	for _, text := range texts {
		c := compile(t, &pb.Message{Content: &pb.Content{Title: text, Body: text, Image: text, Link: text}}, Campaign)
		for _, vars := range variables {
			content := c.Content("", vars)
			var want Shape
			for bit, rendered := range map[Shape]string{HasTitle: content.Title, HasBody: content.Body, HasImage: content.Image, HasLink: content.Link} {
				if rendered != "" {
					want |= bit
				}
			}
			if got := c.Texts(0).Shape(vars); got != want {
				t.Errorf("%q with %v has shape %04b, want %04b", text, vars, got, want)
			}
		}
	}
}

// What depends on no variable must cost no look at them.
func TestShapeOfLiteralsIsSettled(t *testing.T) {
	c := compile(t, &pb.Message{Content: &pb.Content{Title: "Hi {{ user }}", Body: "b", Image: "https://x/{{ user }}"}}, Campaign)
	if s := c.Texts(0).sometimes; s != 0 {
		t.Errorf("%04b are looked at for each device", s)
	}
}

func TestDerivedIsOneForAll(t *testing.T) {
	c := compile(t, &pb.Message{Content: &pb.Content{Title: "t"}}, Campaign)
	type made struct{ of *Compiled }
	var group sync.WaitGroup
	seen := make([]*made, 8)
	for i := range seen {
		group.Go(func() {
			seen[i] = Derived(c, pb.Platform_PLATFORM_APNS, func(c *Compiled) *made { return &made{c} })
		})
	}
	group.Wait()
	for _, d := range seen {
		if d != seen[0] || d.of != c {
			t.Fatalf("%p and %p for the same message", d, seen[0])
		}
	}
	other := Derived(c, pb.Platform_PLATFORM_FCM, func(*Compiled) *int { return new(int) })
	if other == nil || len(c.derived) != len(pb.Platform_name) {
		t.Error("there is no place for each platform")
	}
}
