package nearest

import "testing"

func TestWord(t *testing.T) {
	known := []string{"brokers", "prefix", "tls", "sasl", "attributes.first_name"}
	for given, want := range map[string]string{
		"borkers":               "brokers",
		"broker":                "brokers",
		"prefixes":              "prefix",
		"tsl":                   "tls",
		"x":                     "",
		"compression":           "",
		"attribute.first_name":  "attributes.first_name",
		"attributes.firstname":  "attributes.first_name",
		"attributes.first_nane": "attributes.first_name",
	} {
		if got := Word(given, known); got != want {
			t.Errorf("Word(%q) = %q, want %q", given, got, want)
		}
	}
}
