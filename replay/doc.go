// Package replay sends again what replays ask for: dead letters, and past deliveries that a provider lost.
//
// A replay is a chain of tasks on belfry.replays.<platform>, one step each: whoever handles a step sends the next few
// deliveries and leaves the step after it, in the one transaction that ends the task (package stream). So a replay goes on
// where it was after any crash, with nothing sent twice. A step also says what was sent again with it. Whoever has the
// topic's one partition has read all steps there are, and knows what no replay may send once more.
//
// The two types to know are [Role], which runs one worker for each platform, and letters.Selection, which finds what is
// to be sent.
package replay
