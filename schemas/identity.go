package schemas

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// RunMessages is the account of the transactional messages that the API takes. A campaign's id cannot begin with "~".
const RunMessages = "~messages"

// RunRule is the account of the messages that one event rule triggers.
func RunRule(rule string) string { return "~rule." + rule }

// Shards is how many shards an app's devices are spread over. It is part of a cluster's identity: see ClusterConfig.
const Shards = 4096

// Shard is where the registry keeps a device: 0 to Shards-1.
func Shard(device string) uint32 { return uint32(xxhash.Sum64String(device) % Shards) }

// DeliveryID is a UUIDv8 (RFC 9562 section 5.8) of hash(run, device, step). run is a campaign's id, or for a
// transactional message that message's id, prefixed with its app by the caller's key scheme "app/run".
func DeliveryID(app, run, device string, step uint32) [16]byte {
	b := make([]byte, 0, 256) // of four names as long as they may be; on the stack
	for _, s := range [...]string{app, run, device} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(b, step))
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Key joins the parts of a record's key with "/". Apps and campaigns cannot hold a "/", and what may comes last.
func Key(parts ...string) []byte { return []byte(strings.Join(parts, "/")) }

// SplitKey cuts a key into at most n parts, as Key joined them.
func SplitKey(key []byte, n int) []string { return strings.SplitN(string(key), "/", n) }

const replayKind = "replay"

// ReplayKey is the key of a replay on belfry.control; with a platform, of what became of it there.
func ReplayKey(app, id string, p ...pb.Platform) []byte {
	parts := []string{replayKind, app, id}
	for _, platform := range p {
		parts = append(parts, PlatformName(platform))
	}
	return Key(parts...)
}

// SplitReplayKey reads what ReplayKey writes. ok is false for the other keys of belfry.control.
func SplitReplayKey(key []byte) (app, id string, p pb.Platform, ok bool) {
	parts := SplitKey(key, 4)
	if parts[0] != replayKind || len(parts) < 3 {
		return "", "", 0, false
	}
	if len(parts) == 4 {
		if p, ok = ParsePlatform(parts[3]); !ok {
			return "", "", 0, false
		}
	}
	return parts[1], parts[2], p, true
}

const goneSuffix = "#gone"

// DeviceKey is the key of a device's registration on belfry.devices.
func DeviceKey(app, device string) []byte { return Key(app, device) }

// DeviceGoneKey is the key of what a provider said of that device. It lies on the device's partition (DevicePartition).
func DeviceGoneKey(app, device string) []byte { return Key(app, device+goneSuffix) }

// DeviceOf makes a key of either kind the device's own.
func DeviceOf(key []byte) []byte { return bytes.TrimSuffix(key, []byte(goneSuffix)) }

// DevicePartition is the partition of belfry.devices for a key of either kind, the same for both of one device. Every
// producer to that topic must set it: the default partitioner would part them.
func DevicePartition(key []byte, partitions int32) int32 {
	return int32(xxhash.Sum64(DeviceOf(key)) % uint64(partitions))
}

// TargetHash tells targets apart without keeping them: 16 bytes of a hash over what reaches the device. A web push
// subscription is its endpoint, whatever its keys.
func TargetHash(t *pb.Target) []byte {
	var kind byte
	var what []byte
	switch k := t.GetKind().(type) {
	case *pb.Target_Apns:
		// Apple's two services could give out the same token.
		kind, what = 1+byte(k.Apns.GetEnvironment())<<4, k.Apns.GetToken()
	case *pb.Target_Fcm:
		kind, what = 2, []byte(k.Fcm.GetToken())
		if k.Fcm.GetToken() == "" {
			kind, what = 3, []byte(k.Fcm.GetFid())
		}
	case *pb.Target_Webpush:
		kind, what = 4, []byte(k.Webpush.GetEndpoint())
	}
	sum := sha256.Sum256(append([]byte{kind}, what...))
	return sum[:16]
}

// AppendResult adds a result to a ResultBatch under construction: fields concatenate in protobuf. It is written by hand, since
// it runs for every delivery, and makes no allocation where b has room. A code may come from a provider's answer, and
// protobuf strings are UTF-8: what is not becomes "?".
func AppendResult(b []byte, r *pb.Result) []byte {
	if !utf8.ValidString(r.Code) {
		r.Code = strings.ToValidUTF8(r.Code, "?")
	}
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	start := len(b)
	b = append(b, 0) // the length: one byte for all but the oddest
	b = AppendBytes(b, 1, r.Delivery)
	b = AppendNumber(b, 2, uint64(r.Outcome))
	b = AppendBytes(b, 3, r.Code)
	b = AppendNumber(b, 4, uint64(r.At))
	b = AppendNumber(b, 5, uint64(r.Attempt))
	b = AppendNumber(b, 6, protowire.EncodeBool(r.Planned))
	if r.Invalid != nil {
		b = appendField(b, 7, r.Invalid)
	}
	b = AppendNumber(b, 8, protowire.EncodeBool(r.Message))
	return setLength(b, start)
}

// setLength puts a message's length before it: it begins at start with one byte of room for that.
func setLength(b []byte, start int) []byte {
	n := uint64(len(b) - start - 1)
	if more := protowire.SizeVarint(n) - 1; more > 0 {
		b = slices.Insert(b, start, make([]byte, more)...)
	}
	protowire.AppendVarint(b[:start], n)
	return b
}

// AppendExpanded adds a chunk's count to a ResultBatch under construction.
func AppendExpanded(b []byte, e *pb.Expanded) []byte { return appendField(b, 2, e) }

// AppendReplayed adds what a replay sent again to a ResultBatch under construction.
func AppendReplayed(b []byte, r *pb.Replayed) []byte { return appendField(b, 5, r) }

func appendField(b []byte, field int, m proto.Message) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(proto.Size(m)))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		// Only invalid UTF-8 can fail here: device ids were checked at the edge, codes above.
		panic("schemas: encode result: " + err.Error())
	}
	return b
}
