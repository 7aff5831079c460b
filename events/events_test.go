package events_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func text(s string) *pb.Value { return &pb.Value{Kind: &pb.Value_Text{Text: s}} }

func TestBothFormsAreOneEvent(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	want := &pb.Event{
		App: "shop", Id: "o-17", Name: "order.shipped", User: "ada", At: at.UnixMilli(),
		Fields: map[string]*pb.Value{
			"carrier": text("Poste"),
			"parcels": {Kind: &pb.Value_Number{Number: 2}},
			"express": {Kind: &pb.Value_Flag{Flag: true}},
		},
	}
	binary, err := events.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	const json = `{"app":"shop","id":"o-17","name":"order.shipped","user":"ada","at":"2026-11-24T09:30:00Z",
		"fields":{"carrier":"Poste","parcels":2,"express":true}}`
	for form, value := range map[string][]byte{"JSON": []byte(json), "protobuf": binary} {
		got, err := events.Parse(value)
		if err != nil {
			t.Errorf("%s: %v", form, err)
		} else if !proto.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", form, got, want)
		}
	}
}

func TestFaultsNameTheirFields(t *testing.T) {
	for value, fields := range map[string]string{
		`{}`: "app id name user",
		`{"app":"Shop","id":"1","name":"n","user":"u"}`:                                "app",
		`{"app":"shop","id":"` + strings.Repeat("x", 129) + `","name":"n","user":"u"}`: "id",
		`{"app":"shop","id":"1","name":"a\u0000","user":"u"}`:                          "name",
		`{"app":"shop","id":"1","name":"n","user":"a/b"}`:                              "user",
		`{"app":"shop","id":"1","name":"n","user":"u","at":"1969-12-31T00:00:00Z"}`:    "at",
		`{"app":"shop","id":"1","name":"n","user":"u","fields":{"list":[1]}}`:          "fields.list",
		`{"app":"shop","id":"1","name":"n","user":"u","fields":{"":1}}`:                "fields",
	} {
		_, err := events.Parse([]byte(value))
		problems, ok := errors.AsType[message.Problems](err)
		if !ok {
			t.Errorf("%.60s: got error %v, want message.Problems", value, err)
			continue
		}
		var got []string
		for _, p := range problems {
			got = append(got, p.Field)
		}
		if strings.Join(got, " ") != fields {
			t.Errorf("%.60s: faults in %v, want %s", value, got, fields)
		}
	}
}

func TestUnreadableValuesAreRefused(t *testing.T) {
	for name, value := range map[string]string{
		"empty":         "",
		"cut JSON":      `{"app":"shop"`,
		"two objects":   `{"app":"shop","id":"1","name":"n","user":"u"}{}`,
		"unknown field": `{"app":"shop","id":"1","name":"n","user":"u","colour":"red"}`,
		"bad time":      `{"app":"shop","id":"1","name":"n","user":"u","at":"yesterday"}`,
		"neither":       "hello",
		"too long":      `{"app":"` + strings.Repeat("x", events.MaxBytes) + `"}`,
	} {
		if e, err := events.Parse([]byte(value)); err == nil {
			t.Errorf("%s: read as %v", name, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"app":"shop","id":"1","name":"n","user":"u","fields":{"a":1}}`))
	f.Add([]byte("\x0a\x04shop"))
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := events.Parse(value)
		if err != nil {
			return
		}
		again, err := events.Encode(e)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if len(again) <= events.MaxBytes {
			if _, err := events.Parse(again); err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
		}
	})
}
