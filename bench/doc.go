// Package bench measures what one part of the traffic does to another: a sick provider to the others, a campaign of a
// million to a one-time code, and to a small campaign behind it. It drives the whole of Belfry through its HTTP API and
// reads the result from the simulated providers, which see each delivery arrive.
//
// The two types to know are [Bench], one measurement, and [Stage], what it runs on. Every measurement is paired: with and
// without, in turns, so that what the machine does besides strikes both alike.
package bench
