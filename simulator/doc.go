// Package simulator is the push providers, simulated: APNs, FCM with its token server, and four Web Push services.
//
// The two types to know are [Simulator] and [Population].
package simulator
