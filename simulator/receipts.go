package simulator

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// ID is a delivery's id: what APNs has as apns-id, FCM as message.data.belfry_id and a browser as the "id" of the JSON
// that it decrypts.
type ID [16]byte

// ParseID reads the 36 characters of a UUID.
func ParseID(s string) (ID, bool) { return parseID([]byte(s)) }

func parseID(s []byte) (id ID, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	n := 0
	for _, part := range [...][2]int{{0, 8}, {9, 13}, {14, 18}, {19, 23}, {24, 36}} {
		w, err := hex.Decode(id[n:], s[part[0]:part[1]])
		if err != nil {
			return ID{}, false
		}
		n += w
	}
	return id, true
}

func (id ID) String() string { return string(id.append(nil)) }

func (id ID) append(b []byte) []byte {
	for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

// Summary is what the providers have taken and answered.
type Summary struct {
	// Distinct and Repeats count the accepted deliveries: each id once, and every further time.
	Distinct int64 `json:"distinct"`
	Repeats  int64 `json:"repeats"`
	// Unnamed were accepted without a delivery id, and so are in neither.
	Unnamed int64 `json:"unnamed"`

	// Answers by status. "0" is a request that got none: stalled until its client left, reset, or cut off.
	ByStatus map[string]map[string]int64 `json:"by_status"` // platform → status → answers
	ByOrigin map[string]map[string]int64 `json:"by_origin"` // service → status → answers
	ByApp    map[string]map[string]int64 `json:"by_app"`    // app → status → answers
}

const receiptShards = 64

// receipts is the ground truth: every id accepted, with how often, in memory and if asked also in a file.
type receipts struct {
	shards [receiptShards]struct {
		sync.Mutex
		times map[ID]uint8 // guarded; stops at 255
		_     [40]byte     // a cache line each
	}
	distinct, repeats, unnamed atomic.Int64
	// answers[service][app]; the last app is "not known".
	answers [services][]tally
	world   *world
	devices []byDevice // of each app

	mu   sync.Mutex // guards file, out and line
	file *os.File   // nil: memory only
	out  *bufio.Writer
	line []byte
}

// byDevice counts by device, in chunks that are made when one of theirs is asked: most of a million never are.
type byDevice []atomic.Pointer[[deviceChunk]requests]

const deviceChunk = 1024

// requests are those to a device, and how many of them were taken.
type requests struct{ asked, accepted atomic.Uint32 }

// counts are a device's, or nil if there is no device of that key.
func (r *receipts) counts(k key, known bool) *requests {
	if !known || int(k.app) >= len(r.devices) || int(k.index) >= r.world.Devices {
		return nil
	}
	chunk := &r.devices[k.app][k.index/deviceChunk]
	if chunk.Load() == nil {
		chunk.CompareAndSwap(nil, new([deviceChunk]requests))
	}
	// A reset may take it away at once: then this one is counted before it.
	if c := chunk.Load(); c != nil {
		return &c[k.index%deviceChunk]
	}
	return nil
}

// tally counts answers by status.
type tally [600]atomic.Int64

// newReceipts keeps them in memory only.
func newReceipts(w *world) *receipts {
	r := &receipts{world: w, devices: make([]byDevice, len(w.apps))}
	for i := range r.answers {
		r.answers[i] = make([]tally, len(w.apps)+1)
	}
	for i := range r.devices {
		r.devices[i] = make(byDevice, (w.Devices+deviceChunk-1)/deviceChunk)
	}
	r.clear()
	return r
}

// openReceipts also keeps them in a file, if it has a name, and counts what that holds.
func openReceipts(name string, w *world) (*receipts, error) {
	r := newReceipts(w)
	if name == "" {
		return r, nil
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("simulator: receipts: %w", err)
	}
	if err := r.load(f); err != nil {
		return nil, fmt.Errorf("simulator: receipts: %s: %w", name, errors.Join(err, f.Close()))
	}
	r.file, r.out = f, bufio.NewWriterSize(f, 1<<18)
	return r, nil
}

// load counts what an earlier simulator accepted, and cuts the half line that it may have died over.
func (r *receipts) load(f *os.File) error {
	in := bufio.NewReaderSize(f, 1<<18)
	var good int64
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF {
			return f.Truncate(good)
		}
		if err != nil {
			return err
		}
		var rec struct{ ID, App, Device string }
		if err := json.Unmarshal(line, &rec); err != nil {
			return fmt.Errorf("byte %d: %w", good, err)
		}
		good += int64(len(line))
		if t := r.counts(r.world.called(rec.App, rec.Device)); t != nil {
			t.accepted.Add(1)
		}
		if id, ok := ParseID(rec.ID); ok {
			r.count(id)
		} else {
			r.unnamed.Add(1)
		}
	}
}

func (r *receipts) count(id ID) {
	s := &r.shards[id[15]%receiptShards]
	s.Lock()
	n := s.times[id]
	if n < math.MaxUint8 {
		s.times[id] = n + 1
	}
	s.Unlock()
	if n == 0 {
		r.distinct.Add(1)
	} else {
		r.repeats.Add(1)
	}
}

// accepted notes an answer that took a delivery.
func (r *receipts) accepted(a Answer, c *call, now time.Time) {
	if a.Named {
		r.count(a.ID)
	} else {
		r.unnamed.Add(1)
	}
	if t := r.counts(c.target.key(), c.known); t != nil {
		t.accepted.Add(1)
	}
	if r.file == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := append(r.line[:0], `{"id":"`...)
	if a.Named {
		b = a.ID.append(b)
	}
	b = append(b, `","app":"`...)
	if c.app >= 0 {
		b = append(b, r.world.apps[c.app].Name...)
	}
	b = append(b, `","platform":"`...)
	b = append(b, c.Service.platform()...)
	b = append(b, `","origin":"`...)
	b = append(b, c.Service.String()...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(a.Status), 10)
	b = append(b, `,"time":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	if c.known {
		b = append(b, `,"device":"`...)
		b = append(appendDeviceID(b, c.target.index), '"')
	}
	b = append(b, '}', '\n')
	r.line = b
	_, _ = r.out.Write(b) // a bufio.Writer keeps its error for flush, which reports it
}

// asked counts a request to a device.
func (r *receipts) asked(t target) {
	if n := r.counts(t.key(), true); n != nil {
		n.asked.Add(1)
	}
}

// answered counts an answer; status 0 is none. app is -1 when it is not known whose it was.
func (r *receipts) answered(svc Service, app, status int) {
	t := r.answers[svc]
	if app < 0 || app >= len(t) {
		app = len(t) - 1
	}
	t[app][status].Add(1)
}

func (r *receipts) times(id ID) int {
	s := &r.shards[id[15]%receiptShards]
	s.Lock()
	defer s.Unlock()
	return int(s.times[id])
}

// each calls f with every id and how often it was accepted, up to 255, until f fails.
func (r *receipts) each(f func(ID, int) error) error {
	for i := range r.shards {
		s := &r.shards[i]
		s.Lock()
		batch := make(map[ID]uint8, len(s.times))
		for id, n := range s.times {
			batch[id] = n
		}
		s.Unlock()
		for id, n := range batch {
			if err := f(id, int(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *receipts) clear() {
	for i := range r.shards {
		s := &r.shards[i]
		s.Lock()
		s.times = map[ID]uint8{}
		s.Unlock()
	}
	r.distinct.Store(0)
	r.repeats.Store(0)
	r.unnamed.Store(0)
	for _, d := range r.devices {
		for i := range d {
			d[i].Store(nil)
		}
	}
	for svc := range r.answers {
		for app := range r.answers[svc] {
			for status := range r.answers[svc][app] {
				r.answers[svc][app][status].Store(0)
			}
		}
	}
}

// reset forgets everything, in the file too.
func (r *receipts) reset() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	if r.file == nil {
		return nil
	}
	r.out.Reset(r.file)
	return r.file.Truncate(0)
}

func (r *receipts) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.out.Flush()
}

func (r *receipts) close() error {
	err := r.flush()
	if r.file == nil {
		return nil
	}
	return errors.Join(err, r.file.Close())
}

func (r *receipts) summary() Summary {
	s := Summary{
		Distinct: r.distinct.Load(), Repeats: r.repeats.Load(), Unnamed: r.unnamed.Load(),
		ByStatus: map[string]map[string]int64{}, ByOrigin: map[string]map[string]int64{}, ByApp: map[string]map[string]int64{},
	}
	for svc := range r.answers {
		id := Service(svc)
		for app := range r.answers[svc] {
			name := ""
			if app < len(r.world.apps) {
				name = r.world.apps[app].Name
			}
			for status := range r.answers[svc][app] {
				n := r.answers[svc][app][status].Load()
				if n == 0 {
					continue
				}
				code := strconv.Itoa(status)
				add(s.ByStatus, id.platform(), code, n)
				add(s.ByOrigin, id.String(), code, n)
				add(s.ByApp, name, code, n)
			}
		}
	}
	return s
}

func add(m map[string]map[string]int64, key, status string, n int64) {
	if m[key] == nil {
		m[key] = map[string]int64{}
	}
	m[key][status] += n
}
