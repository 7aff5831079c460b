package wire

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fickle is a host whose connections do any of what a provider's may: answer, refuse, reset, stay silent, change limits and
// windows, leave in good order or break off. It counts how often it has begun each request.
type fickle struct {
	mu     sync.Mutex
	begun  map[string]int
	faults map[string]int
}

func (k *fickle) note(what map[string]int, name string) {
	k.mu.Lock()
	what[name]++
	k.mu.Unlock()
}

func (k *fickle) serve(nc net.Conn, dice *rand.Rand) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	if _, err := io.CopyN(io.Discard, in, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	out := bufio.NewWriter(nc)
	f := http2.NewFramer(out, in)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(1 + dice.IntN(100))})
	_ = f.WriteWindowUpdate(0, 1<<30)
	paths := map[uint32]string{}
	leaving := uint32(0) // the last stream, of a GOAWAY that was said
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = f.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			paths[frame.StreamID] = frame.PseudoValue("path")
		case *http2.DataFrame:
			if !frame.StreamEnded() || leaving > 0 && frame.StreamID > leaving {
				continue
			}
			if leaving = k.answer(f, frame.StreamID, paths[frame.StreamID], leaving, dice); leaving == cutOff {
				_ = out.Flush()
				return
			}
		}
	}
}

// cutOff has the connection close.
const cutOff = ^uint32(0)

// answer does something with a request, and returns the last stream that is served from now on, 0 for all.
func (k *fickle) answer(f *http2.Framer, id uint32, path string, leaving uint32, dice *rand.Rand) uint32 {
	fault := func(name string) { k.note(k.faults, name) }
	head := func(end bool, pairs ...string) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: literals(pairs...), EndHeaders: true, EndStream: end})
	}
	if dice.IntN(100) == 0 {
		fault("refused")
		_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		return leaving
	}
	if leaving == 0 && dice.IntN(200) == 0 {
		fault("goaway")
		leaving = id
		_ = f.WriteGoAway(maxStream, http2.ErrCodeNo, nil)
		_ = f.WriteGoAway(id, http2.ErrCodeNo, nil)
	}
	k.note(k.begun, path)
	switch dice.IntN(300) {
	case 0:
		fault("cut")
		return cutOff
	case 1:
		fault("reset")
		_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
	case 2:
		fault("silence")
	case 3:
		fault("malformed")
		head(true, "no", "status")
	case 4, 5, 6:
		fault("settings")
		_ = f.WriteSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(1 + dice.IntN(100))},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(1 + dice.IntN(100000))},
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(dice.IntN(5000))},
		)
		_ = f.WriteWindowUpdate(0, 1)
		head(true, ":status", "200")
	case 7, 8, 9, 10:
		fault("body")
		head(false, ":status", "400", "content-length", "6")
		_ = f.WriteData(id, true, []byte("reason"))
	default:
		head(true, ":status", "200")
	}
	return leaving
}

// tally keeps how each request ended, and goes on sending.
type tally struct {
	mu    sync.Mutex
	ends  map[string][]string
	count chan int
}

func (y *tally) Answered(results []Result) {
	y.mu.Lock()
	for i := range results {
		r := &results[i]
		y.ends[r.Request.Path] = append(y.ends[r.Request.Path], got{Result: *r}.String())
	}
	y.mu.Unlock()
	y.count <- len(results)
}

// Whatever a host does, each request ends once, and none is begun twice: only what was certainly not begun is repeated.
func TestAFickleHost(t *testing.T) {
	const requests, flying = 10000, 400
	listener, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS("h2"))
	if err != nil {
		t.Fatal(err)
	}
	k := &fickle{begun: map[string]int{}, faults: map[string]int{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for seed := uint64(0); ; seed++ {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { k.serve(nc, rand.New(rand.NewPCG(seed, 5))) })
		}
	})
	c := New(Options{Addr: listener.Addr().String(), TLS: clientTLS(), MaxConns: 3})
	y := &tally{ends: map[string][]string{}, count: make(chan int, requests)}
	for sent, ended := 0, 0; ended < requests; ended += <-y.count {
		var batch []*Request
		for ; sent < requests && sent-ended < flying; sent++ {
			r := push(y, sent)
			r.Path = fmt.Sprintf("/%d", sent)
			r.Timeout = time.Second
			batch = append(batch, r)
		}
		c.Send(batch)
	}
	c.Close()
	_ = listener.Close()
	serving.Wait()
	kinds := map[string]int{}
	for i := range requests {
		path := fmt.Sprintf("/%d", i)
		if len(y.ends[path]) != 1 || k.begun[path] > 1 {
			t.Errorf("request %d was begun %d times, and ended as %q", i, k.begun[path], y.ends[path])
			continue
		}
		kinds[y.ends[path][0]]++
		if y.ends[path][0] == "200" && k.begun[path] != 1 {
			t.Errorf("request %d has an answer and was not begun", i)
		}
		if y.ends[path][0][:3] == "not" && k.begun[path] > 0 {
			t.Errorf("request %d ended as %q and was begun", i, y.ends[path])
		}
	}
	for _, fault := range []string{"refused", "goaway", "cut", "reset", "silence", "malformed", "settings", "body"} {
		if k.faults[fault] == 0 {
			t.Errorf("the fault %q never was", fault)
		}
	}
	t.Logf("faults %v; %d kinds of end, %d times 200", k.faults, len(kinds), kinds["200"])
}
