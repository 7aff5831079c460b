package producer

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// quickDevice is a BulkDevice, but for its tags and attributes, which are quick's.
type quickDevice struct {
	op, id, user, platform, locale, version, zone []byte
	hasTags, hasAttributes                        bool
	// target is the number of the field of pb.Target; 0 is none.
	target                    byte
	token, environment, topic []byte // of APNs, or FCM's token
	fid                       []byte
	endpoint, p256dh, auth    []byte
}

const (
	apnsField    = 1
	fcmField     = 2
	webpushField = 3
)

// readDevice reads a line into q.device and judges it. If it returns false, q.device holds rubbish.
func (q *quick) readDevice(line []byte, allowed []string) bool {
	q.begin(line)
	q.device = quickDevice{}
	d := &q.device
	q.object(func(name []byte) {
		switch string(name) {
		case "op":
			q.only(&d.op)
		case "id":
			q.only(&d.id)
		case "user":
			q.only(&d.user)
		case "platform":
			q.only(&d.platform)
		case "locale":
			q.only(&d.locale)
		case "app_version":
			q.only(&d.version)
		case "time_zone":
			q.only(&d.zone)
		case "tags":
			q.once(&d.hasTags)
			q.texts(maxTags)
		case "attributes":
			q.once(&d.hasAttributes)
			q.values(maxAttributes)
		default:
			q.readTarget(name)
		}
	})
	return q.ended() && q.identity(d.id) && (string(d.op) == "delete" ||
		(len(d.op) == 0 || string(d.op) == "put") && q.rightTraits() && q.rightTarget(allowed))
}

// readTarget reads where a device is reached; a second target is odd.
func (q *quick) readTarget(kind []byte) {
	d := &q.device
	q.bad = q.bad || d.target != 0
	switch string(kind) {
	case "apns":
		d.target = apnsField
	case "fcm":
		d.target = fcmField
	case "webpush":
		d.target = webpushField
	default:
		q.bad = true
		return
	}
	q.object(func(name []byte) {
		switch string(name) {
		case "token":
			q.only(&d.token)
			q.bad = q.bad || d.target == webpushField
		case "environment":
			q.only(&d.environment)
			q.bad = q.bad || d.target != apnsField
		case "topic":
			q.only(&d.topic)
			q.bad = q.bad || d.target != apnsField
		case "fid":
			q.only(&d.fid)
			q.bad = q.bad || d.target != fcmField
		case "endpoint":
			q.only(&d.endpoint)
			q.bad = q.bad || d.target != webpushField
		case "p256dh":
			q.only(&d.p256dh)
			q.bad = q.bad || d.target != webpushField
		case "auth":
			q.only(&d.auth)
			q.bad = q.bad || d.target != webpushField
		default:
			q.bad = true
		}
	})
}

// rightTraits judges all but the target as Device.proto does.
func (q *quick) rightTraits() bool {
	d := &q.device
	if len(d.user) > 0 && !q.identity(d.user) ||
		len(d.locale) > 0 && !localeForm(d.locale) ||
		len(d.version) > 0 && (len(d.version) > maxVersion || !q.named(d.version)) ||
		len(d.zone) > 0 && !zoneKnown(d.zone) {
		return false
	}
	for _, tag := range q.tags {
		if !q.named(tag) {
			return false
		}
	}
	for i := range q.pairs {
		if len(q.pairs[i].text) > maxText {
			return false
		}
	}
	return true
}

// rightTarget judges the target as the targets' own proto do, and leaves its record's form in q.inner.
func (q *quick) rightTarget(allowed []string) bool {
	d := &q.device
	stated := string(d.platform)
	var err error
	switch b := q.inner[:0]; d.target {
	case apnsField:
		if stated != "" && stated != "apns" || len(d.topic) > maxTopic || !all(d.topic, inTopic) {
			return false
		}
		environment := pb.Environment_ENVIRONMENT_PRODUCTION
		if string(d.environment) == "sandbox" {
			environment = pb.Environment_ENVIRONMENT_SANDBOX
		} else if len(d.environment) > 0 && string(d.environment) != "production" {
			return false
		}
		if n := len(d.token); n < 2*minToken || n > 2*maxToken || n%2 != 0 {
			return false
		}
		b, err = hex.AppendDecode(appendLength(b, 1, len(d.token)/2), d.token)
		b = schemas.AppendNumber(b, 2, uint64(environment))
		q.inner = schemas.AppendBytes(b, 3, d.topic)
		return err == nil
	case fcmField:
		if stated != "" && stated != "fcm" || (len(d.token) == 0) == (len(d.fid) == 0) ||
			len(d.token) > maxFCM || !all(d.token, inFCM) || len(d.fid) > maxFID || !all(d.fid, inID) {
			return false
		}
		q.inner = schemas.AppendBytes(schemas.AppendBytes(b, 1, d.token), 2, d.fid)
		return true
	case webpushField:
		if stated != "" && stated != "webpush" {
			return false
		}
		return q.rightSubscription(allowed)
	}
	return false
}

// rightSubscription judges a web push subscription.
func (q *quick) rightSubscription(allowed []string) bool {
	d := &q.device
	if !publicEndpoint(d.endpoint) && endpointFault(string(d.endpoint), allowed) != "" {
		return false
	}
	// What is written in the other alphabet, or padded, the slow way reads.
	b := appendLength(schemas.AppendBytes(q.inner[:0], 1, d.endpoint), 2, p256Bytes)
	begin := len(b)
	b, err := base64.RawURLEncoding.AppendDecode(b, d.p256dh)
	if err != nil || len(b)-begin != p256Bytes {
		return false
	}
	if _, err := ecdh.P256().NewPublicKey(b[begin:]); err != nil {
		return false
	}
	b = appendLength(b, 3, authBytes)
	begin = len(b)
	q.inner, err = base64.RawURLEncoding.AppendDecode(b, d.auth)
	return err == nil && len(q.inner)-begin == authBytes
}

// publicEndpoint tells of the usual that endpointFault finds no fault with it: https, a host name, and a path. A name
// ends with a letter's label; an address does not.
func publicEndpoint(s []byte) bool {
	rest, https := bytes.CutPrefix(s, []byte("https://"))
	host, path, _ := bytes.Cut(rest, []byte("/"))
	dot := bytes.LastIndexByte(host, '.')
	return https && len(s) <= maxEndpoint && dot > 0 && dot+1 < len(host) && host[dot+1]|0x20 >= 'a' && host[dot+1]|0x20 <= 'z' &&
		all(host, inTopic) && all(path, inPath)
}

// appendDevice appends the pb.DeviceRecord of what readDevice read. now is in Unix ms.
func (q *quick) appendDevice(out []byte, app string, now int64) []byte {
	d := &q.device
	b := schemas.AppendBytes(q.body[:0], 1, app)
	b = schemas.AppendBytes(b, 2, d.id)
	b = schemas.AppendBytes(b, 3, d.user)
	b = schemas.AppendNumber(b, 4, uint64(d.target)) // platforms have their targets' numbers
	b = schemas.AppendBytes(b, 5, d.locale)
	b = schemas.AppendBytes(b, 6, d.version)
	b = schemas.AppendBytes(b, 7, d.zone)
	for _, tag := range q.tags {
		b = schemas.AppendBytes(b, 8, tag)
	}
	b = appendPairs(b, 9, q.pairs)
	b = appendLength(b, 10, 1+protowire.SizeBytes(len(q.inner)))
	b = append(appendLength(b, d.target, len(q.inner)), q.inner...)
	q.body = schemas.AppendNumber(b, 11, uint64(now))
	return schemas.AppendBytes(out, 1, q.body)
}
