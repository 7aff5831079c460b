// Package fanout is the way from a campaign to its deliveries: it decides what is asked of campaigns (launcher), starts
// them on time (scheduler), turns their chunks into deliveries in fair order and no faster than the lanes drain
// (expander), and answers events with urgent messages (trigger).
//
// The three to know are [Fanout] and [Triggers], the roles, and [Decide], the campaign's state machine.
package fanout
