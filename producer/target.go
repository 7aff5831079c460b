package producer

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// APNsTarget is an iPhone, an iPad, a Mac or a watch.
type APNsTarget struct {
	Token       string `json:"token" doc:"The device token in hex" example:"a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"`
	Environment string `json:"environment,omitempty" doc:"production (default) or sandbox: which of Apple's services issued the token"`
	Topic       string `json:"topic,omitempty" doc:"The bundle id, where it differs from the app's"`
}

// FCMTarget is an Android device, or whatever else has a Firebase registration.
type FCMTarget struct {
	Token string `json:"token,omitempty" doc:"The registration token. Exactly one of token and fid"`
	FID   string `json:"fid,omitempty" doc:"The Firebase installation id"`
}

// WebPushTarget is a browser's subscription (PushSubscription.toJSON: endpoint, keys.p256dh, keys.auth).
type WebPushTarget struct {
	Endpoint string `json:"endpoint" doc:"The subscription's https URL" example:"https://updates.push.services.mozilla.com/wpush/v2/gAAAA"`
	P256dh   string `json:"p256dh,omitempty" doc:"The subscription's public key, base64url of 65 bytes"`
	Auth     string `json:"auth,omitempty" doc:"The subscription's secret, base64url of 16 bytes"`
}

const (
	minToken    = 8
	maxToken    = 100
	maxTopic    = 255
	maxFCM      = 4096
	maxFID      = 128
	maxEndpoint = 2048
	p256Bytes   = 65
	authBytes   = 16
)

// target turns the one target of a device into a record. It returns nil with what is wrong.
func (d *Device) target(allowed []string) (*pb.Target, pb.Platform, message.Problems) {
	var f faults
	switch {
	case d.APNs != nil && d.FCM == nil && d.WebPush == nil:
		t := d.APNs.proto(&f)
		return &pb.Target{Kind: &pb.Target_Apns{Apns: t}}, pb.Platform_PLATFORM_APNS, f.found
	case d.FCM != nil && d.APNs == nil && d.WebPush == nil:
		t := d.FCM.proto(&f)
		return &pb.Target{Kind: &pb.Target_Fcm{Fcm: t}}, pb.Platform_PLATFORM_FCM, f.found
	case d.WebPush != nil && d.APNs == nil && d.FCM == nil:
		t := d.WebPush.proto(&f, allowed)
		return &pb.Target{Kind: &pb.Target_Webpush{Webpush: t}}, pb.Platform_PLATFORM_WEBPUSH, f.found
	}
	f.add("", "must have exactly one of apns, fcm and webpush")
	return nil, 0, f.found
}

func (a *APNsTarget) proto(f *faults) *pb.ApnsTarget {
	t := &pb.ApnsTarget{Topic: a.Topic}
	token, err := hex.DecodeString(a.Token)
	switch {
	case err != nil:
		f.add("apns.token", "is not hex: send the token's bytes as hex digits")
	case len(token) < minToken || len(token) > maxToken:
		f.add("apns.token", fmt.Sprintf("has %d bytes; must have %d to %d", len(token), minToken, maxToken))
	}
	t.Token = token
	switch a.Environment {
	case "", "production":
		t.Environment = pb.Environment_ENVIRONMENT_PRODUCTION
	case "sandbox":
		t.Environment = pb.Environment_ENVIRONMENT_SANDBOX
	default:
		f.add("apns.environment", "must be production or sandbox")
	}
	if len(a.Topic) > maxTopic || strings.ContainsFunc(a.Topic, func(r rune) bool { return !idRune(r) && r != '.' }) {
		f.add("apns.topic", "must be a bundle id: letters, digits, - and ., at most 255")
	}
	return t
}

func (c *FCMTarget) proto(f *faults) *pb.FcmTarget {
	switch {
	case (c.Token == "") == (c.FID == ""):
		f.add("fcm", "must have exactly one of token and fid")
	case len(c.Token) > maxFCM || strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		f.add("fcm.token", fmt.Sprintf("must be printable ASCII without spaces, at most %d bytes", maxFCM))
	case len(c.FID) > maxFID || strings.ContainsFunc(c.FID, func(r rune) bool { return !idRune(r) }):
		f.add("fcm.fid", "must be letters, digits, - and _, at most 128")
	}
	return &pb.FcmTarget{Token: c.Token, Fid: c.FID}
}

func idRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

func (w *WebPushTarget) proto(f *faults, allowed []string) *pb.WebPushTarget {
	t := &pb.WebPushTarget{Endpoint: w.Endpoint}
	if fault := endpointFault(w.Endpoint, allowed); fault != "" {
		f.add("webpush.endpoint", fault)
	}
	var err error
	if t.P256Dh, err = decodeBase64(w.P256dh); err != nil {
		f.add("webpush.p256dh", "is not base64url")
	} else if len(t.P256Dh) != p256Bytes {
		f.add("webpush.p256dh", fmt.Sprintf("has %d bytes; must have %d, an uncompressed point", len(t.P256Dh), p256Bytes))
	} else if _, err := ecdh.P256().NewPublicKey(t.P256Dh); err != nil {
		f.add("webpush.p256dh", "is not a point on the curve P-256")
	}
	if t.Auth, err = decodeBase64(w.Auth); err != nil {
		f.add("webpush.auth", "is not base64url")
	} else if len(t.Auth) != authBytes {
		f.add("webpush.auth", fmt.Sprintf("has %d bytes; must have %d", len(t.Auth), authBytes))
	}
	return t
}

// endpointFault says what is wrong with a push resource's URL. Names that resolve to private addresses are found by the
// sender, which knows what they resolve to when it sends.
func endpointFault(endpoint string, allowed []string) string {
	if len(endpoint) > maxEndpoint {
		return fmt.Sprintf("has %d bytes; at most %d are allowed", len(endpoint), maxEndpoint)
	}
	// url.Parse's error would repeat the endpoint, which is a secret.
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return "must be an absolute https URL, without user and fragment"
	}
	if slices.Contains(allowed, u.Host) || slices.Contains(allowed, u.Hostname()) {
		if u.Scheme == "https" || u.Scheme == "http" {
			return ""
		}
	}
	if u.Scheme != "https" {
		return "must be an https URL: others need their host in the app's webpush.allow_hosts"
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !public(addr.Unmap()) || u.Hostname() == "localhost" {
		return "must not be on a private or loopback address: those need their host in the app's webpush.allow_hosts"
	}
	return ""
}

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate()
}

// decodeBase64 takes what browsers and libraries write: either alphabet, with or without padding.
func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "+/") {
		return base64.RawStdEncoding.DecodeString(s)
	}
	return base64.RawURLEncoding.DecodeString(s)
}
