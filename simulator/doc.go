// Package simulator is the push providers, simulated: APNs, FCM with its token server, four browsers' Web Push services and
// a push server of somebody's own.
//
// The types to know are [Providers], [Simulator] and [Population]. Providers are the rules and the truth, without a socket:
// [Providers.Ask] says what a provider answers to a request, under testing/synctest too. [Start] serves them, each on a
// port of its own, over TLS with a certificate authority of its own. [Fault] makes a provider sick while it runs, or some of
// its targets; [Summary] says what was taken.
//
// # What it is for
//
// It is the ground truth of Belfry's tests, and it is staging without phones. So it imports nothing of Belfry's, and
// it is strict: it verifies provider tokens (ES256), service account assertions (RS256) and VAPID headers; it decrypts
// each Web Push body as the browser would; it checks every header, limit and field that the providers document. It is
// stricter than they are where a sender's mistake would go unseen otherwise:
//
//   - APNs: apns-push-type is required; an alert, a background push and a live activity must have an aps object;
//     apns-expiration must fit 32 bits, so that a time in milliseconds does not pass.
//   - Web Push: a body that the browser could not decrypt is refused with 400, and X-Simulator-Detail says why.
//
// What it does not do: deliver, store until a TTL is over, or collapse; nor count what the providers limit, unless a Fault of
// kind Quota says so.
//
// # Population
//
// A device's token is the device itself, encrypted (see sealer): the simulator keeps nothing for a million of them but how
// often each was asked.
// Everything follows from the seed, also credentials and the authority's key; a simulator that is started again with
// the same seed and ports goes on where the last one was. None of its keys is a secret.
//
// # Delivery ids
//
// A receipt is by delivery id, a UUID: apns-id for APNs, message.data.belfry_id for FCM, and "id" in the JSON that the
// browser decrypts for Web Push. A message without one is accepted as its provider would, and counted as unnamed.
//
// # Cost
//
// Measured with BenchmarkHandler on two shared cores of an AMD EPYC, messages of some 300 bytes, JWTs verified once and
// remembered: 4 µs a push for APNs (JSON is half of it), 10 µs for FCM (a schema walk over decoded JSON), 41 to 50 µs for Web
// Push, of which one P-256 multiplication is nearly all. net/http's HTTP/2 server with TLS comes on top: 25 µs of CPU a
// push in all for APNs, driven by h2load over one connection of 500 streams. Writing a device takes 0.5 µs.
package simulator
