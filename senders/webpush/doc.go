// Package webpush sends to browsers through their push services (RFC 8030), encrypted (RFC 8291) and signed (RFC 8292).
//
// The two types to know are [Config], an app's VAPID keys, and [Provider], the platform's half of a lane.
//
// # Who carries
//
// The library: webpush-go encrypts and net/http sends, a goroutine for each request. Or, with Config.Wire: package encrypt
// encrypts on sealers, which all apps share, and package wire sends, with a client for each origin and class. Either way
// the VAPID header is one of ours, which serves for an hour.
//
// # What the service worker receives
//
// The push event's data is one JSON object; what is empty is left out, apart from id, tag and data:
//
//	{
//	  "id": "0f7c…",                       the delivery, the same on a repeat
//	  "title": "…", "body": "…",
//	  "image": "https://…", "link": "https://…",
//	  "icon": "https://…", "badge": "https://…",
//	  "require_interaction": true,
//	  "tag": "…",                          for showNotification: what has the same tag replaces, so a repeat is not seen
//	  "data": {"key": "value"}
//	}
//
// A message's webpush.raw is merged in last, at the top level.
package webpush
