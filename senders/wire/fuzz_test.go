package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// once counts how often each request ends, and reads all of each result.
type once struct {
	mu   sync.Mutex
	ends map[*Request]int
}

func (o *once) Answered(results []Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range results {
		r := &results[i]
		o.ends[r.Request]++
		if len(r.Body) > maxBody || (r.Status > 0) == (r.Err != nil) || r.Status > 0 && (r.Status < 200 || r.Status > 999) {
			panic("a result that is none: " + got{Result: *r}.String())
		}
		_ = r.Header.Get("content-length")
	}
}

// FuzzReader plays bytes to a connection with requests in flight, as a server would that may do anything: nothing panics, each
// request ends once, and no goroutine is left (synctest sees to that).
func FuzzReader(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		synctest.Test(t, func(*testing.T) {
			const requests = 8
			o := &once{ends: map[*Request]int{}}
			c := New(Options{Addr: "127.0.0.1", MaxConns: 1, Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("there is only one")
			}})
			c.dialing = true // this connection is it
			ours, theirs := net.Pipe()
			raw := newBatched(ours)
			k := newConn(c, raw, raw, "")
			c.begun(k)
			c.wg.Go(func() { k.run(time.Now().Add(dialTimeout)) })
			var peer sync.WaitGroup
			peer.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
			batch := make([]*Request, requests)
			for i := range batch {
				batch[i] = &Request{Path: "/", Body: make([]byte, 100), Handler: o, Timeout: time.Hour}
			}
			_, _ = theirs.Write(settings())
			c.Send(batch)
			synctest.Wait()
			_ = theirs.SetWriteDeadline(time.Now().Add(time.Minute))
			_, _ = theirs.Write(said)
			synctest.Wait()
			_ = theirs.Close()
			synctest.Wait()
			c.Close()
			peer.Wait()
			if len(o.ends) != requests {
				t.Errorf("%d of %d requests ended", len(o.ends), requests)
			}
			for _, n := range o.ends {
				if n != 1 {
					t.Errorf("a request ended %d times", n)
				}
			}
		})
	})
}

func settings() []byte {
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WriteSettings()
	return b.Bytes()
}

// seeds are conversations that reach each kind of frame.
func seeds() [][]byte {
	conversation := func(say func(f *http2.Framer)) []byte {
		var b bytes.Buffer
		f := http2.NewFramer(&b, nil)
		f.AllowIllegalWrites = true
		say(f)
		return b.Bytes()
	}
	head := func(f *http2.Framer, id uint32, end bool, pairs ...string) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: literals(pairs...), EndHeaders: true, EndStream: end})
	}
	return [][]byte{
		nil,
		conversation(func(f *http2.Framer) {
			head(f, 1, true, ":status", "200", "apns-id", "x")
			head(f, 3, false, ":status", "100")
			head(f, 3, false, ":status", "400", "content-length", "3")
			_ = f.WriteDataPadded(3, false, []byte("abc"), []byte{0, 0})
			head(f, 3, true, "trailer", "t")
			_ = f.WriteRSTStream(5, http2.ErrCodeRefusedStream)
			_ = f.WriteData(7, true, []byte("too early"))
		}),
		conversation(func(f *http2.Framer) {
			_ = f.WriteSettings(
				http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1},
				http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14},
			)
			_ = f.WriteWindowUpdate(0, 1000)
			_ = f.WriteWindowUpdate(1, maxWindow)
			_ = f.WritePing(false, [8]byte{1})
			_ = f.WritePing(true, [8]byte{0, 0, 0, 0, 0, 0, 0, 1})
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x88, 0x40}})
			_ = f.WriteContinuation(3, true, []byte{1, 'a', 1, 'b', 0xbe})
			_ = f.WriteGoAway(5, http2.ErrCodeNo, []byte("bye"))
			_ = f.WriteGoAway(1, http2.ErrCodeNo, nil)
			head(f, 1, true, ":status", "200")
		}),
		conversation(func(f *http2.Framer) {
			_ = f.WritePriority(3, http2.PriorityParam{Weight: 1})
			_ = f.WriteRawFrame(0x99, 0xff, 1, []byte("unknown"))
			_ = f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}),
	}
}
