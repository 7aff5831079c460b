// Package payload is what the platforms' encoders share: JSON of which only the holes are filled for each delivery, and the
// time a delivery has left.
//
// The two types to know are [Object], which an encoder writes once for a message, and [Document], which it becomes and
// which is appended for every delivery. A message's own raw JSON is an [Overlay], laid over the object.
package payload
