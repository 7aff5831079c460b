package datadir

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/url"
	"time"
)

// An entry of groups.log and pids.log: length of the rest but the checksum (4 bytes), checksum (4), version (2), JSON.
const (
	frameHead = 10
	maxFrame  = 16 << 20
)

// frames reads entries until one cannot be read, and says where that is: len(b) if all can.
func frames(b []byte) (entries [][]byte, end int) {
	for end < len(b) {
		data, n, ok := frame(b[end:])
		if !ok {
			break
		}
		entries = append(entries, data)
		end += n
	}
	return entries, end
}

func frame(b []byte) (data []byte, n int, ok bool) {
	if len(b) < frameHead {
		return nil, 0, false
	}
	length := binary.LittleEndian.Uint32(b)
	if length < 2 || length > maxFrame || int(length)+8 > len(b) {
		return nil, 0, false
	}
	n = int(length) + 8
	if crc32.Checksum(b[8:n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, false
	}
	return b[frameHead:n], n, true
}

func appendFrame(b, data []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, frameHead)...)
	b = append(b, data...)
	binary.LittleEndian.PutUint32(b[at:], uint32(2+len(data)))
	binary.LittleEndian.PutUint16(b[at+8:], 1)
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(b[at+8:], castagnoli))
	return b
}

// cutShort tells an entry that was being written when all stopped from one that was changed later: it is longer than what
// there is of it.
func cutShort(b []byte) bool {
	if len(b) < frameHead {
		return true
	}
	length := binary.LittleEndian.Uint32(b)
	return length >= 2 && length <= maxFrame && int(length)+8 > len(b)
}

// framesAgain is where a whole entry begins again at or after a byte; -1 is nowhere.
func framesAgain(b []byte, from int) int {
	for at := from; at+frameHead < len(b); at++ {
		if data, _, ok := frame(b[at:]); ok && len(data) > 0 && data[0] == '{' {
			return at
		}
	}
	return -1
}

type groupEntry struct {
	Type      string  `json:"type"`
	Group     string  `json:"g"`
	Topic     string  `json:"t,omitempty"`
	Partition int32   `json:"p,omitempty"`
	Offset    int64   `json:"o,omitempty"`
	Epoch     int32   `json:"e,omitempty"`
	Metadata  *string `json:"m,omitempty"`
	Committed int64   `json:"lc,omitempty"` // ms
}

// positions replays groups.log, as kfake does: how far each group has come, by partition's folder.
func positions(entries [][]byte) map[string]map[string]int64 {
	at := map[string]map[string]int64{}
	for _, data := range entries {
		var e groupEntry
		if json.Unmarshal(data, &e) != nil {
			continue
		}
		switch folder := folderOf(e.Topic, e.Partition); e.Type {
		case "commit":
			if at[e.Group] == nil {
				at[e.Group] = map[string]int64{}
			}
			at[e.Group][folder] = e.Offset
		case "delete":
			if delete(at[e.Group], folder); len(at[e.Group]) == 0 {
				delete(at, e.Group)
			}
		}
	}
	return at
}

// folderOf is the name of a partition's folder.
func folderOf(topic string, partition int32) string {
	return fmt.Sprintf("%s-%d", url.PathEscape(topic), partition)
}

// commit is the entry that sets a position.
func commit(p Position) ([]byte, error) {
	data, err := json.Marshal(groupEntry{
		Type: "commit", Group: p.Group, Topic: p.Topic, Partition: p.Partition, Offset: p.Offset, Epoch: p.Epoch, Metadata: p.Metadata,
		Committed: time.Now().UnixMilli(),
	})
	return appendFrame(nil, data), err
}
