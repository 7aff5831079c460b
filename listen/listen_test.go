package listen

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// failing fails so many accepts with err, and then hands out one end of a pipe each.
type failing struct {
	left   int
	err    error
	failed int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		f.failed++
		return nil, f.err
	}
	c, _ := net.Pipe()
	return c, nil
}
func (f *failing) Close() error   { return nil }
func (f *failing) Addr() net.Addr { return &net.TCPAddr{} }

func accept(number error) error { return &net.OpError{Op: "accept", Net: "tcp", Err: number} }

func TestOutlivesWhatPasses(t *testing.T) {
	for _, number := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM} {
		synctest.Test(t, func(t *testing.T) {
			var said bytes.Buffer
			f := &failing{left: 20, err: accept(number)}
			start := time.Now()
			l := keep(f, Options{Name: "the test", Log: slog.New(slog.NewTextHandler(&said, nil))})
			c, err := l.Accept()
			if err != nil || c == nil || f.failed != 20 {
				t.Fatalf("%v: %v after %d failures", number, err, f.failed)
			}
			// 5, 10, .. 640 ms are 8 waits of 1.275 s in all, and 12 of a second follow.
			if waited := time.Since(start); waited != 13275*time.Millisecond {
				t.Errorf("%v: waited %v", number, waited)
			}
			for range 5 { // at the limit one is accepted whenever another ends: that is one trouble, not five
				f.left = 1
				if _, err := l.Accept(); err != nil {
					t.Fatalf("%v: %v", number, err)
				}
			}
			time.Sleep(soundAfter)
			if _, err := l.Accept(); err != nil {
				t.Fatalf("%v: %v", number, err)
			}
			if failed, works := strings.Count(said.String(), "level=ERROR"), strings.Count(said.String(), "accepted again"); failed != 1 || works != 1 {
				t.Errorf("%v: said %d times at ERROR and %d times that it works:\n%s", number, failed, works, said.String())
			}
		})
	}
}

func TestEndsWithItsListener(t *testing.T) {
	for _, over := range []error{net.ErrClosed, accept(syscall.EBADF), accept(syscall.EINVAL), io.EOF} {
		if _, err := keep(&failing{left: 1, err: over}, Options{Log: slog.New(slog.DiscardHandler)}).Accept(); !errors.Is(err, over) {
			t.Errorf("%v: got %v", over, err)
		}
	}
}

// A listener that is closed while it waits to try again ends at once.
func TestCloseEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := keep(&failing{left: 1 << 30, err: accept(syscall.EMFILE)}, Options{Log: slog.New(slog.DiscardHandler)})
		ended := make(chan error)
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
		time.Sleep(time.Minute)
		_ = l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

// At the bound the most silent one makes room, and those that speak stay.
func TestTheMostSilentMakesRoom(t *testing.T) {
	var mu sync.Mutex
	var said bytes.Buffer
	l, err := On("127.0.0.1:0", Options{Name: "the test", Limit: 3, Log: slog.New(slog.NewTextHandler(writer{&mu, &said}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go echo(l)
	speaker := dial(t, l)
	say(t, speaker)
	var silent []net.Conn
	for range 20 {
		silent = append(silent, dial(t, l))
		say(t, silent[len(silent)-1])
		say(t, speaker)
	}
	for i, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if i < 18 {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("silent connection %d: %v", i, err)
			}
		} else {
			say(t, c)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(said.String(), "level=WARN"); n != 1 {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
}

// For whom something is being done stays, however silent.
func TestTheBusyStay(t *testing.T) {
	l := keep(&failing{}, Options{Name: "the test", Limit: 3, Log: slog.New(slog.DiscardHandler)})
	var all []*conn
	accept := func() {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c.(*conn))
	}
	accept()
	done := all[0].Busy()
	for range 5 {
		accept()
	}
	open := l.(*listener).open
	if _, there := open[all[0]]; !there || len(open) != 3 {
		t.Errorf("the busy one is there: %v, of %d", there, len(open))
	}
	done()
	accept()
	if _, there := open[all[0]]; there {
		t.Error("it stays though it is not busy any more")
	}
	for c := range open {
		defer c.Busy()()
	}
	accept()
	if _, there := open[all[len(all)-1]]; !there || len(open) != 3 {
		t.Errorf("where all are busy a new one is there: %v, of %d", there, len(open))
	}
}

type writer struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // until either side ends
		}()
	}
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func say(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// This process's own limit is what it says.
func TestDescriptors(t *testing.T) {
	limit, err := Descriptors()
	if err != nil || limit < 64 {
		t.Fatalf("%d, %v", limit, err)
	}
}
