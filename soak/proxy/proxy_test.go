package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// echo is a server that answers each line with itself, and a proxy to it.
func echo(t *testing.T) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	p, err := Listen("127.0.0.1:0", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

func say(t *testing.T, c net.Conn, r *bufio.Reader) {
	t.Helper()
	if _, err := c.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); line != "hello\n" {
		t.Fatalf("got %q, %v", line, err)
	}
}

func TestGoodNetwork(t *testing.T) {
	p := echo(t)
	c, r := dial(t, p)
	say(t, c, r)
	if p.Struck() != 0 {
		t.Error("something was struck")
	}
	// The end of one direction goes through, and the other goes on.
	if _, err := c.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); string(rest) != "last" || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestReset(t *testing.T) {
	p := echo(t)
	c, r := dial(t, p)
	say(t, c, r)
	p.Reset()
	if _, err := r.ReadString('\n'); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	c, r = dial(t, p)
	say(t, c, r)
}

// TestHalfOpen: data vanishes and nobody is told; once lifted, the old connection is reset and a new one works.
func TestHalfOpen(t *testing.T) {
	p := echo(t)
	c, r := dial(t, p)
	say(t, c, r)
	p.Set(Fault{HalfOpen: true})
	if _, err := c.Write([]byte("lost\n")); err != nil {
		t.Fatal(err)
	}
	silent(t, c, r)
	other, otherR := dial(t, p)
	if _, err := other.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	silent(t, other, otherR)
	if p.Struck() == 0 {
		t.Error("nothing was struck")
	}
	p.Set(Fault{})
	if _, err := r.ReadString('\n'); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	if line, err := otherR.ReadString('\n'); line != "hello\n" {
		t.Errorf("one that began meanwhile got %q, %v", line, err)
	}
}

// silent asserts that nothing comes, by a read whose deadline is over.
func silent(t *testing.T, c net.Conn, r *bufio.Reader) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := r.ReadString('\n'); err == nil {
		t.Error("data came through")
	}
	_ = c.SetReadDeadline(time.Time{})
}

func TestSlow(t *testing.T) {
	p := echo(t)
	c, r := dial(t, p)
	for _, f := range []Fault{{Latency: 5 * time.Millisecond}, {PerSecond: 2000}} {
		before := p.Struck()
		p.Set(f)
		began := time.Now()
		say(t, c, r)
		least := 2 * max(f.Latency, time.Duration(f.PerSecond/2000)*3*time.Millisecond)
		if took := time.Since(began); took < least {
			t.Errorf("%+v: took %v, at least %v was due", f, took, least)
		}
		if p.Struck() == before {
			t.Errorf("%+v did not strike", f)
		}
	}
}

func TestSlowClose(t *testing.T) {
	p := echo(t)
	c, r := dial(t, p)
	say(t, c, r)
	p.Set(Fault{SlowClose: 20 * time.Millisecond})
	began := time.Now()
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took < 40*time.Millisecond || p.Struck() != 2 {
		t.Errorf("took %v, struck %d", took, p.Struck())
	}
}

func TestTargetAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p, err := Listen("127.0.0.1:0", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, r := dial(t, p)
	if _, err := r.ReadByte(); err == nil {
		t.Error("data came from nobody")
	}
}
