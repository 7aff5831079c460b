package config

import (
	"slices"
	"testing"
)

func TestRolesByName(t *testing.T) {
	lanes := []string{"senders.apns.urgent", "senders.apns.bulk", "senders.fcm.urgent", "senders.fcm.bulk", "senders.webpush.urgent", "senders.webpush.bulk"}
	for _, c := range []struct {
		named, runs []string
		canWait     bool
	}{
		{nil, Roles, false},
		{[]string{"producer", "ledger"}, []string{"producer", "ledger"}, false},
		{[]string{"senders"}, lanes, false},
		{[]string{"senders.apns", "replay"}, []string{"senders.apns.urgent", "senders.apns.bulk", "replay"}, false},
		{[]string{"senders.fcm.urgent"}, []string{"senders.fcm.urgent"}, false},
		{[]string{"senders.fcm.bulk"}, []string{"senders.fcm.bulk"}, true},
		{[]string{"fanout", "senders.apns.bulk", "ledger", "replay"}, []string{"fanout", "senders.apns.bulk", "ledger", "replay"}, true},
		{[]string{"fanout", "trigger"}, []string{"trigger", "fanout"}, false},
		{[]string{"fanout", "registry"}, []string{"registry", "fanout"}, false},
	} {
		cfg := &Config{Roles: c.named}
		var runs []string
		for _, role := range Roles {
			if cfg.Runs(role) {
				runs = append(runs, role)
			}
		}
		if !slices.Equal(runs, c.runs) {
			t.Errorf("%v runs %v", c.named, runs)
		}
		if got := cfg.CanWait(); got != c.canWait {
			t.Errorf("%v can wait: %v", c.named, got)
		}
	}
	one := &Config{Roles: []string{"senders.apns.bulk"}}
	if !one.Runs("senders.apns") || !one.Runs("senders") || one.Runs("senders.fcm") {
		t.Error("a role of a group is not found by the group's name")
	}
}

func TestRoleNames(t *testing.T) {
	for _, name := range []string{"ledger", "senders", "senders.webpush", "senders.webpush.bulk"} {
		if p := faultsOf(t, name); len(p) > 0 {
			t.Errorf("%s: %v", name, p)
		}
	}
	for _, name := range []string{"", "sender", "senders.", "senders.apns.", "senders.apns.slow", "fanout.trigger"} {
		if p := faultsOf(t, name); len(p) == 0 {
			t.Errorf("%q is taken for a role", name)
		}
	}
}

func faultsOf(t *testing.T, role string) (of Problems) {
	t.Helper()
	of.each("roles", []string{role}, roleNames())
	return of
}
