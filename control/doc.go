// Package control is what operators and Belfry itself hold back or slow down, as it lies on belfry.control: it outlives
// restarts, and reaches what is on the topics already.
//
// The two types to know are [Name], which part of the traffic, and [View], what is in force.
package control
