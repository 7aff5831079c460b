package datadir

import (
	"encoding/binary"
	"hash/crc32"
)

// A record batch, as on Kafka's wire: base offset (8 bytes), length of the rest (4), leader epoch (4), magic (1), checksum
// of all after it (4), attributes (2), last offset delta (4), timestamps (16), producer id (8), epoch (2), sequence (4),
// number of records (4), records.
const (
	batchHead       = 61
	lengthEnd       = 12 // base offset and length, which the length does not count
	magicAt         = 16
	checksumAt      = 17
	attributes      = 21
	producerEpochAt = 51
	maxBatch        = 1 << 30
	transaction     = 0x10 // in attributes
	control         = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is what is asked of one.
type batch struct {
	at    int64 // byte in the file
	size  int64
	base  int64 // first offset
	next  int64 // one after the last offset
	epoch int32
	// producer has written it, in a transaction if inTx says so; control is a transaction's end, and commit says which.
	producer int64
	inTx     bool
	control  bool
	commit   bool
}

// sizeOf is how long the batch at the start of b says that it is; false when b is too short to tell or it makes no sense.
func sizeOf(b []byte) (int64, bool) {
	if len(b) < lengthEnd {
		return 0, false
	}
	n := int64(binary.BigEndian.Uint32(b[8:])) + lengthEnd
	return n, n >= batchHead && n <= maxBatch
}

// readBatch reads the one at the start of b, which must be whole and have its checksum.
func readBatch(b []byte) (batch, bool) {
	size, ok := sizeOf(b)
	if !ok || size > int64(len(b)) || b[magicAt] != 2 ||
		crc32.Checksum(b[attributes:size], castagnoli) != binary.BigEndian.Uint32(b[checksumAt:]) {
		return batch{}, false
	}
	attrs := binary.BigEndian.Uint16(b[attributes:])
	base := int64(binary.BigEndian.Uint64(b))
	delta := int64(int32(binary.BigEndian.Uint32(b[23:])))
	if base < 0 || delta < 0 {
		return batch{}, false
	}
	r := batch{
		size: size, base: base, next: base + delta + 1, epoch: int32(binary.BigEndian.Uint32(b[12:])),
		producer: int64(binary.BigEndian.Uint64(b[43:])), control: attrs&control != 0,
	}
	r.inTx = attrs&transaction != 0 && !r.control
	r.commit = r.control && isCommit(b[batchHead:size])
	return r, true
}

// isCommit reads the key of a control record: version and type, two bytes each, the type 1 for a commit. Before it are, as
// varints, the record's length, an attribute byte, two deltas and the key's length, which all fit one byte each but for the
// time.
func isCommit(record []byte) bool {
	at := 0
	skip := func() {
		for at < len(record) && record[at]&0x80 != 0 {
			at++
		}
		at++
	}
	skip() // length
	at++   // attributes
	skip() // timestamp
	skip() // offset
	keyAt := at
	skip() // key length, zigzag: 4 is 8
	return at+4 <= len(record) && record[keyAt] == 8 && binary.BigEndian.Uint16(record[at+2:]) == 1
}

// resumes is where a whole batch begins again at or after a byte: b lies behind one that cannot be read. -1 is nowhere.
func resumes(b []byte, from int64) int64 {
	for at := from; at+batchHead <= int64(len(b)); at++ {
		if b[at+magicAt] != 2 || b[at] != 0 { // no log has 2^56 records
			continue
		}
		if _, ok := readBatch(b[at:]); ok {
			return at
		}
	}
	return -1
}

// scan reads batches until one cannot be read, and says where that is: len(b) if all can.
func scan(b []byte) (batches []batch, end int64) {
	for end < int64(len(b)) {
		r, ok := readBatch(b[end:])
		if !ok {
			break
		}
		r.at = end
		batches = append(batches, r)
		end += r.size
	}
	return batches, end
}

// indexEntry is the size of what an index has for each batch: version (1 byte), checksum of the rest (1), epoch (4), greatest
// time before (8), flags (1: in a transaction).
const indexEntry = 15

type entry struct {
	epoch int32
	inTx  bool
}

func readIndex(b []byte) (entry, bool) {
	if b[0] != 1 || byte(crc32.Checksum(b[2:indexEntry], castagnoli)) != b[1] || b[14] > 1 {
		return entry{}, false
	}
	return entry{int32(binary.LittleEndian.Uint32(b[2:])), b[14] == 1}, true
}

func appendIndex(b []byte, e entry) []byte {
	var raw [indexEntry]byte
	raw[0] = 1
	binary.LittleEndian.PutUint32(raw[2:], uint32(e.epoch))
	if e.inTx {
		raw[14] = 1
	}
	raw[1] = byte(crc32.Checksum(raw[2:], castagnoli))
	return append(b, raw[:]...)
}
