package payload

import (
	"time"

	"github.com/google/uuid"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
)

// ID is a delivery's id as text, in the canonical form of a UUID that APNs asks for.
func ID(d *pb.Delivery) (string, error) {
	id, err := uuid.FromBytes(d.GetId())
	if err != nil {
		return "", Refuse("bad-delivery", "the delivery's id is not 16 bytes")
	}
	return id.String(), nil
}

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
