package schemas

import "google.golang.org/protobuf/encoding/protowire"

// AppendBytes appends a field of text or bytes as proto3 does: not at all when it is empty. Whoever writes records of which
// there are millions does it by hand, into room of its own, and tests it against package proto.
func AppendBytes[T string | []byte](b []byte, field protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

// AppendNumber appends a field that is a varint, as proto3 does: not at all when it is 0. An int64 is given as uint64(n).
func AppendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
