package stream

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A completion map says which records above a committed offset are done, so that a restart does not do them again. It
// travels in the commit's metadata. The encoding: a version byte, the commit's nonce (8 bytes), the base offset, then the
// lengths of runs in offsets, alternately unfinished and done, as uvarints, then a CRC-32 of it, in base64. Offsets have
// holes (transaction markers, compaction), so a run ends where the next record's offset begins, and a hole belongs to the
// run before it. The nonce tells after a commit without an answer whether it was this one that took effect.
const (
	progressVersion = 1
	// maxProgress bounds the encoded map, in bytes. Brokers refuse metadata above offset.metadata.max.bytes, 4,096 by
	// default. A map that would be longer is cut: what is done above the cut is done again after a restart, never lost.
	maxProgress = 3 << 10
)

// span is a range of done offsets: [from, to).
type span struct{ from, to int64 }

// encodeProgress writes the done spans above base, which are in order, apart, and not empty.
func encodeProgress(nonce uint64, base int64, done []span) string {
	b := binary.BigEndian.AppendUint64([]byte{progressVersion}, nonce)
	b = binary.AppendUvarint(b, uint64(base))
	at := base
	for _, s := range done {
		n := binary.AppendUvarint(b, uint64(s.from-at))
		n = binary.AppendUvarint(n, uint64(s.to-s.from))
		if base64.RawStdEncoding.EncodedLen(len(n)+crc32.Size) > maxProgress {
			break
		}
		b, at = n, s.to
	}
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawStdEncoding.EncodeToString(b)
}

// decodeProgress reads what encodeProgress wrote for this base. A map with another base, a wrong checksum or spans out
// of order is an error, and must be ignored: then everything above base is done again.
func decodeProgress(base int64, meta string) (nonce uint64, done []span, err error) {
	b, err := base64.RawStdEncoding.DecodeString(meta)
	if err != nil {
		return 0, nil, fmt.Errorf("completion map: %w", err)
	}
	if len(b) < 1+8+crc32.Size || b[0] != progressVersion {
		return 0, nil, errors.New("completion map: unknown version")
	}
	b, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	if crc32.ChecksumIEEE(b) != sum {
		return 0, nil, errors.New("completion map: wrong checksum")
	}
	nonce, b = binary.BigEndian.Uint64(b[1:]), b[9:]
	at, err := uvarint(&b)
	if err != nil || at != base {
		return 0, nil, fmt.Errorf("completion map: made for offset %d, not %d", at, base)
	}
	for len(b) > 0 {
		gap, err1 := uvarint(&b)
		run, err2 := uvarint(&b)
		from := at + gap
		at = from + run
		if err1 != nil || err2 != nil || gap == 0 || run == 0 || from < base || at < from {
			return 0, nil, errors.New("completion map: a run is out of range")
		}
		done = append(done, span{from, at})
	}
	return nonce, done, nil
}

// uvarint takes a number below 2^61, so that two of them add without overflow.
func uvarint(b *[]byte) (int64, error) {
	v, n := binary.Uvarint(*b)
	if n <= 0 || v >= 1<<61 {
		return 0, errors.New("bad number")
	}
	*b = (*b)[n:]
	return int64(v), nil
}
