package fanout

import (
	"strings"
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

func shipped(when string) Rule {
	return Rule{
		App: "shop", Name: "shipped", Event: "order.shipped", When: when,
		Message: &pb.Message{Content: &pb.Content{Title: "Order {{ event.order }} is on its way"}},
	}
}

func TestRuleConditions(t *testing.T) {
	event := &pb.Event{
		App: "shop", Id: "e1", Name: "order.shipped", User: "ann", At: epoch.UnixMilli(),
		Fields: map[string]*pb.Value{
			"amount":  {Kind: &pb.Value_Number{Number: 12.5}},
			"country": {Kind: &pb.Value_Text{Text: "FR"}},
			"express": {Kind: &pb.Value_Flag{Flag: true}},
		},
	}
	for when, want := range map[string]bool{
		"":                   true,
		"fields.amount > 10": true,
		"fields.amount > 20": false,
		`fields.country == "FR" and fields.express`: true,
		`user == "ann" && name startsWith "order"`:  true,
		"at.Year() == 2026":                         true,
		"fields.missing > 1":                        false, // cannot be told
		"(fields.missing ?? 5) > 1":                 true,
	} {
		r, err := shipped(when).compile()
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if got := r.matches(event, streamtest.Log(t)); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
}

func TestEveryFaultOfTheRulesIsTold(t *testing.T) {
	unknown := shipped("")
	unknown.Name, unknown.Message = "b", &pb.Message{Content: &pb.Content{Title: "{{ data.code }}"}}
	nameless := shipped("")
	nameless.Name = ""
	bad := shipped("amount > 10")
	bad.Name = "c"
	_, err := compileRules([]Rule{shipped(""), shipped(""), unknown, nameless, bad})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`rule "shipped": there are two`, `rule "b": message: `, `rule "": name and event`, `rule "c": when: `} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among: %v", want, err)
		}
	}
	if _, err := compileRules([]Rule{shipped("")}); err != nil {
		t.Error(err)
	}
}
