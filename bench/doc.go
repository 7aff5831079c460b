// Package bench measures Belfry: its parts against what they are built on or compete with, and what one part of the traffic
// does to another.
//
// The two types to know are [Bench], one measurement, and [Env], where it is made. A comparison with something else is a
// contest: its sides take turns, each in this process or in processes whose cost is read from outside, and what comes of it
// is a [Result]. The servers, the brokers and the rest of Belfry are always in processes of their own, so that their cost is
// theirs. What one part of the traffic does to another is a [Scene]: it drives the whole of Belfry in this process through
// its HTTP API, and reads from the simulated providers when each delivery arrives.
//
// Every measurement is paired: what the machine does besides strikes both sides alike.
package bench
