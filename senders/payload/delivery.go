package payload

import (
	"encoding/hex"
	"time"
	"unsafe"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
)

// IDSize is how long a delivery's id is as text, bytes.
const IDSize = 36

// AppendID appends a delivery's id as text, in the canonical form of a UUID (RFC 9562 section 4) that APNs asks for.
func AppendID(dst []byte, d *pb.Delivery) ([]byte, error) {
	id := d.GetId()
	if len(id) != 16 {
		return dst, Refuse("bad-delivery", "the delivery's id is not 16 bytes")
	}
	var h [32]byte
	hex.Encode(h[:], id)
	dst = append(append(dst, h[:8]...), '-')
	dst = append(append(dst, h[8:12]...), '-')
	dst = append(append(dst, h[12:16]...), '-')
	dst = append(append(dst, h[16:20]...), '-')
	return append(dst, h[20:]...), nil
}

// View is b as a string, without a copy of it. It is for the strings of a request, which are made in the request's own
// buffer: from Encode to its result nobody writes there, and after it nobody has them. A string that is kept for longer,
// as a header table keeps a field that many requests share, must not be one of these.
func View(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Expiry is when the delivery stops being worth sending and how many whole seconds are left until then, at least 1. What
// a provider is told follows from now, not from when the delivery was made: a retry must not live longer than the message.
func Expiry(d *pb.Delivery, m *message.Compiled, now time.Time) (at time.Time, seconds int64, err error) {
	at = time.UnixMilli(d.GetExpiresAt())
	if d.GetExpiresAt() == 0 {
		at = now.Add(m.TTL())
	}
	left := at.Sub(now)
	if left <= 0 {
		return at, 0, &senders.Refusal{Outcome: pb.Outcome_OUTCOME_EXPIRED, Code: "expired", Detail: "its time was over before it was sent"}
	}
	return at, max(1, int64(left/time.Second)), nil
}

// Refuse is a delivery that cannot be sent to its device.
func Refuse(code, detail string) *senders.Refusal {
	return &senders.Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: code, Detail: detail}
}
