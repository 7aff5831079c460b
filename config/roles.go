package config

import (
	"slices"
	"strings"
)

// Roles are what one process can do, in the order in which a delivery meets them. What some of their names begin with, up to
// a dot, means all of these: senders.apns, senders.
var Roles = []string{
	"producer", "registry", "trigger", "fanout",
	"senders.apns.urgent", "senders.apns.bulk", "senders.fcm.urgent", "senders.fcm.bulk", "senders.webpush.urgent", "senders.webpush.bulk",
	"ledger", "replay",
}

// roleNames are all names that a configuration may give: Roles, and what they have in common.
func roleNames() []string {
	names := slices.Clone(Roles)
	for _, role := range Roles {
		for at := strings.LastIndexByte(role, '.'); at > 0; at = strings.LastIndexByte(role[:at], '.') {
			if group := role[:at]; !slices.Contains(names, group) {
				names = append(names, group)
			}
		}
	}
	return names
}

// covers says whether a role is the one that is named, or one of them.
func covers(name, role string) bool { return name == role || strings.HasPrefix(role, name+".") }

// Runs says whether this process has a role, or one of those that name begins.
func (c *Config) Runs(name string) bool {
	return len(c.Roles) == 0 ||
		slices.ContainsFunc(c.Roles, func(role string) bool { return covers(role, name) || covers(name, role) })
}

// UsesRedis says whether any role of this process does.
func (c *Config) UsesRedis() bool { return slices.ContainsFunc(sharing, c.Runs) }

// CanWait says whether nobody waits for any of what this process does: it is all for campaigns and for replays, and for the
// accounts of both. What it shares cores with may go first then.
func (c *Config) CanWait() bool {
	for _, role := range Roles {
		patient := role == "fanout" || role == "ledger" || role == "replay" || strings.HasSuffix(role, ".bulk")
		if !patient && c.Runs(role) {
			return false
		}
	}
	return true
}
