// Package apns sends to the Apple Push Notification service (HTTP/2 provider API).
//
// The two types to know are [Config], an app's credential, and [Provider], the platform's half of a lane.
package apns
