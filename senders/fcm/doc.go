// Package fcm sends to Firebase Cloud Messaging (HTTP v1).
//
// The two types to know are [Config], an app's service account, and [Provider], the platform's half of a lane.
package fcm
