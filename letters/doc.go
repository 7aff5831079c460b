// Package letters is what the API and the role replay share: reading dead letters and past deliveries, telling which of
// them a filter means, and knowing what was sent again before. It writes nothing.
//
// The two types to know are [Letter], a dead letter and where it lies, and [Selection], which finds what a replay sends.
package letters
