package wire

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// Whatever requests come, in whatever order, and however the peer changes its table: its decoder reads what they are.
func TestBlocksAreDecodedAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBlock("push.test")
		dec := hpack.NewDecoder(4096, nil)
		value := rapid.StringMatching(`[a-z]{0,3}|[a-z]{120,140}|[a-z]{900}`)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "resize") == 0 {
				size := uint32(rapid.SampledFrom([]int{0, 40, 200, 1000, 4096, 1 << 20}).Draw(t, "size"))
				dec.SetAllowedMaxDynamicTableSize(size)
				b.resize(size)
			}
			r := &Request{Path: "/" + value.Draw(t, "path"), Body: make([]byte, rapid.IntRange(0, 2000).Draw(t, "body"))}
			for i := range rapid.IntRange(0, 4).Draw(t, "shared") {
				r.Fields = append(r.Fields, Field{fmt.Sprintf("s%d", i), rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "v"), Shared})
			}
			for i := range rapid.IntRange(0, 3).Draw(t, "own") {
				r.Fields = append(r.Fields, Field{fmt.Sprintf("o%d", i), value.Draw(t, "v"), Kind(rapid.IntRange(0, 2).Draw(t, "kind"))})
			}
			r.Fields = rapid.Permutation(r.Fields).Draw(t, "order")
			code, err := b.encode(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := dec.DecodeFull(code)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i].Sensitive = false
			}
			want := []hpack.HeaderField{
				{Name: ":authority", Value: "push.test"},
				{Name: ":method", Value: "POST"},
				{Name: ":scheme", Value: "https"},
				{Name: ":path", Value: r.Path},
			}
			for _, shared := range []bool{true, false} {
				for _, f := range r.Fields {
					if (f.Kind == Shared) == shared {
						want = append(want, hpack.HeaderField{Name: f.Name, Value: f.Value})
					}
				}
			}
			want = append(want, hpack.HeaderField{Name: "content-length", Value: fmt.Sprint(len(r.Body))})
			if !slices.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

// The third request of a kind costs a few bytes for what it shares with the first two.
func TestSharedFieldsTakeAByteEach(t *testing.T) {
	b := newBlock("api.push.apple.com")
	r := push(nil, 0)
	var sizes []int
	for range 3 {
		code, err := b.encode(r)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(code))
	}
	first, third := sizes[0], sizes[2]
	literal := len(literals("apns-id", r.Fields[5].Value, "apns-collapse-id", r.Fields[6].Value)) + len(r.Path)
	// Three pseudo-fields, five shared ones, the path's and the length's literals.
	if third > literal+3+5+2+6 || first < third+100 {
		t.Errorf("the first took %d bytes, the third %d, of which %d are its own", first, third, literal)
	}
}

// A request that HTTP/2 does not permit is refused by itself, and leaves the table as it was.
func TestInvalidRequests(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		sound := func(change func(r *Request)) *Request {
			r := &Request{Path: "/x?y=%20", Handler: f.sink, Fields: []Field{{Name: "s", Value: "1", Kind: Shared}, {Name: "o", Value: "é\t2"}}}
			change(r)
			return r
		}
		bad := map[string]func(r *Request){
			":path": func(r *Request) { r.Path = "/a b" }, ":path ": func(r *Request) { r.Path = "" }, ":path  ": func(r *Request) { r.Path = "http://x/" },
			":path   ": func(r *Request) { r.Path = "/\r\n" },
			"s":        func(r *Request) { r.Fields[0].Value = "a\nb" }, "s ": func(r *Request) { r.Fields[0].Value = " a" },
			"o": func(r *Request) { r.Fields[1].Value = "\x00" }, "o ": func(r *Request) { r.Fields[1].Value = "a\t" },
			"name": func(r *Request) { r.Fields[1].Name = "O" }, "name ": func(r *Request) { r.Fields[0].Name = "a:b" },
		}
		n := 0
		for name, change := range bad {
			f.client.Send([]*Request{sound(change), sound(func(*Request) {})})
			n++
			check(t, "count", f.count(), n)
			g := f.sink.got[n-1]
			var invalid *InvalidError
			if !errors.As(g.Err, &invalid) || invalid.Field != strings.TrimSpace(name) || g.Sent {
				t.Errorf("%q: %v, sent %t", name, g.Err, g.Sent)
			}
		}
		blocks := f.peer(0).sent(http2.FrameHeaders, 0)
		check(t, "the sound ones", len(blocks), len(bad))
		for _, b := range blocks {
			check(t, "shared", b.get("s"), "1")
			check(t, "path", b.get(":path"), "/x?y=%20")
		}
	})
}

// The table finds every open stream and no other, whatever the order in which they end.
func TestStreamsAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newStreams(1)
		live := map[uint32]*Request{}
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			if rapid.IntRange(0, 99).Draw(t, "open") < 60 {
				s := table.open()
				if live[s.id] != nil || s.id%2 == 0 || !table.idle(table.next) || table.idle(s.id) {
					t.Fatalf("opened %d", s.id)
				}
				s.req = &Request{}
				live[s.id] = s.req
				continue
			}
			ids := slices.Sorted(maps.Keys(live))
			if len(ids) == 0 {
				continue
			}
			id := ids[rapid.IntRange(0, len(ids)-1).Draw(t, "which")]
			table.close(table.get(id), ended)
			if s := table.get(id); s == nil || s.state != ended {
				t.Fatalf("%d is not remembered as ended", id)
			}
			delete(live, id)
		}
		found := 0
		table.all(func(s *stream) {
			if found++; live[s.id] != s.req {
				t.Fatalf("stream %d has another's request", s.id)
			}
		})
		if found != len(live) || table.live != len(live) {
			t.Fatalf("%d found, %d counted, %d live", found, table.live, len(live))
		}
		for id, r := range live {
			if s := table.get(id); s == nil || s.req != r {
				t.Fatalf("stream %d is not found", id)
			}
		}
	})
}

// The queue keeps its order, and takes out what is late wherever it is.
func TestTheQueueKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var model []*Request
		now := time.Unix(1000, 0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2, 3, 4:
				r := &Request{}
				if rapid.Bool().Draw(t, "late") {
					r.due = now.Add(-1)
				}
				q.push(entry{req: r})
				model = append(model, r)
			case 5:
				r := &Request{due: now.Add(1)}
				q.pushFront(entry{req: r})
				model = append([]*Request{r}, model...)
			case 6, 7, 8:
				if len(model) == 0 {
					continue
				}
				if got := q.pop().req; got != model[0] {
					t.Fatal("another came out")
				}
				model = model[1:]
			default:
				gone := q.expire(now, nil)
				kept := slices.DeleteFunc(slices.Clone(model), func(r *Request) bool { return r.late(now) })
				if len(gone) != len(model)-len(kept) {
					t.Fatalf("%d went, of %d late", len(gone), len(model)-len(kept))
				}
				model = kept
			}
			if q.n != len(model) {
				t.Fatalf("%d in the queue, of %d", q.n, len(model))
			}
		}
	})
}

func TestSplitOfAnAuthority(t *testing.T) {
	for authority, want := range map[string][2]string{
		"push.example":      {"push.example", "push.example:443"},
		"push.example:8443": {"push.example", "push.example:8443"},
		"192.0.2.1":         {"192.0.2.1", "192.0.2.1:443"},
		"[2001:db8::1]":     {"2001:db8::1", "[2001:db8::1]:443"},
		"[2001:db8::1]:444": {"2001:db8::1", "[2001:db8::1]:444"},
	} {
		if host, addr := split(authority); host != want[0] || addr != want[1] {
			t.Errorf("%s: got %s and %s, not %v", authority, host, addr, want)
		}
	}
}
