// Package payload is what the platforms' encoders share: JSON made by appending, and the time a delivery has left.
//
// The two things to know are [Writer], which makes a payload, and [Merge], which lays a message's own raw JSON over it.
package payload
