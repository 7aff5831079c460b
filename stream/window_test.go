package stream

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestCommitSafety (I4) drives a window through random receive, finish, commit, failed commit and restart, with holes in
// the offsets, beside a model that knows the truth: what is committed is never above something unfinished, a restart
// never skips what was not done and committed, and what was committed as done is never handed out again.
func TestCommitSafety(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		t.Repeat(map[string]func(*rapid.T){
			"receive": m.receive,
			"finish":  m.finish,
			"pass":    m.pass,
			"commit":  func(t *rapid.T) { m.commit(t, true) },
			"fail":    func(t *rapid.T) { m.commit(t, false) },
			"restart": m.restart,
			"":        m.check,
		})
	})
}

type model struct {
	log       []int64        // offsets of records
	end       int64          // of the log, which may end in markers
	done      map[int64]bool // ended in this life or committed as done
	durable   map[int64]bool // ended, and the commit stands
	committed int64
	meta      string

	w       *window
	skip    []span
	read    int              // how much of log this life has received
	handed  map[int64]uint64 // unfinished tasks of this life
	nonce   uint64
	inDoubt []int64 // ended since the last commit that stands
}

func newModel() *model {
	m := &model{done: map[int64]bool{}, durable: map[int64]bool{}, handed: map[int64]uint64{}}
	m.w = newWindow(8, 0)
	return m
}

func (m *model) receive(t *rapid.T) {
	if m.read == len(m.log) {
		for range rapid.IntRange(1, 20).Draw(t, "records") {
			m.end += int64(rapid.IntRange(1, 3).Draw(t, "hole"))
			m.log = append(m.log, m.end-1)
		}
	}
	p := m.partition()
	for n := rapid.IntRange(1, len(m.log)-m.read).Draw(t, "take"); n > 0; n-- {
		offset := m.log[m.read]
		m.read++
		seq := m.w.push(offset, 10)
		if p.skips(offset) {
			if !m.durable[offset] {
				t.Fatalf("offset %d is skipped, and was never committed as done", offset)
			}
			m.w.finish(seq)
			continue
		}
		if m.durable[offset] {
			t.Fatalf("offset %d is handed out, and was committed as done", offset)
		}
		m.handed[offset] = seq
	}
	m.skip = p.skip
}

// pass is a marker, or aborted records and one, at the end of the log.
func (m *model) pass(t *rapid.T) {
	if m.read < len(m.log) {
		t.Skip("there are records before it")
	}
	m.end += int64(rapid.IntRange(1, 3).Draw(t, "hole"))
	m.w.pass(m.end)
	if len(m.handed) == 0 && !m.w.passed(m.committed) {
		t.Fatal("all is done, and what was passed would never be committed")
	}
}

func (m *model) finish(t *rapid.T) {
	if len(m.handed) == 0 {
		t.Skip("nothing unfinished")
	}
	offsets := make([]int64, 0, len(m.handed))
	for o := range m.handed {
		offsets = append(offsets, o)
	}
	slices.Sort(offsets)
	o := rapid.SampledFrom(offsets).Draw(t, "offset")
	if !m.w.finish(m.handed[o]) {
		t.Fatalf("offset %d could not be finished", o)
	}
	if m.w.finish(m.handed[o]) {
		t.Fatalf("offset %d was finished twice", o)
	}
	delete(m.handed, o)
	m.inDoubt = append(m.inDoubt, o)
}

func (m *model) commit(t *rapid.T, stands bool) {
	base, done := m.partition().position()
	low, frees := m.w.snapshot()
	m.nonce++
	meta, fits := encodeProgress(m.nonce, base, done)
	if !fits {
		t.Fatalf("%d spans do not fit", len(done))
	}
	if !stands {
		// The consumer keeps the snapshot and tries it again; the model's other way is the restart that forgets it.
		m.restart(t)
		return
	}
	for _, o := range m.log[:m.read] {
		if _, unfinished := m.handed[o]; unfinished && o < base {
			t.Fatalf("committed %d with %d unfinished", base, o)
		}
	}
	if base < m.committed {
		t.Fatalf("committed %d after %d", base, m.committed)
	}
	m.w.release(low, frees)
	m.committed, m.meta = base, meta
	for _, o := range m.inDoubt {
		m.durable[o] = true
	}
	m.inDoubt = nil
}

func (m *model) partition() *partition { return &partition{skip: m.skip, w: m.w} }

func (m *model) restart(t *rapid.T) {
	done, err := decodeProgress(m.committed, m.meta)
	if m.meta != "" && err != nil {
		t.Fatal(err)
	}
	m.w, m.skip = newWindow(8, m.committed), done
	m.handed, m.inDoubt = map[int64]uint64{}, nil
	m.read, _ = slices.BinarySearch(m.log, m.committed)
}

func (m *model) check(t *rapid.T) {
	if got := m.w.unfinished(); got != len(m.handed) {
		t.Fatalf("window counts %d unfinished, there are %d", got, len(m.handed))
	}
	spans, runs := m.w.position()
	if len(runs) != m.w.runs {
		t.Fatalf("window counts %d runs above %d, there are %d", m.w.runs, spans, len(runs))
	}
	if m.w.held.records < m.w.unfinished() || m.w.held.bytes != int64(10*m.w.held.records) {
		t.Fatalf("window holds %+v with %d unfinished", m.w.held, m.w.unfinished())
	}
}

// TestProgressFits: what throttle lets into a window can be committed, in the shapes that real lanes make.
func TestProgressFits(t *testing.T) {
	shapes := map[string][]span{
		"one slow record before a million": {{1, 1_000_000}},
		"as many runs as fit":              nil,
		"every second of as many offsets":  nil,
	}
	for i := range int64(fitRuns) {
		shapes["as many runs as fit"] = append(shapes["as many runs as fit"], span{1 + i*9000, 9000 + i*9000})
	}
	for o := int64(1); o < fitOffsets; o += 2 {
		shapes["every second of as many offsets"] = append(shapes["every second of as many offsets"], span{o, o + 1})
	}
	for name, done := range shapes {
		meta, fits := encodeProgress(1<<63, 0, done)
		if !fits {
			t.Errorf("%s: %d bytes do not fit", name, len(meta))
			continue
		}
		got, err := decodeProgress(0, meta)
		if err != nil || !slices.Equal(got, done) {
			t.Errorf("%s: came back as %d spans, %v", name, len(got), err)
		}
	}
}

func TestProgressThatDoesNotFitIsToldSo(t *testing.T) {
	var done []span
	for o := int64(1); o < 100_000; o += 2 {
		done = append(done, span{o, o + 1})
	}
	if meta, fits := encodeProgress(1, 0, done); fits {
		t.Fatalf("%d bytes are said to fit", len(meta))
	}
}

func TestProgressOfAnotherOffsetIsRefused(t *testing.T) {
	meta, _ := encodeProgress(7, 100, []span{{105, 110}})
	if _, err := decodeProgress(101, meta); err == nil {
		t.Fatal("a map made for offset 100 was taken for 101")
	}
	b := []byte(meta)
	b[20] ^= 1
	if _, err := decodeProgress(100, string(b)); err == nil {
		t.Fatal("a map with a flipped bit was taken")
	}
}

func FuzzDecodeProgress(f *testing.F) {
	runs, _ := encodeProgress(7, 100, []span{{105, 110}, {120, 121}})
	f.Add(int64(100), runs)
	f.Add(int64(100), seal(progressBitmap, 7, 100, []byte{0x55, 0xf0}))
	f.Add(int64(0), "")
	f.Fuzz(func(t *testing.T, base int64, meta string) {
		done, err := decodeProgress(base, meta)
		at := base
		for _, s := range done {
			if err != nil || s.from < at || s.to <= s.from {
				t.Fatalf("spans %v with error %v", done, err)
			}
			at = s.to
		}
	})
}
